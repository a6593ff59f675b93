// Conversations as files.

import { contentOf } from "./answer.js";
import { element } from "./dom.js";

/** All that is known, as answer.js describes it. */
export function downloadJson(conversation) {
  download(`${fileName(conversation.title)}.json`, "application/json", JSON.stringify(conversation, null, 2));
}

export function downloadMarkdown({ title, messages }) {
  const parts = messages.flatMap((message) =>
    message.role === "user" ? ["## You", contentOf(message)] : [`## ${message.model}`, message.text]);
  download(`${fileName(title)}.md`, "text/markdown", [`# ${title}`, ...parts].join("\n\n"));
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
