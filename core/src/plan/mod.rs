//! Who computes which part: from a model's header and a cut to the graph of each node, by arithmetic alone.
//!
//! [`Cut`] says how many nodes share a model, in which way, and in which types they compute; [`build`] writes one node's
//! graph. There are two ways: by rows, in parts of any size, with the results of one node; and that of the C++ system.
//! One node alone is a cut by rows with one part. A cut by layers has several stages, each of which is cut by rows.

mod columns;
pub mod coordinator;
pub mod cost;
pub mod membership;
pub mod names;
mod parts;
mod rows;
mod stages;
mod weights;

pub use parts::{Parts, Quantity, Share};
pub use stages::{Stage, Stages};

use crate::format::{Arch, Header, Layout};
use crate::graph::{Full, Graph, MAX_NODES, MAX_SLOTS, Sizes, Tables};
use crate::quant::DType;
use core::fmt;

/// How a model is shared between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'s> {
    /// Which node computes what.
    pub way: Way<'s>,
    /// Type of the inputs of products with quantised weights.
    pub activation: DType,
    /// Most tokens of one forward pass.
    pub batch_max: u32,
    /// Positions of the KV cache, for each sequence.
    pub seq_len: u32,
    /// Sequences that the KV cache has room for.
    pub slots: u32,
}

/// Which node computes what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way<'s> {
    /// Every matrix by rows. Logits are those of one node, bit for bit.
    Rows {
        /// A share for each node, the root's first.
        shares: &'s [Share],
        /// Which of them compute which layers; none where all compute all.
        stages: &'s [Stage],
    },
    /// As the C++ system does: `wq wk wv w1 w3 wcls` by rows, `wo w2` by columns, in equal parts. Logits depend on the number of
    /// nodes.
    Columns {
        /// Nodes, the root included.
        nodes: u32,
        /// Type of the partial sums that nodes exchange.
        exchange: DType,
    },
}

/// Rows of a batch that the C++ system uses.
pub const DLLAMA_BATCH: u32 = 32;

/// Rows of a batch where graphs are ours: enough that reading and unpacking weights cost little beside the products, and
/// few enough that their activations stay small beside the weights.
pub const BATCH: u32 = 128;

/// Rows of a batch where weights come from disk: each batch reads all of them, whatever its rows cost.
pub const STREAMED_BATCH: u32 = crate::graph::MAX_BATCH;

impl Cut<'static> {
    /// One node.
    pub fn single(header: &Header) -> Self {
        Self::rows(header, &[Share::EQUAL])
    }

    /// The cut of the C++ system.
    pub fn dllama(header: &Header, nodes: u32) -> Self {
        Self { batch_max: DLLAMA_BATCH, ..Self::columns(header, nodes, Self::columns_exchange(header)) }
    }

    /// By columns, with partial sums of this type.
    pub fn columns(header: &Header, nodes: u32, exchange: DType) -> Self {
        Self { way: Way::Columns { nodes, exchange }, ..Self::single(header) }
    }

    /// The usual type of partial sums: Q80 where weights are quantised, else F32.
    pub const fn columns_exchange(header: &Header) -> DType {
        match header.weights {
            DType::F32 | DType::F16 => DType::F32,
            DType::Q40 | DType::Q80 => DType::Q80,
        }
    }
}

impl<'s> Cut<'s> {
    /// By rows, a share for each node: activations as the weights want them, and a residual stream that is never
    /// quantised but as an input of products.
    pub fn rows(header: &Header, shares: &'s [Share]) -> Self {
        Self::stages(header, shares, &[])
    }

    /// As [`Self::rows`], where not all compute all layers.
    pub fn stages(header: &Header, shares: &'s [Share], stages: &'s [Stage]) -> Self {
        let activation = activations_of(header.weights)[0];
        let way = Way::Rows { shares, stages };
        Self { way, activation, batch_max: BATCH, seq_len: header.seq_len, slots: 1 }
    }

    /// Nodes, the root included.
    pub const fn nodes(&self) -> u32 {
        match self.way {
            Way::Rows { shares, .. } => shares.len() as u32,
            Way::Columns { nodes, .. } => nodes,
        }
    }

    /// Room that the graph of one node takes.
    pub const fn sizes(&self, header: &Header) -> Sizes {
        match self.way {
            Way::Rows { shares, .. } => Sizes::of_rows(header.n_layers, shares.len() as u32),
            Way::Columns { .. } => Sizes::of_layers(header.n_layers),
        }
    }

