#!/usr/bin/env python3
"""Drives `dair serve` with the clients that people have: the official packages of OpenAI and Ollama, and the command `llm`.

    server.py DAIR MODEL

Starts servers on free ports, asks them everything that README names, and compares what comes back with the shapes that the
clients expect and with itself: an answer with a seed is the same whole, in pieces, alone and among others.
"""

import asyncio
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing
import urllib.request

import ollama
import openai
import pydantic

from serving import DAIR, HI, check, finish, get, post, server


class City(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: typing.Literal["Paris", "Rome", "Oslo"]
    inhabitants: int = pydantic.Field(ge=0, le=99_999_999)
    is_capital: bool


class Weather(pydantic.BaseModel):
    """What the tool of that name is told."""

    model_config = pydantic.ConfigDict(extra="forbid")
    city: typing.Literal["Paris", "Rome"]
    days: int = pydantic.Field(ge=1, le=9)


TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather of the next days", "parameters": Weather.model_json_schema()}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}},
]
RAIN = [{"role": "user", "content": "Will it rain in Paris in the next three days?"}]


def is_valid(model, text):
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError:
        return None


def refused(name, call, kind, param=None):
    try:
        call()
    except kind as error:
        check(name, param is None or error.param == param, error)
    else:
        check(name, False, "it was taken")


def chats(client):
    ask = lambda **more: client.chat.completions.create(model="any", messages=HI, **{"temperature": 0, "max_tokens": 24, **more})
    whole = ask()
    choice = whole.choices[0]
    check("an answer names Paris", "Paris" in choice.message.content, choice)
    check("its usage adds up", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 30, whole.usage)
    check("it has a fingerprint", whole.system_fingerprint.startswith("fp_"), whole)
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check("in pieces it is the same", text == choice.message.content, text)
    check("the role comes first", chunks[0].choices[0].delta.role == "assistant", chunks[0])
    check("the reason to end comes last", chunks[-2].choices[0].finish_reason == choice.finish_reason, chunks[-2])
    check("usage comes at the end", chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, chunks[-1])
    check("the prompt was computed before", chunks[-1].usage.prompt_tokens_details.cached_tokens > 20, chunks[-1].usage)
    check("length is a reason", ask(max_tokens=2).choices[0].finish_reason == "length")
    stopped = ask(stop=["Paris"]).choices[0]
    check("a stop string ends an answer before it", stopped.finish_reason == "stop" and "Paris" not in stopped.message.content, stopped)
    seeded = lambda seed, **more: [c.message.content for c in ask(temperature=1.2, seed=seed, **more).choices]
    check("a seed gives the same answer", seeded(7) == seeded(7))
    check("another seed gives another", seeded(7) != seeded(8))
    cold = {temperature: ask(temperature=temperature).choices[0].message.content for temperature in (1e-3, 1e-6, 1e-40)}
    check("so cold that it is sure, it says the most probable", set(cold.values()) == {choice.message.content}, cold)
    several = seeded(7, n=3)
    check("several answers have seeds in order", several[0] == seeded(7)[0] and several[1] == seeded(8)[0] and len(set(several)) > 1, several)
    told = ask(logprobs=True, top_logprobs=3, max_tokens=4).choices[0].logprobs.content
    check("probabilities are told", len(told) == 4 and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in told), told)
    check("the most probable token is drawn", all(t.token == t.top_logprobs[0].token for t in told), told)
    paris = told[0].token
    biased = ask(logit_bias={tokens(client, paris)[0]: -100}, max_tokens=4).choices[0].message.content
    check("a bias forbids a token", not biased.startswith(paris), biased)
    check("penalties change an answer", ask(frequency_penalty=2, presence_penalty=2, max_tokens=60).choices[0].message.content != ask(max_tokens=60).choices[0].message.content)
    parts = client.chat.completions.create(model="any", temperature=0, max_tokens=24, messages=[{"role": "user", "content": [{"type": "text", "text": HI[0]["content"]}]}])
    check("content may come in parts", parts.choices[0].message.content == choice.message.content)
    refused("a wrong temperature is named", lambda: ask(temperature=-1), openai.BadRequestError, "temperature")
    refused("a wrong role is named", lambda: client.chat.completions.create(model="any", messages=[{"role": "king", "content": "x"}]), openai.BadRequestError, "messages[0].role")
    refused("pictures are refused", lambda: client.chat.completions.create(model="any", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]), openai.BadRequestError, "messages[0].content[0]")
    refused("what does not fit is refused", lambda: client.chat.completions.create(model="any", messages=[{"role": "user", "content": "a b " * 9000}]), openai.BadRequestError, "messages")
    refused("there are no embeddings", lambda: client.embeddings.create(model="any", input="x"), openai.NotFoundError)
    return whole


