// The settings, and the question for a key.

import { byId } from "./dom.js";
import { isKeyRemembered, loadKey, saveKey } from "./store.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

/** Shows the settings; `onSave` is called with what they become. */
export class SettingsDialog {
  #dialog = byId("settings");
  #form = this.#dialog.querySelector("form");

  constructor(onSave) {
    closeByButton(this.#dialog);
    this.#form.addEventListener("submit", () => {
      saveKeyOf(this.#form);
      onSave(this.#read());
    });
  }

  open(settings) {
    const { elements } = this.#form;
    for (const name of ["system", ...NUMBERS]) elements[name].value = settings[name] ?? "";
    elements.key.value = loadKey();
    elements.remember.checked = isKeyRemembered();
    this.#dialog.showModal();
  }

  #read() {
    const { elements } = this.#form;
    const numbers = NUMBERS.map((name) => [name, elements[name].value === "" ? null : elements[name].valueAsNumber]);
    return { system: elements.system.value, ...Object.fromEntries(numbers) };
  }
}

function closeByButton(dialog) {
  dialog.querySelector(".cancel").onclick = () => dialog.close();
}

function saveKeyOf({ elements: { key, remember } }) {
  saveKey(key.value.trim(), remember.checked);
}

let asked = null;

/** Asks for the server's key; comes back with whether there is one now. Who asks meanwhile gets the same answer. */
export async function askForKey() {
  asked ??= showKeyDialog();
  const isGiven = await asked;
  asked = null;
  return isGiven;
}

function showKeyDialog() {
  const dialog = byId("ask-key");
  const form = dialog.querySelector("form");
  form.reset();
  closeByButton(dialog);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const isGiven = dialog.returnValue === "use";
      if (isGiven) saveKeyOf(form);
      resolve(isGiven);
    };
  });
}
