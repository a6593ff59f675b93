//! Resolves a graph's ops into steps: every operand exists, has the type and the shape that its op needs, and every
//! weight lies inside Storage. A graph may come off the wire; after this it is trusted.

use super::attend::Needs;
use super::error::GraphError;
use super::places::Places;
use super::rope::Frequencies;
use super::run::lists_len;
use super::step::{Cache, Heads, Kind, Repr, Rows, Step};
use crate::format::RopeKind;
use crate::graph::{
    Attention, Collective, Graph, MAX_BATCH, MAX_EXPERTS, MAX_NODES, Name, Op, OpKind, Operand, Pipe, Place, Rope,
    View, Weight, pipes,
};
use crate::kernels::{activation_row_bytes, supports};
use crate::quant::{BLOCK, DType, NormBlock};

/// What the steps together need and allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub frequencies: Frequencies,
    /// Positions of the smallest cache.
    pub seq_len: u32,
    /// Sequences of the cache that has fewest.
    pub slots: u32,
    /// Rows of the embedding, where this node has it.
    pub vocab_size: Option<u32>,
    /// Memory beside operands: what attention needs, or sorting rows by their experts.
    pub needs: Needs,
}

/// Resolves every op of `graph` into `steps`.
pub(super) fn resolve(
    graph: &Graph<'_>,
    places: Places<'_>,
    storage_bytes: u64,
    lanes: usize,
    steps: &mut [Step],
) -> Result<Limits, GraphError> {
    check_graph(graph)?;
    let (frequencies, needs) = (Frequencies::default(), Needs::default());
    let mut limits = Limits { frequencies, seq_len: u32::MAX, slots: u32::MAX, vocab_size: None, needs };
    for (op, step) in graph.ops.iter().zip(steps) {
        let check = Check { graph, places, storage_bytes, lanes, op };
        *step = Step { kind: check.step(&mut limits)?, ..Step::default() };
    }
    Ok(limits)
}

fn check_graph(graph: &Graph<'_>) -> Result<(), GraphError> {
    let error = |what, found: u32, rule, allowed: u64| {
        Err(GraphError { op: Name::new(), layer: 0, what, found: u64::from(found), rule, allowed })
    };
    if graph.batch_max == 0 {
        return error("batch size", 0, "must exceed", 0);
    }
    for (what, found, max) in [("batch size", graph.batch_max, MAX_BATCH), ("number of nodes", graph.nodes, MAX_NODES)]
    {
        if found > max {
            return error(what, found, "must not exceed", u64::from(max));
        }
    }
    if graph.nodes == 0 || graph.node >= graph.nodes {
        return error("node index", graph.node, "must be below", u64::from(graph.nodes));
    }
    for pipe in graph.pipes {
        if pipe.rows != graph.batch_max {
            return error("rows of a pipe", pipe.rows, "must be", u64::from(graph.batch_max));
        }
        // What the engine itself reads or writes.
        let (per_row, logits) = ([pipes::POSITIONS, pipes::TOKENS].contains(&&*pipe.name), pipe.name == pipes::LOGITS);
        if (per_row || logits) && pipe.dtype != DType::F32 {
            return error("type code of positions, tokens or logits", pipe.dtype.code(), "must be", 0);
        }
        if per_row && pipe.width != 1 {
            return error("width of positions or tokens", pipe.width, "must be", 1);
        }
        check_bounds(graph, pipe, pipe.bounds)?;
    }
    let mut end = 0;
    for segment in graph.segments {
        // Each op runs once in a pass, in order: which lanes wait for which is settled by this.
        if segment.ops.start < end {
            return error("start of a segment", segment.ops.start, "must be at least", end.into());
        }
        end = segment.ops.end;
        for range in [(&segment.ops, graph.ops.len()), (&segment.syncs, graph.syncs.len())] {
            if range.0.start > range.0.end || range.0.end as usize > range.1 {
                return error("end of a segment", range.0.end, "must not exceed", range.1 as u64);
            }
        }
    }
    for sync in graph.syncs {
        let Some(pipe) = graph.pipes.get(sync.pipe as usize) else {
            return error("pipe of an exchange", sync.pipe, "must be below", graph.pipes.len() as u64);
        };
        check_bounds(graph, pipe, sync.bounds)?;
        // What is broadcast goes out whole.
        let parts = if sync.collective == Collective::Broadcast { 1 } else { graph.nodes };
        if sync.collective != Collective::Broadcast && sync.bounds.is_some() {
            continue;
        }
        let block = pipe.dtype.block_len() as u32 * parts;
        if !pipe.width.is_multiple_of(block) {
            return error("width of an exchanged pipe", pipe.width, "must be a multiple of", u64::from(block));
        }
    }
    Ok(())
}

