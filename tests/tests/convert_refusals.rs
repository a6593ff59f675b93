//! What can't be converted is refused with one line that names it, and nothing is left under the names of the output.

use dair_core::format::Arch;
use dair_core::quant::DType;
use dair_host::model::convert::ggml::GgmlType;
use dair_tests::published::{Converted, Folder, Gguf, Tensor, Value, header, safetensors};
use serde_json::{Value as Json, json};
use std::path::Path;

/// Converts a file of these bytes, which must fail without leaving anything, and returns the line for the user.
fn refusal(bytes: &[u8], weights: Option<DType>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.gguf");
    std::fs::write(&input, bytes).unwrap();
    refusal_of(&input, weights)
}

/// The same for a file or a folder.
fn refusal_of(input: &Path, weights: Option<DType>) -> String {
    let output = tempfile::tempdir().unwrap();
    let error = Converted::of(input, output.path(), weights).expect_err("a refusal");
    let left: Vec<_> = std::fs::read_dir(output.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} after: {error}");
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 600, "{line}");
    line
}

/// A model of one type throughout, smaller than the others: everything that is tried on each of its bytes takes its time.
fn small() -> Gguf {
    let mut header = header(Arch::Llama);
    header.n_layers = 1;
    Gguf::of(&header, GgmlType::Q4_0)
}

#[test]
fn a_gguf_file_cut_anywhere_is_refused() {
    let bytes = small().bytes();
    let head_bytes = bytes.len() - small().tensors.iter().map(|tensor| tensor.bytes.len()).sum::<usize>();
    let cuts = (4..head_bytes).step_by(29).chain((head_bytes..bytes.len()).step_by(10_007)).chain([bytes.len() - 1]);
    for cut in cuts {
        let line = refusal(&bytes[..cut], None);
        assert!(line.contains("the file ends at"), "cut at {cut}: {line}");
    }
}

#[test]
fn absurd_numbers_anywhere_in_the_head_of_a_gguf_file_are_refused_or_harmless() {
    let bytes = small().bytes();
    let head_bytes = bytes.len() - small().tensors.iter().map(|tensor| tensor.bytes.len()).sum::<usize>();
    let mut refused = 0;
    for at in (0..head_bytes - 8).step_by(37) {
        for absurd in [u64::MAX, i64::MAX as u64, 1 << 32] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&absurd.to_le_bytes());
            // Some hit a text or a score and are none of the reader's business; none may panic or run out of memory.
            refused += u32::from(Converted::of_bytes(&bytes, None).is_err());
        }
    }
    assert!(refused > 50, "{refused} refusals");
}

