// Markdown within a paragraph: emphasis, code, links. Everything becomes nodes and text, never markup.
//
// While an answer streams in, its text is `open`: what has not been closed yet is shown as if it were about to be, so
// that nothing jumps when the rest arrives.

import { element } from "./dom.js";

const SPECIAL = /[\\`*_~[\]!<\n]|https?:\/\//g;
const ESCAPE = /\\([!-/:-@[-`{-~\n])/y;
const WORD = /[\p{L}\p{N}]/u;
const BREAK = /<br ?\/?>/iy;
const BARE_LINK = /https?:\/\/[^\s<>`]+/iy;
// Behind "]": an address, in angles or with balanced parentheses, and a title, which is left out.
const TARGET = /\]\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\([^\s()]*\))*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/y;
const ARRIVING_TARGET = /\]\([^\s)]*$/y;
const SCHEMES = ["http:", "https:", "mailto:"];
const DEEPEST_EMPHASIS = 3;

export function parseInline(text, open = false) {
  return new InlineParser(text, open).parse();
}

/** A run of `*`, `_` or `~~`, or what is left of it. */
class Delimiter {
  constructor(char, count, canOpen, canClose) {
    Object.assign(this, { char, count, total: count, canOpen, canClose });
  }

  get source() {
    return this.char.repeat(this.count);
  }

  opens(closer) {
    if (this.char !== closer.char) return false;
    // As in CommonMark: `**a*` is not an `a` in italics behind a star.
    const isAmbiguous = this.canClose || closer.canOpen;
    return !isAmbiguous || (this.total + closer.total) % 3 !== 0 || this.total % 3 === 0;
  }
}

class InlineParser {
  at = 0;
  // Nodes, strings, delimiters and brackets, in order.
  parts = [];
  // Where in `parts` there is a `[` or `![` that may turn out to begin a link.
  brackets = [];
  loneTicks = new Set();

  constructor(text, open) {
    this.text = text;
    this.open = open;
  }

  parse() {
    while (this.at < this.text.length) {
      const special = this.match(SPECIAL);
      this.takeText(special?.index ?? this.text.length);
      if (special && !this.takeSpecial(special[0])) this.takeText(this.at + special[0].length);
    }
    return pairDelimiters(this.parts, this.open);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text);
  }

  takeText(end) {
    if (end > this.at) this.push(end, this.text.slice(this.at, end));
  }

  push(end, ...parts) {
    this.parts.push(...parts);
    this.at = end;
    return true;
  }

  /** Whether what begins here was more than text. */
  takeSpecial(special) {
    switch (special) {
      case "\\": return this.takeEscape();
      case "`": return this.takeCode();
      case "*":
      case "_":
      case "~": return this.takeDelimiter(special);
      case "[": return this.takeBracket("[");
      case "!": return this.text[this.at + 1] === "[" && this.takeBracket("![");
      case "]": return this.takeLink();
      case "<": return Boolean(this.match(BREAK)) && this.push(BREAK.lastIndex, element("br"));
      case "\n": return this.takeNewline();
      default: return this.takeBareLink();
    }
  }

  takeEscape() {
    const escape = this.match(ESCAPE);
    if (!escape) return false;
    // One at the end of a line breaks it, as every line is.
    return escape[1] === "\n" ? this.push(this.at + 1) : this.push(ESCAPE.lastIndex, escape[1]);
  }

  takeCode() {
    const start = this.endOfRun("`");
    const length = start - this.at;
    const end = this.findTicks(start, length);
    if (end === null) return this.push(start, "`".repeat(length));
    if (end === start) return this.push(end);
    const code = this.text.slice(start, end).replaceAll("\n", " ");
    const isPadded = code.startsWith(" ") && code.endsWith(" ") && code.trim() !== "";
    return this.push(end + length, element("code", {}, isPadded ? code.slice(1, -1) : code));
  }

  /** Where a run of exactly `length` backticks begins, or null. */
  findTicks(from, length) {
    if (this.loneTicks.has(length)) return null;
    for (let at = from; (at = this.text.indexOf("`", at)) >= 0; ) {
      const end = this.endOfRun("`", at);
      if (end - at === length) return at;
      at = end;
    }
    if (this.open) return this.text.length;
    this.loneTicks.add(length);
    return null;
  }

  endOfRun(char, from = this.at) {
    let end = from;
    while (this.text[end] === char) end += 1;
    return end;
  }

  takeDelimiter(char) {
    const end = this.endOfRun(char);
    const count = end - this.at;
    if (char === "~" && count !== 2) return this.push(end, char.repeat(count));
    const before = this.text[this.at - 1] ?? " ";
    // Something is about to follow where text is open.
    const after = this.text[end] ?? (this.open ? "…" : " ");
    const canOpen = after.trim() !== "" && !(char === "_" && WORD.test(before));
    const canClose = before.trim() !== "" && !(char === "_" && WORD.test(after));
    return this.push(end, new Delimiter(char, count, canOpen, canClose));
  }

  takeBracket(source) {
    this.brackets.push(this.parts.length);
    return this.push(this.at + source.length, { source });
  }

  takeLink() {
    const opener = this.brackets.pop();
    if (opener === undefined) return false;
    const target = this.match(TARGET);
    const end = target ? TARGET.lastIndex : this.text.length;
    const href = target && safeHref((target[1] ?? target[2]).replace(/\\(\W)/g, "$1"));
    if (!href && (target || !this.open || !this.match(ARRIVING_TARGET))) return false;
    const inside = pairDelimiters(this.parts.splice(opener).slice(1), false);
    this.brackets.length = 0;
    return this.push(end, ...(href ? [link(href, ...inside)] : inside));
  }

  takeNewline() {
    const line = this.parts.at(-1);
    if (typeof line === "string") this.parts[this.parts.length - 1] = line.trimEnd();
    let next = this.at + 1;
    while (" \t".includes(this.text[next] ?? "…")) next += 1;
    // Models mean the lines that they write, in verses and addresses.
    return this.push(next, element("br"));
  }

  takeBareLink() {
    if (WORD.test(this.text[this.at - 1] ?? " ")) return false;
    const found = withoutPunctuation(this.match(BARE_LINK)?.[0] ?? "");
    const href = safeHref(found);
    return Boolean(href) && this.push(this.at + found.length, link(href, found));
  }
}