/// Bounds of parts of a pipe rise, from nothing to all of it, by whole blocks.
fn check_bounds(graph: &Graph<'_>, pipe: &Pipe, start: Option<u32>) -> Result<(), GraphError> {
    let Some(start) = start else { return Ok(()) };
    let error = |what, found: u32, rule, allowed: u64| {
        Err(GraphError { op: Name::new(), layer: 0, what, found: u64::from(found), rule, allowed })
    };
    let Some(bounds) = graph.bounds_from(Some(start)) else {
        return error("bounds of a pipe", start, "must be below", graph.bounds.len() as u64);
    };
    let mut least = 0;
    for bound in bounds {
        if *bound < least || !u64::from(*bound).is_multiple_of(pipe.dtype.block_len()) {
            return error("bound of a part of a pipe", *bound, "must be a whole block from", least.into());
        }
        least = *bound;
    }
    for (what, found, allowed) in [("first bound of a pipe", bounds[0], 0), ("last bound of a pipe", least, pipe.width)]
    {
        if found != allowed {
            return error(what, found, "must be", allowed.into());
        }
    }
    Ok(())
}

struct Check<'c, 'g> {
    graph: &'c Graph<'g>,
    places: Places<'c>,
    storage_bytes: u64,
    lanes: usize,
    op: &'c Op,
}

impl Check<'_, '_> {
    fn error<T>(&self, what: &'static str, found: u64, rule: &'static str, allowed: u64) -> Result<T, GraphError> {
        Err(GraphError::of(self.op, what, found, rule, allowed))
    }

    fn equal(&self, what: &'static str, found: usize, allowed: usize) -> Result<(), GraphError> {
        if found == allowed { Ok(()) } else { self.error(what, found as u64, "must be", allowed as u64) }
    }

    /// `found` falls into `parts` parts.
    fn divides(&self, what: &'static str, found: usize, parts: usize) -> Result<usize, GraphError> {
        match found.checked_div(parts) {
            Some(part) if part * parts == found && part > 0 => Ok(part),
            _ => self.error(what, found as u64, "must be a positive multiple of", parts as u64),
        }
    }

    fn step(&self, limits: &mut Limits) -> Result<Kind, GraphError> {
        if self.op.weight.is_some() != self.op.kind.has_weight() {
            return self.error("number of weights", self.op.weight.is_some().into(), "must be", 1);
        }
        self.apart()?;
        match &self.op.kind {
            OpKind::Embedding => self.embedding(limits),
            OpKind::InvRms { epsilon, columns } => self.inv_rms(*epsilon, *columns as usize),
            OpKind::RmsNorm { inv_rms, columns } => self.rms_norm(*inv_rms, *columns as usize),
            OpKind::NormBlocks => self.norm_blocks(),
            OpKind::NormFinish { epsilon } => self.norm_finish(*epsilon),
            OpKind::Stack => self.stack(),
            OpKind::Unstack => self.unstack(),
            OpKind::Matmul { experts, active, indexes } => self.matmul(*experts, *active, *indexes, limits),
            OpKind::Rope(rope) => self.rope(rope, limits),
            OpKind::Shift { positions } => self.shift(*positions, limits),
            OpKind::Attention(attention) => self.attention(attention, limits),
            OpKind::Silu => Ok(Kind::Silu { x: self.in_place()? }),
            OpKind::Gelu => self.error("op code", 8, "must not be GELU, code", 8),
            OpKind::Mul { by } => self.mul(*by),
            OpKind::Scale { by } => self.scale(*by),
            OpKind::Cast => self.cast(),
            OpKind::RepeatZ => self.repeat_z(),
            OpKind::MergeAdd => self.merge_add(),
            OpKind::MergeSum => self.merge_sum(),
            OpKind::Softmax => Ok(Kind::Softmax { x: self.in_place()? }),
            OpKind::MoeGate { k, renormalise, indexes } => self.moe_gate(*k as usize, *renormalise, *indexes),
        }
    }

