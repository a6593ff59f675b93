#!/usr/bin/env python3
"""A network of N nodes on one machine, of the bandwidth and round trip that are asked for: namespaces, one for each node.

    benches/lab.py --nodes 4 --mbit 1000 --rtt-ms 2                   # what the network is like
    benches/lab.py --nodes 3 -- sh -c 'echo $LAB_NODE $LAB_ADDRESS'   # a command on every node, at the same time
    benches/lab.py --clean                                            # removes what killed labs have left

Each node has an interface `eth0` that leads to a bridge in a namespace of its own, where nothing of the machine's network
is. Bandwidth is tc's token bucket, both ways on every node's link. The round trip between two nodes is made of four passes
through relays (target/…/delay, built by `cargo build --release -p dair-benches --bin delay`), one at every node's link.

Linux, as root, with iproute2's ip and tc. `benches/cluster.py` and `tests/python/walk.py` use the class `Lab`.
"""

import argparse
import ctypes
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

PREFIX = "dair-lab"
RELAY = "target/release/delay"
CGROUP = "/sys/fs/cgroup"
MTU = 1500


class LabError(Exception):
    """One line for whoever runs it."""


def missing():
    """Why there can be no lab here, or None."""
    if sys.platform != "linux":
        return "it takes Linux"
    if os.geteuid() != 0:
        return "it takes root, to make network namespaces"
    for tool in ("ip", "tc"):
        if not shutil.which(tool):
            return f"{tool} is missing: install iproute2"
    name = f"{PREFIX}-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"network namespaces can't be made: {made.stderr.strip()}"
    veth = ["ip", "-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1"]
    bridge = ["ip", "-n", name, "link", "add", "try2", "type", "bridge"]
    failed = [made for made in (subprocess.run(c, capture_output=True, text=True) for c in (veth, bridge)) if made.returncode]
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return f"this kernel makes no such interfaces: {failed[0].stderr.strip()}" if failed else None


