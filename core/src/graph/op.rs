//! Ops: a closed set, each with its operands and the part of the weights that it reads.

use super::Name;
use crate::format::{RopeKind, RopeScaling};
use crate::quant::{DType, Order};

/// One computation on the rows of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Op {
    /// As in the C++ system; with `layer` it addresses weights on the wire.
    pub name: Name,
    /// Layer that the op belongs to, 0 outside layers.
    pub layer: u32,
    /// What is computed.
    pub kind: OpKind,
    /// What is read.
    pub input: Operand,
    /// What is written.
    pub output: Operand,
    /// The weights, for kinds that have some.
    pub weight: Option<Weight>,
}

/// Where an operand lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Index of a pipe.
    Pipe(u32),
    /// Index of a buffer.
    Buffer(u32),
}

/// Which part of a place an op sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Everything as one row.
    Raw,
    /// One row per token.
    #[default]
    Rows,
    /// This node's share of each row: what the bounds of a pipe say, else `width / nodes` values from
    /// `node * width / nodes` on.
    Slice,
}

/// An operand: a place and a view of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Where.
    pub place: Place,
    /// Which part.
    pub view: View,
}

impl Default for Operand {
    fn default() -> Self {
        Self::rows(Place::Pipe(0))
    }
}

impl Operand {
    /// One row per token.
    pub const fn rows(place: Place) -> Self {
        Self { place, view: View::Rows }
    }

    /// This node's share of each row.
    pub const fn slice(place: Place) -> Self {
        Self { place, view: View::Slice }
    }

    /// Everything as one row.
    pub const fn raw(place: Place) -> Self {
        Self { place, view: View::Raw }
    }
}

/// A strided stack of matrices in Storage: whole tensor, row cut, column cut or expert stack.
///
/// Row `r` of matrix `m` starts at `offset + m * mat_stride + r * row_stride` and holds `cols` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Type of the values.
    pub dtype: DType,
    /// How rows lie; interleaved ones never cross the wire.
    pub order: Order,
    /// First byte.
    pub offset: u64,
    /// Rows of one matrix: output width of a product.
    pub rows: u32,
    /// Values per row: input width of a product.
    pub cols: u32,
    /// Bytes from row to row.
    pub row_stride: u64,
    /// Matrices: experts, or 1.
    pub mats: u32,
    /// Bytes from matrix to matrix.
    pub mat_stride: u64,
}

/// Windows of a matrix are multiples of so many rows: whole groups of interleaved ones, and a cache line of results.
pub const WINDOW_ROWS: u32 = 32;

impl Weight {
    /// Bytes of one row, without what lies between rows; `None` where `cols` is not whole blocks.
    pub fn row_bytes(&self) -> Option<u64> {
        self.dtype.bytes(u64::from(self.cols))
    }

    /// Bytes of one matrix without gaps, as it crosses the wire.
    pub fn mat_bytes(&self) -> Option<u64> {
        self.row_bytes()?.checked_mul(u64::from(self.rows))
    }

    /// First byte behind matrix `mat`, gaps between its rows included; `None` on overflow or for an empty one.
    pub fn mat_end(&self, mat: u32) -> Option<u64> {
        let last_row = u64::from(self.rows.checked_sub(1)?).checked_mul(self.row_stride)?;
        self.mat_start(mat)?.checked_add(last_row)?.checked_add(self.row_bytes()?)
    }

    /// First byte of matrix `mat`; `None` on overflow.
    pub fn mat_start(&self, mat: u32) -> Option<u64> {
        u64::from(mat).checked_mul(self.mat_stride)?.checked_add(self.offset)
    }

    /// Rows of a matrix that follow each other and are read together where at most `window` bytes are: all, or a multiple of
    /// [`WINDOW_ROWS`], and never fewer than these.
    pub fn window_rows(&self, window: u64) -> u32 {
        let steps = window / self.row_stride.saturating_mul(WINDOW_ROWS.into()).max(1);
        u32::try_from(steps).unwrap_or(u32::MAX).max(1).saturating_mul(WINDOW_ROWS).min(self.rows)
    }
}

