// The settings, and the question for a key.

import { byId } from "./dom.js";
import { isKeyRemembered, loadKey, saveKey } from "./store.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

export function openSettings(settings, onSave) {
  const dialog = byId("settings");
  const form = dialog.querySelector("form");
  const { elements } = form;
  for (const name of ["system", ...NUMBERS]) elements[name].value = settings[name] ?? "";
  elements.key.value = loadKey();
  elements.remember.checked = isKeyRemembered();
  form.onsubmit = () => {
    saveKeyOf(form);
    onSave(settingsOf(form));
  };
  show(dialog);
}

function settingsOf({ elements }) {
  // What is empty is left to the server.
  const numbers = NUMBERS.map((name) => [name, elements[name].value ? elements[name].valueAsNumber : undefined]);
  return { system: elements.system.value, ...Object.fromEntries(numbers) };
}

function show(dialog) {
  dialog.querySelector(".cancel").onclick = () => dialog.close();
  dialog.showModal();
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
  dialog.returnValue = "";
  show(dialog);
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const isGiven = dialog.returnValue === "use";
      if (isGiven) saveKeyOf(form);
      resolve(isGiven);
    };
  });
}
