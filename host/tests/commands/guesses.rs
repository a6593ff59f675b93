//! Guessed tokens: answers are those without, reports count them, and what can't guess is refused.

use crate::model::{Files, header};
use crate::run::{Outcome, dair, dair_reading};
use dair_core::format::Header;
use serde_json::Value;

const PROMPT: &str = "a day at the sea, a day at the sea, a day at the";

fn generate(files: &Files, args: &[&str]) -> Outcome {
    let common = ["generate", "--model", &files.model, "--prompt", PROMPT, "--ignore-eos", "--max-tokens", "40"];
    dair(&[&common[..], args].concat())
}

#[test]
fn answers_are_those_without_guesses_and_the_report_counts_them() {
    let files = Files::new("tiny-llama", 1);
    for sampling in [&["--temperature", "0"][..], &["--temperature", "1", "--seed", "7", "--repeat-penalty", "1.2"]] {
        let text = |args: &[&str]| {
            let report = generate(&files, &[&["--json"], sampling, args].concat()).json();
            (report["text"].clone(), report["decode"]["tokens"].clone(), report["speculation"].clone())
        };
        let (plain, tokens, none) = text(&["--speculate", "off"]);
        assert_eq!(none, Value::Null);
        for args in
            [&[][..], &["--speculate", "3"], &["--draft", &files.model], &["--speculate", "5", "--draft", &files.model]]
        {
            let (got, fed, _) = text(args);
            assert_eq!((&got, &fed), (&plain, &tokens), "{sampling:?}, {args:?}");
        }
    }
}

#[test]
fn a_model_that_drafts_for_itself_is_right() {
    let files = Files::new("tiny-qwen3-moe", 3);
    let args = ["--temperature", "0", "--speculate", "6", "--draft", &files.model];
    let report = generate(&files, &[&args[..], &["--json"]].concat()).json();
    let count = |name: &str| report["speculation"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}"));
    assert!(count("accepted") > 0 && count("accepted") <= count("proposed") && count("passes") > 0, "{report}");
    let outcome = generate(&files, &args);
    let told = format!(", {} of {} guessed tokens accepted\n", count("accepted"), count("proposed"));
    assert!(outcome.stderr.contains(&told), "{told:?} is missing in {}", outcome.stderr);
}

#[test]
fn a_chat_guesses_and_goes_on_as_without() {
    let files = Files::new("tiny-llama", 1);
    let chat = |args: &[&str]| {
        let common = ["chat", "--model", &files.model, "--max-tokens", "12", "--seed", "3", "--no-history", "--quiet"];
        dair_reading("one one one\none one one\nstill one one\n", &[&common[..], args].concat()).quiet_success()
    };
    let plain = chat(&["--speculate", "off"]);
    assert_eq!(chat(&["--speculate", "4"]), plain);
    assert_eq!(chat(&["--speculate", "4", "--draft", &files.model]), plain);
}

#[test]
fn a_draft_model_with_other_tokens_is_refused() {
    let files = Files::new("tiny-llama", 1);
    let more = Files::with(&Header { vocab_size: 300, ..header("tiny-llama") }, 1);
    generate(&files, &["--draft", &more.model]).refused(&["--draft", &more.model, "300", "288"]);
    let missing = files.path("nowhere.m");
    generate(&files, &["--draft", &missing]).refused(&[&missing, "No such file"]);
}

#[test]
fn flags_that_do_not_go_together_are_named() {
    let files = Files::new("tiny-llama", 1);
    generate(&files, &["--speculate", "off", "--draft", &files.model]).misused(&["--draft", "--speculate off"]);
    for value in ["0", "24", "-3", "much", ""] {
        generate(&files, &[&format!("--speculate={value}")]).misused(&["--speculate", "auto"]);
    }
}
