//! What people type who know other programs, and what they ask for that can't be had.

use crate::model::{Files, header};
use crate::run::{dair, dair_reading};
use dair_core::format::Header;
use std::io::Read;
use std::process::{Command, Stdio};

/// A run that always says the same.
fn generate(files: &Files, input: &str, args: &[&str]) -> String {
    let common = ["generate", "-m", &files.model, "-n", "12", "--temperature", "0", "--ignore-eos", "-q"];
    dair_reading(input, &[&common[..], args].concat()).quiet_success()
}

#[test]
fn short_flags_are_those_of_llama_cpp() {
    let files = Files::new("tiny-llama", 1);
    let file = files.write("prompt.txt", b"a day at the sea");
    let long = ["generate", "--model", &files.model, "--max-tokens", "12", "--ignore-eos", "--quiet", "--threads", "1"];
    let long = dair(&[&long[..], &["--seed", "7", "--prompt", "a day at the sea"]].concat()).quiet_success();
    let short = ["generate", "-m", &files.model, "-n", "12", "--ignore-eos", "-q", "-t", "1", "-s", "7"];
    for text in [&["-p", "a day at the sea"][..], &["-f", &file], &["a day at the sea"]] {
        assert_eq!(dair(&[&short[..], text].concat()).quiet_success(), long, "{text:?}");
    }
    dair(&["inspect", "-m", &files.model]).quiet_success();
}

#[test]
fn a_prompt_may_begin_with_a_hyphen() {
    let files = Files::new("tiny-llama", 1);
    let file = files.write("prompt.txt", b"- milk");
    let text = generate(&files, "", &["--file", &file]);
    for args in [&["--prompt", "- milk"][..], &["-p", "- milk"], &["--prompt=- milk"], &["--", "- milk"]] {
        assert_eq!(generate(&files, "", args), text, "{args:?}");
    }
    dair(&["generate", "-m", &files.model, "--no-such-flag"]).misused(&["--no-such-flag"]);
}

#[test]
fn what_is_piped_in_follows_the_prompt_or_is_it() {
    let files = Files::new("tiny-llama", 2);
    let both = generate(&files, "", &["-p", "at the sea\na long day"]);
    assert_eq!(generate(&files, "a long day\n", &["-p", "at the sea"]), both);
    assert_eq!(generate(&files, "a long day\n", &["at the sea"]), both);
    assert_eq!(generate(&files, "at the sea\na long day", &[]), both);
    let alone = generate(&files, "", &["-p", "at the sea"]);
    assert_ne!(alone, both);
    assert_eq!(generate(&files, "\n", &["-p", "at the sea"]), alone);
    dair_reading("a\n\u{0}", &["perplexity", "-m", &files.model, "-q", "b c"]).quiet_success();
}

#[test]
fn without_any_text_the_usage_is_wrong() {
    let files = Files::new("tiny-llama", 1);
    for command in ["generate", "perplexity"] {
        dair(&[command, "-m", &files.model]).misused(&["no text", "--prompt", "--file"]);
        dair(&[command, "-m", &files.model, "-p", "a", "b"]).misused(&["--prompt", "cannot be used with"]);
    }
}

/// As services start programs: standard input is a pipe that nobody writes to and nobody closes.
#[test]
fn an_open_pipe_that_is_silent_does_not_hold_a_prompt_up() {
    let files = Files::new("tiny-llama", 1);
    let common = ["generate", "-m", &files.model, "-p", "a day at the sea", "-n", "2", "--ignore-eos"];
    for (flag, says) in [("--temperature=0", true), ("-q", false), ("--json", false)] {
        let mut process = Command::new(env!("CARGO_BIN_EXE_dair"))
            .args(common)
            .arg(flag)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let pipe = process.stdin.take();
        let mut text = String::new();
        process.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        assert!(text.len() > 1, "{flag}");
        let outcome = process.wait_with_output().expect("it ends");
        assert_eq!(outcome.status.code(), Some(0), "{flag}");
        let stderr = String::from_utf8(outcome.stderr).expect("UTF-8");
        assert_eq!(stderr.contains("standard input is open but silent"), says, "{flag}: {stderr}");
        drop(pipe);
    }
}

#[test]
fn what_is_taken_another_way_or_does_no_good_is_said_in_a_line() {
    let files = Files::new("tiny-llama", 1);
    let context = header("tiny-llama").seq_len.to_string();
    let run = |args: &[&str]| {
        let common = ["generate", "-m", &files.model, "-p", "a", "-n", "2", "--ignore-eos"];
        dair(&[&common[..], args].concat())
    };
    let outcome = run(&["--max-seq-len", "5000"]);
    assert_eq!(outcome.code, Some(0));
    let line = outcome.stderr.lines().next().unwrap_or_default();
    assert!(line.contains("--max-seq-len 5000") && line.contains(&context), "{line}");
    let outcome = run(&["--threads", "200"]);
    assert_eq!(outcome.code, Some(0));
    let line = outcome.stderr.lines().next().unwrap_or_default();
    assert!(line.contains("--threads 200") && line.contains("slower"), "{line}");
    run(&["--max-seq-len", "5000", "--threads", "200", "-q"]).quiet_success();
    let one = run(&["--threads", "1"]);
    assert!(!one.stderr.contains("--threads"), "{one:?}");
}

#[test]
fn a_prompt_beyond_the_context_is_told_what_helps() {
    let files = Files::new("tiny-llama", 1);
    let context = header("tiny-llama").seq_len;
    let run = |letters: u32, seq_len: u32| {
        let (text, seq_len) = ("7".repeat(letters as usize), seq_len.to_string());
        dair(&["generate", "-m", &files.model, "-p", &text, "--max-seq-len", &seq_len])
    };
    let line = |outcome: crate::run::Outcome| {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        outcome.stderr.lines().last().unwrap_or_default().to_owned()
    };
    // One token is put before the text.
    let (needed, own) = (format!("needs {} positions", 21), format!("the model's own context has {context}"));
    run(20, 16).refused(&[&needed, "holds 16", "raise --max-seq-len", &own]);
    for (letters, seq_len) in [(context, 16), (context, context), (context, 2 * context)] {
        let line = line(run(letters, seq_len));
        assert!(line.contains("shorten it") && !line.contains("raise"), "{line}");
    }
}

#[test]
fn a_context_beyond_the_memory_is_told_what_fits() {
    // 1.7 TB.
    let files = Files::with(&Header { seq_len: 1 << 24, n_layers: 200, ..header("tiny-llama") }, 1);
    let args = ["generate", "-m", &files.model, "-p", "a", "-n", "2", "-q", "--kv", "f32"];
    dair(&args).refused(&["KV cache of 16777216 positions", " GB", "--max-seq-len", "--workers"]);
    let outcome = dair(&args);
    let fitting = outcome.stderr.split("--max-seq-len ").nth(1).and_then(|rest| rest.split([' ', ';', '\n']).next());
    // Where the system does not tell how much memory is free, there is no number.
    if let Some(fitting) = fitting.and_then(|text| text.parse::<u64>().ok()) {
        // Other programs take memory meanwhile.
        let fitting = (fitting / 2).to_string();
        dair(&[&args[..], &["--max-seq-len", &fitting]].concat()).quiet_success();
    }
}
