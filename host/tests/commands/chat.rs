//! `dair chat` with its standard input from a pipe: lines, commands, conversations that are kept.

use crate::model::{Files, header};
use crate::run::{Outcome, dair_keeping};
use dair_core::format::Header;
use serde_json::Value;
use std::fs;

/// A model with room for a conversation, and a folder for what is kept of it.
struct Chat {
    files: Files,
    state: String,
}

impl Chat {
    fn new(seq_len: u32, seed: u64) -> Self {
        let files = Files::with(&Header { seq_len, ..header("tiny-llama") }, seed);
        let state = files.path("state");
        Self { files, state }
    }

    fn run(&self, input: &[u8], args: &[&str]) -> Outcome {
        let common = ["chat", "--model", &self.files.model, "--max-tokens", "6"];
        let cold: &[&str] = if args.contains(&"--temperature") { &[] } else { &["--temperature", "0"] };
        dair_keeping(&self.state, input, &[&common[..], cold, args].concat())
    }

    /// The answers to `input`; standard error must be as given.
    fn answers(&self, input: &[u8], args: &[&str], stderr: &str) -> Vec<String> {
        let outcome = self.run(input, &[args, &["--json"]].concat());
        assert_eq!((outcome.code, &outcome.stderr[..]), (Some(0), stderr), "{outcome:?}");
        let text =
            |line| serde_json::from_str::<Value>(line).expect("JSON")["text"].as_str().expect("a text").to_owned();
        outcome.stdout.lines().map(text).collect()
    }

    /// The conversations that were kept.
    fn kept(&self) -> Vec<Value> {
        kept(&self.state)
    }
}

/// The conversations that were kept in the folder `state`, the oldest first.
pub fn kept(state: &str) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(format!("{state}/dair/chats")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path.to_str().expect("UTF-8"))).collect()
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// What somebody said in a saved conversation.
pub fn said(chat: &Value, role: &str) -> Vec<String> {
    let messages = chat["messages"].as_array().expect("messages").iter();
    let said = messages.filter(|message| message["role"] == role).map(|message| message["content"].as_str());
    said.map(|text| text.expect("a text").to_owned()).collect()
}

#[test]
fn a_line_that_is_not_utf8_is_said_and_the_others_are_answered() {
    let chat = Chat::new(512, 5);
    let good = chat.answers(b"name a fruit\nand a tree\n", &[], "");
    let broken = chat.answers(b"name a fruit\r\ncaf\xe9\r\nand a tree", &[], "line 2: not UTF-8 at byte 4: left out\n");
    assert_eq!((good.len(), broken), (2, good));
}

#[test]
fn commands_are_no_questions() {
    let chat = Chat::new(512, 5);
    let saved = chat.files.path("chat.json");
    let input =
        format!("/system\n/system be brief\n/halp\none\n/save {saved}\n /help\n//help\n/quit\nnobody hears this\n");
    let stderr =
        "no system message\n/halp is no command: /help lists them, a blank before it sends the line to the model\n";
    assert_eq!(chat.answers(input.as_bytes(), &[], stderr).len(), 3);
    let file = read(&saved);
    assert_eq!((said(&file, "user"), said(&file, "system")), (vec!["one".to_owned()], vec!["be brief".to_owned()]));
    let sampling = &file["sampling"];
    assert_eq!(
        (&file["model"], &sampling["temperature"], &sampling["top_p"]),
        (&"m.m".into(), &0.0.into(), &0.9.into())
    );
    assert!(sampling["seed"].is_u64(), "{file}");
    assert_eq!(said(&chat.kept()[0], "user"), ["one", "/help", "/help"]);

    let help = chat.run(b"/help\n/stats\n", &[]);
    assert_eq!((help.code, &help.stdout[..]), (Some(0), ""), "{help:?}");
    for part in ["/retry", "/load FILE", "context", "0 of 512 positions", "memory"] {
        assert!(help.stderr.contains(part), "{part} is missing in {}", help.stderr);
    }
}

