//! How tokens are chosen and where an answer ends: seeds, filters, penalties, stop texts, and logits that are broken.

use crate::model::{Files, header};
use crate::run::{Outcome, dair, dair_reading};
use dair_core::format::layout::LayerTensor;
use dair_core::format::tokenizer::{TokenizerHeader, TokenizerWriter};
use dair_core::format::{Header, Layout, TensorId};
use dair_core::quant::DType;
use serde_json::Value;
use std::fs;

fn generate(files: &Files, args: &[&str]) -> Outcome {
    let common = ["generate", "--model", &files.model, "--prompt", "a day at the sea", "--ignore-eos"];
    let length = if args.contains(&"--max-tokens") { &[][..] } else { &["--max-tokens", "24"] };
    dair(&[&common[..], length, args].concat())
}

fn quiet(files: &Files, args: &[&str]) -> String {
    generate(files, &[&["--quiet"], args].concat()).quiet_success()
}

#[test]
fn runs_without_a_seed_differ_and_the_seed_in_the_report_gives_the_text_again() {
    let files = Files::new("tiny-llama", 1);
    let runs: Vec<Value> = (0..3).map(|_| generate(&files, &["--temperature", "1", "--json"]).json()).collect();
    for (i, run) in runs.iter().enumerate() {
        let seed = run["seed"].as_u64().unwrap_or_else(|| panic!("no seed in {run}"));
        assert!(seed < 1 << 53, "{seed} is no number that every reader of JSON keeps");
        let again = generate(&files, &["--temperature", "1", "--json", "--seed", &seed.to_string()]).json();
        assert_eq!((&again["text"], &again["seed"]), (&run["text"], &run["seed"]));
        for other in &runs[..i] {
            assert!(run["seed"] != other["seed"] && run["text"] != other["text"], "{run} and {other}");
        }
    }
}

#[test]
fn a_chat_says_its_seed_which_gives_its_answers_again() {
    let files = Files::new("tiny-llama", 1);
    let chat = |args: &[&str]| {
        let common = ["chat", "--model", &files.model, "--max-tokens", "6", "--temperature", "1", "--json"];
        let lines = dair_reading("one\n", &[&common[..], args].concat()).quiet_success();
        serde_json::from_str::<Value>(lines.trim_end()).expect("JSON")
    };
    let first = chat(&[]);
    let seed = first["seed"].as_u64().unwrap_or_else(|| panic!("no seed in {first}"));
    assert_eq!(chat(&["--seed", &seed.to_string()])["text"], first["text"]);
}

#[test]
fn seed_zero_is_a_seed_like_any_other() {
    let files = Files::new("tiny-llama", 1);
    let greedy = quiet(&files, &["--temperature", "0"]);
    for top_p in ["0.9", "1"] {
        let text = |seed: &str| quiet(&files, &["--temperature", "2", "--top-p", top_p, "--seed", seed]);
        let zero = text("0");
        assert_eq!(zero, text("0"));
        assert!(zero != greedy && zero != text("1"), "{zero:?}");
        let first = generate(&files, &["--top-p", top_p, "--seed", "0", "--max-tokens", "1", "--json"]).json();
        let others = (1..6).map(|seed: u32| {
            let args = ["--top-p", top_p, "--seed", &seed.to_string(), "--max-tokens", "1", "--json"];
            generate(&files, &args).json()["text"].clone()
        });
        assert!(others.into_iter().any(|other| other != first["text"]), "six seeds begin with {}", first["text"]);
    }
}

#[test]
fn filters_and_penalties_are_off_unless_asked_for() {
    let files = Files::new("tiny-llama", 1);
    let with = |args: &[&str]| quiet(&files, &[&["--temperature", "1.5", "--seed", "3"], args].concat());
    let plain = with(&[]);
    assert_eq!(with(&["--top-k", "-1"]), plain);
    let off = ["--top-k", "0", "--min-p", "0", "--repeat-penalty", "1", "--presence-penalty", "0"];
    assert_eq!(with(&[&off[..], &["--frequency-penalty", "0", "--repeat-last-n", "64"]].concat()), plain);
    assert_eq!(with(&["--repeat-penalty", "2", "--presence-penalty", "1", "--repeat-last-n", "0"]), plain);
    for penalty in ["--repeat-penalty", "--presence-penalty", "--frequency-penalty"] {
        assert_ne!(with(&[penalty, "1.7"]), plain, "{penalty} does nothing");
    }
    let greedy = quiet(&files, &["--temperature", "0"]);
    assert!(greedy != plain && with(&["--top-k", "1"]) == greedy && with(&["--min-p", "1"]) == greedy);
}

