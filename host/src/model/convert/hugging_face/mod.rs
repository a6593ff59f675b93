//! Hugging Face folders: `config.json` becomes the header ([`config`]), `*.safetensors` the tensors ([`safetensors`]),
//! `tokenizer.json` ([`tokenizer_json`], [`steps`]) or `tokenizer.model` and their companions the vocabulary ([`vocabulary`]).

mod config;
mod json;
pub mod safetensors;
mod steps;
mod tokenizer_json;
mod vocabulary;

use super::error::ConvertError;
use super::source::{RowOrder, Source, SourceFile, SourceName, StoredTensor};
use dair_core::format::layout::LayerTensor;
use dair_core::format::tokenizer::MAX_VOCAB_SIZE;
use dair_core::format::{Arch, Header, TensorId};
use json::Json;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";
const INDEX: &str = "model.safetensors.index.json";
/// Most files of a folder that are looked through for a hint.
const MAX_LISTED: usize = 10_000;
const SINGLE: &str = "model.safetensors";

/// Opens a folder as a model to be converted.
///
/// # Errors
/// Names the file and the setting, tensor or token that is broken, missing or of an unsupported kind.
pub fn open(folder: &Path) -> Result<Source, ConvertError> {
    check_is_model(folder)?;
    let config = Json::read(&folder.join("config.json"))?;
    let (files, tensors) = open_tensors(folder)?;
    let Some(embedding) = tensors.get(EMBEDDING) else {
        return Err(ConvertError::missing(folder, format!("tensor {EMBEDDING}")));
    };
    let vocab_size = match u32::try_from(embedding.dims[0]) {
        Ok(rows) if rows <= MAX_VOCAB_SIZE => rows,
        _ => {
            let allowed = format!("allowed: up to {MAX_VOCAB_SIZE} rows");
            return Err(ConvertError::refused(
                folder,
                format!("size of tensor {EMBEDDING}"),
                format!("{:?}", embedding.dims),
                allowed,
            ));
        }
    };
    let (header, notes) = config::header(&config, vocab_size)?;
    let vocabulary = vocabulary::read(folder, &config, vocab_size)?;
    // A tied model has one matrix, whatever a file holds under the other name.
    let tied = config.bool("tie_word_embeddings")?.unwrap_or(false) || !tensors.contains_key(OUTPUT);
    let mut unneeded: BTreeSet<_> =
        tensors.keys().filter(|name| name.ends_with(".rotary_emb.inv_freq")).cloned().collect();
    if tied {
        unneeded.insert(OUTPUT.to_owned());
    }
    let name = if tensors.contains_key(&fused(0, GATE_UP)) { name_of_fused } else { name };
    Ok(Source { files, header, tensors, unneeded, tied, name, vocabulary, notes })
}

/// Demands a `config.json`.
///
/// # Errors
/// What to do with a folder that has none.
pub fn check_is_model(folder: &Path) -> Result<(), ConvertError> {
    if folder.join("config.json").exists() {
        return Ok(());
    }
    let names = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).take(MAX_LISTED).collect();
        paths.sort();
        paths
    };
    let files = names(folder);
    // A model that could have been named, or the folder of a download, which has one for each revision.
    let model = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "gguf" || extension == "m");
    let revision = || names(&folder.join("snapshots")).into_iter().find(|path| path.join("config.json").exists());
    let next = match files.iter().find(model).cloned().or_else(revision) {
        Some(path) => format!("name {}", path.display()),
        None => {
            "a Hugging Face model needs config.json, tokenizer.json and *.safetensors, download all files of it".into()
        }
    };
    Err(ConvertError::refused(folder, "the folder", "without config.json", next))
}

/// Opens the files that hold tensors and reads their tables.
fn open_tensors(folder: &Path) -> Result<(Vec<SourceFile>, BTreeMap<String, StoredTensor>), ConvertError> {
    let mut files = Vec::new();
    let mut tensors = BTreeMap::<String, StoredTensor>::new();
    for path in tensor_files(folder)? {
        let file = SourceFile::open(&path)?;
        for (name, entry) in safetensors::read_table(&file)? {
            let stored = StoredTensor { file: files.len(), offset: entry.offset, kind: entry.kind, dims: entry.dims };
            if let Some(other) = tensors.insert(name.clone(), stored) {
                let first: &SourceFile = &files[other.file];
                let found = format!("in {}, too", first.path.display());
                return Err(ConvertError::refused(
                    &path,
                    format!("tensor {name}"),
                    found,
                    "each must be in one file only",
                ));
            }
        }
        files.push(file);
    }
    Ok((files, tensors))
}

