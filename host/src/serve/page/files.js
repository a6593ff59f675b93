// Text files that go with a question.

import { element, iconButton } from "./dom.js";
import { formatBytes } from "./format.js";

const LARGEST_BYTES = 1_000_000;

export async function readFiles(chosen) {
  const read = await Promise.all(Array.from(chosen, readFile));
  return {
    files: read.filter((file) => typeof file !== "string"),
    refusals: read.filter((file) => typeof file === "string"),
  };
}

async function readFile(file) {
  const { name, size } = file;
  if (size > LARGEST_BYTES) return `${name} has ${formatBytes(size)}: more than ${formatBytes(LARGEST_BYTES)}.`;
  try {
    return { name, text: decode(await file.arrayBuffer()) };
  } catch (error) {
    return error instanceof TypeError ? `${name} is no text file.` : `${name} cannot be read.`;
  }
}

/** The text, or a TypeError where there is none. */
function decode(bytes) {
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  if (text.includes("\0")) throw new TypeError("binary");
  return text;
}

export function fileChip({ name, text }, onRemove) {
  const size = element("span", { className: "muted" }, formatBytes(new Blob([text]).size));
  const remove = iconButton("close", `Take ${name} away`, onRemove);
  return element("li", { className: "chip small" }, element("span", { className: "name" }, name), size, remove);
}
