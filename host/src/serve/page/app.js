// The chat page: which conversation is shown, which answers are on their way, and what is kept of both.

import { newAnswer, requestMessages, Run } from "./answer.js";
import { listModels } from "./api.js";
import { Composer } from "./composer.js";
import { askForKey, openSettings } from "./dialogs.js";
import { announce, byId, element, textButton } from "./dom.js";
import { downloadJson, downloadMarkdown } from "./export.js";
import { EndFollower } from "./follow.js";
import { formatNumber } from "./format.js";
import { atMostEvery, oncePerFrame } from "./pace.js";
import { setUpDrawer, Sidebar } from "./sidebar.js";
import * as store from "./store.js";
import { Thread } from "./thread.js";

const SAVE_EVERY_MS = 500;
const UNDO_MS = 10_000;
const ASK_MODELS_AGAIN_MS = 3000;
const LONGEST_ANNOUNCEMENT = 2000;
const NEW = "new";

const conversations = store.loadConversations();
const runs = new Map();
let settings = store.loadSettings();
let models = [];
let modelsTimer;
/** A new conversation is in the list once it has a question. */
let current = store.newConversation();
/** Answers stay as they are from then on: what fails is the leaving. */
let isLeaving = false;

const thread = new Thread(byId("thread"), { edit, regenerate, stop });
const sidebar = new Sidebar({ onRename: rename, onDelete: remove });
const composer = new Composer({ onSend: send, onStop: stop, onDraft: () => keepDraftSoon() });
const follower = new EndFollower(byId("scroll"), byId("thread"), byId("to-end"));
const keepDraftSoon = atMostEvery(SAVE_EVERY_MS, keepDraft);

// --- Conversations

function open(id) {
  keepDraft();
  current = conversations.get(id) ?? store.newConversation();
  show();
  composer.draft = store.loadDraft(draftId());
  follower.toEnd();
  composer.focus();
}

function openFromAddress() {
  open(location.hash.slice(2));
}

function draftId() {
  return conversations.has(current.id) ? current.id : NEW;
}

function keepDraft() {
  if (!store.saveDraft(draftId(), composer.draft)) byId("storage-full").hidden = false;
}

function setAddress(id) {
  history.replaceState(null, "", `#/${id}`);
}

function rename(id, title) {
  const conversation = conversations.get(id);
  conversation.title = title;
  keep(conversation);
  show();
}

function remove(id) {
  const conversation = conversations.get(id);
  const draft = id === current.id ? composer.draft : store.loadDraft(id);
  runs.get(id)?.stop();
  conversations.delete(id);
  store.removeConversation(id);
  if (id === current.id) {
    current = store.newConversation();
    setAddress("");
    composer.draft = store.loadDraft(NEW);
  }
  show();
  offerUndo(conversation, draft);
}

function restore(conversation, draft) {
  conversations.set(conversation.id, conversation);
  keep(conversation);
  store.saveDraft(conversation.id, draft);
  location.hash = `#/${conversation.id}`;
}

function changedElsewhere(id) {
  const isCurrent = id === current.id;
  const stored = store.loadConversation(id);
  // What somebody is at, here or there, is left alone.
  if (runs.has(id) || stored?.messages.at(-1)?.state === "streaming" || (isCurrent && (thread.isEditing || !stored))) return;
  if (stored) conversations.set(id, stored);
  else conversations.delete(id);
  if (isCurrent) current = stored;
  show();
}

// --- Questions and answers

function send(question) {
  if (runs.has(current.id)) return;
  keepDraft();
  current.messages.push({ role: "user", ...question });
  if (!conversations.has(current.id)) begin(question);
  answer(current);
}

function begin(question) {
  current.title = store.titleOf(question);
  conversations.set(current.id, current);
  setAddress(current.id);
}

function edit(question, text) {
  if (runs.has(current.id) || (text === "" && question.files.length === 0)) return;
  current.messages.splice(current.messages.indexOf(question), Infinity, { ...question, text });
  answer(current);
}

function regenerate() {
  if (runs.has(current.id)) return;
  if (current.messages.at(-1)?.role === "assistant") current.messages.pop();
  answer(current);
}

function stop() {
  runs.get(current.id)?.stop();
}

async function answer(conversation) {
  const model = chosenModel();
  const { system, temperature, top_p, max_tokens, seed } = settings;
  const messages = requestMessages(conversation.messages, system);
  const run = new Run(newAnswer(model), { onChange, askForKey: getKey });
  const isOn = () => runs.get(conversation.id) === run;
  const showSoon = oncePerFrame(() => isOn() && conversation === current && thread.update(run));
  const keepSoon = atMostEvery(SAVE_EVERY_MS, () => isOn() && keep(conversation));

  function onChange() {
    showSoon();
    keepSoon();
  }

  conversation.messages.push(run.answer);
  conversation.updated = Date.now();
  runs.set(conversation.id, run);
  keep(conversation);
  show();
  follower.toEnd();
  composer.focus();

  await run.finish({ model, messages, temperature, top_p, max_tokens, seed });

  runs.delete(conversation.id);
  if (isLeaving) return;
  keep(conversation);
  if (conversation === current) announceEnd(run.answer, thread.update(null));
  show();
}