/// Where each tensor of a sharded model lies.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold tensors: those that the index names, or the single one, or whatever there is.
fn tensor_files(folder: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let index_path = folder.join(INDEX);
    if index_path.exists() {
        let index: Index = json::read_as(&index_path)?;
        let names: BTreeSet<_> = index.weight_map.into_values().collect();
        for name in &names {
            // The name is outside input: it must not lead out of the folder.
            if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
                return Err(ConvertError::refused(
                    &index_path,
                    "weight_map",
                    format!("{name:?}"),
                    "plain file names are allowed",
                ));
            }
        }
        return Ok(names.into_iter().map(|name| folder.join(name)).collect());
    }
    if folder.join(SINGLE).exists() {
        return Ok(vec![folder.join(SINGLE)]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ConvertError::io("read", folder))? {
        let path = entry.map_err(ConvertError::io("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(ConvertError::refused(
            folder,
            "the model",
            "without a *.safetensors file",
            "others, such as *.bin, are not read; download those, or the model as GGUF",
        ));
    }
    Ok(paths)
}

const GATE_UP: &str = "gate_up_proj";

/// One tensor for all experts of a layer, as transformers 5 holds them.
fn fused(layer: u32, part: &str) -> String {
    format!("model.layers.{layer}.mlp.experts.{part}")
}

/// As [`name`], where experts are fused: `[experts, 2 ff, dim]`, gate above up, and `[experts, dim, ff]`. A file that has them the
/// other way round does not pass for one: one of the two sizes differs, whatever `dim` and `ff` are.
fn name_of_fused(id: TensorId, header: &Header) -> SourceName {
    let TensorId::Layer(layer, tensor) = id else { return name(id, header) };
    let (tensor, expert, part) = match tensor {
        LayerTensor::W1(expert) => (GATE_UP, expert, (0, 2)),
        LayerTensor::W3(expert) => (GATE_UP, expert, (1, 2)),
        LayerTensor::W2(expert) => ("down_proj", expert, (0, 1)),
        _ => return name(id, header),
    };
    SourceName { tensor: fused(layer, tensor), expert: Some(expert), part, order: RowOrder::Stored }
}

/// What Hugging Face calls a tensor of the `.m` file. Rows of q and k are half-split there, Llama files want them interleaved.
fn name(id: TensorId, header: &Header) -> SourceName {
    use LayerTensor as T;
    let (layer, tensor) = match id {
        TensorId::Embedding => return SourceName::whole(EMBEDDING, RowOrder::Vocabulary),
        TensorId::Wcls => return SourceName::whole(OUTPUT, RowOrder::Vocabulary),
        TensorId::FinalNorm => return SourceName::whole("model.norm.weight", RowOrder::Stored),
        TensorId::Layer(layer, tensor) => (layer, tensor),
    };
    let part = match tensor {
        T::Q => "self_attn.q_proj".to_owned(),
        T::K => "self_attn.k_proj".to_owned(),
        T::V => "self_attn.v_proj".to_owned(),
        T::Wo => "self_attn.o_proj".to_owned(),
        T::MoeGate => "mlp.gate".to_owned(),
        T::W1(expert) if header.n_experts > 0 => format!("mlp.experts.{expert}.gate_proj"),
        T::W2(expert) if header.n_experts > 0 => format!("mlp.experts.{expert}.down_proj"),
        T::W3(expert) if header.n_experts > 0 => format!("mlp.experts.{expert}.up_proj"),
        T::W1(_) => "mlp.gate_proj".to_owned(),
        T::W2(_) => "mlp.down_proj".to_owned(),
        T::W3(_) => "mlp.up_proj".to_owned(),
        T::QNorm => "self_attn.q_norm".to_owned(),
        T::KNorm => "self_attn.k_norm".to_owned(),
        T::Norm0 => "input_layernorm".to_owned(),
        T::Norm1 => "post_attention_layernorm".to_owned(),
    };
    let order = match tensor {
        T::Q | T::K if header.arch == Arch::Llama => RowOrder::Interleaved { head_dim: header.head_dim },
        _ => RowOrder::Stored,
    };
    SourceName::whole(&format!("model.layers.{layer}.{part}.weight"), order)
}
