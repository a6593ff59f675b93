//! Keys of the header and the values they may have.

use super::Arch;
use core::fmt;

/// Keys of the header, by their code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names are the documentation; meanings are at the fields of `Header`
pub enum Key {
    Version,
    Arch,
    Dim,
    HiddenDim,
    NLayers,
    NHeads,
    NKvHeads,
    NExperts,
    NActiveExperts,
    VocabSize,
    SeqLen,
    HiddenAct,
    RopeTheta,
    Weights,
    RopeScalingFactor,
    RopeLowFreqFactor,
    RopeHighFreqFactor,
    RopeOrigSeqLen,
    RopeKind,
    HeadDim,
    NormEpsilon,
    MoeHiddenDim,
}

impl Key {
    /// Every key; the index is the code.
    pub const ALL: [Key; 22] = [
        Key::Version,
        Key::Arch,
        Key::Dim,
        Key::HiddenDim,
        Key::NLayers,
        Key::NHeads,
        Key::NKvHeads,
        Key::NExperts,
        Key::NActiveExperts,
        Key::VocabSize,
        Key::SeqLen,
        Key::HiddenAct,
        Key::RopeTheta,
        Key::Weights,
        Key::RopeScalingFactor,
        Key::RopeLowFreqFactor,
        Key::RopeHighFreqFactor,
        Key::RopeOrigSeqLen,
        Key::RopeKind,
        Key::HeadDim,
        Key::NormEpsilon,
        Key::MoeHiddenDim,
    ];

    /// Values that make sense, ends included. Generous: the largest published model uses a fraction of each.
    pub(super) const fn range(self) -> (u32, u32) {
        match self {
            Key::Version => (0, i32::MAX as u32),
            Key::Arch => (Arch::Llama.code(), Arch::Qwen3Moe.code()),
            Key::Dim | Key::HiddenDim => (1, 1 << 20),
            Key::MoeHiddenDim => (0, 1 << 20),
            Key::NLayers => (1, crate::graph::MAX_LAYERS),
            Key::NHeads | Key::NKvHeads => (1, 1 << 12),
            Key::NExperts | Key::NActiveExperts => (0, crate::graph::MAX_EXPERTS),
            Key::VocabSize => (1, 1 << 22),
            Key::SeqLen => (1, 1 << 24),
            Key::HiddenAct => (0, 1),
            Key::RopeTheta | Key::RopeScalingFactor => (1, i32::MAX as u32),
            Key::RopeLowFreqFactor | Key::RopeHighFreqFactor => (0, i32::MAX as u32),
            Key::RopeOrigSeqLen => (0, i32::MAX as u32),
            Key::Weights => (0, 3),
            Key::RopeKind => (0, 2),
            Key::HeadDim => (0, 1 << 14),
            Key::NormEpsilon => (5, 6),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Key::Version => "version",
            Key::Arch => "architecture",
            Key::Dim => "dim",
            Key::HiddenDim => "hidden_dim",
            Key::NLayers => "n_layers",
            Key::NHeads => "n_heads",
            Key::NKvHeads => "n_kv_heads",
            Key::NExperts => "n_experts",
            Key::NActiveExperts => "n_active_experts",
            Key::VocabSize => "vocab_size",
            Key::SeqLen => "seq_len",
            Key::HiddenAct => "hidden_act",
            Key::RopeTheta => "rope_theta",
            Key::Weights => "weight type",
            Key::RopeScalingFactor => "rope_scaling_factor",
            Key::RopeLowFreqFactor => "rope_low_freq_factor",
            Key::RopeHighFreqFactor => "rope_high_freq_factor",
            Key::RopeOrigSeqLen => "rope_orig_seq_len",
            Key::RopeKind => "rope type",
            Key::HeadDim => "head_dim",
            Key::NormEpsilon => "norm_epsilon code",
            Key::MoeHiddenDim => "moe_hidden_dim",
        })
    }
}
