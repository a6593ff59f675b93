#!/usr/bin/env python3
"""Debian's packages and systemd's units as they are used: installed, started, asked, removed and purged.

usage: services.py DAIR.deb DAIR-WORKER.deb MODEL.m TOKENIZER.t

All of it happens on a copy of this machine's file system that lives in memory (an overlay), in namespaces of their own, under a
systemd that is started there: nothing is left here. Takes Linux, root and systemd; exit code 77 and a line say that it could not be.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYSTEMD = "/lib/systemd/systemd"
# The parent of all there is. Version 1 of control groups is mounted by hand; with version 2, systemd finds what it needs.
INIT = """
set -e
cd "$1"
mount -t proc proc proc
mount -t tmpfs none run
mount -t tmpfs none tmp
mount -t tmpfs none dev
for n in null zero full random urandom tty; do : >dev/$n; mount --bind /dev/$n dev/$n; done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t sysfs sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  mount -t tmpfs none sys/fs/cgroup
  mkdir sys/fs/cgroup/systemd sys/fs/cgroup/memory
  mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
  mount -t cgroup -o memory cgroup sys/fs/cgroup/memory
fi
ip link set lo up
# What belongs to the kernel of this machine stays as it is.
mount -o remount,bind,ro sys
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mkdir -p mnt/before
pivot_root . mnt/before
cd /
umount --lazy mnt/before
# Credentials are mounted by a child, and seen by the others.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set=-sys_module,-sys_time,-sys_boot,-sys_rawio "$2" --system --unit=packages.target
"""
# Of 100, as `systemd-analyze security` counts what a service could do: none has more.
EXPOSURE = 15
PROTECTED = ("/etc/dair", "/usr", "/var/lib/dair/models")


class Skip(Exception):
    """What this machine lacks."""


class Machine:
    """A machine of its own that begins as a copy of this one."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.root = self.folder / "root"
        self.init = None

    def __enter__(self):
        if os.geteuid() != 0 or not Path(SYSTEMD).exists() or not shutil.which("unshare"):
            raise Skip("Linux, root and systemd")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "none", self.folder], check=True)
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir()
        options = f"lowerdir=/,upperdir={self.folder}/upper,workdir={self.folder}/work"
        mounted = subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", self.root], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.__exit__()
            raise Skip(f"overlay mounts ({mounted.stderr.strip()})")
        # Of this machine nothing starts there, and no package of a former run is installed.
        units = self.root / "etc/systemd/system"
        for wants in units.glob("*.wants"):
            shutil.rmtree(wants)
        # Images of containers let no package start or stop a service.
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (units / "packages.target").write_text("[Unit]\nDescription=What is tested, and a log\nWants=systemd-journald.service\nAfter=systemd-journald.service\n")
        return self

    def boot(self):
        command = ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net", "--fork", "--kill-child"]
        command += ["--propagation", "private", "sh", "-c", INIT, "sh", self.root, SYSTEMD]
        self.log = (self.folder / "boot").open("w+")
        self.init = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.init.poll() is None:
            children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
            self.pid = children[0] if children else None
            if self.pid and self.run("systemctl", "is-system-running", ok=None).stdout.strip() in ("running", "degraded"):
                return
            time.sleep(0.2)
        self.log.seek(0)
        raise Skip(f"a systemd in namespaces ({self.log.read().strip() or 'it does not come up'})")

    def run(self, *command, ok=True, user=None):
        """Runs a command there; `ok` says whether it has to succeed, None that it does not matter."""
        enter = ["nsenter", "-t", self.pid, "-m", "-p", "-C", "-u", "-i", "-n", "-r", "-w"] + (["-S", user] if user else [])
        done = subprocess.run(enter + list(command), capture_output=True, text=True, timeout=120)
        if ok is not None and (done.returncode == 0) != ok:
            what = "failed" if ok else "did not fail"
            journal = self.run("journalctl", "--no-pager", "--quiet", "--lines=20", "--unit=dair*", ok=None).stdout if ok else ""
            raise SystemExit(f"{' '.join(command)}: {what} ({done.returncode})\n{done.stdout}{done.stderr}{journal}")
        return done

    def path(self, path):
        return self.root / path.lstrip("/")

    def __exit__(self, *_):
        if self.init:
            # With the first process of its namespace all others end.
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(int(self.pid), signal.SIGKILL)
            self.init.wait(30)
            self.log.close()
        subprocess.run(["umount", "-R", self.root], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", self.folder], check=True)


def holds(fact, what):
    """A line for each fact, or the end."""
    if not fact:
        raise SystemExit(f"FAILED: {what}")
    print(f"ok: {what}")


def show(machine, unit, *properties):
    text = machine.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def worker_memory(machine):
    asked = machine.run("dair", "nodes", "--workers", "127.0.0.1:9990", "--json", "--key", "/etc/dair/key").stdout
    return json.loads(asked)["nodes"][0]["memory_bytes"]


def listening(machine):
    """Where the worker listens: the fourth word of what ss says."""
    return machine.run("ss", "-Hltn", "sport = :9990").stdout.split()[3]


def test_worker(machine):
    run = machine.run
    state = show(machine, "dair-worker", "ActiveState", "LoadState", "UnitFileState")
    holds(state == {"ActiveState": "inactive", "LoadState": "loaded", "UnitFileState": "disabled"}, "dair-worker is installed, and does not start by itself")
    run("systemctl", "start", "dair-worker")
    state = show(machine, "dair-worker", "MainPID", "ActiveState", "NRestarts")
    holds(state["ActiveState"] == "active" and state["NRestarts"] == "0", "it starts, and says that it is ready")
    holds(listening(machine) == "127.0.0.1:9990", f"without a key it listens on loopback only: {listening(machine)}")
    key = run("dair", "key", "new", "/etc/dair/key").stdout.split()[0]
    run("systemctl", "restart", "dair-worker")
    holds(listening(machine) == "0.0.0.0:9990", f"with the key {key} it listens on all addresses")
    run("dair", "nodes", "--workers", "127.0.0.1:9990", ok=False)
    holds(True, "who has no key gets no answer")
    pid = show(machine, "dair-worker", "MainPID")["MainPID"]
    status = dict(line.split(":", 1) for line in run("cat", f"/proc/{pid}/status").stdout.splitlines())
    facts = {name: status[name].split()[0] for name in ("Uid", "CapBnd", "CapEff", "NoNewPrivs", "Seccomp")}
    holds(int(facts["Uid"]) >= 61184 and int(facts["CapBnd"], 16) == 0 and facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2",
          f"it has a user for its life, no capability and a filter: {facts}")
    seen = run("nsenter", "-t", pid, "-m", "ls", "-A", "/home", "/root").stdout
    holds(seen.split() == ["/home:", "/root:"], "homes are empty for it")
    mounts = run("cat", f"/proc/{pid}/mountinfo").stdout.splitlines()
    rw = [line.split()[4] for line in mounts if line.split()[5].split(",")[0] == "rw"]
    holds(not any(path == kept or kept.startswith(path.rstrip("/") + "/") for path in rw for kept in PROTECTED),
          f"of files it may write {sorted(path for path in rw if path.startswith('/var'))}, and no models, programs or settings")
    answer = ("dair", "generate", "--model", "/var/lib/dair/models/model.m", "-p", "Hello", "-n", "16", "--seed", "1", "--quiet")
    alone = run(*answer).stdout
    run("systemctl", "set-property", "dair-worker", "MemoryMax=512M")
    allowed = worker_memory(machine)
    holds(200 << 20 < allowed < 512 << 20, f"MemoryMax=512M is the worker's budget, too: it takes {allowed >> 20} MiB")
    both = run(*answer, "--workers", "127.0.0.1:9990", "--shares", "1,1", "--key", "/etc/dair/key").stdout
    holds(alone == both and alone, "it computes its part: an answer is that of one node")
    run("sh", "-c", f"kill -KILL {pid}")
    for _ in range(50):
        state = show(machine, "dair-worker", "ActiveState", "NRestarts")
        if state == {"ActiveState": "active", "NRestarts": "1"}:
            break
        time.sleep(0.2)
    holds(state == {"ActiveState": "active", "NRestarts": "1"}, "killed, it is started again")
    run("systemctl", "stop", "dair-worker")
    holds(show(machine, "dair-worker", "Result")["Result"] == "success", "told to end, it ends well")


def test_server(machine):
    run = machine.run
    settings = machine.path("/etc/dair/serve.env")
    run("systemctl", "start", "dair", )
    fetch = "import sys, urllib.request as r; q = r.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]}); print(r.urlopen(q).read().decode())"
    health = run("python3", "-c", fetch, "http://127.0.0.1:8080/health", "").stdout
    holds("ok" in health, f"dair.service answers once it is started: {health.strip()}")
    token = run("dair", "api-key", "ann", "--file", "/etc/dair/api-keys").stdout.strip()
    settings.write_text('DAIR_SERVE_ARGS="--model /var/lib/dair/models/model.m --host 0.0.0.0 --api-keys /run/credentials/dair.service/api-keys"\n')
    run("systemctl", "restart", "dair")
    models = run("python3", "-c", fetch, "http://127.0.0.1:8080/v1/models", token).stdout
    holds("model" in models, "clients with a key are let in, whose hashes are a credential")
    run("python3", "-c", fetch, "http://127.0.0.1:8080/v1/models", "wrong", ok=False)
    holds(True, "others are not")
    run("systemctl", "stop", "dair")
    holds(show(machine, "dair", "Result")["Result"] == "success", "told to end, it ends well")


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    packages, model, tokenizer = sys.argv[1:3], sys.argv[3], sys.argv[4]
    with tempfile.TemporaryDirectory(prefix="dair-services-") as folder, Machine(folder) as machine:
        machine.boot()
        run = machine.run
        machine.path("/var/packages").mkdir()
        for package in packages:
            shutil.copy(package, machine.path("/var/packages"))
        names = [f"/var/packages/{Path(package).name}" for package in packages]
        run("dpkg", "--install", *names)
        listed = run("dpkg", "--listfiles", "dair", "dair-worker").stdout.splitlines()
        for path in ("/usr/bin/dair", "/usr/bin/host-worker", "/etc/dair/worker.env", "/etc/dair/serve.env"):
            holds(path in listed and machine.path(path).is_file(), f"{path} is there")
        run("dair", "--version")
        for unit in ("dair-worker.service", "dair.service"):
            said = run("systemd-analyze", "verify", f"/lib/systemd/system/{unit}")
            holds(not [line for line in said.stderr.splitlines() if unit in line], f"{unit} is understood by systemd {said.stderr.strip()}")
            said = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", f"/lib/systemd/system/{unit}").stdout
            holds("exposure level" in said, said.strip().splitlines()[-1].lstrip("→ "))
        shutil.copy(model, machine.path("/var/lib/dair/models/model.m"))
        shutil.copy(tokenizer, machine.path("/var/lib/dair/models/model.t"))
        test_worker(machine)
        test_server(machine)
        # Again over what is there: a setting that was changed stays.
        before = machine.path("/etc/dair/serve.env").read_text()
        run("systemctl", "start", "dair-worker")
        run("dpkg", "--install", *names)
        holds(machine.path("/etc/dair/serve.env").read_text() == before, "a second installation keeps settings")
        run("dpkg", "--remove", "dair", "dair-worker")
        holds(not machine.path("/usr/bin/host-worker").exists() and show(machine, "dair-worker", "ActiveState")["ActiveState"] != "active",
              "what is removed has stopped and is gone")
        holds(machine.path("/etc/dair/worker.env").exists(), "its settings stay")
        run("dpkg", "--purge", "dair", "dair-worker")
        left = [path for path in ("/etc/dair/worker.env", "/etc/dair/serve.env", "/var/cache/private/dair-worker", "/var/cache/private/dair",
                                  "/var/cache/dair-worker", "/var/cache/dair") if machine.path(path).exists()]
        holds(not left, f"what is purged leaves no settings and no cache: {left}")
        holds(machine.path("/etc/dair/key").exists() and machine.path("/var/lib/dair/models/model.m").exists(), "keys and models stay, which are the user's")
    print("packages and services: all facts hold")


if __name__ == "__main__":
    try:
        main()
    except Skip as lacking:
        print(f"packages and services were not tried: this takes {lacking}")
        sys.exit(77)
