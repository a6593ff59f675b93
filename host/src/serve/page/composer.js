// Where a question is written: text, attached files, and the button that sends or stops.

import { announce, byId, element, fitHeight, icon, isSendKey } from "./dom.js";
import { fileChip, readFiles } from "./files.js";

export class Composer {
  #form = byId("composer");
  #text = byId("question");
  #button = byId("send");
  #files = [];
  #isRunning = false;
  #handlers;

  /** `onSend(question)`, `onStop()`, and `onDraft()` when what is written changes. */
  constructor(handlers) {
    this.#handlers = handlers;
    this.#text.addEventListener("input", () => this.#changed());
    this.#text.addEventListener("keydown", (event) => this.#pressed(event));
    this.#text.addEventListener("paste", (event) => this.#pasted(event));
    this.#button.addEventListener("click", () => (this.#isRunning ? handlers.onStop() : this.#send()));
    this.#attachByButton();
    this.#attachByDrop(document.body);
  }

  focus() {
    // Where a finger points, focus would open a keyboard over the page.
    if (matchMedia("(pointer: fine)").matches) this.#text.focus();
  }

  get draft() {
    return { text: this.#text.value, files: this.#files };
  }

  set draft({ text, files }) {
    this.#text.value = text;
    this.#files = files;
    this.#refuse([]);
    this.#show();
  }

  set isRunning(isRunning) {
    this.#isRunning = isRunning;
    this.#button.ariaLabel = isRunning ? "Stop" : "Send";
    this.#button.title = isRunning ? "Stop (Escape)" : "Send (Enter)";
    this.#button.replaceChildren(icon(isRunning ? "stop" : "send"));
    this.#show();
  }

  #show() {
    byId("attached").replaceChildren(...this.#files.map((file) => fileChip(file, () => this.#detach(file))));
    this.#button.disabled = !this.#isRunning && this.#isEmpty();
    fitHeight(this.#text);
  }

  #isEmpty() {
    return this.#text.value.trim() === "" && this.#files.length === 0;
  }

  #changed() {
    this.#show();
    this.#handlers.onDraft();
  }

  #pressed(event) {
    if (!isSendKey(event)) return;
    event.preventDefault();
    // What is typed while an answer comes stays, to be sent afterwards.
    if (!this.#isRunning) this.#send();
  }

  #send() {
    if (this.#isEmpty()) return;
    const { text, files } = this.draft;
    this.draft = { text: "", files: [] };
    this.#handlers.onSend({ text: text.trim(), files });
  }

  #attachByButton() {
    const input = element("input", { type: "file", multiple: true });
    input.addEventListener("change", async () => {
      await this.#attach(input.files);
      input.value = "";
    });
    byId("attach").addEventListener("click", () => input.click());
  }

  #attachByDrop(target) {
    const listen = (type, action) => target.addEventListener(type, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      action(event);
    });
    const light = (isLit) => this.#form.classList.toggle("dropping", isLit);
    listen("dragover", () => light(true));
    listen("dragleave", (event) => light(event.relatedTarget !== null));
    listen("drop", (event) => {
      light(false);
      this.#attach(event.dataTransfer.files);
    });
  }

  #pasted(event) {
    const { files, types } = event.clipboardData;
    // Spreadsheets put a picture beside the text that is meant.
    if (files.length === 0 || types.includes("text/plain")) return;
    event.preventDefault();
    this.#attach(files);
  }

  async #attach(chosen) {
    const { files, refusals } = await readFiles(chosen);
    this.#files = [...this.#files, ...files];
    this.#refuse(refusals);
    announce(`Attached: ${files.map((file) => file.name).join(", ") || "nothing"}.`);
    this.#changed();
    this.#text.focus();
  }

  #refuse(lines) {
    byId("refusals").replaceChildren(...lines.map((line) => element("p", {}, line)));
  }

  #detach(file) {
    this.#files = this.#files.filter((other) => other !== file);
    this.#changed();
    this.#text.focus();
  }
}