/// What an op computes; `b` is a row of the batch. Buffer and pipe fields are indexes. All arithmetic is F32 unless a type
/// says otherwise. `NormBlocks`, `NormFinish`, `Stack` and `Unstack` are ours: the `dllama` dialect has no words for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OpKind {
    /// `out[b] += Σ_node in[b][node]`: adds the nodes' slices in node order.
    MergeAdd,
    /// `out[b] = Σ_z in[z][b]` over expert planes.
    MergeSum,
    /// `out[b] = weight[token[b]]`.
    Embedding,
    /// `out[b][c] = 1 / sqrt(mean(in[b][column c]²) + epsilon)`.
    InvRms {
        /// Added to the mean.
        epsilon: f32,
        /// Equal parts of a row, each with its own result: 1, or heads.
        columns: u32,
    },
    /// `out[b] = weight * (inv_rms[b][c] * in[b][column c])`, the same weight for every column.
    RmsNorm {
        /// Buffer with the results of [`OpKind::InvRms`].
        inv_rms: u32,
        /// As there.
        columns: u32,
    },
    /// First half of a norm, by whoever has part of a row: `weight * in[b]`, quantised in blocks of 32, and for each block
    /// the sum of the squares of `in[b]` ([`NormBlock`](crate::quant::NormBlock)).
    NormBlocks,
    /// The other half, of whole rows: codes as they are, scales times `1 / sqrt(mean of the squares + epsilon)`.
    NormFinish {
        /// Added to the mean.
        epsilon: f32,
    },
    /// `out[b] =` the planes `in[0][b]`, `in[1][b]`, … one behind the other, in the output's type.
    Stack,
    /// `out[z][b] =` plane `z` of what every node has stacked, node by node, in the output's type.
    Unstack,
    /// `out[b][r] = Σ_c weight[r][c] * in[b][c]`; with experts, plane `z` uses matrix `indexes[b][z]`.
    Matmul {
        /// Matrices in the stack, 0 for a dense product.
        experts: u32,
        /// Planes of input and output, 0 for a dense product.
        active: u32,
        /// Buffer with the experts of each token.
        indexes: u32,
    },
    /// Rotates query or key heads by their position.
    Rope(Rope),
    /// Attention of this node's query heads over the cache.
    Attention(Attention),
    /// `out = gelu(in)`, tanh form; exists on the wire only.
    Gelu,
    /// `out = in / (1 + exp(-in))`.
    Silu,
    /// `out *= buffer`.
    Mul {
        /// The factor.
        by: u32,
    },
    /// `out[z][b] *= buffer[z][b]`, one factor per row.
    Scale {
        /// The factors.
        by: u32,
    },
    /// `out = in` in the output's type.
    #[default]
    Cast,
    /// `out[z][b] = in[b]` in the output's type, for every plane.
    RepeatZ,
    /// Copies row `b` to row `position[b]` of the output.
    Shift {
        /// Pipe with positions.
        positions: u32,
    },
    /// Softmax of each row.
    Softmax,
    /// The `k` largest of each row, in falling order: indexes into a buffer, weights to the output.
    MoeGate {
        /// Experts per token.
        k: u32,
        /// Whether the weights are divided by their sum.
        renormalise: bool,
        /// Buffer that receives the indexes.
        indexes: u32,
    },
}

impl OpKind {
    /// Whether ops of this kind read weights.
    pub const fn has_weight(&self) -> bool {
        matches!(self, OpKind::Embedding | OpKind::RmsNorm { .. } | OpKind::NormBlocks | OpKind::Matmul { .. })
    }
}

/// RoPE of one node's query or key heads. The slice fields are those of the C++ wire format.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)] // dimensions, named as in the wire format
pub struct Rope {
    pub kind: RopeKind,
    pub is_query: bool,
    /// Pipe with positions.
    pub positions: u32,
    /// Buffer that the C++ system keeps sines and cosines in; here only its shape matters.
    pub cache: u32,
    pub scaling: RopeScaling,
    pub q_dim0: u32,
    pub q_dim_start: u32,
    pub q_dim_end: u32,
    pub q_shift: u32,
    pub kv_dim: u32,
    pub kv_dim0: u32,
    pub kv_dim_start: u32,
    pub slice_dim: u32,
    pub seq_len: u32,
    pub head_dim: u32,
    pub n_kv_heads: u32,
    pub theta: f32,
    /// Shape of the cache buffer: rows, width.
    pub cache_shape: [u32; 2],
}

/// Attention over this node's heads, `n_heads / n_kv_heads` of which share a KV head. Dimensions with a 0 are this node's
/// share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // dimensions, named as in the wire format
pub struct Attention {
    pub n_heads: u32,
    pub n_heads0: u32,
    pub n_kv_heads: u32,
    pub head_dim: u32,
    pub seq_len: u32,
    pub q_dim0: u32,
    pub kv_dim0: u32,
    /// Pipe with positions.
    pub positions: u32,
    /// Buffer with this node's query heads.
    pub query: u32,
    /// Cache buffers, `[seq_len, kv_dim0]`.
    pub key_cache: u32,
    pub value_cache: u32,
    /// Buffer that the C++ system keeps scores in; here only its index matters.
    pub scores: u32,
    /// The first of the `n_heads0` heads that this op computes, counted in the query; 0 in the `dllama` dialect.
    pub first_head: u32,
    /// The KV head that belongs to it, counted in the cache; 0 in the `dllama` dialect.
    pub first_kv_head: u32,
}