    /// What an op writes, it reads nowhere else: lanes share out the output, and read all of the inputs.
    fn apart(&self) -> Result<(), GraphError> {
        let (input, output) = (self.op.input.place, self.op.output.place);
        let reads = match self.op.kind {
            // These work in place.
            OpKind::Rope(_) | OpKind::Silu | OpKind::Gelu | OpKind::Softmax => [None; 3],
            OpKind::RmsNorm { inv_rms: buffer, .. } | OpKind::Mul { by: buffer } | OpKind::Scale { by: buffer } => {
                [Some(Place::Buffer(buffer)), None, None]
            }
            OpKind::Matmul { active: 1.., indexes, .. } => [Some(input), Some(Place::Buffer(indexes)), None],
            // The input is only a name there.
            OpKind::Attention(a) => [a.query, a.key_cache, a.value_cache].map(|index| Some(Place::Buffer(index))),
            OpKind::MoeGate { indexes, .. } => {
                // It uses up its input.
                let indexes = Place::Buffer(indexes);
                if indexes == input {
                    return self.error("number of places of a gate's input and indexes", 1, "must be", 2);
                }
                [Some(input), Some(indexes), None]
            }
            _ => [Some(input), None, None],
        };
        if reads.contains(&Some(output)) {
            return self.error("number of places of what is read and what is written", 1, "must be at least", 2);
        }
        Ok(())
    }

    /// An operand with one row per token.
    fn rows(&self, operand: Operand) -> Result<Rows, GraphError> {
        let (dtype, planes, rows, width) = self.shape(operand.place)?;
        let pipe = matches!(operand.place, Place::Pipe(_));
        let repr = match dtype {
            DType::F32 => Repr::F32,
            DType::Q80 if pipe => Repr::Blocks,
            DType::Q80 => Repr::Activations,
            DType::F16 | DType::Q40 => {
                return self.error("type code of an operand", dtype.code().into(), "must be 0 or", 3);
            }
        };
        self.equal("rows of an operand", rows as usize, self.graph.batch_max as usize)?;
        if planes == 0 {
            return self.error("planes of an operand", 0, "must exceed", 0);
        }
        let place = self.places.of(operand.place);
        if place.cache.is_some() {
            return self.error("number of operands in a KV cache, other than of shift and attention", 1, "must be", 0);
        }
        let whole = Rows {
            offset: place.offset,
            row_stride: place.row_bytes,
            plane_stride: place.row_bytes * rows as usize,
            planes: planes as usize,
            width: width as usize,
            repr,
        };
        match operand.view {
            View::Rows => Ok(whole),
            View::Raw => self.error("view of an operand", 0, "must be rows or slice, code", 1),
            View::Slice => {
                if repr == Repr::Activations {
                    return self.error("type code of a sliced buffer", dtype.code().into(), "must be", 0);
                }
                let (block_len, node) = (dtype.block_len() as usize, self.graph.node as usize);
                let values = match self.bounds(operand.place) {
                    Some(bounds) => bounds[node] as usize..bounds[node + 1] as usize,
                    None => {
                        let parts = self.graph.nodes as usize * block_len;
                        let slice = self.divides("width of a sliced operand", whole.width, parts)? * block_len;
                        node * slice..(node + 1) * slice
                    }
                };
                let skip = values.start / block_len * dtype.block_bytes() as usize;
                Ok(Rows { offset: whole.offset + skip, width: values.len(), ..whole })
            }
        }
    }

    /// Where nodes' parts of a place begin, where it says so.
    fn bounds(&self, place: Place) -> Option<&[u32]> {
        let Place::Pipe(index) = place else { return None };
        self.graph.bounds_from(self.graph.pipes.get(index as usize)?.bounds)
    }

    /// Type, planes, rows, width of a pipe or buffer.
    fn shape(&self, place: Place) -> Result<(DType, u32, u32, u32), GraphError> {
        match place {
            Place::Pipe(index) => match self.graph.pipes.get(index as usize) {
                Some(pipe) => Ok((pipe.dtype, 1, pipe.rows, pipe.width)),
                None => self.error("pipe index", index.into(), "must be below", self.graph.pipes.len() as u64),
            },
            Place::Buffer(index) => match self.graph.buffers.get(index as usize) {
                Some(buffer) => Ok((buffer.dtype, buffer.planes, buffer.rows, buffer.width)),
                None => self.error("buffer index", index.into(), "must be below", self.graph.buffers.len() as u64),
            },
        }
    }

