// The list of conversations, and the drawer that it is on narrow screens.

import { byId, element, iconButton } from "./dom.js";

export class Sidebar {
  #list = byId("conversations");
  #handlers;
  #shown;

  /** `onRename(id, title)`, `onDelete(id)`. */
  constructor(handlers) {
    this.#handlers = handlers;
  }

  show(conversations, currentId, runningIds) {
    this.#shown = [conversations, currentId, runningIds];
    // A name that is being written stays; the list comes up to date afterwards.
    if (this.#list.querySelector("input")) return;
    const newestFirst = conversations.toSorted((one, other) => other.updated - one.updated);
    this.#list.replaceChildren(...newestFirst.map((conversation) =>
      this.#entry(conversation, conversation.id === currentId, runningIds.has(conversation.id))));
  }

  #entry({ id, title }, isCurrent, isRunning) {
    const link = element("a", { className: "item", href: `#/${id}` }, element("span", { className: "name" }, title));
    if (isCurrent) link.ariaCurrent = "page";
    if (isRunning) link.append(element("span", { className: "running", role: "img", ariaLabel: "answering" }));
    const entry = element("li", { className: isCurrent ? "current" : "" }, link);
    entry.append(
      iconButton("edit", `Rename “${title}”`, () => this.#rename(entry, id, title)),
      iconButton("delete", `Delete “${title}”`, () => this.#handlers.onDelete(id)),
    );
    return entry;
  }

  #rename(entry, id, title) {
    const input = element("input", { value: title, ariaLabel: "Name of the conversation" });
    input.addEventListener("blur", () => {
      input.remove();
      this.show(...this.#shown);
      const name = input.value.trim();
      if (name !== "" && name !== title) this.#handlers.onRename(id, name);
    });
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      if (event.key === "Escape") input.value = title;
      input.blur();
      this.#list.querySelector(`[href="#/${id}"]`).focus();
    });
    entry.replaceChildren(input);
    input.select();
  }
}

export function setUpDrawer() {
  const opener = byId("open-drawer");
  const closer = byId("close-drawer");

  function set(isOpen) {
    if (isOpen === byId("page").inert) return;
    document.body.classList.toggle("drawer-open", isOpen);
    byId("page").inert = isOpen;
    opener.ariaExpanded = String(isOpen);
    (isOpen ? closer : opener).focus();
  }

  opener.addEventListener("click", () => set(true));
  closer.addEventListener("click", () => set(false));
  byId("backdrop").addEventListener("click", () => set(false));
  byId("sidebar").addEventListener("click", (event) => event.target.closest("a") && set(false));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || !byId("page").inert) return;
    event.preventDefault();
    set(false);
  });
  matchMedia("(min-width: 48rem)").addEventListener("change", () => set(false));
}
