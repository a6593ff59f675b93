//! Tokenizer files and prompts of recorded C++ sessions.

use dair_core::format::tokenizer::{TokenizerFile, TokenizerWriter};
use dair_core::text::{Decoder, EncodeOptions, Vocabulary, encode_scratch_len};
use dair_host::chat::template::choose;
use dair_tests::golden::{CASES, Case};
use serde_json::Value;

fn json(case: &Case, file: &str) -> Value {
    serde_json::from_slice(&case.bytes(file)).unwrap_or_else(|error| panic!("{}: {error}", case.path(file).display()))
}

/// Encodes the beginning of a conversation.
fn encode(vocab: &Vocabulary<'_>, text: &str) -> Vec<u32> {
    let mut scratch = vec![0; encode_scratch_len(text.len())];
    vocab.encode(text.as_bytes(), EncodeOptions { start: true, special: true }, &mut scratch).unwrap().to_vec()
}

#[test]
fn prompts_become_the_tokens_that_the_recorded_root_fed() {
    for case in CASES.map(Case::open) {
        let bytes = case.bytes("tokenizer.t");
        let file = TokenizerFile::parse(&bytes).unwrap();
        let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
        let vocab = Vocabulary::new(&file, &mut index);
        let prompt = json(&case, "session.json")["prompt"].as_str().unwrap().to_owned();
        let forwards = json(&case, "forwards.json");
        let fed: Vec<u32> = forwards
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|pass| pass["tokens"].as_array().unwrap())
            .map(|token| token.as_u64().unwrap() as u32)
            .collect();
        let tokens = encode(&vocab, &prompt);
        assert_eq!(tokens.len(), 13, "{}", case.name);
        assert_eq!(tokens, fed[..13], "{}", case.name);

        let (mut decoder, mut text) = (Decoder::new(), String::new());
        for &token in &tokens {
            decoder.push(&vocab, token, &mut text).unwrap();
        }
        assert_eq!(text, prompt);
    }
}

#[test]
fn a_converters_file_is_written_back_byte_for_byte() {
    let bytes = Case::open(CASES[0]).bytes("tokenizer.t");
    let file = TokenizerFile::parse(&bytes).unwrap();
    let header = file.header();
    assert_eq!((header.vocab_size, header.bos, header.add_bos), (320, Some(316), true));
    assert_eq!(header.eos, [317, 319]);

    let mut copy = vec![0; bytes.len()];
    let mut writer = TokenizerWriter::new(copy.as_mut_slice(), header).unwrap();
    for (score, token) in file.tokens() {
        writer.push(score, token).unwrap();
    }
    assert!(writer.finish().unwrap().is_empty());
    assert_eq!(copy, bytes);
}

#[test]
fn the_chat_template_of_a_file_is_run() {
    let bytes = Case::open(CASES[0]).bytes("tokenizer.t");
    let file = TokenizerFile::parse(&bytes).unwrap();
    let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
    let vocab = Vocabulary::new(&file, &mut index);
    let choice = choose(None, &vocab).unwrap();
    assert_eq!((choice.note, choice.template.name()), (None, "the model's chat template"));
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let original = Case::open(CASES[0]).bytes("tokenizer.t");
    for at in 0..original.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = original.clone();
            bytes[at] ^= flip;
            let Ok(file) = TokenizerFile::parse(&bytes) else { continue };
            let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
            let vocab = Vocabulary::new(&file, &mut index);
            let mut scratch = vec![0; encode_scratch_len(20)];
            let options = EncodeOptions { start: true, special: true };
            // Whatever the damage, tokens stay within the vocabulary.
            if let Ok(tokens) = vocab.encode(b"Hello world, the cat", options, &mut scratch) {
                assert!(tokens.iter().all(|&token| token < vocab.vocab_size()));
            }
        }
    }
}