/// A change to a good file, and what the line for the user must contain.
type Change = (fn(&mut Gguf), &'static str);

#[test]
fn what_a_gguf_file_must_not_hold_is_named() {
    let changes: [Change; 34] = [
        (
            |g| _ = g.set("general.architecture", "gemma".into()),
            "general.architecture is \"gemma\"; allowed: llama, qwen3, qwen3moe",
        ),
        (|g| _ = g.remove("general.architecture"), "general.architecture is missing"),
        (|g| _ = g.remove("llama.block_count"), "llama.block_count is missing"),
        (|g| _ = g.set("llama.block_count", "two".into()), "llama.block_count is a string; allowed: an integer"),
        (
            |g| _ = g.set("llama.block_count", Value::U64(1 << 40)),
            "llama.block_count is 1099511627776; allowed: 0 to 4294967295",
        ),
        (|g| _ = g.set("llama.block_count", Value::U32(100_000)), "n_layers is 100000; allowed: 1 to"),
        (|g| _ = g.set("llama.block_count", Value::U32(3)), "tensor blk.1.attn_q.weight is missing"),
        (|g| _ = g.set("llama.block_count", Value::I32(-1)), "llama.block_count is -1"),
        (|g| _ = g.set("llama.attention.head_count", Value::U32(0)), "n_heads is 0; allowed: 1 to 4096"),
        (
            |g| _ = g.set("llama.attention.head_count_kv", Value::I32s(vec![2, 2])),
            "llama.attention.head_count_kv is an array",
        ),
        (|g| _ = g.set("llama.attention.value_length", Value::U32(64)), "it must equal the size of a head, 32"),
        (|g| _ = g.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-4)), "allowed: 1e-5, 1e-6"),
        (
            |g| _ = g.set("llama.rope.freq_base", Value::F32(10_000.5)),
            "llama.rope.freq_base is 10000.5; allowed: whole numbers",
        ),
        (|g| _ = g.set("llama.rope.freq_base", Value::F32(f32::NAN)), "llama.rope.freq_base is NaN"),
        (|g| _ = g.set("llama.rope.scaling.type", "yarn".into()), "llama.rope.scaling.type is \"yarn\"; allowed: none"),
        (|g| _ = g.set("llama.rope.scaling.factor", Value::F32(4.0)), "llama.rope.scaling.factor is 4"),
        (
            |g| _ = g.set("llama.embedding_length", Value::U32(128)),
            "size of tensor token_embd.weight is [264, 256]; the header demands [264, 128]",
        ),
        (
            |g| _ = g.set("split.count", Value::U32(4)),
            "this is part 1 of 4 of a model; the others are found by their names: this must end in -00001-of-00004.gguf",
        ),
        (|g| _ = g.set("split.count", Value::U32(70_000)), "split.count is 70000; allowed: up to 512"),
        (|g| _ = g.set("split.no", Value::I32(-1)), "split.no is -1; there are 1 parts, counted from 0"),
        (|g| _ = g.set("general.alignment", Value::U32(48)), "general.alignment is 48; allowed: powers of two"),
        (
            |g| g.metadata.push(("llama.block_count".into(), Value::U32(1))),
            "key \"llama.block_count\" stands in the file twice",
        ),
        (|g| _ = g.set("x", Value::Raw(13, vec![])), "x: value type at byte"),
        (
            |g| _ = g.set("tokenizer.ggml.model", "bert".into()),
            "tokenizer.ggml.model is \"bert\"; allowed: gpt2, llama",
        ),
        (
            |g| _ = g.set("tokenizer.ggml.eos_token_id", Value::U32(264)),
            "tokenizer.ggml.eos_token_id is 264; the vocabulary has 264 tokens",
        ),
        (
            |g| _ = g.set("tokenizer.ggml.token_type", Value::I32s(vec![1; 263])),
            "tokenizer.ggml.token_type is 263 values long; there are 264 tokens",
        ),
        (
            |g| _ = g.set("tokenizer.ggml.tokens", Value::I32s(vec![1; 264])),
            "tokenizer.ggml.tokens is an array; allowed: an array of strings",
        ),
        (|g| _ = g.remove("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens is missing"),
        (|g| _ = g.remove("blk.0.ffn_up.weight"), "tensor blk.0.ffn_up.weight is missing"),
        (
            |g| g.tensors.push(Tensor::random("blk.0.attn_q.bias", GgmlType::F32, &[256])),
            "tensor blk.0.attn_q.bias is not part of a llama model",
        ),
        (|g| g.tensors.push(g.tensors[4].clone()), "stands in the file twice"),
        (
            |g| g.tensor("blk.0.attn_v.weight").dims = vec![128, 128],
            "size of tensor blk.0.attn_v.weight is [128, 128]; the header demands [64, 256]",
        ),
        (
            |g| g.tensor("blk.0.attn_v.weight").dims = vec![64, 0],
            "tensor blk.0.attn_v.weight of type Q4_0 has sizes [64, 0]",
        ),
        (
            |g| g.tensor("blk.0.attn_v.weight").dims = vec![1 << 40, 1 << 40],
            "tensor blk.0.attn_v.weight of type Q4_0 has sizes",
        ),
    ];
    for (change, expected) in changes {
        let mut gguf = small();
        change(&mut gguf);
        let line = refusal(&gguf.bytes(), None);
        assert!(line.contains(expected), "expected: {expected}\nfound: {line}");
    }
}

