//! The cut by rows: every matrix by rows, in parts of any size, with the results of one node.
//!
//! A node has a range of query heads, of the residual stream, of the hidden layer and of the vocabulary ([`Parts`]), and
//! computes the rows of all matrices that lead there. What a product takes as its input is gathered before it, four times in
//! a layer: the normed residual stream, what attention computes, the normed stream again, the hidden layer. It travels as the
//! type that it is multiplied as:
//!
//! * Inputs of quantised products travel as Q80 blocks. The residual stream stays cut, in F32: a node quantises its part
//!   of `weight * x` and sends blocks with the squares that the norm's factor follows from
//!   ([`NormBlock`](crate::quant::NormBlock)); everybody adds the squares in the order of the blocks. One node does it in
//!   the same way, which is why bits are the same.
//! * Other inputs travel as F32, the residual stream before its norm.
//!
//! With stages, layers are cut, too: the nodes of a stage have the layers of the stage, gather among themselves, and hand the
//! residual stream, in F32, on to the nodes of the next. The output matrix is everybody's.
//!
//! A mixture of experts is cut inside each expert. Its gate reads F32, so its norm is of the second kind.

use super::{Cut, Parts, PlanError, Quantity, is_moe, names, weights};
use crate::format::layout::LayerTensor as T;
use crate::format::{Header, Layout, TensorId};
use crate::graph::{
    Attention, Buffer, Collective, Full, Graph, Op, OpKind, Operand, Pipe, Place, Rope, Segment, Sync, Tables, Weight,
    name, pipes,
};
use crate::quant::{BLOCK, DType, NormBlock};
use core::ops::Range;

/// Builds the graph of `node`; the cut has been checked.
pub(super) fn build<'t>(
    layout: &Layout,
    cut: &Cut<'_>,
    parts: Parts<'_>,
    node: u32,
    tables: Tables<'t>,
) -> Result<Graph<'t>, PlanError> {
    let header = layout.header();
    let part = |quantity| parts.of(quantity, node);
    let own = Own {
        heads: part(Quantity::Heads),
        residual: part(Quantity::Residual),
        hidden: part(Quantity::Hidden),
        vocab: part(Quantity::Vocab),
    };
    let at = Places::default();
    let (stages, stage) = (parts.stages(), parts.stages().of(node));
    let layers = stages.layers(stage);
    let mut builder =
        Builder { layout, header, cut, parts, node, stage, layers: layers.clone(), own, tables, at, ops_start: 0 };
    builder.declare_pipes()?;
    builder.declare_buffers()?;
    match stage.checked_sub(1) {
        None => builder.embed()?,
        Some(before) => builder.hand_on(before)?,
    }
    for layer in layers {
        builder.attention(layer)?;
        if is_moe(header) {
            builder.experts(layer)?;
        } else {
            builder.feed_forward(layer)?;
        }
    }
    if stage + 1 < stages.count() {
        builder.hand_on(stage)?;
    }
    builder.head()?;
    Ok(builder.tables.finish(node, parts.nodes(), cut.batch_max))
}

/// What this node computes; any of it may be empty.
struct Own {
    heads: Range<u32>,
    residual: Range<u32>,
    hidden: Range<u32>,
    vocab: Range<u32>,
}

/// Pipes and buffers by index. Those that a graph has no use for are not declared, and their index is never read.
#[derive(Clone, Copy, Default)]
struct Places {
    /// Pipes: the residual stream, and the same normed; what attention computes; the hidden layer.
    positions: u32,
    tokens: u32,
    residual: u32,
    normed: u32,
    attention: u32,
    hidden: u32,
    logits: u32,
    /// Buffers. `input` is what the products behind a norm multiply with.
    inv_rms: u32,
    input: u32,
    y: u32,
    q: u32,
    k: u32,
    v: u32,
    z: u32,
    q_z: u32,
    sum: u32,
    d: u32,
    l: u32,
    q_d: u32,
    moe_input: u32,
    gate: u32,
    experts: u32,
    gains: u32,
    moe_sum: u32,
    caches: u32,
}

