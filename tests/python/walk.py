#!/usr/bin/env python3
"""A new user's walk through a cluster: walk.py DAIR HOST_WORKER SYNTHETIC WORK

Three workers with a copy of the model and a root, each a machine of its own (benches/lab.py), and what comes in between:
a second root, a worker with another file, one of another version, some that are lost in an answer. Answers must be those of
one node, no weights may cross the interfaces, and whatever fails says so in one line, soon. Models are made in WORK.
Exit code 1 where something is not so, 77 where no network can be made, with the reason.
"""
import json, os, pathlib, re, shutil, signal, socket, struct, subprocess, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../benches"))
import lab as laboratory

PORT = 9990
CLUSTER = "walk"
PROMPT = "The quick brown fox jumps over the lazy dog."
TOKENS = 16
# What one row of a pass may bring into a node beside the hundredth of the model: activations of the shape below.
ROW_BYTES = 200_000
# Within which a failure must have been reported, and one of a port where nobody listens: a worker may be about to start.
SOON_S, NOBODY_S = 10, 13
ROOT, WORKERS, STRANGER = 0, [1, 2, 3], 4
GREEDY = ["--temperature", "0", "--threads", "1", "--max-seq-len", "2048"]


def fake_worker():
    """A worker of another version: it answers as a worker does, by datagram and connection, and has version 1000."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", PORT))
    listener = socket.create_server(("", PORT))

    def greet():
        while True:
            datagrams.sendto(b"DAIR", datagrams.recvfrom(64)[1])

    threading.Thread(target=greet, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        # Kind 1, then version, threads, speed, memory, models: fingerprint, size, name.
        have = struct.pack("<BIIQQI32sQI2s", 1, 1000, 1, 1 << 30, 1 << 30, 1, bytes(32), 1 << 20, 2, b"m\0")
        # A zero says that what follows is not encrypted.
        connection.sendall(b"DAIR\0" + struct.pack("<I", len(have)) + have)
        # Until the root has had enough.
        connection.recv(1 << 16)
        time.sleep(0.2)
        connection.close()


class Walk:
    def __init__(self, lab, dair, worker, work):
        self.lab, self.dair, self.worker, self.work = lab, dair, worker, work
        self.model, self.failed = work / "walk.m", []
        self.key = work / "key"
        self.key.unlink(missing_ok=True)
        subprocess.run([dair, "key", "new", self.key], check=True, stdout=subprocess.DEVNULL)
        self.discovers = all("--cluster" in self.help(program) for program in ([dair, "generate"], [worker]))

    def help(self, command):
        return subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout

    def check(self, what, good, *found):
        print("ok    " if good else "FAILED", what, *([] if good else map(repr, found)), flush=True)
        if not good:
            self.failed.append(what)

    def start_worker(self, node, model=None, cluster=CLUSTER):
        named = ["--cluster", cluster] if self.discovers else []
        command = [self.worker, "--model", model or self.model, "--port", str(PORT), "--threads", "1", "--key", self.key, *named]
        process = self.lab.start(node, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.lab.listens(process, PORT, udp=True)
        return process

    def addresses(self, nodes):
        return ["--key", self.key, "--workers", *(f"{self.lab.address(node)}:{PORT}" for node in nodes)]

    def together(self, nodes):
        """Workers that all have a part, whatever the planner thinks of it."""
        return [*self.addresses(nodes), *equal(nodes)]

    def generate(self, *more, tokens=TOKENS):
        return [self.dair, "generate", "--model", self.model, "--prompt", PROMPT, "--json", "--ignore-eos", *GREEDY,
                "--max-tokens", str(tokens), *more]

    def fails(self, what, done, *words, within_s=SOON_S):
        """A command failed soon, with one line in which each of `words` stands."""
        found, _, side, seconds = done
        lines = side.strip().splitlines()
        self.check(f"{what}: it fails", found == 1, found, side)
        self.check(f"{what}: within {within_s} s", seconds < within_s, seconds)
        self.check(f"{what}: one line with {', '.join(words)}", len(lines) == 1 and all(word in lines[0] for word in words), side)

    def left_out(self, what, side, node):
        """One line says that a worker is left out."""
        lines = [line for line in side.splitlines() if line.startswith("left out: ")]
        self.check(f"{what}: one line names it", len(lines) == 1 and self.lab.address(node) in lines[0], side)

    def answers(self):
        """One node's, the cluster's, that of a conversation, and what crossed the interfaces."""
        alone = self.lab.run(ROOT, self.generate())
        self.check("one node answers", alone[0] == 0, alone)
        workers = [self.start_worker(node) for node in WORKERS]
        self.lab.run(ROOT, [self.dair, "nodes", *self.addresses(WORKERS)])
        before = self.lab.counters()
        together = self.lab.run(ROOT, self.generate(*self.together(WORKERS)))
        after = self.lab.counters()
        self.check("four nodes give the answer of one", texts(alone, together), alone, together)
        report = json.loads(together[1]) if together[0] == 0 else {"prefill": {"tokens": 0}}
        allowed = self.model.stat().st_size // 100 + (report["prefill"]["tokens"] + TOKENS) * ROW_BYTES
        into = [after[node][0] - before[node][0] for node in WORKERS]
        # Weights would be a quarter of the file.
        assert allowed < self.model.stat().st_size / 8
        self.check(f"no weights cross the interfaces (into workers: {into} bytes, of a file of {self.model.stat().st_size})",
                   0 < max(into) < allowed, allowed)
        self.found(alone)
        chat = [self.dair, "chat", "--model", self.model, "--template", "chatml", "--no-history", "--quiet", "--max-tokens", "16", *GREEDY]
        self.work.joinpath("question.txt").write_text("Hello\n")
        talks = []
        for more in ([], self.together(WORKERS)):
            with open(self.work / "question.txt") as question:
                talks.append(self.lab.run(ROOT, [*chat, *more], stdin=question))
        self.check("dair chat says the same with workers", talks[0][0] == talks[1][0] == 0 and talks[0][1] == talks[1][1], *talks)
        return workers

    def found(self, alone):
        """Workers are found by the name of their cluster."""
        if not self.discovers:
            return print("      no --cluster in this build: workers were named")
        done = self.lab.run(ROOT, self.generate("--discover", "--cluster", CLUSTER, "--key", self.key, *equal(WORKERS)))
        self.check("workers that are found give the answer of one node", texts(alone, done), done)
        self.check("workers were found", done[0] == 0 and json.loads(done[1])["network"] is not None, done)
        nodes = self.lab.run(STRANGER, [self.dair, "nodes", "--discover", "--cluster", CLUSTER, "--key", self.key, "--json"])
        self.check("dair nodes lists them", all(self.lab.address(node) in nodes[1] for node in WORKERS), nodes)

    def second_root(self):
        """Another root comes while a session runs: it hears so at once, and the session goes on."""
        first = self.lab.start(ROOT, self.generate(*self.together(WORKERS), tokens=1000), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.in_answer(first)
        second = self.lab.run(STRANGER, self.generate(*self.together(WORKERS)), timeout_s=2 * SOON_S)
        self.check("a second root came while the first ran", first.poll() is None)
        self.fails("a second root", second, "busy", self.lab.address(ROOT))
        output, side = first.communicate(timeout=120)
        self.check("the first root's answer is not disturbed", first.returncode == 0, side, output[-200:])

    def in_answer(self, root):
        """Waits until a session's tokens travel."""
        start = self.lab.counters()[WORKERS[0]][0]
        deadline = time.monotonic() + 30
        while root.poll() is None and time.monotonic() < deadline:
            if self.lab.counters()[WORKERS[0]][0] > start + 20 * ROW_BYTES:
                return
            time.sleep(0.05)

    def deaths(self, workers):
        """Workers are lost in an answer, in three ways; it is that of one node all the same. They take part in the next one again."""
        tokens = 150
        alone = self.lab.run(ROOT, self.generate(tokens=tokens))
        for what, lose in (
            ("dies", lambda: self.lab.stop(workers[1])),
            ("is stopped", lambda: workers[1].send_signal(signal.SIGSTOP)),
            ("is unplugged", lambda: self.lab.plug(WORKERS[1], False)),
        ):
            root = self.lab.start(ROOT, self.generate(*self.together(WORKERS), tokens=tokens), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.in_answer(root)
            self.check(f"a worker {what} in an answer", root.poll() is None)
            lose()
            try:
                output, side = root.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                self.lab.stop(root)
                output, side = root.communicate()
            done = root.returncode, output, side, 0
            self.check(f"a worker {what}: the answer is that of one node", texts(alone, done), done)
            self.left_out(f"a worker {what}", side, WORKERS[1])
            self.check("the other workers live", all(workers[i].poll() is None for i in (0, 2)))
            self.lab.stop(workers[1])
            self.lab.plug(WORKERS[1], True)
            workers[1] = self.start_worker(WORKERS[1])
            again = self.lab.run(ROOT, self.generate(*self.together(WORKERS)), timeout_s=3 * SOON_S)
            self.check("the next answer comes from all", again[0] == 0 and "left out" not in again[2], again)

    def strangers(self):
        """Workers that can't take part."""
        other = self.work / "other.m"
        shutil.copyfile(self.model, other)
        with open(other, "r+b") as file:
            file.seek(other.stat().st_size // 2)
            file.write(bytes(1 << 20))
        process = self.start_worker(STRANGER, other, "strangers")
        mixed = self.together([1, 2, STRANGER])
        self.fails("a worker with another file", self.lab.run(ROOT, self.generate(*mixed), timeout_s=2 * SOON_S), self.lab.address(STRANGER))
        self.lab.stop(process)
        fake = self.lab.start(STRANGER, [sys.executable, os.path.abspath(__file__), "--fake"])
        self.lab.listens(fake, PORT, udp=True)
        done = self.lab.run(ROOT, self.generate(*mixed), timeout_s=2 * SOON_S)
        self.fails("a worker without a key", done, self.lab.address(STRANGER), "no key")
        # Neither a key of this machine's user: whoever has none may talk to him.
        keyless = {name: value for name, value in os.environ.items() if not name.startswith("DAIR_KEY")} | {"XDG_CONFIG_HOME": str(self.work)}
        named = ["--workers", f"{self.lab.address(STRANGER)}:{PORT}", *equal([STRANGER])]
        done = self.lab.run(ROOT, self.generate(*named), timeout_s=2 * SOON_S, env=keyless)
        self.fails("a worker of another version", done, self.lab.address(STRANGER), "version")
        named = ["--workers", f"{self.lab.address(1)}:{PORT}", *equal([1])]
        done = self.lab.run(ROOT, self.generate(*named), timeout_s=2 * SOON_S, env=keyless)
        self.fails("a root without a key", done, self.lab.address(1), "wants the key")
        self.lab.stop(fake)
        done = self.lab.run(ROOT, self.generate(*mixed), timeout_s=2 * SOON_S)
        self.check("nobody at an address: the others answer", done[0] == 0, done)
        self.left_out("nobody at an address", done[2], STRANGER)
        nobody = self.addresses([STRANGER])
        done = self.lab.run(ROOT, self.generate(*nobody), timeout_s=2 * SOON_S)
        self.fails("nobody at any address", done, self.lab.address(STRANGER), within_s=NOBODY_S)
        again = self.lab.run(ROOT, self.generate(*self.together(WORKERS)), timeout_s=2 * SOON_S)
        self.check("workers are free after all that", again[0] == 0, again)


def equal(workers):
    return ["--shares", ",".join("1" * (len(workers) + 1))]


def texts(*runs):
    """Whether all runs ended well, with the same text."""
    return all(code == 0 for code, *_ in runs) and len({json.loads(output)["text"] for _, output, *_ in runs}) == 1


def main():
    if sys.argv[1:] == ["--fake"]:
        return fake_worker()
    if len(sys.argv) != 5:
        sys.exit(re.sub(r"\n\n.*", "", __doc__, flags=re.S))
    why = laboratory.missing()
    if why:
        print(f"not walked: {why}")
        return 77
    dair, worker, synthetic, work = map(os.path.abspath, sys.argv[1:])
    work = pathlib.Path(work)
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run([synthetic, "smollm2-135m", work / "walk.m", "q40"], check=True, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    with laboratory.Lab(5) as lab:
        walk = Walk(lab, dair, worker, work)
        workers = walk.answers()
        walk.second_root()
        walk.strangers()
        walk.deaths(workers)
    print(f"{len(walk.failed)} failed, {time.monotonic() - start:.0f} s")
    return int(bool(walk.failed))


if __name__ == "__main__":
    sys.exit(main())
