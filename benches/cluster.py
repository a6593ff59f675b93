#!/usr/bin/env python3
"""The targets of the cluster, each an experiment beside C++ Distributed-Llama, in turn, in a lab of network namespaces.

    benches/cluster.py --model 1b.m --dllama path/to/dllama ready traffic prompt pair half slow many
    benches/cluster.py --model 1b.m --dllama none --whole path/to/dair halves

    ready    4 nodes, 1 Gbit/s: from the start of the root to its first pass, and what crosses until then
    traffic  2, 4, 8 nodes: bytes into a node for each token
    prompt   512 tokens, 4 nodes, 2 ms round trip: until the first token, and what of that are exchanges
    halves   prompts, 2 and 4 nodes, 2 ms round trip: computed in two halves, of which one travels while the other is computed, and
             as a whole, by the root that --whole names: workers do as the root says
    pair     2 nodes of one thread beside one node with two: decode
    half     4 nodes, three with half a processor and one with a quarter: equal parts, the planner's, what is possible
             (of N nodes, one of which is half as fast, the optimum is 2 - 1/N times the equal parts: 1.75 for these)
    slow     4 nodes, 100 Mbit/s, 5 ms round trip: decode, the plan being dair's choice
    many     12 nodes on this machine: that they work, and how fast

Both systems get the same model, nodes, threads and processors: node n runs on processor n modulo their number. Workers
are new for every run and wait for the root; the model is in the page cache. Bytes are those that interfaces count, headers of TCP
included. Every experiment prints medians, ranges in brackets, the ratio in favour of dair, and whether the target is met.
Root, Linux; see benches/lab.py. `--dllama none` leaves that system out. `half` wants nobody else on the machine.
"""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import threading
import time

import lab as laboratory
from lab import Lab, LabError

SENTENCE = "The quick brown fox jumps over the lazy dog while the old miller counts his sacks of flour. "
SHORT = "The quick brown fox jumps over the lazy dog."
CONTEXT = 1024


class Dair:
    """How dair is run, and what its report says."""

    name, port, udp = "dair", 9990, True

    def __init__(self, args):
        self.program, self.worker_program, self.model, self.more = args.dair, args.host_worker, args.model, args.dair_args
        # The other system has no keys.
        self.more_worker = ["--insecure"]

    def worker(self, threads):
        return [self.worker_program, "--model", self.model, "--port", str(self.port), "--threads", str(threads), "--quiet", *self.more_worker]

    def root(self, prompt, tokens, threads, workers, more):
        named = ["--workers", *workers] if workers else []
        # A token at a time, as the other system does.
        named += [] if "--speculate" in [*self.more, *more] else ["--speculate", "off"]
        return [self.program, "generate", "--model", self.model, "--prompt", prompt, "--temperature", "0", "--ignore-eos", "--json",
                "--max-tokens", str(tokens), "--max-seq-len", str(CONTEXT), "--threads", str(threads), *named, *self.more, *more]

    def read(self, output, wall, _):
        report = json.loads(output)
        prefill, decode = report["prefill"], report["decode"]
        run = {
            "start_s": report["load_seconds"],
            "repack_s": report["repack_seconds"] or 0,
            "outside_phases_s": wall - prefill["seconds"] - decode["seconds"],
            "prompt_tokens": prefill["tokens"],
            "first_token_s": prefill["seconds"],
            "rows": prefill["tokens"] + decode["tokens"],
            "decode": decode["tokens_per_second"],
            "peak_mb": report["peak_memory_bytes"] / 1e6,
            "predicted_s": report.get("predicted_seconds_per_token"),
            "says": report["network"],
        }
        network = report["network"] or {}
        if "exchange_seconds" in network:
            run["exchange_s"] = network["exchange_seconds"]
        if network.get("exchanges"):
            run["exchange_us"] = 1e6 * network["exchange_seconds"] / network["exchanges"]
        return run


