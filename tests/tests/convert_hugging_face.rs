//! Hugging Face folders become `.m` and `.t` files with the same values in the right places.

use dair_core::format::layout::LayerTensor as T;
use dair_core::format::tokenizer::TokenizerFile;
use dair_core::format::{Arch, Header, RopeKind, RopeScaling, TensorId};
use dair_core::quant::{DType, quantize};
use dair_host::model::convert::ggml::GgmlType;
use dair_tests::published::{Converted, Folder, Gguf, Tensor, header, ordered_tokens};
use serde_json::{Value, json};

fn convert(folder: &Folder, shards: usize, weights: Option<DType>) -> Converted {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    folder.write(input.path(), shards);
    Converted::of(input.path(), output.path(), weights).unwrap()
}

/// The vocabulary of a converted folder.
fn tokenizer<T>(folder: &Folder, look: impl FnOnce(TokenizerFile<'_>) -> T) -> T {
    look(TokenizerFile::parse(&convert(folder, 1, None).tokenizer).unwrap())
}

/// The values that a tensor of the model must have, rows of q and k apart.
fn source(folder: &Folder, header: &Header, id: TensorId) -> Vec<f32> {
    let find = |name: String| folder.tensors.iter().find(|tensor| tensor.name == name).unwrap().values();
    let layer = |n: u32, part: &str| find(format!("model.layers.{n}.{part}.weight"));
    let expert = |n: u32, e: u32, part: &str| {
        if header.n_experts > 0 {
            layer(n, &format!("mlp.experts.{e}.{part}"))
        } else {
            layer(n, &format!("mlp.{part}"))
        }
    };
    let by_token = |values: Vec<f32>| -> Vec<f32> {
        let rows: Vec<_> = values.chunks(header.dim as usize).collect();
        ordered_tokens().iter().flat_map(|(old_id, _)| rows[*old_id as usize]).copied().collect()
    };
    match id {
        TensorId::Embedding => by_token(find("model.embed_tokens.weight".into())),
        TensorId::Wcls => by_token(find("lm_head.weight".into())),
        TensorId::FinalNorm => find("model.norm.weight".into()),
        TensorId::Layer(n, T::Q) => layer(n, "self_attn.q_proj"),
        TensorId::Layer(n, T::K) => layer(n, "self_attn.k_proj"),
        TensorId::Layer(n, T::V) => layer(n, "self_attn.v_proj"),
        TensorId::Layer(n, T::Wo) => layer(n, "self_attn.o_proj"),
        TensorId::Layer(n, T::MoeGate) => layer(n, "mlp.gate"),
        TensorId::Layer(n, T::W1(e)) => expert(n, e, "gate_proj"),
        TensorId::Layer(n, T::W2(e)) => expert(n, e, "down_proj"),
        TensorId::Layer(n, T::W3(e)) => expert(n, e, "up_proj"),
        TensorId::Layer(n, T::QNorm) => layer(n, "self_attn.q_norm"),
        TensorId::Layer(n, T::KNorm) => layer(n, "self_attn.k_norm"),
        TensorId::Layer(n, T::Norm0) => layer(n, "input_layernorm"),
        TensorId::Layer(n, T::Norm1) => layer(n, "post_attention_layernorm"),
    }
}

#[test]
fn every_architecture_and_type_keeps_every_tensor_in_its_place() {
    for arch in [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe] {
        for kind in [GgmlType::F32, GgmlType::F16, GgmlType::Bf16] {
            let header = header(arch);
            let folder = Folder::of(&header, kind);
            for weights in [DType::F32, DType::Q80, DType::Q40] {
                let converted = convert(&folder, 1, Some(weights));
                assert_eq!(converted.summary.header, Header { weights, ..header });
                converted.layout.visit(|id, tensor| {
                    if arch == Arch::Llama && matches!(id, TensorId::Layer(_, T::Q | T::K)) {
                        return; // below
                    }
                    let mut bytes = vec![0; tensor.bytes() as usize];
                    quantize(tensor.dtype, &source(&folder, &header, id), &mut bytes);
                    assert!(converted.bytes(id) == bytes, "{id} of {kind} as {weights}");
                });
            }
        }
    }
}

#[test]
fn rows_of_q_and_k_of_a_llama_pair_as_neighbours() {
    let header = header(Arch::Llama);
    let folder = Folder::of(&header, GgmlType::Bf16);
    let converted = convert(&folder, 1, Some(DType::F32));
    for (tensor, heads) in [(T::Q, header.n_heads), (T::K, header.n_kv_heads)] {
        let id = TensorId::Layer(1, tensor);
        let (from, to) = (source(&folder, &header, id), converted.values(id));
        let (cols, half) = (header.dim as usize, header.head_dim as usize / 2);
        for head in 0..heads as usize {
            for side in 0..2 {
                for j in 0..half {
                    for col in 0..cols {
                        let stored = to[(head * 2 * half + 2 * j + side) * cols + col];
                        let published = from[(head * 2 * half + side * half + j) * cols + col];
                        assert_eq!(
                            stored.to_bits(),
                            published.to_bits(),
                            "{id}, head {head}, side {side}, pair {j}, column {col}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_number_of_files_changes_no_byte() {
    let folder = Folder::of(&header(Arch::Qwen3Moe), GgmlType::F16);
    let single = convert(&folder, 1, None);
    assert_eq!(single.summary.header.weights, DType::Q80, "16 bits become Q80");
    for shards in [2, 3, 7] {
        let sharded = convert(&folder, shards, None);
        assert!(sharded.model == single.model && sharded.tokenizer == single.tokenizer, "{shards} files");
    }
    // Without an index, every file of the folder counts.
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    folder.write(input.path(), 3);
    std::fs::remove_file(input.path().join("model.safetensors.index.json")).unwrap();
    assert!(Converted::of(input.path(), output.path(), None).unwrap().model == single.model);
}

#[test]
fn the_same_model_as_gguf_and_as_folder_gives_the_same_tokenizer() {
    let header = header(Arch::Llama);
    let gguf = Converted::of_bytes(&Gguf::of(&header, GgmlType::F16).bytes(), None).unwrap();
    assert!(convert(&Folder::of(&header, GgmlType::F16), 1, None).tokenizer == gguf.tokenizer);
}

/// `tests/golden/pre_tokenizers.json`: what models' own files say, and the names that GGUF files have for it.
#[test]
fn a_name_of_a_gguf_file_means_what_the_models_own_file_spells_out() {
    let rules: Vec<Value> = serde_json::from_str(include_str!("../golden/pre_tokenizers.json")).unwrap();
    let header = header(Arch::Llama);
    for rule in &rules {
        let mut folder = Folder::of(&header, GgmlType::F16);
        for key in ["normalizer", "pre_tokenizer"] {
            folder.tokenizer[key] = rule[key].clone();
        }
        folder.tokenizer["model"]["ignore_merges"] = rule["ignore_merges"].clone();
        let spelled_out = convert(&folder, 1, None).tokenizer;
        for name in rule["names"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            let mut gguf = Gguf::of(&header, GgmlType::F16);
            gguf.set("tokenizer.ggml.pre", name.into());
            let named = Converted::of_bytes(&gguf.bytes(), None).unwrap().tokenizer;
            assert!(named == spelled_out, "{name} is not as in {}", rule["of"]);
        }
    }
}

#[test]
fn a_tied_model_writes_its_embedding_twice() {
    let header = header(Arch::Llama);
    let mut missing = Folder::of(&header, GgmlType::F32);
    missing.remove("lm_head.weight");
    let mut tied = Folder::of(&header, GgmlType::F32);
    tied.config["tie_word_embeddings"] = true.into();
    for folder in [missing, tied] {
        let converted = convert(&folder, 1, Some(DType::F32));
        assert_eq!(converted.values(TensorId::Wcls), converted.values(TensorId::Embedding));
    }
}

#[test]
fn buffers_of_old_checkpoints_are_no_weights() {
    let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F32);
    let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    folder.tensors.push(Tensor::random(buffer, GgmlType::F32, &[16]));
    convert(&folder, 1, None);
}

#[test]
fn llama_3_scaling_and_context_are_carried_over() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let expected = RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 };
    let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F32);
    folder.config["rope_scaling"] = scaling.clone();
    let header_of = |folder: &Folder| convert(folder, 1, None).summary.header;
    let header = header_of(&folder);
    assert_eq!((header.rope, header.rope_theta, header.rope_scaling), (RopeKind::Llama31, 500_000.0, expected));

    // The newer spelling, with the base inside.
    folder.config["rope_scaling"] = Value::Null;
    folder.config["rope_theta"] = Value::Null;
    folder.config["rope_parameters"] = scaling;
    folder.config["rope_parameters"]["rope_theta"] = 1_000_000.into();
    let header = header_of(&folder);
    assert_eq!((header.rope, header.rope_theta, header.rope_scaling), (RopeKind::Llama31, 1e6, expected));
}

/// As `Qwen3MoeConfig(...).save_pretrained` of transformers 5.24 writes it.
#[test]
fn a_config_of_transformers_5_means_the_same() {
    let expected = Header { head_dim: 32, ..header(Arch::Qwen3Moe) };
    let old = Folder::of(&expected, GgmlType::F32);
    let mut new = old.clone();
    let config = new.config.as_object_mut().unwrap();
    let experts = config.remove("num_experts").unwrap();
    config.insert("num_local_experts".into(), experts.clone());
    let theta = config.remove("rope_theta").unwrap();
    config.insert("rope_parameters".into(), json!({"rope_type": "default", "rope_theta": theta}));
    config.remove("rope_scaling");
    config.insert("dtype".into(), "float32".into());
    config.insert("sliding_window".into(), Value::Null);
    // Heads divide `hidden_size` unless the file says otherwise.
    config.remove("head_dim");
    let [old, mut new] = [old, new].map(|folder| (convert(&folder, 1, None), folder));
    assert!(new.0.model == old.0.model);

    // Both names at once are fine as long as they agree.
    new.1.config["num_experts"] = experts;
    assert!(convert(&new.1, 1, None).model == old.0.model);
}

/// The stacks of one layer's experts, which go; the matrices of each, gate above up, and down.
fn fuse(folder: &mut Folder, layer: u32, experts: u32) {
    let mut take = |expert: u32, part: &str| {
        let name = format!("model.layers.{layer}.mlp.experts.{expert}.{part}.weight");
        let tensor = folder.tensors.iter().find(|tensor| tensor.name == name).unwrap().clone();
        folder.remove(&name);
        tensor
    };
    let (mut gate_up, mut down) = (Vec::new(), Vec::new());
    for expert in 0..experts {
        gate_up.extend([take(expert, "gate_proj"), take(expert, "up_proj")]);
        down.push(take(expert, "down_proj"));
    }
    for (name, parts) in [("gate_up_proj", gate_up), ("down_proj", down)] {
        let (kind, rows, cols) = (parts[0].kind, parts[0].dims[0], parts[0].dims[1]);
        let dims = vec![u64::from(experts), rows * parts.len() as u64 / u64::from(experts), cols];
        let bytes = parts.into_iter().flat_map(|part| part.bytes).collect();
        folder.tensors.push(Tensor { name: format!("model.layers.{layer}.mlp.experts.{name}"), kind, dims, bytes });
    }
}

#[test]
fn experts_that_transformers_5_fused_are_the_same_experts() {
    for (dim, moe_hidden_dim) in [(256, 256), (256, 128), (128, 64)] {
        let header = Header { dim, moe_hidden_dim, ..header(Arch::Qwen3Moe) };
        let apart = Folder::of(&header, GgmlType::Bf16);
        let mut fused = apart.clone();
        (0..header.n_layers).for_each(|layer| fuse(&mut fused, layer, header.n_experts));
        assert!(convert(&fused, 1, None).model == convert(&apart, 1, None).model, "{dim}, {moe_hidden_dim}");

        // Transposed matrices, as other models have them, are told by their sizes, though one of both may be a square.
        let stacks = fused.tensors.iter_mut().filter(|tensor| tensor.dims.len() == 3);
        stacks.for_each(|tensor| tensor.dims.swap(1, 2));
        let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fused.write(input.path(), 1);
        let line = Converted::of(input.path(), output.path(), None).unwrap_err().to_string();
        assert!(line.contains("size of tensor model.layers.0.mlp.experts.") && line.contains("demands"), "{line}");
    }
}

#[test]
fn a_sliding_window_ends_the_context_and_is_told() {
    let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F32);
    folder.config["model_type"] = "mistral".into();
    folder.config["sliding_window"] = 128.into();
    let summary = convert(&folder, 1, None).summary;
    assert_eq!(summary.header.seq_len, 128);
    assert!(summary.notes[0].starts_with("context shortened from 512 to 128 positions"), "{:?}", summary.notes);
    folder.config["use_sliding_window"] = false.into();
    let summary = convert(&folder, 1, None).summary;
    assert_eq!((summary.header.seq_len, summary.notes.len()), (512, 0));
}

#[test]
fn bos_and_eos_come_from_the_tokenizer_then_from_the_model() {
    let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F32);
    let ids = |folder: &Folder| {
        tokenizer(folder, |file| (file.header().bos, file.header().eos.to_vec(), file.header().add_bos))
    };
    assert_eq!(ids(&folder), (Some(260), vec![262, 261], false));
    // Without the tokenizer's settings: the lists of generation and model, in this order; a template decides on BOS.
    folder.tokenizer_config = json!({});
    folder.generation_config = json!({"eos_token_id": [263, 2]});
    folder.tokenizer["post_processor"] = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    }]});
    assert_eq!(ids(&folder), (Some(260), vec![263, 262, 261], true));
    folder.tokenizer_config = json!({"add_bos_token": false});
    assert_eq!(ids(&folder), (Some(260), vec![263, 262, 261], false));
    // No BOS anywhere: the first special token divides the vocabulary, and is never put before a text.
    folder.config["bos_token_id"] = Value::Null;
    folder.tokenizer_config = json!({"add_bos_token": true});
    assert_eq!(ids(&folder), (Some(260), vec![263, 262, 260], false));
}

