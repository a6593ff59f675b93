//! A writer of GGUF files, broken ones if asked.

use super::{Tensor, byte_level_tokens};
use dair_core::format::{Arch, Header};
use dair_host::model::convert::ggml::GgmlType;

/// A metadata value.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are the documentation
pub enum Value {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Nested(Vec<Vec<u8>>),
    Raw(u32, Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

/// A GGUF file in the making.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Format version.
    pub version: u32,
    /// Pairs in order.
    pub metadata: Vec<(String, Value)>,
    /// Tensors in order.
    pub tensors: Vec<Tensor>,
    /// Where tensors start: multiples of this.
    pub alignment: usize,
}

impl Gguf {
    /// A model of this shape; its matrices are of type `kind`, its norms F32.
    pub fn of(header: &Header, kind: GgmlType) -> Self {
        let arch = header.arch.name();
        let (key, number) = (|name: &str| format!("{arch}.{name}"), Value::U32);
        let mut metadata = vec![
            ("general.architecture".to_owned(), Value::from(arch)),
            (key("block_count"), number(header.n_layers)),
            (key("context_length"), number(header.seq_len)),
            (key("embedding_length"), number(header.dim)),
            (key("feed_forward_length"), number(header.hidden_dim)),
            (key("attention.head_count"), number(header.n_heads)),
            (key("attention.head_count_kv"), number(header.n_kv_heads)),
            (key("attention.key_length"), number(header.head_dim)),
            (key("attention.value_length"), number(header.head_dim)),
            (key("attention.layer_norm_rms_epsilon"), Value::F32(header.norm_epsilon)),
            (key("rope.freq_base"), Value::F32(header.rope_theta)),
        ];
        if header.arch == Arch::Qwen3Moe {
            metadata.extend([
                (key("expert_count"), number(header.n_experts)),
                (key("expert_used_count"), number(header.n_active_experts)),
                (key("expert_feed_forward_length"), number(header.moe_hidden_dim)),
            ]);
        }
        let kinds =
            byte_level_tokens().into_iter().map(|text| if text.starts_with('<') && text.len() > 1 { 3 } else { 1 });
        metadata.extend(
            [
                ("tokenizer.ggml.model", Value::from("gpt2")),
                ("tokenizer.ggml.pre", Value::from("smollm")),
                ("tokenizer.ggml.token_type", Value::I32s(kinds.collect())),
                ("tokenizer.ggml.tokens", Value::Strs(byte_level_tokens())),
                ("tokenizer.ggml.merges", Value::Strs(["Ġ t", "h e", "Ġt he", "Ċ Ċ"].map(String::from).to_vec())),
                ("tokenizer.ggml.bos_token_id", number(1)),
                ("tokenizer.ggml.eos_token_id", number(2)),
                ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
                ("tokenizer.chat_template", Value::from("{{ '<|im_start|>' }}{{ '<|im_end|>' }}")),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        Self { version: 3, metadata, tensors: tensors(header, kind), alignment: 32 }
    }

    /// Replaces or adds a value.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        match self.metadata.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// Takes a value or a tensor out.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        let before = self.metadata.len() + self.tensors.len();
        self.metadata.retain(|(key, _)| key != name);
        self.tensors.retain(|tensor| tensor.name != name);
        assert_eq!(self.metadata.len() + self.tensors.len() + 1, before, "{name}");
        self
    }

    /// The tensor of this name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The same model in parts, as `gguf-split` makes them: that many tensors in each, all metadata in the first.
    pub fn split(&self, tensors: &[usize]) -> Vec<Self> {
        assert_eq!(tensors.iter().sum::<usize>(), self.tensors.len());
        let mut rest = self.tensors.as_slice();
        let part = |(no, len): (usize, &usize)| {
            let (tensors, others) = rest.split_at(*len);
            rest = others;
            let metadata = if no == 0 { self.metadata.clone() } else { Vec::new() };
            let mut part = Self { metadata, tensors: tensors.to_vec(), ..*self };
            part.set("split.no", Value::Raw(2, (no as u16).to_le_bytes().to_vec()));
            part
        };
        let mut parts: Vec<_> = tensors.iter().enumerate().map(part).collect();
        let count = Value::Raw(2, (parts.len() as u16).to_le_bytes().to_vec());
        for part in &mut parts {
            part.set("split.count", count.clone()).set("split.tensors.count", Value::I32(self.tensors.len() as i32));
        }
        parts
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut out, key);
            emit(&mut out, value);
        }
        let (mut data, mut entries) = (Vec::new(), Vec::new());
        for tensor in &self.tensors {
            string(&mut entries, &tensor.name);
            entries.extend((tensor.dims.len() as u32).to_le_bytes());
            entries.extend(tensor.dims.iter().rev().flat_map(|dim| dim.to_le_bytes()));
            entries.extend(tensor.kind.code().to_le_bytes());
            entries.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(self.alignment), 0);
        }
        out.extend(entries);
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn emit(out: &mut Vec<u8>, value: &Value) {
    let mut typed = |code: u32, bytes: &[u8]| {
        out.extend(code.to_le_bytes());
        out.extend(bytes);
    };
    let array = |element: u32, len: usize| [&element.to_le_bytes()[..], &(len as u64).to_le_bytes()].concat();
    match value {
        Value::U32(value) => typed(4, &value.to_le_bytes()),
        Value::I32(value) => typed(5, &value.to_le_bytes()),
        Value::F32(value) => typed(6, &value.to_le_bytes()),
        Value::Bool(value) => typed(7, &[u8::from(*value)]),
        Value::U64(value) => typed(10, &value.to_le_bytes()),
        Value::F64(value) => typed(12, &value.to_le_bytes()),
        Value::Raw(code, bytes) => typed(*code, bytes),
        Value::Str(text) => {
            typed(8, &[]);
            string(out, text);
        }
        Value::Strs(texts) => {
            typed(9, &array(8, texts.len()));
            texts.iter().for_each(|text| string(out, text));
        }
        Value::I32s(values) => {
            typed(9, &array(5, values.len()));
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Value::F32s(values) => {
            typed(9, &array(6, values.len()));
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Value::Nested(lists) => {
            typed(9, &array(9, lists.len()));
            for list in lists {
                out.extend(array(0, list.len()));
                out.extend(list);
            }
        }
    }
}

/// All tensors of a model of this shape.
fn tensors(header: &Header, kind: GgmlType) -> Vec<Tensor> {
    let [dim, q_dim, kv_dim, ff_dim, head_dim, experts, vocab_size] = [
        header.dim,
        header.q_dim(),
        header.kv_dim(),
        header.ff_dim(),
        header.head_dim,
        header.n_experts,
        header.vocab_size,
    ]
    .map(u64::from);
    let mut tensors = vec![
        Tensor::random("token_embd.weight", kind, &[vocab_size, dim]),
        Tensor::random("output.weight", kind, &[vocab_size, dim]),
        Tensor::random("output_norm.weight", GgmlType::F32, &[dim]),
    ];
    for layer in 0..header.n_layers {
        let mut add = |name: &str, kind, dims: &[u64]| {
            tensors.push(Tensor::random(format!("blk.{layer}.{name}.weight"), kind, dims));
        };
        add("attn_q", kind, &[q_dim, dim]);
        add("attn_k", kind, &[kv_dim, dim]);
        add("attn_v", kind, &[kv_dim, dim]);
        add("attn_output", kind, &[dim, q_dim]);
        if experts > 0 {
            add("ffn_gate_inp", GgmlType::F32, &[experts, dim]);
            add("ffn_gate_exps", kind, &[experts, ff_dim, dim]);
            add("ffn_up_exps", kind, &[experts, ff_dim, dim]);
            add("ffn_down_exps", kind, &[experts, dim, ff_dim]);
        } else {
            add("ffn_gate", kind, &[ff_dim, dim]);
            add("ffn_up", kind, &[ff_dim, dim]);
            add("ffn_down", kind, &[dim, ff_dim]);
        }
        if header.arch != Arch::Llama {
            add("attn_q_norm", GgmlType::F32, &[head_dim]);
            add("attn_k_norm", GgmlType::F32, &[head_dim]);
        }
        add("attn_norm", GgmlType::F32, &[dim]);
        add("ffn_norm", GgmlType::F32, &[dim]);
    }
    tensors
}