struct Builder<'a, 't> {
    layout: &'a Layout,
    header: &'a Header,
    cut: &'a Cut<'a>,
    parts: Parts<'a>,
    node: u32,
    /// The stage of this node, and its layers.
    stage: usize,
    layers: Range<u32>,
    own: Own,
    tables: Tables<'t>,
    at: Places,
    /// Where the current segment's ops start.
    ops_start: u32,
}

/// Values of [`pipes::NORMED`] for values of the residual stream.
const NORM_WORDS: [u32; 2] = [NormBlock::WORDS as u32, BLOCK as u32];

fn to(nodes: &Range<u32>) -> Collective {
    // No more than `MAX_NODES`.
    Collective::To(nodes.start as u16, nodes.end as u16)
}

const fn buffer(index: u32) -> Operand {
    Operand::rows(Place::Buffer(index))
}

const fn pipe(index: u32) -> Operand {
    Operand::rows(Place::Pipe(index))
}

const fn own_slice(index: u32) -> Operand {
    Operand::slice(Place::Pipe(index))
}

const fn len(range: &Range<u32>) -> u32 {
    range.end - range.start
}

impl Builder<'_, '_> {
    fn alone(&self) -> bool {
        self.parts.nodes() == 1
    }

    fn quantised(&self) -> bool {
        self.cut.activation != DType::F32
    }

    /// Experts that a token is routed to, or 1.
    fn active(&self) -> u32 {
        if is_moe(self.header) { self.header.n_active_experts } else { 1 }
    }

    /// KV heads that this node's heads read.
    fn kv_heads(&self) -> Range<u32> {
        self.parts.kv_heads(&self.own.heads)
    }

    /// Writes down the bounds of the parts of `quantity` in the layers of a stage, each unit of it `num / den` values of a pipe.
    fn push_bounds(&mut self, stage: usize, quantity: Quantity, [num, den]: [u32; 2]) -> Result<u32, Full> {
        let start = self.tables.bounds.len();
        for node in 0..self.parts.nodes() {
            self.tables.bounds.push(self.parts.in_stage(stage, quantity, node).start / den * num)?;
        }
        self.tables.bounds.push(self.parts.len(quantity) / den * num)?;
        Ok(start)
    }

    /// A pipe whose parts are those of `quantity` in this node's stage.
    fn declare_pipe(&mut self, text: &str, dtype: DType, quantity: Quantity, scale: [u32; 2]) -> Result<u32, Full> {
        let width = self.parts.len(quantity) / scale[1] * scale[0];
        let bounds = if self.alone() { None } else { Some(self.push_bounds(self.stage, quantity, scale)?) };
        self.tables.pipes.push(Pipe { name: name(text), dtype, rows: self.cut.batch_max, width, bounds })
    }

    fn declare_pipes(&mut self) -> Result<(), Full> {
        let f32 = DType::F32;
        for (text, index) in [(pipes::POSITIONS, 0), (pipes::TOKENS, 1)] {
            let pipe = Pipe { name: name(text), dtype: f32, rows: self.cut.batch_max, width: 1, bounds: None };
            let pushed = self.tables.pipes.push(pipe)?;
            debug_assert_eq!(pushed, index);
        }
        let mut at = Places { positions: 0, tokens: 1, ..Places::default() };
        at.residual = self.declare_pipe(pipes::EMBEDDING, f32, Quantity::Residual, [1, 1])?;
        at.logits = self.declare_pipe(pipes::LOGITS, f32, Quantity::Vocab, [1, 1])?;
        let (activation, head_dim, active) = (self.cut.activation, self.header.head_dim, self.active());
        if self.quantised() {
            at.normed = self.declare_pipe(pipes::NORMED, f32, Quantity::Residual, NORM_WORDS)?;
        }
        if !self.alone() || !self.quantised() {
            at.attention = self.declare_pipe(pipes::ATTENTION, activation, Quantity::Heads, [head_dim, 1])?;
        }
        // The planes of experts are a buffer; alone, it is what the product reads.
        if !self.alone() || !(self.quantised() || is_moe(self.header)) {
            at.hidden = self.declare_pipe(pipes::HIDDEN, activation, Quantity::Hidden, [active, 1])?;
        }
        self.at = at;
        Ok(())
    }

