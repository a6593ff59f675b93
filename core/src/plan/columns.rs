//! The cut of the C++ system: `wq wk wv w1 w3 wcls` by rows, `wo w2` by columns, in equal parts.
//!
//! Writes the graph of one node: pipes, buffers, then the segments `start`, (`att`, `ff`) per layer, `end`.
//!
//! Order, names, shapes and op parameters are those of the C++ Distributed-Llama 0.16, byte for byte on the wire.
//! Symbols as there: every `*0` size is this node's share.

use super::{Cut, PlanError, is_moe, names, weights};
use crate::format::layout::LayerTensor;
use crate::format::{Header, Layout, RopeKind, TensorId};
use crate::graph::{
    Attention, Buffer, Collective, Full, Graph, Op, OpKind, Operand, Pipe, Place, Rope, Segment, Sync, Tables, Weight,
    name, pipes,
};
use crate::quant::DType;
use core::ops::Range;

/// Builds the graph of `node` of `nodes`, which exchange partial sums as `exchange`; the cut has been checked.
pub(super) fn build<'t>(
    layout: &Layout,
    (cut, nodes, exchange): (&Cut<'_>, u32, DType),
    node: u32,
    tables: Tables<'t>,
) -> Result<Graph<'t>, PlanError> {
    let header = layout.header();
    let at = Buffers::default();
    let mut builder = Builder { layout, header, cut, nodes, exchange, node, tables, at, ops_start: 0 };
    builder.declare_pipes()?;
    builder.declare_buffers()?;
    builder.start()?;
    for layer in 0..header.n_layers {
        builder.attention(layer)?;
        if is_moe(header) {
            builder.experts(layer)?;
        } else {
            builder.feed_forward(layer)?;
        }
    }
    builder.end()?;
    Ok(builder.tables.finish(node, nodes, cut.batch_max))
}

/// Pipe indexes, in the order in which they are declared.
mod pipe {
    pub const POSITIONS: u32 = 0;
    pub const TOKENS: u32 = 1;
    pub const EMBEDDING: u32 = 2;
    pub const LOGITS: u32 = 3;
    pub const PARTIALS: u32 = 4;
}

/// Buffer indexes. Where activations are not quantised, a `q_*` buffer is its F32 twin.
#[derive(Clone, Copy, Default)]
struct Buffers {
    x: u32,
    y: u32,
    q_y: u32,
    z: u32,
    q_z_slice: u32,
    q: u32,
    k_temp: u32,
    v_temp: u32,
    inv_rms: u32,
    rope_cache: u32,
    att: u32,
    lg: u32,
    d: u32,
    q_d: u32,
    l: u32,
    gt: u32,
    act_exp_ix: u32,
    moe_y: u32,
    q_moe_y: u32,
    moe_d: u32,
    q_moe_d: u32,
    moe_l: u32,
    moe_s: u32,
    caches: u32,
}

struct Builder<'a, 't> {
    layout: &'a Layout,
    header: &'a Header,
    cut: &'a Cut<'a>,
    nodes: u32,
    /// Type of partial sums.
    exchange: DType,
    node: u32,
    tables: Tables<'t>,
    at: Buffers,
    /// Where the current segment's ops start.
    ops_start: u32,
}

const fn buffer(index: u32) -> Operand {
    Operand::rows(Place::Buffer(index))
}

impl<'a, 't> Builder<'a, 't> {
    fn q_dim0(&self) -> u32 {
        self.header.q_dim() / self.nodes
    }

    fn kv_dim0(&self) -> u32 {
        self.header.kv_dim() / self.nodes
    }

    fn ff_dim0(&self) -> u32 {
        self.header.ff_dim() / self.nodes
    }

    fn quantised(&self) -> bool {
        self.cut.activation != DType::F32
    }

    fn declare_pipes(&mut self) -> Result<(), Full> {
        let (dim, nodes) = (self.header.dim, self.nodes);
        for (text, dtype, width) in [
            (pipes::POSITIONS, DType::F32, 1),
            (pipes::TOKENS, DType::F32, 1),
            (pipes::EMBEDDING, DType::F32, dim),
            (pipes::LOGITS, DType::F32, self.header.vocab_size),
            (pipes::PARTIALS, self.exchange, dim * nodes),
        ] {
            self.tables.pipes.push(Pipe { name: name(text), dtype, rows: self.cut.batch_max, width, bounds: None })?;
        }
        Ok(())
    }

