#!/usr/bin/env python3
"""The page of `dair serve` in a browser: page.py (URL | --mock) [--axe axe.min.js] [--shots FOLDER] [--only WORD] [--chromium FILE]

Talks with the page as somebody with a mouse, a keyboard, a telephone or a screen reader would, and prints a line per check. With --mock
the server is page_mock.py; of a real one, whose answers nobody knows, only those checks are made that need none. --axe is the file
axe.min.js of axe-core, for the rules of accessibility; --shots keeps pictures. Needs the Python package playwright, and a Chromium.
Exit code 1 where something is not so.
"""
import argparse, base64, contextlib, json, pathlib, re, sys, time

from playwright.sync_api import Error, sync_playwright

import page_mock

QUESTION = "What is the capital of France?"
LONG = "Write a very long story about the sea, in many chapters. Make it a long story, of a thousand words at least."
DESKTOP, PHONE = {"width": 1200, "height": 800}, {"width": 360, "height": 740}
PATIENCE_MS, ANSWER_MS = 5_000, 180_000
KEY = "sesame"
LARGEST_FILE = 1_000_000
# What a layout may shift, by the measure of the web vitals; 0.1 counts as good.
LARGEST_SHIFT = 0.02
# A rendering must cost less than a frame of a slow machine, with a long answer that grows at its end.
SLOWEST_UPDATE_MS = 30

# What a real model, which may never come to an end, is held to unless its answer is to be long.
SHORT_TOKENS = 48

ANSWERS, LAST = ".answer", ".answer:last-child"
# Everything that a browser says when it is not content, but for what the checks provoke.
HARMLESS = re.compile(r"Failed to load resource: the server responded with a status of (401|429|500)|net::ERR_INCOMPLETE_CHUNKED|net::ERR_CONNECTION")
WATCH = """
addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
window.shifted = 0;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => { if (!entry.hadRecentInput) window.shifted += entry.value; }))
  .observe({ type: "layout-shift", buffered: true });
window.announced = [];
addEventListener("DOMContentLoaded", () => {
  const announcer = document.getElementById("announcer");
  if (announcer) new MutationObserver(() => window.announced.push(announcer.textContent)).observe(announcer, { childList: true });
});
"""


class Failure(Exception):
    pass


def expect(is_so, what):
    if not is_so:
        raise Failure(what)


def keep_short(route):
    """Passes a request on, with a limit where it has none."""
    request = route.request.post_data_json
    if request["messages"][-1]["content"] != LONG:
        request.setdefault("max_tokens", SHORT_TOKENS)
    route.continue_(post_data=json.dumps(request))


class Visit:
    """A page of its own in a browser that has seen nothing yet."""

    def __init__(self, run, url, viewport, **context):
        self.run, self.url = run, url
        self.context = run.browser.new_context(viewport=viewport, **context)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(WATCH)
        if not run.mock:
            self.context.route("**/v1/chat/completions", keep_short)
        self.complaints, self.requests = [], []
        self.page = self.new_page()

    def new_page(self):
        page = self.context.new_page()
        page.on("console", lambda said: said.type in ("error", "warning") and self.complain(said.text))
        page.on("pageerror", lambda error: self.complain(str(error)))
        page.on("request", lambda request: request.method == "POST" and self.requests.append(request))
        return page

    def complain(self, text):
        if not HARMLESS.search(text):
            self.complaints.append(text)

    def until(self, expression, timeout=PATIENCE_MS, page=None):
        """Waits for what Playwright's own wait cannot: it evaluates in the page, which the policy forbids."""
        end = time.monotonic() + timeout / 1000
        while not (page or self.page).evaluate(expression):
            expect(time.monotonic() < end, f"waited in vain for {expression}")
            time.sleep(0.03)

    def open(self, path="/"):
        self.page.goto(self.url + path)
        if path == "/":
            self.until("document.querySelector('#question').placeholder !== 'Ask a question' || document.querySelector('dialog[open]') !== null")
        return self

    def send(self, text):
        self.page.fill("#question", text)
        self.page.press("#question", "Enter")

    def ask(self, text):
        self.send(text)
        return self.finish()

    def finish(self):
        self.page.wait_for_selector(f"{LAST}:not(.open)", timeout=ANSWER_MS)
        return self.text()

    def wait_for_words(self, words=5, timeout=ANSWER_MS):
        self.until(f"document.querySelector('{LAST} > .markdown')?.textContent.split(/\\s+/).length > {words}", timeout)

    def text(self):
        return self.page.inner_text(f"{LAST} > .markdown")

    def status(self):
        return self.page.inner_text(f"{LAST} .status")

    def count(self, selector):
        return self.page.locator(selector).count()

    def sent(self):
        """The last request's body."""
        return self.requests[-1].post_data_json

    def shot(self, name, **how):
        if self.run.shots:
            self.page.screenshot(path=self.run.shots / f"{name}.png", **how)

    def accessible(self, name):
        """No finding of axe-core that keeps somebody out."""
        if not self.run.axe:
            return
        self.page.evaluate(self.run.axe)
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        severe = [f"{finding['id']} at {finding['nodes'][0]['target']}" for finding in found if finding["impact"] in ("serious", "critical")]
        expect(not severe, f"{name}: {'; '.join(severe)}")


