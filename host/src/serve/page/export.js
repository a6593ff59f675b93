// Conversations as files.

import { contentOf } from "./answer.js";
import { element } from "./dom.js";

export function downloadJson({ title, created, messages }) {
  const exported = { title, created: new Date(created).toISOString(), messages: messages.map(exportedMessage) };
  download(`${fileName(title)}.json`, "application/json", JSON.stringify(exported, null, 2));
}

export function downloadMarkdown({ title, messages }) {
  const parts = messages.flatMap((message) =>
    message.role === "user" ? ["## You", contentOf(message)] : [`## ${message.model}`, message.text]);
  download(`${fileName(title)}.md`, "text/markdown", [`# ${title}`, ...parts].join("\n\n"));
}

function exportedMessage(message) {
  if (message.role === "user") return { role: "user", content: contentOf(message) };
  const { role, text, reasoning, model, state, finish, usage } = message;
  return { role, content: text, reasoning_content: reasoning || undefined, model, state, finish_reason: finish, usage };
}

function fileName(title) {
  return title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "conversation";
}

function download(name, type, text) {
  const href = URL.createObjectURL(new Blob([text, "\n"], { type }));
  element("a", { href, download: name }).click();
  // The browser has begun to read by then.
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}