    /// Rows of `seq_len` keys and values that `node` keeps: one for each of its layers, KV heads and sequences. The cut has been
    /// checked.
    pub fn kv_rows(&self, header: &Header, node: u32) -> u64 {
        let rows = match self.way {
            Way::Rows { shares, stages } => {
                let parts = Parts::new(header, self.activation, shares, stages);
                let heads = parts.kv_heads(&parts.of(Quantity::Heads, node));
                let layers = parts.stages().layers(parts.stages().of(node));
                u64::from(heads.end - heads.start) * u64::from(layers.end - layers.start)
            }
            Way::Columns { nodes, .. } => u64::from(header.n_kv_heads / nodes) * u64::from(header.n_layers),
        };
        rows * u64::from(self.slots)
    }

    /// Checks that every part is whole: heads and blocks, and with columns at least one KV head for each node.
    ///
    /// # Errors
    /// The first dimension that can't be cut.
    pub fn check(&self, header: &Header) -> Result<(), PlanError> {
        let nodes = self.nodes();
        if nodes == 0 || nodes > MAX_NODES {
            return Err(PlanError::Nodes { nodes });
        }
        if !activations_of(header.weights).contains(&self.activation) {
            return Err(PlanError::Activation { activation: self.activation, weights: header.weights });
        }
        let max = if matches!(self.way, Way::Rows { .. }) { MAX_SLOTS } else { 1 };
        if self.slots == 0 || self.slots > max {
            return Err(PlanError::Slots { slots: self.slots, max });
        }
        match self.way {
            Way::Rows { shares, stages } => self.check_rows(header, shares, stages),
            Way::Columns { nodes, exchange } => self.check_columns(header, nodes, exchange),
        }
    }

    fn check_rows(&self, header: &Header, shares: &[Share], stages: &[Stage]) -> Result<(), PlanError> {
        let (block, nodes) = (self.activation.block_len().max(header.weights.block_len()) as u32, self.nodes());
        for (what, len) in [("dim", header.dim), ("q_dim", header.q_dim()), (FF, header.ff_dim())] {
            if !len.is_multiple_of(block) {
                return Err(PlanError::Indivisible { what, len, nodes: 1, block });
            }
        }
        if !Stages::new(stages, shares.len() as u32, header.n_layers).are_whole() {
            return Err(PlanError::Stages { nodes, n_layers: header.n_layers });
        }
        let parts = Parts::new(header, self.activation, shares, stages);
        if (0..parts.stages().count()).any(|stage| parts.at_work(stage).is_empty()) {
            return Err(PlanError::Nobody { what: "a layer" });
        }
        if parts.at_head().is_empty() {
            return Err(PlanError::Nobody { what: "the vocabulary" });
        }
        Ok(())
    }

    fn check_columns(&self, header: &Header, nodes: u32, exchange: DType) -> Result<(), PlanError> {
        if nodes > header.n_kv_heads {
            return Err(PlanError::KvHeads { nodes, n_kv_heads: header.n_kv_heads });
        }
        if (header.n_heads / nodes).checked_mul(self.seq_len).is_none() {
            return Err(PlanError::Context { seq_len: self.seq_len, max: u32::MAX / (header.n_heads / nodes) });
        }
        // Values per block of the most demanding type that rows are stored in.
        let types = [self.activation, exchange, header.weights];
        let block = types.map(DType::block_len).into_iter().max().unwrap_or(1) as u32;
        let per_node = [
            ("n_kv_heads", header.n_kv_heads, 1),
            ("n_heads", header.n_heads, 1),
            ("vocab_size", header.vocab_size, 1),
            ("q_dim", header.q_dim(), block),
            (FF, header.ff_dim(), block),
        ];
        for (what, len, block) in per_node {
            if !len.is_multiple_of(nodes) || !(len / nodes).is_multiple_of(block) {
                return Err(PlanError::Indivisible { what, len, nodes, block });
            }
        }
        if !header.dim.is_multiple_of(block) {
            return Err(PlanError::Indivisible { what: "dim", len: header.dim, nodes: 1, block });
        }
        Ok(())
    }
}

const FF: &str = "the feed-forward width";

