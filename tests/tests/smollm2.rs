//! A real model against recordings of two other implementations.
//!
//! `DAIR_SMOLLM2` names the folder with the converted files (`tests/golden/README.md`); without it these tests fail, so
//! they run only when they are asked for: `cargo test -p dair-tests --test smollm2 -- --ignored`.

use dair_core::exec::Engine;
use dair_core::format::Header;
use dair_core::io::Alone;
use dair_core::kernels::KvType;
use dair_core::plan::Cut;
use dair_core::text::EncodeOptions;
use dair_host::chat::tokenizer::TokenizerBytes;
use dair_host::machine::cpu::{best_kernels, threads};
use dair_host::machine::pool::Threads;
use dair_host::model::Model;
use dair_tests::compare::argmax;
use dair_tests::run::{feed, with_engine};
use dair_tests::trace::passes;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const PROMPTS: [&str; 2] = ["france", "gravity"];

fn folder() -> PathBuf {
    let folder = std::env::var_os("DAIR_SMOLLM2");
    folder.expect("DAIR_SMOLLM2 is not set; it names the folder with smollm2-f32.m and its sisters").into()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/smollm2").join(name)
}

fn prompt_text(name: &str) -> String {
    let prompts: Value = serde_json::from_str(&fs::read_to_string(golden("prompts.json")).unwrap()).unwrap();
    prompts[name].as_str().unwrap().to_owned()
}

fn tokens(text: &str) -> Vec<u32> {
    let mut bytes = TokenizerBytes::open(&folder().join("smollm2-f32.t")).unwrap();
    let tokenizer = bytes.tokenizer(Some(49_152)).unwrap();
    tokenizer.encode(text.as_bytes(), EncodeOptions { start: false, special: true }).unwrap()
}