#[test]
fn a_conversation_goes_on_where_it_was_left() {
    let chat = Chat::new(512, 6);
    let saved = chat.files.path("chat.json");
    let whole = chat.answers(b"one\ntwo\n", &["--system", "be brief"], "");
    assert_eq!(chat.answers(format!("one\n/save {saved}\n").as_bytes(), &["--system", "be brief"], ""), whole[..1]);
    assert_eq!(chat.answers(b"two\n", &["--load", &saved], ""), whole[1..]);
    assert_eq!(chat.answers(format!("else\n/load {saved}\ntwo\n").as_bytes(), &[], "")[1..], whole[1..]);

    let chat = Chat { state: chat.files.path("other"), ..chat };
    chat.run(b"one\n", &["--system", "be brief"]);
    assert_eq!(chat.answers(b"two\n", &["--resume"], ""), whole[1..]);
    assert_eq!(chat.kept().iter().map(|chat| said(chat, "user").len()).collect::<Vec<_>>(), [1, 2]);
    let turns = chat.answers(b"/clear\nthree\n", &["--resume"], "");
    assert_eq!((turns.len(), said(&chat.kept()[2], "user")), (1, vec!["three".to_owned()]));
}

#[test]
fn a_question_asked_again_is_asked_once() {
    let chat = Chat::new(512, 7);
    let first = chat.answers(b"one\n/retry\n/retry\n", &[], "");
    assert_eq!(first, vec![first[0].clone(); 3]);
    assert_eq!(said(&chat.kept()[0], "user"), ["one"]);
    assert_eq!(said(&chat.kept()[0], "assistant"), [first[0].clone()]);
    // Drawn, not computed again.
    let drawn =
        chat.run(b"one\n/retry\n/retry\n/retry\n", &["--temperature", "2", "--seed", "1", "--quiet"]).quiet_success();
    let lines: std::collections::BTreeSet<_> = drawn.lines().collect();
    assert!(lines.len() > 1, "{drawn}");
    assert_eq!(chat.answers(b"/retry\n", &[], "nothing was asked yet\n"), [""; 0]);
}

#[test]
fn an_argument_is_the_first_question() {
    let chat = Chat::new(512, 8);
    let both = chat.answers(b"one\ntwo\n", &[], "");
    assert_eq!(chat.answers(b"two\n", &["one"], ""), both);
}

#[test]
fn nothing_is_left_on_disk_where_nothing_is_to_be() {
    let chat = Chat::new(512, 9);
    chat.answers(b"one\n", &["--no-history"], "");
    assert!(!fs::exists(&chat.state).expect("a folder"));
    chat.run(b"", &["--resume"]).refused(&["no conversation to resume", &chat.state]);
    chat.run(b"", &["--load", &chat.files.model]).refused(&["cannot load", &chat.files.model]);
    // What can't be kept is said, and the answers come.
    fs::write(&chat.state, "a file").expect("a file");
    let outcome = chat.run(b"one\ntwo\n", &["--quiet"]);
    assert_eq!((outcome.code, outcome.stderr.matches("not kept on disk").count()), (Some(0), 1), "{outcome:?}");
}

#[test]
fn a_full_context_stops_a_chat_or_drops_its_oldest_turns() {
    let chat = Chat::new(128, 10);
    let input = "tell me more about the sea\n".repeat(12);
    let stop = chat.run(input.as_bytes(), &["--quiet"]);
    assert_eq!(stop.code, Some(1));
    assert_eq!(stop.stderr.lines().count(), 1, "{}", stop.stderr);
    let kept = format!("{}/dair/chats/chat-", chat.state);
    for part in ["the context holds 128", "--max-seq-len", "--context-full drop", "--resume", &kept] {
        assert!(stop.stderr.contains(part), "{part} is missing in {}", stop.stderr);
    }
    let answered = said(&chat.kept()[0], "assistant").len();
    assert!((1..12).contains(&answered) && said(&chat.kept()[0], "user").len() == answered + 1);

    let chat = Chat { state: chat.files.path("other"), ..chat };
    let drop = ["--context-full", "drop", "--system", "be brief"];
    assert_eq!(chat.answers(input.as_bytes(), &drop, "").len(), 12);
    let kept = &chat.kept()[0];
    assert!((1..11).contains(&said(kept, "user").len()), "{kept}");
    assert_eq!(said(kept, "system"), ["be brief"]);
    // A question that is too long by itself stays too long.
    let long = "tell me more about the sea ".repeat(12);
    chat.run(long.as_bytes(), &drop).refused(&["the question alone needs", "128", "--max-seq-len"]);
}
