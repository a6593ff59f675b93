//! Tokenizers from outside, cut and changed everywhere: the part of a `.t` file that says how text is cut, `tokenizer.model` and
//! `tokenizer.json`. Always one line that names the file or tokens that exist, never a panic.

use dair_core::format::Arch;
use dair_core::format::tokenizer::{PIPELINE_MAGIC, TokenizerFile};
use dair_core::text::{EncodeOptions, Vocabulary};
use dair_host::chat::tokenizer::Tokenizer;
use dair_host::model::convert::ConvertError;
use dair_host::model::convert::ggml::GgmlType;
use dair_tests::published::{Converted, Folder, header};
use dair_tests::random::Random;
use serde_json::{Value, json};
use std::path::Path;

const TEXT: &str = "  The\n\n\u{2581}cat's 2024 \u{FF10}é日<|im_end|>\u{301}";

/// A folder of a model that converts fast.
fn small() -> Folder {
    let mut header = header(Arch::Llama);
    (header.n_layers, header.hidden_dim) = (1, 32);
    Folder::of(&header, GgmlType::F32)
}

/// One with steps of all sorts.
fn with_steps() -> Folder {
    let mut folder = small();
    folder.tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Strip"}, {"type": "Replace", "pattern": {"Regex": "\\s+x"}, "content": "x"}]});
    folder.tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "MergedWithPrevious"},
        {"type": "ByteLevel"}, {"type": "Digits"}]});
    folder
}

/// Encodes and decodes with a file, if it is one; says whether it was refused.
fn try_out(bytes: &[u8]) -> bool {
    let file = match TokenizerFile::parse(bytes) {
        Ok(file) => file,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return true;
        }
    };
    let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
    let tokenizer = match Tokenizer::new(&file, &mut index) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return true;
        }
    };
    for special in [false, true] {
        if let Ok(ids) = tokenizer.encode(TEXT.as_bytes(), EncodeOptions { start: true, special }) {
            assert!(ids.iter().all(|id| *id < file.header().vocab_size), "{ids:?}");
            tokenizer.decode_text(&ids);
        }
    }
    false
}

#[test]
fn the_part_of_a_file_that_says_how_text_is_cut_may_be_cut_and_changed_anywhere() {
    let whole = convert(&with_steps(), |_| {}).unwrap().tokenizer;
    assert!(!try_out(&whole));
    let magic = PIPELINE_MAGIC.to_le_bytes();
    let start = whole.windows(4).rposition(|window| window == magic).unwrap();
    // Without any of it the file is one of C++ programs.
    assert!(!try_out(&whole[..start]));
    for end in start + 1..whole.len() {
        assert!(try_out(&whole[..end]), "cut at {end}");
    }
    let (seed, mut refused) = (3, 0);
    let mut random = Random::new(seed);
    for at in start..whole.len() {
        let old = whole[at];
        for new in [0, 0xff, old ^ 0x80, old.wrapping_add(1), random.next_u64() as u8] {
            let mut bytes = whole.clone();
            bytes[at] = new;
            refused += u32::from(try_out(&bytes));
        }
        for number in [u32::MAX, i32::MAX as u32, 1 << 16, 0] {
            let mut bytes = whole.clone();
            let end = bytes.len().min(at + 4);
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            refused += u32::from(try_out(&bytes));
        }
    }
    println!("{refused} refusals");
    assert!(refused > 1000, "{refused} refusals");
}

/// Converts a folder after `change` was done to its files.
fn convert(folder: &Folder, change: impl FnOnce(&Path)) -> Result<Converted, ConvertError> {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    folder.write(input.path(), 1);
    change(input.path());
    Converted::of(input.path(), output.path(), None)
}

/// The outcome of a changed tokenizer, and whether it was a refusal.
fn is_refused(result: Result<Converted, ConvertError>) -> bool {
    match result {
        Ok(converted) => {
            try_out(&converted.tokenizer);
            false
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n') && line.len() < 1000, "{line}");
            true
        }
    }
}

/// A protobuf field of bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = content.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend(content);
    out
}

/// A `tokenizer.model` as sentencepiece writes it: unknown, BOS, EOS, bytes, five pieces.
fn sentencepiece() -> Vec<u8> {
    let mut pieces = vec![("<unk>".to_owned(), 2), ("<s>".to_owned(), 3), ("</s>".to_owned(), 3)];
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    pieces.extend(
        [("\u{2581}", 1), ("a", 1), ("\u{2581}a", 1), ("\u{2581}\u{2581}", 4), ("é", 5)]
            .map(|(t, k)| (t.to_owned(), k)),
    );
    let mut out = Vec::new();
    for (id, (text, kind)) in pieces.iter().enumerate() {
        let score = [&[2 << 3 | 5][..], &(-(id as f32)).to_le_bytes()].concat();
        out.extend(field(1, &[&field(1, text.as_bytes())[..], &score, &[3 << 3, *kind]].concat()));
    }
    // BPE; no map of characters, a blank goes before a text, no blanks are removed.
    out.extend(field(2, &[3 << 3, 2]));
    out.extend(field(3, &[&field(1, b"identity")[..], &[3 << 3, 1, 4 << 3, 0]].concat()));
    out
}

