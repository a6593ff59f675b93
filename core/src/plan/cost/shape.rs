//! What a model asks of its nodes, in bytes: to be kept, to be read for a token, to be exchanged.

use crate::format::Header;
use crate::format::layout::{LayerTensor, Layout, TensorId};
use crate::plan::{is_moe, parts::Own};
use crate::quant::{BLOCK, DType, NormBlock};

/// Bytes of a model by what nodes may have parts of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub(super) header: Header,
    pub(super) activation: DType,
    /// Rows of a pass, which activations have room for.
    batch: u32,
    /// Keys and values of one KV head in one layer.
    cache_head: u64,
    /// Of `wq`, for a query head.
    query_head: u64,
    /// Of `wk` and `wv`, for a KV head.
    kv_head: u64,
    /// Of `wo`, for a value of the residual stream.
    wo_row: u64,
    /// Of `w1` and `w3` of one expert, for a value of its hidden layer.
    hidden_rows: u64,
    /// Of `w2` of one expert, for a value of the residual stream.
    w2_row: u64,
    /// The router of experts, which every node reads whole.
    gate: u64,
    /// Of `wcls`, for a token.
    pub(super) vocab_row: u64,
}

impl Shape {
    /// Of the model that `layout` describes, computed with inputs of products in `activation`, `batch` rows at a time at most,
    /// where the keys and values of one KV head in one layer take `cache_head_bytes`.
    pub fn new(layout: &Layout, activation: DType, batch: u32, cache_head_bytes: u64) -> Self {
        use LayerTensor as T;
        let header = *layout.header();
        let row = |tensor| layout.tensor(TensorId::Layer(0, tensor)).row_bytes;
        let head_dim = u64::from(header.head_dim);
        Self {
            header,
            activation,
            batch,
            cache_head: cache_head_bytes,
            query_head: head_dim * row(T::Q),
            kv_head: head_dim * (row(T::K) + row(T::V)),
            wo_row: row(T::Wo),
            hidden_rows: row(T::W1(0)) + row(T::W3(0)),
            w2_row: row(T::W2(0)),
            gate: if is_moe(&header) { layout.tensor(TensorId::Layer(0, T::MoeGate)).bytes() } else { 0 },
            vocab_row: layout.tensor(TensorId::Wcls).row_bytes,
        }
    }

    /// The model's header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Type of the inputs of products.
    pub const fn activation(&self) -> DType {
        self.activation
    }

    /// Feed-forward networks of a layer, and how many of them a token passes.
    pub(super) fn experts(&self) -> (u64, u64) {
        let Header { n_experts, n_active_experts, .. } = self.header;
        if is_moe(&self.header) { (n_experts.into(), n_active_experts.into()) } else { (1, 1) }
    }

    /// Weights of a layer that a token makes a node read, in the four steps between exchanges: queries, keys and values;
    /// `wo`; `w1` and `w3`; `w2`.
    pub(super) fn read(&self, own: &Own) -> [u64; 4] {
        let (_, active) = self.experts();
        let gate = if own.is_empty() { 0 } else { self.gate };
        [
            u64::from(own.heads) * self.query_head + u64::from(own.kv_heads) * self.kv_head,
            u64::from(own.residual) * self.wo_row,
            u64::from(own.hidden) * self.hidden_rows * active + gate,
            u64::from(own.residual) * self.w2_row * active,
        ]
    }

    /// Weights of a layer that a node keeps.
    pub(super) fn kept(&self, own: &Own) -> u64 {
        let (all, active) = self.experts();
        let [qkv, wo, hidden, w2] = self.read(own);
        let gate = if own.is_empty() { 0 } else { self.gate };
        qkv + wo + (hidden - gate + w2) / active * all + gate
    }

    /// Keys and values of a layer that a node keeps.
    pub(super) fn cache(&self, own: &Own) -> u64 {
        u64::from(own.kv_heads).saturating_mul(self.cache_head)
    }

    /// Activations of a node: rows that all nodes have whole, and its parts. An estimate, without what lanes work with.
    pub(super) fn activations(&self, own: &Own) -> u64 {
        let Header { dim, head_dim, vocab_size, .. } = self.header;
        let (_, active) = self.experts();
        let [dim, q_dim, ff] = [dim, self.header.q_dim(), self.header.ff_dim()].map(u64::from);
        let input = |len| packed(self.activation, len);
        let whole = 4 * (u64::from(vocab_size) + dim)
            + self.normed()
            + 2 * input(q_dim)
            + 2 * input(ff * active)
            + input(dim)
            + if is_moe(&self.header) { 4 * dim + input(dim * active) } else { 0 };
        let heads = (2 * u64::from(own.heads) + 2 * u64::from(own.kv_heads)) * u64::from(head_dim);
        let parts = 4 * (heads + u64::from(own.residual) * (1 + active) + 2 * active * u64::from(own.hidden));
        u64::from(self.batch) * (whole + parts)
    }

    /// What a node wants that has `part` (0 to 1) of `layers`, in whole heads and blocks: bytes of weights, and of cache and
    /// activations.
    pub fn wanted(&self, layers: u32, part: f64) -> (u64, u64) {
        let header = &self.header;
        let some = |len: u32, unit: u32| (libm::ceil(f64::from(len.div_ceil(unit)) * part) as u32 * unit).min(len);
        let (heads, group) = (some(header.n_heads, 1), header.n_heads / header.n_kv_heads);
        let block = BLOCK as u32;
        let own = Own {
            heads,
            kv_heads: heads.div_ceil(group),
            residual: some(header.dim, block),
            hidden: some(header.ff_dim(), block),
        };
        let layers = u64::from(layers);
        let cache = layers.saturating_mul(self.cache(&own));
        (layers.saturating_mul(self.kept(&own)), cache.saturating_add(self.activations(&own)))
    }

    /// Bytes of a whole layer that a token makes be read.
    pub fn layer_read_bytes(&self) -> u64 {
        let Header { n_heads: heads, n_kv_heads: kv_heads, dim: residual, .. } = self.header;
        self.read(&Own { heads, kv_heads, residual, hidden: self.header.ff_dim() }).iter().sum()
    }

    /// Bytes of the output matrix.
    pub fn head_bytes(&self) -> u64 {
        u64::from(self.header.vocab_size) * self.vocab_row
    }

    /// A normed row as nodes exchange it.
    fn normed(&self) -> u64 {
        let dim = u64::from(self.header.dim);
        match self.activation {
            DType::F32 | DType::F16 => 4 * dim,
            DType::Q80 | DType::Q40 => dim.div_ceil(BLOCK as u64) * 4 * NormBlock::WORDS as u64,
        }
    }

    /// Bytes of the four rows that nodes gather in a layer of a cut by rows, before each of the steps of [`Self::read`].
    pub(super) fn gathered(&self) -> [u64; 4] {
        let Header { dim, .. } = self.header;
        let (_, active) = self.experts();
        // What decides on experts is not rounded.
        let before_hidden = if is_moe(&self.header) { 4 * u64::from(dim) } else { self.normed() };
        let attention = packed(self.activation, self.header.q_dim().into());
        let hidden = packed(self.activation, u64::from(self.header.ff_dim()) * active);
        [self.normed(), attention, before_hidden, hidden]
    }

    /// Bytes of the row before the output matrix.
    pub(super) fn gathered_last(&self) -> u64 {
        self.normed()
    }
}

/// Bytes of `len` values; the last block counts whole.
pub(super) fn packed(dtype: DType, len: u64) -> u64 {
    len.div_ceil(dtype.block_len()) * dtype.block_bytes()
}
