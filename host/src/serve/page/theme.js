// A classic script in the head: it runs before the first paint, so that no page flashes in the wrong colours.
(() => {
  const KEY = "dair.theme";
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  function apply(theme) {
    root.dataset.theme = THEMES.includes(theme) ? theme : THEMES[0];
    for (const label of document.querySelectorAll(".theme-name")) label.textContent = root.dataset.theme;
  }

  function switchToNext() {
    apply(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
    try {
      localStorage.setItem(KEY, root.dataset.theme);
    } catch {
      // It holds for this page all the same.
    }
  }

  try {
    apply(localStorage.getItem(KEY));
  } catch {
    apply("auto");
  }
  document.addEventListener("DOMContentLoaded", () => {
    apply(root.dataset.theme);
    document.querySelector(".theme-switch").addEventListener("click", switchToNext);
  });
})();
