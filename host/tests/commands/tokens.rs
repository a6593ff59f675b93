//! `tokenize` and `detokenize`, and what commands say about a tokenizer that does not know how text is cut.

use crate::model::Files;
use crate::run::{dair, dair_reading};
use dair_core::format::tokenizer::{TokenizerFile, TokenizerWriter};
use std::fs;

/// A command and its flags, with the model named between them.
fn with_model<'a>(files: &'a Files, args: &[&'a str]) -> Vec<&'a str> {
    [&args[..1], &["--model", &files.model], &args[1..]].concat()
}

#[test]
fn tokens_become_the_text_that_they_came_from() {
    let files = Files::new("tiny-llama", 1);
    let text = " a day at the sea,\n\n  naïve 😀<|im_end|>";
    let json = dair(&with_model(&files, &["tokenize", text, "--json"])).json();
    let ids: Vec<String> = json["ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(json["count"], ids.len());
    assert_eq!(json["pieces"].as_array().unwrap().len(), ids.len());
    let back = dair_reading(&ids.join("\n"), &with_model(&files, &["detokenize"])).quiet_success();
    assert_eq!(back, text);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let json = dair(&with_model(&files, &[&["detokenize", "--json"], &ids[..]].concat())).json();
    assert_eq!(json["text"], text);

    let count = |args: &[&str]| dair(&with_model(&files, args)).quiet_success().trim().parse::<usize>().unwrap();
    let all = count(&["tokenize", "<|im_end|>", "--count"]);
    assert_eq!(all, 2, "BOS and the control token");
    assert_eq!(count(&["tokenize", "<|im_end|>", "--count", "--bare"]), 1);
    assert!(count(&["tokenize", "<|im_end|>", "--count", "--literal"]) > 2);
    let each =
        dair_reading("a\0bc\0", &with_model(&files, &["tokenize", "--null", "--bare", "--json"])).quiet_success();
    assert_eq!(each.lines().count(), 3, "{each}");
}

#[test]
fn what_is_no_token_is_refused() {
    let files = Files::new("tiny-llama", 1);
    dair(&["detokenize", "--model", &files.model, "999999"]).refused(&["999999", "ids from 0 to"]);
    dair_reading("12 cat", &["detokenize", "--model", &files.model]).refused(&["\"cat\"", "whole numbers"]);
    dair(&["tokenize", "text"]).misused(&["--model", "--tokenizer"]);
}

#[test]
fn a_tokenizer_of_another_program_is_used_by_its_rule_and_that_is_said() {
    let files = Files::new("tiny-llama", 1);
    let path = files.tokenizer.clone();
    let bytes = fs::read(&path).unwrap();
    let file = TokenizerFile::parse(&bytes).unwrap();
    let mut writer = TokenizerWriter::new(Vec::new(), file.header()).unwrap();
    file.tokens().for_each(|(score, token)| writer.push(score, token).unwrap());
    fs::write(&path, writer.finish().unwrap()).unwrap();
    let args = ["perplexity", "--model", &files.model, "--prompt", "a day at the sea"];
    let outcome = dair(&args);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains("by the rule of Distributed-Llama; dair convert makes one that does"),
        "{outcome:?}"
    );
    dair(&[&args[..], &["--quiet"]].concat()).quiet_success();
}