#[test]
fn files_that_are_no_gguf_of_ours_are_told_apart() {
    let bytes = small().bytes();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        refusal(&bytes, None)
    };
    assert!(with(0, b"GGML").contains("is neither a .m model nor a GGUF file; name one of these"));
    assert!(with(4, &1u32.to_le_bytes()).contains("GGUF version is 1; allowed: 2 and 3"));
    assert!(with(4, &3u32.to_be_bytes()).contains("the file is big-endian"));
    assert!(
        with(8, &u64::MAX.to_le_bytes())
            .contains("number of tensors at byte 8 is 18446744073709551615; allowed: up to")
    );
    assert!(refusal_of(Path::new("/nowhere/at/all.gguf"), None).contains("can't open /nowhere/at/all.gguf"));
    // The type of the first tensor: behind its name, the number of its dimensions and two of them.
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    assert!(
        with(at, &16u32.to_le_bytes()).contains("tensor token_embd.weight has type IQ2_XXS (16); readable: F32, F16")
    );
    assert!(
        with(at + 4, &7u64.to_le_bytes()).contains("tensor token_embd.weight has offset 7; allowed: multiples of 32")
    );
    assert!(with(at + 4, &(1u64 << 62).to_le_bytes()).contains("tensor token_embd.weight takes"));
}

#[test]
fn values_that_the_output_cannot_hold_are_named_by_row_and_column() {
    for (value, weights, expected) in [
        (f32::NAN, DType::Q80, "tensor blk.0.attn_q.weight, row 3, column 5 is NaN; q80 holds magnitudes up to"),
        (f32::INFINITY, DType::Q40, "tensor blk.0.attn_q.weight, row 3, column 5 is inf"),
        (1e6, DType::Q40, "row 3, column 5 is 1000000; q40 holds magnitudes up to 524032"),
    ] {
        let mut gguf = Gguf::of(&header(Arch::Llama), GgmlType::F32);
        let at = (3 * 256 + 5) * 4;
        gguf.tensor("blk.0.attn_q.weight").bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let line = refusal(&gguf.bytes(), Some(weights));
        assert!(line.contains(expected), "{line}");
    }
}

/// Blocks that need no change are looked at, too: a scale that is no number would only show as nonsense in answers.
#[test]
fn scales_and_values_that_are_copied_must_be_finite() {
    let bytes = |value: f32| value.to_le_bytes().to_vec();
    for (kind, weights, bad, expected) in [
        (GgmlType::Q8_0, DType::Q80, vec![0, 0x7e], "row 5, scale of block 3"),
        (GgmlType::Q8_0, DType::Q80, vec![0, 0xfc], "row 5, scale of block 3"),
        (GgmlType::Q4_0, DType::Q40, vec![1, 0x7c], "row 5, scale of block 3"),
        (GgmlType::F32, DType::F32, bytes(f32::NAN), "row 5, column 3"),
        (GgmlType::F32, DType::F32, bytes(f32::NEG_INFINITY), "row 5, column 3"),
    ] {
        let mut gguf = Gguf::of(&header(Arch::Llama), kind);
        let tensor = gguf.tensor("blk.1.ffn_up.weight");
        let row_bytes = tensor.bytes.len() / tensor.dims[0] as usize;
        let at = 5 * row_bytes + 3 * kind.block_bytes() as usize;
        tensor.bytes[at..at + bad.len()].copy_from_slice(&bad);
        let line = refusal(&gguf.bytes(), Some(weights));
        let expected =
            format!("tensor blk.1.ffn_up.weight, {expected} is infinite or no number; finite numbers are needed");
        assert!(line.contains(&expected), "{line}");
    }
    // The norms are F32 in every model.
    let mut gguf = Gguf::of(&header(Arch::Llama), GgmlType::Q8_0);
    gguf.tensor("output_norm.weight").bytes[8..12].copy_from_slice(&bytes(f32::NAN));
    let line = refusal(&gguf.bytes(), None);
    assert!(line.contains("tensor output_norm.weight, row 0, column 2 is infinite or no number"), "{line}");
    // The largest finite scale is none of these.
    let mut gguf = Gguf::of(&header(Arch::Llama), GgmlType::Q8_0);
    gguf.tensor("blk.1.ffn_up.weight").bytes[..2].copy_from_slice(&[0xff, 0xfb]);
    assert!(Converted::of_bytes(&gguf.bytes(), None).is_ok());
}

