//! The smallest models that show everything, for fuzz targets and their seeds.

use super::{Folder, Gguf, Value, header};
use dair_core::format::{Arch, Header};
use dair_host::model::convert::ggml::GgmlType;
use serde_json::json;

/// Tokens of the smallest vocabulary: special ones first, then letters, merges, and one more special one.
pub const SMALL_TOKENS: [&str; 12] =
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "Ġ", "Ċ", "ab", "Ġa", "abc", "<tool>"];
/// Its merges.
const MERGES: [[&str; 2]; 3] = [["a", "b"], ["Ġ", "a"], ["ab", "c"]];

/// One layer of one head, and a few more rows than tokens.
pub fn small(arch: Arch) -> Header {
    let moe = arch == Arch::Qwen3Moe;
    Header {
        dim: 32,
        hidden_dim: 32,
        moe_hidden_dim: if moe { 32 } else { 0 },
        n_layers: 1,
        n_heads: 1,
        n_kv_heads: 1,
        head_dim: 32,
        vocab_size: SMALL_TOKENS.len() as u32,
        seq_len: 64,
        ..header(arch)
    }
}

/// As [`small`], for two nodes.
pub fn small_for_two() -> Header {
    Header { dim: 64, hidden_dim: 64, n_heads: 2, n_kv_heads: 2, ..small(Arch::Llama) }
}

/// A folder of it, whose `tokenizer.json` has steps of all sorts.
pub fn small_folder() -> Folder {
    let mut folder = Folder::of(&Header { vocab_size: 20, ..small(Arch::Llama) }, GgmlType::F16);
    let special = |id: usize| json!({"id": id, "content": SMALL_TOKENS[id], "special": true});
    let vocab: serde_json::Map<_, _> =
        SMALL_TOKENS.iter().enumerate().map(|(id, text)| ((*text).to_owned(), id.into())).collect();
    folder.tokenizer = json!({
        "added_tokens": [special(0), special(1), special(2), special(11)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Strip"}, {"type": "Replace", "pattern": {"Regex": "\\s+x"}, "content": "x"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "MergedWithPrevious"},
            {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false}]},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {}},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": MERGES},
    });
    folder
}

/// A GGUF file of it.
pub fn small_gguf(arch: Arch, kind: GgmlType) -> Gguf {
    let mut gguf = Gguf::of(&small(arch), kind);
    let kinds = SMALL_TOKENS.iter().map(|text| if text.starts_with('<') { 3 } else { 1 });
    gguf.set("tokenizer.ggml.tokens", Value::Strs(SMALL_TOKENS.map(String::from).to_vec()))
        .set("tokenizer.ggml.token_type", Value::I32s(kinds.collect()))
        .set("tokenizer.ggml.merges", Value::Strs(MERGES.map(|pair| pair.join(" ")).to_vec()));
    gguf
}

/// The same with the scores and pieces of sentencepiece.
pub fn small_gguf_with_scores() -> Gguf {
    let mut gguf = small_gguf(Arch::Llama, GgmlType::Q8_0);
    let tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "<0x61>", "▁", "a", "b", "▁a", "ab", "é", "▁▁"].map(String::from);
    gguf.remove("tokenizer.ggml.merges")
        .remove("tokenizer.ggml.pre")
        .set("tokenizer.ggml.model", Value::from("llama"))
        .set("tokenizer.ggml.scores", Value::F32s((0..12).map(|id| -(id as f32)).collect()))
        .set("tokenizer.ggml.token_type", Value::I32s(vec![2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 4]))
        .set("tokenizer.ggml.tokens", Value::Strs(tokens.to_vec()));
    gguf
}

/// A `tokenizer.model` as sentencepiece writes it.
pub fn small_sentencepiece() -> Vec<u8> {
    let pieces = [
        ("<unk>", 2),
        ("<s>", 3),
        ("</s>", 3),
        ("<0x0A>", 6),
        ("<0x61>", 6),
        ("\u{2581}", 1),
        ("a", 1),
        ("b", 1),
        ("\u{2581}a", 1),
        ("ab", 1),
        ("\u{2581}\u{2581}", 4),
        ("é", 5),
    ];
    let mut out = Vec::new();
    for (id, (text, kind)) in pieces.into_iter().enumerate() {
        let score = [&[2 << 3 | 5][..], &(-(id as f32)).to_le_bytes()].concat();
        out.extend(field(1, &[&field(1, text.as_bytes())[..], &score, &[3 << 3, kind]].concat()));
    }
    // BPE; no map of characters, a blank goes before a text, no blanks are removed.
    out.extend(field(2, &[3 << 3, 2]));
    out.extend(field(3, &[&field(1, b"identity")[..], &[3 << 3, 1, 4 << 3, 0]].concat()));
    out
}

/// A protobuf field of fewer than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128, "{} bytes", content.len());
    [&[number << 3 | 2, content.len() as u8], content].concat()
}