function announceEnd({ state, error }, text) {
  if (state === "failed") announce(`No answer: ${error}`);
  else announce(`${state === "stopped" ? "Stopped" : "Answer"}: ${text.slice(0, LONGEST_ANNOUNCEMENT)}`);
}

// --- Keeping

/** One that was deleted is kept again when it is restored. */
function keep(conversation) {
  if (conversations.has(conversation?.id)) byId("storage-full").hidden = store.saveConversation(conversation);
}

function leave() {
  for (const id of runs.keys()) keep(conversations.get(id));
  keepDraft();
}

function offerUndo(conversation, draft) {
  const toast = byId("toast");
  const undo = textButton("Undo", () => {
    hide();
    restore(conversation, draft);
  });
  const hide = () => {
    if (!toast.contains(undo)) return;
    const hadFocus = toast.contains(document.activeElement);
    toast.replaceChildren();
    if (hadFocus) byId("question").focus();
  };
  toast.replaceChildren(element("p", {}, `Deleted “${conversation.title}”.`), undo);
  undo.focus();
  setTimeout(hide, UNDO_MS);
}

// --- Models and settings

async function loadModels() {
  clearTimeout(modelsTimer);
  try {
    models = await listModels();
    showModels();
    byId("unreachable").textContent = "";
  } catch (error) {
    byId("unreachable").textContent = error.message;
    if (error.status !== 401) modelsTimer = setTimeout(loadModels, ASK_MODELS_AGAIN_MS);
    else if (await askForKey()) loadModels();
  }
}

/** For an answer that needs a key. Where there was none, the models are not known either. */
async function getKey() {
  const isGiven = await askForKey();
  if (isGiven && models.length === 0) loadModels();
  return isGiven;
}

function chosenModel() {
  return (models.find(({ id }) => id === settings.model) ?? models[0])?.id;
}

function changeSettings(changes) {
  settings = { ...settings, ...changes };
  if (!store.saveSettings(settings)) byId("storage-full").hidden = false;
  showModels();
  if (models.length === 0) loadModels();
}

// --- Showing

function show() {
  const run = runs.get(current.id);
  thread.show(current.messages, run);
  sidebar.show([...conversations.values()], current.id, runs);
  composer.isRunning = Boolean(run);
  byId("title").textContent = current.title;
  document.title = conversations.has(current.id) ? `${current.title} – dair` : "dair";
  byId("welcome").hidden = current.messages.length > 0;
  byId("export").disabled = current.messages.length === 0;
  showContext();
}

function showModels() {
  const model = chosenModel();
  const options = models.map(({ id }) => element("option", { value: id, selected: id === model }, id));
  byId("model").replaceChildren(...options);
  byId("model").disabled = models.length < 2;
  byId("question").placeholder = model ? `Ask ${model}` : "Ask a question";
  showContext();
}

function showContext() {
  const used = current.messages.findLast(({ usage }) => usage)?.usage.total_tokens;
  const all = models.find(({ id }) => id === chosenModel())?.context_length;
  byId("context").textContent = used && all ? `${formatNumber(used)} of ${formatNumber(all)} tokens` : "";
}

// --- Setting up

function setUpButtons() {
  byId("open-settings").addEventListener("click", () => openSettings(settings, changeSettings));
  byId("model").addEventListener("change", (event) => changeSettings({ model: event.target.value }));
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("question").focus();
  });
  byId("export-markdown").addEventListener("click", () => downloadMarkdown(current));
  byId("export-json").addEventListener("click", () => downloadJson(current));
}

function stopOnEscape(event) {
  const isForOthers = event.defaultPrevented || event.isComposing || document.querySelector("dialog[open], :popover-open");
  if (event.key === "Escape" && !isForOthers) stop();
}

function setUp() {
  setUpButtons();
  setUpDrawer();
  addEventListener("keydown", stopOnEscape);
  addEventListener("hashchange", openFromAddress);
  addEventListener("pagehide", () => {
    leave();
    isLeaving = true;
  });
  addEventListener("pageshow", (event) => {
    // What comes back from the browser's cache has lost its answers' connections.
    if (event.persisted) location.reload();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave();
  });
  store.onChangeElsewhere(changedElsewhere);
  current = conversations.get(location.hash.slice(2)) ?? current;
  composer.draft = store.loadDraft(draftId());
  show();
  follower.toEnd();
  composer.focus();
  loadModels();
}

setUp();
