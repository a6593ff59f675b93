#!/usr/bin/env python3
"""A worker is lost while an answer goes on, as somebody sees it who looks at the pages: page_cluster.py DAIR HOST-WORKER MODEL [--shots FOLDER] [--chromium FILE]

Starts two workers and `dair serve` on loopback, asks a long question in one tab, kills a worker, and reads the page about the cluster in
another. Needs the Python package playwright, and a Chromium. Exit code 1 where something is not so.
"""
import argparse, pathlib, subprocess, sys, time

from playwright.sync_api import sync_playwright

from page import ANSWER_MS, DESKTOP, LAST, PATIENCE_MS, expect

LONG = "Write a very long story about the sea, in many chapters."


def worker(args):
    """A worker, and its address."""
    command = [args.worker, "--model", args.model, "--host", "127.0.0.1", "--port", "0", "--no-announce", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    return process, line.removeprefix("listening on ").split(",")[0].strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("dair", "worker", "model"):
        parser.add_argument(name)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    workers = [worker(args) for _ in range(2)]
    addresses = [address for _, address in workers]
    serve = [args.dair, "serve", "--model", args.model, "--port", "0", "--quiet", "--threads", "1", "--shares", "2,1,1", "--workers", *addresses]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
            look(browser.new_context(viewport=DESKTOP), url, workers, args.shots)
            browser.close()
    finally:
        for process in (server, *(process for process, _ in workers)):
            process.kill()
            process.wait()


def until(page, script, patience_ms):
    """Waits until a script says yes. The page's policy lets no script be made of text, as Playwright's own waiting does."""
    end = time.monotonic() + patience_ms / 1000
    while not page.evaluate(script):
        expect(time.monotonic() < end, f"never came: {script}")
        page.wait_for_timeout(50)


def look(context, url, workers, shots):
    chat, cluster = context.new_page(), context.new_page()
    chat.goto(url)
    chat.fill("#question", LONG)
    chat.press("#question", "Enter")
    until(chat, f"document.querySelector('{LAST}')?.innerText.length > 200", ANSWER_MS)
    cluster.goto(url + "/cluster.html")
    (process, address), here = workers[1], "document.querySelectorAll('#nodes .state:not(.out)').length"
    until(cluster, f"{here} === 3", PATIENCE_MS)
    cluster.wait_for_timeout(4_000)
    rows = cluster.locator("#nodes tr").all_inner_texts()
    expect(all(any(ch.isdigit() for ch in row.split("here")[1]) for row in rows), f"nodes have no figures: {rows}")
    written = len(chat.inner_text(LAST))
    process.kill()
    killed = time.monotonic()
    until(cluster, f"{here} === 2", 15_000)
    print(f"ok    the page shows the loss after {time.monotonic() - killed:.1f} s", flush=True)
    until(cluster, f"document.querySelector('#events')?.innerText.includes('{address}')", PATIENCE_MS)
    print("ok    an event names the worker", flush=True)
    until(chat, f"document.querySelector('{LAST}').innerText.length > {written + 200}", ANSWER_MS)
    print("ok    the answer goes on", flush=True)
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
        cluster.screenshot(path=shots / "cluster-lost.png", full_page=True)
        chat.screenshot(path=shots / "chat-lost.png")


if __name__ == "__main__":
    sys.exit(main())