#[test]
fn what_is_no_model_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let source = Folder::of(&header(Arch::Llama), GgmlType::F16);
    source.write(folder.path(), 1);
    let of_folder = |name: &str| refusal_of(&folder.path().join(name), None);
    let its_folder = format!("name its folder, {}", folder.path().display());
    assert!(of_folder("model.safetensors").contains(&format!("a safetensors file, the tensors alone; {its_folder}")));
    assert!(of_folder("tokenizer.json").contains(&format!("a JSON file; {its_folder}")));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let page = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>";
    for (bytes, expected) in [
        (&b""[..], "an empty file (0 bytes); copy or download it again"),
        (pointer, "a Git LFS pointer, the download itself is missing; run `git lfs pull`"),
        (page, "a web page; download the file itself"),
        (
            b"PK\x03\x04rest of it",
            "a ZIP archive, as PyTorch checkpoints are, too; unpack it, or get the model as GGUF",
        ),
        (b"\x1f\x8b\x08\0rest", "a packed archive; unpack it first"),
        (b"\x80\x02\x8a\nrest", "a PyTorch checkpoint (pickle); get the model as GGUF"),
    ] {
        let line = refusal(bytes, None);
        assert!(line.contains(&format!("in.gguf is {expected}")), "{line}");
    }
    // Any file of a folder may be what a download left behind.
    for name in ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"] {
        source.write(folder.path(), 1);
        std::fs::write(folder.path().join(name), pointer).unwrap();
        let line = refusal_of(folder.path(), None);
        assert!(line.contains(&format!("{name} is a Git LFS pointer")), "{line}");
    }
}

#[test]
fn rows_that_are_not_whole_blocks_are_kept_as_f32() {
    let mut header = header(Arch::Llama);
    (header.dim, header.head_dim, header.n_heads) = (48, 6, 8);
    let bytes = Gguf::of(&header, GgmlType::F32).bytes();
    let line = refusal(&bytes, Some(DType::Q80));
    assert!(line.contains("dim is 48; q80 weights need multiples of 32, --weights f32 takes any size"), "{line}");
    let asked = Converted::of_bytes(&bytes, Some(DType::F32)).unwrap();
    assert!(asked.summary.notes.is_empty());
    let chosen = Converted::of_bytes(&bytes, None).unwrap();
    assert!(chosen.model == asked.model);
    let note = &chosen.summary.notes[0];
    assert!(note.contains("as with --weights f32: dim is 48, q80 weights need multiples of 32"), "{note}");
}

