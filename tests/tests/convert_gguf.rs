//! GGUF files become `.m` and `.t` files with the same values in the right places.

use dair_core::format::layout::LayerTensor as T;
use dair_core::format::tokenizer::TokenizerFile;
use dair_core::format::{Arch, Header, RopeKind, RopeScaling, TensorId};
use dair_core::quant::{DType, quantize};
use dair_host::model::convert::ggml::GgmlType;
use dair_tests::published::{Converted, Gguf, Tensor, Value, byte_level_tokens, header, ordered_tokens};

const ARCHS: [Arch; 3] = [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe];

fn convert(gguf: &Gguf, weights: DType) -> Converted {
    Converted::of_bytes(&gguf.bytes(), Some(weights)).unwrap()
}

/// The values that a tensor of the model must have: found by name, expert and token.
fn expected(gguf: &Gguf, header: &Header, id: TensorId) -> Vec<f32> {
    let find = |name: &str| gguf.tensors.iter().find(|tensor| tensor.name == name).map(Tensor::values);
    let layer = |layer: u32, part: &str| find(&format!("blk.{layer}.{part}.weight")).unwrap();
    let expert = |n: u32, part: &str, expert: u32| match header.n_experts {
        0 => layer(n, part),
        experts => {
            let stack = layer(n, &format!("{part}_exps"));
            let len = stack.len() / experts as usize;
            stack[expert as usize * len..][..len].to_vec()
        }
    };
    let by_token = |values: Vec<f32>| -> Vec<f32> {
        let rows: Vec<_> = values.chunks(header.dim as usize).collect();
        ordered_tokens().iter().flat_map(|(old_id, _)| rows[*old_id as usize]).copied().collect()
    };
    let embedding = || find("token_embd.weight").unwrap();
    match id {
        TensorId::Embedding => by_token(embedding()),
        TensorId::Wcls => by_token(find("output.weight").unwrap_or_else(embedding)),
        TensorId::FinalNorm => find("output_norm.weight").unwrap(),
        TensorId::Layer(n, T::Q) => layer(n, "attn_q"),
        TensorId::Layer(n, T::K) => layer(n, "attn_k"),
        TensorId::Layer(n, T::V) => layer(n, "attn_v"),
        TensorId::Layer(n, T::Wo) => layer(n, "attn_output"),
        TensorId::Layer(n, T::MoeGate) => layer(n, "ffn_gate_inp"),
        TensorId::Layer(n, T::W1(e)) => expert(n, "ffn_gate", e),
        TensorId::Layer(n, T::W2(e)) => expert(n, "ffn_down", e),
        TensorId::Layer(n, T::W3(e)) => expert(n, "ffn_up", e),
        TensorId::Layer(n, T::QNorm) => layer(n, "attn_q_norm"),
        TensorId::Layer(n, T::KNorm) => layer(n, "attn_k_norm"),
        TensorId::Layer(n, T::Norm0) => layer(n, "attn_norm"),
        TensorId::Layer(n, T::Norm1) => layer(n, "ffn_norm"),
    }
}

/// Compares every tensor of a model with its source.
fn check(gguf: &Gguf, header: &Header, converted: &Converted) {
    let mut tensors = 0;
    converted.layout.visit(|id, tensor| {
        let values = expected(gguf, header, id);
        let mut bytes = vec![0; tensor.bytes() as usize];
        quantize(tensor.dtype, &values, &mut bytes);
        assert!(converted.bytes(id) == bytes, "{id} as {}", tensor.dtype);
        tensors += 1;
    });
    assert!(tensors >= 3 + 2 * 9);
}

#[test]
fn every_source_type_keeps_its_values() {
    let header = header(Arch::Llama);
    for kind in GgmlType::ALL {
        let gguf = Gguf::of(&header, kind);
        check(&gguf, &header, &convert(&gguf, DType::F32));
    }
}

#[test]
fn every_architecture_keeps_every_tensor_in_its_place() {
    for arch in ARCHS {
        let header = header(arch);
        let gguf = Gguf::of(&header, GgmlType::Q6K);
        for weights in [DType::F32, DType::Q80, DType::Q40] {
            let converted = convert(&gguf, weights);
            assert_eq!(converted.summary.header, Header { weights, ..header });
            assert_eq!(converted.summary.model_bytes, converted.model.len() as u64);
            check(&gguf, &header, &converted);
        }
    }
}