    fn f32_rows(&self, operand: Operand) -> Result<Rows, GraphError> {
        let rows = self.rows(operand)?;
        if rows.repr == Repr::F32 { Ok(rows) } else { self.error("type code of an operand", 3, "must be", 0) }
    }

    fn f32_buffer(&self, index: u32) -> Result<Rows, GraphError> {
        self.f32_rows(Operand::rows(Place::Buffer(index)))
    }

    fn input(&self) -> Result<Rows, GraphError> {
        self.f32_rows(self.op.input)
    }

    fn output(&self) -> Result<Rows, GraphError> {
        self.f32_rows(self.op.output)
    }

    /// Input and output of an op that works in place.
    fn in_place(&self) -> Result<Rows, GraphError> {
        if self.op.input != self.op.output {
            return self.error("number of places of an in-place op", 2, "must be", 1);
        }
        self.output()
    }

    /// The op's weight, whose last byte lies inside Storage and whose rows do not overlap.
    fn weight(&self) -> Result<Weight, GraphError> {
        let Some(weight) = self.op.weight else { return self.error("number of weights", 0, "must be", 1) };
        let Some(row_bytes) = weight.row_bytes() else {
            let block = weight.dtype.block_len();
            return self.error("columns of a weight", weight.cols.into(), "must be a multiple of", block);
        };
        if weight.row_stride < row_bytes {
            return self.error("row stride of a weight", weight.row_stride, "must be at least", row_bytes);
        }
        let end = weight.mats.checked_sub(1).and_then(|last| weight.mat_end(last)).unwrap_or(u64::MAX);
        if end > self.storage_bytes {
            return self.error("end of a weight in bytes", end, "must not exceed", self.storage_bytes);
        }
        Ok(weight)
    }

    fn embedding(&self, limits: &mut Limits) -> Result<Kind, GraphError> {
        let (tokens, out, weight) = (self.input()?, self.output()?, self.weight()?);
        self.equal("type code of the embedding", weight.dtype.code() as usize, DType::F32.code() as usize)?;
        self.equal("width of tokens", tokens.width, 1)?;
        self.equal("columns of the embedding", weight.cols as usize, out.width)?;
        let is_token_pipe =
            matches!(self.op.input.place, Place::Pipe(index) if self.graph.pipe(pipes::TOKENS) == Some(index as usize));
        self.equal("use of the token pipe", is_token_pipe.into(), 1)?;
        limits.vocab_size = Some(limits.vocab_size.unwrap_or(u32::MAX).min(weight.rows));
        Ok(Kind::Embedding { tokens, out, weight })
    }

    fn inv_rms(&self, epsilon: f32, columns: usize) -> Result<Kind, GraphError> {
        let (x, out) = (self.input()?, self.output()?);
        self.divides("width of a norm", x.width, columns)?;
        if columns > out.width {
            return self.error("columns of a norm", columns as u64, "must not exceed", out.width as u64);
        }
        Ok(Kind::InvRms { x, out, columns, epsilon })
    }

    fn rms_norm(&self, inv_rms: u32, columns: usize) -> Result<Kind, GraphError> {
        let (x, out, inv_rms, weight) = (self.input()?, self.output()?, self.f32_buffer(inv_rms)?, self.weight()?);
        let column = self.divides("width of a norm", x.width, columns)?;
        self.equal("width of a norm's output", out.width, x.width)?;
        self.equal("type code of a norm", weight.dtype.code() as usize, DType::F32.code() as usize)?;
        self.equal("rows of a norm", weight.rows as usize, 1)?;
        self.equal("columns of a norm's weight", weight.cols as usize, column)?;
        if columns > inv_rms.width {
            return self.error("columns of a norm", columns as u64, "must not exceed", inv_rms.width as u64);
        }
        Ok(Kind::RmsNorm { x, out, inv_rms, columns, weight })
    }

