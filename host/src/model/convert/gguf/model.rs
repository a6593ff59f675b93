//! What the metadata and tensors of a GGUF file mean for a `.m` file.

use super::error::GgufError;
use super::files::GgufFiles;
use super::reader::Gguf;
use super::vocabulary;
use crate::model::convert::error::ConvertError;
use crate::model::convert::ggml::GgmlType;
use crate::model::convert::rope::llama31_of_divisors;
use crate::model::convert::source::{RowOrder, Source, SourceFile, SourceName, StoredTensor};
use dair_core::format::layout::LayerTensor;
use dair_core::format::{Arch, Header, RopeKind, RopeScaling, TensorId};
use dair_core::quant::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";
const ROPE_FREQS: &str = "rope_freqs.weight";

/// Opens a GGUF file, or any part of a model in several, as a model to be converted.
///
/// # Errors
/// Names the key or tensor that is broken, missing or of an unsupported kind.
pub fn open(path: &Path) -> Result<Source, ConvertError> {
    let GgufFiles { files, head, tensors } = GgufFiles::open(path)?;
    let path = &files[0].path.clone();
    let gguf = Gguf::parse(&head, files[0].bytes).map_err(|source| ConvertError::gguf(path, source))?;
    let arch = gguf
        .str("general.architecture")
        .map_err(|source| ConvertError::gguf(path, source))?
        .ok_or_else(|| ConvertError::missing(path, "general.architecture"))?;
    let keys = Keys { gguf: &gguf, path, arch };
    let mut header = keys.header(&tensors)?;
    if let Some(stored) = tensors.get(ROPE_FREQS) {
        header.rope_scaling = rope_scaling(&files[stored.file], stored, &header)?;
        header.rope = if header.rope_scaling.factor == 1.0 { header.rope } else { RopeKind::Llama31 };
    }
    let mut notes = Vec::new();
    let vocabulary = vocabulary::read(&gguf, path, &mut notes)?;
    Ok(Source {
        header,
        tied: !tensors.contains_key(OUTPUT),
        tensors,
        unneeded: BTreeSet::from([ROPE_FREQS.to_owned()]),
        name,
        vocabulary,
        files,
        notes,
    })
}

/// What GGUF calls a tensor of the `.m` file. Rows of q and k are interleaved already where the architecture wants them so.
fn name(id: TensorId, header: &Header) -> SourceName {
    use LayerTensor as T;
    let (layer, tensor) = match id {
        TensorId::Embedding => return SourceName::whole(EMBEDDING, RowOrder::Vocabulary),
        TensorId::Wcls => return SourceName::whole(OUTPUT, RowOrder::Vocabulary),
        TensorId::FinalNorm => return SourceName::whole("output_norm.weight", RowOrder::Stored),
        TensorId::Layer(layer, tensor) => (layer, tensor),
    };
    let (part, expert) = match tensor {
        T::Q => ("attn_q", None),
        T::K => ("attn_k", None),
        T::V => ("attn_v", None),
        T::Wo => ("attn_output", None),
        T::MoeGate => ("ffn_gate_inp", None),
        T::W1(expert) if header.n_experts > 0 => ("ffn_gate_exps", Some(expert)),
        T::W2(expert) if header.n_experts > 0 => ("ffn_down_exps", Some(expert)),
        T::W3(expert) if header.n_experts > 0 => ("ffn_up_exps", Some(expert)),
        T::W1(_) => ("ffn_gate", None),
        T::W2(_) => ("ffn_down", None),
        T::W3(_) => ("ffn_up", None),
        T::QNorm => ("attn_q_norm", None),
        T::KNorm => ("attn_k_norm", None),
        T::Norm0 => ("attn_norm", None),
        T::Norm1 => ("ffn_norm", None),
    };
    SourceName { tensor: format!("blk.{layer}.{part}.weight"), expert, part: (0, 1), order: RowOrder::Stored }
}

/// Llama 3.1 scaling out of the divisors that a file carries.
fn rope_scaling(file: &SourceFile, stored: &StoredTensor, header: &Header) -> Result<RopeScaling, ConvertError> {
    let pairs = u64::from(header.head_dim / 2);
    if stored.kind != GgmlType::F32 || stored.dims != [pairs] {
        let found = format!("{:?} of type {}", stored.dims, stored.kind);
        return Err(ConvertError::refused(&file.path, ROPE_FREQS, found, format!("[{pairs}] of type F32 is needed")));
    }
    let bytes = file.read(stored.offset, pairs * 4)?;
    let divisors: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    llama31_of_divisors(&divisors, header.rope_theta.into(), header.head_dim).ok_or_else(|| {
        ConvertError::refused(
            &file.path,
            ROPE_FREQS,
            "not the Llama 3.1 formula for any published context length",
            "other RoPE scalings are not supported",
        )
    })
}

/// The metadata of a file, with the name of its architecture, which prefixes most keys.
struct Keys<'a> {
    gguf: &'a Gguf<'a>,
    path: &'a Path,
    arch: &'a str,
}