def tokens(client, text):
    return post(str(client.base_url).removesuffix("/v1/"), "/tokenize", {"content": text})[2]["tokens"]


def completions(client, address):
    ask = lambda **more: client.completions.create(model="any", **{"temperature": 0, "max_tokens": 8, "prompt": "The capital of France is", **more})
    whole = ask()
    check("a text is completed", len(whole.choices[0].text) > 5 and whole.usage.completion_tokens == 8, whole)
    pieces = "".join(chunk.choices[0].text for chunk in ask(stream=True) if chunk.choices)
    check("in pieces, too", pieces == whole.choices[0].text, pieces)
    check("with an echo", ask(echo=True).choices[0].text == "The capital of France is" + whole.choices[0].text)
    ids = post(address, "/tokenize", {"content": "The capital of France is", "add_special": True})[2]["tokens"]
    check("tokens are a prompt", ask(prompt=ids).choices[0].text == whole.choices[0].text)
    check("and have an echo, too", ask(prompt=ids, echo=True).choices[0].text.endswith("The capital of France is" + whole.choices[0].text))
    both = ask(prompt=["The capital of France is", "One, two, three,"])
    check("two prompts have two answers", [c.index for c in both.choices] == [0, 1] and both.choices[0].text == whole.choices[0].text, both)
    told = ask(logprobs=2, max_tokens=3).choices[0].logprobs
    check("probabilities are told token by token", len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 3, told)
    starts = [len("The capital of France is" + "".join(told.tokens[:at])) for at in range(3)]
    check("tokens are where they are in prompt and answer together", told.text_offset == starts == ask(logprobs=2, max_tokens=3, echo=True).choices[0].logprobs.text_offset, told)
    refused("filling in is refused", lambda: ask(suffix="x"), openai.BadRequestError, "suffix")
    refused("an unknown token is refused", lambda: ask(prompt=[10**9]), openai.BadRequestError, "prompt")
    check("texts come back from tokens", post(address, "/detokenize", {"tokens": ids})[2]["content"] == "The capital of France is")


def ollamas(address, whole):
    client = ollama.Client(host=address)
    name = client.list().models[0].model
    options = {"temperature": 0, "num_predict": 24}
    answer = client.chat(model=name, messages=HI, options=options)
    text = whole.choices[0].message.content
    check("Ollama's chat is OpenAI's", answer.message.content == text and answer.done, answer)
    pieces = list(client.chat(model=name, messages=HI, options=options, stream=True))
    check("in pieces, too", "".join(piece.message.content for piece in pieces) == text and pieces[-1].eval_count > 5, pieces[-1])
    check("a question is answered", client.generate(model=name, prompt=HI[0]["content"], options=options).response == text)
    raw = client.generate(model=name, prompt="The capital of France is", raw=True, options=options).response
    completed = post(address, "/v1/completions", {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 24})[2]
    check("a raw one is completed", raw == completed["choices"][0]["text"], raw)
    loaded, left = client.generate(model=name), client.chat(model=name, messages=[], keep_alive=0)
    check("a model is loaded by no prompt", loaded.done and loaded.done_reason == "load" and loaded.response == "" and loaded.eval_count is None, loaded)
    check("and unloaded by no messages", left.done and left.done_reason == "unload" and left.message.role == "assistant", left)
    check("in pieces, too", [piece.done_reason for piece in client.chat(model=name, stream=True)] == ["load"])
    check("reasoning is asked for by degree", client.generate(model=name, prompt="Hi", think="low", options=options).done and client.chat(model=name, messages=HI, think="high", options=options).done)
    for asked in (lambda: client.generate(model=name, prompt="What is it?", images=[b"GIF89a"]), lambda: client.chat(model=name, messages=[{**HI[0], "images": [b"GIF89a"]}])):
        try:
            asked()
            check("pictures are refused", False, "they were taken")
        except ollama.ResponseError as error:
            check("pictures are refused", error.status_code == 400 and "images" in error.error, error)
    try:
        client.chat(model="llama99", messages=HI)
        check("a model that is not there is refused", False, "it was taken")
    except ollama.ResponseError as error:
        check("a model that is not there is refused", error.status_code == 404, error)