    /// The first half of a norm of this node's part of the rows: blocks of a pipe, in words.
    fn norm_blocks(&self) -> Result<Kind, GraphError> {
        let (x, out, weight) = (self.input()?, self.output()?, self.weight()?);
        self.divides("width of a norm in blocks", x.width, BLOCK)?;
        self.equal("width of a norm's blocks", out.width, x.width / BLOCK * NormBlock::WORDS)?;
        self.equal("planes of a norm's blocks", out.planes, x.planes)?;
        self.equal("type code of a norm", weight.dtype.code() as usize, DType::F32.code() as usize)?;
        self.equal("rows of a norm", weight.rows as usize, 1)?;
        self.equal("columns of a norm's weight", weight.cols as usize, x.width)?;
        Ok(Kind::NormBlocks { x, out, weight })
    }

    fn norm_finish(&self, epsilon: f32) -> Result<Kind, GraphError> {
        let (x, out) = (self.input()?, self.rows(self.op.output)?);
        if out.repr != Repr::Activations {
            return self.error("type code of a finished norm", DType::F32.code().into(), "must be", 3);
        }
        self.whole_blocks(&out)?;
        self.equal("width of a norm's blocks", x.width, out.width / BLOCK * NormBlock::WORDS)?;
        self.equal("planes of a norm's blocks", x.planes, out.planes)?;
        Ok(Kind::NormFinish { x, out, epsilon })
    }

    fn stack(&self) -> Result<Kind, GraphError> {
        let (x, out) = (self.input()?, self.rows(self.op.output)?);
        self.equal("width of stacked planes", out.width, x.width.saturating_mul(x.planes))?;
        self.equal("planes of a stack", out.planes, 1)?;
        if out.repr == Repr::Activations {
            return self.error("place of a stack (0 is a pipe)", 1, "must be", 0);
        }
        if out.repr == Repr::Blocks {
            self.divides("width of a quantised plane", x.width, BLOCK)?;
        }
        Ok(Kind::Stack { x, out })
    }

    fn unstack(&self) -> Result<Kind, GraphError> {
        let (x, out) = (self.rows(self.op.input)?, self.rows(self.op.output)?);
        self.equal("width of stacked planes", x.width, out.width.saturating_mul(out.planes))?;
        self.same_numbers(&x, &out)?;
        // Where each node's planes begin, the step reads off the graph.
        let Place::Pipe(pipe) = self.op.input.place else {
            return self.error("place of a stack (0 is a pipe)", 1, "must be", 0);
        };
        let Some(bounds) = self.bounds(self.op.input.place) else {
            return self.error("number of bounds of a stack", 0, "must be", u64::from(self.graph.nodes) + 1);
        };
        let step = out.planes * if out.repr == Repr::F32 { 1 } else { BLOCK };
        if let Some(bound) = bounds.iter().find(|bound| !bound.is_multiple_of(step as u32)) {
            return self.error("bound of stacked planes", (*bound).into(), "must be a multiple of", step as u64);
        }
        Ok(Kind::Unstack { x, out, pipe })
    }

    /// Blocks go to activations, F32 to F32.
    fn same_numbers(&self, x: &Rows, out: &Rows) -> Result<(), GraphError> {
        self.whole_blocks(out)?;
        match (x.repr, out.repr) {
            (Repr::F32, Repr::F32) | (Repr::Blocks, Repr::Activations) => Ok(()),
            _ => self.error("number of types of what is copied", 2, "must be", 1),
        }
    }

    fn matmul(&self, experts: u32, active: u32, indexes: u32, limits: &mut Limits) -> Result<Kind, GraphError> {
        let (x, out, weight) = (self.rows(self.op.input)?, self.output()?, self.weight()?);
        let input = match x.repr {
            Repr::F32 => DType::F32,
            Repr::Activations => DType::Q80,
            Repr::Blocks => return self.error("place of a product's input (0 is a pipe)", 0, "must be", 1),
        };
        if !supports(weight.dtype, input) {
            let rule = "has no product with weights of type code";
            return self.error("type code of a product's input", input.code().into(), rule, weight.dtype.code().into());
        }
        self.equal("columns of a weight", weight.cols as usize, x.width)?;
        self.equal("rows of a weight", weight.rows as usize, out.width)?;
        self.equal("matrices of a weight", weight.mats as usize, experts.max(1) as usize)?;
        if active == 0 {
            return Ok(Kind::Matmul { x, out, weight });
        }
        let indexes = self.f32_buffer(indexes)?;
        self.equal("planes of a routed product's input", x.planes, active as usize)?;
        self.equal("planes of a routed product's output", out.planes, active as usize)?;
        self.equal("experts of a token", indexes.width, active as usize)?;
        for (what, found) in [("experts of a layer", experts.max(1)), ("experts of a token", active)] {
            if found > MAX_EXPERTS {
                return self.error(what, found.into(), "must not exceed", MAX_EXPERTS.into());
            }
        }
        let pairs = active as usize * self.graph.batch_max as usize;
        let lists_len = lists_len(experts.max(1) as usize, pairs) as u64;
        limits.needs = limits.needs.max(Needs { scratch_len: lists_len.next_multiple_of(16), partials_len: 0 });
        Ok(Kind::ExpertMatmul { x, out, weight, indexes })
    }

