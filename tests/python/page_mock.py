#!/usr/bin/env python3
"""A server for the page, without a model: page_mock.py [--port 8080] [--key KEY] [--page FOLDER]

It serves the page's files as `dair serve` does, with the same Content-Security-Policy, and answers with what is canned below, chosen
by words of the last question: "long story" is slow, "markdown" has one of everything, "reason" reasons first, "empty" says nothing,
"cut" ends at its longest length, "fail" is an error, "break" one in the middle, "vanish" a connection that ends, and "busy" is
refused every other time, to be asked again in two seconds. Standard library only.
"""
import argparse, json, math, pathlib, re, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = pathlib.Path(__file__).resolve().parents[2] / "host/src/serve/page"
POLICY = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
MODELS = ["smollm2-q80", "qwen3-0.6b-q40"]
CONTEXT = 8192
FAST_S, SLOW_S = 0.004, 0.04
RETRY_AFTER_S = 2

SHORT = "The capital of France is **Paris**. It lies on the Seine, and has been the country's capital, with interruptions, since the tenth century."
STORY = " ".join(f"Chapter {chapter}. The sea was calm that morning, and the boat went out once more, past the mole and the last of the buoys.\n\n"
                 for chapter in range(1, 61))
REASONING = "The question is simple, so a short answer will do. **Nothing** else is asked."
# What a model may say: one of everything, and what must stay text.
MARKDOWN = """\
# Sorting, in short

A *stable* sort keeps **equal** items in order; `sort()` of Python is one, and ~~bubble sort~~ is not what you want. See [the manual](https://docs.python.org/3/howto/sorting.html "Sorting") or https://example.org/a_b(c).

## Which one?

| Algorithm | Mean | Worst | Memory |
|:----------|:----:|------:|-------:|
| Quicksort | n log n | n² | log n |
| Mergesort | n log n | n log n | n |
| `a \\| b` | – | – | – |

1. Ask how long the list is.
   - Short: *insertion* sort.
   - Long:
     1. random access: quicksort,
     2. none: mergesort.
2. Write it:

   ```python
   def insertion_sort(items):
       for i in range(1, len(items)):
           item = items[i]
           while i > 0 and items[i - 1] > item:
               items[i] = items[i - 1]
               i -= 1
           items[i] = item
   ```

3. Measure it.

> Premature optimisation is the root of all evil.
>
> — *Donald Knuth*, who counts.

---

### What must stay text

<img src=x onerror="document.title='owned'"> and <script>document.title='owned'</script>, [a trap](javascript:alert(1)), [another](data:text/html,<script>alert(1)</script>), ![a picture](https://example.org/p.png) and <b>bold</b>.

```html
<img src=x onerror="document.title='owned'">
```

The end, with snake_case_names, 2 * 3 * 4, an \\*escaped\\* star, and ***both***.
"""


def answer_to(question):
    """Pieces of reasoning, pieces of text, seconds between pieces, and how it ends."""
    canned = {"long story": (STORY, SLOW_S), "markdown": (MARKDOWN, FAST_S), "empty": ("", 0)}
    text, pause = next((answer for word, answer in canned.items() if word in question.lower()), (SHORT, FAST_S))
    reasoning = REASONING if "reason" in question else ""
    return pieces(reasoning), pieces(text), pause, "length" if "cut" in question else "stop"


def pieces(text):
    return re.findall(r"\s*\S+\s*|\s+", text)


def cluster_state(started, served):
    """Numbers that move, as those of a busy cluster of three do."""
    now = time.time() - started + 60
    wave = 0.5 + 0.5 * math.sin(now / 9)
    running = round(1 + 3 * wave)
    return {
        "model": MODELS[0], "fingerprint": "b3-7f3a91c2", "uptime_s": now,
        "nodes": [
            {"name": "root", "address": None, "state": "here", "share": 0.5, "memory_bytes": 9e8, "passes": int(now * 31), "compute_ms": 6.21, "network_ms": 0.8 + wave, "disk_ms": 0},
            {"name": "attic", "address": "10.0.0.2:9990", "state": "here", "share": 0.3, "memory_bytes": 5e8, "passes": int(now * 31), "compute_ms": 5.8, "network_ms": 1.2, "disk_ms": wave, "round_trip_ms": 0.31},
            {"name": "cellar", "address": "10.0.0.3:9990", "state": "out", "share": None, "passes": 412, "compute_ms": None},
        ],
        "requests": {"running": running, "waiting": max(0, running - 3), "slots": 4, "served": 17 + served, "refused": 0, "cancelled": 1},
        "tokens": {"prompt": int(now * 120), "prompt_cached": int(now * 80), "completion": int(now * 40)},
        "rates": {"prompt_tokens_per_s": 180 * wave * wave, "completion_tokens_per_s": 12 + 30 * wave, "batch_rows": running * 0.9},
        "network": {"sent_bytes": int(now * 3e6 + 2e7 * wave), "received_bytes": int(now * 1e6 + 1e7 * wave), "exchanging_ms": now * 90},
        "streaming": None,
        "kv": {"slots": 4, "slot_positions": CONTEXT, "bytes": 377_487_360, "cached_tokens": 5120},
        "events": [
            {"at": "2026-11-27T11:58:20Z", "what": "worker 10.0.0.3:9990 takes part"},
            {"at": "2026-11-27T12:00:00Z", "what": "lost worker 10.0.0.3:9990: no sign of life for 2 s"},
        ],
    }


