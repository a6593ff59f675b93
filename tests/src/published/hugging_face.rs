//! A writer of Hugging Face folders.

use super::{Tensor, byte_level_tokens};
use dair_core::format::{Arch, Header};
use dair_host::model::convert::ggml::GgmlType;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A folder in the making.
#[derive(Clone, Debug)]
pub struct Folder {
    /// `config.json`
    pub config: Value,
    /// `tokenizer.json`
    pub tokenizer: Value,
    /// `tokenizer_config.json`
    pub tokenizer_config: Value,
    /// `generation_config.json`
    pub generation_config: Value,
    /// All tensors.
    pub tensors: Vec<Tensor>,
}

impl Folder {
    /// A model of this shape with tensors of type `kind`.
    pub fn of(header: &Header, kind: GgmlType) -> Self {
        let mut config = json!({
            "model_type": match header.arch { Arch::Llama => "llama", Arch::Qwen3 => "qwen3", Arch::Qwen3Moe => "qwen3_moe" },
            "hidden_act": "silu",
            "hidden_size": header.dim,
            "intermediate_size": header.hidden_dim,
            "num_hidden_layers": header.n_layers,
            "num_attention_heads": header.n_heads,
            "num_key_value_heads": header.n_kv_heads,
            "head_dim": header.head_dim,
            "max_position_embeddings": header.seq_len,
            "rope_theta": header.rope_theta,
            "rope_scaling": null,
            "rms_norm_eps": if header.norm_epsilon == 1e-5 { 1e-5 } else { 1e-6 },
            "tie_word_embeddings": false,
            "bos_token_id": 1,
            "eos_token_id": 2,
        });
        if header.arch == Arch::Qwen3Moe {
            config["num_experts"] = header.n_experts.into();
            config["num_experts_per_tok"] = header.n_active_experts.into();
            config["moe_intermediate_size"] = header.moe_hidden_dim.into();
            config["norm_topk_prob"] = true.into();
            config["decoder_sparse_step"] = 1.into();
            config["mlp_only_layers"] = json!([]);
        }
        let tokens = byte_level_tokens();
        let is_special = |text: &str| text.starts_with('<') && text.len() > 1;
        let vocab: Map<_, _> = tokens.iter().enumerate().map(|(id, text)| (text.clone(), id.into())).collect();
        let added: Vec<_> = tokens.iter().enumerate().filter(|(_, text)| is_special(text)).collect();
        let added: Vec<_> =
            added.iter().map(|(id, text)| json!({"id": id, "content": text, "special": true})).collect();
        Self {
            config,
            tokenizer: json!({
                "added_tokens": added,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                    {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false}]},
                "post_processor": null,
                "decoder": {"type": "ByteLevel"},
                "model": {"type": "BPE", "vocab": vocab, "merges": [["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["Ċ", "Ċ"]]},
            }),
            tokenizer_config: json!({
                "bos_token": "<|im_start|>",
                "eos_token": {"content": "<|im_end|>", "lstrip": false},
                "chat_template": "{{ '<|im_start|>' }}{{ '<|im_end|>' }}",
            }),
            generation_config: json!({"eos_token_id": [2, 0]}),
            tensors: tensors(header, kind),
        }
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        let before = self.tensors.len();
        self.tensors.retain(|tensor| tensor.name != name);
        assert_eq!(self.tensors.len() + 1, before, "{name}");
        self
    }

    /// Writes everything, the tensors into `shards` files.
    pub fn write(&self, folder: &Path, shards: usize) {
        let json = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
        json("config.json", &self.config);
        json("tokenizer.json", &self.tokenizer);
        json("tokenizer_config.json", &self.tokenizer_config);
        json("generation_config.json", &self.generation_config);
        if shards == 1 {
            std::fs::write(folder.join("model.safetensors"), safetensors(&self.tensors)).unwrap();
            return;
        }
        let mut weight_map = Map::new();
        for (n, part) in self.tensors.chunks(self.tensors.len().div_ceil(shards)).enumerate() {
            let name = format!("model-{:05}-of-{shards:05}.safetensors", n + 1);
            std::fs::write(folder.join(&name), safetensors(part)).unwrap();
            weight_map.extend(part.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
        }
        json("model.safetensors.index.json", &json!({"metadata": {"total_size": 0}, "weight_map": weight_map}));
    }
}

/// A safetensors file.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut table = Map::new();
    table.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut data: Vec<u8> = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(&tensor.bytes);
        let entry = json!({"dtype": tensor.kind.name(), "shape": tensor.dims, "data_offsets": [start, data.len()]});
        table.insert(tensor.name.clone(), entry);
    }
    let table = Value::Object(table).to_string();
    let mut out = (table.len() as u64).to_le_bytes().to_vec();
    out.extend(table.as_bytes());
    out.extend(data);
    out
}

/// All tensors of a model of this shape.
fn tensors(header: &Header, kind: GgmlType) -> Vec<Tensor> {
    let [dim, q_dim, kv_dim, ff_dim, head_dim, vocab_size] =
        [header.dim, header.q_dim(), header.kv_dim(), header.ff_dim(), header.head_dim, header.vocab_size]
            .map(u64::from);
    let mut tensors = vec![
        Tensor::random("lm_head.weight", kind, &[vocab_size, dim]),
        Tensor::random("model.embed_tokens.weight", kind, &[vocab_size, dim]),
        Tensor::random("model.norm.weight", kind, &[dim]),
    ];
    for layer in 0..header.n_layers {
        let mut add = |name: &str, dims: &[u64]| {
            tensors.push(Tensor::random(format!("model.layers.{layer}.{name}.weight"), kind, dims));
        };
        add("input_layernorm", &[dim]);
        add("post_attention_layernorm", &[dim]);
        add("self_attn.q_proj", &[q_dim, dim]);
        add("self_attn.k_proj", &[kv_dim, dim]);
        add("self_attn.v_proj", &[kv_dim, dim]);
        add("self_attn.o_proj", &[dim, q_dim]);
        if header.arch != Arch::Llama {
            add("self_attn.q_norm", &[head_dim]);
            add("self_attn.k_norm", &[head_dim]);
        }
        if header.n_experts > 0 {
            add("mlp.gate", &[header.n_experts.into(), dim]);
        }
        let prefixes: Vec<_> = (0..header.n_experts).map(|expert| format!("mlp.experts.{expert}")).collect();
        for prefix in if prefixes.is_empty() { vec!["mlp".to_owned()] } else { prefixes } {
            add(&format!("{prefix}.gate_proj"), &[ff_dim, dim]);
            add(&format!("{prefix}.up_proj"), &[ff_dim, dim]);
            add(&format!("{prefix}.down_proj"), &[dim, ff_dim]);
        }
    }
    tensors
}
