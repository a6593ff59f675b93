//! `dair top`: the figures of a server, once or until somebody has seen enough.

use crate::model::Files;
use crate::run::dair;
use crate::screen::Screen;
use crate::server::{Scripted, Server, models, response};
use serde_json::json;

#[test]
fn a_pipe_gets_the_figures_once() {
    let files = Files::new("tiny-llama", 4);
    let server = Server::start(&files, &["--slots", "2"]);
    let chat = json!({ "messages": [{ "role": "user", "content": "one" }], "max_tokens": 3, "temperature": 0 });
    // Who computes is looked at twice a second, while something is computed.
    std::thread::sleep(std::time::Duration::from_millis(600));
    server.json("/v1/chat/completions", &chat);
    let url = server.url();
    let text = dair(&["top", &url, "--once"]).quiet_success();
    for part in ["m, up for", "0 running of 2, 0 waiting; 1 served", "3 of answers", "NODE", "root", "here"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(dair(&["top", &server.address]).quiet_success().contains("1 served"));
    let object = dair(&["top", &url, "--json"]).json();
    assert_eq!((&object["model"], &object["requests"]["served"]), (&"m".into(), &1.into()));
}

#[test]
fn who_has_no_figures_is_one_line() {
    dair(&["top", "http://127.0.0.1:1"]).refused(&["cannot reach http://127.0.0.1:1", "is the server running there?"]);
    let server = Scripted::new(vec![models(&["a"])]);
    dair(&["top", &server.url]).refused(&["says nothing of a cluster", "is that the right URL?"]);
    let no_key = response("401 Unauthorized", "", &json!({ "error": { "message": "this server wants an API key" } }));
    let server = Scripted::new(vec![no_key]);
    dair(&["top", &server.url]).refused(&["wants an API key", "--api-key-file"]);
}

#[test]
fn a_terminal_shows_the_figures_until_a_key_ends_it() {
    let files = Files::new("tiny-llama", 4);
    let server = Server::start(&files, &[]);
    let mut screen = Screen::new(&files.path("state"), &["top", &server.url()]);
    screen.wait_for("tokens/s");
    screen.wait_for("q or Esc ends");
    assert!(!screen.is_as_found());
    assert_eq!(server.end().0, Some(0));
    screen.wait_for("cannot reach");
    screen.send("q");
    assert_eq!((screen.end(), screen.is_as_found()), (Some(0), true));
    assert!(screen.text().contains("\x1b[?1049l"), "the other screen is left");
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let files = Files::new("tiny-llama", 4);
    let server = Server::start(&files, &[]);
    let mut screen = Screen::new(&files.path("state"), &["top", &server.url()]);
    screen.wait_for("q or Esc ends");
    screen.signal("TERM");
    assert_eq!((screen.end(), screen.is_as_found()), (Some(0), true));
    assert!(screen.text().contains("\x1b[?1049l"), "the other screen is left");
}
