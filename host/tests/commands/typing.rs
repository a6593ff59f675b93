//! `dair chat` on a terminal: what is typed and pasted, and the keys that end something.

use crate::chat::{kept, said};
use crate::model::{Files, header};
use crate::network::Worker;
use crate::run::dair;
use crate::screen::Screen;
use dair_core::format::Header;
use dair_core::quant::DType;
use serde_json::Value;
use std::fs;
use std::thread;
use std::time::Duration;

/// The prompt, ready for a question.
const PROMPT: &str = "> \u{1b}[0m";

/// A chat on a terminal.
struct Chat {
    files: Files,
    screen: Screen,
}

impl Chat {
    fn new(args: &[&str]) -> Self {
        Self::with(files(1), args)
    }

    fn with(files: Files, args: &[&str]) -> Self {
        let common = ["chat", "--model", &files.model, "--temperature", "0"];
        let mut screen = Screen::new(&files.path("state"), &[&common[..], args].concat());
        screen.wait_for(PROMPT);
        Self { files, screen }
    }

    /// Types and waits for the end of the answer.
    fn ask(&mut self, bytes: impl AsRef<[u8]>) {
        self.screen.send(bytes);
        self.screen.wait_for("decode ");
        self.screen.wait_for(PROMPT);
    }

    /// The questions so far, as the model got them.
    fn questions(&mut self) -> Vec<String> {
        let path = self.files.path("chat.json");
        self.screen.send(format!("/save {path}\r"));
        self.screen.wait_for("saved in ");
        self.screen.wait_for(PROMPT);
        let chat: Value = serde_json::from_slice(&fs::read(path).expect("it was saved")).expect("JSON");
        said(&chat, "user")
    }
}

/// A model with room for a long conversation.
fn files(seed: u64) -> Files {
    Files::with(&Header { seq_len: 16_384, ..header("tiny-llama") }, seed)
}

/// A model that says as much as it may.
fn talkative() -> Files {
    let talks = |files: &Files| {
        let args = ["chat", "--model", &files.model, "--temperature", "0", "--max-tokens", "400", "--json", "one"];
        dair(&args).json()["finish_reason"] == "length"
    };
    (1..100).map(files).find(talks).expect("one of 100 models has a lot to say")
}

#[test]
fn what_is_pasted_is_one_question_whether_the_terminal_marks_it_or_not() {
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    chat.screen.send("\u{1b}[200~Sum up:\rone\r\ttwo\u{1b}[201~");
    chat.screen.wait_for("\ttwo");
    chat.ask("\r");
    chat.ask("Sum up:\nthree\n\n\tfour\n");
    // What a script writes at once is cut at its commands.
    chat.screen.send("five\nsix\n/stats\nseven\n");
    chat.screen.wait_for("decode ");
    chat.screen.wait_for("in the conversation");
    chat.screen.wait_for("positions");
    chat.screen.wait_for("tokens/s; ");
    chat.screen.wait_for(PROMPT);
    assert_eq!(chat.questions(), ["Sum up:\none\n\ttwo", "Sum up:\nthree\n\n\tfour", "five\nsix", "seven"]);
}

#[test]
fn several_lines_can_be_typed() {
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    // As by hand: each key when what came before is seen, and not at once.
    let mut slowly = |keys: &[&str]| {
        for key in keys {
            chat.screen.send(key);
            chat.screen.wait_for(if key.ends_with('\r') { "\n" } else { key });
            thread::sleep(Duration::from_millis(100));
        }
        chat.screen.send("\r");
        chat.screen.wait_for("decode ");
        chat.screen.wait_for(PROMPT);
    };
    slowly(&["one\\", "\r", "two", "\u{1b}\r", "three"]);
    slowly(&["\"\"\"", "\r", "/help", "\r", "me\"\"\""]);
    assert_eq!(chat.questions(), ["one\ntwo\nthree", "/help\nme"]);
}