/// Builds the graph of `node` (0 is the root). Weights are spans of the model file that `layout` describes.
///
/// # Errors
/// [`PlanError`] where the model can't be cut this way or `tables` are smaller than [`Cut::sizes`].
///
/// # Panics
/// If the cut has no such node.
pub fn build<'t>(layout: &Layout, cut: &Cut<'_>, node: u32, tables: Tables<'t>) -> Result<Graph<'t>, PlanError> {
    let header = layout.header();
    cut.check(header)?;
    assert!(node < cut.nodes(), "node {node} of {}", cut.nodes());
    match cut.way {
        Way::Rows { shares, stages } => {
            rows::build(layout, cut, Parts::new(header, cut.activation, shares, stages), node, tables)
        }
        Way::Columns { nodes, exchange } => columns::build(layout, (cut, nodes, exchange), node, tables),
    }
}

/// The types that inputs of products may take for this type of weights, the usual one first.
///
/// Q80 weights are chosen for quality, and 8-bit activations would cost more of it than the weights do; they are there
/// for who wants speed instead.
pub const fn activations_of(weights: DType) -> &'static [DType] {
    match weights {
        DType::F32 | DType::F16 => &[DType::F32],
        DType::Q80 => &[DType::F32, DType::Q80],
        DType::Q40 => &[DType::Q80],
    }
}

/// Node counts that the model can be cut into, in rising order.
pub fn node_counts(header: &Header) -> impl Iterator<Item = u32> {
    let header = *header;
    (1..=header.n_kv_heads.min(MAX_NODES)).filter(move |nodes| Cut::dllama(&header, *nodes).check(&header).is_ok())
}

/// Why a model can't be shared in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// No node, or more than [`MAX_NODES`].
    Nodes {
        /// As asked.
        nodes: u32,
    },
    /// Inputs of products in a type that these weights have no product with.
    Activation {
        /// As asked.
        activation: DType,
        /// What the model has.
        weights: DType,
    },
    /// A node would have no KV head.
    KvHeads {
        /// As asked.
        nodes: u32,
        /// What the model has.
        n_kv_heads: u32,
    },
    /// More attention scores than the formats can count: one for each position and query head.
    Context {
        /// Positions, as asked.
        seq_len: u32,
        /// Most for these heads.
        max: u32,
    },
    /// No sequence, or more than [`MAX_SLOTS`]; with columns, more than one.
    Slots {
        /// As asked.
        slots: u32,
        /// Most.
        max: u32,
    },
    /// Stages that do not have all nodes and layers, or one that has none.
    Stages {
        /// Nodes that there are.
        nodes: u32,
        /// Layers that there are.
        n_layers: u32,
    },
    /// No node has a share of something.
    Nobody {
        /// What nobody has a share of.
        what: &'static str,
    },
    /// A dimension does not fall into equal parts of whole blocks.
    Indivisible {
        /// The dimension.
        what: &'static str,
        /// Its size.
        len: u32,
        /// Parts.
        nodes: u32,
        /// What each part must be a multiple of.
        block: u32,
    },
    /// The tables are too small for this model.
    Tables(Full),
}

impl From<Full> for PlanError {
    fn from(full: Full) -> Self {
        Self::Tables(full)
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nodes { nodes } => write!(f, "{nodes} nodes asked for; allowed: 1 to {MAX_NODES}"),
            Self::Activation { activation, weights } => {
                let usual = activations_of(weights)[0];
                write!(f, "{activation} activations do not go with {weights} weights; use {usual}")
            }
            Self::KvHeads { nodes, n_kv_heads } => {
                write!(f, "{nodes} nodes asked for, but the model has {n_kv_heads} KV heads and each node needs one")
            }
            Self::Context { seq_len, max } => {
                write!(
                    f,
                    "context of {seq_len} positions; this model's heads allow {max}: shorten it with --max-seq-len"
                )
            }
            Self::Slots { slots, max } => write!(f, "room for {slots} sequences asked for; allowed: 1 to {max}"),
            Self::Stages { nodes, n_layers } => {
                write!(
                    f,
                    "stages must have at least one node and one layer each, {nodes} nodes and {n_layers} layers in all"
                )
            }
            Self::Nobody { what } => write!(f, "all shares of {what} are 0"),
            Self::Indivisible { what, len, nodes, block } if block > 1 => {
                write!(f, "{what} {len} does not fall into {nodes} equal parts of whole {block}-value blocks")
            }
            Self::Indivisible { what, len, nodes, .. } => {
                write!(f, "{what} {len} does not fall into {nodes} equal parts")
            }
            Self::Tables(full) => write!(f, "{full}"),
        }
    }
}

impl core::error::Error for PlanError {}

/// True where `header` describes a mixture of experts.
pub(crate) const fn is_moe(header: &Header) -> bool {
    matches!(header.arch, Arch::Qwen3Moe)
}