#[test]
fn what_a_folder_must_not_hold_is_named() {
    type Change = (fn(&mut Folder), &'static str);
    let changes: [Change; 28] = [
        (
            |f| f.config["model_type"] = "gemma".into(),
            "model_type is \"gemma\"; allowed: llama, mistral, qwen3, qwen3_moe",
        ),
        (|f| f.config["hidden_size"] = Json::Null, "config.json: hidden_size is missing"),
        (|f| f.config["hidden_size"] = (-1).into(), "config.json: hidden_size is -1; allowed: 0 to 4294967295"),
        (|f| f.config["hidden_size"] = "wide".into(), "config.json: hidden_size is \"wide\""),
        (|f| f.config["hidden_act"] = "gelu".into(), "hidden_act is \"gelu\"; allowed: silu"),
        (|f| f.config["rms_norm_eps"] = 1e-4.into(), "rms_norm_eps is 0.0001; allowed: 1e-5, 1e-6"),
        (|f| f.config["rope_theta"] = 0.5.into(), "rope_theta is 0.5; allowed: whole numbers"),
        (
            |f| f.config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0}),
            "rope_scaling.rope_type is \"yarn\"; allowed: default, llama3",
        ),
        (|f| f.config["rope_scaling"] = json!({"type": "linear", "factor": 4.0}), "rope_scaling.type is \"linear\""),
        (
            |f| f.config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 2.5}),
            "rope_scaling.factor is 2.5; allowed: whole numbers",
        ),
        (
            |f| f.config["rope_parameters"] = json!({"full_attention": {"rope_type": "default", "rope_theta": 5.0}}),
            "rope_parameters.full_attention is an object; all layers must have the same parameters",
        ),
        (
            |f| {
                f.config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0});
                f.config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 10000.0});
            },
            "rope_scaling.rope_type is \"llama3\"; rope_parameters says otherwise",
        ),
        (|f| f.config["rope_scaling"] = json!("llama3"), "rope_scaling is \"llama3\"; allowed: an object"),
        (|f| f.config["quantization_config"] = json!({"quant_method": "gptq"}), "quantization_config is"),
        (|f| f.config["num_hidden_layers"] = 3.into(), "tensor model.layers.2.self_attn.q_proj.weight is missing"),
        (
            |f| f.config["num_hidden_layers"] = 1.into(),
            "tensor model.layers.1.input_layernorm.weight is not part of a llama model",
        ),
        (|f| f.config["bos_token_id"] = 5000.into(), "bos_token_id is 5000; allowed: ids of the 264 tokens"),
        (
            |f| f.tokenizer_config["eos_token"] = "</s>".into(),
            "eos_token is \"</s>\"; the vocabulary has no such token",
        ),
        (|f| f.tokenizer["model"]["type"] = "Unigram".into(), "model.type is \"Unigram\"; allowed: BPE"),
        (
            |f| f.tokenizer["model"]["vocab"]["extra"] = 264.into(),
            "id of token \"extra\" is 264; the embedding has 264 rows",
        ),
        (|f| f.tokenizer["model"]["vocab"]["extra"] = 7.into(), "is 7; another token has it"),
        (|f| f.tokenizer["model"]["vocab"]["extra"] = (-7).into(), "tokenizer.json: not the JSON expected"),
        (
            |f| {
                f.tokenizer["pre_tokenizer"] = {
                    f.tokenizer["decoder"] = Json::Null;
                    Json::Null
                }
            },
            "model is BPE of characters",
        ),
        (
            |f| {
                f.tokenizer["added_tokens"] = {
                    f.config["bos_token_id"] = Json::Null;
                    json!(3)
                }
            },
            "tokenizer.json: not the JSON expected",
        ),
        (
            |f| f.tensors.push(Tensor::random("model.layers.0.self_attn.q_proj.bias", GgmlType::F16, &[256])),
            "q_proj.bias is not part of a llama model",
        ),
        (|f| _ = f.remove("model.embed_tokens.weight"), "tensor model.embed_tokens.weight is missing"),
        (|f| f.tensors[5].kind = GgmlType::Q8_0, "of type \"Q8_0\"; readable: F32, F16, BF16"),
        (|f| f.tensors[5].dims[0] += 1, "sizes above 0, and as many bytes as they take, are needed"),
    ];
    for (change, expected) in changes {
        let mut folder = Folder::of(&header(Arch::Llama), GgmlType::F16);
        folder.tokenizer_config["bos_token"] = Json::Null;
        change(&mut folder);
        let input = tempfile::tempdir().unwrap();
        folder.write(input.path(), 1);
        let line = refusal_of(input.path(), None);
        assert!(line.contains(expected), "expected: {expected}\nfound: {line}");
    }
}

#[test]
fn experts_that_the_graph_cannot_express_are_refused() {
    type Change = (&'static str, Json, &'static str);
    let changes: [Change; 7] = [
        ("num_experts", Json::Null, "config.json: num_experts is missing"),
        ("num_local_experts", 4.into(), "num_local_experts is 4; num_experts is 3; both mean the same and must agree"),
        (
            "rope_parameters",
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            "rope_parameters.partial_rotary_factor is 0.5; allowed: 1",
        ),
        ("norm_topk_prob", false.into(), "norm_topk_prob is not true"),
        ("decoder_sparse_step", 2.into(), "decoder_sparse_step is 2; allowed: 1"),
        ("mlp_only_layers", json!([0]), "mlp_only_layers is [0]; allowed: []"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8}), "rope_type is \"llama3\"; allowed: default"),
    ];
    for (key, value, expected) in changes {
        let mut folder = Folder::of(&header(Arch::Qwen3Moe), GgmlType::Bf16);
        folder.config[key] = value;
        let input = tempfile::tempdir().unwrap();
        folder.write(input.path(), 1);
        let line = refusal_of(input.path(), None);
        assert!(line.contains(expected), "expected: {expected}\nfound: {line}");
    }
}

