//! The server as a process: what it prints, what it answers, how it ends.

use crate::model::Files;
use crate::network::Worker;
use crate::run::dair;
use crate::server::{Scripted, Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn a_server_answers_as_the_command_line_does_and_ends_when_it_is_told_to() {
    let files = Files::new("tiny-llama", 4);
    let flags = ["--prompt", "one two", "--max-tokens", "12", "--temperature", "0.7", "--seed", "9", "--json"];
    let want = dair(&[&["generate", "--model", &files.model, "--threads", "1"], &flags[..]].concat()).json();
    let trace = files.path("trace.json");
    let server = Server::start(&files, &["--slots", "2", "--trace", &trace]);
    let body = json!({ "prompt": "one two", "max_tokens": 12, "temperature": 0.7, "seed": 9 });
    for _ in 0..2 {
        let got = server.json("/v1/completions", &body);
        assert_eq!(got["choices"][0]["text"], want["text"]);
    }
    let chat = json!({ "messages": [{ "role": "user", "content": "one" }], "max_tokens": 3 });
    assert_eq!(server.json("/v1/chat/completions", &chat)["usage"]["completion_tokens"], 3);
    let (status, health) = server.ask("/health", None);
    assert!(status == 200 && health.contains("\"status\":\"ok\""), "{health}");
    assert!(server.ask("/metrics", None).1.contains("dair_requests_total{outcome=\"ended\"} 3"));
    assert_eq!(server.json("/v1/completions", &json!({ "prompt": "x", "max_tokens": 1 }))["object"], "text_completion");
    let form = json!({ "prompt": "x", "max_tokens": 9, "structured_outputs": { "choice": ["yes", "no"] } });
    let text = server.json("/v1/completions", &form)["choices"][0]["text"].take();
    assert!(text == "yes" || text == "no", "{text}");
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}");
    // The timeline has all requests, from their waiting to their end, and the passes.
    let spans: Value = serde_json::from_str(&std::fs::read_to_string(trace).expect("it was written")).expect("JSON");
    let begun = |name: &str| {
        spans.as_array().expect("a list").iter().filter(|span| span["ph"] == "b" && span["name"] == name).count()
    };
    assert_eq!(["request", "waits", "prompt", "answer"].map(begun), [5; 4]);
    assert!(begun("pass") >= 12, "{}", begun("pass"));
}

#[test]
fn what_is_in_the_way_of_a_server_is_said_at_its_start() {
    let files = Files::new("tiny-llama", 4);
    dair(&["serve", "--model", &files.model, "--host", "0.0.0.0"]).misused(&["--api-keys", "--insecure"]);
    dair(&["serve", "--model", &files.path("none.m")]).refused(&["none.m"]);
    let pem = files.path("none.pem");
    dair(&["serve", "--model", &files.model, "--tls-cert", &pem, "--tls-key", &pem]).refused(&["none.pem"]);
    dair(&["serve", "--model", &files.model, "--tls-cert", &pem]).misused(&["--tls-key"]);
    dair(&["serve", "--model", &files.model, "--port", "0", "--trace", &files.path("no/such.json")])
        .refused(&["--trace", "such.json"]);
    dair(&["serve", "--model", &files.model, "--api-keys", &files.path("none")]).refused(&["cannot read the API keys"]);
    dair(&["api-key", "a b", "--file", &files.path("keys")]).refused(&["no blanks"]);
    let key = dair(&["api-key", "ann", "--file", &files.path("keys")]).quiet_success();
    assert!(key.starts_with("dair-") && key.lines().count() == 1);
    let server = Server::start(&files, &["--api-keys", &files.path("keys")]);
    assert_eq!(server.ask("/v1/models", None).0, 401);
    let taken = server.address.rsplit_once(':').expect("a port").1;
    dair(&["serve", "--model", &files.model, "--port", taken]).refused(&["cannot listen on", "--port"]);
}

/// A long prompt that begins with `word`, and what the server answers it; how much of it was known.
fn recall(server: &Server, word: &str) -> (String, u64) {
    let prompt = format!("{word} {}", "in the beginning there was a word and ".repeat(3));
    let body = json!({ "prompt": &prompt[..100], "max_tokens": 6, "temperature": 0.7, "seed": 3 });
    let answer = server.json("/v1/completions", &body);
    let known = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    (answer["choices"][0]["text"].as_str().expect("a text").to_owned(), known)
}

