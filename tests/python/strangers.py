#!/usr/bin/env python3
"""Ten thousand strangers come to a worker that computes an answer: strangers.py --bin FOLDER --model FILE.m

A worker with a key and a root of one thread each, on loopback, at temperature 0; undisturbed and with strangers, in turn. While tokens
come, strangers connect to the worker's port, half of them from one address and half from 61, and send it a datagram of garbage each:
one quarter sends garbage (some of it begins as roots and workers do), one says nothing, one says a byte per second, one ends at once.
All answers must be the same and complete, nobody may be left out, another root with the key must hear meanwhile that the worker is busy,
and afterwards the worker must have as many threads and open files as before. Exit code 1 where something is not so.

Speeds are reported beside what is wanted, and are no reason to fail unless they are far off: strangers take their time from the same
processors here, which the line about them tells.
"""
import argparse, collections, errno, json, os, random, re, resource, socket, statistics, subprocess, sys, tempfile, time

CALL, LINK = b"\x01\0\0\0dair", b"\x01\0\0\0link"
# Wanted of the decode speed and of the other root's answer; and what is far off.
WANTED, FAR = 0.95, 0.1
SOON_S, LATE_S = 1, 5
# In which the worker has let go whoever is silent, and more.
CALM_S = 20
FLAGS = ["--temperature", "0", "--threads", "1", "--ignore-eos", "--speculate", "off", "--max-seq-len", "2048"]


def be_strangers(address, count, seconds):
    """Connects so often within `seconds`, to say what strangers say; then tells what that has cost."""
    count, seconds, dice, start = int(count), float(seconds), random.Random(1), time.monotonic()
    host, port = address.split(":")
    target = host, int(port)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    # All that are open, the oldest first; those that speak slowly, with the time of their next byte.
    held, slow, refused = collections.deque(), collections.deque(), 0
    for n in range(count):
        now = time.monotonic()
        while slow and slow[0][0] <= now:
            _, stranger = slow.popleft()
            try:
                stranger.send(b"\x01")
                slow.append((now + 1, stranger))
            except OSError:
                # The worker has had enough of it.
                pass
        # Not for each of them: sleeping costs as much as a stranger.
        if (wait := start + n * seconds / count - now) > 0.005:
            time.sleep(wait)
        garbage = dice.choice((b"", CALL, LINK)) + dice.randbytes(dice.randrange(1, 400))
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        stranger.bind(("127.0.0.2" if n % 2 else f"127.0.1.{n // 2 % 61 + 1}", 0))
        failed = stranger.connect_ex(target)
        refused += failed not in (0, errno.EINPROGRESS)
        try:
            if n // 2 % 4 == 0:
                stranger.send(garbage)
            elif n // 2 % 4 == 1:
                slow.append((now + 1, stranger))
        except OSError:
            refused += 1
        held.append(stranger)
        # The fourth ends at once; so do the oldest where no more files may be open.
        if n // 2 % 4 == 3:
            held.pop().close()
        elif len(held) > most - 64:
            held.popleft().close()
        datagrams.sendto(garbage, target)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"refused": refused, "seconds": time.monotonic() - start, "cpu_s": used.ru_utime + used.ru_stime}))


class Worker:
    def __init__(self, options):
        command = [f"{options.bin}/host-worker", "--model", options.model, "--key", options.key, "--host", "127.0.0.1", "--port", "0",
                   "--threads", "1", "--no-announce"]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, text=True)
        self.address = self.says(r"listening on (\S+),")

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def says(self, pattern, before=""):
        """Waits until it has said something behind what it had said before."""
        for _ in range(1500):
            found = re.search(pattern, self.said()[len(before):])
            if found:
                return found[1]
            time.sleep(0.02)
        sys.exit(f"the worker does not say {pattern}: {self.said()}")

    def holds(self):
        """Threads and open files."""
        return tuple(len(os.listdir(f"/proc/{self.process.pid}/{kind}")) for kind in ("task", "fd"))

    def cpu_s(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self):
        return int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read())[1]) / 1e3


def generate(options, worker, tokens):
    return [f"{options.bin}/dair", "generate", "--model", options.model, "--key", options.key, "--prompt", "The quick brown fox", "--json",
            "--max-tokens", str(tokens), *FLAGS, "--workers", worker.address, "--shares", "1,1"]


