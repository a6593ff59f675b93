#!/usr/bin/env python3
"""Times `dair generate` with guessed tokens beside without, in turn, as whole processes, on texts that repeat themselves and on some that do not.

    benches/speculate.py --dair target/release/dair --model smollm2.m
    benches/speculate.py --dair target/release/dair --model smollm2.m --model 1b.m --threads 1 2
    benches/speculate.py --dair target/release/dair --model large.m --way 'draft=--draft small.m' --way 'four=--speculate 4'

In every round each case runs once without guesses (`--speculate off`) and once each way; who begins changes from round to round. Printed are
medians and ranges of tokens per second of decode, the ratio of the medians to that without guesses, processor seconds of the whole process beside those
without (with one thread, what a shared machine leaves of a comparison), and how many guessed tokens were accepted of how many. Answers must
be the same, to the letter: the script fails where one is not.

Cases: `quote` asks for a text that stands in the question; `edit` for a program with a change; `loop` continues a list greedily; `story`, `chance` and
`noise` sample so that hardly a guess is right (`chance`: from three tokens alike, where there is much to guess; `noise`: from nearly all). Instructed models
are asked (`--chat`), others (`--plain`, and models without a chat template) continue.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess

PROGRAM = '''def total(prices, discount):
    """Sum of all prices, less a discount in percent."""
    if not 0 <= discount <= 100:
        raise ValueError("discount must be between 0 and 100")
    result = 0
    for price in prices:
        if price < 0:
            raise ValueError("a price must not be negative")
        result += price
    return result * (100 - discount) / 100
'''
LETTER = """Dear Mrs Abernathy, we have received your order of the third of March for twelve brass lanterns and two coils of
tarred rope. The lanterns will leave our workshop on Thursday; the rope, I regret to say, is delayed, because the ship that
carries it lies in Bergen with a broken mast. We expect it within a fortnight and shall send it at our own expense."""

# Prompt, and how tokens are chosen.
CASES = {
    "quote": (f"Repeat the following text word for word, three times:\n\n{LETTER}", ["--temperature", "0"]),
    "edit": (f"Rename the variable result to amount in this program and print the whole program:\n\n{PROGRAM}", ["--temperature", "0"]),
    "loop": ("one, two, three, four, one, two, three, four, one, two, three, four, one,", ["--temperature", "0"]),
    "story": ("Write a long story about a lighthouse keeper who finds a strange machine.", ["--temperature", "1", "--top-p", "0.95"]),
    "chance": (f"Write about letters.\n\n{LETTER}", ["--temperature", "5", "--top-p", "1", "--top-k", "3"]),
    "noise": (f"Write about anything.\n\n{LETTER}", ["--temperature", "4", "--top-p", "1"]),
}


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def generate(args, model, threads, case, flags, seed):
    prompt, sampling = CASES[case]
    command = [args.dair, "generate", "--model", model, "--prompt", prompt, *sampling, "--seed", str(seed), "--json", "--ignore-eos"]
    command += ["--max-tokens", str(args.tokens), "--max-seq-len", str(args.context), "--threads", str(threads)]
    command += ([] if args.plain else ["--chat"]) + args.dair_args + flags
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measure(args, model, threads, case, ways):
    """Figures of all rounds by way: tokens per second, processor seconds, guessed tokens accepted and in all, passes with some."""
    figures = {name: [] for name in ways}
    for number in range(args.runs):
        answers = {}
        names = list(ways)
        names = names[number % len(names):] + names[: number % len(names)]
        for name in names:
            before = processor_seconds()
            report = generate(args, model, threads, case, ways[name], args.seed)
            busy = processor_seconds() - before
            guesses = report["speculation"] or {"accepted": 0, "proposed": 0, "passes": 0}
            figures[name].append((report["decode"]["tokens_per_second"], busy, guesses["accepted"], guesses["proposed"], guesses["passes"]))
            answers[name] = report["text"]
        if len(set(answers.values())) > 1:
            raise SystemExit(f"{case}: answers differ: {answers}")
    return figures


def show(case, figures):
    plain, plain_busy = (statistics.median(column) for column in list(zip(*figures["off"]))[:2])
    for name, rounds in figures.items():
        rates = [rate for rate, *_ in rounds]
        busy, accepted, proposed, passes = (statistics.median(column) for column in list(zip(*rounds))[1:])
        line = f"  {case if name == 'off' else '':<8}{name:<10}{statistics.median(rates):8.1f} ({min(rates):.1f} to {max(rates):.1f})".ljust(48)
        if name != "off":
            line += f"{statistics.median(rates) / plain:6.3f} x   {busy / plain_busy:6.3f} x processor   {accepted:.0f} of {proposed:.0f} in {passes:.0f} passes"
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dair", required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--way", action="append", default=[], metavar="NAME=FLAGS", help="another way, beside off and auto")
    parser.add_argument("--dair-args", type=shlex.split, default=[], metavar="FLAGS", help="more flags for every run, as --dair-args='--flag value'")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--plain", action="store_true", help="continue the prompts instead of asking them")
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="keep the figures of every round")
    args = parser.parse_args()
    ways = {"off": ["--speculate", "off"], "auto": ["--speculate", "auto"]}
    for text in args.way:
        name, _, flags = text.partition("=")
        if not flags or name in ways:
            parser.error(f"--way {text}: give a new name and flags, NAME=FLAGS")
        ways[name] = shlex.split(flags)
    kept = []
    for model in args.model:
        for threads in args.threads:
            print(f"{os.path.basename(model)}, {threads} {'threads' if threads > 1 else 'thread'}, {args.tokens} tokens, {args.runs} rounds: decode tokens/s")
            for case in args.case:
                figures = measure(args, model, threads, case, ways)
                show(case, figures)
                kept.append({"model": os.path.basename(model), "threads": threads, "case": case, "rounds": figures})
    if args.json:
        with open(args.json, "w") as file:
            json.dump(kept, file, indent=1)


if __name__ == "__main__":
    main()
