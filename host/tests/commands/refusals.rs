//! Every command with files that are missing, broken or do not belong together: one line, exit code 1, no panic.

use crate::model::{Files, header};
use crate::run::{Outcome, dair, dair_knowing, dair_reading, host_worker, host_worker_knowing};
use dair_core::format::model::EMITTED_BYTES;
use dair_core::format::tokenizer::{TokenizerHeader, TokenizerWriter};
use dair_host::synthetic;
use std::fs;

/// Runs each command that opens a model with this one and this tokenizer.
fn with_every_command(model: &str, tokenizer: &str, mut each: impl FnMut(Outcome)) {
    let files = ["--model", model, "--tokenizer", tokenizer];
    for args in [&["generate", "--prompt", "a", "--max-tokens", "1"][..], &["perplexity", "--prompt", "a b c"]] {
        each(dair(&[args, &files].concat()));
    }
    each(dair_reading("a\n", &[&["chat", "--max-tokens", "1"], &files[..]].concat()));
}

#[test]
fn a_missing_file_is_named() {
    let files = Files::new("tiny-llama", 1);
    let missing = files.path("nowhere.m");
    with_every_command(&missing, &files.tokenizer, |outcome| outcome.refused(&[&missing, "No such file"]));
    with_every_command(&files.model, &missing, |outcome| outcome.refused(&[&missing, "No such file"]));
    dair(&["inspect", "--model", &missing]).refused(&[&missing, "No such file"]);
    dair(&["convert", &missing, &files.path("out.m")]).refused(&[&missing, "No such file"]);
    dair(&["generate", "--model", &files.model, "--file", &missing]).refused(&[&missing, "No such file"]);
    assert_eq!(files.names(), ["m.m", "m.t"]);
}

#[test]
fn heads_that_are_no_whole_blocks_have_no_q80_cache() {
    let files = Files::new("tiny-llama", 1);
    let parts = ["head_dim is 16", "q80 KV cache", "multiple of 32", "--kv f16"];
    dair(&["generate", "--model", &files.model, "--prompt", "a", "--kv", "q80"]).refused(&parts);
    dair(&["inspect", "--model", &files.model, "--kv", "q80"]).refused(&parts);
}

#[test]
fn a_folder_is_no_model() {
    let files = Files::new("tiny-llama", 1);
    let folder = files.path("");
    with_every_command(&folder, &files.tokenizer, |outcome| outcome.refused(&[&folder]));
    with_every_command(&files.model, &folder, |outcome| outcome.refused(&[&folder]));
    dair(&["inspect", "--model", &folder]).refused(&[&folder]);
}

#[test]
fn a_model_cut_anywhere_is_refused() {
    let files = Files::new("tiny-llama31", 2);
    let bytes = fs::read(&files.model).unwrap();
    let cuts = (0..EMITTED_BYTES).step_by(3).chain((EMITTED_BYTES..bytes.len()).step_by(bytes.len() / 40));
    for len in cuts.chain([bytes.len() - 1]) {
        let cut = files.write("cut.m", &bytes[..len]);
        dair(&["inspect", "--model", &cut]).refused(&[&cut, &len.to_string()]);
    }
    let cut = files.write("cut.m", &bytes[..bytes.len() / 2]);
    with_every_command(&cut, &files.tokenizer, |outcome| outcome.refused(&[&cut, &bytes.len().to_string()]));
    let long = files.write("long.m", &[&bytes[..], &[0; 5]].concat());
    with_every_command(&long, &files.tokenizer, |outcome| outcome.refused(&[&long, &bytes.len().to_string()]));
}

/// Every field of the header with every extreme value: the file no longer fits its header, or the field does not matter.
#[test]
fn absurd_header_values_are_refused_or_harmless() {
    for preset in ["tiny-llama", "tiny-llama31", "tiny-qwen3-moe"] {
        let files = Files::new(preset, 3);
        let bytes = fs::read(&files.model).unwrap();
        let mut refused = 0;
        for pair in 0..(EMITTED_BYTES - 8) / 8 {
            for value in [0, 1, 3, -1, i32::MAX, i32::MIN, 0x4000_0000, 0x0100_0001] {
                let mut bytes = bytes.clone();
                let at = 8 + 8 * pair + 4;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                let absurd = files.write("absurd.m", &bytes);
                let args = ["generate", "--model", &absurd, "--tokenizer", &files.tokenizer];
                let outcome = dair(&[&args[..], &["--prompt", "a", "--max-tokens", "1", "--quiet"]].concat());
                if outcome.code != Some(0) {
                    refused += 1;
                    outcome.refused(&[]);
                }
            }
        }
        assert!(refused > 60, "{preset}: {refused} refusals");
    }
}

#[test]
fn a_header_of_absurd_length_is_refused() {
    let files = Files::new("tiny-llama", 3);
    for len in [0, 7, 9, 12, -8, i32::MAX, i32::MIN, 1 << 20] {
        let mut bytes = fs::read(&files.model).unwrap();
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        let absurd = files.write("absurd.m", &bytes);
        dair(&["inspect", "--model", &absurd]).refused(&[&absurd, "header"]);
    }
}