#[test]
fn blocks_of_the_same_layout_are_copied_bit_for_bit() {
    for (kind, weights) in [(GgmlType::Q4_0, DType::Q40), (GgmlType::Q8_0, DType::Q80)] {
        // The type is also what a conversion chooses by itself.
        let gguf = Gguf::of(&header(Arch::Qwen3Moe), kind);
        let converted = Converted::of_bytes(&gguf.bytes(), None).unwrap();
        assert_eq!(converted.summary.header.weights, weights);
        let source = |name: &str| &gguf.tensors.iter().find(|tensor| tensor.name == name).unwrap().bytes;
        assert!(converted.bytes(TensorId::Layer(1, T::Q)) == source("blk.1.attn_q.weight"));
        let down = source("blk.0.ffn_down_exps.weight");
        assert!(converted.bytes(TensorId::Layer(0, T::W2(2))) == &down[down.len() / 3 * 2..]);
        let rows: Vec<_> = source("output.weight").chunks(256 / 32 * kind.block_bytes() as usize).collect();
        let reordered =
            ordered_tokens().iter().flat_map(|(old_id, _)| rows[*old_id as usize]).copied().collect::<Vec<_>>();
        assert!(converted.bytes(TensorId::Wcls) == reordered);
    }
}

#[test]
fn the_default_is_q40_for_q4_0_throughout_and_q80_for_anything_else() {
    let header = header(Arch::Llama);
    for kind in GgmlType::ALL {
        let converted = Converted::of_bytes(&Gguf::of(&header, kind).bytes(), None).unwrap();
        let expected = if kind == GgmlType::Q4_0 { DType::Q40 } else { DType::Q80 };
        assert_eq!(converted.summary.header.weights, expected, "{kind}");
    }
    let mut mixed = Gguf::of(&header, GgmlType::Q4_0);
    *mixed.tensor("output.weight") = Tensor::random("output.weight", GgmlType::Q6K, &[264, 256]);
    assert_eq!(Converted::of_bytes(&mixed.bytes(), None).unwrap().summary.header.weights, DType::Q80);
}

#[test]
fn a_tied_embedding_is_the_output_matrix_too() {
    let header = header(Arch::Qwen3);
    let mut gguf = Gguf::of(&header, GgmlType::Q8_0);
    gguf.remove("output.weight");
    check(&gguf, &header, &convert(&gguf, DType::F32));
    for weights in [DType::F32, DType::Q80] {
        let converted = convert(&gguf, weights);
        assert_eq!(converted.values(TensorId::Embedding), converted.values(TensorId::Wcls));
    }
}

#[test]
fn tokens_are_ordered_regular_bos_special_with_the_bytes_they_stand_for() {
    let converted = convert(&Gguf::of(&header(Arch::Llama), GgmlType::F16), DType::Q80);
    assert!(converted.summary.is_reordered);
    let file = TokenizerFile::parse(&converted.tokenizer).unwrap();
    let tokens: Vec<_> = file.tokens().map(|(_, bytes)| bytes.to_vec()).collect();
    let ordered: Vec<_> = ordered_tokens().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(tokens, ordered);
    let scores: Vec<_> = file.tokens().map(|(score, _)| score).collect();
    assert_eq!(scores, (0..264u16).map(|id| -f32::from(id)).collect::<Vec<_>>());
    let header = file.header();
    assert_eq!((header.bos, header.add_bos), (Some(260), false));
    assert_eq!(header.eos.as_slice(), [262, 261], "<|im_end|> of the metadata, then <|endoftext|>, known by its text");
    assert_eq!(header.chat_template, Some("{{ '<|im_start|>' }}{{ '<|im_end|>' }}"));
}

#[test]
fn a_vocabulary_in_order_keeps_its_ids() {
    let mut gguf = Gguf::of(&header(Arch::Llama), GgmlType::F32);
    // The special tokens of the front move to the end: 261 regular ones, then BOS.
    let mut tokens = byte_level_tokens();
    let special: Vec<_> = [1, 0, 2].map(|id| tokens[id].clone()).into();
    tokens.splice(0..3, []);
    tokens.splice(260..260, special);
    let kinds = (0..264).map(|id| if id < 260 { 1 } else { 3 }).collect();
    gguf.set("tokenizer.ggml.tokens", Value::Strs(tokens)).set("tokenizer.ggml.token_type", Value::I32s(kinds));
    gguf.set("tokenizer.ggml.bos_token_id", Value::U32(260)).set("tokenizer.ggml.eos_token_id", Value::U32(262));
    let converted = convert(&gguf, DType::F32);
    assert!(!converted.summary.is_reordered);
    assert_eq!(converted.values(TensorId::Embedding), gguf.tensor("token_embd.weight").values());
    let file = TokenizerFile::parse(&converted.tokenizer).unwrap();
    assert_eq!((file.header().bos, file.header().eos.as_slice()), (Some(260), &[262, 261][..]));
}