def call(*command):
    """Runs a tool that says nothing when all is well."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def die_with_parent():
    """Lets a command end with the lab, however that ends. It runs in the child, between fork and exec."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Lab:
    """`nodes` nodes for the time of a `with`; commands that still run at its end are killed.

    `cores`: processors, over which nodes are dealt out in turn; `quotas`: for some nodes the part of a processor that
    they may use, such as {1: 0.5}.
    """

    def __init__(self, nodes, mbit=None, rtt_ms=None, relay=RELAY, cores=None, quotas=None):
        if not 1 <= nodes <= 250:
            raise LabError(f"{nodes} nodes: 1 to 250 fit")
        self.nodes, self.mbit, self.rtt_ms, self.relay, self.cores, self.quotas = nodes, mbit, rtt_ms, relay, cores, quotas or {}
        self.processes, self.groups, self.namespaces = [], [], []
        self.switch = f"{PREFIX}-{os.getpid()}-switch"

    def name(self, node):
        return f"{PREFIX}-{os.getpid()}-{node}"

    def address(self, node):
        return f"10.77.0.{node + 1}"

    def __enter__(self):
        why = missing()
        if why:
            raise LabError(f"no lab here: {why}")
        if self.rtt_ms and not os.access(self.relay, os.X_OK):
            raise LabError(f"{self.relay} is missing: cargo build --release -p dair-benches --bin delay")
        # So that an end by a signal is one that cleans up.
        self.handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        self.namespace(self.switch)
        call("ip", "-n", self.switch, "link", "add", "br0", "mtu", str(MTU), "type", "bridge", "mcast_snooping", "0")
        call("ip", "-n", self.switch, "link", "set", "br0", "up")
        for node in range(self.nodes):
            self.namespace(self.name(node))
            self.connect(node)
        if self.rtt_ms:
            pairs = [f"in{node}:out{node}" for node in range(self.nodes)]
            # A round trip passes two relays there and two back.
            self.spawn(self.switch, [os.path.abspath(self.relay), str(self.rtt_ms / 4), *pairs], stdout=subprocess.DEVNULL)
        for node, part in self.quotas.items():
            self.quota(node, part)

    def namespace(self, name):
        call("ip", "netns", "add", name)
        self.namespaces.append(name)
        call("ip", "-n", name, "link", "set", "lo", "up")
        # Without IPv6 an interface says nothing by itself.
        call("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")

    def connect(self, node):
        """eth0 of a node, with the bridge at its other end or, where there is a delay, a relay before that."""
        name, switch = self.name(node), self.switch
        port = f"in{node}"
        call("ip", "-n", switch, "link", "add", port, "mtu", str(MTU), "type", "veth", "peer", "name", "eth0", "netns", name)
        last = port
        if self.rtt_ms:
            last = f"port{node}"
            call("ip", "-n", switch, "link", "add", f"out{node}", "mtu", str(MTU), "type", "veth", "peer", "name", last)
            call("ip", "-n", switch, "link", "set", f"out{node}", "up")
        call("ip", "-n", switch, "link", "set", last, "master", "br0")
        for interface in {port, last}:
            call("ip", "-n", switch, "link", "set", interface, "up")
        call("ip", "-n", name, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
        call("ip", "-n", name, "link", "set", "eth0", "up")
        # Multicast has a way out as on a machine with a router.
        call("ip", "-n", name, "route", "add", "default", "dev", "eth0")
        if self.mbit:
            for namespace, interface in ((name, "eth0"), (switch, port)):
                # A bucket of a millisecond, and a queue of 100 ms behind it.
                burst, limit = max(int(self.mbit * 125), 8 << 10), max(int(self.mbit * 12500), 128 << 10)
                call("tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", "tbf",
                     "rate", f"{self.mbit}mbit", "burst", str(burst), "limit", str(limit))

    def plug(self, node, is_in):
        """Pulls the cable of a node, or puts it in again."""
        call("ip", "-n", self.switch, "link", "set", f"in{node}", "up" if is_in else "down")

    def quota(self, node, part):
        """A group of processes that gets `part` of a processor, in slices that are short beside a token."""
        # The kernel takes no quota below 1 ms.
        period_us = max(8000, int(1000 / part) + 1)
        name = self.name(node)
        if os.path.isdir(f"{CGROUP}/cpu"):
            folder = f"{CGROUP}/cpu/{name}"
            files = {"cpu.cfs_period_us": period_us, "cpu.cfs_quota_us": int(part * period_us)}
        else:
            folder = f"{CGROUP}/{name}"
            files = {"cpu.max": f"{int(part * period_us)} {period_us}"}
        try:
            os.mkdir(folder)
            self.groups.append((node, folder))
            for file, value in files.items():
                with open(f"{folder}/{file}", "w") as f:
                    f.write(str(value))
        except OSError as error:
            raise LabError(f"no quota of a processor: {error}") from error

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
        for _, folder in self.groups:
            remove_group(folder)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        self.processes, self.groups, self.namespaces = [], [], []
        signal.signal(signal.SIGTERM, self.handler)

    def spawn(self, namespace, command, node=None, **popen):
        group = dict(self.groups).get(node)

        def settle():
            die_with_parent()
            if group:
                with open(f"{group}/cgroup.procs", "w") as f:
                    f.write(str(os.getpid()))
            if self.cores and node is not None:
                os.sched_setaffinity(0, {self.cores[node % len(self.cores)]})

        # `ip netns exec` becomes the command: the process is the command's.
        popen = {"stdin": subprocess.DEVNULL, **popen}
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *command], preexec_fn=settle, **popen)
        self.processes.append(process)
        return process

    def start(self, node, command, **popen):
        """Starts a command on a node; the process is its own, without a shell or a tool around it."""
        return self.spawn(self.name(node), command, node, **popen)

    def run(self, node, command, timeout_s=600, **popen):
        """Runs a command on a node to its end: exit code, output, what it said on the side, seconds. -9 is of one that took too long."""
        start = time.monotonic()
        process = self.start(node, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **popen)
        try:
            output, side = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, side = process.communicate()
            side += f"killed after {timeout_s} s\n"
        return process.returncode, output, side, time.monotonic() - start

    def stop(self, *processes):
        """Kills processes that were started here."""
        for process in processes:
            process.kill()
            process.wait()

    def counters(self):
        """For each node, bytes that came in and went out through its interface so far."""
        both = []
        for node in range(self.nodes):
            files = [f"/sys/class/net/eth0/statistics/{way}_bytes" for way in ("rx", "tx")]
            both.append(tuple(int(n) for n in call("ip", "netns", "exec", self.name(node), "cat", *files).split()))
        return both

    def listens(self, process, port, udp=False, timeout_s=60):
        """Waits until a process listens on a port of its node, which is looked up: a connection would be an event there."""
        deadline = time.monotonic() + timeout_s
        wanted = re.compile(rf"^\s*\d+: \w+:{port:04X} \w+:0000 0A", re.M)
        datagrams = re.compile(rf"^\s*\d+: \w+:{port:04X} ", re.M)
        while True:
            if process.poll() is not None:
                raise LabError(f"{process.args[4]} ended with exit code {process.returncode} before it listened")
            tables = [open(f"/proc/{process.pid}/net/{kind}").read() for kind in ("tcp", "udp")]
            if wanted.search(tables[0]) and (not udp or datagrams.search(tables[1])):
                return
            if time.monotonic() > deadline:
                raise LabError(f"{process.args[4]} does not listen on port {port} after {timeout_s} s")
            time.sleep(0.01)

    def ask(self, client, server, bytes_, times):
        """Seconds that it takes each time to send bytes from one node to another and hear that they came."""
        me = [sys.executable, os.path.abspath(__file__)]
        echo = self.start(server, [*me, "--serve"], stdout=subprocess.DEVNULL)
        try:
            self.listens(echo, PORT)
            code, output, side, _ = self.run(client, [*me, "--ask", self.address(server), str(bytes_), str(times)])
        finally:
            self.stop(echo)
        if code != 0:
            raise LabError(f"node {client} does not reach node {server}: {side.strip()}")
        return [float(line) for line in output.split()]

    def link(self, client=0, server=1):
        """Round trip in ms (least, median, most of 50) and Mbit/s, as TCP sees them."""
        trips = sorted(1e3 * s for s in self.ask(client, server, 1, 50)[1:])
        size = int((self.mbit or 1000) * 125_000 * 0.5)
        mbit = size * 8 / 1e6 / self.ask(client, server, size, 2)[-1]
        return trips[0], statistics.median(trips), trips[-1], mbit

    def shown(self):
        """Measures the link between the first and the last node: a line to print and figures to keep."""
        least, median, most, mbit = self.link(0, self.nodes - 1)
        wanted = f"{self.mbit or 'any'} Mbit/s, {self.rtt_ms or 0} ms"
        line = f"{self.nodes} nodes, {wanted}; measured by TCP: {mbit:.0f} Mbit/s, round trip {median:.3f} ms ({least:.3f} to {most:.3f})"
        return line, {"mbit": mbit, "rtt_ms": median, "rtt_ms_range": [least, most]}