impl Keys<'_> {
    fn refused<T>(&self, key: &str, found: impl std::fmt::Display, allowed: &str) -> Result<T, ConvertError> {
        Err(ConvertError::refused(self.path, key, found, allowed))
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn u32(&self, name: &str) -> Result<Option<u32>, ConvertError> {
        let key = self.key(name);
        match self.gguf.int(&key).map_err(self.wrong())? {
            None => Ok(None),
            Some(found) => match u32::try_from(found) {
                Ok(value) => Ok(Some(value)),
                Err(_) => self.refused(&key, found, "allowed: 0 to 4294967295"),
            },
        }
    }

    fn required(&self, name: &str) -> Result<u32, ConvertError> {
        self.u32(name)?.ok_or_else(|| ConvertError::missing(self.path, self.key(name)))
    }

    fn float(&self, name: &str) -> Result<Option<f64>, ConvertError> {
        self.gguf.float(&self.key(name)).map_err(self.wrong())
    }

    fn wrong(&self) -> impl Fn(GgufError) -> ConvertError {
        |source| ConvertError::gguf(self.path, source)
    }

    fn header(&self, tensors: &BTreeMap<String, StoredTensor>) -> Result<Header, ConvertError> {
        let arch = match self.arch {
            "llama" => Arch::Llama,
            "qwen3" => Arch::Qwen3,
            "qwen3moe" => Arch::Qwen3Moe,
            other => {
                return self.refused("general.architecture", format!("{other:?}"), "allowed: llama, qwen3, qwen3moe");
            }
        };
        self.check_unsupported()?;
        let (dim, n_heads) = (self.required("embedding_length")?, self.required("attention.head_count")?);
        let head_dim = match self.u32("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => dim.checked_div(n_heads).unwrap_or(0),
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = self.u32(name)?.filter(|found| *found != head_dim) {
                return self.refused(&self.key(name), found, &format!("it must equal the size of a head, {head_dim}"));
            }
        }
        let embedding =
            tensors.get(EMBEDDING).ok_or_else(|| ConvertError::missing(self.path, format!("tensor {EMBEDDING}")))?;
        let moe = arch == Arch::Qwen3Moe;
        Ok(Header {
            version: 0,
            arch,
            dim,
            hidden_dim: if moe {
                self.u32("feed_forward_length")?.unwrap_or(0)
            } else {
                self.required("feed_forward_length")?
            },
            n_layers: self.required("block_count")?,
            n_heads,
            n_kv_heads: self.u32("attention.head_count_kv")?.unwrap_or(n_heads),
            head_dim,
            n_experts: self.u32("expert_count")?.unwrap_or(0),
            n_active_experts: self.u32("expert_used_count")?.unwrap_or(0),
            moe_hidden_dim: if moe { self.required("expert_feed_forward_length")? } else { 0 },
            vocab_size: embedding.dims[0].try_into().unwrap_or(u32::MAX),
            seq_len: self.required("context_length")?,
            hidden_act: 1,
            rope: if arch == Arch::Llama { RopeKind::Llama } else { RopeKind::Falcon },
            rope_theta: self.rope_theta()?,
            rope_scaling: RopeScaling::default(),
            weights: DType::F32,
            norm_epsilon: self.norm_epsilon()?,
            header_bytes: 0,
        })
    }

    /// What changes the result and has no place in a `.m` file.
    fn check_unsupported(&self) -> Result<(), ConvertError> {
        let scaling = self.key("rope.scaling.type");
        if let Some(found) = self.gguf.str(&scaling).map_err(self.wrong())?.filter(|found| *found != "none") {
            return self.refused(
                &scaling,
                format!("{found:?}"),
                "allowed: none (Llama 3.1 scaling is read from rope_freqs.weight)",
            );
        }
        for (name, neutral) in [("rope.scale_linear", 1.0), ("rope.scaling.factor", 1.0), ("expert_weights_scale", 1.0)]
        {
            if let Some(found) = self.float(name)?.filter(|found| *found != neutral && *found != 0.0) {
                return self.refused(&self.key(name), found, &format!("allowed: {neutral}"));
            }
        }
        let gating = "expert_gating_func"; // 1 is softmax
        if let Some(found) = self.u32(gating)?.filter(|found| *found > 1) {
            return self.refused(&self.key(gating), found, "allowed: 1 (softmax)");
        }
        Ok(())
    }

    fn rope_theta(&self) -> Result<f32, ConvertError> {
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        if theta.fract() != 0.0 || !(1.0..=f64::from(i32::MAX)).contains(&theta) {
            return self.refused(&self.key("rope.freq_base"), theta, "allowed: whole numbers from 1 to 2147483647");
        }
        Ok(theta as f32)
    }

    fn norm_epsilon(&self) -> Result<f32, ConvertError> {
        let name = "attention.layer_norm_rms_epsilon";
        let found = self.float(name)?.ok_or_else(|| ConvertError::missing(self.path, self.key(name)))?;
        match found as f32 {
            epsilon @ (1e-5 | 1e-6) => Ok(epsilon),
            _ => self.refused(&self.key(name), found, "allowed: 1e-5, 1e-6"),
        }
    }
}
