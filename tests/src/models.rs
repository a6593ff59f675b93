//! The models that tests run: every architecture with every type of weights, and shapes that fit no vector width.

use dair_core::format::{Arch, Header};
use dair_core::plan::{Cut, Share, Stage, Way, activations_of};
use dair_core::quant::DType;
use dair_host::synthetic::{PRESETS, preset};

/// A model, and the type in which products take their inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// For messages.
    pub name: String,
    /// Its shape.
    pub header: Header,
    /// Type of the inputs of products.
    pub activation: DType,
}

impl Case {
    /// A shape with one type of weights, for every type of activations that goes with it.
    fn of(name: &str, header: Header, weights: DType) -> impl Iterator<Item = Self> {
        let header = Header { weights, ..header };
        activations_of(weights).iter().map(move |activation| {
            let name = format!("{name} {weights} weights {activation} activations");
            Self { name, header, activation: *activation }
        })
    }

    /// All of it on one node.
    pub fn single(&self) -> Cut<'static> {
        Cut { activation: self.activation, ..Cut::single(&self.header) }
    }

    /// Cut by rows.
    pub fn rows<'s>(&self, shares: &'s [Share]) -> Cut<'s> {
        Cut { activation: self.activation, ..Cut::rows(&self.header, shares) }
    }

    /// Cut by layers, and by rows inside each stage.
    pub fn stages<'s>(&self, shares: &'s [Share], stages: &'s [Stage]) -> Cut<'s> {
        Cut { way: Way::Rows { shares, stages }, ..self.rows(shares) }
    }

    /// Cut by columns.
    pub fn columns(&self, nodes: u32) -> Cut<'static> {
        Cut { activation: self.activation, ..Cut::dllama(&self.header, nodes) }
    }
}

/// The tiny presets with each type of weights.
pub fn tiny() -> Vec<Case> {
    let presets = PRESETS.iter().filter(|preset| preset.name.starts_with("tiny"));
    presets
        .flat_map(|preset| DType::ALL.into_iter().flat_map(|weights| Case::of(preset.name, preset.header, weights)))
        .collect()
}

/// Shapes whose rows end in the middle of a vector; only unquantised weights have such.
pub fn odd() -> Vec<Case> {
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
            [DType::F32, DType::F16].into_iter().flat_map(move |weights| Case::of(name, header, weights))
        })
        .collect()
}

/// All of them.
pub fn all() -> Vec<Case> {
    [tiny(), odd()].concat()
}