class Mock(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port=0, page=PAGE, key=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.page, self.key, self.started = pathlib.Path(page), key, time.time()
        self.served = self.cancelled = 0
        self.models, self.refused, self.fields_missing = MODELS[:1], {}, False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, content_type, body, **headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reply_json(self, status, value, **headers):
        self.reply(status, "application/json", json.dumps(value).encode(), **headers)

    def reply_error(self, status, message, **headers):
        self.reply_json(status, {"error": {"message": message, "type": "server_error", "param": None, "code": None}}, **headers)

    def is_let_in(self):
        if self.server.key is None or self.headers["Authorization"] == f"Bearer {self.server.key}":
            return True
        self.reply_error(401, "This server wants a key.")
        return False

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/v1/models":
            if self.is_let_in():
                self.reply_json(200, {"object": "list", "data": [
                    {"id": model, "object": "model", "created": 1764244800, "owned_by": "dair", "context_length": CONTEXT, "system_fingerprint": "b3-7f3a91c2"}
                    for model in self.server.models]})
        elif path == "/cluster":
            if self.is_let_in():
                state = cluster_state(self.server.started, self.server.served)
                self.reply_json(200, {"nodes": [{}], "rates": {}, "events": [{}]} if self.server.fields_missing else state)
        else:
            self.reply_file("index.html" if path == "/" else path[1:])

    def reply_file(self, name):
        file = self.server.page / name
        if "/" in name or file.suffix not in TYPES or not file.is_file():
            return self.reply_error(404, f"There is no {self.path}.")
        self.reply(200, TYPES[file.suffix], file.read_bytes(), Cache_Control="no-cache")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.reply_error(404, f"There is no {self.path}.")
        if not self.is_let_in():
            return None
        question = request["messages"][-1]["content"]
        if "fail" in question:
            return self.reply_error(500, "The model has lost its thread.")
        if "busy" in question:
            self.server.refused[question] = not self.server.refused.get(question, False)
            if self.server.refused[question]:
                return self.reply_error(429, "All slots are taken.", Retry_After=str(RETRY_AFTER_S))
        try:
            self.stream(request, question)
            self.server.served += 1
        except (BrokenPipeError, ConnectionResetError):
            self.server.cancelled += 1
        self.close_connection = True

    def stream(self, request, question):
        reasoning, text, pause, finish = answer_to(question)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.send_chunk(request, {"role": "assistant", "content": ""})
        deltas = [{"reasoning_content": piece} for piece in reasoning] + [{"content": piece} for piece in text]
        for number, delta in enumerate(deltas):
            time.sleep(pause)
            self.send_chunk(request, delta)
            if number == 5 and "vanish" in question:
                return
            if number == 5 and "break" in question:
                return self.send({"error": {"message": "A worker was lost, and nobody is left.", "type": "server_error", "param": None, "code": None}})
        self.send_chunk(request, {}, finish)
        prompt = sum(len(pieces(message["content"])) for message in request["messages"])
        self.send({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": len(deltas), "total_tokens": prompt + len(deltas),
                                            "prompt_tokens_details": {"cached_tokens": 0}}})
        self.send("[DONE]")

    def send_chunk(self, request, delta, finish=None):
        self.send({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": request.get("model"),
                   "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def send(self, data):
        self.wfile.write(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())
        self.wfile.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--key")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    options = parser.parse_args()
    server = Mock(options.port, options.page, options.key)
    print(f"listening on {server.url}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