/// What a server with `flags` has computed is known after others had its only slot, and to the next server; the answers are those of
/// one that knows nothing.
fn remembers(files: &Files, flags: &[&str]) {
    let disk = [flags, &["--slots", "1", "--kv-disk", "64MiB"]].concat();
    let (one, two) = {
        let server = Server::start(files, flags);
        let answers = ["one", "two"].map(|word| recall(&server, word));
        assert!(answers.iter().all(|(_, known)| *known < 64), "{answers:?}");
        answers.map(|(text, _)| text).into()
    };
    let server = Server::start(files, &disk);
    assert_eq!(recall(&server, "one").0, one);
    assert_eq!(recall(&server, "two").0, two);
    assert_eq!(recall(&server, "one"), (one.clone(), 64), "it was kept when its slot was given away");
    assert!(server.ask("/metrics", None).1.contains("dair_prompt_tokens_from_disk_total 63"), "all begin alike");
    assert_eq!(recall(&server, "two"), (two.clone(), 64));
    // It is killed.
    drop(server);
    let server = Server::start(files, &disk);
    assert_eq!(recall(&server, "two"), (two, 64));
    assert_eq!(recall(&server, "one"), (one, 64));
}

#[test]
fn what_was_computed_is_known_to_the_next_server() {
    let files = Files::new("tiny-llama", 4);
    remembers(&files, &[]);
}

#[test]
fn all_nodes_of_a_cluster_keep_their_parts() {
    let files = Files::new("tiny-llama", 4);
    let worker = Worker::start_with(&["--model", &files.model, "--kv-disk", "64MiB"]);
    remembers(&files, &["--workers", &worker.address, "--cut", "rows"]);
    let forgetful = Worker::start_with(&["--model", &files.model]);
    let server = Server::start(&files, &["--workers", &forgetful.address, "--cut", "rows", "--kv-disk", "64MiB"]);
    assert_eq!(recall(&server, "one").1, 0);
    let (_, said) = server.end();
    assert!(said.contains("not kept on disk") && said.contains(&forgetful.address), "{said}");
}

#[test]
fn spans_go_to_a_collector() {
    let files = Files::new("tiny-llama", 4);
    let taken = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n".to_owned();
    let collector = Scripted::new(vec![taken.clone(), taken]);
    let server = Server::start(&files, &["--otlp", &collector.url]);
    assert_eq!(server.json("/v1/completions", &json!({ "prompt": "x", "max_tokens": 3 }))["object"], "text_completion");
    // The last spans are sent before it ends.
    assert_eq!(server.end(), (Some(0), String::new()));
    let asked: String = collector.asked.try_iter().collect();
    assert!(asked.starts_with("POST /v1/traces HTTP/1.1") && asked.contains("application/x-protobuf"), "{asked}");
    for name in ["service.name", "dair", "request", "waits", "prompt", "answer", "pass", "drawn"] {
        assert!(asked.contains(name), "no {name}: {asked}");
    }
    let server = Server::start(&files, &["--otlp", "http://127.0.0.1:1"]);
    server.json("/v1/completions", &json!({ "prompt": "x", "max_tokens": 3 }));
    let (code, said) = server.end();
    assert!(code == Some(0) && said.contains("--otlp http://127.0.0.1:1: spans are lost"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    dair(&["serve", "--model", &files.model, "--otlp", "ftp://box"]).misused(&["--otlp", "ftp"]);
}

#[test]
fn a_server_whose_weights_are_streamed_gives_the_same_answers() {
    let files = Files::new("tiny-llama", 4);
    let body = |word: &str| json!({ "prompt": word, "max_tokens": 9, "temperature": 0.7, "seed": 3 });
    let texts = |server: &Server| {
        ["one", "two"].map(|word| server.json("/v1/completions", &body(word))["choices"][0]["text"].take())
    };
    let server = Server::start(&files, &["--storage", "stream", "--slots", "2"]);
    assert_eq!(texts(&server), texts(&Server::start(&files, &[])));
    // The figures are looked at twice a second.
    let passes = || server.json_of("/cluster")["streaming"]["passes"].as_u64().expect("it streams");
    let start = Instant::now();
    while passes() < 18 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} passes", passes());
        std::thread::sleep(Duration::from_millis(50));
    }
}
