// Drives `dair serve` with the clients that people have in JavaScript: OpenAI's own and Vercel's AI SDK.
//
//     node clients.mjs ADDRESS [NARROW KEY]
//
// NARROW is a server with one slot, a queue of one, a patience of two seconds, and the API key KEY. A line per check; exit code 1 where one fails.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [address, narrow, key] = process.argv.slice(2);
const HI = [{ role: "user", content: "What is the capital of France?" }];
const WEATHER = { type: "object", properties: { city: { type: "string", enum: ["Paris", "Rome"] }, days: { type: "integer", minimum: 1, maximum: 9 } }, required: ["city", "days"], additionalProperties: false };
const TOOLS = [
  { type: "function", function: { name: "weather", description: "The weather of the next days", parameters: WEATHER } },
  { type: "function", function: { name: "time", description: "What time it is", parameters: { type: "object", properties: {}, additionalProperties: false } } },
];
const CITY = z.object({ name: z.enum(["Paris", "Rome", "Oslo"]), inhabitants: z.number().int(), isCapital: z.boolean() }).strict();

let checks = 0;
let failures = 0;

function check(name, holds, seen = "") {
  checks += 1;
  failures += holds ? 0 : 1;
  console.log(holds ? `ok     ${name}` : `FAILED ${name}: ${typeof seen === "string" ? seen : JSON.stringify(seen)}`);
}

const openai = (server = address, apiKey = "none") => new OpenAI({ baseURL: `${server}/v1`, apiKey, maxRetries: 0, timeout: 120_000 });
const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);

async function gathered(stream) {
  const all = [];
  for await (const one of stream) all.push(one);
  return all;
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return new Error("it was taken");
}

/** Waits until nothing is computed, which is soon where nobody listens. */
async function idle() {
  let health;
  for (let tries = 0; tries < 100; tries += 1) {
    health = await (await fetch(`${address}/health`)).json();
    if (health.running === 0 && health.waiting === 0) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** Arguments of a call of the weather, which a grammar holds to their schema. */
function isWeather(text) {
  const { city, days, ...others } = JSON.parse(text);
  return ["Paris", "Rome"].includes(city) && Number.isInteger(days) && days >= 1 && days <= 9 && Object.keys(others).length === 0;
}

async function chats(client) {
  const ask = (more) => client.chat.completions.create({ model: "any", messages: HI, temperature: 0, max_tokens: 24, ...more });
  const whole = await ask();
  const { message, finish_reason } = whole.choices[0];
  check("openai: an answer names Paris", message.content.includes("Paris"), whole);
  check("openai: usage adds up", whole.usage.total_tokens === whole.usage.prompt_tokens + whole.usage.completion_tokens && whole.usage.completion_tokens > 3, whole.usage);
  const chunks = await gathered(await ask({ stream: true, stream_options: { include_usage: true } }));
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  check("openai: a stream has the same text", text === message.content, text);
  check("openai: it ends with its reason, and with usage", chunks.at(-2).choices[0].finish_reason === finish_reason && chunks.at(-1).usage.completion_tokens === whole.usage.completion_tokens, chunks.slice(-2));
  const run = client.chat.completions.stream({ model: "any", messages: HI, temperature: 0, max_tokens: 24 });
  check("openai: its helper puts the stream together", (await run.finalMessage()).content === message.content);
  const stopped = (await ask({ stop: ["Paris"] })).choices[0];
  check("openai: a stop string ends an answer before it", stopped.finish_reason === "stop" && !stopped.message.content.includes("Paris"), stopped);
  check("openai: length is a reason", (await ask({ max_tokens: 2 })).choices[0].finish_reason === "length");
  const seeded = async (seed) => (await ask({ temperature: 1.2, seed, n: 2 })).choices.map((choice) => choice.message.content);
  const [first, again, other] = [await seeded(7), await seeded(7), await seeded(8)];
  check("openai: a seed gives the same answers, another one others", same(first, again) && !same(first, other) && first[1] === other[0], [first, again, other]);
  const told = (await ask({ logprobs: true, top_logprobs: 3, max_tokens: 4 })).choices[0].logprobs.content;
  check("openai: probabilities are told", told.length === 4 && told.every((one) => one.logprob <= 0 && one.top_logprobs.length === 3 && one.token === one.top_logprobs[0].token), told);
  const completed = await client.completions.create({ model: "any", prompt: "One, two, three,", temperature: 0, max_tokens: 6 });
  check("openai: a text is completed", completed.choices[0].text.length > 2 && completed.usage.completion_tokens === 6, completed);
  const models = await gathered(await client.models.list());
  check("openai: models are listed, and found by name", models.length === 1 && (await client.models.retrieve(models[0].id)).id === models[0].id, models);
}

async function forms(client) {
  const parsed = await client.chat.completions.parse({ model: "any", messages: HI, temperature: 0.7, seed: 1, max_tokens: 200, response_format: zodResponseFormat(CITY, "city") });
  const city = parsed.choices[0].message.parsed;
  check("openai: an answer has its schema", parsed.choices[0].finish_reason === "stop" && CITY.safeParse(city).success, parsed.choices[0]);
  const any = await client.chat.completions.create({ model: "any", messages: HI, temperature: 0, max_tokens: 200, response_format: { type: "json_object" } });
  check("openai: an answer is an object", any.choices[0].finish_reason === "length" || typeof JSON.parse(any.choices[0].message.content) === "object", any.choices[0]);
  const error = await failure(client.chat.completions.create({ model: "any", messages: HI, response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "elephant" } } } }));
  check("openai: a schema that is none is named", error instanceof OpenAI.BadRequestError && error.param === "response_format" && error.type === "invalid_request_error", String(error));
}

