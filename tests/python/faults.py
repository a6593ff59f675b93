#!/usr/bin/env python3
"""Workers are lost or disturbed at random moments, and every answer has to be complete and the same: faults.py --bin FOLDER --model FILE.m

Each point starts a root with one to four workers, all with a part of the model and a key, and does one thing to one worker (--kinds) at
a random moment from the handshake to the last token:

    kill     kill -9                               two      kill -9 of two at once
    stop     SIGSTOP, its connections stay         drain    SIGTERM: it finishes, and ends
    pause    stopped for 0.3 to 1 s                nap      stopped for 3 to 6 s, longer than a root waits
    slow     stopped four fifths of the time       garbage  a relay before it changes a bit of whatever passes in one direction
    cut      its cable is pulled: nobody is told (network namespaces, see benches/lab.py: Linux, as root)

The answer must be that of the root alone, to the byte, and the root must end with code 0. Who was paused or slowed must not have been
left out; others, those that drain apart, must have been where a tenth of the text was still to come. A worker that lives must soon take
part in another answer. A table says how many answers were so, in how many a victim was left out, and in how many somebody else; how
long no text came between two pieces, beside what the undisturbed runs had; how much longer than these the answers took; and after how
long workers took part again. Points follow from --seed; one that fails prints how to run it alone. Exit code 1 where something is not so.
"""
import argparse, contextlib, os, random, re, signal, socket, statistics, subprocess, sys, tempfile, threading, time
from functools import partial

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../benches"))
import lab as laboratory

HEARTBEAT_S = 2
DONE_S = 120
CALLED_S = 0.1
# Twice the silence that a root allows, after which a worker frees itself, and time to say so.
AGAIN_S = 2 * HEARTBEAT_S + 2
ROOT = 0
SIGNALS = {"kill": signal.SIGKILL, "two": signal.SIGKILL, "stop": signal.SIGSTOP, "drain": signal.SIGTERM}
STOPPED_S = {"pause": (0.3, 1.0), "nap": (3.0, 6.0)}
SLOW_S = (0.04, 0.01)
STAYS, LIVES = ("pause", "slow"), ("pause", "slow", "nap", "cut", "garbage")
KINDS = [*SIGNALS, *STOPPED_S, "slow", "garbage", "cut"]


class Loopback:
    """All nodes on this machine's own address; what a lab is for nodes in namespaces."""

    def __enter__(self):
        self.processes = []
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def address(self, _):
        return "127.0.0.1"

    def start(self, _, command, **popen):
        self.processes.append(subprocess.Popen(command, preexec_fn=laboratory.die_with_parent, **popen))
        return self.processes[-1]


class Listener:
    """A process on a node, which says where it listens."""

    def __init__(self, network, node, command):
        self.network, self.node = network, node
        self.log = tempfile.TemporaryFile("w+")
        self.process = network.start(node, command, stdout=self.log, stderr=self.log, text=True)
        for _ in range(500):
            found = re.match(r"listening on (\S+),", self.said())
            if found:
                break
            time.sleep(0.02)
        else:
            sys.exit(f"{command[0]} does not start: {self.said()}")
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
        self.send(signal.SIGKILL)
        self.process.wait()


def worker(options, network, node):
    host = network.address(node)
    return Listener(network, node, [f"{options.bin}/host-worker", "--model", options.model, "--key", options.key, "--host", host,
                                    "--port", "0", "--threads", "1", "--no-announce"])


def relay(network, before, dice):
    """A relay before a worker, on its node, with a direction and a seed for what it will change."""
    towards, seed = dice.choice(["in", "out"]), str(dice.random())
    return Listener(network, before.node, [sys.executable, os.path.abspath(__file__), "--relay", before.address, towards, seed])


def be_relay(address, towards, seed):
    """Passes connections and datagrams on to a worker. From SIGUSR1 on a bit is changed in each piece that a connection carries `towards` it."""
    host, port = address.split(":")
    target, dice, spoils = (host, int(port)), random.Random(seed), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: spoils.set())
    listener, datagrams = socket.create_server((host, 0)), socket.socket(type=socket.SOCK_DGRAM)
    datagrams.bind(listener.getsockname())

    def carry(source, sink, is_spoiled):
        with contextlib.suppress(OSError):
            while piece := bytearray(source.recv(1 << 16)):
                if is_spoiled and spoils.is_set():
                    piece[dice.randrange(len(piece))] ^= 1 << dice.randrange(8)
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def answer_questions():
        while True:
            question, client = datagrams.recvfrom(1 << 16)
            with socket.socket(type=socket.SOCK_DGRAM) as own, contextlib.suppress(OSError):
                own.settimeout(0.5)
                own.connect(target)
                own.send(question)
                datagrams.sendto(own.recv(1 << 16), client)

    def accept():
        while True:
            client, _ = listener.accept()
            inner = socket.create_connection(target)
            for end in (client, inner):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way in ((client, inner, towards == "in"), (inner, client, towards == "out")):
                threading.Thread(target=carry, args=way, daemon=True).start()

    for task in (answer_questions, accept):
        threading.Thread(target=task, daemon=True).start()
    print("listening on {}:{}, a relay".format(*listener.getsockname()), flush=True)
    threading.Event().wait()