#[test]
fn chat_templates_are_found_wherever_they_are_kept() {
    let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F32);
    let template = |folder: &Folder| tokenizer(folder, |file| file.header().chat_template.map(str::to_owned));
    folder.tokenizer_config["chat_template"] =
        json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]);
    assert_eq!(template(&folder).as_deref(), Some("plain"));
    folder.tokenizer_config["chat_template"] = Value::Null;
    assert_eq!(template(&folder), None);

    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    folder.write(input.path(), 1);
    std::fs::write(input.path().join("chat_template.jinja"), "a file").unwrap();
    let converted = Converted::of(input.path(), output.path(), None).unwrap();
    assert_eq!(TokenizerFile::parse(&converted.tokenizer).unwrap().header().chat_template, Some("a file"));
}

#[test]
fn sentencepiece_style_vocabularies_become_spaces_and_bytes() {
    let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F32);
    let mut vocab = serde_json::Map::new();
    for (id, text) in ["<unk>", "<s>", "</s>"].into_iter().enumerate() {
        vocab.insert(text.into(), id.into());
    }
    vocab.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), (byte + 3).into())));
    vocab.insert("▁the".into(), 259.into());
    vocab.insert("é".into(), 260.into());
    let added = ["<unk>", "<s>", "</s>"].into_iter().enumerate();
    folder.tokenizer = json!({
        "added_tokens": added.map(|(id, text)| json!({"id": id, "content": text, "special": true})).collect::<Vec<_>>(),
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
        "model": {"type": "BPE", "byte_fallback": true, "vocab": vocab, "merges": []},
    });
    folder.tokenizer_config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    folder.generation_config = json!({});
    tokenizer(&folder, |file| {
        let tokens: Vec<_> = file.tokens().map(|(_, bytes)| bytes.to_vec()).collect();
        assert_eq!(tokens[10], b"\n");
        let end: [&[u8]; 8] =
            [b" the", "é".as_bytes(), b"<s>", b"<unk>", b"</s>", b"[PAD261]", b"[PAD262]", b"[PAD263]"];
        assert_eq!(tokens[256..], end, "rows without a token get a name that nothing is encoded to");
        assert_eq!(
            (file.header().bos, file.header().add_bos, file.header().eos.as_slice()),
            (Some(258), true, &[260][..])
        );
    });
}
