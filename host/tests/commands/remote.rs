//! `dair chat --server`: answers of a server, what becomes of a conversation where there are none, and what a terminal shows.

use crate::chat::{kept, said};
use crate::model::{Files, header};
use crate::run::{Outcome, dair, dair_keeping, dair_knowing, dair_reading};
use crate::screen::Screen;
use crate::server::{DONE, MORE, Scripted, Server, models, response, stream};
use dair_core::format::Header;
use serde_json::{Value, json};

fn files(seed: u64) -> Files {
    Files::with(&Header { seq_len: 512, ..header("tiny-llama") }, seed)
}

/// The texts of answers in JSON.
fn texts(outcome: Outcome) -> Vec<String> {
    let text = |line| serde_json::from_str::<Value>(line).expect("JSON")["text"].as_str().expect("a text").to_owned();
    outcome.quiet_success().lines().map(text).collect()
}

#[test]
fn a_server_answers_as_the_model_does_here() {
    let files = files(4);
    let server = Server::start(&files, &[]);
    let here = ["chat", "--model", &files.model, "--template", "chatml", "--threads", "1", "--no-history"];
    let (url, there) = (server.url(), ["chat", "--no-history", "--server"]);
    let there = [&there[..], &[&url]].concat();
    let input = "name a fruit\n/retry\nand a tree\n";
    let both = |flags: &[&str], input: &str| {
        let run = |who: &[&str]| texts(dair_reading(input, &[who, flags, &["--json", "--max-tokens", "8"]].concat()));
        let (want, got) = (run(&here), run(&there));
        assert_eq!(got, want, "{flags:?}");
        want
    };
    let greedy = both(&["--temperature", "0", "--system", "be brief"], input);
    both(&["--temperature", "0.9", "--top-p", "0.8", "--seed", "7"], "name a fruit\n");
    // Answers that are drawn again are other ones, and always the same other ones.
    let drawn = || texts(dair_reading(input, &[&there[..], &["--temperature", "2", "--seed", "1", "--json"]].concat()));
    let (first, second) = (drawn(), drawn());
    assert!(first == second && first[0] != first[1], "{first:?}");

    let flags = ["--quiet", "--temperature", "0", "--max-tokens", "8", "--system", "be brief", "name a fruit"];
    assert_eq!(dair(&[&there[..], &flags].concat()).quiet_success(), format!("{}\n", greedy[0]));
    let object = dair(&[&there[..], &["--json", "--max-tokens", "3", "--seed", "5", "hi"]].concat()).json();
    assert_eq!((&object["finish_reason"], &object["generated_tokens"]), (&"length".into(), &3.into()));
    assert_eq!((&object["seed"], &object["model"], &object["server"]), (&5.into(), &"m".into(), &url.into()));
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_conversation_with_a_server_is_kept_and_gone_on_with() {
    let files = files(5);
    let server = Server::start(&files, &[]);
    let (url, state) = (server.url(), files.path("state"));
    let run = |input: &str, flags: &[&str]| {
        let common = ["chat", "--server", &url, "--temperature", "0", "--max-tokens", "6"];
        dair_keeping(&state, input.as_bytes(), &[&common[..], flags].concat())
    };
    let whole = texts(run("one\ntwo\n", &["--json", "--system", "be brief"]));
    assert_eq!(said(&kept(&state)[0], "user"), ["one", "two"]);
    assert_eq!((&kept(&state)[0]["model"], said(&kept(&state)[0], "assistant")), (&"m".into(), whole.clone()));
    let saved = files.path("chat.json");
    texts(run(&format!("one\n/save {saved}\n"), &["--json", "--system", "be brief"]));
    assert_eq!(texts(run("two\n", &["--json", "--resume"])), whole[1..]);
    assert_eq!(texts(run("two\n", &["--json", "--load", &saved])), whole[1..]);
    let stats = run("one\n/stats\n", &[]);
    for part in ["first words after", " of 512 positions", &url, "1, 2 messages"] {
        assert!(stats.stderr.contains(part), "{part} is missing in {}", stats.stderr);
    }
}

#[test]
fn a_full_context_of_a_server_stops_a_chat_or_drops_its_oldest_turns() {
    let files = Files::with(&Header { seq_len: 128, ..header("tiny-llama") }, 10);
    let server = Server::start(&files, &[]);
    let (url, state) = (server.url(), files.path("state"));
    let input = "tell me more about the sea\n".repeat(8);
    let run = |input: &str, flags: &[&str]| {
        let common = ["chat", "--server", &url, "--max-tokens", "6", "--quiet"];
        dair_keeping(&state, input.as_bytes(), &[&common[..], flags].concat())
    };
    let stop = run(&input, &[]);
    assert_eq!((stop.code, stop.stderr.lines().count()), (Some(1), 1), "{stop:?}");
    assert!(stop.stderr.contains("--context-full drop") && stop.stderr.contains("--resume"), "{stop:?}");
    assert_eq!(run(&input, &["--context-full", "drop"]).code, Some(0));
    let long = "tell me more about the sea ".repeat(12);
    run(&long, &["--context-full", "drop"]).refused(&["the question alone is longer than the server's context"]);
}

#[test]
fn who_can_not_be_asked_is_one_line() {
    dair(&["chat", "--server", "http://127.0.0.1:1", "hi"]).refused(&["cannot reach http://127.0.0.1:1", "refused"]);
    let scripted = |answers: Vec<String>, flags: &[&str]| {
        let server = Scripted::new(answers);
        dair(&[&["chat", "--no-history", "--server", &server.url], flags].concat())
    };
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>".to_owned();
    scripted(vec![page.clone()], &["hi"]).refused(&["/v1/models", "no JSON", "is that the right URL?"]);
    scripted(vec!["SSH-2.0-box\r\n\r\n".into()], &["hi"]).refused(&["does not speak HTTP"]);
    scripted(vec![models(&["a", "b"])], &["hi"]).refused(&["several models", "--name", "a, b"]);
    scripted(vec![models(&[])], &["hi"]).refused(&["no model", "--name"]);
    let none = response("404 Not Found", "", &json!({ "detail": "Not Found" }));
    scripted(vec![none.clone()], &["hi"]).refused(&["Not Found"]);
    let moved = "HTTP/1.1 301 Moved\r\nLocation: https://box/\r\nContent-Length: 0\r\n\r\n".to_owned();
    scripted(vec![moved], &["hi"]).refused(&["has moved to https://box/"]);

    let asked = scripted(vec![none, stream(&["Hi"], DONE)], &["--quiet", "--name", "b", "hi"]).quiet_success();
    assert_eq!(asked, "Hi\n");
    let no_chat = response("400 Bad Request", "", &json!({ "error": { "message": "the model has no chat template" } }));
    scripted(vec![models(&["a"]), no_chat], &["hi"]).refused(&["the model has no chat template"]);
    scripted(vec![models(&["a"]), page], &["hi"]).refused(&["answers do not come in pieces there"]);
}

#[test]
fn what_only_the_user_has_said_is_asked_for() {
    let server = Scripted::new(vec![models(&["a"]), stream(&["Hi"], DONE)]);
    let flags = ["--quiet", "--no-history", "--temperature", "0.3", "--stop", "x", "--think", "off", "hi"];
    assert_eq!(dair(&[&["chat", "--server", &server.url], &flags[..]].concat()).quiet_success(), "Hi\n");
    let asked: Vec<String> = server.asked.iter().collect();
    assert!(asked[0].starts_with("GET /v1/models ") && asked[1].starts_with("POST /v1/chat/completions "));
    let body: Value = serde_json::from_str(asked[1].split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    let want = json!({
        "model": "a", "messages": [{ "role": "user", "content": "hi" }], "temperature": 0.3, "stop": ["x"],
        "stream": true, "stream_options": { "include_usage": true }, "chat_template_kwargs": { "enable_thinking": false },
    });
    assert_eq!(body, want);
}

#[test]
fn only_who_has_the_key_of_a_server_is_answered() {
    let files = files(6);
    let (keys, mine) = (files.path("keys"), files.path("mine"));
    let key = dair(&["api-key", "ann", "--file", &keys]).quiet_success();
    std::fs::write(&mine, &key).expect("a file");
    let server = Server::start(&files, &["--api-keys", &keys]);
    let ask =
        ["chat", "--server", &server.url(), "--no-history", "--quiet", "--max-tokens", "3", "--temperature", "0", "hi"];
    dair(&ask).refused(&["API key", "--api-key-file", "DAIR_API_KEY"]);
    let wrong = [("DAIR_API_KEY", "dair-wrong")];
    dair_knowing(&wrong, &ask).refused(&["API key"]);
    let with_file = [&ask[..], &["--api-key-file", &mine]].concat();
    let answer = dair_knowing(&wrong, &with_file).quiet_success();
    assert_eq!(dair_knowing(&[("DAIR_API_KEY", key.trim())], &ask).quiet_success(), answer);
    dair(&[&ask[..], &["--api-key-file", &files.path("none")]].concat()).refused(&["cannot read the API key", "none"]);
}

#[test]
fn a_server_that_encrypts_is_asked_by_who_trusts_its_certificate() {
    let files = files(7);
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/certificate.pem");
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/key.pem");
    let server = Server::start(&files, &["--tls-cert", pem, "--tls-key", key]);
    let (url, plain) = (server.url(), format!("http://{}", server.address));
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let chat = ["--no-history", "--quiet", "--max-tokens", "3", "--temperature", "0", "hi"];
    let ask = |url: &str, flags: &[&str]| dair(&[&["chat", "--server", url], &chat[..], flags].concat());
    assert!(ask(&url, &["--ca", pem]).quiet_success().len() > 1);
    ask(&url, &[]).refused(&["is not trusted", "UnknownIssuer", "--ca"]);
    ask(&url, &["--ca", key]).refused(&["no certificate in it"]);
    ask(&plain, &["--ca", pem]).refused(&["--ca goes with https://"]);
    let figures = ["top", &url, "--once", "--ca", pem];
    assert!(dair(&figures).quiet_success().contains("1 served"));
    dair(&figures[..3]).refused(&["is not trusted"]);
}

#[test]
fn a_server_with_too_much_to_do_is_asked_once_more() {
    let busy = |seconds: &str| {
        let headers = format!("Retry-After: {seconds}\r\n");
        response("429 Too Many Requests", &headers, &json!({ "error": { "message": "too many wait" } }))
    };
    let run = |answers: Vec<String>, flags: &[&str]| {
        let server = Scripted::new(answers);
        dair(&[&["chat", "--no-history", "--server", &server.url, "hi"], flags].concat())
    };
    let outcome = run(vec![models(&["a"]), busy("1"), stream(&["Hi"], DONE)], &[]);
    assert_eq!((outcome.code, &outcome.stdout[..]), (Some(0), "Hi\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("too many wait: asking again in 1 s"), "{outcome:?}");
    run(vec![models(&["a"]), busy("0"), busy("0")], &["--quiet"]).refused(&["too many wait"]);
    run(vec![models(&["a"]), busy("3600")], &["--quiet"]).refused(&["too many wait"]);
}

/// A chat on a terminal with a server that says this.
fn screen(files: &Files, server: &Scripted, flags: &[&str]) -> Screen {
    let mut screen = Screen::new(&files.path("state"), &[&["chat", "--server", &server.url], flags].concat());
    screen.wait_for("a at http://");
    screen
}

#[test]
fn a_server_that_ends_in_the_middle_is_asked_again_by_retry() {
    let files = files(7);
    let server = Scripted::new(vec![models(&["a"]), stream(&["Hal"], ""), stream(&["Half"], DONE)]);
    let mut screen = screen(&files, &server, &[]);
    screen.send("hi\r");
    screen.wait_for("Hal");
    screen.wait_for("ended in the middle; the conversation is here still: /retry asks again");
    screen.send("/retry\r");
    screen.wait_for("Half");
    screen.wait_for("first words after");
    screen.send("/retry\r");
    screen.wait_for("cannot reach");
    screen.send("/exit\r");
    assert_eq!(screen.end(), Some(1), "the last question was not answered");
    assert_eq!(said(&kept(&files.path("state"))[0], "user"), ["hi"]);
}

#[test]
fn ctrl_c_ends_an_answer_and_the_connection() {
    let files = files(8);
    let silent = stream(&[], MORE);
    let server = Scripted::new(vec![models(&["a"]), stream(&["One", " two"], MORE), silent]);
    let mut screen = screen(&files, &server, &[]);
    screen.send("hi\r");
    screen.wait_for("One two");
    screen.send("\x03");
    screen.wait_for("interrupted");
    assert!(server.asked.iter().take(3).any(|asked| asked == "gone"));
    // Before the first word, too.
    screen.send("more\r");
    assert!(server.asked.recv().expect("a question").contains("One two"));
    screen.send("\x03");
    screen.wait_for("interrupted");
    assert_eq!(server.asked.recv().expect("an end"), "gone");
    screen.send("/exit\r");
    assert_eq!(screen.end(), Some(0));
    assert_eq!(said(&kept(&files.path("state"))[0], "user"), ["hi", "more"]);
}

#[test]
fn markdown_is_styled_on_a_terminal_and_nowhere_else() {
    let files = files(9);
    let pieces = ["# Tit", "le\n", "**bo", "ld** \x1b[2J `co", "de`\n```\nx = *1\n``", "`\n"];
    let answer = || vec![models(&["a"]), stream(&pieces, DONE)];
    let server = Scripted::new(answer());
    let mut styled = screen(&files, &server, &["hi"]);
    for part in ["\x1b[1mTit", "\x1b[1mbo", "\u{241b}[2J", "\x1b[36mco", "\x1b[36mx = *1", "first words"] {
        styled.wait_for(part);
    }
    let server = Scripted::new(answer());
    let mut plain = screen(&files, &server, &["--plain", "hi"]);
    plain.wait_for("# Title\r\n**bold** \u{241b}[2J `code`\r\n```\r\nx = *1\r\n```\r\n");
    let server = Scripted::new(answer());
    let piped = dair(&["chat", "--server", &server.url, "--quiet", "--no-history", "hi"]).quiet_success();
    assert_eq!(piped, pieces.concat() + "\n");
}
