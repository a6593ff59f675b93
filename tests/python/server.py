#!/usr/bin/env python3
"""Drives `dair serve` with the clients that people have: the official packages of OpenAI and Ollama.

    server.py DAIR MODEL

Starts servers on free ports, asks them everything that README names, and compares what comes back with the shapes that the
clients expect and with itself: an answer with a seed is the same whole, in pieces, alone and among others.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import ollama
import openai

DAIR, MODEL = sys.argv[1:3]
HI = [{"role": "user", "content": "What is the capital of France?"}]
failures = 0


def check(name, holds, seen=""):
    global failures
    failures += not holds
    print(f"{'ok    ' if holds else 'FAILED'} {name}{'' if holds else f': {seen}'}", flush=True)


@contextlib.contextmanager
def server(*flags):
    """A server, by its address; it must end well when it is told to."""
    process = subprocess.Popen([DAIR, "serve", "--model", MODEL, "--port", "0", "--quiet", *flags], stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    try:
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        check("SIGTERM ends the server", process.wait(30) == 0, process.returncode)


def post(address, path, body, headers=()):
    """Status, headers and object that a call gives."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read() or b"null")


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
    both = ask(prompt=["The capital of France is", "One, two, three,"])
    check("two prompts have two answers", [c.index for c in both.choices] == [0, 1] and both.choices[0].text == whole.choices[0].text, both)
    told = ask(logprobs=2, max_tokens=3).choices[0].logprobs
    check("probabilities are told token by token", len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 3, told)
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
    try:
        client.chat(model="llama99", messages=HI)
        check("a model that is not there is refused", False, "it was taken")
    except ollama.ResponseError as error:
        check("a model that is not there is refused", error.status_code == 404, error)


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
    """Hundreds of clients, many of whom go away in the middle."""
    before = idle(address, process)
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
    after = idle(address, process)
    for _ in range(50):
        if after <= before + 2:
            break
        time.sleep(0.1)
        after = len(os.listdir(f"/proc/{process.pid}/fd"))
    check("no descriptor is left over", after <= before + 2, (before, after))


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
        among_others(client)
        refusals(address)
        crowd(address, process)
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
    sys.exit(f"{failures} failed" if failures else 0)


main()