    fn positions(&self, pipe: u32) -> Result<(), GraphError> {
        let is_position_pipe = self.graph.pipe(pipes::POSITIONS) == Some(pipe as usize);
        self.equal("use of the position pipe", is_position_pipe.into(), 1)
    }

    fn rope(&self, rope: &Rope, limits: &mut Limits) -> Result<Kind, GraphError> {
        let x = self.in_place()?;
        self.positions(rope.positions)?;
        let head_dim = rope.head_dim as usize;
        self.divides("width of RoPE", x.width, head_dim)?;
        self.divides("head_dim of RoPE", head_dim, 2)?;
        let Rope { kind, theta, scaling, head_dim, .. } = *rope;
        let frequencies = Frequencies { kind, theta, scaling, head_dim };
        let known = limits.frequencies;
        if known.head_dim == 0 {
            limits.frequencies = frequencies;
        } else if known != frequencies {
            return self.error("number of RoPE settings in one graph", 2, "must be", 1);
        }
        Ok(Kind::Rope { x, halves: kind == RopeKind::Falcon })
    }

    /// A buffer as cache: its rows are positions, though they do not lie in memory as such.
    fn cache(&self, index: u32, width: usize, limits: &mut Limits) -> Result<Cache, GraphError> {
        let place = Place::Buffer(index);
        let (dtype, planes, rows, cache_width) = self.shape(place)?;
        self.equal("type code of a cache", dtype.code() as usize, DType::F32.code() as usize)?;
        if planes == 0 {
            return self.error("planes of a cache", 0, "must exceed", 0);
        }
        self.equal("width of a cache", cache_width as usize, width)?;
        limits.seq_len = limits.seq_len.min(rows);
        limits.slots = limits.slots.min(planes);
        let place = self.places.of(place);
        let Some((part, layout)) = place.cache else {
            return self.error("number of attention ops that read a cache", 0, "must be at least", 1);
        };
        let heads = self.divides("width of a cache", width, layout.head_dim())?;
        let slots = planes as usize;
        let slot_bytes = place.bytes / slots;
        Ok(Cache { offset: place.offset, head_bytes: slot_bytes / heads, heads, slot_bytes, slots, part, layout })
    }

    fn shift(&self, positions: u32, limits: &mut Limits) -> Result<Kind, GraphError> {
        let x = self.input()?;
        self.positions(positions)?;
        match self.op.output {
            Operand { place: Place::Buffer(index), view: View::Raw } => {
                Ok(Kind::Shift { x, cache: self.cache(index, x.width, limits)? })
            }
            _ => self.error("view of a cache", 1, "must be raw, code", 0),
        }
    }

    fn attention(&self, a: &Attention, limits: &mut Limits) -> Result<Kind, GraphError> {
        self.positions(a.positions)?;
        let (out, query) = (self.output()?, self.f32_buffer(a.query)?);
        let keys = self.cache(a.key_cache, a.kv_dim0 as usize, limits)?;
        let values = self.cache(a.value_cache, a.kv_dim0 as usize, limits)?;
        let (n_heads, head_dim, first) = (a.n_heads0 as usize, a.head_dim as usize, a.first_head as usize);
        self.equal("width of attention", out.width, query.width)?;
        self.divides("query heads", query.width, head_dim)?;
        let end = first.saturating_add(n_heads);
        if n_heads == 0 || end > query.width / head_dim {
            return self.error("end of query heads", end as u64, "must not exceed", (query.width / head_dim) as u64);
        }
        let group = self.divides("query heads", a.n_heads as usize, a.n_kv_heads as usize)?;
        let kv_heads = self.divides("query heads of this node", n_heads, group)?;
        let (first_kv, kv_end) = (a.first_kv_head as usize, (a.first_kv_head as usize).saturating_add(kv_heads));
        if kv_end > keys.heads {
            return self.error("end of KV heads", kv_end as u64, "must not exceed", keys.heads as u64);
        }
        let heads_of =
            |rows: Rows| Rows { offset: rows.offset + 4 * first * head_dim, width: n_heads * head_dim, ..rows };
        let kv_heads_of =
            |cache: Cache| Cache { offset: cache.offset + first_kv * cache.head_bytes, heads: kv_heads, ..cache };
        let (query, out, keys, values) = (heads_of(query), heads_of(out), kv_heads_of(keys), kv_heads_of(values));
        let heads = Heads { kv_heads, head_dim, group };
        limits.needs = limits.needs.max(Needs::of(&heads, limits.seq_len, self.graph.batch_max, self.lanes));
        Ok(Kind::Attention { query, keys, values, out, heads })
    }