    fn declare(&mut self, text: &str, dtype: DType, [planes, rows, width]: [u32; 3]) -> Result<u32, Full> {
        self.tables.buffers.push(Buffer { name: name(text), dtype, planes, rows, width })
    }

    /// A row buffer of the activation type; the F32 buffer `twin` itself where activations are not quantised.
    fn declare_quantised(&mut self, text: &str, twin: u32, shape: [u32; 3]) -> Result<u32, Full> {
        if self.quantised() { self.declare(text, self.cut.activation, shape) } else { Ok(twin) }
    }

    fn declare_buffers(&mut self) -> Result<(), Full> {
        let header = self.header;
        let (nodes, batch, head_dim) = (self.nodes, self.cut.batch_max, header.head_dim);
        let (dim, q_dim0, kv_dim0, ff_dim0) = (header.dim, self.q_dim0(), self.kv_dim0(), self.ff_dim0());
        // The C++ system declares the buffers of both kinds of feed-forward network in every graph.
        let (experts, active) = (header.n_experts.max(1), header.n_active_experts.max(1));
        let rows = |width| [1, batch, width];
        let planes = |width| [active, batch, width];
        let f32 = DType::F32;
        let norm_columns = if header.arch.has_qk_norm() { (q_dim0 / head_dim).max(kv_dim0 / head_dim) } else { 1 };
        let rope_width = match header.rope {
            RopeKind::Falcon => head_dim,
            RopeKind::Llama | RopeKind::Llama31 => self.rope_slice().slice_dim,
        };
        let mut at = Buffers::default();
        at.x = self.declare("x", f32, rows(dim))?;
        at.y = self.declare("y", f32, rows(dim))?;
        at.q_y = self.declare_quantised("q_y", at.y, rows(dim))?;
        at.z = self.declare("z", f32, rows(header.q_dim()))?;
        at.q_z_slice = self.declare("q_z_slice", self.cut.activation, rows(q_dim0))?;
        at.q = self.declare("q", f32, rows(q_dim0))?;
        at.k_temp = self.declare("k_temp", f32, rows(kv_dim0))?;
        at.v_temp = self.declare("v_temp", f32, rows(kv_dim0))?;
        at.inv_rms = self.declare("inv_rms", f32, rows(norm_columns))?;
        at.rope_cache = self.declare("rope_cache", f32, [1, self.cut.seq_len, rope_width])?;
        at.att = self.declare("att", f32, rows(header.n_heads / nodes * self.cut.seq_len))?;
        at.lg = self.declare("lg", f32, rows(header.vocab_size / nodes))?;
        at.d = self.declare("d", f32, rows(ff_dim0))?;
        at.q_d = self.declare_quantised("q_d", at.d, rows(ff_dim0))?;
        at.l = self.declare("l", f32, rows(ff_dim0))?;
        at.gt = self.declare("gt", f32, rows(experts))?;
        at.act_exp_ix = self.declare("act_exp_ix", f32, rows(active))?;
        at.moe_y = self.declare("moe_y", f32, planes(dim))?;
        at.q_moe_y = self.declare_quantised("q_moe_y", at.moe_y, planes(dim))?;
        at.moe_d = self.declare("moe_d", f32, planes(ff_dim0))?;
        at.q_moe_d = self.declare_quantised("q_moe_d", at.moe_d, planes(ff_dim0))?;
        at.moe_l = self.declare("moe_l", f32, planes(ff_dim0))?;
        at.moe_s = self.declare("moe_s", f32, planes(1))?;
        at.caches = self.tables.buffers.len();
        for _ in 0..header.n_layers {
            self.declare("k", f32, [1, self.cut.seq_len, kv_dim0])?;
            self.declare("v", f32, [1, self.cut.seq_len, kv_dim0])?;
        }
        self.at = at;
        Ok(())
    }

    fn op(
        &mut self,
        text: &str,
        layer: u32,
        kind: OpKind,
        (input, output): (Operand, Operand),
        weight: Option<Weight>,
    ) -> Result<(), Full> {
        self.tables.ops.push(Op { name: name(text), layer, kind, input, output, weight })?;
        Ok(())
    }