class Run:
    def __init__(self, browser, options, mock):
        self.browser, self.mock, self.shots = browser, mock, options.shots
        self.url = mock.url if mock else options.url.rstrip("/")
        self.axe = options.axe and options.axe.read_text()
        self.failed = self.made = 0

    @contextlib.contextmanager
    def visit(self, viewport=DESKTOP, url=None, **context):
        visit = Visit(self, url or self.url, viewport, **context)
        try:
            yield visit
            expect(not visit.complaints, f"the browser says: {visit.complaints[:3]}")
        finally:
            visit.context.close()

    def check(self, function):
        name = function.__name__.replace("_", " ")
        try:
            function(self)
            print(f"ok    {name}", flush=True)
        except (Failure, Error) as error:
            self.failed += 1
            print(f"FAIL  {name}: {str(error).splitlines()[0]}", flush=True)
        self.made += 1


CHECKS = []


def check(function):
    function.is_canned = False
    CHECKS.append(function)
    return function


def canned(function):
    """A check that needs an answer, or a failure, of which a real server knows nothing."""
    function.is_canned = True
    CHECKS.append(function)
    return function


# --- Conversations ---


@check
def a_question_is_answered(run):
    with run.visit() as visit:
        visit.open().shot("welcome")
        box = visit.page.locator(".field").bounding_box()
        expect(box["width"] > 600 and box["y"] + box["height"] < DESKTOP["height"], f"the question is at {box}")
        text = visit.ask(QUESTION)
        expect(text.strip(), "the answer is empty")
        sent = visit.sent()
        expect(sent["stream"] and sent["stream_options"]["include_usage"], f"asked with {sent}")
        expect(sent["messages"] == [{"role": "user", "content": QUESTION}], f"asked {sent['messages']}")
        expect("seed" not in sent and "temperature" not in sent, "settings are sent that nobody made")
        figures = visit.page.inner_text(f"{LAST} > footer .muted")
        expect(re.search(r"^\d[\d,]* tokens? · .*first token after \d", figures), f"figures are {figures!r}")
        expect(re.search(r"of [\d,]+ tokens", visit.page.inner_text("#context")), "the context is not shown")
        expect(visit.page.title().startswith(QUESTION), f"the title is {visit.page.title()!r}")
        visit.ask("And of Italy?")
        roles = [message["role"] for message in visit.sent()["messages"]]
        expect(roles == ["user", "assistant", "user"], f"the second request has {roles}")
        visit.shot("conversation")


@check
def text_grows_as_it_arrives(run):
    with run.visit() as visit:
        visit.open().send(LONG)
        lengths = []
        for words in (3, 15, 40):
            visit.wait_for_words(words)
            lengths.append(len(visit.text()))
        expect(lengths == sorted(set(lengths)), f"lengths were {lengths}")
        expect(visit.count(".answer.open") == 1, "the answer was complete before it grew")
        announced = visit.page.evaluate("announced")
        expect(announced == [], f"was read aloud while it grew: {announced}")
        visit.page.press("#question", "Escape")
        visit.finish()


@check
def a_finished_answer_is_announced(run):
    with run.visit() as visit:
        text = visit.open().ask(QUESTION)
        announced = visit.page.evaluate("announced")
        expect(len(announced) == 1 and announced[0].startswith("Answer: "), f"announced {announced}")
        expect(announced[0][8:40].split() == text[:32].split() or text.split()[0] in announced[0], f"announced {announced}")


@check
def an_answer_is_stopped_and_kept(run):
    for way in ("button", "Escape"):
        cancelled = run.mock and run.mock.cancelled
        with run.visit() as visit:
            visit.open().send(LONG)
            visit.wait_for_words()
            visit.page.fill("#question", "typed meanwhile")
            visit.page.press("#question", "Enter")
            expect(visit.count(ANSWERS) == 1 and visit.page.input_value("#question") == "typed meanwhile", "Enter sent in the middle of an answer")
            visit.page.click("#send") if way == "button" else visit.page.press("#question", "Escape")
            text = visit.finish()
            expect(visit.status() == "Stopped.", f"{way}: the status is {visit.status()!r}")
            visit.page.wait_for_timeout(300)
            expect(visit.text() == text != "", f"{way}: the text went on")
            expect(visit.page.get_attribute("#send", "aria-label") == "Send", f"{way}: nothing can be sent")
            visit.page.reload()
            expect(visit.text() == text and visit.status() == "Stopped.", f"{way}: not kept")
            expect(visit.page.input_value("#question") == "typed meanwhile", "what was typed is lost")
            if run.mock:
                expect(run.mock.cancelled > cancelled, f"{way}: the server was not told")


@check
def an_answer_is_regenerated(run):
    with run.visit() as visit:
        visit.open().ask(QUESTION)
        visit.ask("And of Italy?")
        asked = visit.sent()["messages"]
        visit.page.click(f"{LAST} .regenerate")
        visit.page.wait_for_selector(f"{LAST}.open, {LAST}:not(.open) > footer .muted:not(:empty)")
        visit.finish()
        expect(visit.sent()["messages"] == asked and len(visit.requests) == 3, "was not asked the same")
        expect(visit.count(ANSWERS) == 2, f"there are {visit.count(ANSWERS)} answers")
        expect(visit.count(".regenerate:visible") == 1, "more than the last can be regenerated")


