#!/usr/bin/env python3
"""Measures clusters of `dair` beside C++ Distributed-Llama, in turn, on nodes that are network namespaces of this machine.

    sudo benches/cluster.py traffic prompt --bin target/release --dllama path/to/dllama --model 1b.m --rounds 3

Experiments: ready, two, traffic, prompt, slow, halfcore, twelve. The model's tokenizer is beside it (`.t`). Every node is a
namespace on a bridge; `tc tbf` limits each node's link both ways, and the program `relay` before each worker makes round trips as long
as wanted. Nodes have one thread each and share the processors of this machine, for both systems alike. Printed are medians and
ranges of all rounds, and ratios of medians. What crosses the network is counted by the nodes' interfaces.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import time

PORT = 9990
BEHIND = 9991
PROMPT = "The quick brown fox jumps over the lazy dog while the old miller counts his sacks of flour. "


def call(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Lab:
    """Namespaces `dair-lab-N` on a bridge, node 0 for the root; removed at the end."""

    def __init__(self, args, nodes, mbit=None, rtt_ms=0.0):
        self.args, self.nodes, self.mbit, self.rtt_ms = args, nodes, mbit, rtt_ms
        self.processes = []

    def name(self, node):
        return f"dair-lab-{node}"

    def address(self, node):
        return f"10.77.0.{node + 1}"

    def __enter__(self):
        try:
            call("ip", "link", "add", "dairlab", "type", "bridge")
            call("ip", "link", "set", "dairlab", "up")
            for node in range(self.nodes):
                self.add(node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def add(self, node):
        name, outer = self.name(node), f"dairlab{node}"
        call("ip", "netns", "add", name)
        call("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        call("ip", "link", "set", outer, "master", "dairlab", "up")
        for command in (["ip", "link", "set", "lo", "up"], ["ip", "link", "set", "eth0", "up"],
                        ["ip", "addr", "add", f"{self.address(node)}/24", "dev", "eth0"]):
            call("ip", "netns", "exec", name, *command)
        if self.mbit:
            limit = ["root", "tbf", "rate", f"{self.mbit}mbit", "burst", "64kb", "latency", "400ms"]
            call("tc", "qdisc", "add", "dev", outer, *limit)
            call("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", *limit)

    def __exit__(self, *_):
        self.stop()
        for node in range(self.nodes):
            subprocess.run(["ip", "netns", "del", self.name(node)], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", "dairlab"], stderr=subprocess.DEVNULL)

    def start(self, node, *command, group=None):
        enter = ["ip", "netns", "exec", self.name(node)]
        if group:
            enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *enter]
        process = subprocess.Popen([*enter, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def workers(self, command, group=None):
        """Starts `command(address, port)` on every node but the root, behind a relay where the way is to be longer."""
        port = BEHIND if self.rtt_ms else PORT
        for node in range(1, self.nodes):
            address = self.address(node)
            self.start(node, *command(address, port), group=group if node == 1 else None)
            if self.rtt_ms:
                relay = os.path.join(self.args.bin, "relay")
                self.start(node, relay, f"{address}:{PORT}", f"{address}:{port}", str(self.rtt_ms / 2))
        time.sleep(3)
        return [f"{self.address(node)}:{PORT}" for node in range(1, self.nodes)]

    def run(self, *command, env=None):
        done = subprocess.run(["ip", "netns", "exec", self.name(0), *command], capture_output=True, text=True, env=env, timeout=900)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-500:].strip()}")
        return done.stdout

    def received(self, node):
        """Bytes that the interface of a node has received."""
        path = "/sys/class/net/eth0/statistics/rx_bytes"
        text = subprocess.run(["ip", "netns", "exec", self.name(node), "cat", path], capture_output=True, text=True, check=True).stdout
        return int(text)


@contextlib.contextmanager
def half_a_core():
    """A control group with half of a processor."""
    path = "/sys/fs/cgroup/cpu/dair-lab"
    os.makedirs(path, exist_ok=True)
    try:
        for file, text in (("cpu.cfs_period_us", "20000"), ("cpu.cfs_quota_us", "10000")):
            with open(os.path.join(path, file), "w") as handle:
                handle.write(text)
        yield path
    finally:
        os.rmdir(path)


def dair(args, lab, workers, prompt, tokens, *more):
    """Runs a root of dair: its report."""
    env = {**os.environ, "DAIR_CACHE": args.cache}
    output = lab.run(
        os.path.join(args.bin, "dair"), "generate", "--model", args.model, "--prompt", prompt, "--max-tokens", str(tokens),
        "--threads", "1" if workers else "2", "--temperature", "0", "--ignore-eos", "--repack", "always", "--max-seq-len", "1024", "--json",
        *(["--workers", *workers] if workers else []), *more, env=env)
    report = json.loads(output)
    return {"decode": report["decode"]["tokens_per_second"], "prefill s": report["prefill"]["seconds"], "load s": report["load_seconds"],
            "repack s": report["repack_seconds"] or 0.0, "exchange s": (report["network"] or {}).get("exchange_seconds", 0.0),
            "predicted": 1 / (report.get("predicted_seconds_per_token") or float("inf"))}


def dair_workers(args, lab, group=None):
    worker = os.path.join(args.bin, "host-worker")
    env = f"DAIR_CACHE={args.cache}{'-half' if group else ''}"
    return lab.workers(lambda host, port: ["env", env, worker, "--model", args.model, "--host", host, "--port", str(port), "--threads", "1",
                                           "--no-announce"], group)


def dllama(args, lab, workers, prompt, tokens):
    """Runs a root of Distributed-Llama: what it says of itself."""
    start = time.monotonic()
    output = lab.run(
        args.dllama, "inference", "--model", args.model, "--tokenizer", os.path.splitext(args.model)[0] + ".t", "--prompt", prompt,
        "--steps", str(args.prompt_tokens(prompt) + tokens - 1), "--nthreads", "1", "--temperature", "0", "--buffer-float-type", "q80",
        "--max-seq-len", "1024", "--workers", *workers)
    wall = time.monotonic() - start
    phases = [(int(n), float(rate)) for n, rate in re.findall(r"nTokens: (\d+)\s+tokens/s: ([\d.]+)", output)]
    evaluations = re.findall(r"Eval\s+(\d+) ms Sync\s+(\d+) ms", output)
    (prompt_tokens, prefill), (decode_tokens, decode) = phases[-2:]
    seconds = prompt_tokens / prefill if prefill else 0.0
    return {"decode": decode, "prefill s": seconds, "exchange s": sum(int(sync) for _, sync in evaluations) / 1e3,
            "load s": wall - seconds - decode_tokens / decode}


def dllama_workers(args, lab):
    return lab.workers(lambda host, port: [args.dllama, "worker", "--host", host, "--port", str(port), "--nthreads", "1"])


def both(args, nodes, prompt, tokens, *more, mbit=None, rtt_ms=0.0, count=False):
    """Rounds of both systems in turn; figures of each, by name."""
    figures = {"dair": [], "dllama": []}
    for _ in range(args.rounds):
        for system in figures:
            if system == "dllama" and not args.dllama:
                continue
            with Lab(args, nodes, mbit, rtt_ms) as lab:
                workers = dair_workers(args, lab) if system == "dair" else dllama_workers(args, lab)
                run = (lambda n: dair(args, lab, workers, prompt, n, *more)) if system == "dair" else (
                    lambda n: dllama(args, lab, workers, prompt, n))
                before = lab.received(1)
                report = run(tokens)
                if count:
                    # What a longer run receives more, comes with its tokens.
                    middle = lab.received(1)
                    time.sleep(2)
                    run(2 * tokens)
                    report["set-up MB"] = (2 * (middle - before) - (lab.received(1) - middle)) / 1e6
                    report["kB per token"] = (lab.received(1) - 2 * middle + before) / tokens / 1e3
                figures[system].append(report)
    return figures


def show(title, figures, targets=()):
    """Prints medians and ranges; a target is a figure, a least ratio of medians, and which way."""
    print(f"\n## {title}")
    names = sorted({name for runs in figures.values() for run in runs for name in run})
    median = {}
    for name in names:
        for system, runs in figures.items():
            values = [run[name] for run in runs if name in run]
            if values:
                median[system, name] = statistics.median(values)
                print(f"{system:10} {name:14} {median[system, name]:10.3f}   ({min(values):.3f} to {max(values):.3f})")
    for name, least, first, second in targets:
        a, b = median.get((first, name)), median.get((second, name))
        if a and b:
            ratio = a / b if name == "decode" else b / a
            print(f"{first} is {ratio:.2f} times as good as {second} in {name}; wanted: {least} -> {'met' if ratio >= least else 'NOT met'}")
    return {f"{system} {name}": value for (system, name), value in median.items()}


def equal(nodes):
    return ["--shares", ",".join(["1"] * nodes)]


def ready(args):
    figures = both(args, 4, "Hello", 16, *equal(4), mbit=1000)
    for run in figures["dair"]:
        run["ready s"] = run["load s"] - run["repack s"]
    for run in figures["dllama"]:
        run["ready s"] = run["load s"]
    return show("ready: 4 nodes, 1 Gbit/s", figures, [("ready s", 20, "dair", "dllama")])


def traffic(args):
    result = {}
    for nodes, least in ((2, 0), (4, 1), (8, 2)):
        figures = both(args, nodes, "Hello", 24, *equal(nodes), count=True)
        result[nodes] = show(f"traffic into a node, {nodes} nodes", figures, [("kB per token", least, "dair", "dllama")])
    return result


def two(args):
    figures = both(args, 2, PROMPT * 16, 48, *equal(2))
    figures["alone"] = []
    for _ in range(args.rounds):
        with Lab(args, 1) as lab:
            figures["alone"].append(dair(args, lab, [], PROMPT * 16, 48))
    return show("two: two nodes of one thread, and one of two", figures, [("decode", 2.5, "dair", "dllama"), ("decode", 0.9, "dair", "alone")])


def prompt(args):
    figures = both(args, 4, PROMPT * 24, 4, *equal(4), rtt_ms=2.0)
    targets = [("prefill s", 6, "dair", "dllama"), ("exchange s", 30, "dair", "dllama")]
    return show("prompt of some 500 tokens: 4 nodes, 2 ms", figures, targets)


def slow(args):
    figures = both(args, 4, "Hello", 16, mbit=100, rtt_ms=5.0)
    return show("slow: 4 nodes, 5 ms, 100 Mbit/s, dair as the planner chooses", figures, [("decode", 3, "dair", "dllama")])


def halfcore(args):
    figures = {"planned": [], "equal": [], "alone": []}
    with half_a_core() as group:
        for _ in range(args.rounds):
            with Lab(args, 2) as lab:
                workers = dair_workers(args, lab, group)
                figures["planned"].append(dair(args, lab, workers, "Hello", 48))
                figures["equal"].append(dair(args, lab, workers, "Hello", 48, *equal(2)))
                figures["alone"].append(dair(args, lab, workers, "Hello", 48, "--shares", "1,0"))
    return show("halfcore: two nodes, one with half a processor", figures, [("decode", 1.6, "planned", "equal")])


def twelve(args):
    figures = {"dair": []}
    for _ in range(args.rounds):
        with Lab(args, 12) as lab:
            figures["dair"].append(dair(args, lab, dair_workers(args, lab), "Hello", 16, *equal(12)))
    return show("twelve nodes on this machine", figures)


EXPERIMENTS = {"ready": ready, "two": two, "traffic": traffic, "prompt": prompt, "slow": slow, "halfcore": halfcore, "twelve": twelve}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--bin", required=True, help="folder of dair, host-worker and relay")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dllama", help="the C++ program; without it, dair alone is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", default="/tmp/dair-lab-cache", help="folder for what is measured once")
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("network namespaces take root: run this as root")
    # Byte tokens of a synthetic vocabulary, which the C++ program counts positions by.
    tokenize = [os.path.join(args.bin, "dair"), "tokenize", "--tokenizer", os.path.splitext(args.model)[0] + ".t"]
    args.prompt_tokens = lambda text: len(json.loads(subprocess.run([*tokenize, "--json", text], capture_output=True, text=True, check=True).stdout)["ids"])
    for name in args.experiments:
        EXPERIMENTS[name](args)


if __name__ == "__main__":
    main()