/// A folder with a `tokenizer.model` and no `tokenizer.json`.
fn convert_sentencepiece(bytes: &[u8]) -> Result<Converted, ConvertError> {
    let mut folder = small();
    folder.tokenizer_config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    folder.generation_config = json!({});
    convert(&folder, |input| {
        std::fs::remove_file(input.join("tokenizer.json")).unwrap();
        std::fs::write(input.join("tokenizer.model"), bytes).unwrap();
    })
}

#[test]
fn a_sentencepiece_model_says_what_its_tokens_are() {
    let converted = convert_sentencepiece(&sentencepiece()).unwrap();
    let file = TokenizerFile::parse(&converted.tokenizer).unwrap();
    let mut index = vec![0; Vocabulary::index_len(264)];
    let tokenizer = Tokenizer::new(&file, &mut index).unwrap();
    let pieces = |text: &str| -> Vec<Vec<u8>> {
        let ids = tokenizer.encode(text.as_bytes(), EncodeOptions { start: false, special: true }).unwrap();
        assert_eq!(tokenizer.decode(&ids), text.as_bytes());
        ids.iter().map(|id| tokenizer.vocabulary().bytes(*id).unwrap().to_vec()).collect()
    };
    assert_eq!(pieces("a a"), [b" a", b" a"]);
    assert_eq!(pieces("a  a"), [&b" a"[..], b"  ", b"a"], "two blanks are a token that a user defined");
    assert_eq!(pieces("é"), [&b" "[..], b"\xc3", b"\xa9"], "an unused piece is never encoded to");
}

#[test]
fn a_sentencepiece_model_may_be_cut_and_changed_anywhere() {
    let whole = sentencepiece();
    let (seed, mut refused) = (5, 0);
    let mut random = Random::new(seed);
    // Pieces are much alike: the first ones, the last bytes and the settings behind them tell everything.
    let places: Vec<_> = (0..60).chain(whole.len() - 140..whole.len()).collect();
    for &at in &places {
        refused += u32::from(is_refused(convert_sentencepiece(&whole[..at])));
        for new in [0, 0xff, random.next_u64() as u8] {
            let mut bytes = whole.clone();
            bytes[at] = new;
            refused += u32::from(is_refused(convert_sentencepiece(&bytes)));
        }
    }
    println!("{refused} refusals");
    assert!(refused > 200, "{refused} refusals");
}

/// All places in a JSON value.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| places(inner, &format!("{at}/{}", escape(key)), out)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, inner)| places(inner, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

#[test]
fn a_tokenizer_json_with_anything_in_any_place_is_refused_or_harmless() {
    let mut folder = with_steps();
    folder.tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
    let good = folder.tokenizer.clone();
    let mut all = Vec::new();
    places(&good, "", &mut all);
    // One in forty of the ids of tokens will do.
    let chosen = all.iter().enumerate().filter(|(i, place)| !place.starts_with("/model/vocab/") || i % 40 == 0);
    let (mut refused, mut tried) = (0, 0);
    for (_, place) in chosen {
        for other in [
            Value::Null,
            json!(-1),
            json!(1e300),
            json!(4_294_967_296_u64),
            json!(""),
            json!("("),
            json!([[[]]]),
            json!({"type": "Sequence", "normalizers": [{}], "pretokenizers": [{}]}),
        ] {
            folder.tokenizer = good.clone();
            *folder.tokenizer.pointer_mut(place).unwrap() = other;
            refused += u32::from(is_refused(convert(&folder, |_| {})));
            tried += 1;
        }
    }
    println!("{refused} of {tried} refused");
    assert!(refused > tried / 3, "{refused} of {tried}");
}

#[test]
fn a_tokenizer_json_cut_anywhere_is_refused() {
    let folder = with_steps();
    let text = folder.tokenizer.to_string();
    for end in (0..text.len()).step_by(97).chain([text.len() - 1]) {
        let cut = |input: &Path| std::fs::write(input.join("tokenizer.json"), &text.as_bytes()[..end]).unwrap();
        assert!(is_refused(convert(&folder, cut)), "cut at {end}");
    }
    // Nested more deeply than any reader follows.
    for (open, close) in [("[", "]"), ("{\"normalizer\":", "}")] {
        let deep = [open.repeat(100_000), "1".into(), close.repeat(100_000)].concat();
        assert!(is_refused(convert(&folder, |input| std::fs::write(input.join("tokenizer.json"), &deep).unwrap())));
    }
}