async function tools(client) {
  const messages = [{ role: "user", content: "What will the weather be in Paris for three days?" }];
  const ask = (more) => client.chat.completions.create({ model: "any", messages, tools: TOOLS, temperature: 0.7, seed: 3, max_tokens: 200, parallel_tool_calls: false, ...more });
  const named = { type: "function", function: { name: "weather" } };
  const { choices: [whole] } = await ask({ tool_choice: named });
  const [call] = whole.message.tool_calls;
  check("openai: a tool that is named is called", whole.finish_reason === "tool_calls" && whole.message.tool_calls.length === 1 && call.type === "function" && call.id && call.function.name === "weather" && isWeather(call.function.arguments), whole);
  const run = client.chat.completions.stream({ model: "any", messages, tools: TOOLS, temperature: 0.7, seed: 3, max_tokens: 200, parallel_tool_calls: false, tool_choice: named });
  const streamed = await run.finalChatCompletion();
  const again = streamed.choices[0].message.tool_calls?.[0].function;
  check("openai: the same call comes in pieces", streamed.choices[0].finish_reason === "tool_calls" && again?.name === "weather" && again.arguments === call.function.arguments, streamed.choices[0]);
  const required = (await ask({ tool_choice: "required", seed: 4 })).choices[0];
  const all = required.message.tool_calls ?? [];
  check("openai: a call is required", required.finish_reason === "tool_calls" && all.length === 1 && ["weather", "time"].includes(all[0].function.name) && typeof JSON.parse(all[0].function.arguments) === "object", required);
  const none = (await ask({ tool_choice: "none", max_tokens: 16 })).choices[0];
  check("openai: no tool is called where none may be", none.message.tool_calls === undefined && none.finish_reason !== "tool_calls", none);
  const auto = (await ask({ max_tokens: 40 })).choices[0];
  check("openai: by itself it answers or calls", typeof auto.message.content === "string" || auto.message.tool_calls.length > 0, auto);
  const result = await client.chat.completions.create({ model: "any", tools: TOOLS, tool_choice: "none", temperature: 0, max_tokens: 32, messages: [...messages, whole.message, { role: "tool", tool_call_id: call.id, content: "It rains." }] });
  check("openai: a result is answered", result.choices[0].message.content.length > 0 && result.usage.prompt_tokens > 50, result);
}

