#!/usr/bin/env python3
"""Times `dair generate` and C++ Distributed-Llama's `dllama inference` on one model, in turn, as whole processes.

    benches/compare.py --dair target/release/dair --dllama path/to/dllama --model m.m [--threads 1 2] [--runs 5]

Prints the median (and range) of prefill and decode speed, peak memory and start time of each, and the ratio of the
medians. Start time is what remains of the wall time after prefill and decode: opening, loading, connecting, ending.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time

PROMPT = "The quick brown fox jumps over the lazy dog while the old miller counts his sacks of flour. "


def run(command):
    """Runs a command; its output, wall time in seconds and peak memory in bytes."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output = process.stdout.read().decode(errors="replace")
    complaint = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    if status != 0:
        raise SystemExit(f"{' '.join(command[:2])} failed: {complaint.strip() or output.strip()}")
    return output, wall, usage.ru_maxrss * 1024


def dair(args, threads):
    output, wall, memory = run(
        [args.dair, "generate", "--model", args.model, "--prompt", args.prompt, "--temperature", "0", "--ignore-eos"]
        + ["--max-tokens", str(args.tokens), "--max-seq-len", str(args.context), "--threads", str(threads), "--json"]
    )
    report = json.loads(output)
    prefill, decode = report["prefill"], report["decode"]
    start = wall - prefill["seconds"] - decode["seconds"]
    return prefill["tokens_per_second"], decode["tokens_per_second"], memory / 1e6, start, prefill["tokens"]


def dllama(args, threads, positions):
    tokenizer = os.path.splitext(args.model)[0] + ".t"
    output, wall, memory = run(
        [args.dllama, "inference", "--model", args.model, "--tokenizer", tokenizer, "--prompt", args.prompt]
        + ["--steps", str(positions), "--temperature", "0", "--nthreads", str(threads)]
        + ["--max-seq-len", str(args.context), "--buffer-float-type", args.buffer]
    )
    phases = re.findall(r"nTokens: (\d+)\s+tokens/s: ([\d.]+)", output)
    (prefill_tokens, prefill), (decode_tokens, decode) = [(int(n), float(rate)) for n, rate in phases[-2:]]
    start = wall - prefill_tokens / prefill - decode_tokens / decode
    return prefill, decode, memory / 1e6, start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dair", required=True)
    parser.add_argument("--dllama", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48, help="tokens to generate")
    parser.add_argument("--repeat", type=int, default=12, help="repetitions of the prompt's sentence")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--buffer", default="q80", help="dllama's buffer type: q80 for q40 weights, f32 for f32")
    args = parser.parse_args()
    args.prompt = PROMPT * args.repeat
    names = ["prefill tokens/s", "decode tokens/s", "peak memory MB", "start s"]
    for threads in args.threads:
        ours, theirs = [], []
        for _ in range(args.runs):
            *figures, prompt_tokens = dair(args, threads)
            ours.append(figures)
            theirs.append(dllama(args, threads, prompt_tokens + args.tokens - 1))
        print(f"{os.path.basename(args.model)}, {threads} threads, {prompt_tokens} + {args.tokens} tokens, {args.runs} runs in turn")
        print(f"  {'':<18}{'dair':>28}{'dllama':>28}{'ratio':>8}")
        for name, a, b in zip(names, zip(*ours), zip(*theirs)):
            show = lambda x: f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})"
            ratio = statistics.median(a) / statistics.median(b)
            print(f"  {name:<18}{show(a):>28}{show(b):>28}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
