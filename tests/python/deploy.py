#!/usr/bin/env python3
"""Workers are deployed over ssh: deploy.py DAIR HOST_WORKER SYNTHETIC WORK

Three nodes and a root, each a machine of its own (benches/lab.py) with a real ssh server and a home of its own. The scripts of
install/ package a worker, bring it there with a model and a key, and what may go wrong on the way does: a node that is down, a
copy that breaks off, another model, wrong input. The workers must then give the answer of one node, and nothing may be left
behind. Exit code 1 where something is not so, 77 where no network can be made, with the reason.
"""
import json, os, pathlib, pwd, re, shutil, signal, stat, subprocess, sys, tempfile, time

REPO = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "benches"))
import lab as laboratory
import services

INSTALL = REPO / "install"
HOME = pwd.getpwuid(os.geteuid()).pw_dir
NODES, ROOT, DOWN = [1, 2, 3], 0, 9
# So that copies can be broken off: the model takes some seconds.
MBIT = 800
FOLDER = "dair"
GREEDY = ["--temperature", "0", "--threads", "1", "--max-tokens", "8", "--ignore-eos", "--json", "--max-seq-len", "512"]


class Deployment:
    def __init__(self, lab, dair, work):
        self.lab, self.dair, self.work, self.failed = lab, dair, work, []
        self.root_home = work / "home0"
        self.model = work / "deployed.m"
        self.nodes_file = work / "nodes.txt"

    def check(self, what, good, *found):
        print("ok    " if good else "FAILED", what, *([] if good else map(str, found)), flush=True)
        if not good:
            self.failed.append(what)

    def home(self, node):
        return self.work / f"home{node}"

    def folder(self, node):
        return self.home(node) / FOLDER

    def server(self, node):
        """An ssh server whose users' home is a folder of this node."""
        home = self.home(node)
        settings = home / "sshd"
        for folder in (settings, home / ".ssh"):
            folder.mkdir(parents=True)
            folder.chmod(0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", settings / "host"], check=True)
        shutil.copy(self.root_home / ".ssh/id_ed25519.pub", home / ".ssh/authorized_keys")
        (settings / "config").write_text(
            f"HostKey {HOME}/sshd/host\nPidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPort 2222\n"
            "StrictModes no\nMaxStartups 50\nUseDNS no\n")
        with open(self.root_home / ".ssh/known_hosts", "a") as known:
            known.write(f"[{self.lab.address(node)}]:2222 {(settings / 'host.pub').read_text()}")
        # Each command of `ip netns exec` has mounts of its own.
        self.start(node, ["/usr/sbin/sshd", "-D", "-e", "-f", f"{HOME}/sshd/config"], stderr=open(self.work / f"sshd{node}.txt", "w"))

    def start(self, node, command, **more):
        return self.lab.start(node, ["sh", "-c", 'mount --bind "$1" "$2" && shift 2 && cd && exec "$@"', "sh", self.home(node), HOME, *command], **more)

    def environment(self, **more):
        kept = {name: value for name, value in os.environ.items() if not re.match("DAIR|SSH|SCP|XDG|BUNDLE|WORKER|CARGO_HOME|RUSTUP", name)}
        settings = f"-i {self.work}/home0/.ssh/id_ed25519 -o UserKnownHostsFile={self.work}/home0/.ssh/known_hosts"
        return kept | {"HOME": str(self.root_home), "SSH_OPTS": settings, "DAIR_CACHE": str(self.work / "cache")} | more

    def script(self, name, *arguments, environment=None, timeout_s=120):
        command = [INSTALL / name, *map(str, arguments)]
        return self.lab.run(ROOT, command, timeout_s=timeout_s, env=environment or self.environment(), cwd=self.work)

    def deploy(self, *arguments, nodes=None, **more):
        return self.script("deploy_workers.sh", *arguments, "--bundles", self.work / "dist", nodes or self.nodes_file, FOLDER, **more)

    def row(self, done, node):
        """The fields of a node in the table that a script prints at its end."""
        rows = [line for line in done[1].splitlines() if line.startswith(f"root@{self.lab.address(node)}:2222 ")]
        return re.split(r"  +", rows[-1]) if rows else [""] * 6

    def column(self, done, index):
        return [self.row(done, node)[index] for node in NODES]

    def lists(self, *nodes):
        file = self.work / f"nodes-{'-'.join(map(str, nodes))}.txt"
        file.write_text("# by deploy.py\n\n" + "".join(f"root@{self.lab.address(node)}:2222 # node {node}\n" for node in nodes))
        return file

    def pid(self, node):
        return int((self.folder(node) / "worker.pid").read_text())

    def packaged(self, worker):
        outcomes = []
        for folder in ("dist", "again"):
            # What the release is built with takes names out; here they would only take time.
            done = subprocess.run([INSTALL / "package_worker.sh", "--binary", worker, "--out", self.work / folder], capture_output=True, text=True)
            self.check("a worker is packaged", done.returncode == 0, done.stderr)
            outcomes.append([file.read_bytes() for file in sorted((self.work / folder).iterdir())])
        self.check("packaged twice, the bundle has the same bytes", len(outcomes[0]) == 1 and outcomes[0] == outcomes[1])
        bundle, = (self.work / "dist").iterdir()
        listed = subprocess.run(["tar", "-tvzf", bundle], capture_output=True, text=True, check=True).stdout
        needed = ("host-worker", "services/dair-worker.service", "install.sh", "uninstall.sh", "SHA256SUMS", "LICENSE", "THIRD-PARTY-LICENSES")
        self.check("the bundle has all that belongs to it", all(f"/{name}\n" in listed for name in needed), listed)
        self.check("the bundle is nobody's", all(" 0/0 " in line for line in listed.splitlines()), listed)

    def first(self):
        """What a dry run says, a deployment, and a second one."""
        before = sorted(map(str, self.work.glob("home[123]/**")))
        done = self.deploy("--dry-run", "--model", self.model)
        self.check("a dry run names each command", done[0] == 0 and done[1].count("ssh -T") == 3 * 10 and "cat >>dair/models/" in done[1], done)
        self.check("a dry run changes nothing", before == sorted(map(str, self.work.glob("home[123]/**"))) and not (self.work / "cache").exists())
        done = self.deploy("--model", self.model)
        self.check("three nodes are deployed to", done[0] == 0, done)
        self.check("the table says so", [self.column(done, i) for i in (1, 2, 3)] == [["installed"] * 3, ["copied"] * 3, ["started (user)"] * 3], done[1])
        for node in NODES:
            there = self.folder(node) / "models" / self.model.name
            self.check("the model is there", there.read_bytes() == self.model.read_bytes())
            self.check("nobody else may read the key", stat.S_IMODE((self.folder(node) / "key").stat().st_mode) == 0o600)
        workers = [self.pid(node) for node in NODES]
        before = self.lab.counters()
        done = self.deploy("--model", self.model)
        sent = self.lab.counters()[ROOT][1] - before[ROOT][1]
        self.check("a second run finds all there", done[0] == 0 and [self.column(done, i) for i in (1, 2, 3)] == [["there"] * 3, ["there"] * 3, ["running (user)"] * 3], done)
        self.check(f"and sends nothing but questions ({sent} bytes)", sent < 200_000)
        self.check("and lets the workers run", workers == [self.pid(node) for node in NODES])

    def answers(self):
        """The workers compute an answer; scripts say that they are there."""
        ask = [self.dair, "generate", "--model", self.model, "--prompt", "The quick brown fox", *GREEDY]
        alone = self.lab.run(ROOT, ask, env=self.environment())
        workers = [f"{self.lab.address(node)}:9990" for node in NODES]
        together = self.lab.run(ROOT, [*ask, "--workers", *workers, "--shares", "1,1,1,1"], env=self.environment())
        texts = [json.loads(done[1])["text"] if done[0] == 0 else done for done in (alone, together)]
        self.check("the workers give the answer of one node", texts[0] == texts[1], *texts)
        named = {"PATH": f"{pathlib.Path(self.dair).parent}:{os.environ['PATH']}"}
        for how in ([], ["--tcp"]):
            for _ in range(2):
                done = self.script("test_connection.sh", *how, self.nodes_file, environment=self.environment(**named))
                self.check(f"test_connection {how} finds all", done[0] == 0 and "all 3 workers" in done[1], done)
            done = self.script("test_connection.sh", *how, self.lists(1, DOWN), environment=self.environment(**named))
            self.check(f"test_connection {how} misses one", done[0] == 1 and done[2].startswith("error: ") and done[3] < 15, done)
        done = self.script("test_connection.sh", "--tcp", self.nodes_file, 9991)
        self.check("test_connection: another port", done[0] == 1 and done[1].count("does not answer") == 3, done)
        done = self.script("run_benchmark.sh", "--nodes", self.nodes_file, "--dair", self.dair, "--out", self.work / "figures", "--",
                           "--shape", "tiny-llama", "--seconds", "1", "--threads", "1")
        self.check("nodes are measured", done[0] == 0 and len(list((self.work / "figures").iterdir())) == 3, done)
        figures = re.findall(r":2222  +\w+  +([\d.]+)  +([\d.]+)  +([\d.]+)$", done[1], re.M)
        self.check("with figures", len(figures) == 3 and all(float(f) > 0 for row in figures for f in row), done[1])

    def down(self):
        """A node that is not there, and a worker that died."""
        os.kill(self.pid(2), signal.SIGKILL)
        done = self.deploy("--model", self.model, nodes=self.lists(1, DOWN, 2, 3))
        self.check("a node that is down is an error", done[0] == 1 and "1 of 4 nodes" in done[2], done)
        self.check("in one line of the table", any(str(self.lab.address(DOWN)) in line and "connect to host" in line for line in done[1].splitlines()), done[1])
        self.check("the others are done", self.column(done, 3) == ["running (user)", "restarted (user)", "running (user)"], done[1])

    def children(self, pid):
        """Process and all below it."""
        found, to_do = [], [pid]
        while to_do:
            found.append(to_do.pop())
            for task in pathlib.Path(f"/proc/{found[-1]}/task").glob("*/children"):
                to_do += map(int, task.read_text().split())
        return found

    def copying(self, process, node):
        """The ssh that copies a model to a node, and the bytes that have come."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            parts = [part.stat().st_size for part in self.folder(node).glob("models/*.part")]
            for pid in self.children(process.pid):
                try:
                    words = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
                except OSError:
                    continue
                if words.startswith("ssh\0") and "cat >>" in words and parts and parts[0] > 8 << 20:
                    return pid, parts[0]
            time.sleep(0.02)
        raise laboratory.LabError(f"no copy to node {node} was seen")

    def other_model(self):
        """A model is replaced by another one of its name, whose copy breaks off twice."""
        with open(self.model, "r+b") as file:
            file.seek(self.model.stat().st_size - 4096)
            file.write(bytes(range(256)))
        nodes = self.lists(1)
        command = [INSTALL / "deploy_workers.sh", "--model", self.model, "--bundles", self.work / "dist", nodes, FOLDER]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": self.environment()}
        process = self.lab.start(ROOT, command, **streams)
        ssh, _ = self.copying(process, 1)
        # All of it ends, as by Ctrl-C.
        process.terminate()
        output, side = process.communicate(timeout=20)
        self.check("a deployment that is told to end does", process.returncode == 143, process.returncode, output, side)
        self.check("and its ssh with it", not os.path.exists(f"/proc/{ssh}"))
        time.sleep(0.5)
        part, = self.folder(1).glob("models/*.part")
        come, before = part.stat().st_size, self.lab.counters()
        self.check("the model of before is still there", (self.folder(1) / "models" / self.model.name).exists())
        process = self.lab.start(ROOT, command, **streams)
        ssh, _ = self.copying(process, 1)
        os.kill(ssh, signal.SIGKILL)
        output, side = process.communicate(timeout=60)
        sent, size = self.lab.counters()[ROOT][1] - before[ROOT][1], self.model.stat().st_size
        self.check("a copy that broke off goes on", process.returncode == 0 and output.count("going on at") >= 2, output, side)
        self.check(f"where it was ({sent} bytes sent for {size - come} of {size})", sent < (size - come) * 1.1 + 8_000_000)
        there = self.folder(1) / "models" / self.model.name
        self.check("the other model is there", there.read_bytes() == self.model.read_bytes())
        self.check("nothing of the copy is left", not list(self.folder(1).glob("models/*.part")))
        self.check("the worker has the other model", "restarted (user)" in output, output)

    def in_chain(self):
        """The others get it in a chain: it leaves the root once, or not at all where a node has it."""
        before = [file.read_bytes() for file in self.authorized()]
        counted = self.lab.counters()
        done = self.deploy("--chain", "--model", self.model)
        sent = self.lab.counters()[ROOT][1] - counted[ROOT][1]
        self.check("a chain is deployed to", done[0] == 0 and self.column(done, 2) == ["there", "copied", "copied"], done)
        self.check(f"the model came from a node ({sent} bytes from the root)", sent < 1_000_000, done[1])
        for node in NODES:
            self.check("the chain's model is whole", (self.folder(node) / "models" / self.model.name).read_bytes() == self.model.read_bytes())
        self.check("no key of the chain is left", before == [file.read_bytes() for file in self.authorized()])
        # A node that takes no agent can pass nothing on: then the root does.
        done = self.script("deploy_workers.sh", "--uninstall", self.lists(2), FOLDER)
        self.check("one node is emptied", done[0] == 0, done)
        blocked = self.environment()
        (self.home(1) / ".ssh/authorized_keys").write_text("no-agent-forwarding " + (self.root_home / ".ssh/id_ed25519.pub").read_text())
        done = self.deploy("--chain", "--model", self.model, environment=blocked)
        self.check("where a node cannot pass it on, the root sends it", done[0] == 0 and "could not pass it on" in done[1] and self.column(done, 2)[1] == "copied", done)
        self.check("and no key is left there", (self.home(2) / ".ssh/authorized_keys").read_bytes() == before[1])

    def authorized(self):
        return [self.home(node) / ".ssh/authorized_keys" for node in NODES]

    def wrong_input(self):
        """Each script answers what is wrong with one line and exit code 2."""
        def wrong(name, arguments, *words, **environment):
            done = self.script(name, *arguments, environment=self.environment(**environment))
            lines = done[2].strip().splitlines()
            self.check(f"{name} {arguments} {environment}", done[0] == 2 and len(lines) == 1 and all(word in lines[0] for word in words), done)

        file, deploy = self.work / "wrong.txt", "deploy_workers.sh"
        for text, word in (("", "names no worker"), ("# only\n\n", "names no worker"), ("a\n\nb c", ':3: "b c" is more than one word'),
                           ("a:70000", ':1: "70000" is not a port'), ("pi@", ':1: "" is not a host'), ("@a", "no name of a user"),
                           ("x;y@a", '"x;y" is no name of a user'), ("pi@a:x", '"x" is not a port'), ("a\nb\npi@a:22", ":3: worker a:9990 is on line 1"),
                           ("-oProxyCommand=x", "is not a host"), ("-x@a", "no name of a user"), ("a;b", "is not a host"), ("$(id)", "is not a host"),
                           ("::1", "is not a host"), ("[::1", "is not a host"), ("[10.0.0.1]:1", "is not a host"), ("a:", "is not a port"), ("a:0", "is not a port"),
                           ("a\n\xff", ":2: "), ("".join(f"h{i}\n" for i in range(256)), "more than 255 workers")):
            file.write_text(text, encoding="latin-1")
            wrong("test_connection.sh", ["--tcp", file], word)
        wrong(deploy, [file, FOLDER], "more than 255")
        file.write_text("10.0.0.2\r\n 10.0.0.3:9991 # the old one\npi@pi-4.local:2222\nroot@[fe80::1]\ndllama://10.0.0.5:1")
        done = self.script("test_connection.sh", "--tcp", "--dry-run", file, 9992)
        found = [tuple(line.split()[-2:]) for line in done[1].splitlines()]
        self.check("a nodes file is read as dair reads it", found == [("10.0.0.2", "9992"), ("10.0.0.3", "9991"), ("pi-4.local", "9992"), ("fe80::1", "9992"), ("10.0.0.5", "1")], done)
        nodes, model = self.nodes_file, self.model
        for port in ("0", "65536", "http", "", "1 2", "-1"):
            wrong(deploy, ["--port", port, nodes, FOLDER], "--port is", "1 to 65535")
        wrong(deploy, [nodes, FOLDER], "WORKER_PORT", WORKER_PORT="x")
        wrong("test_connection.sh", [nodes], "WORKER_PORT", WORKER_PORT="99999")
        wrong("test_connection.sh", [nodes, "x"], "PORT is")
        for folder in ("/", "..", "a/../b", "a b", "a;b", "a\nb", "$HOME", "a/-x", ""):
            wrong(deploy, [nodes, folder], "REMOTE_DIR")
        for options, word in (("-oProxyCommand=touch x", "refused"), ("-o proxycommand=x", "refused"), ("-oProxyJump=a", "refused"), ("-o LocalCommand=x", "refused"),
                              ("-oKnownHostsCommand=x", "refused"), ("-p", "needs a value"), ("-p 0", "not a port"), ("host", "not allowed"), ("-L 1:a:2", "not allowed"),
                              ("-i a;b", "character"), ("-i $(id)", "character"), ("-4\n-6", "more than one line")):
            wrong(deploy, [nodes, FOLDER], "SSH_OPTS", word, SSH_OPTS=options)
            wrong("run_benchmark.sh", ["--dair", self.dair, "--nodes", nodes], "SSH_OPTS", word, SSH_OPTS=options)
        wrong(deploy, [nodes, FOLDER], "SCP_OPTS", "refused", SCP_OPTS="-P 22 -oProxyCommand=x")
        wrong(deploy, [nodes, FOLDER], "SCP_OPTS", "not a port", SCP_OPTS="-P x")
        wrong(deploy, ["--model", f"{model}\n", nodes, FOLDER], "--model", "character")
        wrong(deploy, ["--model", self.work / "none.m", nodes, FOLDER], "there is no")
        wrong(deploy, ["--model", self.work, nodes, FOLDER], "no regular file")
        wrong(deploy, ["--model", nodes, nodes, FOLDER], "does not end in .m")
        wrong(deploy, ["--model", model, "--model", model, nodes, FOLDER], "twice")
        wrong(deploy, ["--worker-args", "--threads $(id)", nodes, FOLDER], "--worker-args")
        wrong(deploy, ["--parallel", "0", nodes, FOLDER], "--parallel")
        wrong(deploy, ["--service", "x", nodes, FOLDER], "--service")
        wrong(deploy, [nodes, FOLDER], "BUNDLE_PATH", BUNDLE_PATH="none")
        wrong(deploy, [self.work, FOLDER], "no regular file")
        wrong(deploy, [nodes], "REMOTE_DIR")
        wrong(deploy, [nodes, FOLDER, "more"], "too many")
        wrong(deploy, [nodes, FOLDER], "no key", HOME=str(self.work))
        for name in (deploy, "test_connection.sh", "run_benchmark.sh", "package_worker.sh", "setup_root.sh", "uninstall.sh", "node/install.sh", "node/uninstall.sh"):
            wrong(name, ["--frobnicate"], "--frobnicate")
            done = self.script(name, "--help")
            self.check(f"{name} --help has examples", done[0] == 0 and "Examples:" in done[1], done)
        wrong("package_worker.sh", ["--triple", "mips"], "--triple", "allowed")
        wrong("package_worker.sh", ["--binary", nodes], "no program")
        wrong("package_worker.sh", ["--all"], "BUNDLE_PATH", BUNDLE_PATH="x.tar.gz")
        wrong("package_worker.sh", [], "PYTHON", PYTHON="python;id")
        wrong("setup_root.sh", ["--prefix", ""], "--prefix")
        wrong("setup_root.sh", ["--binaries", self.work], "no program")
        wrong("uninstall.sh", ["--prefix"], "needs a value")

    def removed(self):
        """Uninstalling leaves nothing; it may be done twice."""
        workers = [self.pid(node) for node in NODES]
        for word in ("removed", "nothing there"):
            done = self.script("deploy_workers.sh", "--uninstall", self.nodes_file, FOLDER)
            self.check(f"workers are uninstalled: {word}", done[0] == 0 and all(found.startswith(word) for found in self.column(done, 1)), done)
        self.check("no worker runs", not any(os.path.exists(f"/proc/{pid}") for pid in workers))
        left = [path for node in NODES for path in self.home(node).iterdir() if path.name not in (".ssh", "sshd")]
        self.check("nothing is left on nodes", not left, left)

    def under_systemd(self):
        """What is brought to a node becomes a service of systemd where there is one: on a machine of its own."""
        bundle, = (self.work / "dist").iterdir()
        try:
            with tempfile.TemporaryDirectory(prefix="dair-deploy-") as folder, services.Machine(folder) as machine:
                machine.boot()
                there = machine.path("/opt/dair")
                (there / "models").mkdir(parents=True)
                there.chmod(0o755)
                subprocess.run(["tar", "-xzf", bundle, "-C", there, "--transform", "s|^[^/]*|worker|"], check=True)
                shutil.copy(self.model, there / "models")
                shutil.copy(self.root_home / ".config/dair/key", there / "key")
                for word in ("started", "running"):
                    done = machine.run("/opt/dair/worker/install.sh", "--port", "9991", ok=None)
                    self.check(f"a service of systemd: {word}", done.returncode == 0 and done.stdout == f"{word} (systemd)\n", done)
                state = services.show(machine, "dair-worker", "ActiveState", "UnitFileState", "NRestarts")
                self.check("it runs, now and after a reboot", state == {"ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}, state)
                listening = machine.run("ss", "-Hltnp", "sport = :9991").stdout
                self.check("with the key it listens on all addresses", listening.split()[3:4] == ["0.0.0.0:9991"], listening)
                self.check("nobody else may read the key", stat.S_IMODE(machine.path("/etc/dair/key").stat().st_mode) == 0o600)
                done = machine.run("/opt/dair/worker/install.sh", "--port", "9992", "--", "--threads", "1", ok=None)
                self.check("with other arguments it starts again", done.stdout == "restarted (systemd)\n", done)
                done = machine.run("/opt/dair/worker/uninstall.sh", ok=None)
                self.check("the service is removed", done.returncode == 0 and done.stdout.startswith("removed"), done)
                paths = ("/etc/dair", "/etc/systemd/system/dair-worker.service", "/etc/systemd/system/dair-worker.service.d", "/opt/dair/worker", "/opt/dair/key")
                self.check("and leaves nothing but a model that was there", not [path for path in paths if machine.path(path).exists()])
                self.check("which stays", (there / "models" / self.model.name).exists())
                listening = machine.run("ss", "-Hltn", "sport = :9992").stdout
                self.check("nobody listens any more", listening == "", listening)
        except services.Skip as why:
            print(f"      not tried under systemd: it takes {why}")

    def root(self):
        """The root's own installation, twice, and its end."""
        prefix = self.work / "prefix"
        before = None
        for _ in range(2):
            done = self.script("setup_root.sh", "--prefix", prefix, "--binaries", pathlib.Path(self.dair).parent)
            self.check("the root is set up", done[0] == 0, done)
            after = sorted(map(str, prefix.glob("**/*")))
            self.check("set up again, it has the same files", before in (None, after))
            before = after
        for file in ("bin/dair", "bin/host-worker", "share/dair/install/lib/common.sh", "share/man/man1/dair.1", "share/zsh/site-functions/_dair",
                     "share/bash-completion/completions/host-worker", "share/fish/vendor_completions.d/dair.fish"):
            self.check(f"{file} is there", (prefix / file).is_file())
        script = prefix / "share/dair/install/test_connection.sh"
        done = self.lab.run(ROOT, [script, "--dry-run", self.nodes_file], env=self.environment())
        self.check("the installed scripts take the installed dair", done[0] == 0 and f"{prefix}/share/dair/install/../../../bin/dair nodes" in done[1], done)
        (prefix / "share/mine").write_text("mine")
        for word in ("removed", "nothing is installed"):
            done = self.script("uninstall.sh", "--prefix", prefix)
            self.check(f"the root is uninstalled: {word}", done[0] == 0 and done[1].startswith(word), done)
        self.check("what is not dair's stays", [path.name for path in prefix.glob("**/*")] == ["share", "mine"], list(prefix.glob("**/*")))


def main():
    if len(sys.argv) != 5:
        sys.exit(re.sub(r"\n\n.*", "", __doc__, flags=re.S))
    why = laboratory.missing()
    if why:
        print(f"not deployed: {why}")
        return 77
    for tool in ("/usr/sbin/sshd", "ssh", "strip"):
        if not shutil.which(tool):
            sys.exit(f"error: {tool} is missing: install openssh-server, openssh-client and binutils")
    dair, worker, synthetic, work = map(os.path.abspath, sys.argv[1:])
    work = pathlib.Path(work)
    shutil.rmtree(work, ignore_errors=True)
    (work / "home0/.ssh").mkdir(parents=True)
    # Where sshd's service never ran.
    pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "home0/.ssh/id_ed25519"], check=True)
    (work / "home0/.config/dair").mkdir(parents=True)
    subprocess.run([dair, "key", "new", work / "home0/.config/dair/key"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([synthetic, "smollm2-135m", work / "deployed.m", "q40"], check=True, stdout=subprocess.DEVNULL)
    # Names of functions are most of a program, and are sent to each node.
    (work / "bin").mkdir()
    for program in (dair, worker):
        subprocess.run(["strip", "-o", work / "bin" / os.path.basename(program), program], check=True)
    start = time.monotonic()
    with laboratory.Lab(4, mbit=MBIT) as lab:
        test = Deployment(lab, str(work / "bin" / os.path.basename(dair)), work)
        test.nodes_file = test.lists(*NODES)
        for node in NODES:
            test.server(node)
        try:
            test.packaged(work / "bin" / os.path.basename(worker))
            for part in (test.wrong_input, test.first, test.answers, test.down, test.other_model, test.in_chain, test.removed, test.under_systemd, test.root):
                began = time.monotonic()
                part()
                print(f"      {part.__name__}: {time.monotonic() - began:.0f} s")
        finally:
            # Workers are nobody's children.
            for node in NODES:
                if (test.folder(node) / "worker.pid").exists():
                    try:
                        os.kill(test.pid(node), signal.SIGKILL)
                    except ProcessLookupError:
                        pass
    print(f"{len(test.failed)} failed, {time.monotonic() - start:.0f} s")
    return int(bool(test.failed))


if __name__ == "__main__":
    sys.exit(main())