async function refusals(client) {
  for (const [name, body, kind, param, code] of [
    ["a temperature", { messages: HI, temperature: -1 }, OpenAI.BadRequestError, "temperature", null],
    ["a role", { messages: [{ role: "king", content: "x" }] }, OpenAI.BadRequestError, "messages[0].role", null],
    ["a prompt that does not fit", { messages: [{ role: "user", content: "a b ".repeat(9000) }] }, OpenAI.BadRequestError, "messages", "context_length_exceeded"],
    ["a tool that is not there", { messages: HI, tools: TOOLS, tool_choice: { type: "function", function: { name: "nothing" } } }, OpenAI.BadRequestError, "tool_choice", null],
  ]) {
    const error = await failure(client.chat.completions.create({ model: "any", ...body }));
    check(`openai: ${name} is refused by name`, error instanceof kind && error.status === 400 && error.param === param && error.code === code && error.type === "invalid_request_error", String(error));
  }
  const error = await failure(client.models.retrieve("nothing"));
  check("openai: a model that is not there is not found", error instanceof OpenAI.NotFoundError && error.code === "model_not_found" && error.type === "not_found_error", String(error));
}

async function aborts(client) {
  const stream = await client.chat.completions.create({ model: "any", messages: HI, stream: true, ignore_eos: true });
  let seen = 0;
  for await (const chunk of stream) {
    seen += chunk.choices.length;
    if (seen === 3) stream.controller.abort();
  }
  check("openai: who leaves in the middle is not computed for", seen >= 3 && await idle(), seen);
  const controller = new AbortController();
  const promise = failure(client.chat.completions.create({ model: "any", messages: HI, ignore_eos: true }, { signal: controller.signal }));
  setTimeout(() => controller.abort(), 200);
  check("openai: nor who leaves before there is an answer", (await promise) instanceof OpenAI.APIUserAbortError && await idle());
}