@check
def an_earlier_question_is_edited(run):
    with run.visit() as visit:
        visit.open().ask(QUESTION)
        visit.ask("And of Italy?")
        edit = visit.page.locator(".question").first.get_by_role("button", name="Edit")
        edit.click()
        visit.page.keyboard.press("Escape")
        expect(visit.count(".bubble textarea") == 0 and visit.count(ANSWERS) == 2, "Escape did not leave the question alone")
        edit.click()
        visit.page.fill(".bubble textarea", "What is the capital of Spain?")
        visit.page.keyboard.press("Enter")
        visit.until("document.querySelectorAll('.answer').length === 1")
        visit.finish()
        expect(visit.sent()["messages"] == [{"role": "user", "content": "What is the capital of Spain?"}], f"asked {visit.sent()['messages']}")
        expect(visit.page.inner_text(".bubble") == "What is the capital of Spain?", "the old question is shown")


@check
def a_reload_in_the_middle_keeps_what_had_arrived(run):
    with run.visit() as visit:
        visit.open().send(LONG)
        visit.wait_for_words(20)
        seen = visit.text()
        visit.page.reload()
        visit.page.wait_for_selector(ANSWERS)
        kept = visit.text()
        expect(kept.startswith(seen[:-20]), f"{len(kept)} of {len(seen)} characters are left")
        expect(visit.status().startswith("Interrupted"), f"the status is {visit.status()!r}")
        visit.shot("interrupted")
        visit.page.locator(f"{LAST} .status").get_by_role("button", name="Regenerate").click()
        visit.wait_for_words()
        expect(visit.count(ANSWERS) == 1 and "Interrupted" not in visit.status(), "was not asked again")
        visit.page.press("#question", "Escape")
        visit.finish()


@check
def conversations_are_kept_renamed_deleted_and_brought_back(run):
    with run.visit() as visit:
        page = visit.open().page
        visit.ask(QUESTION)
        page.fill("#question", "a draft")
        page.click("#new")
        expect(page.input_value("#question") == "" and visit.count("article") == 0, "a new conversation is not empty")
        visit.ask("Name a colour.")
        expect(visit.count("#conversations li") == 2, "there are not two conversations")
        page.hover("#conversations li:first-child")
        page.locator("#conversations li").first.get_by_role("button", name="Rename").click()
        page.keyboard.type("Colours")
        page.keyboard.press("Enter")
        expect(page.inner_text("#title") == "Colours", "was not renamed")
        page.reload()
        names = page.locator("#conversations .name").all_inner_texts()
        expect(names == ["Colours", QUESTION], f"after a reload there are {names}")
        expect(visit.count("article") == 2, "the conversation is not open again")
        page.get_by_role("button", name="Delete “Colours”").click()
        expect(visit.count("#conversations li") == 1 and visit.count("article") == 0, "was not deleted")
        visit.shot("undo")
        page.get_by_role("button", name="Undo").click()
        expect(visit.count("#conversations li") == 2 and page.inner_text("#title") == "Colours", "did not come back")
        page.click(f"#conversations a:has-text('{QUESTION}')")
        expect(page.input_value("#question") == "a draft", "the draft is lost")
        page.go_back()
        visit.until("document.querySelector('#title').textContent === 'Colours'")


@check
def another_tab_sees_the_conversation(run):
    with run.visit() as visit:
        visit.open().ask(QUESTION)
        other = visit.new_page()
        other.goto(visit.page.url)
        other.wait_for_selector(ANSWERS)
        text = visit.ask("And of Italy?")
        visit.until("document.querySelectorAll('.answer').length === 2", page=other)
        visit.until("document.querySelector('.answer:last-child > footer .muted').textContent !== ''", page=other)
        expect(other.inner_text(f"{LAST} > .markdown") == text, "the other tab shows something else")


@check
def an_answer_goes_on_behind_another_conversation(run):
    with run.visit() as visit:
        page = visit.open().page
        visit.send(LONG)
        visit.wait_for_words()
        seen = visit.text()
        page.click("#new")
        expect(visit.count(".running") == 1, "the list does not say that there is an answer on its way")
        page.press("#question", "Escape")
        page.wait_for_timeout(500)
        page.locator("#conversations a").first.click()
        visit.wait_for_words(len(seen.split()) + 1)
        expect(visit.text().startswith(seen), "shows something else")
        page.press("#question", "Escape")
        visit.finish()


@check
def settings_are_kept_and_sent(run):
    with run.visit() as visit:
        page = visit.open().page
        page.click("#open-settings")
        for name, value in {"system": "Answer in one word.", "temperature": "0.5", "top_p": "0.9", "max_tokens": "16", "seed": "7"}.items():
            page.fill(f"#settings [name={name}]", value)
        visit.shot("settings")
        page.locator("#settings").get_by_role("button", name="Save").click()
        page.reload()
        visit.until("document.querySelector('#question').placeholder !== 'Ask a question'")
        page.click("#open-settings")
        expect(page.input_value("#settings [name=system]") == "Answer in one word.", "the system message is not kept")
        page.keyboard.press("Escape")
        visit.ask(QUESTION)
        sent = visit.sent()
        made = {name: sent.get(name) for name in ("temperature", "top_p", "max_tokens", "seed")}
        expect(made == {"temperature": 0.5, "top_p": 0.9, "max_tokens": 16, "seed": 7}, f"sent {made}")
        expect(sent["messages"][0] == {"role": "system", "content": "Answer in one word."}, f"sent {sent['messages']}")


@canned
def one_of_several_models_is_chosen(run):
    run.mock.models = page_mock.MODELS
    with run.visit() as visit:
        visit.open().page.select_option("#model", page_mock.MODELS[1])
        visit.page.reload()
        visit.until(f"document.querySelector('#question').placeholder === 'Ask {page_mock.MODELS[1]}'")
        visit.ask(QUESTION)
        expect(visit.sent()["model"] == page_mock.MODELS[1], f"asked {visit.sent()['model']}")
        visit.accessible("several models")
        visit.shot("models")
    run.mock.models = page_mock.MODELS[:1]