def root(options, addresses, tokens=None):
    command = [f"{options.bin}/dair", "generate", "--model", options.model, "--prompt", options.prompt, "--temperature", "0.8",
               "--seed", "7", "--threads", "1", "--max-tokens", str(tokens or options.tokens), "--max-seq-len", "2048", "--ignore-eos",
               "--speculate", "off", "--key", options.key]
    if addresses:
        # With any other cut the planner may leave workers without a part, and what is done to those says little.
        equal = ["--shares", ",".join("1" * (len(addresses) + 1))]
        command += ["--heartbeat-s", str(HEARTBEAT_S), "--workers", *addresses, *(equal if options.cut == "equal" else ["--cut", options.cut])]
    return command


def left_out(words):
    """Addresses of those who are left out: each the last in its line, since another worker may tell of it."""
    named = [re.findall(r"worker ([\d.]+:\d+)", line) for line in words.splitlines() if line.startswith("left out: ")]
    return [addresses[-1] for addresses in named if addresses]


class Answer:
    """What a root says and how it ends; from `moment` on, `disturb` is done step by step."""

    def __init__(self, network, command, moment=None, disturb=lambda is_answering: iter(())):
        start = time.monotonic()
        process = network.start(ROOT, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        steps = disturb(lambda: process.poll() is None)
        due = start + moment if moment else float("inf")
        os.set_blocking(process.stdout.fileno(), False)
        self.text, last = b"", None
        # The longest wait for text behind the first, and what there was when the disturbance began.
        self.stall, self.before = 0.0, None
        while True:
            now = time.monotonic()
            if now >= due:
                self.before = len(self.text) if self.before is None else self.before
                due = now + next(steps, float("inf"))
            piece = process.stdout.read()
            if piece:
                self.stall = max(self.stall, now - last) if last else self.stall
                self.text, last = self.text + piece, now
            elif piece == b"" or now - start > DONE_S:
                break
            time.sleep(0.002)
        if now - start > DONE_S:
            process.kill()
        self.words = process.stderr.read().decode(errors="replace")
        self.code, self.seconds = process.wait(), time.monotonic() - start
        # What is left, all of it where the answer was faster than expected: then the worker is idle.
        for wait in steps:
            time.sleep(wait)

    def is_like(self, want):
        return (self.text, self.code) == (want, 0)


def disturbance(kind, victims, network, dice, through, is_answering):
    """Does what a kind says, step by step, each with the seconds until the next one."""
    def send(number):
        for victim in victims:
            victim.send(number)

    if kind in SIGNALS:
        send(SIGNALS[kind])
    elif kind in STOPPED_S:
        send(signal.SIGSTOP)
        yield dice.uniform(*STOPPED_S[kind])
        send(signal.SIGCONT)
    elif kind == "slow":
        while is_answering():
            send(signal.SIGSTOP)
            yield SLOW_S[0]
            send(signal.SIGCONT)
            yield SLOW_S[1]
    elif kind == "cut":
        network.plug(victims[0].node, False)
        while is_answering():
            yield 0.02
        network.plug(victims[0].node, True)
    elif kind == "garbage":
        through.send(signal.SIGUSR1)
        while is_answering():
            yield 0.02
        through.end()


def again(options, network, workers, want):
    """Seconds until workers take part in an answer of one token, nothing where that takes too long."""
    start = time.monotonic()
    while (begun := time.monotonic() - start) < AGAIN_S:
        answer = Answer(network, root(options, [worker.address for worker in workers], 1))
        if answer.is_like(want) and not left_out(answer.words):
            return begun
        time.sleep(0.1)


def complaints(options, kind, names, answer, want):
    """What is wrong with an answer that was disturbed by what was done to workers of these names."""
    if not answer.is_like(want):
        yield f"exit code {answer.code}, {len(answer.text)} of {len(want)} bytes"
    out = left_out(answer.words)
    if kind in STAYS and out:
        yield "somebody is left out"
    # A worker may have no part in other cuts.
    is_early = answer.before is not None and answer.before < 0.9 * len(want)
    if kind not in STAYS and kind != "drain" and options.cut == "equal" and is_early and not set(names) <= set(out):
        yield f"{' and '.join(names)} should have been left out"


def play(options, network):
    alone = [Answer(network, root(options, [], tokens)) for tokens in (options.tokens, 1)]
    for answer in alone:
        if answer.code:
            sys.exit(f"the root alone fails: {answer.words}")
    want, first = (answer.text for answer in alone)
    workers = [worker(options, network, node) for node in range(1, options.most + 1)]
    # How long an undisturbed answer takes, and how long no text comes then.
    calm = {count: Answer(network, root(options, [worker.address for worker in workers[:count]])) for count in range(1, options.most + 1)}
    for count, answer in calm.items():
        if not answer.is_like(want):
            sys.exit(f"{count} workers that nobody disturbs fail: {answer.words}")
    rows, failed = {kind: [] for kind in options.kinds}, 0
    for point in range(options.points):
        dice = random.Random(f"{options.seed} {point}")
        kind, count = dice.choice(options.kinds), dice.randint(1, options.most)
        # Not before it was called: one that is not there then is a mistake of whoever has named it.
        moment = dice.uniform(CALLED_S, calm[count].seconds)
        if options.only not in (None, point):
            continue
        workers = [one if one.is_well() else worker(options, network, one.node) for one in workers]
        victims = dice.sample(workers[:count], min(count, 2 if kind == "two" else 1))
        addresses, through = {one: one.address for one in workers[:count]}, None
        if kind == "garbage":
            through = relay(network, victims[0], dice)
            addresses[victims[0]] = through.address
        answer = Answer(network, root(options, addresses.values()), moment, partial(disturbance, kind, victims, network, dice, through))
        wrong = list(complaints(options, kind, [addresses[victim] for victim in victims], answer, want))
        free = again(options, network, victims, first) if kind in LIVES else None
        if kind in LIVES and free is None:
            wrong.append(f"the worker takes part in no other answer\n{victims[0].said()}")
        if kind == "drain":
            # One that is about to end does so by itself where nobody is served any more.
            try:
                victims[0].process.wait(5)
            except subprocess.TimeoutExpired:
                wrong.append(f"a worker that was told to end does not\n{victims[0].said()}")
        for victim in victims:
            if kind not in LIVES or free is None:
                victim.end()
        longer = answer.seconds - calm[count].seconds
        out, own = set(left_out(answer.words)), {addresses[victim] for victim in victims}
        rows[kind].append((answer.is_like(want), bool(out & own), bool(out - own), answer.stall, calm[count].stall, longer, free))
        if wrong or options.verbose or (kind != "slow" and max(answer.stall, longer) > HEARTBEAT_S + 1.5):
            print(f"point {point}: {kind} at {moment:.2f} s of {count} workers, {answer.stall:.2f} s without text, {longer:.2f} s longer\n"
                  f"{answer.words}", flush=True)
        for what in wrong:
            print(f"point {point} FAILED: {what}\n  again: --seed {options.seed} --only {point}", flush=True)
        failed += bool(wrong)
    for one in workers:
        one.end()
    print(f"{'kind':8} {'same':>9} {'left out':>9} {'others':>7} {'stall s: median':>16} {'most':>6} {'undisturbed':>12} {'longer s: most':>15} "
          f"{'again s: most':>14}")
    for kind, found in rows.items():
        if found:
            same, out, others, stalls, calms, longers, frees = zip(*found)
            free = f"{max(frees):.2f}" if kind in LIVES and None not in frees else "-"
            print(f"{kind:8} {sum(same):4}/{len(found):<4} {sum(out):9} {sum(others):7} {statistics.median(stalls):16.2f} {max(stalls):6.2f} "
                  f"{max(calms):12.2f} {max(longers):15.2f} {free:>14}")
    return int(failed > 0)


def main():
    if sys.argv[1:2] == ["--relay"]:
        return be_relay(*sys.argv[2:])
    about, _, more = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of dair and host-worker")
    parser.add_argument("--model", required=True)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=KINDS[:-1], choices=KINDS, help="[default: all but cut]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this point alone")
    parser.add_argument("--verbose", action="store_true", help="tell of each point")
    parser.add_argument("--cut", default="equal", choices=["equal", "best", "rows", "layers"], help="equal parts by rows, or as dair plans")
    parser.add_argument("--most", type=int, default=4, help="workers of a root, at most")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--prompt", default="The quick brown fox jumps over the lazy dog. " * 12)
    options = parser.parse_args()
    try:
        with laboratory.Lab(options.most + 1) if "cut" in options.kinds else Loopback() as network, tempfile.TemporaryDirectory() as folder:
            options.key = f"{folder}/key"
            subprocess.run([f"{options.bin}/dair", "key", "new", options.key], check=True, stdout=subprocess.DEVNULL)
            return play(options, network)
    except laboratory.LabError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.exit(main())