#[test]
fn sentencepiece_tokens_become_spaces_and_bytes_with_their_scores() {
    let mut gguf = Gguf::of(&header(Arch::Llama), GgmlType::Q4_0);
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let mut kinds = vec![2, 3, 3];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    kinds.extend([6; 256]);
    tokens.extend(["▁the", "▁▁", "é", "<0x41>", "▁sp"].map(String::from));
    kinds.extend([1, 1, 1, 1, 4]);
    let scores: Vec<f32> = (0..264i16).map(|id| -f32::from(id) / 4.0).collect();
    gguf.set("tokenizer.ggml.model", "llama".into()).set("tokenizer.ggml.scores", Value::F32s(scores));
    gguf.set("tokenizer.ggml.tokens", Value::Strs(tokens)).set("tokenizer.ggml.token_type", Value::I32s(kinds));
    gguf.remove("tokenizer.ggml.add_bos_token");
    let converted = convert(&gguf, DType::Q40);
    let file = TokenizerFile::parse(&converted.tokenizer).unwrap();
    let tokens: Vec<_> = file.tokens().map(|(score, bytes)| (bytes.to_vec(), score)).collect();
    let token = |bytes: &[u8], old_id: f32| (bytes.to_vec(), -old_id / 4.0);
    assert_eq!(tokens[0x0a], token(b"\n", 13.0));
    let end = [
        token(b" the", 259.0),
        token(b"  ", 260.0),
        token("é".as_bytes(), 261.0),
        token(b"<0x41>", 262.0), // a normal token that only looks like a byte
        token(b"<s>", 1.0),
        token(b"<unk>", 0.0),
        token(b"</s>", 2.0),
        token(b" sp", 263.0), // user defined: found where blanks are U+2581 already
    ];
    assert_eq!(tokens[256..], end);
    assert_eq!((file.header().bos, file.header().add_bos), (Some(260), true), "BOS is usual for this kind");
    assert_eq!(file.header().eos.as_slice(), [262]);
}

#[test]
fn llama_3_1_scaling_is_recognised_by_its_divisors() {
    let base = Header { head_dim: 64, n_heads: 4, ..header(Arch::Llama) };
    let mut gguf = Gguf::of(&base, GgmlType::Q8_0);
    let set = |gguf: &mut Gguf, divisors: Vec<f32>| {
        let bytes = divisors.iter().flat_map(|divisor| divisor.to_le_bytes()).collect();
        gguf.tensors.retain(|tensor| tensor.name != "rope_freqs.weight");
        let dims = vec![divisors.len() as u64];
        gguf.tensors.push(Tensor { name: "rope_freqs.weight".into(), kind: GgmlType::F32, dims, bytes });
    };
    set(&mut gguf, vec![1.0; 32]);
    assert_eq!(convert(&gguf, DType::Q80).summary.header.rope_scaling, RopeScaling::default(), "ones change nothing");

    let scaling = RopeScaling { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 };
    // As Llama 3.2 1B: head size 64, base 500000, factor 32, from 8192 positions.
    let divisors: Vec<f32> = (0..32).map(|j| llama_3_1_divisor(32.0, 8192.0, j)).collect();
    assert!(
        divisors.iter().any(|divisor| *divisor > 1.1 && *divisor < 31.0),
        "between the two ends, too: {divisors:?}"
    );
    set(&mut gguf, divisors.clone());
    let header = convert(&gguf, DType::Q80).summary.header;
    assert_eq!((header.rope, header.rope_scaling), (RopeKind::Llama31, scaling));

    let mut other = divisors;
    other[20] *= 1.001;
    set(&mut gguf, other);
    let message = Converted::of_bytes(&gguf.bytes(), None).unwrap_err().to_string();
    assert!(message.contains("rope_freqs.weight is not the Llama 3.1 formula"), "{message}");
}

/// The published formula, in frequencies rather than in divisors.
fn llama_3_1_divisor(factor: f32, positions: f32, pair: i32) -> f32 {
    let frequency = 500_000f32.powf(-2.0 * pair as f32 / 64.0);
    let wave_len = 2.0 * std::f32::consts::PI / frequency;
    let scaled = if wave_len < positions / 4.0 {
        frequency
    } else if wave_len > positions {
        frequency / factor
    } else {
        let smooth = (positions / wave_len - 1.0) / 3.0;
        (1.0 - smooth) * frequency / factor + smooth * frequency
    };
    frequency / scaled
}

#[test]
fn version_2_other_alignments_and_unknown_metadata_are_read() {
    let header = header(Arch::Llama);
    let mut gguf = Gguf::of(&header, GgmlType::Q5_1);
    gguf.version = 2;
    gguf.alignment = 256;
    gguf.set("general.alignment", Value::U32(256));
    gguf.set("general.tags", Value::Nested(vec![b"ab".to_vec(), Vec::new()]));
    gguf.set("general.big", Value::U64(u64::MAX)).set("general.real", Value::F64(0.5));
    gguf.set("tokenizer.ggml.bos_token_id", Value::I32(1));
    check(&gguf, &header, &convert(&gguf, DType::F32));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.gguf");
    std::fs::write(&input, Gguf::of(&header(Arch::Qwen3Moe), GgmlType::Q4K).bytes()).unwrap();
    let [one, five] = [1, 5].map(|lanes| {
        let model = folder.path().join(format!("{lanes}.m"));
        let mut options = dair_tests::published::options(&input, &model, Some(DType::Q40));
        options.lanes = lanes;
        dair_host::model::convert::convert(&options, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        std::fs::read(model).unwrap()
    });
    assert!(one == five);
}
