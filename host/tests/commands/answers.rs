//! What `generate`, `chat` and `perplexity` print when all is well.

use crate::model::{Files, header};
use crate::run::{dair, dair_knowing, dair_reading};
use dair_core::format::{Header, Layout, TensorId};
use dair_core::quant::DType;
use serde_json::Value;
use std::fs;

/// A shape that has room for a conversation.
fn chat_files(seed: u64) -> Files {
    Files::with(&Header { seq_len: 512, ..header("tiny-llama") }, seed)
}

fn generate(files: &Files, args: &[&str]) -> crate::run::Outcome {
    dair(&[&["generate", "--model", &files.model, "--prompt", "a day at the sea", "--max-tokens", "24"], args].concat())
}

#[test]
fn one_seed_gives_one_text_and_another_seed_another() {
    let files = Files::new("tiny-llama", 1);
    let text = |seed: &str| generate(&files, &["--temperature", "1", "--seed", seed, "--quiet"]).quiet_success();
    assert_eq!(text("7"), text("7"));
    assert_ne!(text("7"), text("8"));
}

#[test]
fn the_text_does_not_depend_on_the_threads() {
    for preset in ["tiny-llama", "tiny-llama31", "tiny-qwen3", "tiny-qwen3-moe"] {
        let files = Files::new(preset, 2);
        let text =
            |threads: &str| generate(&files, &["--temperature", "0", "--threads", threads, "--quiet"]).quiet_success();
        let one = text("1");
        assert!(one.len() > 1, "{preset} says nothing");
        for threads in ["2", "3", "8"] {
            assert_eq!(text(threads), one, "{preset} on {threads} threads");
        }
    }
}

#[test]
fn a_relaxed_prefill_is_near_the_exact_one_and_single_tokens_are_not_touched() {
    if dair_host::machine::cpu::relaxed(dair_host::machine::cpu::best_kernels()).is_err() {
        println!("no BF16: nothing to run");
        return;
    }
    // F32 weights: these products are relaxed wherever any are.
    let files = Files::with(&Header { weights: DType::F32, ..header("tiny-llama") }, 2);
    let perplexity = |prefill: &str, prompt: &str| {
        let args = ["perplexity", "--model", &files.model, "--prompt", prompt, "--json", "--prefill", prefill];
        dair(&args).json()["perplexity"].as_f64().expect("a number")
    };
    let text = "a day at the sea, and one more, and another one";
    let (exact, relaxed) = (perplexity("exact", text), perplexity("relaxed", text));
    assert!(exact != relaxed && (exact / relaxed - 1.0).abs() < 0.01, "{exact} and {relaxed}");
    // Too few tokens to be a prompt.
    assert_eq!(perplexity("exact", "ab").to_bits(), perplexity("relaxed", "ab").to_bits());
}

#[test]
fn repacked_weights_have_the_numbers_of_mapped_ones() {
    for preset in ["tiny-llama", "tiny-llama31", "tiny-qwen3", "tiny-qwen3-moe"] {
        let files = Files::new(preset, 2);
        let perplexity = |repack: &str, threads: &str| {
            let args = ["perplexity", "--model", &files.model, "--prompt", "a day at the sea, and one more", "--json"];
            dair(&[&args[..], &["--repack", repack, "--threads", threads]].concat()).json()["perplexity"].clone()
        };
        let mapped = perplexity("never", "1");
        assert!(mapped.as_f64().is_some_and(|perplexity| perplexity > 1.0), "{preset}: {mapped}");
        for threads in ["1", "3"] {
            assert_eq!(perplexity("always", threads), mapped, "{preset} on {threads} threads");
        }
        let repacked =
            |repack: &str| generate(&files, &["--repack", repack, "--json"]).json()["repack_seconds"].is_number();
        assert!(!repacked("never"));
        assert_eq!(repacked("always"), dair_host::machine::cpu::best_kernels().takes_interleaved(), "{preset}");
    }
}