#[test]
fn a_file_of_another_kind_is_no_tokenizer_and_no_model() {
    let files = Files::new("tiny-llama", 4);
    with_every_command(&files.model, &files.model, |outcome| outcome.refused(&[&files.model, "tokenizer"]));
    with_every_command(&files.tokenizer, &files.tokenizer, |outcome| outcome.refused(&[&files.tokenizer, ".m model"]));
    let noise = files.write("noise.gguf", b"this is not a model of any kind");
    dair(&["convert", &noise, &files.path("out.m")]).refused(&[&noise]);
    let empty = files.write("empty.gguf", b"");
    dair(&["convert", &empty, &files.path("out.m")]).refused(&[&empty]);
    assert_eq!(files.names(), ["empty.gguf", "m.m", "m.t", "noise.gguf"]);
}

#[test]
fn a_tokenizer_cut_anywhere_is_refused() {
    let files = Files::new("tiny-llama", 5);
    let bytes = fs::read(&files.tokenizer).unwrap();
    for len in (0..bytes.len()).step_by(bytes.len() / 60).chain([bytes.len() - 1]) {
        let cut = files.write("cut.t", &bytes[..len]);
        dair(&["generate", "--model", &files.model, "--tokenizer", &cut, "--prompt", "a"]).refused(&[&cut]);
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let files = Files::new("tiny-llama", 6);
    let own = header("tiny-llama").vocab_size.to_string();
    let larger = files.write("other.t", &synthetic::tokenizer_bytes(400));
    with_every_command(&files.model, &larger, |outcome| outcome.refused(&[&larger, "400", &own]));
}

/// A tokenizer without BOS and without a chat template.
fn bare_tokenizer() -> Vec<u8> {
    let eos = [255].into_iter().collect();
    let header =
        TokenizerHeader { vocab_size: 256, max_token_len: 1, bos: None, eos, add_bos: false, chat_template: None };
    let mut writer = TokenizerWriter::new(Vec::new(), &header).unwrap();
    for byte in 0..=255 {
        writer.push(0.0, &[byte]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn an_empty_prompt_is_refused_where_nothing_is_put_before_it() {
    let files = Files::new("tiny-llama", 7);
    let bare = files.write("bare.t", &bare_tokenizer());
    let common = ["--quiet", "--model", &files.model, "--tokenizer", &bare, "--prompt"];
    dair(&[&["generate"], &common[..], &[""]].concat()).refused(&["prompt has no tokens"]);
    dair(&[&["perplexity"], &common[..], &["a"]].concat()).refused(&["1 tokens", "at least 2"]);
    dair(&[&["generate"], &common[..], &["a", "--chat"]].concat()).refused(&["template"]);
    // With a BOS token there is something to continue.
    let args = ["generate", "--model", &files.model, "--max-tokens", "1", "--prompt", "", "--quiet"];
    dair(&args).quiet_success();
}

#[test]
fn a_text_that_does_not_fit_the_context_is_refused_with_both_lengths() {
    let files = Files::new("tiny-llama", 8);
    let context = header("tiny-llama").seq_len.to_string();
    let long = "0123456789".repeat(20);
    let file = files.write("long.txt", long.as_bytes());
    for command in ["generate", "perplexity"] {
        dair(&[command, "--model", &files.model, "--file", &file]).refused(&["201", &context]);
    }
    dair(&["generate", "--model", &files.model, "--max-seq-len", "16", "--prompt", &long]).refused(&["201", "16"]);
    dair_reading(&format!("{long}\n"), &["chat", "--model", &files.model]).refused(&[&context, "--max-seq-len"]);
}

#[test]
fn a_text_that_is_not_utf8_is_refused_with_the_place() {
    let files = Files::new("tiny-llama", 9);
    let file = files.write("latin1.txt", b"na\xEFve");
    dair(&["generate", "--model", &files.model, "--file", &file]).refused(&[&file, "UTF-8", "byte 2"]);
}

#[test]
fn a_number_of_nodes_that_no_cluster_has_is_refused() {
    let files = Files::new("tiny-llama", 10);
    dair(&["inspect", "--model", &files.model, "--nodes", "4000000000"]).misused(&["--nodes", "4000000000"]);
}

#[test]
fn a_relaxed_prefill_where_all_products_are_exact_is_refused() {
    let files = Files::new("tiny-llama", 11);
    let args = ["--isa", "scalar", "--prefill", "relaxed"];
    let generate = ["generate", "--model", &files.model, "--prompt", "a", "--max-tokens", "1", "--quiet"];
    dair(&[&generate[..], &args].concat()).refused(&["relaxed", "scalar", "BF16"]);
    dair(&[&["bench"][..], &args].concat()).refused(&["relaxed", "scalar", "BF16"]);
    host_worker(&[&args[..], &["--port", "0"]].concat()).refused(&["relaxed", "scalar", "BF16"]);
    host_worker(&["--prefill", "quick"]).misused(&["--prefill", "quick", "exact", "relaxed"]);
}

#[test]
fn an_instruction_set_that_is_not_here_is_refused_with_those_that_are() {
    let files = Files::new("tiny-llama", 11);
    let args = ["generate", "--model", &files.model, "--prompt", "a", "--max-tokens", "1", "--quiet"];
    dair(&[&args[..], &["--isa", "mmx"]].concat()).misused(&["--isa", "mmx", "scalar"]);
    host_worker(&["--isa", "mmx"]).misused(&["--isa", "mmx", "scalar"]);
    let wrong = [("DAIR_ISA", "mmx")];
    dair_knowing(&wrong, &args).refused(&["DAIR_ISA=mmx", "scalar"]);
    host_worker_knowing(&wrong, &["--port", "0"]).refused(&["DAIR_ISA=mmx", "scalar"]);
    // What a flag says, the environment need not know.
    dair_knowing(&wrong, &[&args[..], &["--isa", "scalar"]].concat()).quiet_success();
}