def remove_group(folder):
    """A group can be removed once its processes are gone, which takes the kernel a moment."""
    for _ in range(100):
        try:
            return os.rmdir(folder)
        except OSError:
            time.sleep(0.02)
    print(f"left behind: {folder}", file=sys.stderr)


def clean():
    """Removes namespaces and groups of labs whose process is gone."""
    def dead(name):
        found = re.fullmatch(rf"{PREFIX}-(\d+)-\w+", name)
        return found and not os.path.exists(f"/proc/{found[1]}")

    for line in call("ip", "netns", "list").splitlines():
        if dead(line.split()[0]):
            call("ip", "netns", "delete", line.split()[0])
    for folder in (CGROUP, f"{CGROUP}/cpu"):
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if dead(name):
                remove_group(f"{folder}/{name}")


PORT = 9876


def take(connection, size):
    """Reads so many bytes; False at the end of the stream."""
    while size > 0:
        got = connection.recv(min(size, 1 << 20))
        if not got:
            return False
        size -= len(got)
    return True


def serve():
    """Answers every message, u32 length and bytes, with one byte."""
    listener = socket.create_server(("", PORT))
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := connection.recv(4, socket.MSG_WAITALL):
            if not take(connection, struct.unpack("<I", header)[0]):
                break
            connection.sendall(b"!")


def ask(host, size, times):
    connection = socket.create_connection((host, PORT), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = struct.pack("<I", size) + bytes(size)
    for _ in range(times):
        start = time.monotonic()
        connection.sendall(message)
        take(connection, 1)
        print(time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--mbit", type=float)
    parser.add_argument("--rtt-ms", type=float)
    parser.add_argument("--relay", default=RELAY, help="[default: %(default)s]")
    parser.add_argument("--clean", action="store_true", help="remove what labs left whose process is gone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help="to run on every node, with LAB_NODE and LAB_ADDRESS in its environment")
    args = parser.parse_args()
    if args.serve:
        return serve()
    if args.ask:
        return ask(args.ask[0], int(args.ask[1]), int(args.ask[2]))
    try:
        if args.clean:
            return clean()
        with Lab(args.nodes, args.mbit, args.rtt_ms, args.relay) as lab:
            if lab.nodes > 1:
                print(lab.shown()[0], flush=True)
            before = lab.counters()
            where = [os.environ | {"LAB_NODE": str(node), "LAB_ADDRESS": lab.address(node)} for node in range(lab.nodes)]
            started = [lab.start(node, args.command, env=where[node]) for node in range(lab.nodes) if args.command]
            codes = [process.wait() for process in started]
            if started:
                for node, ((rx, tx), (rx0, tx0)) in enumerate(zip(lab.counters(), before)):
                    print(f"node {node}: exit code {codes[node]}, {rx - rx0} bytes in, {tx - tx0} out")
            return int(any(codes))
    except LabError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.exit(main())
