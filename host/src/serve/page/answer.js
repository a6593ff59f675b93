// One answer, from the request to its last token. It is plain data, which the store keeps:
//
//   state       "streaming", "done", "stopped" or "failed"; one that is stored as streaming, but that nobody
//               receives, was interrupted
//   text, reasoning, finish, usage, error
//   firstTokenMs, from the request; decodeMs, from the first token to the last

import { ApiError, streamChat } from "./api.js";
import { formatNumber, formatRate } from "./format.js";

const SHORTEST_DECODE_MS = 50;

export function newAnswer(model = "the model") {
  return { role: "assistant", model, state: "streaming", text: "", reasoning: "" };
}

export class Run {
  #abort = new AbortController();
  #onChange;
  #askForKey;

  /** Seconds until a busy server is asked again. */
  retryInS = 0;

  /** `onChange` is called whenever there is more to show; `askForKey` comes back with whether there is one. */
  constructor(answer, { onChange, askForKey }) {
    this.answer = answer;
    this.#onChange = onChange;
    this.#askForKey = askForKey;
  }

  stop() {
    this.#abort.abort();
  }

  /** Ends when the answer does, in whatever way; it never fails. */
  async finish(request) {
    const { answer } = this;
    try {
      await this.#receiveOrRecover(request);
      answer.state = "done";
    } catch (error) {
      this.#end(error);
    }
    // A connection that is not read to its end must not keep the server at work.
    this.#abort.abort();
  }

  #end(error) {
    const { answer } = this;
    answer.state = this.#abort.signal.aborted ? "stopped" : "failed";
    if (answer.state === "stopped") return;
    answer.error = error.message;
    if (!(error instanceof ApiError)) console.error(error);
  }

  /** Once for each: a busy server is asked again later, and one that wants a key with a key. */
  async #receiveOrRecover(request, recovered = []) {
    try {
      await this.#receive(request);
    } catch (error) {
      if (recovered.includes(error.status) || !(await this.#recover(error))) throw error;
      await this.#receiveOrRecover(request, [...recovered, error.status]);
    }
  }

  async #recover({ status, retryAfterS }) {
    if (status === 401) return this.#askForKey();
    if (status !== 429) return false;
    for (this.retryInS = retryAfterS; this.retryInS > 0; this.retryInS -= 1) {
      this.#onChange();
      await sleep(1000, this.#abort.signal);
    }
    this.#onChange();
    return true;
  }

  async #receive(request) {
    const { answer } = this;
    const askedAt = performance.now();
    for await (const { choices, usage } of streamChat(request, this.#abort.signal)) {
      const { delta, finish_reason: finish } = choices?.[0] ?? {};
      if (delta?.content || delta?.reasoning_content) {
        const ms = performance.now() - askedAt;
        answer.firstTokenMs ??= ms;
        answer.decodeMs = ms - answer.firstTokenMs;
        answer.reasoning += delta.reasoning_content ?? "";
        answer.text += delta.content ?? "";
      }
      answer.finish = finish ?? answer.finish;
      answer.usage = usage ?? answer.usage;
      this.#onChange();
    }
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    setTimeout(resolve, ms);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

export function figuresOf({ usage, firstTokenMs, decodeMs }) {
  const figures = [];
  const tokens = usage?.completion_tokens;
  if (tokens > 0) figures.push(`${formatNumber(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
  // Pieces that come all at once say nothing of speed.
  if (tokens > 1 && decodeMs > SHORTEST_DECODE_MS) figures.push(`${formatRate(((tokens - 1) * 1000) / decodeMs)} tokens/s`);
  if (firstTokenMs !== undefined) figures.push(`first token after ${formatNumber(firstTokenMs / 1000, 2)} s`);
  return figures.join(" · ");
}

/** The messages of a request. Questions in a row, without an answer, go as one: many templates want turns. */
export function requestMessages(messages, system) {
  const turns = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (const message of messages) {
    const { role } = message;
    const content = role === "user" ? contentOf(message) : message.text;
    if (content === "") continue;
    if (turns.at(-1)?.role === role) turns.at(-1).content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

export function contentOf({ text, files }) {
  return [...files.map(fencedFile), text].filter(Boolean).join("\n\n");
}

function fencedFile({ name, text }) {
  const longest = Math.max(2, ...Array.from(text.matchAll(/`{3,}/g), ([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}`;
}