    /// Ends the current segment with one exchange.
    fn segment(&mut self, pipe: u32, collective: Collective, head: bool) -> Result<(), Full> {
        let sync = self.tables.syncs.push(Sync { pipe, collective, bounds: None })?;
        let ops = self.ops_start..self.tables.ops.len();
        self.ops_start = ops.end;
        self.tables.segments.push(Segment { ops, syncs: sync..sync + 1, head })?;
        Ok(())
    }

    fn weight(&self, id: TensorId) -> Weight {
        weights::whole(self.layout, id)
    }

    /// This node's part of as many rows or columns.
    fn part(&self, len: u32) -> Range<u32> {
        let part = len / self.nodes;
        self.node * part..(self.node + 1) * part
    }

    /// This node's rows.
    fn row_cut(&self, id: TensorId) -> Weight {
        let whole = self.weight(id);
        weights::rows(whole, self.part(whole.rows))
    }

    /// This node's columns of every row; `Cut::check` made them whole blocks.
    fn column_cut(&self, id: TensorId) -> Weight {
        let whole = self.weight(id);
        weights::columns(whole, self.part(whole.cols))
    }

    fn norm(
        &mut self,
        texts: [&str; 2],
        layer: u32,
        place: (u32, u32),
        columns: u32,
        id: TensorId,
    ) -> Result<(), Full> {
        let (input, output) = place;
        let epsilon = self.header.norm_epsilon;
        let inv_rms = self.at.inv_rms;
        self.op(texts[0], layer, OpKind::InvRms { epsilon, columns }, (buffer(input), buffer(inv_rms)), None)?;
        let weight = Some(self.weight(id));
        self.op(texts[1], layer, OpKind::RmsNorm { inv_rms, columns }, (buffer(input), buffer(output)), weight)
    }

    fn matmul(&mut self, text: &str, layer: u32, from: Operand, to: Operand, weight: Weight) -> Result<(), Full> {
        let kind = OpKind::Matmul { experts: 0, active: 0, indexes: self.at.act_exp_ix };
        self.op(text, layer, kind, (from, to), Some(weight))
    }

    /// Quantises `from` into `to`, where activations are quantised at all.
    fn quantise(&mut self, text: &str, layer: u32, from: u32, to: u32) -> Result<(), Full> {
        if !self.quantised() {
            return Ok(());
        }
        self.op(text, layer, OpKind::Cast, (buffer(from), buffer(to)), None)
    }

    /// Sends `y` on its way: into this node's slice of the partial sums.
    fn partial(&mut self, text: &str, layer: u32) -> Result<(), Full> {
        let slice = Operand::slice(Place::Pipe(pipe::PARTIALS));
        self.op(text, layer, OpKind::Cast, (buffer(self.at.y), slice), None)
    }

    /// Adds what all nodes sent to the residual stream.
    fn merge(&mut self, text: &str, layer: u32) -> Result<(), Full> {
        let partials = Operand::rows(Place::Pipe(pipe::PARTIALS));
        self.op(text, layer, OpKind::MergeAdd, (partials, buffer(self.at.x)), None)
    }

    fn start(&mut self) -> Result<(), Full> {
        if self.node == 0 {
            let place = (Operand::rows(Place::Pipe(pipe::TOKENS)), Operand::rows(Place::Pipe(pipe::EMBEDDING)));
            let weight = Some(self.weight(TensorId::Embedding));
            self.op(names::EMBEDDING, 0, OpKind::Embedding, place, weight)?;
        }
        self.segment(pipe::EMBEDDING, Collective::Broadcast, false)
    }

    fn rope_slice(&self) -> Rope {
        let header = self.header;
        let (q_dim0, kv_dim0) = (self.q_dim0(), self.kv_dim0());
        let common = Rope {
            kind: header.rope,
            positions: pipe::POSITIONS,
            cache: self.at.rope_cache,
            scaling: header.rope_scaling,
            q_dim0,
            kv_dim: header.kv_dim(),
            kv_dim0,
            seq_len: self.cut.seq_len,
            head_dim: header.head_dim,
            n_kv_heads: header.n_kv_heads,
            theta: header.rope_theta,
            cache_shape: [self.cut.seq_len, header.head_dim],
            ..Rope::default()
        };
        if header.rope == RopeKind::Falcon {
            return common;
        }
        let (q_dim_start, kv_dim_start) = (q_dim0 * self.node, kv_dim0 * self.node);
        let slice_dim = q_dim_start + q_dim0 - kv_dim_start;
        Rope {
            q_dim_start,
            q_dim_end: q_dim_start + q_dim0,
            q_shift: q_dim_start - kv_dim_start,
            kv_dim_start,
            slice_dim,
            cache_shape: [self.cut.seq_len, slice_dim],
            ..common
        }
    }

