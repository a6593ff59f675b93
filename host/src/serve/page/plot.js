// A small line plot of the last two minutes, drawn as SVG, and said in words for those who do not see it.

import { element, svgElement } from "./dom.js";
import { formatRate, isNumber } from "./format.js";

const SPAN_MS = 120_000;
// A longer time without a sample is a gap: the page was out of sight, or the server out of reach.
const GAP_MS = 3500;
const WIDTH = 600;
const HEIGHT = 120;

export class Plot {
  #samples = [];
  #title;
  #lines;
  #values;
  #top = element("span", { className: "top small muted" });
  #svg = svgElement("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });

  /** `lines`: their names; a single line needs none. */
  constructor(title, lines = [""]) {
    this.#title = title;
    this.#lines = lines;
    this.#values = lines.map((name, index) => element("span", { className: name && `named line-${index}` }, name));
    const caption = element("figcaption", {}, element("h3", {}, title), ...this.#values);
    const axis = element("div", { className: "axis small muted" }, element("span", {}, "2 min ago"), element("span", {}, "now"));
    this.element = element("figure", { className: "plot" }, caption, this.#top, this.#svg, axis);
  }

  /** Adds a sample with a value for each line; what is no number is a gap. */
  add(at, values) {
    this.#samples.push({ at, values });
    this.#samples = this.#samples.filter((sample) => sample.at >= at - SPAN_MS);
    const top = roundUp(Math.max(...this.#samples.flatMap((sample) => sample.values).filter(isNumber)));
    this.#top.textContent = formatRate(top);
    this.#svg.replaceChildren(...this.#lines.map((_, index) => this.#path(index, at, top)));
    this.#svg.ariaLabel = `${this.#title}: ${this.#lines.map((name, index) => this.#inWords(name, index)).join("; ")}`;
    this.#lines.forEach((name, index) => {
      this.#values[index].textContent = `${name} ${formatRate(values[index])}`;
    });
  }

  #path(index, now, top) {
    let path = "";
    let lastAt = -Infinity;
    for (const { at, values } of this.#samples) {
      if (!isNumber(values[index])) continue;
      const x = WIDTH * (1 - (now - at) / SPAN_MS);
      const y = HEIGHT * (1 - values[index] / top);
      path += `${at - lastAt > GAP_MS ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
      lastAt = at;
    }
    return svgElement("path", { class: `line-${index}`, d: path });
  }

  #inWords(name, index) {
    const values = this.#samples.map((sample) => sample.values[index]).filter(isNumber);
    if (values.length === 0) return `${name} unknown`;
    const [now, least, most] = [values.at(-1), Math.min(...values), Math.max(...values)].map(formatRate);
    return `${name} now ${now}, between ${least} and ${most} in the last two minutes`;
  }
}

/** The next of 1, 2, 5, 10, 20, 50, …: an axis that seldom moves. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}
