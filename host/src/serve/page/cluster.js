// The cluster page: what the server says of its nodes, requests and speed, once a second while somebody looks.

import { getCluster } from "./api.js";
import { byId, element } from "./dom.js";
import { formatBytes, formatDuration, formatNumber, formatPercent, formatRate, isNumber, UNKNOWN } from "./format.js";
import { Plot } from "./plot.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;

// --- What is shown

/** Names of numbers, where they are in what the server says, and how they read. */
const BIG = [
  ["Answer tokens/s", "rates.completion_tokens_per_s", formatRate],
  ["Prompt tokens/s", "rates.prompt_tokens_per_s", formatRate],
  ["Running", "requests.running"],
  ["Waiting", "requests.waiting"],
];

const DETAILS = {
  Requests: [
    ["Served", "requests.served"],
    ["Refused", "requests.refused"],
    ["Cancelled", "requests.cancelled"],
    ["Failed", "requests.failed"],
  ],
  Tokens: [["Of answers", "tokens.completion"], ["Of prompts", "tokens.prompt"], ["Known from before", "tokens.prompt_cached"]],
  "Keys and values": [
    ["Slots", "kv.slots"],
    ["Positions of each", "kv.slot_positions"],
    ["Tokens kept", "kv.cached_tokens"],
    ["Memory", "kv.bytes", formatBytes],
    ["On disk", "kv.disk_bytes", formatBytes],
    ["Tokens found on disk", "kv.disk_tokens"],
  ],
  Network: [
    ["Sent", "network.sent_bytes", formatBytes],
    ["Received", "network.received_bytes", formatBytes],
    ["Time in exchanges, s", "network.exchanging_ms", (ms) => formatNumber(ms / 1000)],
  ],
  "Weights from disk": [["Read", "streaming.read_bytes", formatBytes], ["Found in memory", "streaming.hit_rate", formatPercent]],
};

const PLOTS = [
  [new Plot("Answer tokens/s"), ["rates.completion_tokens_per_s"]],
  [new Plot("Prompt tokens/s"), ["rates.prompt_tokens_per_s"]],
  [new Plot("Requests", ["running", "waiting"]), ["requests.running", "requests.waiting"]],
  [new Plot("Rows of a batch"), ["rates.batch_rows"]],
  [new Plot("Network, MB/s", ["out", "in"]), ["rates.sent_mb_per_s", "rates.received_mb_per_s"]],
];

function numberAt(state, path) {
  const value = path.split(".").reduce((part, name) => part?.[name], state);
  return isNumber(value) ? value : NaN;
}

/** By how much a count has grown since `before`, per second; a count begins anew where the server does. */
function growth(path, state, before) {
  const rate = ((numberAt(state, path) - numberAt(before, path)) * 1000) / (state.at - before.at);
  return rate >= 0 ? rate : NaN;
}

/** The rates that follow from counts, and those that the server tells itself. */
function ratesOf(state, before) {
  return {
    completion_tokens_per_s: growth("tokens.completion", state, before),
    prompt_tokens_per_s: growth("tokens.prompt", state, before),
    sent_mb_per_s: growth("network.sent_bytes", state, before) / 1e6,
    received_mb_per_s: growth("network.received_bytes", state, before) / 1e6,
    ...state.rates,
  };
}

// --- Showing

/** All numbers on the page: their nodes, and how they are read. */
const numbers = [];

function numberList(described, className = "") {
  const pairs = described.map(([name, path, format = formatNumber]) => {
    const node = element("dd", {}, UNKNOWN);
    numbers.push({ node, path, format });
    return element("div", {}, element("dt", {}, name), node);
  });
  return element("dl", { className }, ...pairs);
}

function setUpNumbers() {
  byId("big").append(numberList(BIG, "big"));
  for (const [title, described] of Object.entries(DETAILS)) {
    byId("details").append(element("section", {}, element("h3", {}, title), numberList(described)));
  }
}

function showNumbers(state) {
  for (const { node, path, format } of numbers) setText(node, format(numberAt(state, path)));
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showHeader({ model, fingerprint, uptime_s }) {
  setText(byId("model"), model ?? UNKNOWN);
  setText(byId("about"), `${fingerprint ?? UNKNOWN} · up for ${formatDuration(uptime_s)}`);
}

function nodeRow({ name, address, state, share, memory_bytes, passes, compute_ms, network_ms, disk_ms, round_trip_ms }) {
  const times = [compute_ms, network_ms, disk_ms, round_trip_ms];
  const numbers = [formatBytes(memory_bytes), formatNumber(passes), ...times.map(formatRate)];
  return element("tr", {},
    element("th", { scope: "row" }, name ?? UNKNOWN),
    element("td", {}, address === name ? "" : (address ?? UNKNOWN)),
    element("td", {}, element("span", { className: state === "here" ? "state" : "state out" }, state ?? UNKNOWN)),
    element("td", { className: "right" }, shareBar(share), formatPercent(share)),
    ...numbers.map((number) => element("td", { className: "right" }, number)));
}

/** A plot of each node: where the time of its passes goes. */
const nodePlots = new Map();

function plotNodes(at, nodes) {
  for (const { name, state, compute_ms, network_ms, disk_ms } of nodes) {
    if (!nodePlots.has(name)) {
      nodePlots.set(name, new Plot(`${name ?? "–"}, ms of a pass`, ["compute", "network", "disk"]));
      byId("node-plots").append(nodePlots.get(name).element);
    }
    const times = state === "here" ? [compute_ms, network_ms, disk_ms] : [];
    nodePlots.get(name).add(at, [0, 1, 2].map((index) => times[index] ?? NaN));
  }
}

function shareBar(share) {
  const bar = element("span", { className: "share" });
  bar.style.setProperty("--share", formatPercent(share ?? 0).replace(" ", ""));
  return bar;
}

function eventLine({ at, what }) {
  const time = new Date(at ?? NaN);
  const isKnown = !Number.isNaN(time.getTime());
  const said = isKnown ? time.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" }) : UNKNOWN;
  return element("li", {}, element("time", { dateTime: at ?? "", className: "muted" }, said), element("span", {}, what ?? UNKNOWN));
}

function showEvents(events) {
  const newestFirst = events.toSorted((one, other) => Date.parse(other.at) - Date.parse(one.at));
  byId("events").replaceChildren(...newestFirst.map(eventLine));
  byId("no-events").hidden = events.length > 0;
}

function listOf(value) {
  return Array.isArray(value) ? value.filter(Boolean) : [];
}

// --- Asking

let timer;
let before = {};

function show(state) {
  state.at = Date.now();
  state.rates = ratesOf(state, before);
  showHeader(state);
  showNumbers(state);
  for (const [plot, paths] of PLOTS) plot.add(state.at, paths.map((path) => numberAt(state, path)));
  byId("nodes").replaceChildren(...listOf(state.nodes).map(nodeRow));
  plotNodes(state.at, listOf(state.nodes));
  showEvents(listOf(state.events));
  before = state;
}

async function poll() {
  try {
    show(await getCluster(AbortSignal.timeout(PATIENCE_MS)));
    setText(byId("trouble"), "");
  } catch (error) {
    setText(byId("trouble"), troubleOf(error));
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, EVERY_MS);
}

function troubleOf({ name, status, message }) {
  if (status === 401) return "This server asks for a key. The chat takes it.";
  return name === "TimeoutError" ? "The server does not answer." : message;
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) poll();
});
setUpNumbers();
byId("plots").append(...PLOTS.map(([plot]) => plot.element));
poll();
