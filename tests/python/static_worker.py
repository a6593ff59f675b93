#!/usr/bin/env python3
"""What a static worker promises: static_worker.py HOST_WORKER DAIR MODEL.m [--emulator COMMAND]...

The file is small and needs no loader. In a folder with nothing but itself and the model as its root (no /proc, /dev, /etc or /tmp, by
util-linux's unshare) it takes little memory and no processor while it waits, announced and with a key, and computes a part of an
answer, which must be that of DAIR alone; with a folder for what it has measured it starts soon. With each emulator
(`qemu-x86_64-static -cpu Nehalem`) it says its version and computes such a part, too. One for another kind of processor does only that.

Sizes, memory and answers are checked as they are promised; times are reported beside what is promised, and fail where they are far off,
since the machine may be busy. Exit code 1 where something is not so.
"""
import argparse, json, os, pathlib, platform, re, shlex, shutil, signal, statistics, struct, subprocess, sys, tempfile, time

# Promised, and what is far off.
SIZE_BYTES, IDLE_BYTES = 3_000_000, 16_000_000
START_MS, START_FAR_MS = 50, 500
# Share of a processor.
CPU_FAR = 0.005
STARTS, IDLE_S = 9, 20
# An emulated one takes its time.
DEADLINE_S = 120
MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l"}
PT_INTERP = 3
FLAGS = ["--prompt", "The quick brown fox", "--json", "--temperature", "0", "--threads", "1", "--ignore-eos", "--max-tokens", "16",
         "--max-seq-len", "256"]


def elf(path):
    """Kind of processor of a program, and whether it names a loader."""
    head = path.read_bytes()
    if head[:4] != b"\x7fELF" or head[5] != 1:
        sys.exit(f"error: {path} is no program of Linux with the lowest byte first")
    # Of 64 and of 32 bits: place and size of the table of program headers, and how many there are.
    table, size_at = ("<Q", 54) if head[4] == 2 else ("<I", 42)
    start = struct.unpack_from(table, head, 32 if head[4] == 2 else 28)[0]
    size, count = struct.unpack_from("<HH", head, size_at)
    kinds = [struct.unpack_from("<I", head, start + n * size)[0] for n in range(count)]
    machine = struct.unpack_from("<H", head, 18)[0]
    return MACHINES.get(machine, str(machine)), PT_INTERP in kinds