fn with_model<R>(file: &str, kv: KvType, body: impl FnOnce(&mut Engine<'_, [u8], Threads>) -> R) -> R {
    let model = Model::open(&folder().join(file)).unwrap();
    let header: &Header = model.header();
    let cut = Cut { seq_len: 512, ..Cut::single(header) };
    let pool = Threads::new(threads()).unwrap();
    with_engine(&model.file, (&cut, kv, 0), (&pool, best_kernels()), 0, body)
}

/// The two largest logits and their tokens.
fn top_two(logits: &[f32]) -> [(u32, f32); 2] {
    let best = argmax(logits);
    let mut others = logits.to_vec();
    others[best] = f32::NEG_INFINITY;
    [best, argmax(&others)].map(|id| (id as u32, logits[id]))
}

/// The two most likely tokens behind the prompt, and behind each token of `answer` but the last.
fn behind(file: &str, kv: KvType, prompt: &[u32], answer: &[u32]) -> Vec<[(u32, f32); 2]> {
    let tokens = [prompt, &answer[..answer.len() - 1]].concat();
    let rows = with_model(file, kv, |engine| feed(engine, &mut Alone, &tokens, 0, &[32]));
    rows[prompt.len() - 1..].iter().map(|row| top_two(row)).collect()
}

/// Greedy decoding; the two most likely tokens behind the prompt and behind each token that followed.
fn greedy(file: &str, kv: KvType, prompt: &[u32], len: usize) -> Vec<[(u32, f32); 2]> {
    with_model(file, kv, |engine| {
        let mut tops = vec![top_two(feed(engine, &mut Alone, prompt, 0, &[32]).last().unwrap())];
        while tops.len() < len {
            let (token, position) = (tops[tops.len() - 1][0].0, prompt.len() + tops.len() - 1);
            tops.push(top_two(&feed(engine, &mut Alone, &[token], position as u32, &[1])[0]));
        }
        tops
    })
}

/// `exp(-mean ln p)` over all tokens of the text but the first.
fn perplexity(file: &str, kv: KvType) -> f64 {
    let tokens = tokens(fs::read_to_string(golden("alice.txt")).unwrap().trim_end());
    assert_eq!(tokens.len(), 303);
    let logits = with_model(file, kv, |engine| feed(engine, &mut Alone, &tokens, 0, &[32]));
    let log_p = logits.iter().zip(&tokens[1..]).map(|(logits, token)| {
        let largest = f64::from(logits[argmax(logits)]);
        let sum: f64 = logits.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        f64::from(logits[*token as usize]) - largest - sum.ln()
    });
    (-log_p.sum::<f64>() / (tokens.len() - 1) as f64).exp()
}

#[test]
#[ignore = "needs DAIR_SMOLLM2, see CONTRIBUTING"]
fn prompts_become_the_recorded_tokens() {
    for name in PROMPTS {
        let fed: Vec<_> =
            passes(&golden(&format!("{name}-f32.tsv"))).into_iter().flat_map(|pass| pass.tokens).collect();
        let prompt = tokens(&prompt_text(name));
        assert!(fed.starts_with(&prompt), "{name}: {prompt:?}");
    }
}

#[test]
#[ignore = "needs DAIR_SMOLLM2, see CONTRIBUTING"]
fn f32_answers_token_for_token_as_the_cpp_system_does() {
    for name in PROMPTS {
        let passes = passes(&golden(&format!("{name}-f32.tsv")));
        let prompt = tokens(&prompt_text(name));
        // Passes that end inside of the prompt say nothing about the answer.
        let answer = passes.iter().filter(|pass| pass.position as usize + pass.tokens.len() >= prompt.len());
        let answer: Vec<_> = answer.collect();
        let got = greedy("smollm2-f32.m", KvType::F32, &prompt, answer.len());
        let mut worst = 0f32;
        for (got, pass) in got.iter().zip(&answer) {
            assert_eq!(got.map(|(id, _)| id), [pass.top.0, pass.second.0], "{name}: position {}", pass.position);
            for (got, want) in got.iter().zip([pass.top, pass.second]) {
                worst = worst.max((got.1 - want.1).abs());
            }
        }
        println!("{name}: {} tokens, the two largest logits within {worst:.1e}", answer.len());
        assert!(answer.len() >= 60 && worst < 5e-4, "{name}: logits differ by {worst}");
    }
}

/// Behind each token of llama.cpp's answer the next one is what it is there, or nearly as likely.
#[test]
#[ignore = "needs DAIR_SMOLLM2, see CONTRIBUTING"]
fn q40_goes_on_as_llama_cpp_does_up_to_near_ties() {
    for name in PROMPTS {
        let want = llama_cpp_answer(name);
        let answer: Vec<_> = want.iter().map_while(|want| u32::try_from(want[0].0).ok()).collect();
        let got = behind("smollm2-q40.m", KvType::F32, &tokens(&prompt_text(name)), &answer);
        // Both round activations to 8 bits, in blocks of different lengths: which of them fall on the other side of an edge,
        // and so how far logits are apart, depends on the last bit of sums.
        let pairs = || got.iter().zip(&want);
        type Tops<'t> = (&'t [(u32, f32); 2], &'t [(i64, f32); 2]);
        let is_same = |(got, want): &Tops<'_>| i64::from(got[0].0) == want[0].0;
        let apart = pairs().filter(is_same).map(|(got, want)| (got[0].1 - want[0].1).abs()).fold(0f32, f32::max);
        let others: Vec<_> = pairs().filter(|pair| !is_same(pair)).map(|(_, want)| want[0].1 - want[1].1).collect();
        let widest = others.iter().copied().fold(0f32, f32::max);
        println!(
            "{name}: {} of {} tokens as llama.cpp, logits within {apart:.2}; the others up to {widest:.3} behind its best",
            got.len() - others.len(),
            got.len()
        );
        assert!(got.len() >= 40 && others.len() * 8 <= got.len(), "{name}: {} tokens differ", others.len());
        // Two logits that far off change places where they are within twice as much.
        assert!(apart < 1.0 && widest < 2.0 * apart, "{name}: logits {apart} apart, {widest} between the two best");
    }
}

/// Recorded tokens, in our ids, and logits: the most likely and the second.
fn llama_cpp_answer(prompt: &str) -> Vec<[(i64, f32); 2]> {
    let trace = fs::read_to_string(golden(&format!("{prompt}-q40-llamacpp.tsv"))).unwrap();
    let row = |line: &str| {
        let fields: Vec<_> = line.split('\t').collect();
        // 17 special tokens come first there; below 0 is one of them.
        let token = |field: usize| fields[field].parse::<i64>().unwrap() - 17;
        let logit = |field: usize| fields[field].parse().unwrap();
        [(token(1), logit(2)), (token(3), logit(4))]
    };
    trace.lines().map(row).collect()
}

#[test]
#[ignore = "needs DAIR_SMOLLM2, see CONTRIBUTING"]
fn perplexities_are_those_of_other_implementations() {
    for (file, low, high) in [
        ("smollm2-f32.m", 24.734, 24.754),
        ("smollm2-q80.m", 24.74 * 0.995, 24.74 * 1.005),
        ("smollm2-q40.m", 36.5, 37.6),
    ] {
        for kv in KvType::ALL {
            let perplexity = perplexity(file, kv);
            println!("{file}, {kv} cache: {perplexity:.3}");
            // A Q80 cache moves it by half a percent, to either side.
            let slack = if kv == KvType::Q80 { 0.01 * perplexity } else { 0.0 };
            let (low, high) = (low - slack, high + slack);
            assert!(low < perplexity && perplexity < high, "{file}, {kv}: {perplexity}; allowed: {low} to {high}");
        }
    }
}