@check
def a_conversation_is_exported(run):
    with run.visit() as visit:
        visit.open().ask(QUESTION)
        exported = {}
        for kind in ("Markdown", "JSON"):
            visit.page.click("#export")
            with visit.page.expect_download() as download:
                visit.page.get_by_role("button", name=f"Export as {kind}").click()
            exported[kind] = pathlib.Path(download.value.path()).read_text(), download.value.suggested_filename
        expect(exported["Markdown"][1].endswith(".md") and QUESTION in exported["Markdown"][0], f"Markdown is {exported['Markdown']}")
        messages = json.loads(exported["JSON"][0])["messages"]
        expect([message["role"] for message in messages] == ["user", "assistant"] and messages[1]["text"], f"JSON has {messages}")


@check
def answers_and_code_are_copied(run):
    with run.visit(permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.open().ask("Show markdown: a Python function in a fenced code block.")
        visit.page.locator(LAST).get_by_role("button", name="Copy answer").click()
        copied = visit.page.evaluate("navigator.clipboard.readText()")
        expect(copied.strip(), "nothing was copied")
        if visit.count(f"{LAST} .code"):
            visit.page.locator(f"{LAST} .code").first.get_by_role("button", name="Copy code").click()
            code = visit.page.evaluate("navigator.clipboard.readText()")
            expect(code.strip() and all(line.strip() in copied for line in code.splitlines()) and "```" not in code, f"copied {code!r}")
        elif run.mock:
            raise Failure("there is no code")


# --- Files ---


def drop(page, kind, files):
    """Drops or pastes files, as a list of name and bytes."""
    encoded = [[name, base64.b64encode(data).decode()] for name, data in files]
    page.evaluate("""([kind, files]) => {
      const transfer = new DataTransfer();
      for (const [name, data] of files) transfer.items.add(new File([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], name));
      const event = kind === "paste"
        ? new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.querySelector("#question").dispatchEvent(event);
    }""", [kind, encoded])


@check
def text_files_are_attached(run):
    with run.visit() as visit:
        page = visit.open().page
        with page.expect_file_chooser() as chooser:
            page.click("#attach")
        chooser.value.set_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": "Käse\n```\nfence\n```\n".encode()})
        drop(page, "drop", [("dropped.rs", b"fn main() {}\n")])
        drop(page, "paste", [("pasted.py", b"pass\n")])
        visit.until("document.querySelectorAll('#attached li').length === 3")
        page.get_by_role("button", name="Take pasted.py away").click()
        visit.shot("attached")
        visit.ask("What is in these files?")
        content = visit.sent()["messages"][0]["content"]
        expect("notes.txt:\n````\nKäse\n```\nfence\n```\n````" in content, f"sent {content!r}")
        expect("dropped.rs:\n```\nfn main() {}\n```\n\nWhat is in these files?" in content, f"sent {content!r}")
        expect("pasted.py" not in content, "a file was sent that had been taken away")
        expect(visit.count(".bubble details") == 2 and visit.count("#attached li") == 0, "files are not shown with the question")


@check
def other_files_are_refused(run):
    with run.visit() as visit:
        page = visit.open().page
        page.fill("#question", "typed before")
        drop(page, "drop", [("photo.png", b"\x89PNG\r\n\x1a\n\0\0"), ("large.log", b"x" * (LARGEST_FILE + 1)), ("zeros.bin", b"a\0b")])
        page.wait_for_selector("#refusals p >> nth=2")
        lines = page.inner_text("#refusals")
        expect(all(name in lines for name in ("photo.png is no text file", "large.log has", "zeros.bin is no text")), f"says {lines!r}")
        expect(visit.count("#attached li") == 0 and page.input_value("#question") == "typed before", "something was attached, or lost")


# --- Trouble ---


@canned
def a_busy_server_is_asked_again(run):
    with run.visit() as visit:
        visit.open().send("Are you busy?")
        visit.page.wait_for_selector(f"{LAST} .status:has-text('Trying again in 2 s')")
        visit.shot("busy")
        visit.page.wait_for_selector(f"{LAST} .status:has-text('Trying again in 1 s')")
        expect(visit.finish() and len(visit.requests) == 2, f"asked {len(visit.requests)} times")


@canned
def waiting_for_a_busy_server_is_cancelled(run):
    with run.visit() as visit:
        visit.open().send("Are you busy now?")
        visit.page.locator(f"{LAST} .status").get_by_role("button", name="Cancel").click()
        visit.finish()
        visit.page.wait_for_timeout(page_mock.RETRY_AFTER_S * 1000 + 300)
        expect(len(visit.requests) == 1 and visit.status() == "Stopped.", f"asked {len(visit.requests)} times, {visit.status()!r}")


@canned
def an_error_is_a_line_and_can_be_tried_again(run):
    with run.visit() as visit:
        visit.open().ask("Please fail.")
        expect("The model has lost its thread." in visit.status(), f"says {visit.status()!r}")
        visit.shot("error")
        visit.accessible("an error")
        visit.page.locator(f"{LAST} .status").get_by_role("button", name="Try again").click()
        visit.finish()
        expect(len(visit.requests) == 2, "was not tried again")
        visit.ask("Never mind.")
        expect(visit.sent()["messages"][-1]["content"] == "Please fail.\n\nNever mind.", f"sent {visit.sent()['messages']}")


@canned
def an_error_in_the_middle_keeps_the_text(run):
    with run.visit() as visit:
        for question, why in [("Please break.", "A worker was lost"), ("Please vanish.", "before the answer did")]:
            text = visit.open().ask(question)
            expect(why in visit.status() and text.startswith("The capital"), f"{text!r}, {visit.status()!r}")
            visit.page.click("#new")


@canned
def an_answer_that_was_cut_says_so(run):
    with run.visit() as visit:
        visit.open().ask("Be cut, please.")
        expect("longest length" in visit.status(), f"says {visit.status()!r}")


@canned
def an_empty_answer_is_one(run):
    with run.visit() as visit:
        visit.open().ask("An empty one, please.")
        visit.ask("And now?")
        expect(visit.count(ANSWERS) == 2, "there are not two answers")


@canned
def reasoning_is_folded_away(run):
    with run.visit() as visit:
        visit.open().ask("Give a reason.")
        expect(not visit.page.is_visible(".reasoning strong"), "reasoning is not folded")
        visit.page.click(".reasoning summary")
        expect(visit.page.inner_text(".reasoning strong") == "Nothing", "reasoning is not shown")
        expect("The question is simple" not in visit.text(), "reasoning is in the answer")
        visit.shot("reasoning")


@canned
def a_key_is_asked_for(run):
    mock = page_mock.Mock(key=KEY).start()
    with run.visit(url=mock.url) as visit:
        page = visit.open().page
        page.wait_for_selector("#ask-key[open]")
        visit.accessible("the question for a key")
        page.get_by_role("button", name="Cancel").click()
        visit.send(QUESTION)
        page.fill("#ask-key [name=key]", KEY)
        page.keyboard.press("Enter")
        expect("Paris" in visit.finish(), "no answer with the key")
        expect(page.evaluate("localStorage.getItem('dair.key')") is None, "the key was remembered without consent")
        page.reload()
        visit.until("document.querySelector('#question').placeholder !== 'Ask a question'")
        page.click("#open-settings")
        page.check("#settings [name=remember]")
        page.locator("#settings").get_by_role("button", name="Save").click()
        expect(page.evaluate("localStorage.getItem('dair.key')") == KEY, "the key was not remembered")
        page.goto(visit.url + "/cluster.html")
        page.wait_for_selector("#nodes tr")
    mock.shutdown()


@check
def a_full_storage_is_a_line_and_loses_nothing(run):
    with run.visit() as visit:
        page = visit.open().page
        page.evaluate("""() => {
          for (let size = 1 << 22; size > 0; size >>= 1) {
            try { for (;;) localStorage.setItem(`filler${Math.random()}`, "x".repeat(size)); } catch { /* full */ }
          }
        }""")
        text = visit.ask(QUESTION)
        expect(text and page.is_visible("#storage-full"), "nobody says that the storage is full")
        visit.ask("And of Italy?")
        expect(visit.count(ANSWERS) == 2, "the conversation does not go on")
        page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('filler')).forEach((key) => localStorage.removeItem(key))")
        visit.ask("And of Spain?")
        expect(not page.is_visible("#storage-full"), "the line stays")
        page.reload()
        expect(visit.count(ANSWERS) == 3, "the conversation is not kept")