class Worker:
    """A worker that listens, by a command that has the model and nothing else."""

    def __init__(self, command, flags, key, **env):
        start = time.monotonic()
        self.process = subprocess.Popen([*command, *flags], env={"DAIR_KEY": key, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        said = []
        # Before it listens it has nothing to say but why it can't.
        for line in self.process.stdout:
            said.append(line)
            if found := re.match(r"listening on (\S+),", line):
                break
        else:
            sys.exit(f"FAILED {shlex.join(map(str, command))} does not listen: {''.join(said)}")
        self.start_ms = (time.monotonic() - start) * 1000
        self.address = found[1].replace("0.0.0.0", "127.0.0.1")

    def end(self):
        """Ends it as a service is ended, and returns its code and what it has said."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said

    def memory(self, model):
        """Bytes of its pages, those of the model apart, and those of them that belong to no file."""
        all_kb = anonymous_kb = 0
        name = ""
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-", line):
                name = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) > 5 else ""
            elif name.endswith(model):
                continue
            elif line.startswith("Rss:"):
                all_kb += int(line.split()[1])
            elif line.startswith("Anonymous:"):
                anonymous_kb += int(line.split()[1])
        return all_kb * 1024, anonymous_kb * 1024

    def cpu(self):
        """Nanoseconds on a processor of all its threads, and how often they got one."""
        rows = [path.read_text().split() for path in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")]
        return sum(int(row[0]) for row in rows), sum(int(row[2]) for row in rows)


class Check:
    def __init__(self, options, folder):
        self.options, self.folder, self.failed = options, folder, False
        self.key_file, self.model = folder / "key", options.model.name
        # The root's own files go here, and none of the user's count.
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DAIR_CACHE": str(folder / "cache")}
        self.dair("key", "new", self.key_file)
        self.key = self.key_file.read_text().split()[-1]
        self.alone = self.answer()

    def check(self, what, good):
        print("ok    " if good else "FAILED", what, flush=True)
        self.failed |= not good

    def dair(self, *arguments):
        done = subprocess.run([self.options.dair, *arguments], env=self.env, capture_output=True, text=True, timeout=DEADLINE_S)
        if done.returncode != 0:
            sys.exit(f"FAILED dair {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def answer(self, *more):
        return json.loads(self.dair("generate", "--model", self.options.model, *FLAGS, *more))["text"]

    def known(self, worker):
        """Waits until a root would know it: what is measured at its first start takes long on an emulated processor."""
        end = time.monotonic() + DEADLINE_S
        while True:
            asked = subprocess.run([self.options.dair, "nodes", "--workers", worker.address, "--key", self.key_file, "--json"],
                                   env=self.env, capture_output=True, text=True, timeout=DEADLINE_S)
            if asked.returncode == 0:
                return
            if time.monotonic() > end:
                sys.exit(f"FAILED it does not say what it has: {asked.stdout}{asked.stderr}")

    def takes_part(self, where, worker):
        self.known(worker)
        text = self.answer("--workers", worker.address, "--shares", "1,1", "--key", self.key_file)
        code, said = worker.end()
        self.check(f"{where}: an answer that it computed a part of is that of one node", text == self.alone)
        if not re.search(r"session over: node 1 of 2, [1-9]", said) or code != 0:
            self.check(f"{where}: it computed a part, and ends when it is told to (code {code}): {said.strip()}", False)

    def file(self):
        machine, has_loader = elf(self.options.worker)
        size = self.options.worker.stat().st_size
        self.check(f"{size / 1e6:.2f} MB; promised: {SIZE_BYTES / 1e6:.0f} MB at most", size <= SIZE_BYTES)
        self.check("it needs no loader", not has_loader)
        return machine

    def empty_root(self):
        root = self.folder / "root"
        root.mkdir()
        shutil.copy2(self.options.worker, root / "host-worker")
        # A link is as good as a copy, where both are on one disk.
        try:
            os.link(self.options.model, root / self.model)
        except OSError:
            shutil.copyfile(self.options.model, root / self.model)
        unshare = shutil.which("unshare") or sys.exit("FAILED unshare is missing: install util-linux")
        command = [unshare, "--user", "--map-root-user", f"--root={root}", "--wd=/", "/host-worker"]
        # On all addresses, so that it is announced.
        flags = ["--model", f"/{self.model}", "--host", "0.0.0.0", "--port", "0"]
        # The speed of a machine is measured by the first start that has a place to keep it.
        kept = root / "kept"
        kept.mkdir()
        starts = []
        for _ in range(1 + STARTS):
            worker = Worker(command, flags, self.key, DAIR_CACHE="/kept")
            starts.append(worker.start_ms)
            worker.process.kill()
            worker.process.wait()
        shutil.rmtree(kept)
        first, start = starts[0], statistics.median(starts[1:])
        self.check(f"alone with the model and its cache: listens after {first:.0f} ms, then {start:.0f} ms "
                   f"({min(starts[1:]):.0f} to {max(starts[1:]):.0f}); promised: {START_MS} ms", start <= START_FAR_MS)
        worker = Worker(command, flags, self.key)
        self.known(worker)
        memory, anonymous = worker.memory(self.model)
        self.check(f"idle: {memory / 1e6:.1f} MB beside the model's pages, {anonymous / 1e6:.1f} MB of them of no file; "
                   f"promised: {IDLE_BYTES / 1e6:.0f} MB at most", memory <= IDLE_BYTES)
        before, turns_before = worker.cpu()
        time.sleep(IDLE_S)
        after, turns = worker.cpu()
        share = (after - before) / 1e9 / IDLE_S
        self.check(f"idle: {share:.3%} of a processor, {(turns - turns_before) / IDLE_S:.0f} turns a second; promised: 0 %",
                   share <= CPU_FAR)
        self.takes_part("in an empty root", worker)
        self.check("in an empty root: it left nothing behind", {path.name for path in root.iterdir()} == {"host-worker", self.model})

    def emulated(self, emulator):
        command = [*shlex.split(emulator), self.options.worker]
        command[0] = shutil.which(command[0]) or sys.exit(f"FAILED {command[0]} is missing: install qemu-user-static")
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=DEADLINE_S)
        self.check(f"{emulator}: {said.stdout.strip() or said.stderr.strip()}",
                   said.returncode == 0 and said.stdout.startswith("host-worker "))
        flags = ["--model", self.options.model, "--host", "127.0.0.1", "--port", "0", "--threads", "1"]
        self.takes_part(emulator, Worker(command, flags, self.key))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worker", type=pathlib.Path)
    parser.add_argument("dair", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--emulator", action="append", default=[], metavar="COMMAND")
    options = parser.parse_args()
    for path in (options.worker, options.dair, options.model):
        if not path.is_file():
            parser.error(f"{path} is no file")
    with tempfile.TemporaryDirectory() as folder:
        check = Check(options, pathlib.Path(folder))
        machine = check.file()
        if machine == platform.machine():
            check.empty_root()
        elif not options.emulator:
            parser.error(f"{options.worker} is for {machine}, and this machine is {platform.machine()}: name an --emulator")
        for emulator in options.emulator:
            check.emulated(emulator)
        return int(check.failed)


if __name__ == "__main__":
    sys.exit(main())
