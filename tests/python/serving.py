"""What the scripts that drive `dair serve` have in common: a server, checks, a call. Their arguments begin with DAIR MODEL."""

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

DAIR, MODEL = sys.argv[1:3]
HI = [{"role": "user", "content": "What is the capital of France?"}]
failures = checks = 0


def check(name, holds, seen=""):
    global failures, checks
    checks += 1
    failures += not holds
    print(f"{'ok    ' if holds else 'FAILED'} {name}{'' if holds else f': {seen}'}", flush=True)


def finish():
    print(f"{checks} checks, {failures} failed")
    sys.exit(1 if failures else 0)


@contextlib.contextmanager
def server(*flags):
    """A server, by its address; it must end well when it is told to."""
    process = subprocess.Popen([DAIR, "serve", "--model", MODEL, "--port", "0", "--quiet", *flags], stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    try:
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        check("SIGTERM ends the server", process.wait(30) == 0, process.returncode)


def get(address, path):
    with urllib.request.urlopen(address + path, timeout=60) as answer:
        return answer.read()


def post(address, path, body, headers=()):
    """Status, headers and object that a call gives; of a stream the text."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            content = answer.read().decode()
            return answer.status, answer.headers, json.loads(content) if answer.headers["Content-Type"] == "application/json" else content
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read() or b"null")