async function vercel() {
  const provider = createOpenAICompatible({ name: "dair", baseURL: `${address}/v1`, includeUsage: true, supportsStructuredOutputs: true });
  const model = provider("any");
  const base = { model, messages: HI, temperature: 0, maxOutputTokens: 24, maxRetries: 0 };
  const whole = await ai.generateText(base);
  check("ai: an answer names Paris", whole.text.includes("Paris") && whole.usage.outputTokens > 3 && whole.usage.inputTokens > 10, whole.text);
  const stream = ai.streamText(base);
  const pieces = await gathered(stream.textStream);
  const usage = await stream.usage;
  check("ai: a stream has the same text and usage", pieces.join("") === whole.text && pieces.length > 3 && usage.outputTokens === whole.usage.outputTokens, pieces);
  check("ai: and the same reason to end", await stream.finishReason === whole.finishReason && ["stop", "length"].includes(whole.finishReason), whole.finishReason);
  const stopped = await ai.generateText({ ...base, stopSequences: ["Paris"] });
  check("ai: a stop string ends an answer before it", stopped.finishReason === "stop" && !stopped.text.includes("Paris"), stopped.text);
  const seeded = async (seed) => (await ai.generateText({ ...base, temperature: 1.2, seed })).text;
  check("ai: a seed gives the same answer, another one another", await seeded(5) === await seeded(5) && await seeded(5) !== await seeded(6));

  const { object } = await ai.generateObject({ ...base, schema: CITY, temperature: 0.7, seed: 1, maxOutputTokens: 200 });
  check("ai: an object has its schema", CITY.safeParse(object).success, object);
  const objects = ai.streamObject({ ...base, schema: CITY, temperature: 0.7, seed: 1, maxOutputTokens: 200 });
  const partial = await gathered(objects.partialObjectStream);
  check("ai: it comes in pieces", partial.length > 1 && same(await objects.object, object), partial.at(-1));

  const asked = [];
  const weather = ai.tool({
    description: "The weather of the next days",
    inputSchema: ai.jsonSchema(WEATHER),
    execute: async (input) => {
      asked.push(input);
      return { weather: "rain" };
    },
  });
  const prepareStep = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? { type: "tool", toolName: "weather" } : "none" });
  // A small model would call for ever.
  const once = { providerOptions: { dair: { parallel_tool_calls: false } } };
  const talk = { ...base, ...once, messages: [{ role: "user", content: "What will the weather be in Paris?" }], tools: { weather }, prepareStep, stopWhen: ai.stepCountIs(2), temperature: 0.7, seed: 2, maxOutputTokens: 120 };
  const steps = (await ai.generateText(talk)).steps;
  const [called, answered] = steps;
  check("ai: a tool is called, and its result answered", steps.length === 2 && called.finishReason === "tool-calls" && called.toolCalls[0].toolName === "weather" && isWeather(JSON.stringify(asked[0])) && answered.text.length > 0, steps.map((step) => step.content));
  const parts = await gathered(ai.streamText(talk).fullStream);
  const input = parts.filter((part) => part.type === "tool-input-delta").map((part) => part.delta).join("");
  const last = parts.find((part) => part.type === "tool-call");
  check("ai: the same in pieces", same(last?.input, asked[0]) && same(JSON.parse(input), asked[0]) && parts.some((part) => part.type === "tool-result") && parts.some((part) => part.type === "text-delta"), parts.map((part) => part.type));
  const required = await ai.generateText({ ...base, ...once, tools: { weather }, toolChoice: "required", maxOutputTokens: 200 });
  check("ai: a call is required", required.finishReason === "tool-calls" && required.toolCalls.length === 1, required.content);

  const error = await failure(ai.generateText({ ...base, temperature: -1 }));
  check("ai: a refusal says what is wrong", ai.APICallError.isInstance(error) && error.statusCode === 400 && !error.isRetryable && error.message.startsWith("temperature is -1"), String(error));
  const controller = new AbortController();
  const left = ai.streamText({ ...base, maxOutputTokens: undefined, providerOptions: { dair: { ignore_eos: true } }, abortSignal: controller.signal, onError: () => {} });
  let seen = 0;
  for await (const part of left.fullStream) {
    seen += part.type === "text-delta";
    if (seen === 3) controller.abort();
  }
  check("ai: who leaves in the middle is not computed for", seen >= 3 && await idle(), seen);
}

async function narrowness() {
  const stranger = await failure(openai(narrow, "wrong").models.list());
  check("openai: who has no key is told", stranger instanceof OpenAI.AuthenticationError && stranger.code === "invalid_api_key" && stranger.type === "authentication_error", String(stranger));
  const client = openai(narrow, key);
  const long = () => failure(client.chat.completions.create({ model: "any", messages: HI, ignore_eos: true }));
  const errors = await Promise.all([long(), long(), long(), long()]);
  const [busy, late] = [OpenAI.RateLimitError, OpenAI.InternalServerError].map((kind) => errors.filter((error) => error instanceof kind));
  check("openai: too many are told to come back, and when", busy.length > 0 && busy.every((error) => error.status === 429 && error.type === "rate_limit_error" && Number(error.headers.get("retry-after")) >= 1), errors.map(String));
  check("openai: too slow ones are told that they are", late.length > 0 && late.length + busy.length === 4 && late.every((error) => error.status === 504 && error.type === "server_error"), errors.map(String));
  const retrying = new OpenAI({ baseURL: `${narrow}/v1`, apiKey: key, maxRetries: 3 });
  const crowd = Array.from({ length: 4 }, () => retrying.chat.completions.create({ model: "any", messages: HI, max_tokens: 4 }));
  check("openai: who comes back when he is told gets an answer", (await Promise.all(crowd)).every((answer) => answer.choices[0].message.content.length > 0));
}

const client = openai();
await chats(client);
await forms(client);
await tools(client);
await refusals(client);
await aborts(client);
await vercel();
if (narrow) await narrowness();
console.log(`${checks} checks, ${failures} failed`);
process.exit(failures ? 1 : 0);