    fn declare(&mut self, text: &str, dtype: DType, [planes, rows, width]: [u32; 3]) -> Result<u32, Full> {
        self.tables.buffers.push(Buffer { name: name(text), dtype, planes, rows, width })
    }

    fn declare_buffers(&mut self) -> Result<(), Full> {
        let header = self.header;
        let (batch, head_dim, f32, activation) = (self.cut.batch_max, header.head_dim, DType::F32, self.cut.activation);
        let (heads, kv_heads) = (len(&self.own.heads), len(&self.kv_heads()));
        let (residual, hidden) = (len(&self.own.residual), len(&self.own.hidden));
        let (planes, moe) = (self.active(), is_moe(header));
        let rows = |width| [1, batch, width];
        let mut at = self.at;
        let norm_columns = if header.arch.has_qk_norm() { heads.max(kv_heads).max(1) } else { 1 };
        at.inv_rms = self.declare("inv_rms", f32, rows(norm_columns))?;
        if moe || !self.quantised() {
            at.y = self.declare("y", f32, rows(header.dim))?;
        }
        at.input = if self.quantised() { self.declare("q_y", activation, rows(header.dim))? } else { at.y };
        at.q = self.declare("q", f32, rows(heads * head_dim))?;
        at.k = self.declare("k_temp", f32, rows(kv_heads * head_dim))?;
        at.v = self.declare("v_temp", f32, rows(kv_heads * head_dim))?;
        if self.quantised() {
            at.z = self.declare("z", f32, rows(heads * head_dim))?;
            at.q_z = self.declare("q_z", activation, rows(header.q_dim()))?;
        }
        at.sum = self.declare("sum", f32, rows(residual))?;
        at.l = self.declare("l", f32, [planes, batch, hidden])?;
        if moe || self.quantised() {
            at.d = self.declare("d", f32, [planes, batch, hidden])?;
            let is_d = self.alone() && !self.quantised();
            at.q_d = if is_d { at.d } else { self.declare("q_d", activation, [planes, batch, header.ff_dim()])? };
        }
        if moe {
            at.moe_input = self.declare("q_moe_y", activation, [planes, batch, header.dim])?;
            at.gate = self.declare("gate", f32, rows(header.n_experts))?;
            at.experts = self.declare("experts", f32, rows(planes))?;
            at.gains = self.declare("gains", f32, [planes, batch, 1])?;
            at.moe_sum = self.declare("moe_sum", f32, [planes, batch, residual])?;
        }
        at.caches = self.tables.buffers.len();
        for _ in self.layers.clone() {
            for text in ["k", "v"] {
                self.declare(text, f32, [self.cut.slots, self.cut.seq_len, kv_heads * head_dim])?;
            }
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

    /// Ends the current segment with an exchange. Alone there is nothing to exchange.
    fn exchange(&mut self, sync: Option<Sync>, head: bool) -> Result<(), Full> {
        let start = self.tables.syncs.len();
        if let Some(sync) = sync.filter(|_| !self.alone()) {
            self.tables.syncs.push(sync)?;
        }
        let ops = self.ops_start..self.tables.ops.len();
        self.ops_start = ops.end;
        self.tables.segments.push(Segment { ops, syncs: start..self.tables.syncs.len(), head })?;
        Ok(())
    }

    /// What the nodes of this stage have of a pipe goes to all of them that have work.
    fn gather(&mut self, pipe: u32) -> Result<(), Full> {
        let nodes = self.parts.at_work(self.stage);
        // Who has no work has nothing to send either.
        let bounds = self.tables.pipes.as_slice()[pipe as usize].bounds;
        let sync = Sync { pipe, collective: to(&nodes), bounds };
        self.exchange(nodes.contains(&self.node).then_some(sync), false)
    }

    /// What the nodes of a stage have of the residual stream, or of the same normed, goes to `nodes`.
    fn send(&mut self, (pipe, scale): (u32, [u32; 2]), stage: usize, nodes: &Range<u32>) -> Result<Option<Sync>, Full> {
        if self.alone() || !(nodes.contains(&self.node) || self.parts.at_work(stage).contains(&self.node)) {
            return Ok(None);
        }
        let bounds = Some(self.push_bounds(stage, Quantity::Residual, scale)?);
        Ok(Some(Sync { pipe, collective: to(nodes), bounds }))
    }

    /// Hands the residual stream on from a stage to the next.
    fn hand_on(&mut self, from: usize) -> Result<(), Full> {
        let nodes = self.parts.at_work(from + 1);
        let sync = self.send((self.at.residual, [1, 1]), from, &nodes)?;
        self.exchange(sync, false)
    }

    fn weight(&self, id: TensorId) -> Weight {
        weights::whole(self.layout, id)
    }

    fn matmul(
        &mut self,
        text: &str,
        layer: u32,
        place: (Operand, Operand),
        (id, rows): (TensorId, Range<u32>),
    ) -> Result<(), Full> {
        let kind = OpKind::Matmul { experts: 0, active: 0, indexes: 0 };
        let weight = weights::rows(self.weight(id), rows);
        self.op(text, layer, kind, place, Some(weight))
    }

    /// A norm of each row, or of each of its `columns`.
    fn norm(
        &mut self,
        texts: [&str; 2],
        layer: u32,
        (input, output): (Operand, Operand),
        columns: u32,
        id: TensorId,
    ) -> Result<(), Full> {
        let (epsilon, inv_rms) = (self.header.norm_epsilon, self.at.inv_rms);
        self.op(texts[0], layer, OpKind::InvRms { epsilon, columns }, (input, buffer(inv_rms)), None)?;
        let weight = Some(self.weight(id));
        self.op(texts[1], layer, OpKind::RmsNorm { inv_rms, columns }, (input, output), weight)
    }

    /// Ends the segment with the exchange of the residual stream, and norms it, all of it, where a product wants it.
    fn norm_stream(&mut self, texts: [&str; 2], layer: u32, id: TensorId, wanted: bool) -> Result<(), Full> {
        if !self.quantised() {
            return self.norm_stream_wide(texts, layer, id, wanted);
        }
        self.norm_part(texts[0], layer, id)?;
        self.gather(self.at.normed)?;
        if wanted { self.finish_norm(texts[1], layer) } else { Ok(()) }
    }

    /// As [`Self::norm_stream`], in F32, into `y`.
    fn norm_stream_wide(&mut self, texts: [&str; 2], layer: u32, id: TensorId, wanted: bool) -> Result<(), Full> {
        let (residual, y) = (self.at.residual, self.at.y);
        self.gather(residual)?;
        if wanted { self.norm(texts, layer, (pipe(residual), buffer(y)), 1, id) } else { Ok(()) }
    }

    /// Norms this node's part of the residual stream as far as a part can be.
    fn norm_part(&mut self, text: &str, layer: u32, id: TensorId) -> Result<(), Full> {
        if self.own.residual.is_empty() {
            return Ok(());
        }
        let weight = weights::columns(self.weight(id), self.own.residual.clone());
        let place = (own_slice(self.at.residual), own_slice(self.at.normed));
        self.op(text, layer, OpKind::NormBlocks, place, Some(weight))
    }

    /// Finishes the norm of all parts.
    fn finish_norm(&mut self, text: &str, layer: u32) -> Result<(), Full> {
        let kind = OpKind::NormFinish { epsilon: self.header.norm_epsilon };
        self.op(text, layer, kind, (pipe(self.at.normed), buffer(self.at.input)), None)
    }

    /// Adds `sum` to this node's part of the residual stream.
    fn add_to_stream(&mut self, text: &str, layer: u32) -> Result<(), Full> {
        self.op(text, layer, OpKind::MergeAdd, (buffer(self.at.sum), own_slice(self.at.residual)), None)
    }

    /// Every node looks up its part of the rows in its own file.
    fn embed(&mut self) -> Result<(), Full> {
        if self.own.residual.is_empty() {
            return Ok(());
        }
        let weight = weights::columns(self.weight(TensorId::Embedding), self.own.residual.clone());
        let place = (pipe(self.at.tokens), own_slice(self.at.residual));
        self.op(names::EMBEDDING, 0, OpKind::Embedding, place, Some(weight))
    }

    fn attention(&mut self, layer: u32) -> Result<(), Full> {
        let (header, at) = (self.header, self.at);
        let id = |tensor| TensorId::Layer(layer, tensor);
        let (heads, kv_heads, head_dim) = (self.own.heads.clone(), self.kv_heads(), header.head_dim);
        let rows = |heads: &Range<u32>| heads.start * head_dim..heads.end * head_dim;
        let some = !heads.is_empty();
        self.norm_stream([names::NORM_PRE_0, names::NORM_0], layer, id(T::Norm0), some)?;
        if some {
            for (text, tensor, to, heads) in [
                (names::MATMUL_Q, T::Q, at.q, &heads),
                (names::MATMUL_K, T::K, at.k, &kv_heads),
                (names::MATMUL_V, T::V, at.v, &kv_heads),
            ] {
                self.matmul(text, layer, (buffer(at.input), buffer(to)), (id(tensor), rows(heads)))?;
            }
            if header.arch.has_qk_norm() {
                for (texts, place, heads, tensor) in [
                    ([names::NORM_PRE_Q, names::NORM_Q], at.q, &heads, T::QNorm),
                    ([names::NORM_PRE_K, names::NORM_K], at.k, &kv_heads, T::KNorm),
                ] {
                    self.norm(texts, layer, (buffer(place), buffer(place)), len(heads), id(tensor))?;
                }
            }
            self.rope_and_shift(layer)?;
            self.attend(layer)?;
        }
        self.gather_attention(layer)?;
        if !self.own.residual.is_empty() {
            let input = if self.quantised() { buffer(at.q_z) } else { pipe(at.attention) };
            let rows = self.own.residual.clone();
            self.matmul(names::MATMUL_WO, layer, (input, buffer(at.sum)), (id(T::Wo), rows))?;
            self.add_to_stream(names::MERGE_ADD, layer)?;
        }
        Ok(())
    }

    fn rope_and_shift(&mut self, layer: u32) -> Result<(), Full> {
        let (header, at) = (self.header, self.at);
        let rope = Rope {
            kind: header.rope,
            positions: at.positions,
            scaling: header.rope_scaling,
            seq_len: self.cut.seq_len,
            head_dim: header.head_dim,
            n_kv_heads: header.n_kv_heads,
            theta: header.rope_theta,
            ..Rope::default()
        };
        for (text, is_query, place) in [(names::ROPE_Q, true, at.q), (names::ROPE_K, false, at.k)] {
            self.op(text, layer, OpKind::Rope(Rope { is_query, ..rope }), (buffer(place), buffer(place)), None)?;
        }
        for (text, from, to) in
            [(names::SHIFT_K, at.k, self.key_cache(layer)), (names::SHIFT_V, at.v, self.value_cache(layer))]
        {
            let place = (buffer(from), Operand::raw(Place::Buffer(to)));
            self.op(text, layer, OpKind::Shift { positions: at.positions }, place, None)?;
        }
        Ok(())
    }

    fn key_cache(&self, layer: u32) -> u32 {
        self.at.caches + 2 * (layer - self.layers.start)
    }

    fn value_cache(&self, layer: u32) -> u32 {
        self.key_cache(layer) + 1
    }

    /// Attention of this node's heads: an op for those whose KV head has all of its heads here, and one for each KV head that
    /// another node has a part of.
    fn attend(&mut self, layer: u32) -> Result<(), Full> {
        let (header, at, own) = (self.header, self.at, self.own.heads.clone());
        let (group, kv_start) = (header.n_heads / header.n_kv_heads, self.kv_heads().start);
        let out = if self.quantised() { buffer(at.z) } else { own_slice(at.attention) };
        let mut head = own.start;
        while head < own.end {
            let whole = if head.is_multiple_of(group) { (own.end - head) / group } else { 0 };
            // Heads of this op, and KV heads.
            let (heads, kv_heads) = match whole {
                0 => (own.end.min((head / group + 1) * group) - head, 1),
                whole => (whole * group, whole),
            };
            let attention = Attention {
                n_heads: heads,
                n_heads0: heads,
                n_kv_heads: kv_heads,
                head_dim: header.head_dim,
                seq_len: self.cut.seq_len,
                q_dim0: heads * header.head_dim,
                kv_dim0: len(&self.kv_heads()) * header.head_dim,
                positions: at.positions,
                query: at.q,
                key_cache: self.key_cache(layer),
                value_cache: self.value_cache(layer),
                scores: 0,
                first_head: head - own.start,
                first_kv_head: head / group - kv_start,
            };
            self.op(names::ATTENTION, layer, OpKind::Attention(attention), (out, out), None)?;
            head += heads;
        }
        Ok(())
    }

    /// Brings what all nodes' attention has computed to where it is multiplied.
    fn gather_attention(&mut self, layer: u32) -> Result<(), Full> {
        let at = self.at;
        if !self.quantised() {
            return self.gather(at.attention);
        }
        if self.alone() {
            self.op(names::CAST_Y2, layer, OpKind::Cast, (buffer(at.z), buffer(at.q_z)), None)?;
            return self.exchange(None, false);
        }
        if !self.own.heads.is_empty() {
            self.op(names::CAST_Y2, layer, OpKind::Cast, (buffer(at.z), own_slice(at.attention)), None)?;
        }
        self.gather(at.attention)?;
        if self.own.residual.is_empty() {
            return Ok(());
        }
        self.op(names::CAST_Y2, layer, OpKind::Cast, (pipe(at.attention), buffer(at.q_z)), None)
    }

    fn feed_forward(&mut self, layer: u32) -> Result<(), Full> {
        let at = self.at;
        let id = |tensor| TensorId::Layer(layer, tensor);
        let hidden = self.own.hidden.clone();
        let some = !hidden.is_empty();
        self.norm_stream([names::NORM_PRE_1, names::NORM_1], layer, id(T::Norm1), some)?;
        let d = if self.quantised() { buffer(at.d) } else { own_slice(at.hidden) };
        if some {
            for (text, tensor, to) in [(names::MATMUL_W1, T::W1(0), d), (names::MATMUL_W3, T::W3(0), buffer(at.l))] {
                self.matmul(text, layer, (buffer(at.input), to), (id(tensor), hidden.clone()))?;
            }
            self.op(names::ACT, layer, OpKind::Silu, (d, d), None)?;
            self.op(names::MUL, layer, OpKind::Mul { by: at.l }, (d, d), None)?;
            if self.quantised() {
                let to = if self.alone() { buffer(at.q_d) } else { own_slice(at.hidden) };
                self.op(names::CAST_D2, layer, OpKind::Cast, (d, to), None)?;
            }
        }
        self.gather(at.hidden)?;
        if !self.own.residual.is_empty() {
            if self.quantised() && !self.alone() {
                self.op(names::CAST_D2, layer, OpKind::Cast, (pipe(at.hidden), buffer(at.q_d)), None)?;
            }
            let input = if self.quantised() { buffer(at.q_d) } else { pipe(at.hidden) };
            let rows = self.own.residual.clone();
            self.matmul(names::MATMUL_W2, layer, (input, buffer(at.sum)), (id(T::W2(0)), rows))?;
            self.add_to_stream(names::MERGE_ADD2, layer)?;
        }
        Ok(())
    }

    fn experts(&mut self, layer: u32) -> Result<(), Full> {
        let at = self.at;
        let id = |tensor| TensorId::Layer(layer, tensor);
        let (experts, active) = (self.header.n_experts, self.header.n_active_experts);
        let routed = OpKind::Matmul { experts, active, indexes: at.experts };
        let (hidden, residual) = (self.own.hidden.clone(), self.own.residual.clone());
        // Which experts, everybody works out for himself.
        let some = !hidden.is_empty() || !residual.is_empty();
        self.norm_stream_wide([names::NORM_PRE_1, names::NORM_1], layer, id(T::Norm1), some)?;
        if !hidden.is_empty() {
            self.op(names::MOE_Y_REPEAT, layer, OpKind::RepeatZ, (buffer(at.y), buffer(at.moe_input)), None)?;
        }
        if some {
            let rows = 0..experts;
            self.matmul(names::MOE_GATE, layer, (buffer(at.y), buffer(at.gate)), (id(T::MoeGate), rows))?;
            self.op(names::MOE_SOFTMAX, layer, OpKind::Softmax, (buffer(at.gate), buffer(at.gate)), None)?;
            let gate = OpKind::MoeGate { k: active, renormalise: true, indexes: at.experts };
            self.op(names::MOE_GATE2, layer, gate, (buffer(at.gate), buffer(at.gains)), None)?;
        }
        let (d, q_d) = (buffer(at.d), buffer(at.q_d));
        if !hidden.is_empty() {
            for (text, tensor, to) in [(names::MATMUL_W1, T::W1(0), d), (names::MATMUL_W3, T::W3(0), buffer(at.l))] {
                let weight = weights::rows(self.weight(id(tensor)), hidden.clone());
                self.op(text, layer, routed.clone(), (buffer(at.moe_input), to), Some(weight))?;
            }
            self.op(names::ACT, layer, OpKind::Silu, (d, d), None)?;
            self.op(names::MUL, layer, OpKind::Mul { by: at.l }, (d, d), None)?;
            if !self.alone() {
                self.op(names::CAST_D2, layer, OpKind::Stack, (d, own_slice(at.hidden)), None)?;
            } else if self.quantised() {
                self.op(names::CAST_D2, layer, OpKind::Cast, (d, q_d), None)?;
            }
        }
        self.gather(at.hidden)?;
        if !residual.is_empty() {
            if !self.alone() {
                self.op(names::CAST_D2, layer, OpKind::Unstack, (pipe(at.hidden), q_d), None)?;
            }
            let (weight, sum) = (weights::rows(self.weight(id(T::W2(0))), residual), buffer(at.moe_sum));
            self.op(names::MATMUL_W2, layer, routed, (q_d, sum), Some(weight))?;
            self.op(names::MOE_SCALE, layer, OpKind::Scale { by: at.gains }, (sum, sum), None)?;
            self.op(names::MOE_MERGE_SUM, layer, OpKind::MergeSum, (sum, buffer(at.sum)), None)?;
            self.add_to_stream(names::MERGE_ADD2, layer)?;
        }
        Ok(())
    }

    /// The last stage's residual stream, normed, goes to everybody who has a part of the output matrix.
    fn head(&mut self) -> Result<(), Full> {
        let (at, vocab) = (self.at, self.own.vocab.clone());
        let (last, nodes, some) = (self.parts.stages().count() - 1, self.parts.at_head(), !vocab.is_empty());
        let (stream, scale) = if self.quantised() { (at.normed, NORM_WORDS) } else { (at.residual, [1, 1]) };
        if self.quantised() && self.stage == last {
            self.norm_part(names::FINAL_NORM_PRE, 0, TensorId::FinalNorm)?;
        }
        if !self.alone() {
            let sync = self.send((stream, scale), last, &nodes)?;
            self.exchange(sync, true)?;
        }
        if some {
            if self.quantised() {
                self.finish_norm(names::FINAL_NORM, 0)?;
            } else {
                let texts = [names::FINAL_NORM_PRE, names::FINAL_NORM];
                self.norm(texts, 0, (pipe(at.residual), buffer(at.y)), 1, TensorId::FinalNorm)?;
            }
            let place = (buffer(at.input), own_slice(at.logits));
            self.matmul(names::FINAL_MATMUL, 0, place, (TensorId::Wcls, vocab))?;
        }
        let bounds = self.tables.pipes.as_slice()[at.logits as usize].bounds;
        let sync = Sync { pipe: at.logits, collective: Collective::Gather, bounds };
        self.exchange((self.node == 0 || some).then_some(sync), true)
    }
}
