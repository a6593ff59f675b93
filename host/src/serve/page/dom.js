// Making elements, and the few things that all modules do with them.

const SVG = "http://www.w3.org/2000/svg";
const COPIED_MS = 1500;

export function byId(id) {
  return document.getElementById(id);
}

/** An element with properties (not attributes) and children; strings become text, never markup. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function svgElement(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export function icon(name) {
  const svg = svgElement("svg", { class: "icon", "aria-hidden": "true" });
  svg.append(svgElement("use", { href: `#icon-${name}` }));
  return svg;
}

export function iconButton(name, label, onclick) {
  const properties = { type: "button", className: "icon-button little", title: label, ariaLabel: label, onclick };
  return element("button", properties, icon(name));
}

export function textButton(label, onclick) {
  return element("button", { type: "button", className: "button", onclick }, label);
}

export function announce(text) {
  byId("announcer").textContent = text;
}

export function copyButton(label, textOf) {
  const button = iconButton("copy", label, async () => {
    const isCopied = await copy(textOf());
    announce(isCopied ? "Copied." : "The browser does not copy.");
    button.replaceChildren(icon(isCopied ? "check" : "close"));
    setTimeout(() => button.replaceChildren(icon("copy")), COPIED_MS);
  });
  return button;
}

async function copy(text) {
  // Over plain HTTP from another machine the page is no secure context, and has no clipboard.
  if (!navigator.clipboard) return copySelection(text);
  return navigator.clipboard.writeText(text).then(() => true, () => false);
}

function copySelection(text) {
  const focused = document.activeElement;
  const area = element("textarea", { className: "visually-hidden", value: text });
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return isCopied;
}

export function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

/** Whether a key press asks to send. Within a composition, Enter only chooses a word. */
export function isSendKey(event) {
  const isComposing = event.isComposing || event.keyCode === 229;
  return event.key === "Enter" && !event.shiftKey && !isComposing;
}