class Dllama:
    """The same for C++ Distributed-Llama."""

    name, port, udp = "dllama", 9991, False

    def __init__(self, args):
        self.program, self.model = args.dllama, args.model
        self.tokenizer = os.path.splitext(args.model)[0] + ".t"

    def worker(self, threads):
        return [self.program, "worker", "--port", str(self.port), "--nthreads", str(threads)]

    def root(self, prompt, tokens, threads, workers, _):
        named = ["--workers", *workers] if workers else []
        # Its steps are positions, the prompt's included: `tokens` is a function of how many these are.
        return [self.program, "inference", "--model", self.model, "--tokenizer", self.tokenizer, "--prompt", prompt, "--temperature", "0",
                "--buffer-float-type", "q80", "--steps", str(tokens), "--max-seq-len", str(CONTEXT), "--nthreads", str(threads), *named]

    def read(self, output, wall, _):
        line = r"(?:Eval|Pred) +(\d+) ms Sync +(\d+) ms \| Sent +(\d+) kB Recv +(\d+) kB \|(?: \((\d+) tokens\))?"
        passes = [[int(n or 0) for n in found] for found in re.findall(line, output)]
        prompt, answer = [p for p in passes if p[4]], [p for p in passes if not p[4]]
        # The last token of the prompt is fed in the first pass of the answer.
        first = prompt + answer[:1]
        milliseconds = sum(p[0] + p[1] for p in passes)
        decode = answer[1:] or answer
        return {
            "start_s": wall - milliseconds / 1e3,
            "repack_s": 0,
            "outside_phases_s": wall - milliseconds / 1e3,
            "prompt_tokens": sum(p[4] for p in prompt) + 1,
            "first_token_s": sum(p[0] + p[1] for p in first) / 1e3,
            "exchange_s": sum(p[1] for p in first) / 1e3,
            "rows": sum(p[4] for p in prompt) + len(answer),
            "decode": len(decode) * 1e3 / max(1, sum(p[0] + p[1] for p in decode)),
            "says": decode[-1][2:4],
        }


class Watch(threading.Thread):
    """Looks at what came into the nodes of some processes, a hundred times a second."""

    def __init__(self, processes):
        super().__init__(daemon=True)
        self.processes, self.seen, self.done = processes, [], threading.Event()

    def run(self):
        while not self.done.wait(0.01):
            tables = [open(f"/proc/{process.pid}/net/dev").read() for process in self.processes]
            self.seen.append((time.monotonic(), [int(re.search(r"eth0: *(\d+)", table)[1]) for table in tables]))

    def until(self, moment):
        """The most that came into one of them up to a moment."""
        [_, first], [_, last] = self.seen[0], max((s for s in self.seen if s[0] <= moment), default=self.seen[0])
        return max(b - a for a, b in zip(first, last))


def one(lab, system, prompt, tokens, threads=1, more=(), watched=False):
    """One run: workers on all nodes but the first, the root there; what the root says and what interfaces count."""
    workers = [lab.start(node, apart(lab, node) + system.worker(threads), stdout=-3, stderr=-3) for node in range(1, lab.nodes)]
    try:
        for worker in workers:
            lab.listens(worker, system.port, system.udp)
        addresses = [f"{lab.address(node)}:{system.port}" for node in range(1, lab.nodes)]
        before = lab.counters()
        watch = Watch(workers if watched else [])
        if watched:
            watch.start()
        start = time.monotonic()
        code, output, side, wall = lab.run(0, apart(lab, 0) + system.root(prompt, tokens, threads, addresses, more), timeout_s=900)
        after = lab.counters()
        watch.done.set()
        if watched:
            watch.join()
    finally:
        lab.stop(*workers)
    if code != 0:
        raise LabError(f"{system.name} with {lab.nodes} nodes: {side.strip() or output.strip()[-300:]}")
    run = system.read(output, wall, None)
    run["into"] = [a[0] - b[0] for a, b in zip(after, before)]
    if watched:
        # The report's time begins a little after the process: so nothing of the first pass is in it.
        run["setup_kb"] = watch.until(start + run["start_s"]) / 1e3
    return run