#[test]
fn a_long_line_arrives_whole() {
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    let line = format!("{}END", "word ".repeat(1200));
    chat.ask(format!("{line}\r"));
    assert_eq!(chat.questions(), [line]);
}

#[test]
fn a_paste_that_would_flood_the_screen_is_noted_and_arrives_whole() {
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    // More rows than the line editor can count.
    let text = "\n".repeat(70_000) + "END";
    chat.screen.send("Sum up: ");
    chat.screen.send(format!("\u{1b}[200~{text}\u{1b}[201~"));
    chat.screen.wait_for("[paste 1: 70001 lines, 70003 bytes]");
    chat.screen.send("\r");
    // More than the model can take, as the chat says.
    chat.screen.wait_for("the question alone needs ");
    chat.screen.wait_for(PROMPT);
    chat.screen.send("\u{1b}[200~");
    chat.screen.send("word ".repeat(2000));
    chat.screen.send("\u{1b}[201~");
    chat.screen.wait_for("[paste 1: 1 lines, 10000 bytes]");
    chat.ask("\r");
    assert_eq!(chat.questions(), ["word ".repeat(2000).trim()]);
    // Without marks there is no end of it.
    chat.screen.send("x".repeat(70_000));
    chat.screen.wait_for("through a pipe");
    chat.screen.wait_for(PROMPT);
}

#[test]
fn what_is_typed_before_the_prompt_waits_for_it_whole() {
    let files = files(1);
    let args = ["chat", "--model", &files.model, "--temperature", "0", "--max-tokens", "4"];
    let mut screen = Screen::new(&files.path("state"), &args);
    screen.wait_until_hushed();
    let line = "word ".repeat(1200);
    screen.send(format!("{line}\r"));
    screen.wait_for("decode ");
    screen.wait_for(PROMPT);
    let mut chat = Chat { files, screen };
    assert_eq!(chat.questions(), [line.trim()]);
}

#[test]
fn bytes_that_are_not_utf8_do_not_end_a_chat() {
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    chat.screen.send("one");
    chat.screen.wait_for("one");
    chat.screen.send(b"\xe9 ");
    chat.screen.wait_for("not UTF-8");
    chat.screen.wait_for("one");
    chat.ask("\r");
    let paste = [b"\x1b[200~caf\xe9\rmore ", &[b'x'; 6000][..], b"\r\x1b[201~"].concat();
    chat.screen.send(paste);
    chat.screen.wait_for("not UTF-8");
    chat.screen.wait_for(PROMPT);
    chat.ask("caf\u{e9}\u{7f}e\r");
    assert_eq!(chat.questions(), ["one", "cafe"]);
}

#[test]
fn commands_are_completed_and_not_sent() {
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    chat.screen.send("/he\t\r");
    chat.screen.wait_for("arrows walk");
    chat.screen.wait_for(PROMPT);
    chat.screen.send("/halp\r");
    chat.screen.wait_for("/halp is no command");
    chat.screen.wait_for(PROMPT);
    assert_eq!(chat.questions(), [""; 0]);
    chat.screen.send("exit\r");
    assert_eq!(chat.screen.end(), Some(0));
}

#[test]
fn an_earlier_line_comes_back_and_the_history_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let mut chat = Chat::new(&["--max-tokens", "4"]);
    chat.ask("one\r");
    chat.screen.send("\u{4}");
    assert_eq!(chat.screen.end(), Some(0));
    let history = chat.files.path("state/dair/chat-history");
    assert_eq!(fs::metadata(&history).expect("a file").permissions().mode() & 0o777, 0o600);
    let mut chat = Chat::with(chat.files, &["--max-tokens", "4", "--no-history"]);
    chat.screen.send("\u{1b}[A\r");
    chat.screen.wait_for(PROMPT);
    assert_eq!(chat.questions(), [""; 0]);
    assert!(!fs::read_to_string(&history).expect("UTF-8").contains("save"));
    let mut chat = Chat::with(chat.files, &["--max-tokens", "4"]);
    chat.ask("\u{1b}[A\r");
    assert_eq!(chat.questions(), ["one"]);
}