#[test]
fn every_type_of_kv_cache_answers_and_half_the_bits_take_half_the_memory() {
    let files = Files::new("tiny-qwen3", 2);
    let kv_bytes = |kv: &str| {
        let report = dair(&["inspect", "--model", &files.model, "--kv", kv, "--json"]).json();
        report["nodes"][0]["kv_cache_bytes"].as_u64().expect("a number")
    };
    for kv in ["f16", "f32", "q80"] {
        let text = generate(&files, &["--temperature", "0", "--kv", kv, "--quiet"]).quiet_success();
        assert!(text.len() > 1, "a {kv} cache says nothing");
    }
    assert_eq!(kv_bytes("f32"), 2 * kv_bytes("f16"));
    assert_eq!(kv_bytes("q80") * 16, kv_bytes("f32") * 34 / 8);
}

#[test]
fn the_text_does_not_depend_on_the_instruction_set() {
    let files = Files::new("tiny-qwen3-moe", 2);
    let args = ["generate", "--model", &files.model, "--prompt", "a day at the sea", "--max-tokens", "24", "--quiet"];
    let args = [&args[..], &["--temperature", "0"]].concat();
    let text = dair_knowing(&[("DAIR_ISA", "scalar")], &args).quiet_success();
    for isa in dair_host::machine::cpu::isas() {
        assert_eq!(dair(&[&args[..], &["--isa", isa.name()]].concat()).quiet_success(), text, "{isa}");
    }
}

#[test]
fn quiet_prints_the_text_alone_and_json_the_same_text_with_figures() {
    let files = Files::new("tiny-qwen3", 3);
    let args = ["--temperature", "0", "--ignore-eos"];
    let report = generate(&files, &[&args[..], &["--json"]].concat()).json();
    let text = generate(&files, &[&args[..], &["--quiet"]].concat()).quiet_success();
    assert_eq!(report["text"].as_str().map(|text| format!("{text}\n")), Some(text.clone()));
    assert_eq!((&report["generated_tokens"], &report["finish_reason"]), (&Value::from(24), &Value::from("length")));
    assert_eq!(report["network"], Value::Null);
    let ids: Vec<_> = report["ids"].as_array().expect("ids").iter().map(Value::to_string).collect();
    let tokens = ["detokenize", "--model", &files.model, "--json"].into_iter().chain(ids.iter().map(|id| &id[..]));
    let said = dair(&tokens.collect::<Vec<_>>()).json();
    // Bytes that are no characters are told differently there.
    let characters = |text: &Value| text.as_str().expect("a text").replace('\u{FFFD}', "");
    assert_eq!((ids.len(), characters(&said["text"])), (24, characters(&report["text"])), "{ids:?}");
    for figure in [
        &report["load_seconds"],
        &report["prefill"]["tokens_per_second"],
        &report["decode"]["tokens_per_second"],
        &report["peak_memory_bytes"],
    ] {
        assert!(figure.as_f64().is_some_and(|figure| figure > 0.0), "{report}");
    }
    let loud = generate(&files, &args);
    assert_eq!((loud.code, loud.stdout), (Some(0), text));
    for figure in ["load", "prefill", "decode", "memory", "tokens/s"] {
        assert!(loud.stderr.contains(figure), "{figure} is missing in {}", loud.stderr);
    }
}

#[test]
fn the_prompt_may_come_from_a_file_or_standard_input() {
    let files = Files::new("tiny-llama", 4);
    let prompt = "a day at the sea";
    let file = files.write("prompt.txt", prompt.as_bytes());
    let args = ["generate", "--model", &files.model, "--temperature", "0", "--max-tokens", "8", "--quiet"];
    let text = dair(&[&args[..], &["--prompt", prompt]].concat()).quiet_success();
    assert_eq!(dair(&[&args[..], &["--file", &file]].concat()).quiet_success(), text);
    assert_eq!(dair_reading(prompt, &[&args[..], &["--file", "-"]].concat()).quiet_success(), text);
}

