#!/usr/bin/env python3
"""Times `dair generate` beside C++ Distributed-Llama and llama.cpp on one model, in turn, as whole processes.

    benches/compare.py --model m.m --dair target/release/dair --dllama path/to/dllama
    benches/compare.py --model m.m --dair new=path/to/dair --dair old=path/to/dair --threads 2
    benches/compare.py --model m.m --dair target/release/dair --gguf m.gguf \\
        --llama native=path/to/llama-bench --llama 'plain=path/to/llama-bench --repack 0'

A system is [NAME=]PATH, with more flags for it behind the path. Of llama.cpp, a program with "bench" in its name is taken
for `llama-bench`, another for `llama-completion`; `benches/gguf_of_m.py` makes the GGUF file out of the `.m` file.

In every round each system runs twice: a long prompt with two tokens behind it gives prefill speed and start time, a
short prompt with many tokens behind it decode speed. Nobody warms up. Printed are medians, ranges, and the ratio of the
first system's median to this one's: speeds above 1, memory and start below 1 are in favour of the first.

Speeds are what a system says of itself; llama.cpp leaves out the sampling. Peak memory is the larger of the two runs'.
Start time is the wall time of the long run without its phases: opening, loading, connecting, ending.
"""

import argparse
import functools
import json
import os
import re
import shlex
import statistics
import subprocess
import tempfile
import time
from collections import namedtuple

PROMPT = "The quick brown fox jumps over the lazy dog while the old miller counts his sacks of flour. "
FIGURES = ["prefill tokens/s", "decode tokens/s", "peak memory MB", "start s"]
GREEDY = ["--temperature", "0"]

System = namedtuple("System", "kind name command")
Task = namedtuple("Task", "phase prompt prompt_tokens tokens")
# `other` are seconds that belong to neither phase nor to start.
Run = namedtuple("Run", "prefill_tokens prefill decode_tokens decode other wall memory")