def forms(client, address):
    """Answers that have a form have it whatever the model would rather say: at high temperatures, too."""
    ask = lambda **more: client.chat.completions.create(model="any", messages=HI, **{"temperature": 1.5, "max_tokens": 200, **more})
    parsed = [client.chat.completions.parse(model="any", messages=HI, temperature=1.5, max_tokens=200, seed=seed, response_format=City) for seed in range(5)]
    check("answers are parsed as a pydantic model", all(isinstance(one.choices[0].message.parsed, City) for one in parsed), parsed)
    strict = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": City.model_json_schema()}}
    chunks = list(ask(seed=0, response_format=strict, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    check("in pieces it is the same", text == parsed[0].choices[0].message.content, text)
    any_object = ask(response_format={"type": "json_object"}, temperature=0, max_tokens=400).choices[0]
    check("an answer is any object", any_object.message.content.lstrip().startswith("{") and (any_object.finish_reason == "length" or isinstance(json.loads(any_object.message.content), dict)), any_object)
    for name, extra, pattern in [
        ("a regular expression", {"structured_outputs": {"regex": r"[A-Z][a-z]{2,8}, \d{4}"}}, r"[A-Z][a-z]{2,8}, \d{4}"),
        ("a choice", {"structured_outputs": {"choice": ["Paris", "Rome"]}}, "Paris|Rome"),
        ("a schema of vLLM", {"structured_outputs": {"json": {"enum": [1, 2, 3]}}}, "[123]"),
        ("a grammar", {"grammar": 'start: "yes" | "no" MORE\nMORE: /, never{1,3}/'}, "yes|no, never{1,3}"),
        ("a grammar of llama.cpp", {"grammar": 'root ::= pair ("," pair){0,2} # of pairs\npair ::= "<" [0-9]{1,3} ">"'}, r"<\d{1,3}>(,<\d{1,3}>){0,2}"),
        ("a schema of llama.cpp", {"json_schema": {"const": [True, None]}}, r"\[\s*true\s*,\s*null\s*\]"),
    ]:
        said = [ask(seed=seed, extra_body=extra).choices[0] for seed in range(4)]
        check(f"answers have the form of {name}", all(one.finish_reason == "stop" and re.fullmatch(pattern, one.message.content) for one in said), said)
    completed = client.completions.create(model="any", prompt="The capital of France is", max_tokens=20, extra_body={"structured_outputs": {"regex": " (Paris|Rome)"}})
    check("completions have forms, too", completed.choices[0].text in (" Paris", " Rome"), completed)
    for name, body, param in [
        ("a schema that is none", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "elephant"}}}}, "response_format"),
        ("a schema that nothing fits", {"json_schema": {"type": "integer", "minimum": 3, "maximum": 2}}, "json_schema"),
        ("a regular expression with a hole", {"structured_outputs": {"regex": "(a"}}, "structured_outputs"),
        ("a grammar without a start", {"grammar": "begin: /a/"}, "grammar"),
        ("a grammar of llama.cpp with a hole", {"grammar": 'root ::= "a" b'}, "grammar"),
        ("two forms at once", {"grammar": "start: /a/", "json_schema": {}}, "grammar"),
    ]:
        status, _, answer = post(address, "/v1/chat/completions", {"messages": HI, **body})
        error = answer.get("error", {})
        check(f"{name} is refused by field, with a line", status == 400 and error["param"] == param and error["message"].startswith(param) and "\n" not in error["message"], answer)