    fn attention(&mut self, layer: u32) -> Result<(), Full> {
        use LayerTensor as T;
        let (header, at) = (self.header, self.at);
        let id = |name| TensorId::Layer(layer, name);
        if layer == 0 {
            let embedding = Operand::rows(Place::Pipe(pipe::EMBEDDING));
            self.op(names::CAST_X, layer, OpKind::Cast, (embedding, buffer(at.x)), None)?;
        } else {
            self.merge(names::MERGE_ADD, layer)?;
        }
        self.norm([names::NORM_PRE_0, names::NORM_0], layer, (at.x, at.y), 1, id(T::Norm0))?;
        self.quantise(names::CAST_Y, layer, at.y, at.q_y)?;
        for (text, tensor, to) in
            [(names::MATMUL_Q, T::Q, at.q), (names::MATMUL_K, T::K, at.k_temp), (names::MATMUL_V, T::V, at.v_temp)]
        {
            self.matmul(text, layer, buffer(at.q_y), buffer(to), self.row_cut(id(tensor)))?;
        }
        if header.arch.has_qk_norm() {
            let heads = |width: u32| width / header.head_dim;
            let (q_heads, k_heads) = (heads(self.q_dim0()), heads(self.kv_dim0()));
            self.norm([names::NORM_PRE_Q, names::NORM_Q], layer, (at.q, at.q), q_heads, id(T::QNorm))?;
            self.norm([names::NORM_PRE_K, names::NORM_K], layer, (at.k_temp, at.k_temp), k_heads, id(T::KNorm))?;
        }
        let rope = Rope { cache: at.rope_cache, ..self.rope_slice() };
        for (text, is_query, place) in [(names::ROPE_Q, true, at.q), (names::ROPE_K, false, at.k_temp)] {
            self.op(text, layer, OpKind::Rope(Rope { is_query, ..rope }), (buffer(place), buffer(place)), None)?;
        }
        let (key_cache, value_cache) = (at.caches + 2 * layer, at.caches + 2 * layer + 1);
        for (text, from, to) in [(names::SHIFT_K, at.k_temp, key_cache), (names::SHIFT_V, at.v_temp, value_cache)] {
            let place = (buffer(from), Operand::raw(Place::Buffer(to)));
            self.op(text, layer, OpKind::Shift { positions: pipe::POSITIONS }, place, None)?;
        }
        let attention = Attention {
            n_heads: header.n_heads,
            n_heads0: header.n_heads / self.nodes,
            n_kv_heads: header.n_kv_heads,
            head_dim: header.head_dim,
            seq_len: self.cut.seq_len,
            q_dim0: self.q_dim0(),
            kv_dim0: self.kv_dim0(),
            positions: pipe::POSITIONS,
            query: at.q,
            key_cache,
            value_cache,
            scores: at.att,
            first_head: 0,
            first_kv_head: 0,
        };
        let z = Operand::slice(Place::Buffer(at.z));
        self.op(names::ATTENTION, layer, OpKind::Attention(attention), (z, z), None)?;
        self.op(names::CAST_Y2, layer, OpKind::Cast, (z, buffer(at.q_z_slice)), None)?;
        self.matmul(names::MATMUL_WO, layer, buffer(at.q_z_slice), buffer(at.y), self.column_cut(id(T::Wo)))?;
        self.partial(names::CAST_D, layer)?;
        self.segment(pipe::PARTIALS, Collective::AllGather, false)
    }

