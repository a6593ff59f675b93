#!/usr/bin/env python3
"""Makes a wheel of static binaries that are there already: pip install puts dair and host-worker into its bin.

The same version and binaries give the same wheel.
"""

import argparse
import base64
import hashlib
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PROGRAMS = ("dair", "host-worker")
# What pip calls the systems on which a static binary of a target runs, and what ELF calls its processor. Static ones need no
# library of the system, so tags of both libraries go.
TARGETS = {
    "x86_64-unknown-linux-musl": (62, "manylinux2014_x86_64.musllinux_1_1_x86_64"),
    "aarch64-unknown-linux-musl": (183, "manylinux2014_aarch64.musllinux_1_1_aarch64"),
    "armv7-unknown-linux-gnueabihf": (40, "manylinux2014_armv7l.musllinux_1_1_armv7l"),
}
WHEEL = """\
Wheel-Version: 1.0
Generator: dair ({version})
Root-Is-Purelib: false
{tags}
"""
METADATA = """\
Metadata-Version: 2.4
Name: dair
Version: {version}
Summary: Large language models on the machines you already have
License-Expression: MIT
License-File: LICENSE
Keywords: llm,inference,distributed
Classifier: Environment :: Console
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Rust
Classifier: Topic :: Scientific/Engineering :: Artificial Intelligence
Requires-Python: >=3.8
Description-Content-Type: text/markdown

# dair

Large language models on the machines you already have: a Raspberry Pi, an old laptop, a server, or several of them together.

This package has two static programs, and no Python in them:

```sh
dair convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2.m      # a GGUF file or a Hugging Face folder becomes a model of dair
dair chat --model smollm2.m
host-worker --model smollm2.m                               # on other machines, with the cluster's key (dair key new)
dair chat --model smollm2.m --discover
```

`dair --help` and `host-worker --help` have the rest.
"""


class Refused(Exception):
    """One line for the user."""


def version():
    lines = (REPO / "Cargo.toml").read_text().partition("[workspace.package]")[2].splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))


def binary(path, machine, triple):
    """The bytes of a program of that target."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; build it for {triple} first") from None
    if data[:4] != b"\x7fELF" or int.from_bytes(data[18:20], "little") != machine:
        raise Refused(f"{path} is not for {triple}")
    return data


def epoch():
    """Seconds since 1970 of the commit: no file of a wheel is older than 1980, which zip can't say."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        text = subprocess.run(["git", "-C", REPO, "log", "-1", "--format=%ct"], capture_output=True, text=True).stdout
    return max(int(text.strip() or 0), 315_532_800)


def wheel(triple, binaries, out):
    machine, tags = TARGETS[triple]
    number = version()
    info = f"dair-{number}.dist-info"
    lines = "\n".join(f"Tag: py3-none-{tag}" for tag in tags.split("."))
    files = [(f"dair-{number}.data/scripts/{name}", binary(binaries / name, machine, triple), 0o755) for name in PROGRAMS]
    files += [
        (f"{info}/licenses/LICENSE", (REPO / "LICENSE").read_bytes(), 0o644),
        (f"{info}/METADATA", METADATA.format(version=number).encode(), 0o644),
        (f"{info}/WHEEL", WHEEL.format(version=number, tags=lines).encode(), 0o644),
    ]
    digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    record = "".join(f"{path},sha256={digest(data)},{len(data)}\n" for path, data, _ in files)
    files.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode(), 0o644))
    date = time.gmtime(epoch())[:6]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"dair-{number}-py3-none-{tags}.whl"
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data, mode in files:
            entry = zipfile.ZipInfo(name, date)
            entry.external_attr, entry.create_system, entry.compress_type = (0o100000 | mode) << 16, 3, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    # Under its own name a wheel is a whole one.
    part.replace(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--binaries", type=Path, required=True, metavar="FOLDER", help="where dair and host-worker are, static, of that target")
    parser.add_argument("--triple", choices=TARGETS, default="x86_64-unknown-linux-musl", help="[default: %(default)s]")
    parser.add_argument("--out", type=Path, default=REPO / "dist", metavar="FOLDER", help="where the wheel goes [default: dist in the repository]")
    args = parser.parse_args()
    try:
        print(wheel(args.triple, args.binaries, args.out))
    except (Refused, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
