//! Ops as they are executed: operands resolved to the arena, everything checked.

use super::share::Share;
use crate::graph::Weight;
use crate::kernels::{KvLayout, KvPart};

/// How the rows of an operand are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Repr {
    /// F32 values.
    #[default]
    F32,
    /// Activation rows of [`crate::kernels`]: buffers.
    Activations,
    /// Q80 blocks: pipes.
    Blocks,
}

/// Rows in the arena: row `r` of plane `z` starts at `offset + z * plane_stride + r * row_stride` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub offset: usize,
    pub row_stride: usize,
    pub plane_stride: usize,
    pub planes: usize,
    /// Values per row.
    pub width: usize,
    pub repr: Repr,
}

impl Rows {
    /// First byte of a row.
    pub const fn row(&self, plane: usize, row: usize) -> usize {
        self.offset + plane * self.plane_stride + row * self.row_stride
    }
}

/// Keys or values of all positions: head `h` of slot `s` starts at `offset + s * slot_bytes + h * head_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cache {
    pub offset: usize,
    pub head_bytes: usize,
    /// KV heads.
    pub heads: usize,
    pub slot_bytes: usize,
    /// Sequences.
    pub slots: usize,
    pub part: KvPart,
    pub layout: KvLayout,
}

impl Cache {
    /// First byte of a head of a slot.
    pub const fn head(&self, slot: u32, head: usize) -> usize {
        self.offset + slot as usize * self.slot_bytes + head * self.head_bytes
    }

    /// First byte behind the last head.
    pub const fn end(&self) -> usize {
        self.offset + (self.slots - 1) * self.slot_bytes + self.heads * self.head_bytes
    }
}

/// Heads of one attention op.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Heads {
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Query heads per KV head.
    pub group: usize,
}

/// One resolved op; opaque to the caller, who only owns the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    pub(super) kind: Kind,
    /// How lanes divide it.
    pub(super) share: Share,
    /// Lanes meet before it.
    pub(super) barrier: bool,
    /// It belongs to a segment that computes only the rows whose logits are asked for.
    pub(super) head: bool,
}

/// As [`crate::graph::OpKind`], but for casts, of which there are two. Where an op has only `x`, it works in place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Kind {
    #[default]
    Nothing,
    Embedding {
        tokens: Rows,
        out: Rows,
        weight: Weight,
    },
    InvRms {
        x: Rows,
        out: Rows,
        columns: usize,
        epsilon: f32,
    },
    RmsNorm {
        x: Rows,
        out: Rows,
        inv_rms: Rows,
        columns: usize,
        weight: Weight,
    },
    NormBlocks {
        x: Rows,
        out: Rows,
        weight: Weight,
    },
    NormFinish {
        x: Rows,
        out: Rows,
        epsilon: f32,
    },
    Stack {
        x: Rows,
        out: Rows,
    },
    Unstack {
        x: Rows,
        out: Rows,
        /// Whose bounds say where the planes of each node begin.
        pipe: u32,
    },
    Matmul {
        x: Rows,
        out: Rows,
        weight: Weight,
    },
    ExpertMatmul {
        x: Rows,
        out: Rows,
        weight: Weight,
        indexes: Rows,
    },
    Rope {
        x: Rows,
        halves: bool,
    },
    Shift {
        x: Rows,
        cache: Cache,
    },
    Attention {
        query: Rows,
        keys: Cache,
        values: Cache,
        out: Rows,
        heads: Heads,
    },
    Silu {
        x: Rows,
    },
    Mul {
        x: Rows,
        by: Rows,
    },
    Scale {
        x: Rows,
        by: Rows,
    },
    Cast {
        x: Rows,
        out: Rows,
    },
    /// A cast from Q80 blocks to activation rows.
    Unpack {
        x: Rows,
        out: Rows,
    },
    RepeatZ {
        x: Rows,
        out: Rows,
    },
    MergeAdd {
        x: Rows,
        out: Rows,
    },
    MergeSum {
        x: Rows,
        out: Rows,
    },
    Softmax {
        x: Rows,
    },
    MoeGate {
        x: Rows,
        out: Rows,
        indexes: Rows,
        renormalise: bool,
    },
}
