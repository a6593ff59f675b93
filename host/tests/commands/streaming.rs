//! Weights that are streamed: answers are those of mapped ones, on one node and on two, and reports say what was read.

use crate::model::Files;
use crate::network::Worker;
use crate::run::{Outcome, dair};
use serde_json::Value;

fn generate(files: &Files, args: &[&str]) -> Outcome {
    let common = ["generate", "--model", &files.model, "--prompt", "a day at the sea", "--ignore-eos"];
    dair(&[&common[..], &["--max-tokens", "12", "--temperature", "0", "--json"], args].concat())
}

#[test]
fn answers_are_those_of_mapped_weights_and_the_report_says_what_was_read() {
    for preset in ["tiny-llama", "tiny-qwen3-moe"] {
        let files = Files::new(preset, 4);
        let mapped = generate(&files, &["--storage", "mmap"]).json();
        assert_eq!(mapped["streaming"], Value::Null);
        let streamed = generate(&files, &["--storage", "stream"]).json();
        assert_eq!(streamed["text"], mapped["text"]);
        assert!(streamed["streaming"]["read_bytes"].as_u64() > Some(10_000), "{streamed}");
        assert!(streamed["streaming"]["passes"].as_u64() > Some(1), "{streamed}");
    }
}

#[test]
fn a_root_and_a_worker_stream_their_parts() {
    let files = Files::new("tiny-llama", 4);
    let alone = generate(&files, &["--storage", "mmap"]).json();
    let mut worker = Worker::start_with(&["--model", &files.model, "--storage", "stream"]);
    for cut in [&["--shares", "1,1"][..], &["--cut", "rows"], &["--cut", "layers"]] {
        let both = generate(&files, &[&["--storage", "stream", "--workers", &worker.address], cut].concat()).json();
        assert_eq!(both["text"], alone["text"], "{cut:?}");
        assert!(both["streaming"]["read_bytes"].as_u64() > Some(10_000), "{both}");
        assert!(worker.line_with("session over").ends_with("MB read from disk"));
    }
}

#[test]
fn a_budget_that_is_none_or_holds_nothing_is_refused() {
    let files = Files::new("tiny-llama", 4);
    for memory in ["0", "101%", "much"] {
        generate(&files, &["--memory", memory]).misused(&["--memory", memory]);
    }
    generate(&files, &["--memory", "1KB"]).refused(&["KV cache", "allow more by --memory", "weights, streamed, take"]);
}
