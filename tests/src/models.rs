//! The models that tests run: every architecture with every type of weights, and shapes that fit no vector width.

use dair_core::format::{Arch, Header};
use dair_core::quant::DType;
use dair_host::synthetic::{PRESETS, preset};

/// A header with a name for messages.
pub type Named = (String, Header);

/// The tiny presets with each type of weights.
pub fn tiny() -> Vec<Named> {
    let presets = PRESETS.iter().filter(|preset| preset.name.starts_with("tiny"));
    presets
        .flat_map(|preset| {
            DType::ALL.map(|weights| (format!("{} {weights}", preset.name), Header { weights, ..preset.header }))
        })
        .collect()
}

/// Shapes whose rows end in the middle of a vector; only unquantised weights have such.
pub fn odd() -> Vec<Named> {
    let llama = preset("tiny-llama").expect("a preset");
    let llama = Header { dim: 50, hidden_dim: 70, n_heads: 5, n_kv_heads: 5, head_dim: 10, vocab_size: 263, ..llama };
    let moe = preset("tiny-qwen3-moe").expect("a preset");
    let moe = Header {
        dim: 36,
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 6,
        n_experts: 5,
        n_active_experts: 3,
        moe_hidden_dim: 21,
        vocab_size: 271,
        ..moe
    };
    let qwen = Header { arch: Arch::Qwen3, n_experts: 0, n_active_experts: 0, hidden_dim: 39, n_kv_heads: 3, ..moe };
    [("odd-llama", llama), ("odd-qwen3", qwen), ("odd-qwen3-moe", moe)]
        .into_iter()
        .flat_map(|(name, header)| {
            [DType::F32, DType::F16].map(|weights| (format!("{name} {weights}"), Header { weights, ..header }))
        })
        .collect()
}

/// All of them.
pub fn all() -> Vec<Named> {
    [tiny(), odd()].concat()
}
