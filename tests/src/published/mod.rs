//! Models as others publish them, tiny and random: GGUF files and Hugging Face folders, written by independent code.

mod converted;
mod gguf;
mod hugging_face;
mod small;

pub use converted::{Converted, options};
pub use gguf::{Gguf, Value};
pub use hugging_face::{Folder, safetensors};
pub use small::{
    SMALL_TOKENS, small, small_folder, small_for_two, small_gguf, small_gguf_with_scores, small_sentencepiece,
};

use crate::random::Random;
use dair_core::format::model::EMITTED_BYTES;
use dair_core::format::{Arch, Header, RopeKind, RopeScaling};
use dair_core::quant::DType;
use dair_host::model::convert::ggml::{GgmlType, dequantize};

/// A tensor with a name.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// As the publisher calls it.
    pub name: String,
    /// Type of its values.
    pub kind: GgmlType,
    /// Sizes, outermost first.
    pub dims: Vec<u64>,
    /// Its values as stored.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// Values of moderate size, decided by the name.
    pub fn random(name: impl Into<String>, kind: GgmlType, dims: &[u64]) -> Self {
        let name = name.into();
        // FNV-1a
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mut random = Random::new(seed);
        let len = dims.iter().product();
        let mut bytes = vec![0; kind.bytes(len).expect("rows are whole blocks") as usize];
        for block in bytes.chunks_exact_mut(kind.block_bytes() as usize) {
            match kind {
                GgmlType::F32 => block.copy_from_slice(&unit(&mut random).to_le_bytes()),
                GgmlType::Bf16 => block.copy_from_slice(&unit(&mut random).to_le_bytes()[2..]),
                _ => {
                    block.fill_with(|| (random.next_u64() >> 56) as u8);
                    for at in scales(kind) {
                        // Scales from 2^-8 to 2^-4.
                        block[*at + 1] = 0x1c + (block[*at + 1] & 0x8f);
                    }
                }
            }
        }
        Self { name, kind, dims: dims.to_vec(), bytes }
    }

    /// Its values.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.dims.iter().product::<u64>() as usize];
        dequantize(self.kind, &self.bytes, &mut values);
        values
    }
}

/// Where the binary16 scales of a block are.
const fn scales(kind: GgmlType) -> &'static [usize] {
    match kind {
        GgmlType::F32 | GgmlType::Bf16 => &[],
        GgmlType::F16 | GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 => &[0],
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K => &[0, 2],
        GgmlType::Q6K => &[208],
    }
}

/// From -1 to 1.
fn unit(random: &mut Random) -> f32 {
    (random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Two layers of a model whose sizes suit every block type, no two alike where the architecture allows it.
pub fn header(arch: Arch) -> Header {
    let moe = arch == Arch::Qwen3Moe;
    Header {
        version: 0,
        arch,
        dim: 256,
        hidden_dim: 512,
        n_layers: 2,
        n_heads: 8,
        n_kv_heads: 2,
        head_dim: if arch == Arch::Llama { 32 } else { 64 },
        n_experts: if moe { 3 } else { 0 },
        n_active_experts: if moe { 2 } else { 0 },
        moe_hidden_dim: if moe { 256 } else { 0 },
        vocab_size: 264,
        seq_len: 512,
        hidden_act: 1,
        rope: if arch == Arch::Llama { RopeKind::Llama } else { RopeKind::Falcon },
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::default(),
        weights: DType::F32,
        norm_epsilon: if arch == Arch::Llama { 1e-5 } else { 1e-6 },
        header_bytes: EMITTED_BYTES as u32,
    }
}

/// The vocabulary of all models here as a byte-level one spells it: 3 special tokens, the 256 bytes, 4 merges, one special token.
pub fn byte_level_tokens() -> Vec<String> {
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from);
    // Printable Latin-1 first, as it is in GPT-2, then the others under names from U+0100 on.
    let is_printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let printable = (0..256).filter(is_printable);
    let others = (0..256).filter(|byte| !is_printable(byte)).enumerate().map(|(n, _)| 256 + n as u32);
    let bytes = printable.chain(others).map(|code| char::from_u32(code).unwrap().to_string());
    let merges = ["Ġt", "he", "Ġthe", "ĊĊ"].map(String::from);
    special.into_iter().chain(bytes).chain(merges).chain(["<tool>".to_owned()]).collect()
}

/// The same tokens' bytes in the order of a `.t` file whose BOS is `<|im_start|>`, with their ids in [`byte_level_tokens`].
pub fn ordered_tokens() -> Vec<(u32, Vec<u8>)> {
    let printable = (0..=255u8).filter(|byte| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff));
    let others = (0..=255u8).filter(|byte| !matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff));
    let bytes = (3..).zip(printable.chain(others).map(|byte| vec![byte]));
    let named = |id: u32, text: &str| (id, text.as_bytes().to_vec());
    let merges = [named(259, " t"), named(260, "he"), named(261, " the"), named(262, "\n\n")];
    let special = [named(1, "<|im_start|>"), named(0, "<|endoftext|>"), named(2, "<|im_end|>"), named(263, "<tool>")];
    bytes.chain(merges).chain(special).collect()
}