def run(options, worker, seconds, strangers):
    """One answer; other roots ask thrice within the `seconds` that it should take: its report and theirs."""
    cpu, said = worker.cpu_s(), worker.said()
    with subprocess.Popen(generate(options, worker, options.tokens), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as root:
        worker.says(r"root (\S+): node 1 of 2\n", said)
        start, flood = time.monotonic(), None
        if strangers:
            command = ["nice", sys.executable, os.path.abspath(__file__), "--strangers-to", worker.address, str(strangers), str(0.8 * seconds)]
            flood = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        asked, most = [], worker.holds()
        for part in (0.2, 0.45, 0.7):
            while time.monotonic() - start < part * seconds:
                time.sleep(0.05)
                most = max(most, worker.holds())
            begun = time.monotonic()
            other = subprocess.run(generate(options, worker, 1), capture_output=True, text=True)
            # One that is asked when the answer is complete has nothing to say about it.
            if root.poll() is None:
                asked.append((time.monotonic() - begun, other.returncode == 1 and " is busy: " in other.stderr, other.stderr))
        output, words = root.communicate()
    report = {"end": time.monotonic() - start, "flood": json.loads(flood.communicate()[0]) if flood else None}
    if root.returncode:
        sys.exit(f"FAILED: the root ends with exit code {root.returncode}: {words}")
    return report | json.loads(output) | {"words": words, "asked": asked, "threads": most[0], "cpu_s": worker.cpu_s() - cpu}


def check(options, worker, first, runs, holds):
    """What is not so, beside the first answer and what the worker held then."""
    for run in runs:
        if (run["text"], run["generated_tokens"]) != (first["text"], options.tokens):
            yield f"another answer, of {run['generated_tokens']} tokens"
        if "left out" in run["words"]:
            yield run["words"]
        if run["flood"] and run["flood"]["refused"] > options.strangers / 10:
            yield f"{run['flood']['refused']} strangers could not connect"
    if not all(any(run["asked"] for run in part) for part in (runs[::2], runs[1::2])):
        yield "no other root has asked in time"
    for run in runs:
        for seconds, is_busy, words in run["asked"]:
            if not is_busy or seconds > LATE_S:
                yield f"another root hears after {seconds:.2f} s: {words}"
    deadline = time.monotonic() + CALM_S
    while any(now > before for now, before in zip(worker.holds(), holds)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if any(now > before for now, before in zip(worker.holds(), holds)):
        yield f"threads and files of the worker: {holds} before, {worker.holds()} when the strangers are gone"


def play(options, worker):
    # The first tells how long an answer takes.
    first = run(options, worker, 0, 0)
    seconds, holds, peak = first["decode"]["seconds"], worker.holds(), worker.peak_mb()
    runs = [run(options, worker, seconds, strangers) for _ in range(options.rounds) for strangers in (0, options.strangers)]
    calm, flooded = runs[::2], runs[1::2]
    failed = list(check(options, worker, first, runs, holds))
    speeds = []
    for name, runs in (("undisturbed", calm), ("with strangers", flooded)):
        found = [run["decode"]["tokens_per_second"] for run in runs]
        answers = [seconds for run in runs for seconds, *_ in run["asked"]]
        speeds.append(statistics.median(found))
        print(f"{name:14} {speeds[-1]:6.2f} tokens/s ({min(found):.2f} to {max(found):.2f}); another root hears after "
              f"{statistics.median(answers):.2f} s, {max(answers):.2f} at most, wanted {SOON_S}; the worker takes "
              f"{statistics.median(run['cpu_s'] for run in runs):.2f} s of processors, {max(run['threads'] for run in runs)} threads at most")
    floods = [run["flood"] for run in flooded]
    print(f"{options.strangers} strangers in {statistics.median(flood['seconds'] for flood in floods):.1f} s of "
          f"{statistics.median(run['end'] for run in flooded):.1f} s, {sum(run['flood']['seconds'] > run['end'] for run in flooded)} times "
          f"beyond the answer; they take {statistics.median(flood['cpu_s'] for flood in floods):.2f} s of processors")
    print(f"memory of the worker {peak:.0f} MB before, {worker.peak_mb():.0f} MB at its peak")
    ratio = speeds[1] / speeds[0]
    print(f"speed with strangers: {ratio:.3f} of the undisturbed, wanted {WANTED}")
    if ratio < FAR:
        failed.append(f"{ratio:.2f} of the speed is far off")
    for what in failed:
        print(f"FAILED: {what}")
    return int(bool(failed))


def main():
    if sys.argv[1:2] == ["--strangers-to"]:
        return be_strangers(*sys.argv[2:])
    about, _, more = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of dair and host-worker")
    parser.add_argument("--model", required=True)
    parser.add_argument("--strangers", type=int, default=10_000, help="of each answer that is disturbed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.key = f"{folder}/key"
        subprocess.run([f"{options.bin}/dair", "key", "new", options.key], check=True, stdout=subprocess.DEVNULL)
        worker = Worker(options)
        try:
            return play(options, worker)
        finally:
            worker.process.kill()
            worker.process.wait()


if __name__ == "__main__":
    sys.exit(main())