def run(command):
    """Runs a command; its output, what it said on the side, wall time in seconds and peak memory in bytes."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as side:
        start = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=side)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (output, side):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed: {(texts[1] or texts[0]).strip()}")
    return *texts, wall, usage.ru_maxrss * 1024


@functools.cache
def one_by_one(program):
    """Flags with which `dair` computes a token at a time, as the others do; revisions without guesses need none."""
    text = subprocess.run([program, "generate", "--help"], capture_output=True, text=True).stdout
    return ["--speculate", "off"] if "--speculate" in text else []


def dair(system, args, threads, task):
    more = system.command[1:] + args.dair_args
    output, _, wall, memory = run(
        [system.command[0], "generate", "--model", args.model, "--prompt", task.prompt, *GREEDY, "--ignore-eos", "--json"]
        + ["--max-tokens", str(task.tokens), "--max-seq-len", str(args.context), "--threads", str(threads)]
        + more + ([] if "--speculate" in more else one_by_one(system.command[0]))
    )
    report = json.loads(output)
    prefill, decode = report["prefill"], report["decode"]
    return Run(prefill["tokens"], prefill["seconds"], decode["tokens"], decode["seconds"], 0, wall, memory)


def dllama(system, args, threads, task):
    tokenizer = os.path.splitext(args.model)[0] + ".t"
    output, _, wall, memory = run(
        [system.command[0], "inference", "--model", args.model, "--tokenizer", tokenizer, "--prompt", task.prompt, *GREEDY]
        + ["--steps", str(task.prompt_tokens + task.tokens - 1), "--nthreads", str(threads)]
        + ["--max-seq-len", str(args.context), "--buffer-float-type", args.buffer] + system.command[1:]
    )
    phases = re.findall(r"nTokens: (\d+)\s+tokens/s: ([\d.]+)", output)
    (prefill_tokens, prefill), (decode_tokens, decode) = [(int(n), float(rate)) for n, rate in phases[-2:]]
    return Run(prefill_tokens, prefill_tokens / prefill, decode_tokens, decode_tokens / decode, 0, wall, memory)


def llama_completion(system, args, threads, task):
    *outputs, wall, memory = run(
        [system.command[0], "-m", args.gguf, "-p", task.prompt, "-n", str(task.tokens), "--temp", "0", "--ignore-eos"]
        + ["-c", str(args.context), "-t", str(threads), "-no-cnv", "--no-warmup", "--perf"] + system.command[1:]
    )
    times = re.findall(r"(prompt eval|eval|sampling) time = +([\d.]+) ms(?: / +(\d+))?", "".join(outputs))
    times = {name: (int(count or 0), float(ms) / 1e3) for name, ms, count in times}
    return Run(*times["prompt eval"], *times["eval"], times["sampling"][1], wall, memory)


def llama_bench(system, args, threads, task):
    """Either phase alone: tokens are random, the prompt of the decode phase is built outside of the measured time."""
    sizes = {
        "prefill": ["-p", task.prompt_tokens, "-n", 0],
        "decode": ["-p", 0, "-n", task.tokens, "-d", task.prompt_tokens],
    }[task.phase]
    output, _, wall, memory = run(
        [system.command[0], "-m", args.gguf, "-t", str(threads), "-r", "1", "--no-warmup", "-o", "json"]
        + [str(size) for size in sizes] + system.command[1:]
    )
    [test] = json.loads(output)
    seconds = test["avg_ns"] / 1e9
    prefill, decode = (seconds, 0) if task.phase == "prefill" else (0, seconds)
    return Run(test["n_prompt"], prefill, test["n_gen"], decode, 0, wall, memory)


def llama(system, *rest):
    bench = "bench" in os.path.basename(system.command[0])
    return (llama_bench if bench else llama_completion)(system, *rest)


KINDS = {"dair": dair, "dllama": dllama, "llama": llama}


def measure(system, args, threads, long, short):
    """The figures of one round, in the order of FIGURES."""
    prefill = KINDS[system.kind](system, args, threads, long)
    decode = KINDS[system.kind](system, args, threads, short)
    return [
        prefill.prefill_tokens / prefill.prefill,
        decode.decode_tokens / decode.decode,
        max(prefill.memory, decode.memory) / 1e6,
        prefill.wall - prefill.prefill - prefill.decode - prefill.other,
    ]


def tasks(args, system):
    """The long and the short prompt, with their tokens as the first system counts them."""

    def counted(phase, prompt, tokens):
        task = Task(phase, prompt, None, tokens)
        return task._replace(prompt_tokens=dair(system, args, max(args.threads), task).prefill_tokens)

    short = counted("decode", PROMPT, args.tokens)
    if args.repeat:
        return counted("prefill", PROMPT * args.repeat, 2), short
    # A letter more is at most a token more, so between too few and too many there is a length with just enough.
    text = PROMPT * (args.prefill // (short.prompt_tokens // 2) + 1)
    low, low_tokens, high = 0, 0, counted("prefill", text, 2)
    while high.prompt_tokens > args.prefill and len(high.prompt) - low > 1:
        share = (args.prefill - low_tokens) / (high.prompt_tokens - low_tokens)
        letters = low + max(1, int(share * (len(high.prompt) - low)))
        task = counted("prefill", text[:letters], 2)
        if task.prompt_tokens < args.prefill:
            low, low_tokens = letters, task.prompt_tokens
        else:
            high = task
    return high, short


def rounded(x):
    return f"{x:.{0 if x >= 1000 else 1 if x >= 10 else 3}f}"


def show(systems, rounds):
    """One line per system: median, range and, behind the first, the ratio."""
    columns = {system.name: list(zip(*rounds[system.name])) for system in systems}
    print(f"  {'':<12}" + "".join(f"{name:>24}        " for name in FIGURES))
    for system in systems:
        line = f"  {system.name:<12}"
        for first, own in zip(columns[systems[0].name], columns[system.name]):
            median = statistics.median(own)
            ratio = f"{statistics.median(first) / median:6.2f} x" if system is not systems[0] else " " * 8
            line += f"{f'{rounded(median)} ({rounded(min(own))} to {rounded(max(own))})':>24}{ratio}"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="[NAME=]PATH", required=kind == "dair")
    parser.add_argument("--dair-args", type=shlex.split, default=[], metavar="FLAGS", help="more flags for every dair, as --dair-args='--flag value'")
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", help="the model for llama.cpp [default: the model's name with .gguf]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48, help="tokens to generate behind the short prompt")
    parser.add_argument("--prefill", type=int, default=256, help="tokens of the long prompt")
    parser.add_argument("--repeat", type=int, help="instead of --prefill: repetitions of a sentence in the long prompt")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--buffer", default="q80", help="dllama's buffer type: q80 for q40 weights, f32 for f32")
    parser.add_argument("--json", metavar="FILE", help="keep the figures of every round")
    args = parser.parse_args()
    args.gguf = args.gguf or os.path.splitext(args.model)[0] + ".gguf"
    systems = []
    for kind in KINDS:
        for text in getattr(args, kind):
            name, command = re.fullmatch(r"(?:([\w.+-]+)=)?(.+)", text).groups()
            systems.append(System(kind, name or kind, shlex.split(command)))
    if len({system.name for system in systems}) < len(systems):
        parser.error("give the systems different names: NAME=PATH")

    long, short = tasks(args, systems[0])
    kept = []
    for threads in args.threads:
        rounds = {system.name: [] for system in systems}
        for number in range(args.runs):
            for system in systems:
                figures = measure(system, args, threads, long, short)
                rounds[system.name].append(figures)
                kept.append({"threads": threads, "round": number, "system": system.name, **dict(zip(FIGURES, figures))})
        print(f"{os.path.basename(args.model)}, {threads} {'threads' if threads > 1 else 'thread'}, ", end="")
        print(f"prefill of {long.prompt_tokens}, decode of {short.tokens} behind {short.prompt_tokens}, ", end="")
        print(f"{args.runs} rounds", flush=True)
        show(systems, rounds)
        if args.json:
            with open(args.json, "w") as file:
                about = {"model": os.path.basename(args.model), "prefill_tokens": long.prompt_tokens}
                about |= {"decode_tokens": short.tokens, "decode_prompt_tokens": short.prompt_tokens}
                json.dump(about | {"rounds": kept}, file, indent=1)


if __name__ == "__main__":
    main()