#[test]
fn ctrl_c_ends_an_answer_or_clears_a_line_and_ctrl_d_ends_the_chat() {
    let mut chat = Chat::with(talkative(), &[]);
    chat.screen.send("one\r");
    chat.screen.wait_for("one");
    chat.screen.wait_for_bytes(200);
    chat.screen.send("\u{3}");
    chat.screen.wait_for("interrupted");
    chat.screen.wait_for(PROMPT);
    chat.screen.send("thrown away");
    chat.screen.wait_for("away");
    chat.screen.send("\u{3}");
    chat.screen.wait_for(PROMPT);
    chat.screen.send("\u{3}");
    chat.screen.wait_for("Ctrl-D or /exit ends the chat");
    chat.screen.wait_for(PROMPT);
    assert_eq!(chat.questions(), ["one"]);
    chat.screen.send("\u{4}");
    chat.screen.wait_for("dair chat --resume");
    assert_eq!(chat.screen.end(), Some(0));
    assert!(chat.screen.is_as_found());
}

#[test]
fn a_chat_that_is_killed_in_an_answer_has_kept_the_question() {
    let mut chat = Chat::with(talkative(), &[]);
    chat.screen.send("one\r");
    chat.screen.wait_for("one");
    chat.screen.wait_for_bytes(200);
    drop(chat.screen);
    assert_eq!(said(&kept(&chat.files.path("state"))[0], "user"), ["one"]);
}

#[test]
fn a_full_context_is_offered_to_be_emptied() {
    let files = Files::with(&Header { seq_len: 128, ..header("tiny-llama") }, 10);
    let mut chat = Chat::with(files, &["--max-tokens", "6"]);
    let question = "tell me more about the sea";
    let mut asked = 0;
    while !chat.screen.text().contains("[y/n]") && asked < 12 {
        chat.screen.send(format!("{question}\r"));
        chat.screen.wait_for("; ");
        asked += 1;
        if !chat.screen.text().contains("[y/n]") {
            chat.screen.wait_for("128 positions");
            chat.screen.wait_for(PROMPT);
        }
    }
    chat.screen.wait_for("[y/n]");
    chat.ask("y\r");
    for _ in 0..6 {
        chat.ask(format!("{question}\r"));
    }
    assert_eq!(chat.screen.text().matches("[y/n]").count(), 1);
    assert!(chat.questions().len() < asked + 6);
}

#[test]
fn a_lost_worker_does_not_take_the_conversation_with_it() {
    let worker = Worker::start();
    let address = worker.address.clone();
    let files = Files::with(&Header { seq_len: 512, weights: DType::F32, ..header("tiny-llama") }, 1);
    let mut chat = Chat::with(files, &["--max-tokens", "4", "--workers", &address]);
    chat.ask("one\r");
    worker.stop();
    chat.screen.send("two\r");
    chat.screen.wait_for("/retry asks again");
    chat.screen.wait_for(PROMPT);
    chat.screen.send("three\r");
    chat.screen.wait_for("cannot connect to worker");
    chat.screen.wait_for(PROMPT);
    assert_eq!(chat.questions(), ["one", "three"]);
    let worker = Worker::start_at(&address);
    chat.ask("/retry\r");
    chat.ask("four\r");
    assert_eq!(chat.questions(), ["one", "three", "four"]);
    worker.stop();
    chat.screen.send("five\r");
    chat.screen.wait_for("/retry asks again");
    chat.screen.wait_for(PROMPT);
    chat.screen.send("\u{4}");
    chat.screen.wait_for("the conversation is kept in ");
    assert_eq!(chat.screen.end(), Some(1));
    let mut chat = Chat::with(chat.files, &["--max-tokens", "4", "--resume"]);
    assert!(chat.screen.text().contains("/retry asks it again"), "{}", chat.screen.text());
    chat.ask("/retry\r");
    assert_eq!(chat.questions(), ["one", "three", "four", "five"]);
}
