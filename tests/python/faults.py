#!/usr/bin/env python3
"""Workers are lost at random moments, and every answer has to be complete and the same: faults.py --bin FOLDER --model FILE.m

Each point starts a root with one to four workers, all on loopback, and does one thing to one worker (--kinds) at a random moment
from the handshake to the last token: kill (kill -9), stop (SIGSTOP, its connections stay), drain (SIGTERM: it finishes, and ends),
two (kill -9 of two at once). The answer must be that of the root alone, to the byte, and the root must end with code 0. A table
says how many answers were so, and how long no text came, at most and in the median, beside what the undisturbed runs had. Points
follow from --seed; one that fails prints how to run it alone. Exit code 1 where an answer is lost or another one.
"""
import argparse, os, random, re, signal, statistics, subprocess, sys, tempfile, time

HEARTBEAT_S = 2
DONE_S = 120
CALLED_S = 0.1


class Worker:
    def __init__(self, options):
        command = [f"{options.bin}/host-worker", "--model", options.model, "--host", "127.0.0.1", "--port", "0", "--threads", "1"]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, text=True)
        for _ in range(500):
            found = re.match(r"listening on (\S+),", self.said())
            if found:
                break
            time.sleep(0.02)
        else:
            sys.exit(f"a worker does not start: {self.said()}")
        self.address = found[1]

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def is_well(self):
        return self.process.poll() is None

    def send(self, number):
        if self.is_well():
            self.process.send_signal(number)

    def end(self):
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        self.process.wait()


def root(options, workers):
    command = [f"{options.bin}/dair", "generate", "--model", options.model, "--prompt", options.prompt, "--temperature", "0.8",
               "--seed", "7", "--threads", "1", "--max-tokens", str(options.tokens), "--max-seq-len", "2048", "--ignore-eos",
               "--speculate", "off"]
    if workers:
        command += ["--cut", options.cut, "--heartbeat-s", str(HEARTBEAT_S), "--workers", *(worker.address for worker in workers)]
    return command


def run(command, at=(), disturb=lambda: None):
    """Output, exit code, words for people, seconds, and the longest wait for text behind the first."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.set_blocking(process.stdout.fileno(), False)
    text, last, stall, is_done = b"", None, 0.0, not at
    while True:
        now = time.monotonic()
        if not is_done and now - start >= at[0]:
            disturb()
            is_done = True
        piece = process.stdout.read()
        if piece:
            stall = max(stall, now - last) if last else stall
            text, last = text + piece, now
        elif piece == b"" or now - start > DONE_S:
            break
        time.sleep(0.002)
    if not is_done:
        # It was faster than expected: the worker is idle.
        disturb()
    if now - start > DONE_S:
        process.kill()
    words = process.stderr.read().decode(errors="replace")
    return text, process.wait(), words, time.monotonic() - start, stall


def disturbance(kind, workers, dice):
    """What is to be done, and to whom."""
    victims = dice.sample(workers, min(len(workers), 2 if kind == "two" else 1))
    number = {"kill": signal.SIGKILL, "two": signal.SIGKILL, "stop": signal.SIGSTOP, "drain": signal.SIGTERM}[kind]
    return victims, lambda: [worker.send(number) for worker in victims]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog=__doc__.split("\n\n")[1])
    parser.add_argument("--bin", required=True, help="folder of dair and host-worker")
    parser.add_argument("--model", required=True)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=["kill", "stop", "drain", "two"], choices=["kill", "stop", "drain", "two"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this point alone")
    parser.add_argument("--verbose", action="store_true", help="tell of each point")
    parser.add_argument("--cut", default="rows", choices=["best", "rows", "layers"])
    parser.add_argument("--most", type=int, default=4, help="workers of a root, at most")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--prompt", default="The quick brown fox jumps over the lazy dog. " * 12)
    options = parser.parse_args()

    want, code, words, *_ = run(root(options, []))
    if code:
        sys.exit(f"the root alone fails: {words}")
    workers = [Worker(options) for _ in range(options.most)]
    # How long an undisturbed answer takes, and how long no text comes then.
    calm = {count: run(root(options, workers[:count])) for count in range(1, options.most + 1)}
    for count, (text, code, words, *_) in calm.items():
        if (text, code) != (want, 0):
            sys.exit(f"{count} workers that nobody disturbs fail: {words}")
    rows = {kind: [] for kind in options.kinds}
    failed = 0
    for point in range(options.points):
        dice = random.Random(f"{options.seed} {point}")
        kind, count = dice.choice(options.kinds), dice.randint(1, options.most)
        # Not before it was called: one that is not there then is a mistake of whoever has named it.
        moment = dice.uniform(CALLED_S, calm[count][3])
        if options.only not in (None, point):
            continue
        workers = [worker if worker.is_well() else Worker(options) for worker in workers]
        victims, disturb = disturbance(kind, workers[:count], dice)
        text, code, words, seconds, stall = run(root(options, workers[:count]), (moment,), disturb)
        good = (text, code) == (want, 0)
        rows[kind].append((good, stall, calm[count][4]))
        if options.verbose or stall > HEARTBEAT_S + 1.5:
            print(f"point {point}: {kind} at {moment:.2f} s of {count} workers, {stall:.2f} s without text\n{words}", flush=True)
        if not good:
            failed += 1
            print(f"point {point} FAILED: {kind} at {moment:.2f} s with {count} workers, exit code {code}, "
                  f"{len(text)} of {len(want)} bytes\n{words}  again: --seed {options.seed} --only {point}", flush=True)
        for worker in victims:
            # One that is about to end does so by itself where nobody is served any more.
            if kind == "drain":
                try:
                    worker.process.wait(5)
                except subprocess.TimeoutExpired:
                    print(f"point {point} FAILED: a worker that was told to end does not\n{worker.said()}", flush=True)
                    failed += 1
            worker.end()
    for worker in workers:
        worker.end()
    print(f"{'kind':6} {'same':>9} {'stall s: median':>16} {'most':>6} {'undisturbed':>12}")
    for kind, found in rows.items():
        if found:
            stalls = [stall for _, stall, _ in found]
            print(f"{kind:6} {sum(good for good, *_ in found):4}/{len(found):<4} {statistics.median(stalls):16.2f} {max(stalls):6.2f} "
                  f"{max(calm for *_, calm in found):12.2f}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