    fn mul(&self, by: u32) -> Result<Kind, GraphError> {
        let (x, by) = (self.in_place()?, self.f32_buffer(by)?);
        self.equal("width of a factor", by.width, x.width)?;
        self.equal("planes of a factor", by.planes, x.planes)?;
        Ok(Kind::Mul { x, by })
    }

    fn scale(&self, by: u32) -> Result<Kind, GraphError> {
        let (x, by) = (self.in_place()?, self.f32_buffer(by)?);
        self.equal("width of a scale", by.width, 1)?;
        self.equal("planes of a scale", by.planes, x.planes)?;
        Ok(Kind::Scale { x, by })
    }

    fn cast(&self) -> Result<Kind, GraphError> {
        let (x, out) = (self.rows(self.op.input)?, self.rows(self.op.output)?);
        self.equal("width of a cast's output", out.width, x.width)?;
        self.equal("planes of a cast's output", out.planes, x.planes)?;
        if x.repr != Repr::F32 {
            self.same_numbers(&x, &out)?;
            return Ok(Kind::Unpack { x, out });
        }
        self.whole_blocks(&out)?;
        Ok(Kind::Cast { x, out })
    }

    fn repeat_z(&self) -> Result<Kind, GraphError> {
        let (x, out) = (self.input()?, self.rows(self.op.output)?);
        self.equal("width of a repetition", out.width, x.width)?;
        self.equal("planes of a repeated input", x.planes, 1)?;
        self.whole_blocks(&out)?;
        Ok(Kind::RepeatZ { x, out })
    }

    fn whole_blocks(&self, out: &Rows) -> Result<(), GraphError> {
        if out.repr == Repr::Activations && out.row_stride != activation_row_bytes(out.width) {
            return self.error(
                "bytes of a quantised row",
                out.row_stride as u64,
                "must be",
                activation_row_bytes(out.width) as u64,
            );
        }
        if out.repr != Repr::F32 {
            self.divides("width of a quantised row", out.width, DType::Q80.block_len() as usize)?;
        }
        Ok(())
    }

    fn merge_add(&self) -> Result<Kind, GraphError> {
        let (x, out) = (self.rows(self.op.input)?, self.output()?);
        self.divides("width of slices to add", x.width, out.width)?;
        self.equal("planes of a sum", out.planes, 1)?;
        if x.repr == Repr::Activations {
            return self.error("type code of slices to add from a buffer", 3, "must be", 0);
        }
        if x.repr == Repr::Blocks {
            self.divides("width of a quantised slice", out.width, DType::Q80.block_len() as usize)?;
        }
        Ok(Kind::MergeAdd { x, out })
    }

    fn merge_sum(&self) -> Result<Kind, GraphError> {
        let (x, out) = (self.input()?, self.output()?);
        self.equal("width of a sum", out.width, x.width)?;
        self.equal("planes of a sum", out.planes, 1)?;
        Ok(Kind::MergeSum { x, out })
    }

    fn moe_gate(&self, k: usize, renormalise: bool, indexes: u32) -> Result<Kind, GraphError> {
        let (x, out, indexes) = (self.input()?, self.output()?, self.f32_buffer(indexes)?);
        if k == 0 || k > x.width {
            return self.error("experts of a token", k as u64, "must be at least 1 and at most", x.width as u64);
        }
        self.equal("planes of expert weights", out.planes, k)?;
        self.equal("width of expert weights", out.width, 1)?;
        self.equal("width of expert indexes", indexes.width, k)?;
        Ok(Kind::MoeGate { x, out, indexes, renormalise })
    }
}