def tools(client):
    """Calls of tools. A small model calls by itself when it likes; where it has to, a grammar holds it to what it may say."""
    ask = lambda **more: client.chat.completions.create(model="any", messages=RAIN, tools=TOOLS, **{"temperature": 0.8, "seed": 1, "max_tokens": 200, "parallel_tool_calls": False, **more})
    named = {"type": "function", "function": {"name": "weather"}}
    said = [ask(tool_choice=named, seed=seed).choices[0] for seed in range(4)]
    calls = [one.message.tool_calls[0] for one in said]
    check("a tool that is named is called", all(one.finish_reason == "tool_calls" and len(one.message.tool_calls) == 1 for one in said) and all(call.function.name == "weather" for call in calls), said)
    check("its arguments fit their schema", all(is_valid(Weather, call.function.arguments) for call in calls), calls)
    check("calls have names of their own", len({call.id for call in calls}) == 4 and all(call.type == "function" for call in calls), calls)
    chunks = list(ask(tool_choice=named, seed=0, stream=True))
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    check("in pieces the name comes first, and the same arguments after it", parts[0].function.name == "weather" and parts[0].id and not any(part.id or part.function.name for part in parts[1:])
          and "".join(part.function.arguments for part in parts) == calls[0].function.arguments and len(parts) > 3, parts)
    check("and the reason to end is the call", chunks[-1].choices[0].finish_reason == "tool_calls", chunks[-1])
    required = [ask(tool_choice="required", seed=seed).choices[0] for seed in range(4)]
    check("a call is required", all(one.finish_reason == "tool_calls" and one.message.tool_calls[0].function.name in ("weather", "time") for one in required), required)
    allowed = lambda mode, *names: {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": name}} for name in names]}}
    among = [ask(tool_choice=allowed("required", "time"), seed=seed).choices[0] for seed in range(4)]
    check("one of the allowed tools is called", all(one.finish_reason == "tool_calls" and one.message.tool_calls[0].function.name == "time" for one in among), among)
    free = [ask(tool_choice=allowed("auto", "time"), seed=seed, max_tokens=40).choices[0].message.tool_calls or [] for seed in range(4)]
    check("no other one is where none is required", all(call.function.name == "time" for calls in free for call in calls), free)
    cut = ask(tool_choice="required", max_tokens=3).choices[0]
    check("a call that is cut before its name is no text", cut.finish_reason == "length" and not cut.message.content and not cut.message.tool_calls, cut)
    cut = list(ask(tool_choice="required", max_tokens=3, stream=True))
    check("in pieces, too", cut[-1].choices[0].finish_reason == "length" and not any(chunk.choices[0].delta.content or chunk.choices[0].delta.tool_calls for chunk in cut), cut)
    many = ask(tool_choice="required", parallel_tool_calls=True, max_tokens=120).choices[0].message.tool_calls
    check("several calls are told apart", all(is_valid(Weather, call.function.arguments) or call.function.arguments == "{}" for call in many[:-1]) and len({call.id for call in many}) == len(many) >= 1, many)
    none = ask(tool_choice="none", max_tokens=16).choices[0]
    check("no tool is called where none may be", none.message.tool_calls is None and none.finish_reason in ("stop", "length"), none)
    auto = ask(max_tokens=60, temperature=0).choices[0]
    check("by itself it says something, or calls", auto.message.content or auto.message.tool_calls, auto)
    back = [*RAIN, said[0].message, {"role": "tool", "tool_call_id": calls[0].id, "content": "It rains."}]
    answer = client.chat.completions.create(model="any", messages=back, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=24)
    check("the result of a call is answered", answer.choices[0].message.content and answer.usage.prompt_tokens > 60, answer)
    parsed = client.chat.completions.parse(model="any", messages=RAIN, tools=[openai.pydantic_function_tool(Weather, name="weather")], tool_choice="required", parallel_tool_calls=False, max_tokens=200)
    check("arguments are parsed as a pydantic model", isinstance(parsed.choices[0].message.tool_calls[0].function.parsed_arguments, Weather), parsed)
    refused("a tool that is not there is named", lambda: ask(tool_choice={"type": "function", "function": {"name": "nothing"}}), openai.BadRequestError, "tool_choice")
    refused("so is one that is not there among the allowed", lambda: ask(tool_choice=allowed("auto", "time", "nothing")), openai.BadRequestError, "tool_choice.allowed_tools.tools[1]")
    refused("a call and a form exclude each other", lambda: ask(tool_choice="required", response_format={"type": "json_object"}), openai.BadRequestError, "response_format")


def ollama_forms(address):
    client = ollama.Client(host=address)
    name = client.list().models[0].model
    options = {"temperature": 1.2, "num_predict": 200, "seed": 3}
    said = client.chat(model=name, messages=HI, format=City.model_json_schema(), options=options)
    check("Ollama's format is a schema", is_valid(City, said.message.content) and said.done_reason == "stop", said)
    pieces = client.generate(model=name, prompt=HI[0]["content"], format=City.model_json_schema(), options=options, stream=True)
    check("in pieces, too", is_valid(City, "".join(piece.response for piece in pieces)))
    called = client.chat(model=name, messages=RAIN, tools=TOOLS, options={"temperature": 0, "num_predict": 60})
    check("Ollama's tools are taken", called.done and (called.message.content or called.message.tool_calls), called)
    body = {"model": name, "messages": RAIN, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "stream": False, "options": options}
    call = post(address, "/api/chat", body)[2]["message"]["tool_calls"][0]["function"]
    check("a call has its arguments as an object", call["name"] == "time" and call["arguments"] == {} or Weather.model_validate(call["arguments"]), call)
    back = [*RAIN, {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}, {"role": "tool", "content": "It rains.", "tool_name": "weather"}]
    check("its result is answered", client.chat(model=name, messages=back, tools=TOOLS, options={"num_predict": 16}).done)
    try:
        client.chat(model=name, messages=HI, format={"type": "elephant"})
        check("a schema that is none is refused", False, "it was taken")
    except ollama.ResponseError as error:
        check("a schema that is none is refused", error.status_code == 400 and error.error.startswith("format"), error)


def llm(address, whole):
    """The command `llm`, to which the server is one of OpenAI's kind."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "extra-openai-models.yaml"), "w") as file:
            file.write(f"- model_id: dair\n  model_name: any\n  api_base: {address}/v1\n  supports_schema: true\n")

        def run(*flags, said=None):
            command = [sys.executable, "-m", "llm", *flags, "-o", "temperature", "0", "-o", "max_tokens", "24"]
            done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=120, env={**os.environ, "LLM_USER_PATH": folder})
            return done.stdout.strip() or done.stderr

        question, text = HI[0]["content"], whole.choices[0].message.content.strip()
        streamed = run("-m", "dair", question)
        check("llm prints what comes in pieces", streamed == text, streamed)
        at_once = run("-m", "dair", "--no-stream", question)
        check("and what comes whole", at_once == text, at_once)
        check("it goes on with a conversation", len(run("-c", "And of Italy?")) > 5)
        chat = run("chat", "-m", "dair", said=f"{question}\nAnd of Italy?\nexit\n")
        check("and chats", chat.count("> ") >= 2 and text in chat, chat)
        schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
        check("an answer has a schema", json.loads(run("-m", "dair", "--schema", json.dumps(schema), question))["city"] in ("Paris", "Rome"))


def among_others(client):
    """The same questions one by one and many at a time, some of which nobody waits for."""
    def ask(seed):
        answer = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": f"Tell me about the number {seed % 5}."}],
            seed=seed, temperature=0.9, max_tokens=5 + seed % 20)
        return answer.choices[0].message.content

    def leave(seed):
        with client.chat.completions.create(model="any", messages=HI, stream=True, seed=seed) as stream:
            next(iter(stream))

    alone = [ask(seed) for seed in range(40)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        left = [pool.submit(leave, seed) for seed in range(10)]
        together = list(pool.map(ask, range(40)))
        [one.result() for one in left]
    check("40 answers are the same alone and among others", alone == together)


def idle(address, process):
    """Waits until nothing is computed; connections, threads and cached tokens stay within bounds."""
    for _ in range(100):
        health = json.load(urllib.request.urlopen(address + "/health"))
        if health["running"] == health["waiting"] == 0:
            break
        time.sleep(0.1)
    check("nothing is computed for those who have left", health["running"] == health["waiting"] == 0, health)
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def crowd(address, process):
    """Hundreds of clients, more than there is room for."""
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"messages": HI, "max_tokens": 3, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    statuses = []

    def one(index):
        with socket.create_connection((host, int(port)), 60) as connection:
            connection.sendall(head + body if index % 5 else (head + body)[: len(head) + 9])
            if index % 5 == 1 or index % 5 == 0:
                return
            connection.settimeout(60)
            statuses.append(connection.recv(12).split(b" ")[1])

    threads = [threading.Thread(target=one, args=(index,)) for index in range(300)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    check("each of a crowd is answered or told to come back", len(statuses) == 180 and set(statuses) <= {b"200", b"429"}, statuses)
    check("some of it is answered", b"200" in statuses, set(statuses))
    idle(address, process)


CLIENTS, LEAVERS = 1000, 200
# What the allocator may keep after a crowd beyond what it kept after the first one.
GROWTH_KIB = 16 << 10


async def client_of_many(address, index):
    """One of many: a whole answer, or one that he leaves in the middle, which would go on for long."""
    host, port = address.removeprefix("http://").split(":")
    leaves = index % (CLIENTS // LEAVERS) == 0
    more = {"ignore_eos": True} if leaves else {"max_tokens": 3}
    body = json.dumps({"messages": HI, "stream": True, "seed": index, **more}).encode()
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        if not leaves:
            return (await reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        seen = b""
        while seen.count(b"data: ") < 3:
            seen += await reader.readexactly(64)
        return None
    finally:
        writer.close()


async def many(address):
    return await asyncio.wait_for(asyncio.gather(*(client_of_many(address, index) for index in range(CLIENTS))), 240)


def memory_kib(process):
    with open(f"/proc/{process.pid}/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))


def thousand():
    """A thousand clients at a time, of whom two hundred leave in the middle: nothing of them is left."""
    with server("--slots", "8", "--queue", "2000", "--max-seq-len", "256") as (address, process):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
        asyncio.run(many(address))
        # Keys and values are memory from when they are there first.
        full = {"messages": HI, "ignore_eos": True, "temperature": 2}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(lambda _: post(address, "/v1/chat/completions", full)[2]["choices"][0]["finish_reason"], range(8)))
        check("answers end with their context", set(ended) == {"length"}, ended)
        descriptors, memory = idle(address, process), memory_kib(process)
        done = asyncio.run(many(address))
        check("all who stay are answered, and the others have begun to be", done.count(True) == CLIENTS - LEAVERS and done.count(None) == LEAVERS, (done.count(True), done.count(None)))
        after = idle(address, process)
        for _ in range(50):
            if after <= descriptors + 2:
                break
            time.sleep(0.1)
            after = len(os.listdir(f"/proc/{process.pid}/fd"))
        check("no descriptor is left over", after <= descriptors + 2, (descriptors, after))
        growth = memory_kib(process) - memory
        check("nor memory", growth <= GROWTH_KIB, f"{growth} KiB more than {memory}")
        requests = json.loads(get(address, "/cluster"))["requests"]
        check("nothing is computed, and those who left are counted", requests["running"] == requests["waiting"] == requests["failed"] == 0 and requests["cancelled"] == 2 * LEAVERS, requests)
        answer = post(address, "/v1/chat/completions", {"messages": HI, "temperature": 0, "max_tokens": 24})
        check("a plain question is answered", answer[0] == 200 and "Paris" in answer[2]["choices"][0]["message"]["content"], answer)


def dashboard(address):
    """Whatever the dashboard asks Prometheus for is there."""
    path = pathlib.Path(__file__).resolve().parents[2] / "install/grafana/dair.json"
    board = json.loads(path.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]] + [variable["query"] for variable in board["templating"]["list"]]
    names = {name for text in asked for name in re.findall(r"dair_\w+", text)}
    lines = [line for line in get(address, "/metrics").decode().splitlines() if not line.startswith("#")]
    there = {re.match(r"\w+", line).group() for line in lines}
    check("the dashboard knows the figures that there are", names and names <= there, names - there)
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in there}
    unseen = {family for family in families if not any(name.startswith(family) for name in names)}
    check("and shows them all", not unseen, unseen)


def refusals(address):
    for name, path, body, status in [
        ("no JSON", "/v1/chat/completions", b"{", 400),
        ("a list", "/v1/chat/completions", b"[]", 400),
        ("no messages", "/v1/chat/completions", b"{}", 400),
        ("no such call", "/v1/nothing", b"{}", 404),
        ("too large a body", "/v1/chat/completions", b" " * (9 << 20), 413),
        ("a wrong way to ask", "/v1/models", b"{}", 405),
        ("an unknown token", "/detokenize", {"tokens": [10**9]}, 400),
        ("a seed that is a text", "/v1/completions", {"prompt": "x", "seed": "y"}, 400),
    ]:
        seen = post(address, path, body)
        message = seen[2]["error"]["message"] if isinstance(seen[2], dict) and isinstance(seen[2].get("error"), dict) else None
        check(f"{name} is refused with a line", seen[0] == status and message and "\n" not in message, seen)
    seen = post(address, "/v1/completions", {"prompt": "x"}, {"Origin": "https://evil.example"})
    check("a page of another site is refused", seen[0] == 403, seen)
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", "/v1/models", headers={"Host": "evil.example"})
    check("another name of this machine is refused", connection.getresponse().status == 403)


def keys():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "keys")
        key = subprocess.run([DAIR, "api-key", "ann", "--file", path], capture_output=True, text=True, check=True).stdout.strip()
        check("the file of keys is private", os.stat(path).st_mode & 0o777 == 0o600 and key not in open(path).read())
        with server("--api-keys", path, "--slots", "1", "--cors", "https://good.example") as (address, _):
            refused("who has no key is refused", lambda: openai.OpenAI(base_url=address + "/v1", api_key="x", max_retries=0).models.list(), openai.AuthenticationError)
            client = openai.OpenAI(base_url=address + "/v1", api_key=key, max_retries=0)
            check("who has one is let in", client.models.list().data[0].owned_by == "dair")
            check("whether it is well, it tells all", urllib.request.urlopen(address + "/health").status == 200)
            request = urllib.request.Request(address + "/v1/completions", method="OPTIONS", headers={
                "Origin": "https://good.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"})
            allowed = urllib.request.urlopen(request).headers["access-control-allow-origin"]
            check("a page that is named may ask", allowed == "https://good.example", allowed)


def main():
    with server("--slots", "4", "--max-seq-len", "2048") as (address, process):
        client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0, timeout=120)
        whole = chats(client)
        completions(client, address)
        ollamas(address, whole)
        forms(client, address)
        tools(client)
        ollama_forms(address)
        llm(address, whole)
        among_others(client)
        refusals(address)
        crowd(address, process)
        dashboard(address)
        metrics = urllib.request.urlopen(address + "/metrics").read().decode()
        check("figures are told", 'dair_requests_total{outcome="ended"}' in metrics and metrics.endswith("# EOF\n"), metrics[-200:])
        check("the page is there", b"<html" in urllib.request.urlopen(address + "/").read())
    with server("--slots", "1", "--queue", "1", "--request-timeout-s", "1") as (address, _):
        body = {"messages": HI, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            seen = list(pool.map(lambda _: post(address, "/v1/chat/completions", body), range(4)))
        statuses = sorted(status for status, *_ in seen)
        check("too many are told to come back, too slow ones that they are", statuses[-1] == 504 and 429 in statuses, statuses)
        check("and when", all(1 <= int(headers["Retry-After"]) <= 60 for status, headers, _ in seen if status == 429))
    keys()
    thousand()
    finish()


main()
