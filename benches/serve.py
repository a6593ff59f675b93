#!/usr/bin/env python3
"""What concurrency comes to in `dair serve`: many clients beside one, a beginning that is shared, a long prompt beside streams, a prompt
that an earlier server has kept on disk.

    serve.py --dair PROGRAM --model FILE.m [--clients 8] [--rounds 5] [--tokens 64] [--only KIND] [--json FILE]
             [--llama llama-server --gguf FILE.gguf] [flags of dair serve behind --]

With --llama, llama.cpp's server, which holds the same weights (gguf_of_m.py), has as many slots and takes turns with ours. Rounds of each
kind are interleaved; figures are medians, with the ratio that they are about beside them. Standard library only.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--dair", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--clients", type=int, default=8)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--prefix", type=int, default=2048)
parser.add_argument("--long", type=int, default=4096)
parser.add_argument("--only", choices=["clients", "prefix", "stall", "disk"])
parser.add_argument("--llama")
parser.add_argument("--gguf")
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--json")
parser.add_argument("flags", nargs="*")


class Server:
    def __init__(self, args, *more):
        flags = [*more, "--slots", str(args.clients), "--port", "0", "--quiet", "--max-seq-len", "8192", "--threads", str(args.threads), *args.flags]
        self.process = subprocess.Popen([args.dair, "serve", "--model", args.model, *flags], stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip().removeprefix("http://")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def processor(self):
        """Seconds of processor time so far; Linux only."""
        user, system = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def ask(self, prompt, tokens):
        """An answer of so many tokens, whole."""
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        answer = post(self.address, "/v1/completions", body)
        assert answer["usage"]["completion_tokens"] == tokens, answer["usage"]

    def stream(self, prompt, tokens):
        """The times at which the tokens of an answer come, from the request on."""
        connection = http.client.HTTPConnection(self.address, timeout=600)
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True, "temperature": 0, "logprobs": 0}
        start = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body))
        answer, times = connection.getresponse(), []
        assert answer.status == 200, answer.read()
        for line in answer:
            # Probabilities are asked for so that each token has an event.
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["logprobs"]:
                times.append(time.perf_counter() - start)
        assert len(times) == tokens, (len(times), tokens)
        return times


class Llama:
    """llama.cpp's server, with as much context for each slot."""

    def __init__(self, args):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        threads = ["--threads", str(args.threads), "--threads-batch", str(args.threads)]
        slots = ["--parallel", str(args.clients), "--ctx-size", str(1024 * args.clients)]
        command = [args.llama, "--model", args.gguf, "--host", "127.0.0.1", "--port", str(port), *threads, *slots]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = f"127.0.0.1:{port}"
        while not self.is_ready():
            assert self.process.poll() is None, "llama.cpp's server has ended"
            time.sleep(0.2)

    def is_ready(self):
        try:
            connection = http.client.HTTPConnection(self.address, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def ask(self, prompt, tokens):
        body = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False}
        answer = post(self.address, "/completion", body)
        assert answer["tokens_predicted"] == tokens, answer["tokens_predicted"]


def post(address, path, body):
    connection = http.client.HTTPConnection(address, timeout=600)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return json.load(answer)


def ids(seed, count):
    throw = random.Random(seed)
    return [throw.randrange(300, 20_000) for _ in range(count)]


def together(calls):
    """The results of calls that run side by side, and how long all of them took."""
    results = [None] * len(calls)

    def run(index):
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    start = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return results, time.perf_counter() - start


def clients(server, args, seed):
    """Tokens per second of one client, and of many together, prompts of 16 tokens included; and of ours, seconds of processor time for a
    token of each, which other programs on the machine change less."""
    def rate(count):
        calls = [lambda index=index: server.ask(ids(seed * 100 + index, 16), args.tokens) for index in range(count)]
        before = server.processor() if isinstance(server, Server) else 0
        _, seconds = together(calls)
        spent = server.processor() - before if isinstance(server, Server) else 0
        return count * args.tokens / seconds, spent / args.tokens

    (one, one_spent), (many, many_spent) = rate(1), rate(args.clients)
    return one, many, one_spent, many_spent


def prefix(server, args, seed):
    """Seconds to the first token of a prompt that nobody has asked before, and of another one that begins alike."""
    shared = ids(seed * 1000 + 7, args.prefix)
    ask = lambda tail: server.stream(shared + ids(tail, 8), 1)[0]
    cold = ask(seed * 10 + 1)
    return cold, statistics.median(ask(seed * 10 + 2 + index) for index in range(3))