    fn feed_forward(&mut self, layer: u32) -> Result<(), Full> {
        use LayerTensor as T;
        let at = self.at;
        let id = |name| TensorId::Layer(layer, name);
        self.merge(names::MERGE_ADD2, layer)?;
        self.norm([names::NORM_PRE_1, names::NORM_1], layer, (at.x, at.y), 1, id(T::Norm1))?;
        self.quantise(names::CAST_Y3, layer, at.y, at.q_y)?;
        self.matmul(names::MATMUL_W1, layer, buffer(at.q_y), buffer(at.d), self.row_cut(id(T::W1(0))))?;
        self.matmul(names::MATMUL_W3, layer, buffer(at.q_y), buffer(at.l), self.row_cut(id(T::W3(0))))?;
        self.op(names::ACT, layer, OpKind::Silu, (buffer(at.d), buffer(at.d)), None)?;
        self.op(names::MUL, layer, OpKind::Mul { by: at.l }, (buffer(at.d), buffer(at.d)), None)?;
        self.quantise(names::CAST_D2, layer, at.d, at.q_d)?;
        self.matmul(names::MATMUL_W2, layer, buffer(at.q_d), buffer(at.y), self.column_cut(id(T::W2(0))))?;
        self.partial(names::CAST_D3, layer)?;
        self.segment(pipe::PARTIALS, Collective::AllGather, false)
    }

    fn experts(&mut self, layer: u32) -> Result<(), Full> {
        use LayerTensor as T;
        let at = self.at;
        let id = |name| TensorId::Layer(layer, name);
        let (experts, active) = (self.header.n_experts, self.header.n_active_experts);
        let routed = OpKind::Matmul { experts, active, indexes: at.act_exp_ix };
        self.merge(names::MERGE_ADD2, layer)?;
        self.norm([names::NORM_PRE_1, names::NORM_1], layer, (at.x, at.y), 1, id(T::Norm1))?;
        self.op(names::MOE_Y_REPEAT, layer, OpKind::RepeatZ, (buffer(at.y), buffer(at.q_moe_y)), None)?;
        self.matmul(names::MOE_GATE, layer, buffer(at.y), buffer(at.gt), self.weight(id(T::MoeGate)))?;
        self.op(names::MOE_SOFTMAX, layer, OpKind::Softmax, (buffer(at.gt), buffer(at.gt)), None)?;
        let gate = OpKind::MoeGate { k: active, renormalise: true, indexes: at.act_exp_ix };
        self.op(names::MOE_GATE2, layer, gate, (buffer(at.gt), buffer(at.moe_s)), None)?;
        for (text, tensor, to) in [(names::MATMUL_W1, T::W1(0), at.moe_d), (names::MATMUL_W3, T::W3(0), at.moe_l)] {
            let weight = Some(self.row_cut(id(tensor)));
            self.op(text, layer, routed.clone(), (buffer(at.q_moe_y), buffer(to)), weight)?;
        }
        self.op(names::ACT, layer, OpKind::Silu, (buffer(at.moe_d), buffer(at.moe_d)), None)?;
        self.op(names::MUL, layer, OpKind::Mul { by: at.moe_l }, (buffer(at.moe_d), buffer(at.moe_d)), None)?;
        self.quantise(names::CAST_D2, layer, at.moe_d, at.q_moe_d)?;
        let weight = Some(self.column_cut(id(T::W2(0))));
        self.op(names::MATMUL_W2, layer, routed, (buffer(at.q_moe_d), buffer(at.moe_y)), weight)?;
        self.op(names::MOE_SCALE, layer, OpKind::Scale { by: at.moe_s }, (buffer(at.moe_y), buffer(at.moe_y)), None)?;
        self.op(names::MOE_MERGE_SUM, layer, OpKind::MergeSum, (buffer(at.moe_y), buffer(at.y)), None)?;
        self.partial(names::CAST_D3, layer)?;
        self.segment(pipe::PARTIALS, Collective::AllGather, false)
    }

    fn end(&mut self) -> Result<(), Full> {
        let at = self.at;
        self.merge(names::FINAL_MERGE_ADD, 0)?;
        self.norm([names::FINAL_NORM_PRE, names::FINAL_NORM], 0, (at.x, at.y), 1, TensorId::FinalNorm)?;
        self.quantise(names::FINAL_CAST_Y, 0, at.y, at.q_y)?;
        let kind = OpKind::Matmul { experts: 0, active: 0, indexes: 0 };
        let weight = Some(self.row_cut(TensorId::Wcls));
        self.op(names::FINAL_MATMUL, 0, kind, (buffer(at.q_y), buffer(at.lg)), weight)?;
        let logits = Operand::slice(Place::Pipe(pipe::LOGITS));
        self.op(names::FINAL_CAST, 0, OpKind::Cast, (buffer(at.lg), logits), None)?;
        self.segment(pipe::LOGITS, Collective::Gather, self.nodes == 1)
    }
}
