// The server's API: models, answers as they are made, and the state of the cluster.

import { loadKey } from "./store.js";

const RETRY_AFTER_S = 5;
const LONGEST_RETRY_S = 600;

export class ApiError extends Error {
  constructor(message, response) {
    super(message);
    this.status = response?.status;
    this.retryAfterS = retryAfterS(response);
  }
}

export async function listModels() {
  const { data } = await getJson("/v1/models");
  if (!data?.length) throw new ApiError("The server has no model.");
  return data;
}

export function getCluster(signal) {
  return getJson("/cluster", signal);
}

/** The chunks of an answer, one after the other, until the server says that it is complete. */
export async function* streamChat(request, signal) {
  const response = await call("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return;
    const chunk = parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message ?? "The server could not go on.");
    yield chunk;
  }
  throw new ApiError("The connection ended before the answer did.");
}

async function getJson(path, signal) {
  return parse(await (await call(path, { signal })).text());
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    throw new ApiError("What the server says is no JSON.");
  }
}

async function call(path, options) {
  const key = loadKey();
  const headers = key === "" ? options.headers : { ...options.headers, Authorization: `Bearer ${key}` };
  const response = await fetch(path, { ...options, headers }).catch(failAs("The server is out of reach."));
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiError(body?.error?.message ?? `The server answers with status ${response.status}.`, response);
}

/** Makes an ApiError of what the network throws, but for a request that was given up here. */
function failAs(message) {
  return (error) => {
    throw error instanceof TypeError ? new ApiError(message) : error;
  };
}

/** What `Retry-After` says, if that is a number. */
function retryAfterS(response) {
  const seconds = Number(response?.headers.get("Retry-After"));
  return Math.min(seconds || RETRY_AFTER_S, LONGEST_RETRY_S);
}

/** The data of server-sent events, each of which is one line here. */
async function* eventData(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read().catch(failAs("The connection to the server broke."));
    if (done) return;
    const lines = (pending + decoder.decode(value, { stream: true })).split("\n");
    pending = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice("data:".length).trim();
    }
  }
}