#[test]
fn broken_safetensors_files_are_refused() {
    let folder = Folder::of(&header(Arch::Llama), GgmlType::F16);
    let input = tempfile::tempdir().unwrap();
    folder.write(input.path(), 1);
    let path = input.path().join("model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let table_bytes = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for cut in [0, 7, 8, 100, table_bytes + 7, table_bytes + 8, table_bytes + 1000, good.len() - 1] {
        std::fs::write(&path, &good[..cut]).unwrap();
        let line = refusal_of(input.path(), None);
        assert!(line.contains("model.safetensors"), "cut at {cut}: {line}");
    }
    let with = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        refusal_of(input.path(), None)
    };
    for absurd in [u64::MAX, 1 << 62, good.len() as u64] {
        assert!(
            with(&[&absurd.to_le_bytes(), &good[8..]].concat()).contains(&format!("length of the table is {absurd}"))
        );
    }
    assert!(with(&[&good[..], b"!"].concat()).contains("data is"), "bytes that belong to no tensor");
    let table = |json: &str| with(&[&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 64]].concat());
    assert!(table("{").contains("not the JSON expected"));
    assert!(table(r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,63]}}"#).contains("tensor a is at 0..63"));
    assert!(table(r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[64,0]}}"#).contains("tensor a is at 64..0"));
    assert!(
        table(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#)
            .contains("tensor a is at 0..0")
    );
    assert!(
        table(r#"{"a":{"dtype":"F32","shape":[17],"data_offsets":[0,68]}}"#).contains("there are 64 bytes of data")
    );
    assert!(table(r#"{"a":{"dtype":"I8","shape":[64],"data_offsets":[0,64]}}"#).contains("tensor a is of type \"I8\""));
    let twice = r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"b":{"dtype":"F32","shape":[8],"data_offsets":[32,64]}}"#;
    assert!(table(twice).contains("tile it without gaps"));
}

#[test]
fn broken_folders_are_refused() {
    let folder = Folder::of(&header(Arch::Llama), GgmlType::F16);
    let change = |change: &dyn Fn(&Path)| {
        let input = tempfile::tempdir().unwrap();
        folder.write(input.path(), 3);
        change(input.path());
        refusal_of(input.path(), None)
    };
    let remove = |name: &'static str| change(&|input| std::fs::remove_file(input.join(name)).unwrap());
    let line = remove("config.json");
    assert!(
        line.contains("the folder is without config.json; a Hugging Face model needs config.json, tokenizer"),
        "{line}"
    );
    let with = |name: &'static str| {
        change(&|input| {
            std::fs::remove_file(input.join("config.json")).unwrap();
            std::fs::create_dir_all(input.join(name).parent().unwrap()).unwrap();
            std::fs::write(input.join(name), "{}").unwrap();
        })
    };
    assert!(with("x.gguf").ends_with("/x.gguf") && with("x.m").ends_with("/x.m"), "{}", with("x.gguf"));
    let line = with("snapshots/0a1b/config.json");
    assert!(line.contains("without config.json; name ") && line.ends_with("/snapshots/0a1b"), "{line}");
    assert!(remove("tokenizer.json").contains("tokenizer.json"));
    assert!(remove("model-00002-of-00003.safetensors").contains("model-00002-of-00003.safetensors"));
    assert!(
        change(&|input| std::fs::write(input.join("config.json"), "[]").unwrap()).contains("config.json: not the JSON")
    );
    let index =
        |text: &'static str| change(&|input| std::fs::write(input.join("model.safetensors.index.json"), text).unwrap());
    assert!(
        index(r#"{"weight_map":{"a":"../secret"}}"#)
            .contains("weight_map is \"../secret\"; plain file names are allowed")
    );
    assert!(index(r#"{"weight_map":{"a":"/etc/passwd"}}"#).contains("plain file names"));
    assert!(index(r#"{"weight_map":{"a":".."}}"#).contains("plain file names"));
    let line = change(&|input| {
        for n in 1..=3 {
            std::fs::remove_file(input.join(format!("model-0000{n}-of-00003.safetensors"))).unwrap();
        }
        std::fs::remove_file(input.join("model.safetensors.index.json")).unwrap();
    });
    assert!(line.contains("the model is without a *.safetensors file; others, such as *.bin, are not read"), "{line}");
    let line = change(&|input| {
        std::fs::remove_file(input.join("model.safetensors.index.json")).unwrap();
        let again = safetensors(&folder.tensors[..1]);
        std::fs::write(input.join("again.safetensors"), again).unwrap();
    });
    assert!(line.contains("each must be in one file only"), "{line}");
}