@check
def a_server_that_comes_late_is_found(run):
    with run.visit() as visit:
        visit.page.route("**/v1/models", lambda route: route.abort())
        visit.page.goto(visit.url)
        visit.page.wait_for_selector("#unreachable:has-text('out of reach')")
        visit.page.unroute("**/v1/models")
        visit.page.wait_for_selector("#unreachable", state="hidden")
        visit.complaints = [said for said in visit.complaints if "net::ERR_FAILED" not in said]


# --- Markdown ---

FRESH = """async (text) => {
  const { MarkdownView } = await import("/markdown.js");
  const body = document.createElement("div");
  new MarkdownView(body).update(text);
  return body.innerHTML.replaceAll(/<button.*?<\\/button>/g, "");
}"""
# Fed a few characters at a time, the view must end as one that was given the whole text; the last one to be asked while open, too.
GROWN = """async ([text, step]) => {
  const { MarkdownView } = await import("/markdown.js");
  const [grown, fresh] = [document.createElement("div"), document.createElement("div")];
  const view = new MarkdownView(grown);
  for (let end = 0; end <= text.length; end += step) {
    view.update(text.slice(0, end), true);
    fresh.replaceChildren();
    new MarkdownView(fresh).update(text.slice(0, end), true);
    if (grown.innerHTML !== fresh.innerHTML) return `differs after ${JSON.stringify(text.slice(0, end).slice(-60))}`;
  }
  view.update(text);
  fresh.replaceChildren();
  new MarkdownView(fresh).update(text);
  return grown.innerHTML === fresh.innerHTML ? "" : "differs at the end";
}"""
SLOWEST = """async (text) => {
  const { MarkdownView } = await import("/markdown.js");
  const body = document.createElement("div");
  document.body.append(body);
  const view = new MarkdownView(body);
  view.update(text, true);
  const times = [];
  for (let round = 0; round < 20; round += 1) {
    const start = performance.now();
    view.update(text += " more", true);
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[10];
}"""
NOTHING_DANGEROUS = "document.querySelectorAll('.markdown :is(img, script, iframe, b), .markdown a:not([href^=http], [href^=mailto])').length"
SAMPLES = {
    "**bold** _it_ __b__ `a*b`": "<p><strong>bold</strong> <em>it</em> <strong>b</strong> <code>a*b</code></p>",
    "***both*** **a*b**": "<p><em><strong>both</strong></em> <strong>a*b</strong></p>",
    "snake_case 2 * 3 * 4 5*x": "<p>snake_case 2 * 3 * 4 5*x</p>",
    "**重要:**文字": "<p><strong>重要:</strong>文字</p>",
    "`` a`b `` and `open": "<p><code>a`b</code> and `open</p>",
    "a\nb": "<p>a<br>b</p>",
    "# One #\ntext": "<h3>One</h3><p>text</p>",
    "#no heading": "<p>#no heading</p>",
    "a\n---\nb": "<p>a</p><hr><p>b</p>",
    "- a\n- b\n\n  c\n- d": "<ul><li><p>a</p></li><li><p>b</p><p>c</p></li><li><p>d</p></li></ul>",
    "3. a\n4. b": '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>',
    "1. a\n  - b\n2. c": '<ol start="1"><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ol>',
    "The year was\n1984. It was": "<p>The year was<br>1984. It was</p>",
    "> a\nb\n>> c": "<blockquote><p>a<br>b</p><blockquote><p>c</p></blockquote></blockquote>",
    "[a](https://b.c/d_e \"t\") [b](<mailto:x@y.z>)": '<p><a href="https://b.c/d_e" target="_blank" rel="noopener noreferrer">a</a> '
                                                     '<a href="mailto:x@y.z" target="_blank" rel="noopener noreferrer">b</a></p>',
    "(see https://a.b/c).": '<p>(see <a href="https://a.b/c" target="_blank" rel="noopener noreferrer">https://a.b/c</a>).</p>',
    "[a](javascript:alert(1)) [b](java\tscript:x) [1]": "<p>[a](javascript:alert(1)) [b](java\tscript:x) [1]</p>",
    "[a](JaVaScRiPt:alert) [b](//evil) [c](vbscript:x)": "<p>[a](JaVaScRiPt:alert) [b](//evil) [c](vbscript:x)</p>",
    "<img src=x onerror=y>": "<p>&lt;img src=x onerror=y&gt;</p>",
    "a<br>b": "<p>a<br>b</p>",
}