def apart(lab, node):
    """Lets a node know its own speed: what is measured once is kept for nodes of the same part of a processor."""
    part = (lab.quotas or {}).get(node, 1)
    return ["env", f"DAIR_CACHE={tempfile.gettempdir()}/dair-lab-cache/{part}"]


def in_turn(args, lab, variants):
    """Runs of each of `variants` by name, a round at a time: functions of the lab."""
    runs = {name: [] for name in variants}
    for _ in range(args.runs):
        for name, function in variants.items():
            runs[name].append(function(lab))
    return runs


def median(runs, figure):
    return statistics.median(run[figure] for run in runs)


def spread(runs, figure, scale=1.0, digits=3):
    values = [run[figure] * scale for run in runs if run.get(figure) is not None]
    if not values:
        return "not reported"
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def table(runs, figures):
    """Rows of figures (key, title, scale, digits), columns of variants."""
    width = 36
    print("    " + f"{'':<36}" + "".join(f"{name:>{width}}" for name in runs))
    for key, title, scale, digits in figures:
        print("    " + f"{title:<36}" + "".join(f"{spread(own, key, scale, digits):>{width}}" for own in runs.values()))


class Result:
    """What an experiment found: printed, and kept for --json."""

    def __init__(self, name, about):
        self.kept = {"experiment": name, "about": about, "targets": []}
        print(f"{name}: {about}", flush=True)

    def link(self, lab):
        line, self.kept["link"] = lab.shown()
        print(f"    {line}", flush=True)

    def target(self, what, found, wanted, good):
        """A figure beside its target; None where the figure is missing."""
        verdict = "unknown" if found is None else "met" if good(found) else "NOT MET"
        shown = "not reported" if found is None else f"{found:.3g}"
        print(f"    {what}: {shown} (target {wanted}) {verdict}", flush=True)
        self.kept["targets"].append({"what": what, "found": found, "wanted": wanted, "verdict": verdict})


def at_least(result, what, found, bound):
    result.target(what, found, f">= {bound}", lambda x: x >= bound)


def at_most(result, what, found, bound):
    result.target(what, found, f"<= {bound}", lambda x: x <= bound)


def systems(args):
    return [Dair(args)] + ([] if args.dllama == "none" else [Dllama(args)])


def ratio(runs, figure, invert=False):
    """Of medians, Distributed-Llama's to dair's where less is better; None without it."""
    if "dllama" not in runs or any(run.get(figure) is None for run in runs["dair"]):
        return None
    a, b = median(runs["dllama"], figure), median(runs["dair"], figure)
    return b / a if invert else a / b if b else None


def task(args, system, prompt, tokens, prompt_tokens=None, threads=1, more=(), watched=False):
    """A function that runs it in a lab; dllama counts positions where dair counts tokens."""
    steps = tokens if isinstance(system, Dair) else (prompt_tokens or prompt_size(args, prompt)) + tokens - 1
    return lambda lab: one(lab, system, prompt, steps, threads, more, watched)


def prompt_size(args, prompt):
    """Tokens of a prompt."""
    return len(json.loads(laboratory.call(args.dair, "tokenize", "--model", args.model, "--json", prompt))["ids"])


