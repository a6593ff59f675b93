#!/usr/bin/env python3
"""Drives `dair serve` with clients in JavaScript (tests/node): clients.py DAIR MODEL

Installs them by npm into the folder node below CARGO_TARGET_DIR [target], once for each package.json, and starts the servers that they want.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

from serving import DAIR, check, finish, server

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent / "node"
FOLDER = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "node"


def install():
    """Modules are looked for beside the script that wants them, so it goes there, too."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted, installed = (SOURCE / "package.json").read_text(), FOLDER / "installed.json"
    if not installed.exists() or installed.read_text() != wanted:
        shutil.copy(SOURCE / "package.json", FOLDER)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=FOLDER, check=True, timeout=300)
        installed.write_text(wanted)
    return shutil.copy(SOURCE / "clients.mjs", FOLDER)


def main():
    script = install()
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys")
        key = subprocess.run([DAIR, "api-key", "ann", "--file", keys], capture_output=True, text=True, check=True).stdout.strip()
        with server("--slots", "4", "--max-seq-len", "2048") as (wide, _):
            with server("--slots", "1", "--queue", "1", "--request-timeout-s", "2", "--api-keys", keys) as (narrow, _):
                done = subprocess.run(["node", script, wide, narrow, key], timeout=300)
        check("all that JavaScript's clients do is so", done.returncode == 0, done.returncode)
    finish()


main()
