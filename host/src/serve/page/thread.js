// The messages of a conversation on the page.

import { figuresOf } from "./answer.js";
import { copyButton, element, fitHeight, iconButton, isSendKey, textButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";

/** `actions`: `edit(question, text)`, `regenerate()`, `stop()`. */
export class Thread {
  #element;
  #actions;
  #views = [];

  constructor(element, actions) {
    this.#element = element;
    this.#actions = actions;
  }

  get isEditing() {
    return this.#element.querySelector("form") !== null;
  }

  /** Shows these messages, the last of which `run` receives, if there is one. Known ones keep their views. */
  show(messages, run) {
    const isKnown = (message, index) => this.#views[index]?.message === message;
    const firstNew = messages.findIndex((message, index) => !isKnown(message, index));
    const known = firstNew < 0 ? messages.length : firstNew;
    for (const view of this.#views.splice(known)) view.element.remove();
    for (const message of messages.slice(known)) this.#add(message, message === run?.answer ? run : null);
    this.#element.classList.toggle("busy", Boolean(run));
  }

  #add(message, run) {
    const View = message.role === "user" ? QuestionView : AnswerView;
    const view = new View(message, this.#actions);
    view.update(run);
    this.#views.push(view);
    this.#element.append(view.element);
  }

  /** Shows what has come of the last answer; `run` is null when it is over. Returns how it reads. */
  update(run) {
    const view = this.#views.at(-1);
    view.update(run);
    return view.plainText;
  }
}

function articleOf(className, heading, ...children) {
  return element("article", { className }, element("h2", { className: "visually-hidden" }, heading), ...children);
}

class QuestionView {
  bubble = element("div", { className: "bubble" });
  edit = iconButton("edit", "Edit and ask again", () => this.showForm());
  footer = element("footer", {}, this.edit);

  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.element = articleOf("question", "You", this.bubble, this.footer);
  }

  update() {
    const { text, files } = this.message;
    this.bubble.replaceChildren(...files.map(foldedFile), ...(text === "" ? [] : [element("p", {}, text)]));
    this.footer.hidden = false;
  }

  showForm() {
    const area = element("textarea", { value: this.message.text, ariaLabel: "Edit the question", rows: 1, enterKeyHint: "send" });
    const send = element("button", { className: "button primary" }, "Ask again");
    const form = element("form", {}, area, element("div", { className: "row" }, textButton("Cancel", () => this.cancel()), send));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.actions.edit(this.message, area.value.trim());
    });
    area.addEventListener("input", () => fitHeight(area));
    form.addEventListener("keydown", (event) => {
      if (event.target === area && isSendKey(event)) form.requestSubmit();
      else if (event.key === "Escape" && !event.isComposing) this.cancel();
      else return;
      event.preventDefault();
    });
    this.footer.hidden = true;
    this.bubble.replaceChildren(...this.message.files.map(foldedFile), form);
    fitHeight(area);
    area.focus();
  }

  cancel() {
    this.update();
    this.edit.focus();
  }
}

function foldedFile({ name, text }) {
  return element("details", {}, element("summary", {}, name), element("pre", { tabIndex: 0 }, text));
}

class AnswerView {
  reasoningBody = element("div", { className: "markdown" });
  reasoning = element("details", { className: "reasoning" }, element("summary", {}, "Reasoning"), this.reasoningBody);
  body = element("div", { className: "markdown" });
  status = element("div");
  figures = element("span", { className: "small muted" });
  reasoningView = new MarkdownView(this.reasoningBody);
  view = new MarkdownView(this.body);

  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    const copy = copyButton("Copy answer", () => message.text);
    const regenerate = iconButton("regenerate", "Regenerate the answer", () => actions.regenerate());
    regenerate.classList.add("regenerate");
    const footer = element("footer", {}, copy, regenerate, this.figures);
    this.element = articleOf("answer", `Answer of ${message.model}`, this.reasoning, this.body, this.status, footer);
  }

  get plainText() {
    return this.body.textContent;
  }

  update(run) {
    const { message } = this;
    const isOpen = run !== null;
    this.reasoning.hidden = message.reasoning === "";
    this.reasoningView.update(message.reasoning, isOpen);
    this.view.update(message.text, isOpen);
    this.figures.textContent = isOpen ? "" : figuresOf(message);
    this.element.classList.toggle("open", isOpen);
    this.element.ariaBusy = String(isOpen);
    this.showStatus(isOpen ? statusOfRun(run) : statusOf(message));
  }

  showStatus([kind, text, action]) {
    this.status.className = `status ${kind}`;
    this.status.hidden = text === "";
    const [line, button] = this.status.children;
    if (line?.textContent === text) return;
    // A countdown leaves its button alone: somebody may be about to press it.
    if (line && button?.textContent === action) line.textContent = text;
    else this.status.replaceChildren(element("p", {}, text), ...(action ? [this.actionButton(action)] : []));
  }

  actionButton(action) {
    return textButton(action, () => (action === "Cancel" ? this.actions.stop() : this.actions.regenerate()));
  }
}

/** What there is to say about an answer on its way: kind, text, and what can be done. */
function statusOfRun({ retryInS, answer }) {
  if (retryInS > 0) return ["waiting", `The server is busy. Trying again in ${retryInS} s.`, "Cancel"];
  if (answer.text !== "") return ["waiting", ""];
  return ["waiting", answer.reasoning === "" ? "Reading the question…" : "Reasoning…"];
}

/** And about one that nobody receives any more. */
function statusOf({ state, error, finish }) {
  switch (state) {
    case "streaming": return ["warning", "Interrupted: the page was left before the answer was complete.", "Regenerate"];
    case "failed": return ["error", error, "Try again"];
    case "stopped": return ["note", "Stopped."];
    default: return ["note", finish === "length" ? "The answer reached its longest length." : ""];
  }
}