def stall(server, args, seed):
    """Seconds per token of two streams alone, and while a long prompt is computed."""
    long = {}

    def ask_long():
        time.sleep(args.tokens / 4 * alone)
        start = time.perf_counter()
        server.stream(ids(seed * 1000 + 9, args.long), 1)
        long["span"] = (start, time.perf_counter())

    def steps(count):
        start = time.perf_counter()
        times = server.stream(ids(seed * 100 + 50, 16), count)
        return [(start + a, b - a) for a, b in zip(times, times[1:])]

    alone = statistics.median(step for _, step in together([lambda: steps(args.tokens), lambda: steps(args.tokens)])[0][0])
    results, _ = together([lambda: steps(args.tokens * 6), lambda: steps(args.tokens * 6), ask_long])
    begin, end = long["span"]
    beside = [step for at, step in results[0] if begin < at < end]
    return alone, statistics.median(beside), sorted(beside)[len(beside) * 95 // 100], end - begin


def disk(_, args, seed):
    """Seconds to the first token of a prompt, and of the same one where a server that was started since then finds it on disk."""
    prompt = ids(seed * 1000 + 11, args.prefix)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DAIR_CACHE"] = cache

        def first():
            server = Server(args, "--kv-disk", "16GiB")
            try:
                server.ask(ids(1, 16), 8)
                return server.stream(prompt, 1)[0]
            finally:
                server.end()

        cold, found = first(), first()
        kept = sum(file.stat().st_size for file in pathlib.Path(cache, "kv").glob("*/*"))
    del os.environ["DAIR_CACHE"]
    return cold, found, kept


def main():
    args = parser.parse_args()
    server = Server(args)
    llama = Llama(args) if args.llama else None
    kinds = [("clients", server, clients), ("llama", llama, clients), ("prefix", server, prefix), ("stall", server, stall), ("disk", server, disk)]
    kinds = [kind for kind in kinds if kind[1] and args.only in (None, kind[2].__name__)]
    seen = {name: [] for name, _, _ in kinds}
    try:
        for one in filter(None, (server, llama)):
            one.ask(ids(1, 16), 8)
        for seed in range(1, args.rounds + 1):
            for name, which, measure in kinds:
                seen[name].append(measure(which, args, seed))
                print(name, " ".join(f"{value:.4g}" for value in seen[name][-1]), file=sys.stderr, flush=True)
    finally:
        for one in filter(None, (server, llama)):
            one.end()
    report(args, seen)


def report(args, seen):
    median = lambda name, index: statistics.median(row[index] for row in seen[name])
    for name, whose in (("clients", "dair"), ("llama", "llama.cpp")):
        if name in seen:
            one, many = median(name, 0), median(name, 1)
            print(f"{whose}: 1 client {one:.1f} tokens/s, {args.clients} clients {many:.1f} together: {many / one:.2f} x")
    if "clients" in seen:
        one, many = (1000 * median("clients", index) for index in (2, 3))
        print(f"dair: {one:.0f} ms of processor time for a token, {many:.0f} for one of each of {args.clients}")
    if "llama" in seen:
        ratios = [statistics.median(a[index] / b[index] for a, b in zip(seen["clients"], seen["llama"])) for index in range(2)]
        print(f"dair to llama.cpp: {ratios[0]:.2f} with one client, {ratios[1]:.2f} with {args.clients}")
    if "prefix" in seen:
        cold, warm = median("prefix", 0), median("prefix", 1)
        print(f"prompt of {args.prefix + 8} tokens: {cold:.2f} s cold, {warm:.3f} s where {args.prefix} are shared: {100 * warm / cold:.1f} %")
    if "stall" in seen:
        alone, beside, worst = (median("stall", index) for index in range(3))
        print(f"a token of two streams {1000 * alone:.1f} ms, beside a prompt of {args.long} {1000 * beside:.1f} ms: {beside / alone:.2f} x (95 of 100 within {worst / alone:.2f} x)")
    if "disk" in seen:
        cold, found, kept = (median("disk", index) for index in range(3))
        print(f"prompt of {args.prefix} tokens: {cold:.2f} s cold, {found:.3f} s from disk after a restart: {100 * found / cold:.1f} %, {kept / 1e6:.0f} MB on disk")
    if args.json:
        with open(args.json, "w") as out:
            json.dump(seen, out, indent=1)


main()