#[test]
fn values_outside_the_range_of_a_sampling_flag_are_refused_with_the_range() {
    for (flag, value, allowed) in [
        ("--temperature", "-1", "numbers from 0"),
        ("--temperature", "nan", "numbers from 0"),
        ("--top-p", "-0.5", "numbers from 0 to 1"),
        ("--min-p", "1.5", "numbers from 0 to 1"),
        ("--min-p", "-1", "numbers from 0 to 1"),
        ("--repeat-penalty", "0", "numbers above 0"),
        ("--repeat-penalty", "-1.1", "numbers above 0"),
        ("--presence-penalty", "inf", "allowed are numbers"),
        ("--frequency-penalty", "much", "allowed are numbers"),
        ("--top-k", "-2", "whole numbers from -1"),
        ("--repeat-last-n", "1.5", "whole numbers from -1"),
        ("--stop", "", "a character or more"),
    ] {
        for command in [&["generate", "--prompt", "a"][..], &["chat"]] {
            dair(&[command, &["--model", "m.m", flag, value]].concat()).misused(&[flag, value, allowed]);
        }
    }
}

/// What follows what in the text that [`parrot`] knows: no character comes twice.
const PARROT: &str = "b</s>c d!";
/// Its EOS token, spelled as the text has it.
const EOS: u32 = 257;