def long_prompt(args, tokens):
    """A text of about so many tokens, by whole words."""
    words = (SENTENCE * (tokens // 8)).split(" ")
    low, high = 1, len(words)
    while high - low > 1:
        middle = (low + high) // 2
        if prompt_size(args, " ".join(words[:middle])) <= tokens:
            low = middle
        else:
            high = middle
    return " ".join(words[:low])


def per_row(short, long):
    """Bytes into each node for a row more."""
    rows = long["rows"] - short["rows"]
    return [(b - a) / rows for a, b in zip(short["into"], long["into"])]


def ready(args):
    result = Result("ready", "4 nodes, 1 Gbit/s, from the start of the root to its first pass")
    # As many tokens as dair repacks weights for; a worker does that always, at the same time.
    with Lab(4, 1000, relay=args.relay, cores=args.cores) as lab:
        result.link(lab)
        runs = in_turn(args, lab, {s.name: task(args, s, SHORT, 34, watched=True) for s in systems(args)})
    for run in sum(runs.values(), []):
        run["ready_s"] = run["start_s"] - run["repack_s"]
        run["total_kb"] = max(run["into"][1:]) / 1e3
    table(runs, [("ready_s", "ready, root's repacking apart, s", 1, 3), ("repack_s", "the root's repacking, s", 1, 3),
                 ("outside_phases_s", "wall time outside of phases, s", 1, 3), ("total_kb", "into a worker in the run, kB", 1, 1),
                 ("setup_kb", "of that, before the first pass, kB", 1, 1)])
    at_most(result, "ready, s", median(runs["dair"], "ready_s"), 0.25)
    at_least(result, "times sooner", ratio(runs, "ready_s"), 20)
    at_most(result, "into a worker before the first pass, kB", median(runs["dair"], "setup_kb"), 10)
    weights = os.path.getsize(args.model) / 4
    at_most(result, "into a worker in the run, part of its weights", 1e3 * median(runs["dair"], "total_kb") / weights, 0.04)
    return result.kept | {"runs": runs}


def traffic(args):
    result = Result("traffic", "bytes into a node for each token")
    kept = {}
    for nodes in (2, 4, 8):
        with Lab(nodes, relay=args.relay, cores=args.cores) as lab:
            for system in systems(args):
                more = ["--shares", ",".join(["1"] * nodes)] if system.name == "dair" else []
                few, many = (task(args, system, SHORT, tokens, more=more)(lab) for tokens in (2, 2 + args.tokens))
                kept.setdefault(nodes, {})[system.name] = per_row(few, many)
        own = kept[nodes]
        for name, slopes in own.items():
            over = slopes[0] - statistics.mean(slopes[1:])
            print(f"    {nodes} nodes, {name:<7} into the root {slopes[0] / 1e3:8.1f} kB, into a worker {max(slopes[1:]) / 1e3:8.1f} kB, the root's more {over / 1e3:8.1f} kB")
        for where, part in {"the root": slice(0, 1), "a worker": slice(1, None)}.items() if nodes > 2 else []:
            least = max(own["dair"][part]) / max(own["dllama"][part]) if "dllama" in own else None
            at_most(result, f"{nodes} nodes: into {where}, part of Distributed-Llama's", least, {4: 1, 8: 0.5}[nodes])
        # Beside logits, all nodes get alike: the root's more is logits and what packets it has more.
        at_most(result, f"{nodes} nodes: what the root gets more, logits and headers, kB", (own["dair"][0] - statistics.mean(own["dair"][1:])) / 1e3, 2)
    return result.kept | {"bytes_per_token_into": kept}


def prompt(args):
    text = long_prompt(args, 512)
    result = Result("prompt", f"prompt of {prompt_size(args, text)} tokens, 4 nodes, 2 ms round trip")
    with Lab(4, rtt_ms=2, relay=args.relay, cores=args.cores) as lab:
        result.link(lab)
        runs = in_turn(args, lab, {s.name: task(args, s, text, 2) for s in systems(args)})
    for run in sum(runs.values(), []):
        run["asked_s"] = run["first_token_s"] + run["start_s"]
    table(runs, [("first_token_s", "until the first token, s", 1, 3), ("exchange_s", "of that in exchanges, s", 1, 3), ("asked_s", "with the start of the root, s", 1, 3)])
    at_least(result, "first token, times sooner", ratio(runs, "first_token_s"), 6)
    at_least(result, "time in exchanges, times less", ratio(runs, "exchange_s"), 30)
    return result.kept | {"runs": runs}


def halves(args):
    result = Result("halves", "prompts, 2 ms round trip, cut by rows: in two halves and as a whole")
    if not args.whole:
        raise LabError("halves wants --whole PROGRAM, a dair that was built with HALVED_ROWS = u32::MAX (host/src/cluster/root.rs)")
    ours, whole = Dair(args), Dair(args)
    whole.program = os.path.abspath(args.whole)
    kept = {}
    for nodes in (2, 4):
        with Lab(nodes, rtt_ms=2, relay=args.relay, cores=args.cores) as lab:
            result.link(lab)
            equal = ["--shares", ",".join(["1"] * nodes)]
            for tokens in (32, 128, 512):
                text = long_prompt(args, tokens)
                runs = in_turn(args, lab, {name: task(args, system, text, 2, more=equal) for name, system in (("halves", ours), ("whole", whole))})
                print(f"    {nodes} nodes, prompt of {runs['halves'][0]['prompt_tokens']} tokens")
                table(runs, [("first_token_s", "until the first token, s", 1, 3), ("exchange_s", "in exchanges, s", 1, 3)])
                gain = median(runs["whole"], "first_token_s") / median(runs["halves"], "first_token_s")
                print(f"    by halves {gain:.2f} times as fast")
                kept[f"{nodes} nodes, {tokens} tokens"] = {"runs": runs, "gain": gain}
    return result.kept | {"prompts": kept}


def pair(args):
    result = Result("pair", "2 nodes of one thread, no limit on the link, beside one node with two threads: decode")
    ours = systems(args)
    variants = {s.name: task(args, s, SHORT, args.tokens, more=["--shares", "1,1"]) for s in ours}
    with Lab(2, relay=args.relay, cores=args.cores) as lab, Lab1(args, lab, lab.nodes) as alone:
        result.link(lab)
        variants["one node"] = lambda _: alone.run(args)
        runs = in_turn(args, lab, variants)
    table(runs, [("decode", "decode, tokens/s", 1, 2), ("exchange_us", "an exchange, us", 1, 1), ("first_token_s", "prompt, s", 1, 3)])
    at_least(result, "decode, times Distributed-Llama's", ratio(runs, "decode", invert=True), 2.5)
    at_least(result, "decode, part of one node's", median(runs["dair"], "decode") / median(runs["one node"], "decode"), 0.9)
    each = [run["exchange_us"] for run in runs["dair"] if "exchange_us" in run]
    at_most(result, "an exchange, us", statistics.median(each) if each else None, 60)
    return result.kept | {"runs": runs}


class Lab1:
    """One node with some threads, on the processors of a lab and beside it: without its quotas."""

    def __init__(self, args, lab, threads):
        self.lab, self.dair, self.threads = lab, Dair(args), threads

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, args):
        cores, groups = self.lab.cores, self.lab.groups
        self.lab.cores, self.lab.groups = None, []
        try:
            code, output, side, wall = self.lab.run(0, self.dair.root(SHORT, args.tokens, self.threads, [], []))
        finally:
            self.lab.cores, self.lab.groups = cores, groups
        if code != 0:
            raise LabError(side.strip())
        return self.dair.read(output, wall, None)


def half(args):
    parts = {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.25}
    result = Result("half", "4 nodes of one thread, three with half a processor and one with half of that: decode")
    ours, threads = Dair(args), len(args.cores)
    shares = {"equal": "1,1,1,1", "planned": None, "2,2,2,1": "2,2,2,1", "first alone": "1,0,0,0"}
    variants = {name: task(args, ours, SHORT, args.tokens, more=["--shares", share] if share else []) for name, share in shares.items()}
    with Lab(4, relay=args.relay, cores=args.cores, quotas=parts) as lab, Lab1(args, lab, threads) as whole:
        result.link(lab)
        runs = in_turn(args, lab, variants | {"whole": lambda _: whole.run(args)})
    table(runs, [("decode", "decode, tokens/s", 1, 2), ("exchange_us", "an exchange, us", 1, 1)])
    predicted = [1 / run["predicted_s"] for run in runs["planned"] if run["predicted_s"]]
    print(f"    the planner predicted {', '.join(f'{speed:.2f}' for speed in predicted)} tokens/s")
    equal, planned, alone = (median(runs[name], "decode") for name in ("equal", "planned", "first alone"))
    # The last node has half the speed of the first, with equal parts a quarter of its work; all together have 3.5 times.
    optimum = 3.5 * alone
    print(f"    if nothing but weights took time: {optimum:.2f} tokens/s at best, {2 * alone:.2f} with equal parts (1.75 times)")
    # One node alone on a processor has the memory for itself; all nodes together have what all processors get.
    shared = median(runs["whole"], "decode") * sum(parts.values()) / threads
    print(f"    by one node with {threads} threads and no quota, whose memory is as shared: {shared:.2f} tokens/s at best")
    result.kept |= {"optimum": optimum, "optimum_of_shared_memory": shared}
    at_least(result, "planned, times the equal parts", planned / equal, 1.6)
    at_least(result, "planned, part of the optimum", planned / optimum, 0.9)
    at_least(result, "planned, part of the optimum of shared memory", planned / shared, 0.9)
    return result.kept | {"runs": runs}


def slow(args):
    result = Result("slow", "4 nodes, 100 Mbit/s, 5 ms round trip: decode, the plan being dair's choice")
    with Lab(4, 100, 5, relay=args.relay, cores=args.cores) as lab:
        result.link(lab)
        runs = in_turn(args, lab, {s.name: task(args, s, SHORT, min(args.tokens, 16)) for s in systems(args)})
    table(runs, [("decode", "decode, tokens/s", 1, 2), ("first_token_s", "prompt, s", 1, 3), ("start_s", "start, s", 1, 2)])
    at_least(result, "decode, times Distributed-Llama's", ratio(runs, "decode", invert=True), 3)
    return result.kept | {"runs": runs}


def many(args):
    result = Result("many", "12 nodes on this machine, dair alone: the other system can't cut the model so")
    runs = {}
    for nodes in (2, 3, 6, 12):
        with Lab(nodes, relay=args.relay, cores=args.cores) as lab:
            more = ["--shares", ",".join(["1"] * nodes)]
            runs |= in_turn(args, lab, {f"{nodes} nodes": task(args, Dair(args), SHORT, min(args.tokens, 16), more=more)})
    table(runs, [("decode", "decode, tokens/s", 1, 2), ("first_token_s", "prompt, s", 1, 3)])
    at_least(result, "12 nodes, tokens/s", median(runs["12 nodes"], "decode"), 0.1)
    return result.kept | {"runs": runs}


EXPERIMENTS = {f.__name__: f for f in (ready, traffic, prompt, halves, pair, half, slow, many)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{' '.join(EXPERIMENTS)} [default: all]")
    parser.add_argument("--model", required=True, help=".m file, with its .t beside it")
    parser.add_argument("--dair", default="target/release/dair", help="[default: %(default)s]")
    parser.add_argument("--host-worker", default="target/release/host-worker", help="[default: %(default)s]")
    parser.add_argument("--relay", default=laboratory.RELAY, help="[default: %(default)s]")
    parser.add_argument("--dllama", required=True, help="the C++ program, or none")
    parser.add_argument("--whole", metavar="PROGRAM", help="for halves: a dair that computes no prompt in halves")
    parser.add_argument("--dair-args", type=str.split, default=[], metavar="FLAGS", help="more flags for every dair root")
    parser.add_argument("--runs", type=int, default=5, help="rounds [default: %(default)s]")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer [default: %(default)s]")
    parser.add_argument("--json", metavar="FILE", help="keep the figures of every run")
    args = parser.parse_args()
    unknown = set(args.experiments) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"no such experiment: {' '.join(sorted(unknown))}; there are {' '.join(EXPERIMENTS)}")
    for key in ("model", "dair", "host_worker", "relay", "dllama"):
        if getattr(args, key) != "none":
            setattr(args, key, os.path.abspath(getattr(args, key)))
    args.cores = sorted(os.sched_getaffinity(0))
    kept = []
    try:
        why = laboratory.missing()
        if why:
            raise LabError(f"no lab here: {why}")
        with open(args.model, "rb") as file:
            while file.read(1 << 24):
                pass
        for name in args.experiments or [name for name in EXPERIMENTS if name != "halves" or args.whole]:
            kept.append(EXPERIMENTS[name](args))
            if args.json:
                with open(args.json, "w") as file:
                    about = {"model": os.path.basename(args.model), "machine": platform.machine(), "processors": len(args.cores)}
                    json.dump(about | {"experiments": kept}, file, indent=1)
    except LabError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