function withoutPunctuation(url) {
  let end = url.length;
  const isOutside = (char) => ".,;:!?'\"*_~".includes(char) || (char === ")" && !url.slice(0, end).includes("("));
  while (end > 0 && isOutside(url[end - 1])) end -= 1;
  return url.slice(0, end);
}

/** The address as the browser understands it, or null if it is none that a model may send somebody to. */
function safeHref(url) {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  return SCHEMES.includes(parsed?.protocol) ? parsed.href : null;
}

function link(href, ...children) {
  return element("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/** Makes emphasis of delimiters that belong together. */
function pairDelimiters(parts, open) {
  const paired = [];
  // Where in `paired` there are delimiters that may still open something.
  const openers = [];
  for (const part of parts) {
    if (part instanceof Delimiter) pair(paired, openers, part);
    else paired.push(part);
  }
  if (open) closeOpen(paired, openers);
  return paired.map(asNode);
}

function asNode(part) {
  return part.source ?? part;
}

function pair(parts, openers, closer) {
  while (closer.canClose && closer.count > 0) {
    const found = openers.findLastIndex((at) => parts[at].opens(closer));
    if (found < 0) break;
    openers.length = found + 1;
    const used = Math.min(2, parts[openers[found]].count, closer.count);
    if (emphasize(parts, openers[found], used)) openers.pop();
    closer.count -= used;
  }
  if (closer.count === 0) return;
  if (closer.canOpen) openers.push(parts.length);
  parts.push(closer);
}

/** Puts what follows an opener into an element, for `used` of its characters; returns whether they are used up. */
function emphasize(parts, at, used) {
  const inside = parts.splice(at + 1).map(asNode);
  const opener = parts[at];
  opener.count -= used;
  if (opener.count === 0) parts.pop();
  const tag = opener.char === "~" ? "del" : used === 2 ? "strong" : "em";
  parts.push(element(tag, {}, ...inside));
  return opener.count === 0;
}

/** Closes what is open at the end, but for what has been for long: that was no emphasis. */
function closeOpen(parts, openers) {
  for (const at of openers.slice(-DEEPEST_EMPHASIS).reverse()) {
    if (at === parts.length - 1) parts.pop();
    else while (!emphasize(parts, at, Math.min(2, parts[at].count)));
  }
}
