// Markdown as models write it, into nodes. Kinder than CommonMark: any indentation nests, and there is no code by
// indentation. Whatever an answer contains becomes text; no markup of its own gets through.

import { copyButton, element } from "./dom.js";
import { parseInline } from "./inline.js";

const FENCE = /^([ \t]*)(`{3,}(?=[^`]*$)|~{3,})[ \t]*(\S*)/;
const HEADING = /^[ \t]*(#{1,6})[ \t]+(.*)$/;
const RULE = /^[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^[ \t]*>[ \t]?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*))?$/;
const TABLE_RULE = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const TABLE_RULE_START = /^[ \t|:-]*$/;
// A line of which nobody can tell yet what it will be.
const LONE_MARKER = /^[ \t]*(?:[-*+_~`>#|]{1,3}|\d{1,3}[.)])[ \t]*$/;

// The page itself has headings of the first two levels.
const HEADING_OFFSET = 2;
const DEEPEST_NESTING = 12;
const TAB_WIDTH = 4;

/** Shows a text that grows: what does not change stays the same nodes. */
export class MarkdownView {
  #element;
  #text = "";
  #blocks = [];

  constructor(element) {
    this.#element = element;
  }

  /** `open` says that more of the text is to come. */
  update(text, open = false) {
    const shown = open ? withoutLoneMarker(text) : text;
    // A line that is only begun may belong to the last block or the one before; the others are settled.
    const settled = shown.startsWith(this.#text) ? Math.max(0, this.#blocks.length - 2) : 0;
    const blocks = blocksFrom(shown, this.#blocks[settled]?.offset ?? 0, open);
    const outdated = this.#blocks.splice(settled, Infinity, ...blocks);
    blocks.forEach((block, index) => this.#place(block, outdated[index]));
    for (const { node } of outdated.slice(blocks.length)) node.remove();
    this.#text = shown;
  }

  #place(block, outdated) {
    if (outdated?.source === block.source && outdated.open === block.open) {
      block.node = outdated.node;
    } else if (outdated?.kind === "code" && block.kind === "code" && outdated.language === block.language) {
      block.node = outdated.node;
      block.node.querySelector("code").firstChild.data = block.text;
    } else {
      block.node = render(block, 0);
      if (outdated) outdated.node.replaceWith(block.node);
      else this.#element.append(block.node);
    }
  }
}

function withoutLoneMarker(text) {
  const line = text.lastIndexOf("\n") + 1;
  return LONE_MARKER.test(text.slice(line)) ? text.slice(0, line) : text;
}

/** The blocks of `text` from `offset` on, with their sources and where in the text they begin. */
function blocksFrom(text, offset, open) {
  const lines = text.slice(offset).split("\n");
  const blocks = parseBlocks(lines, open);
  let line = 0;
  for (const block of blocks) {
    for (; line < block.start; line += 1) offset += lines[line].length + 1;
    block.offset = offset;
    block.source = lines.slice(block.start, block.end).join("\n");
  }
  return blocks;
}

// --- Lines into blocks

/** The outermost blocks: what is in them is parsed when they are rendered. */
function parseBlocks(lines, open) {
  const blocks = [];
  for (let start = skipBlank(lines, 0); start < lines.length; start = skipBlank(lines, blocks.at(-1).end)) {
    blocks.push({ ...readBlock(lines, start, open), start, open: false });
  }
  if (open && blocks.length > 0) blocks.at(-1).open = true;
  return blocks;
}

function readBlock(lines, start, open) {
  for (const read of [readFence, readHeading, readRule, readQuote, readTable, readList]) {
    const block = read(lines, start, open);
    if (block) return block;
  }
  return readParagraph(lines, start, open);
}

function skipBlank(lines, from) {
  let at = from;
  while (at < lines.length && isBlank(lines[at])) at += 1;
  return at;
}

function isBlank(line) {
  return line.trim() === "";
}

function indentOf(line) {
  return /^[ \t]*/.exec(line)[0].replaceAll("\t", " ".repeat(TAB_WIDTH)).length;
}

/** Whether a line ends the paragraph before it. */
function interrupts(lines, at, open) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  // "In the summer of / 1984. It was" begins no list.
  const item = readMarker(line);
  if (item?.text && (!item.ordered || item.number === 1)) return true;
  return isTable(lines, at, open);
}

function readFence(lines, start) {
  const fence = FENCE.exec(lines[start]);
  if (!fence) return null;
  let end = start + 1;
  while (end < lines.length && !closesFence(lines[end], fence)) end += 1;
  const [, { length: indent }, , language] = fence;
  const text = lines.slice(start + 1, end).map((line) => dedent(line, indent)).join("\n");
  return { kind: "code", language, text, end: Math.min(end + 1, lines.length) };
}

function closesFence(line, [, , marks]) {
  const closing = line.trim();
  return closing.length >= marks.length && closing === marks[0].repeat(closing.length);
}

function dedent(line, indent) {
  return line.slice(Math.min(indent, line.length - line.trimStart().length));
}

function readHeading(lines, start) {
  const heading = HEADING.exec(lines[start]);
  if (!heading) return null;
  const text = heading[2].trimEnd();
  const unclosed = text.endsWith("#") ? text.replace(/\s+#+$/, "") : text;
  return { kind: "heading", level: heading[1].length, text: unclosed, end: start + 1 };
}

function readRule(lines, start) {
  return RULE.test(lines[start]) ? { kind: "rule", end: start + 1 } : null;
}

function readQuote(lines, start) {
  if (!QUOTE.test(lines[start])) return null;
  let end = start + 1;
  while (end < lines.length && (QUOTE.test(lines[end]) || continuesParagraph(lines, end))) end += 1;
  return { kind: "quote", lines: lines.slice(start, end).map((line) => line.replace(QUOTE, "")), end };
}

/** Whether a line goes on with the paragraph before it though it is not indented or marked as that is. */
function continuesParagraph(lines, at) {
  return !isBlank(lines[at]) && !isBlank(lines[at - 1]) && !interrupts(lines, at, false) && !ITEM.test(lines[at]);
}

function readParagraph(lines, start, open) {
  let end = start + 1;
  while (end < lines.length && !isBlank(lines[end]) && !interrupts(lines, end, open)) end += 1;
  return { kind: "paragraph", text: lines.slice(start, end).join("\n").trim(), end };
}

// --- Lists

function readMarker(line) {
  const item = ITEM.exec(line);
  if (!item) return null;
  const [, indentation, marker, space = " ", text = ""] = item;
  const indent = indentOf(indentation);
  const number = Number.parseInt(marker, 10);
  const offset = indent + marker.length + Math.min(space.length, TAB_WIDTH);
  return { indent, offset, text, number, ordered: !Number.isNaN(number), sign: marker.at(-1) };
}

function readList(lines, start) {
  const first = readMarker(lines[start]);
  if (!first) return null;
  const items = [];
  let end = start;
  for (let next = start; next < lines.length; next = skipBlank(lines, end)) {
    const marker = RULE.test(lines[next]) ? null : readMarker(lines[next]);
    if (marker?.sign !== first.sign) break;
    end = endOfItem(lines, next, marker);
    items.push([" ".repeat(marker.offset) + marker.text, ...lines.slice(next + 1, end)]);
  }
  return { kind: "list", ordered: first.ordered, number: first.number, items, end };
}

/** Behind the last line of an item: what is indented below it, fences whole, and its paragraph. */
function endOfItem(lines, start, marker) {
  const inside = Math.min(marker.offset, marker.indent + 2);
  let fence = FENCE.exec(marker.text);
  let end = start + 1;
  for (let at = end; at < lines.length; at += 1) {
    const line = lines[at];
    if (fence) {
      if (closesFence(line, fence)) fence = null;
    } else if (isBlank(line)) {
      continue;
    } else if (indentOf(line) >= inside) {
      fence = FENCE.exec(line);
    } else if (!continuesParagraph(lines, at)) {
      break;
    }
    end = at + 1;
  }
  return end;
}

// --- Tables

function isTable(lines, at, open) {
  const header = lines[at];
  if (!header.includes("|")) return false;
  const rule = lines[at + 1] ?? "";
  if (TABLE_RULE.test(rule)) return cellsOf(rule).length === cellsOf(header).length;
  // The line below is on its way.
  return open && at + 2 >= lines.length && header.trimStart().startsWith("|") && TABLE_RULE_START.test(rule);
}

function readTable(lines, start, open) {
  if (!isTable(lines, start, open)) return null;
  let end = Math.min(start + 2, lines.length);
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const alignments = cellsOf(lines[start + 1] ?? "").map(alignmentOf);
  return { kind: "table", alignments, header: cellsOf(lines[start]), rows: lines.slice(start + 2, end).map(cellsOf), end };
}

function cellsOf(line) {
  const row = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function alignmentOf(rule) {
  if (!rule.endsWith(":")) return "";
  return rule.startsWith(":") ? "center" : "right";
}

// --- Blocks into nodes

function render(block, depth) {
  switch (block.kind) {
    case "code": return renderCode(block);
    case "heading": return renderText(`h${Math.min(6, block.level + HEADING_OFFSET)}`, block);
    case "rule": return element("hr");
    case "quote": return element("blockquote", {}, ...renderLines(block.lines, block.open, depth + 1));
    case "list": return renderList(block, depth);
    case "table": return renderTable(block);
    default: return renderText("p", block);
  }
}

function renderLines(lines, open, depth) {
  if (depth > DEEPEST_NESTING) return [element("p", {}, lines.join("\n"))];
  return parseBlocks(lines, open).map((block) => render(block, depth));
}

function renderText(tag, { text, open }) {
  return element(tag, {}, ...parseInline(text, open));
}

function renderList({ ordered, number, items, open }, depth) {
  const entries = items.map((lines, index) =>
    element("li", {}, ...renderLines(lines, open && index === items.length - 1, depth + 1)));
  return ordered ? element("ol", { start: number }, ...entries) : element("ul", {}, ...entries);
}

function renderTable({ alignments, header, rows, open }) {
  const row = (tag, cells, isOpen) =>
    element("tr", {}, ...header.map((_, column) => {
      const nodes = parseInline(cells[column] ?? "", isOpen && column === cells.length - 1);
      return element(tag, { className: alignments[column] ?? "" }, ...nodes);
    }));
  const body = rows.map((cells, index) => row("td", cells, open && index === rows.length - 1));
  const table = element("table", {}, element("thead", {}, row("th", header, false)), element("tbody", {}, ...body));
  return element("div", { className: "table", tabIndex: 0, role: "region", ariaLabel: "Table" }, table);
}

function renderCode({ language, text }) {
  const code = element("code", {}, text);
  const caption = element("figcaption", {}, language || "text", copyButton("Copy code", () => code.textContent));
  return element("figure", { className: "code" }, caption, element("pre", { tabIndex: 0 }, code));
}