@canned
def markdown_becomes_nodes_and_markup_stays_text(run):
    for scheme in ("light", "dark"):
        with run.visit(color_scheme=scheme) as visit:
            visit.open().ask("Show all the markdown that you know.")
            page = visit.page
            for selector, count in {"h3": 1, "h4": 1, "h5": 1, "strong": 2, "em": 4, "del": 1, "hr": 1, "blockquote": 1, "tbody tr": 3, "td.center": 3,
                                    "td.right": 3, "ol": 2, "ol ul": 1, "ol ul ol li": 2, ".code": 2, "a": 3}.items():
                found = visit.count(f"{LAST} > .markdown {selector}")
                expect(found >= count, f"{found} of {selector} instead of {count}")
            labels = page.locator(f"{LAST} .code figcaption").all_inner_texts()
            expect([label.strip() for label in labels] == ["python", "html"], f"languages are {labels}")
            links = page.locator(f"{LAST} .markdown a").evaluate_all("(links) => links.map(({ href, rel }) => [href, rel])")
            expect(all(re.match("https://", href) and "noopener" in rel for href, rel in links), f"links are {links}")
            expect(page.evaluate(NOTHING_DANGEROUS) == 0 and page.title() != "owned", "an answer's markup became the page's")
            expect("<img src=x onerror=" in visit.text() and "<script>" in visit.text(), "markup is not shown as text")
            visit.accessible(f"a long answer, {scheme}")
            page.evaluate("document.querySelector('#scroll').scrollTop = 160")
            page.wait_for_timeout(100)
            visit.shot(f"markdown-{scheme}")
            page.set_viewport_size({"width": 1200, "height": 1700})
            page.wait_for_timeout(100)
            visit.shot(f"markdown-{scheme}-tall")


@check
def markdown_reads_as_it_was_meant(run):
    with run.visit() as visit:
        visit.open()
        for text, html in SAMPLES.items():
            found = visit.page.evaluate(FRESH, text)
            expect(found == html, f"{text!r} became {found}")


@check
def markdown_that_grows_ends_as_the_whole(run):
    texts = [page_mock.MARKDOWN, "a\n-\n-b\n\n- c\n\n-\n\n-d\n***\n1\n1.\n1. x\n\n   ```\n\ny\n```\nz | w\n|-|-\n| a | b\n\n> q\n>\nr"]
    with run.visit() as visit:
        visit.open()
        for text in [*texts, *SAMPLES]:
            differs = visit.page.evaluate(GROWN, [text, 1])
            expect(differs == "", differs)


@check
def long_and_odd_markdown_is_quick(run):
    texts = {
        "a long answer": page_mock.MARKDOWN * 100,
        "a long program": "```\n" + "    let x = 1;\n" * 10_000,
        "stars": "*a " * 3_000, "closing stars": "a* " * 3_000, "backticks": "".join("`" * n + " " for n in range(150)) * 2, "brackets": "[" * 5_000 + "]" * 5_000,
        "quotes": "> " * 3_000, "lists": "\n".join(" " * n + "- a" for n in range(300)), "spaces": "# a" + " " * 5_000 + "b", "pipes": "|" * 5_000 + "\n" + "|-" * 2_500,
    }
    with run.visit() as visit:
        visit.open()
        times = {name: visit.page.evaluate(SLOWEST, text) for name, text in texts.items()}
        slow = {name: f"{ms:.0f} ms" for name, ms in times.items() if ms > SLOWEST_UPDATE_MS}
        expect(not slow, f"an update takes {slow}")