#[test]
fn the_second_answer_of_a_chat_knows_the_first_turn() {
    let args = ["--temperature", "0", "--quiet"];
    let chat = |files: &Files, max_tokens: &str, input: &str| {
        let chat = ["chat", "--model", &files.model, "--max-tokens", max_tokens];
        dair_reading(input, &[&chat[..], &args].concat()).quiet_success()
    };
    // A model that nobody trained says anything, but the comparison needs an answer that encodes to the token that
    // was sampled: one letter or punctuation mark, then the end.
    let is_plain = |answer: &str| matches!(answer.trim_end_matches('\n').as_bytes(), [b'!'..=b'~']);
    let (files, first) = (1..)
        .map(chat_files)
        .take(200)
        .find_map(|files| Some(chat(&files, "1", "name a fruit\n")).filter(|a| is_plain(a)).map(|a| (files, a)))
        .expect("one of 200 models answers with one plain letter");

    let both = chat(&files, "1", "name a fruit\nand a tree\n");
    let (again, second) = both.split_once('\n').expect("two answers");
    assert_eq!(format!("{again}\n"), first);
    let conversation = format!(
        "<|im_start|>user\nname a fruit<|im_end|>\n<|im_start|>assistant\n{again}<|im_end|>\n\
         <|im_start|>user\nand a tree<|im_end|>\n<|im_start|>assistant\n"
    );
    let generate = ["generate", "--model", &files.model, "--max-tokens", "1", "--prompt", &conversation];
    assert_eq!(second, dair(&[&generate[..], &args].concat()).quiet_success());
}

#[test]
fn a_chat_answers_every_line_and_forgets_when_asked() {
    let files = chat_files(5);
    let chat = |input: &str| {
        let args = ["chat", "--model", &files.model, "--max-tokens", "6", "--temperature", "0", "--json"];
        let answers = dair_reading(input, &args).quiet_success();
        answers.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["text"].clone()).collect()
    };
    let twice: Vec<Value> = chat("name a fruit\n\n/clear\nname a fruit\n/exit\nnobody hears this\n");
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0], twice[1]);
}

#[test]
fn a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large() {
    let header = Header { weights: DType::F32, ..header("tiny-llama") };
    let files = Files::with(&header, 6);
    let mut bytes = fs::read(&files.model).unwrap();
    let mut output = 0..0;
    Layout::new(&Header::parse(&bytes).unwrap()).unwrap().visit(|id, tensor| {
        if id == TensorId::Wcls {
            output = tensor.offset as usize..(tensor.offset + tensor.bytes()) as usize;
        }
    });
    assert!(!output.is_empty());
    bytes[output].fill(0);
    let flat = files.write("flat.m", &bytes);
    let args = ["perplexity", "--model", &flat, "--tokenizer", &files.tokenizer, "--prompt", "the sea is wide"];
    let report = dair(&[&args[..], &["--json"]].concat()).json();
    let perplexity = report["perplexity"].as_f64().expect("a number");
    assert!((perplexity - f64::from(header.vocab_size)).abs() < 1e-9, "{report}");
}

#[test]
fn perplexity_is_the_same_number_in_every_form() {
    let files = Files::new("tiny-llama", 7);
    let args = ["perplexity", "--model", &files.model, "--prompt", "the sea is wide and the day is long"];
    let report = dair(&[&args[..], &["--json"]].concat()).json();
    let value = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name} is missing in {report}"));
    let (perplexity, mean) = (value("perplexity"), value("mean_log_probability"));
    assert!(perplexity > 1.0 && (perplexity.ln() + mean).abs() < 1e-9, "{report}");
    assert!((value("bits_per_token") + mean / 2f64.ln()).abs() < 1e-9, "{report}");
    let quiet = dair(&[&args[..], &["--quiet"]].concat()).quiet_success();
    assert_eq!(quiet, format!("{perplexity:.4}\n"));
    let text = dair(&args).quiet_success();
    let predictions = value("tokens") as u64 - 1;
    assert!(text.starts_with(&format!("perplexity {perplexity:.4} over {predictions} predictions\n")), "{text}");
}
