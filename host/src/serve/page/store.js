// What the browser keeps: conversations, drafts, settings and the key. Every conversation has an entry of its own, so
// that two tabs do not overwrite each other's. Storage may be full, or switched off: what saves says whether it did.

const CONVERSATION = "dair.conversation.";
const DRAFT = "dair.draft.";
const SETTINGS = "dair.settings";
const KEY = "dair.key";
const LONGEST_TITLE = 60;

function attempt(action, otherwise) {
  try {
    return action();
  } catch {
    return otherwise;
  }
}

function read(key) {
  return attempt(() => JSON.parse(localStorage.getItem(key)), null);
}

function write(key, value) {
  return attempt(() => {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  }, false);
}

function remove(key) {
  attempt(() => localStorage.removeItem(key));
}

// --- Conversations

export function newConversation() {
  return { id: newId(), title: "New conversation", created: Date.now(), updated: Date.now(), messages: [] };
}

function newId() {
  // `crypto.randomUUID` is for secure contexts only: not over plain HTTP from another machine.
  return crypto.getRandomValues(new BigUint64Array(1))[0].toString(36);
}

export function titleOf({ text, files }) {
  const line = text.split("\n", 1)[0] || files[0].name;
  return line.length > LONGEST_TITLE ? `${line.slice(0, LONGEST_TITLE - 1)}…` : line;
}

export function loadConversations() {
  const keys = attempt(() => Object.keys(localStorage), []);
  const ids = keys.filter((key) => key.startsWith(CONVERSATION)).map((key) => key.slice(CONVERSATION.length));
  const loaded = ids.map(loadConversation).filter(Boolean);
  return new Map(loaded.map((conversation) => [conversation.id, conversation]));
}

export function loadConversation(id) {
  const conversation = read(CONVERSATION + id);
  return conversation?.id === id && Array.isArray(conversation.messages) ? conversation : null;
}

export function saveConversation(conversation) {
  return write(CONVERSATION + conversation.id, conversation);
}

export function removeConversation(id) {
  remove(CONVERSATION + id);
  remove(DRAFT + id);
}

export function onChangeElsewhere(changed) {
  addEventListener("storage", ({ key }) => {
    if (key?.startsWith(CONVERSATION)) changed(key.slice(CONVERSATION.length));
  });
}

// --- Drafts: what is typed but not sent

export function loadDraft(id) {
  return { text: "", files: [], ...read(DRAFT + id) };
}

export function saveDraft(id, draft) {
  if (draft.text !== "" || draft.files.length > 0) return write(DRAFT + id, draft);
  remove(DRAFT + id);
  return true;
}

// --- Settings and key

export function loadSettings() {
  return { system: "", ...read(SETTINGS) };
}

export function saveSettings(settings) {
  return write(SETTINGS, settings);
}

// For browsers that keep nothing.
let keyOfPage = "";

export function loadKey() {
  return attempt(() => localStorage.getItem(KEY) ?? sessionStorage.getItem(KEY), null) ?? keyOfPage;
}

export function isKeyRemembered() {
  return attempt(() => localStorage.getItem(KEY) !== null, false);
}

/** A key that is not to be remembered lasts as long as the tab. */
export function saveKey(key, isRemembered) {
  keyOfPage = key;
  attempt(() => {
    localStorage.removeItem(KEY);
    sessionStorage.removeItem(KEY);
    if (key !== "") (isRemembered ? localStorage : sessionStorage).setItem(KEY, key);
  });
}