/// Files of a model that writes one text of ordinary byte tokens and then the EOS token.
fn parrot() -> Files {
    // As many columns as tokens: the embedding of a token is a column of its own, which the output matrix looks at.
    let shape = Header { weights: DType::F32, dim: 288, n_layers: 1, seq_len: 512, ..header("tiny-llama") };
    let files = Files::with(&shape, 1);
    let mut bytes = fs::read(&files.model).unwrap();
    let row = shape.dim as usize;
    let at = |row_index: u8, column: u8| usize::from(row_index) * row + usize::from(column);
    Layout::new(&Header::parse(&bytes).unwrap()).unwrap().visit(|id, tensor| {
        let range = tensor.offset as usize..(tensor.offset + tensor.bytes()) as usize;
        let mut values = vec![0f32; range.len() / 4];
        match id {
            TensorId::Embedding => (0..shape.vocab_size as usize).for_each(|token| values[token * row + token] = 8.0),
            TensorId::FinalNorm | TensorId::Layer(_, LayerTensor::Norm0 | LayerTensor::Norm1) => values.fill(1.0),
            TensorId::Wcls => {
                for pair in PARROT.as_bytes().windows(2) {
                    values[at(pair[1], pair[0])] = 10.0;
                }
                values[EOS as usize * row + usize::from(PARROT.as_bytes()[PARROT.len() - 1])] = 10.0;
            }
            TensorId::Layer(..) => {}
        }
        bytes[range].copy_from_slice(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    });
    fs::write(&files.model, bytes).unwrap();

    let eos = [EOS].into_iter().collect();
    let header =
        TokenizerHeader { vocab_size: 288, max_token_len: 9, bos: Some(256), eos, add_bos: true, chat_template: None };
    let mut writer = TokenizerWriter::new(Vec::new(), &header).unwrap();
    (0..=255u8).for_each(|byte| writer.push(0.0, &[byte]).unwrap());
    writer.push(0.0, b"<s>").unwrap();
    writer.push(0.0, b"</s>").unwrap();
    (258..288).for_each(|id| writer.push(0.0, format!("<pad{id}>").as_bytes()).unwrap());
    fs::write(&files.tokenizer, writer.finish().unwrap()).unwrap();
    files
}

/// Text and finish reason of its answer to `prompt`.
fn say(files: &Files, prompt: &str, args: &[&str]) -> (String, String) {
    let common = ["generate", "--model", &files.model, "--prompt", prompt, "--temperature", "0", "--json"];
    let outcome = dair(&[&common[..], args].concat());
    // Standard error says that nobody knows how the model's own tokenizer cuts text, which does not matter to bytes.
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let text = |name: &str| report[name].as_str().unwrap_or_else(|| panic!("no {name} in {report}")).to_owned();
    (text("text"), text("finish_reason"))
}

#[test]
fn the_letters_of_an_eos_token_are_text_and_the_token_ends_it() {
    assert_eq!(say(&parrot(), "b", &[]), (PARROT[1..].to_owned(), "stop".to_owned()));
}

#[test]
fn an_answer_ends_before_a_text_that_was_asked_for() {
    let files = parrot();
    for (stops, text, finish) in [
        (&["c d"][..], "</s>", "stop"),
        (&["</s>"], "", "stop"),
        (&["d!", " "], "</s>c", "stop"),
        // Held back to the end, and then part of the answer.
        (&["d!?"], "</s>c d!", "stop"),
        (&["nobody says this"], "</s>c d!", "stop"),
    ] {
        let args: Vec<_> = stops.iter().flat_map(|stop| ["--stop", stop]).collect();
        assert_eq!(say(&files, "b", &args), (text.to_owned(), finish.to_owned()), "{stops:?}");
    }
    // Cut short by the number of tokens, what was held back is shown too.
    assert_eq!(say(&files, "b", &["--stop", "s>cd", "--max-tokens", "4"]), ("</s>".to_owned(), "length".to_owned()));
    // Asked to go on after EOS, stop texts still count.
    assert_eq!(say(&files, "b", &["--stop", "!", "--ignore-eos"]).0, "</s>c d");
}

#[test]
fn penalties_count_the_tokens_of_the_prompt_as_far_back_as_they_are_told() {
    let files = parrot();
    let text = |args: &[&str]| say(&files, "/b", &[&["--max-tokens", "2"], args].concat()).0;
    assert_eq!(text(&[]), "</");
    // The slash is in the prompt; of all others, which are equal then, the first is taken.
    for penalty in [["--presence-penalty", "170"], ["--frequency-penalty", "170"]] {
        assert_eq!(text(&penalty), "<\0", "{penalty:?}");
        assert_eq!(text(&[&penalty[..], &["--repeat-last-n", "3"]].concat()), "<\0", "{penalty:?}");
        assert_eq!(text(&[&penalty[..], &["--repeat-last-n", "-1"]].concat()), "<\0", "{penalty:?}");
        assert_eq!(text(&[&penalty[..], &["--repeat-last-n", "2"]].concat()), "</", "{penalty:?}");
        // All are all, also where they are more than the vocabulary has.
        let long = format!("/{}", "b".repeat(400));
        let all = [&penalty[..], &["--repeat-last-n", "-1", "--max-tokens", "2"]].concat();
        assert_eq!(say(&files, &long, &all).0, "<\0", "{penalty:?}");
    }
}

#[test]
fn a_model_with_a_scale_that_is_no_number_gets_no_perplexity_and_no_text() {
    let files = Files::with(&Header { weights: DType::Q80, ..header("tiny-llama") }, 6);
    let whole = fs::read(&files.model).unwrap();
    let mut scale = 0;
    Layout::new(&Header::parse(&whole).unwrap()).unwrap().visit(|id, tensor| {
        if matches!(id, TensorId::Layer(0, LayerTensor::W2(_))) {
            scale = tensor.offset as usize;
        }
    });
    assert!(scale > 0);
    for (name, bits) in [("NaN", 0x7E00u16), ("infinite", 0x7C00), ("negative and infinite", 0xFC00)] {
        let mut bytes = whole.clone();
        bytes[scale..scale + 2].copy_from_slice(&bits.to_le_bytes());
        let broken = files.write("broken.m", &bytes);
        let common = ["--model", &broken, "--tokenizer", &files.tokenizer, "--prompt", "the sea is wide", "--quiet"];
        println!("a scale that is {name}");
        dair(&[&["perplexity"], &common[..]].concat()).refused(&["not finite"]);
        dair(&[&["perplexity"], &common[..6], &["--json"]].concat()).refused(&["not finite"]);
        dair(&[&["generate"], &common[..]].concat()).refused(&["not finite"]);
    }
}
