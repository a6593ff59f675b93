//! A tiny model as others publish it: a Hugging Face folder, every weight a small number.

use serde_json::{Map, json};
use std::fs;
use std::path::Path;

const DIM: usize = 32;
const VOCAB: usize = 258;

/// Writes a Llama of one layer with a vocabulary of bytes, BOS and EOS.
pub fn write_folder(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    let write = |name: &str, value: serde_json::Value| {
        fs::write(folder.join(name), value.to_string()).expect("a file");
    };
    write(
        "config.json",
        json!({"model_type": "llama", "hidden_size": DIM, "intermediate_size": DIM, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}),
    );
    // As byte-level vocabularies spell them: printable bytes as they are, the others from U+0100 on.
    let is_printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256).filter(|byte| !is_printable(byte)).count() as u32;
    let codes = (0..256).filter(is_printable).chain(256..256 + others);
    let vocab: Map<_, _> =
        codes.zip(0..).map(|(code, id)| (char::from_u32(code).expect("a letter").to_string(), json!(id))).collect();
    write(
        "tokenizer.json",
        json!({"added_tokens": [{"id": 256, "content": "<s>", "special": true}, {"id": 257, "content": "</s>", "special": true}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            "decoder": {"type": "ByteLevel"}, "post_processor": null, "normalizer": null,
            "model": {"type": "BPE", "vocab": vocab, "merges": []}}),
    );
    write("tokenizer_config.json", json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}));
    fs::write(folder.join("model.safetensors"), tensors()).expect("a file");
}

fn tensors() -> Vec<u8> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, DIM])];
    shapes.push(("model.norm.weight".to_owned(), vec![DIM]));
    shapes.extend(["input_layernorm", "post_attention_layernorm"].map(|name| (layer(name), vec![DIM])));
    let matrices = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let matrices = matrices.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    shapes.extend(matrices.map(|name| (layer(name), vec![DIM, DIM])));
    let (mut table, mut data) = (Map::new(), Vec::new());
    for (name, shape) in shapes {
        let start = data.len();
        let values = (0..shape.iter().product()).map(|n: usize| ((n * 7 + start) % 13) as f32 / 13.0 - 0.4);
        data.extend(values.flat_map(f32::to_le_bytes));
        table.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let table = serde_json::Value::Object(table).to_string();
    [&(table.len() as u64).to_le_bytes()[..], table.as_bytes(), &data].concat()
}

/// Writes a model of the same shape as a GGUF file.
pub fn write_gguf(path: &Path) {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let entry = |key: &str, kind: u32, value: Vec<u8>| [string(key), kind.to_le_bytes().to_vec(), value].concat();
    let text = |key: &str, value: &str| entry(key, 8, string(value));
    let number = |key: &str, value: usize| entry(key, 4, (value as u32).to_le_bytes().to_vec());
    let list = |key: &str, kind: u32, values: Vec<Vec<u8>>| {
        let head = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        entry(key, 9, [head, values.concat()].concat())
    };
    // Bytes by their names, after BOS and EOS: what SentencePiece calls them.
    let tokens =
        ["<s>".to_owned(), "</s>".to_owned()].into_iter().chain((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let kinds = (0..VOCAB).map(|id| if id < 2 { 3i32 } else { 6 }.to_le_bytes().to_vec());
    let metadata = [
        text("general.architecture", "llama"),
        number("llama.block_count", 1),
        number("llama.context_length", 64),
        number("llama.embedding_length", DIM),
        number("llama.feed_forward_length", DIM),
        number("llama.attention.head_count", 2),
        entry("llama.attention.layer_norm_rms_epsilon", 6, 1e-5f32.to_le_bytes().to_vec()),
        text("tokenizer.ggml.model", "llama"),
        list("tokenizer.ggml.tokens", 8, tokens.map(|token| string(&token)).collect()),
        list("tokenizer.ggml.scores", 6, vec![0f32.to_le_bytes().to_vec(); VOCAB]),
        list("tokenizer.ggml.token_type", 5, kinds.collect()),
        number("tokenizer.ggml.bos_token_id", 0),
        number("tokenizer.ggml.eos_token_id", 1),
    ];
    let layer = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let mut tensors =
        vec![("token_embd.weight".to_owned(), vec![DIM, VOCAB]), ("output_norm.weight".into(), vec![DIM])];
    tensors.extend(["attn_norm", "ffn_norm"].map(|name| (format!("blk.0.{name}.weight"), vec![DIM])));
    tensors.extend(layer.map(|name| (format!("blk.0.{name}.weight"), vec![DIM, DIM])));
    let (mut table, mut data) = (Vec::new(), Vec::new());
    for (name, dims) in &tensors {
        table.extend([string(name), (dims.len() as u32).to_le_bytes().to_vec()].concat());
        table.extend(dims.iter().flat_map(|dim| (*dim as u64).to_le_bytes()));
        table.extend([&0u32.to_le_bytes()[..], &(data.len() as u64).to_le_bytes()].concat());
        let values = (0..dims.iter().product()).map(|n: usize| ((n * 7) % 13) as f32 / 13.0 - 0.4);
        data.extend(values.flat_map(f32::to_le_bytes));
    }
    let counts = [tensors.len() as u64, metadata.len() as u64].map(u64::to_le_bytes).concat();
    let mut bytes = [b"GGUF\x03\0\0\0".to_vec(), counts, metadata.concat(), table].concat();
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    fs::write(path, [bytes, data].concat()).expect("a file");
}