# --- Looks and access ---


def colours(page):
    return page.evaluate("[getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(document.body).color]")


@check
def themes_follow_the_system_and_the_switch(run):
    seen = {}
    for scheme in ("light", "dark"):
        with run.visit(color_scheme=scheme) as visit:
            page = visit.open().page
            seen[scheme] = colours(page)
            for theme in ("light", "dark"):
                page.click(".theme-switch")
                expect(page.evaluate("document.documentElement.dataset.theme") == theme, "the switch does nothing")
            expect(visit.page.inner_text(".theme-switch") == "Theme: dark", "the switch does not say what it is at")
            page.reload()
            seen[f"dark on {scheme}"] = colours(page)
    expect(seen["light"] != seen["dark"] == seen["dark on light"] == seen["dark on dark"], f"colours are {seen}")


@check
def nothing_keeps_anybody_out(run):
    for scheme in ("light", "dark"):
        with run.visit(color_scheme=scheme) as visit:
            visit.open().accessible(f"welcome, {scheme}")
            drop(visit.page, "drop", [("notes.txt", b"text"), ("zeros.bin", b"a\0b")])
            visit.page.wait_for_selector("#refusals p")
            visit.accessible(f"files, {scheme}")
            visit.ask(QUESTION)
            visit.accessible(f"conversation, {scheme}")
            visit.shot(f"conversation-{scheme}")
            visit.page.get_by_role("button", name="Edit").first.click()
            visit.accessible(f"editing, {scheme}")
            visit.page.keyboard.press("Escape")
            visit.page.click("#export")
            visit.accessible(f"export, {scheme}")
            visit.page.keyboard.press("Escape")
            visit.page.click("#open-settings")
            visit.accessible(f"settings, {scheme}")
            visit.shot(f"settings-{scheme}")


@check
def a_telephone_is_wide_enough(run):
    with run.visit(PHONE, has_touch=True, is_mobile=True) as visit:
        page = visit.open().page
        visit.shot("phone-welcome")
        fits = f"document.documentElement.scrollWidth === {PHONE['width']} && document.querySelector('#scroll').scrollWidth <= document.querySelector('#scroll').clientWidth"
        expect(page.evaluate(fits), "the empty page is too wide")
        page.fill("#question", "Show markdown, please: a table and a program. " + "Donaudampfschifffahrtsgesellschaft" * 3)
        page.click("#send")
        visit.finish()
        expect(page.evaluate(fits), "the conversation is too wide")
        visit.shot("phone")
        expect(not page.is_visible("#sidebar"), "the drawer is open")
        page.click("#open-drawer")
        page.wait_for_timeout(300)
        expect(page.is_visible("#sidebar"), "the drawer does not open")
        visit.shot("phone-drawer")
        visit.accessible("the drawer")
        page.keyboard.press("Escape")
        page.wait_for_selector("#sidebar", state="hidden")
        expect(page.evaluate("document.activeElement.id") == "open-drawer", "focus is lost with the drawer")
        page.click("#open-drawer")
        page.click("#conversations a")
        page.wait_for_selector("#sidebar", state="hidden")
        page.goto(visit.url + "/cluster.html")
        page.wait_for_selector("#nodes tr")
        expect(page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], "the cluster page is too wide")
        page.wait_for_timeout(2500)
        visit.shot("phone-cluster", full_page=True)


@check
def a_keyboard_is_enough(run):
    with run.visit() as visit:
        page = visit.open().page
        focused = "document.activeElement === document.body ? '' : document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.textContent"

        def tab_to(what, most=40):
            for _ in range(most):
                page.keyboard.press("Tab")
                if what in page.evaluate(focused):
                    return
            raise Failure(f"no Tab leads to {what!r}")

        page.evaluate("document.activeElement.blur()")
        tab_to("skip")
        page.keyboard.press("Enter")
        expect(page.evaluate(focused) == "question", "the first link does not lead to the question")
        page.keyboard.type("One line")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("and another")
        expect(page.input_value("#question") == "One line\nand another", "Shift+Enter makes no line")
        page.evaluate("""document.querySelector("#question").dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))""")
        expect(visit.count("article") == 0, "choosing a word sent the question")
        page.keyboard.press("Enter")
        visit.finish()
        expect(page.evaluate(focused) == "question", "focus left the question")
        tab_to("new")
        page.keyboard.press("Enter")
        visit.until("document.querySelector('article') === null")
        tab_to("open-settings")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(visit.count("dialog[open]") == 0 and page.evaluate(focused) == "open-settings", "the settings do not give focus back")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        tab_to("open-settings")
        for _ in range(8):
            page.keyboard.press("Shift+Tab")
            if "Delete" in page.evaluate(focused):
                break
        page.keyboard.press("Enter")
        expect(page.evaluate(focused) == "Undo", "no way back by keyboard")
        page.keyboard.press("Enter")
        expect(visit.count("article") == 2, "the conversation did not come back")
        outline = page.evaluate("""() => {
          document.querySelector("#new").focus();
          return getComputedStyle(document.querySelector("#new")).outlineStyle;
        }""")
        expect(outline != "none", "focus cannot be seen")


