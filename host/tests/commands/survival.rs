//! Workers that are lost, or told to end, while a root computes.

use crate::model::{Files, header};
use crate::network::Worker;
use crate::run::{CACHE, dair, without_key};
use dair_core::format::Header;
use dair_core::quant::DType;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// A model whose answers take long enough for something to happen meanwhile, and workers that have it.
fn cluster(workers: usize) -> (Files, Vec<Worker>) {
    let files = Files::with(&Header { seq_len: 4096, weights: DType::Q40, ..header("tiny-llama") }, 1);
    let workers = (0..workers).map(|_| Worker::start_with(&["--model", &files.model])).collect();
    (files, workers)
}

const TOKENS: &str = "2000";

fn arguments<'a>(files: &'a Files, workers: &'a [Worker]) -> Vec<&'a str> {
    let mut args = vec!["generate", "--model", &files.model, "--tokenizer", &files.tokenizer, "--prompt", "one two"];
    args.extend(["--max-tokens", TOKENS, "--temperature", "0", "--threads", "1", "--ignore-eos", "--speculate", "off"]);
    if !workers.is_empty() {
        args.extend(["--shares", &"1,1,1"[..2 * workers.len() + 1], "--workers"]);
        args.extend(workers.iter().map(|worker| &*worker.address));
    }
    args
}

/// Runs a root and calls `disturb` once its answer has begun; what it printed, and what it said beside that.
fn disturbed(files: &Files, workers: &mut Vec<Worker>, disturb: impl FnOnce(&mut Vec<Worker>)) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dair"));
    command.args(arguments(files, workers)).env("DAIR_CACHE", CACHE);
    let mut root = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut text = Vec::new();
    let mut stdout = BufReader::new(root.stdout.take().expect("piped"));
    while text.len() < 40 {
        let piece = stdout.fill_buf().expect("text").to_vec();
        assert!(!piece.is_empty(), "the answer has ended");
        text.extend_from_slice(&piece);
        stdout.consume(piece.len());
    }
    disturb(workers);
    std::io::Read::read_to_end(&mut stdout, &mut text).expect("text");
    let done = root.wait_with_output().expect("it ends");
    let said = String::from_utf8(done.stderr).expect("UTF-8");
    assert!(done.status.success(), "{said}");
    (String::from_utf8(text).expect("UTF-8"), said)
}

#[test]
fn an_answer_is_the_same_when_workers_are_killed() {
    let (files, mut workers) = cluster(2);
    let alone = dair(&arguments(&files, &[]));
    let address = workers[0].address.clone();
    let (text, said) = disturbed(&files, &mut workers, |workers| drop(workers.remove(0)));
    assert_eq!(text, alone.stdout);
    assert!(said.contains(&format!("left out: worker {address} closed the connection during ")), "{said}");
    assert!(said.contains(" tokens again"), "{said}");
}

#[test]
fn a_worker_that_is_told_to_end_does_so_when_it_is_not_needed() {
    let (files, mut workers) = cluster(1);
    let alone = dair(&arguments(&files, &[]));
    let (text, said) = disturbed(&files, &mut workers, |workers| {
        let told = dair(&["node", "drain", &workers[0].address]).quiet_success();
        assert_eq!(told, format!("worker {} finishes what it does, and ends\n", workers[0].address));
        let nodes = dair(&["nodes", "--workers", &workers[0].address]);
        assert!(nodes.stdout.contains("it is about to end"), "{nodes:?}");
    });
    assert_eq!(text, alone.stdout);
    assert!(!said.contains("left out"), "{said}");
    assert_eq!(workers.remove(0).ends(), Some(0));
    dair(&["node", "drain", "127.0.0.1:1"]).refused(&["worker 127.0.0.1:1 does not answer; is it there"]);
}

#[test]
fn a_polite_signal_ends_a_worker_that_has_nothing_to_do() {
    let worker = Worker::start();
    worker.signal("TERM");
    assert_eq!(worker.ends(), Some(0));
}

#[test]
fn silences_have_limits() {
    let (files, _) = cluster(0);
    for wrong in ["0", "0.05", "4000", "x", "nan"] {
        let outcome = dair(&["generate", "--model", &files.model, "--prompt", "x", "--heartbeat-s", wrong]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("allowed are 0.1 to 3600"), "{outcome:?}");
    }
}

#[test]
fn a_worker_that_is_started_later_joins_a_conversation() {
    let (files, _) = cluster(0);
    // Nobody else takes it so soon.
    let place = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dair"));
    command.args([
        "chat",
        "--model",
        &files.model,
        "--tokenizer",
        &files.tokenizer,
        "--template",
        "chatml",
        "--no-history",
    ]);
    command.args(["--max-tokens", "8", "--cut", "rows", "--threads", "1", "--accept", &place]);
    without_key(&mut command).env("DAIR_CACHE", CACHE);
    let mut root =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(root.stderr.take().expect("piped"));
    let mut line_with = |what: &str| {
        let mut all = String::new();
        while !all.contains(what) {
            assert!(said.read_line(&mut all).expect("UTF-8") > 0, "{what:?} is not said, but {all:?}");
        }
    };
    line_with(&format!("workers may join: host-worker --join {place}"));
    let mut worker = Worker::start_with(&["--model", &files.model, "--join", &place]);
    worker.line_with(&format!("root {place} knows of this worker"));
    let mut questions = root.stdin.take().expect("piped");
    // It is asked what it has before it takes part.
    for _ in 0..30 {
        writeln!(questions, "one two").expect("it reads");
        thread::sleep(Duration::from_millis(50));
    }
    drop(questions);
    line_with(&format!("takes part from now on: worker {}", worker.address));
    assert!(root.wait().expect("it ends").success());
}

#[test]
fn a_root_without_a_key_takes_workers_of_this_machine_only() {
    let (files, _) = cluster(0);
    let args = ["generate", "--model", &files.model, "--prompt", "x", "--accept", "0.0.0.0:9990"];
    let outcome = dair(&args);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(
        outcome.stderr.contains("--accept 0.0.0.0:9990: without a key workers are let in from this machine only"),
        "{outcome:?}"
    );
}

#[test]
fn a_port_that_is_taken_and_shares_for_unknown_workers_are_one_line() {
    let (files, _) = cluster(0);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = taken.local_addr().expect("an address").to_string();
    let args =
        ["generate", "--model", &files.model, "--tokenizer", &files.tokenizer, "--prompt", "x", "--accept", &place];
    let outcome = dair(&args);
    let line = format!("error: --accept {place}: ");
    assert!(outcome.code == Some(1) && outcome.stderr.starts_with(&line), "{outcome:?}");
    assert!(outcome.stderr.ends_with("; name another address or port of this machine\n"), "{outcome:?}");
    let outcome = dair(&[&args[..], &["--shares", "1,1"]].concat());
    assert!(outcome.code == Some(2) && outcome.stderr.contains("cannot be used with"), "{outcome:?}");
}

#[test]
fn a_worker_tells_which_root_it_can_not_join() {
    let (files, _) = cluster(0);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").to_string();
    let worker = Worker::start_with(&["--model", &files.model, "--join", &nobody]);
    thread::sleep(Duration::from_secs(1));
    let said = worker.stop();
    assert!(said.contains(&format!("not joined, and tried again: root {nobody}: ")), "{said}");
}
