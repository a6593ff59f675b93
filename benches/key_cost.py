#!/usr/bin/env python3
"""What a cluster's key costs: one root and one worker of one thread each over loopback, with a key and without, in turn.

    benches/key_cost.py --bin target/release --model 1b.m

Each run computes a prompt of about 512 tokens and decodes behind it; who begins changes from round to round. Both workers live all
the time, and one of them is idle. A run in which others took more than an eighth of the machine does not count and is done again, for
--minutes at most. Printed are medians and ranges of tokens per second and of the processor seconds of root and worker together, and the
ratio of the medians. Texts must be the same, those of runs that do not count among them: the script fails where one is not.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SENTENCE = "The quick brown fox jumps over the lazy dog while the old miller counts his sacks of flour. "
WANTED = 0.97
# A virtual machine is never without it.
DISTURBED = 0.125


def environment(folder):
    """That of somebody who has no key."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DAIR_KEY")} | {"XDG_CONFIG_HOME": folder}


class Worker:
    def __init__(self, args, folder, key):
        self.key, self.environment = ["--key", key] if key else [], environment(folder)
        command = [f"{args.bin}/host-worker", "--model", args.model, "--host", "127.0.0.1", "--port", "0", "--threads", "1",
                   "--no-announce", *self.key]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, text=True, env=self.environment)
        for _ in range(500):
            self.log.seek(0)
            found = re.match(r"listening on (\S+),", self.log.read())
            if found:
                break
            time.sleep(0.02)
        else:
            sys.exit("error: a worker does not start")
        self.address = found[1]

    def busy(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, args):
        """What the root reports of one run beside this worker, with processor seconds of both, and the part of the machine that others took."""
        command = [f"{args.bin}/dair", "generate", "--model", args.model, "--prompt", SENTENCE * args.sentences, "--temperature", "0", "--json",
                   "--ignore-eos", "--speculate", "off", "--max-tokens", str(args.tokens), "--max-seq-len", "1024", "--threads", "1",
                   "--workers", self.address, "--shares", "1,1", *self.key]
        start, before, all_before = time.monotonic(), self.busy() + children(), machine()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            sys.exit(f"error: {done.stderr.strip()}")
        busy, everybody = self.busy() + children() - before, machine() - all_before
        others = (everybody - busy) / (time.monotonic() - start) / os.cpu_count()
        return json.loads(done.stdout) | {"busy": busy, "others": others}


def children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine():
    """Processor seconds of everybody, and what a host takes away."""
    user, nice, system, _, _, *more = map(int, open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + sum(more)) / os.sysconf("SC_CLK_TCK")


def processor():
    found = re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())
    return f"{found[1] if found else 'unknown processor'}, {os.cpu_count()} processors"


def main():
    about, _, more = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release", help="folder of dair and host-worker [default: %(default)s]")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=12, help="of the prompt")
    args = parser.parse_args()
    calm, every = {"without": [], "with a key": []}, []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"{args.bin}/dair", "key", "new", f"{folder}/key"], check=True, stdout=subprocess.DEVNULL)
        workers = dict(zip(calm, (Worker(args, folder, None), Worker(args, folder, f"{folder}/key"))))
        try:
            deadline, rounds = time.monotonic() + 60 * args.minutes, 0
            while min(map(len, calm.values())) < args.rounds and time.monotonic() < deadline:
                for name in list(calm)[:: -1 if rounds % 2 else 1]:
                    every.append(workers[name].run(args))
                    if every[-1]["others"] < DISTURBED:
                        calm[name].append(every[-1])
                rounds += 1
        finally:
            for worker in workers.values():
                worker.process.kill()
                worker.process.wait()
    counts = " and ".join(str(len(found)) for found in calm.values())
    print(f"{processor()}; prompt of {every[0]['prefill']['tokens']} tokens, answer of {args.tokens}; {counts} runs of {len(every)} count")
    if not all(calm.values()):
        sys.exit("FAILED: others use the machine")
    for what, of in (
        ("decode, tokens/s", lambda run: run["decode"]["tokens_per_second"]),
        ("prompt, tokens/s", lambda run: run["prefill"]["tokens_per_second"]),
        ("processors, s", lambda run: run["busy"]),
    ):
        figures = [[of(run) for run in found] for found in calm.values()]
        medians = [statistics.median(found) for found in figures]
        shown = (f"{name} {median:.2f} ({min(found):.2f} to {max(found):.2f})" for name, median, found in zip(calm, medians, figures))
        wanted = f", wanted {WANTED}" if what.startswith("decode") else ""
        print(f"{what:17} {', '.join(shown)}: {medians[1] / medians[0]:.3f}{wanted}")
    if len({run["text"] for run in every}) != 1:
        sys.exit("FAILED: texts differ")


if __name__ == "__main__":
    main()
