//! The IR: what ONE node computes for one forward pass.
//!
//! A [`Graph`] is a list of segments; each runs its ops in order and then exchanges pipes with the other nodes.
//! *Pipes* are shared between nodes and have the same shape on all of them; *buffers* are private.
//! It is built from a model header by [`crate::plan`], or read off a socket by [`crate::wire`];
//! [`crate::exec`] can't tell which. Ops and shapes follow the C++ Distributed-Llama 0.16, so that a graph can be sent to its workers.

mod op;
mod table;

pub use op::{Attention, Op, OpKind, Operand, Place, Rope, View, WINDOW_ROWS, Weight};
pub use table::{Full, Sizes, Table, Tables};

use crate::quant::{DType, INTERLEAVED_ROWS, Order, interleaves};
use core::fmt::{self, Write};
use core::ops::Range;

/// Most layers of a model.
pub const MAX_LAYERS: u32 = 256;
/// Most experts of a layer.
pub const MAX_EXPERTS: u32 = 1024;
/// Most nodes that compute one graph together.
pub const MAX_NODES: u32 = 256;
/// Most sequences of a KV cache.
pub const MAX_SLOTS: u32 = 256;
/// Most rows of a batch.
pub const MAX_BATCH: u32 = 256;
/// Longest name in bytes.
pub const NAME_MAX: usize = 31;

/// Name of a pipe, buffer or op.
pub type Name = heapless::String<NAME_MAX>;

/// Makes a [`Name`] of a literal of this crate.
pub(crate) fn name(text: &str) -> Name {
    Name::try_from(text).expect("names of this crate fit NAME_MAX")
}

/// A name for a message: another program may have given it, so what a terminal would obey becomes U+FFFD.
pub(crate) struct Printable<'n>(pub &'n str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '\u{FFFD}' } else { c }))
    }
}

/// Names of pipes that have a role of their own.
pub mod pipes {
    /// Positions, F32 `[batch_max, 1]`.
    pub const POSITIONS: &str = "POS";
    /// Token ids, F32 `[batch_max, 1]`; filled on the root only.
    pub const TOKENS: &str = "TOK";
    /// Embedding rows, F32 `[batch_max, dim]`; root to all.
    pub const EMBEDDING: &str = "X";
    /// Logits, F32 `[batch_max, vocab_size]`; gathered on the root.
    pub const LOGITS: &str = "LG";
    /// Partial sums of the residual stream, `[batch_max, dim * nodes]`; all to all.
    pub const PARTIALS: &str = "ZQ";
    /// The residual stream, normed and quantised block by block, `[batch_max, dim]` as
    /// [`NormBlock`](crate::quant::NormBlock)s; all to all, in graphs cut by rows.
    pub const NORMED: &str = "N";
    /// What attention computes, `[batch_max, q_dim]`; all to all, in graphs cut by rows.
    pub const ATTENTION: &str = "Z";
    /// The hidden layer of the feed-forward network, `[batch_max, width]` for each active expert; all to all, in graphs cut
    /// by rows.
    pub const HIDDEN: &str = "D";
}

/// Values that nodes exchange: `rows × width`, identical in shape on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipe {
    /// One of [`pipes`] in graphs of this crate.
    pub name: Name,
    /// Type of the values, also on the wire.
    pub dtype: DType,
    /// Rows: one per token of a batch.
    pub rows: u32,
    /// Values per row.
    pub width: u32,
    /// Where the part of each node of a stage begins: index of the first of `nodes + 1` values in [`Graph::bounds`]. Without
    /// one, all parts are equal.
    pub bounds: Option<u32>,
}

/// Values private to a node: `planes × rows × width`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// As in the C++ system; only printed.
    pub name: Name,
    /// Type of the values.
    pub dtype: DType,
    /// Experts, sequences of a cache, or 1.
    pub planes: u32,
    /// Tokens of a batch, or positions of a cache.
    pub rows: u32,
    /// Values per row.
    pub width: u32,
}