@check
def the_end_is_followed_until_somebody_scrolls_up(run):
    with run.visit({"width": 900, "height": 420}) as visit:
        page = visit.open().page
        left = "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)(document.querySelector('#scroll'))"
        visit.send(LONG)
        visit.until("document.querySelector('#scroll').scrollTop > 60", ANSWER_MS)
        expect(page.evaluate(left) < 5, "the end is not followed")
        page.hover("#scroll")
        page.mouse.wheel(0, -150)
        page.wait_for_selector("#to-end", state="visible")
        top, height = page.evaluate("[document.querySelector('#scroll').scrollTop, document.querySelector('#scroll').scrollHeight]")
        visit.until(f"document.querySelector('#scroll').scrollHeight > {height} + 20", ANSWER_MS)
        expect(abs(page.evaluate("document.querySelector('#scroll').scrollTop") - top) < 2, "the page scrolled under the reader")
        visit.shot("jump")
        page.click("#to-end")
        page.wait_for_selector("#to-end", state="hidden")
        page.wait_for_timeout(300)
        expect(page.evaluate(left) < 5, "the end is not followed again")
        page.press("#question", "Escape")
        visit.finish()


@check
def nothing_shifts(run):
    with run.visit() as visit:
        visit.open().ask(QUESTION)
        visit.page.reload()
        visit.page.wait_for_timeout(500)
        shifted = visit.page.evaluate("shifted")
        expect(shifted < LARGEST_SHIFT, f"the layout shifts by {shifted:.3f}")


@check
def who_wants_no_motion_gets_none(run):
    with run.visit(reduced_motion="reduce") as visit:
        visit.open().send(LONG)
        visit.page.wait_for_selector(".answer")
        moving = visit.page.evaluate("document.getAnimations().length")
        expect(moving == 0, f"{moving} things move")
        visit.page.press("#question", "Escape")
        visit.finish()


# --- The cluster page ---


@check
def the_cluster_page_shows_numbers(run):
    for scheme in ("light", "dark"):
        with run.visit(color_scheme=scheme) as visit:
            page = visit.open("/cluster.html").page
            page.wait_for_selector("#nodes tr")
            page.wait_for_timeout(12_000 if run.shots else 3_000)
            expect(page.inner_text("#model").strip() not in ("", "–"), "the model has no name")
            expect(re.search(r"\d", page.inner_text("#big")), "there are no numbers")
            expect(re.search(r"[ML]\d", page.get_attribute(".plot path", "d")), "nothing is drawn")
            words = page.get_attribute(".plot svg", "aria-label")
            expect(re.search(r"now [\d.,]+, between", words), f"a plot says {words!r}")
            visit.accessible(f"cluster, {scheme}")
            visit.shot(f"cluster-{scheme}", full_page=True)


@canned
def the_cluster_page_knows_its_cluster(run):
    with run.visit() as visit:
        page = visit.open("/cluster.html").page
        page.wait_for_selector("#nodes tr")
        expect(page.locator("#nodes tr").all_inner_texts()[2].split() [:3] == ["cellar", "10.0.0.3:9990", "out"], "the nodes are others")
        events = page.locator("#events li").all_inner_texts()
        expect("lost worker" in events[0] and "takes part" in events[1], f"events are {events}")


@canned
def missing_fields_are_dashes(run):
    run.mock.fields_missing = True
    with run.visit() as visit:
        page = visit.open("/cluster.html").page
        page.wait_for_selector("#nodes tr")
        page.wait_for_timeout(1500)
        said = page.inner_text("main")
        expect("–" in said and not re.search("NaN|undefined|null|Infinity", said), f"the page says {said!r}")
    run.mock.fields_missing = False


@check
def nobody_is_asked_while_nobody_looks(run):
    with run.visit() as visit:
        page = visit.open("/cluster.html").page
        page.wait_for_selector("#nodes tr")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"
        page.evaluate(hide, True)
        page.wait_for_timeout(300)
        asked.clear()
        page.wait_for_timeout(2500)
        expect(asked == [], f"asked {len(asked)} times behind another tab")
        page.evaluate(hide, False)
        page.wait_for_timeout(1500)
        expect(1 <= len(asked) <= 3, f"asked {len(asked)} times in 1.5 s")


@check
def the_policy_is_strict(run):
    with run.visit() as visit:
        policy = visit.page.goto(visit.url).headers.get("content-security-policy", "")
        expect("default-src 'self'" in policy and "unsafe" not in policy, f"the policy is {policy!r}")
        for path, kind in {"/app.js": "javascript", "/style.css": "css", "/icon.svg": "svg", "/cluster.html": "html"}.items():
            found = visit.context.request.get(visit.url + path).headers["content-type"]
            expect(kind in found, f"{path} is {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url", nargs="?", metavar="URL")
    parser.add_argument("--mock", action="store_true")
    parser.add_argument("--axe", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--only", default="", help="checks with this in their names")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    if bool(options.url) == options.mock:
        parser.error("a URL or --mock")
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    mock = page_mock.Mock().start() if options.mock else None
    start = time.monotonic()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        run = Run(browser, options, mock)
        for made in CHECKS:
            if options.only.replace("_", " ") in made.__name__.replace("_", " ") and (mock or not made.is_canned):
                run.check(made)
        browser.close()
    print(f"{run.made - run.failed} of {run.made} checks in {time.monotonic() - start:.0f} s")
    sys.exit(1 if run.failed or not run.made else 0)


if __name__ == "__main__":
    main()
