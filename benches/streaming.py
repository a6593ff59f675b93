#!/usr/bin/env python3
"""Times `dair` on a model that does not fit the memory, beside llama.cpp's mapped file under the same limit.

    benches/streaming.py --model 8b.m --dair target/release/dair --llama path/to/llama-bench --percent 75 50 25

The limit is a control group's (version 1, `memory`), with the page cache in it: so many percent of the weights that a token
reads, and 80 MB for everything else. Systems take turns; what the cache holds of a file is dropped before each run. The disk's own
speed is that of `fio`, if it is there, with the same size of requests. `benches/gguf_of_m.py 8b.m` makes llama.cpp's model.

    benches/streaming.py --model 8b.m --two-nodes 400

times one node beside two that have half of its memory each, when a disk gives each of them so many megabytes per second (control
groups, version 1, `blkio`).

Linux, as root.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

GROUP = "/sys/fs/cgroup/memory/dair-streaming"
DISKS = "/sys/fs/cgroup/blkio/dair-streaming"
BESIDE = 80_000_000


def forget(path):
    """Drops what the page cache holds of a file."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def limited(limit, command):
    """Runs a command with at most `limit` bytes; its output, and the most that it had."""
    os.makedirs(GROUP, exist_ok=True)
    write = lambda name, value: open(os.path.join(GROUP, name), "w").write(str(value))
    write("memory.force_empty", 0)
    write("memory.limit_in_bytes", limit)
    write("memory.max_usage_in_bytes", 0)
    done = subprocess.run(
        ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', GROUP, *command], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout, int(open(os.path.join(GROUP, "memory.max_usage_in_bytes")).read())


def weight_bytes(dair, model):
    """Bytes of weights that a token reads."""
    found = json.loads(subprocess.run([dair, "inspect", "--model", model, "--json"], capture_output=True, text=True, check=True).stdout)
    return os.path.getsize(model) - 4 * found["header"]["vocab_size"] * found["header"]["dim"]


def run_dair(args, limit):
    forget(args.model)
    command = [args.dair, "generate", "--model", args.model, "--prompt", "one two three", "--temperature", "0", "--ignore-eos"]
    command += ["--max-tokens", str(args.tokens + 1), "--max-seq-len", "512", "--threads", str(args.threads)]
    command += ["--speculate", "off", "--json"] + (["--memory", str(limit)] if limit else []) + args.more
    out, peak = limited(limit or -1, command)
    found = json.loads(out.splitlines()[-1])
    streaming = found.get("streaming") or {}
    read = streaming.get("bytes_per_pass", 0)
    rate = found["decode"]["tokens_per_second"]
    return {"tokens_per_second": rate, "peak_bytes": peak, "read_bytes_per_s": read * rate, "text": found["text"]}


def run_llama(args, limit):
    gguf = args.gguf or os.path.splitext(args.model)[0] + ".gguf"
    forget(gguf)
    command = [args.llama, "-m", gguf, "-p", "0", "-n", str(args.tokens), "-t", str(args.threads), "-r", "1"]
    out, peak = limited(limit or -1, command + ["--no-warmup", "--repack", "0", "-o", "json"])
    return {"tokens_per_second": json.loads(out)[0]["avg_ts"], "peak_bytes": peak}


def disk(args):
    """Bytes per second of large reads past the page cache, or None without fio."""
    if not shutil.which("fio"):
        return None
    command = ["fio", "--name=read", f"--filename={args.model}", "--readonly", "--rw=read", "--bs=4M", "--direct=1"]
    command += ["--ioengine=libaio", "--iodepth=4", "--runtime=6", "--time_based", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["jobs"][0]["read"]["bw_bytes"]


def on_disk(node, megabytes, args, command, **more):
    """Starts a command of a node whose disk gives so much per second."""
    group = f"{DISKS}-{node}"
    os.makedirs(group, exist_ok=True)
    device = os.stat(args.model).st_dev
    with open(os.path.join(group, "blkio.throttle.read_bps_device"), "w", encoding="utf-8") as file:
        file.write(f"{os.major(device)}:{os.minor(device)} {megabytes * 1_000_000}\n")
    return subprocess.Popen(["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group, *command], **more)


def two_nodes(args, weights):
    """One node with half of the weights in memory beside two with a quarter each, a thread for each node."""
    worker = os.path.join(os.path.dirname(args.dair), "host-worker")

    def run(memory, more):
        command = [args.dair, "generate", "--model", args.model, "--prompt", "one two", "--temperature", "0", "--ignore-eos"]
        command += ["--max-tokens", str(args.tokens + 1), "--max-seq-len", "512", "--threads", "1", "--speculate", "off"]
        command += ["--json", "--memory", str(memory), *more]
        process = on_disk(0, args.two_nodes, args, command, stdout=subprocess.PIPE, text=True)
        found = json.loads(process.communicate()[0].splitlines()[-1])
        return found["decode"]["tokens_per_second"], found["text"]

    one, two, address = [], [], "127.0.0.1:9978"
    for _ in range(args.rounds):
        one.append(run(weights // 2 + BESIDE, []))
        command = [worker, "--model", args.model, "--host", "127.0.0.1", "--port", "9978", "--threads", "1", "--no-announce"]
        process = on_disk(1, args.two_nodes, args, [*command, "--quiet", "--memory", str(weights // 4 + BESIDE // 2)])
        try:
            time.sleep(2)
            two.append(run(weights // 4 + BESIDE // 2, ["--workers", address, "--shares", "1,1"]))
        finally:
            process.kill()
            process.wait()
    if len({text for _, text in one + two}) != 1:
        sys.exit("two nodes answer other than one")
    rates = [[rate for rate, _ in runs] for runs in (one, two)]
    ratio = statistics.median(rates[1]) / statistics.median(rates[0])
    print(f"one node {rates[0]}, two {rates[1]} tokens/s: {ratio:.2f} times")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dair", default="target/release/dair")
    parser.add_argument("--more", nargs="*", default=[], help="more flags for dair")
    parser.add_argument("--llama", help="llama-bench")
    parser.add_argument("--gguf", help="the model for llama.cpp [default: the model's name with .gguf]")
    parser.add_argument("--percent", type=int, nargs="+", default=[75, 50, 25])
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--two-nodes", type=int, metavar="MB", help="one node and two, MB/s of the disk of each")
    parser.add_argument("--json", help="also write all runs to this file")
    args = parser.parse_args()
    weights = weight_bytes(args.dair, args.model)
    processor = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    print(f"{processor[1] if processor else '?'}; {weights / 1e9:.2f} GB of weights; {args.rounds} rounds of {args.tokens} tokens")
    if args.two_nodes:
        return two_nodes(args, weights)
    runs = []
    for _ in range(args.rounds):
        for percent in args.percent:
            limit = weights * percent // 100 + BESIDE
            runs.append({"system": "disk", "percent": percent, "read_bytes_per_s": disk(args)})
            runs.append({"system": "dair", "percent": percent, "limit": limit, **run_dair(args, limit)})
            if args.llama:
                runs.append({"system": "llama.cpp", "percent": percent, "limit": limit, **run_llama(args, limit)})
    texts = {run["text"] for run in runs if "text" in run}
    if len(texts) != 1:
        sys.exit(f"dair's answer depends on its memory: {texts}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(runs, file, indent=1)
    print("limit   disk GB/s  dair GB/s  of disk   dair tok/s (range)      llama.cpp (range)       ratio   peak of limit")
    for percent in args.percent:
        of = lambda system, key: [r[key] for r in runs if r["system"] == system and r["percent"] == percent and r.get(key)]
        middle = lambda values: statistics.median(values) if values else float("nan")
        span = lambda values: f"{middle(values):6.3f} ({min(values):.3f}-{max(values):.3f})" if values else "-"
        dair, llama = of("dair", "tokens_per_second"), of("llama.cpp", "tokens_per_second")
        own, raw = middle(of("dair", "read_bytes_per_s")), middle(of("disk", "read_bytes_per_s"))
        peak = max(of("dair", "peak_bytes")) / (weights * percent // 100 + BESIDE)
        print(
            f"{percent:4} %  {raw / 1e9:9.2f}  {own / 1e9:9.2f}  {own / raw:7.2f}   {span(dair):22}  {span(llama):22}"
            f"  {middle(dair) / middle(llama):5.2f}   {peak:.3f}"
        )


if __name__ == "__main__":
    main()