/// Some ops, then some exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Indexes into [`Graph::ops`].
    pub ops: Range<u32>,
    /// Indexes into [`Graph::syncs`].
    pub syncs: Range<u32>,
    /// What follows is needed only for tokens whose logits are asked for: other rows may be left out.
    pub head: bool,
}

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collective {
    /// The root sends whole rows to every worker.
    #[default]
    Broadcast,
    /// Every node sends its slice of each row to every other node.
    AllGather,
    /// Every worker sends its slice of each row to the root.
    Gather,
    /// Every node that has a part of a row sends it to each of the nodes from the first to before the second. In graphs cut by
    /// rows only.
    To(u16, u16),
}

/// One exchange of a pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// Index into [`Graph::pipes`].
    pub pipe: u32,
    /// How it is exchanged.
    pub collective: Collective,
    /// Who sends which part: index of the first of `nodes + 1` values in [`Graph::bounds`]. Without one, all parts are equal.
    pub bounds: Option<u32>,
}

/// What one node does; borrowed from the caller's [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Graph<'t> {
    /// This node, 0 is the root.
    pub node: u32,
    /// All nodes.
    pub nodes: u32,
    /// Most tokens of one forward pass.
    pub batch_max: u32,
    /// Shared values.
    pub pipes: &'t [Pipe],
    /// Private values.
    pub buffers: &'t [Buffer],
    /// In order of execution.
    pub segments: &'t [Segment],
    /// Ops of all segments.
    pub ops: &'t [Op],
    /// Exchanges of all segments.
    pub syncs: &'t [Sync],
    /// Bounds of the nodes' parts of pipes, in values: see [`Pipe::bounds`].
    pub bounds: &'t [u32],
}

impl<'t> Graph<'t> {
    /// The ops of a segment.
    pub fn ops_of(&self, segment: &Segment) -> &'t [Op] {
        &self.ops[segment.ops.start as usize..segment.ops.end as usize]
    }

    /// The exchanges of a segment.
    pub fn syncs_of(&self, segment: &Segment) -> &'t [Sync] {
        &self.syncs[segment.syncs.start as usize..segment.syncs.end as usize]
    }

    /// Bounds of the nodes' parts of a row, in values, from an index on: `nodes + 1` of them, or none where all parts are
    /// equal. Those that the table does not have count as equal, too; [`crate::exec`] refuses such a graph.
    pub fn bounds_from(&self, start: Option<u32>) -> Option<&'t [u32]> {
        let start = start? as usize;
        self.bounds.get(start..start + self.nodes as usize + 1)
    }

    /// Type of the values of an operand, if it exists.
    pub fn dtype(&self, place: Place) -> Option<DType> {
        match place {
            Place::Pipe(pipe) => self.pipes.get(pipe as usize).map(|pipe| pipe.dtype),
            Place::Buffer(buffer) => self.buffers.get(buffer as usize).map(|buffer| buffer.dtype),
        }
    }

    /// This graph over weights whose rows lie interleaved wherever products take them so; they keep their offsets.
    ///
    /// # Panics
    /// If `ops`, memory for the ops, has not their number.
    pub fn interleaved(self, ops: &'t mut [Op]) -> Self {
        ops.clone_from_slice(self.ops);
        for op in ops.iter_mut() {
            let input = self.dtype(op.input.place);
            if let (OpKind::Matmul { .. }, Some(input), Some(weight)) = (&op.kind, input, &mut op.weight) {
                let whole = weight.rows.is_multiple_of(INTERLEAVED_ROWS as u32)
                    && weight.row_bytes() == Some(weight.row_stride);
                if whole && interleaves(weight.dtype, input) {
                    weight.order = Order::Interleaved;
                }
            }
        }
        Graph { ops, ..self }
    }

    /// Index of the pipe with this name.
    pub fn pipe(&self, name: &str) -> Option<usize> {
        self.pipes.iter().position(|pipe| pipe.name == name)
    }

    /// Index of the first op with this name and layer.
    pub fn op(&self, name: &str, layer: u32) -> Option<usize> {
        self.ops.iter().position(|op| op.layer == layer && op.name == name)
    }
}
