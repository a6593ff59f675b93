//! One lane's part of one step.
//!
//! Every step is shared out so that lanes write apart: whole rows of the batch, or columns of all rows, as [`share`]
//! settled; products by output rows, which are columns of the output; attention as [`attend`] says. What a step reads was
//! written before the last barrier, or by this lane.
//!
//! [`share`]: super::share
//! [`attend`]: super::attend

use super::arena::{Arena, FirstError, Sizes};
use super::batch::{RowAt, Run};
use super::share::Share;
use super::step::{Kind, Repr, Rows, Step};
use crate::graph::{Graph, WINDOW_ROWS, Weight};
use crate::io::{Lane, Span, Storage};
use crate::kernels::{ActivationParts, Input, Kernels, Matrix, Output, Tokens};
use crate::quant::{BLOCK, BlockQ80, NormBlock};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

/// Values that are shared out together: a cache line of F32, and what all kernels take in one go.
const COLUMN_STEP: usize = WINDOW_ROWS as usize;

/// What all lanes share while a segment runs.
pub(super) struct Work<'r, 'a, S: Storage + ?Sized> {
    pub graph: &'r Graph<'a>,
    pub storage: &'r S,
    pub kernels: Kernels,
    pub arena: &'r Arena<'a>,
    pub sizes: &'r Sizes,
    pub error: &'r FirstError<S::Error>,
    /// Rows of the batch that are computed.
    pub rows: Range<usize>,
    /// Of each row of the batch, whether it is computed or not.
    pub at: &'r [RowAt],
    /// Which rows belong together.
    pub runs: &'r [Run],
    /// Set from elsewhere, it ends the pass.
    pub stop: Option<&'r AtomicBool>,
}

// Every access to the arena below is sound for the same reason, called *apart* there: a step writes only its output, which
// it reads nowhere else; `check` made sure that the operands exist and have these widths; the lanes' parts of an output
// do not overlap; and what other steps touch without a barrier between is none of it, only read, or this lane's own. The
// last is what `share` works out from its list of accesses: what is called local there, only `for_rows` and `for_values`
// may hand out (and `product`, whose share is that of `for_values`), with no byte outside of its row or its columns.
impl<S: Storage + ?Sized> Work<'_, '_, S> {
    /// Whether nothing more is to be computed.
    pub fn is_over(&self) -> bool {
        self.error.is_set() || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Runs this lane's part of `step`.
    pub fn step(&self, step: &Step, lane: &Lane<'_>) {
        let share = step.share;
        match &step.kind {
            Kind::Nothing => {}
            Kind::Embedding { tokens, out, weight } => self.embedding(lane, tokens, out, weight),
            Kind::InvRms { x, out, columns, epsilon } => self.inv_rms(lane, x, out, *columns, *epsilon),
            Kind::RmsNorm { x, out, inv_rms, columns, weight } => {
                self.rms_norm(lane, (x, out), inv_rms, *columns, weight);
            }
            Kind::NormBlocks { x, out, weight } => self.norm_blocks(lane, share, x, out, weight),
            Kind::NormFinish { x, out, epsilon } => self.norm_finish(lane, share, x, out, *epsilon),
            Kind::Stack { x, out } => self.stack(lane, x, out),
            Kind::Unstack { x, out, pipe } => self.unstack(lane, share, x, out, *pipe),
            Kind::Matmul { x, out, weight } => self.matmul(lane, x, out, weight),
            Kind::ExpertMatmul { x, out, weight, indexes } => self.expert_matmul(lane, x, out, weight, indexes),
            Kind::Rope { x, halves } => self.rope(lane, x, *halves),
            Kind::Shift { x, cache } => self.shift(lane, x, cache),
            Kind::Attention { query, keys, values, out, heads } => {
                self.attention(lane, query, (keys, values), out, heads);
            }
            Kind::Silu { x } => {
                self.for_values(lane, share, x, |plane, row, cols| {
                    self.kernels.silu(self.values_mut(x, plane, row, cols));
                });
            }
            Kind::Mul { x, by } => self.for_values(lane, share, x, |plane, row, cols| {
                self.kernels.mul(self.values_mut(x, plane, row, cols.clone()), self.values(by, plane, row, cols));
            }),
            Kind::Scale { x, by } => self.for_values(lane, share, x, |plane, row, cols| {
                let factor = self.values(by, plane, row, 0..1)[0];
                self.kernels.scale(self.values_mut(x, plane, row, cols), factor);
            }),
            Kind::Cast { x, out } => self.cast(lane, share, x, out, |plane| plane),
            Kind::Unpack { x, out } => self.for_values(lane, share, out, |plane, row, cols| {
                let from = x.row(plane, row) + block_bytes(cols.start);
                self.unpack(from, out, (plane, row), cols);
            }),
            Kind::RepeatZ { x, out } => self.cast(lane, share, x, out, |_| 0),
            Kind::MergeAdd { x, out } => self.merge_add(lane, share, x, out),
            Kind::MergeSum { x, out } => self.merge_sum(lane, share, x, out),
            Kind::Softmax { x } => self.for_rows(lane, x.planes, |plane, row| {
                self.kernels.softmax(self.values_mut(x, plane, row, 0..x.width));
            }),
            Kind::MoeGate { x, out, indexes, renormalise } => self.moe_gate(lane, x, out, indexes, *renormalise),
        }
    }

    /// Meets the other lanes at the barriers inside `step`, and does nothing else.
    pub fn skip(&self, step: &Step, lane: &Lane<'_>) {
        if let Kind::Attention { heads, .. } = &step.kind
            && self.splits(heads, lane.count)
        {
            lane.barrier();
        }
    }

    /// Values of an F32 row.
    pub(super) fn values(&self, rows: &Rows, plane: usize, row: usize, cols: Range<usize>) -> &[f32] {
        // SAFETY: apart.
        unsafe { self.arena.f32s(rows.row(plane, row) + 4 * cols.start, cols.len()) }
    }

    /// Values of an F32 row that only this lane touches now.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn values_mut(&self, rows: &Rows, plane: usize, row: usize, cols: Range<usize>) -> &mut [f32] {
        // SAFETY: apart.
        unsafe { self.arena.f32s_mut(rows.row(plane, row) + 4 * cols.start, cols.len()) }
    }

    /// Shares out whole rows: a lane's are the same in every step of a segment.
    pub(super) fn for_rows(&self, lane: &Lane<'_>, planes: usize, mut body: impl FnMut(usize, usize)) {
        for row in lane.share(self.rows.len(), 1) {
            for plane in 0..planes {
                body(plane, self.rows.start + row);
            }
        }
    }

    /// Shares out whole rows, or columns of every row: a lane's are the same wherever a width is.
    fn for_values(&self, lane: &Lane<'_>, share: Share, of: &Rows, mut body: impl FnMut(usize, usize, Range<usize>)) {
        if share == Share::Rows {
            return self.for_rows(lane, of.planes, |plane, row| body(plane, row, 0..of.width));
        }
        let cols = lane.share(of.width, COLUMN_STEP);
        if cols.is_empty() {
            return;
        }
        for plane in 0..of.planes {
            for row in self.rows.clone() {
                body(plane, row, cols.clone());
            }
        }
    }

    /// Rows `rows` of matrix `mat` of a weight, or `None` after storage has failed.
    fn lease(&self, weight: &Weight, mat: u32, rows: &Range<usize>) -> Option<S::Lease<'_>> {
        // `check` saw that the last byte of the last matrix lies inside Storage, so nothing here overflows.
        let start = weight.offset + u64::from(mat) * weight.mat_stride + rows.start as u64 * weight.row_stride;
        let last = (rows.len() as u64 - 1) * weight.row_stride;
        let bytes = last + weight.row_bytes().unwrap_or(0);
        match self.storage.lease(Span { offset: start, bytes }) {
            Ok(lease) => Some(lease),
            Err(error) => {
                self.error.set(error);
                None
            }
        }
    }

    fn embedding(&self, lane: &Lane<'_>, tokens: &Rows, out: &Rows, weight: &Weight) {
        self.for_rows(lane, 1, |_, row| {
            // Batches are checked; the bound keeps a hostile graph that writes to this pipe inside its weights.
            let token = (self.values(tokens, 0, row, 0..1)[0] as usize).min(weight.rows as usize - 1);
            let Some(bytes) = self.lease(weight, 0, &(token..token + 1)) else { return };
            crate::quant::dequantize(weight.dtype, &bytes, self.values_mut(out, 0, row, 0..out.width));
        });
    }

    fn inv_rms(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, columns: usize, epsilon: f32) {
        let width = x.width / columns;
        self.for_rows(lane, 1, |_, row| {
            for column in 0..columns {
                let values = self.values(x, 0, row, column * width..(column + 1) * width);
                let mean = self.kernels.sum_squares(values) / width as f32;
                self.values_mut(out, 0, row, column..column + 1)[0] = 1.0 / libm::sqrtf(mean + epsilon);
            }
        });
    }

    fn rms_norm(&self, lane: &Lane<'_>, (x, out): (&Rows, &Rows), inv_rms: &Rows, columns: usize, weight: &Weight) {
        let Some(bytes) = self.lease(weight, 0, &(0..1)) else { return };
        let width = x.width / columns;
        self.for_rows(lane, 1, |_, row| {
            if x.offset != out.offset {
                self.values_mut(out, 0, row, 0..x.width).copy_from_slice(self.values(x, 0, row, 0..x.width));
            }
            for column in 0..columns {
                let factor = self.values(inv_rms, 0, row, column..column + 1)[0];
                let values = self.values_mut(out, 0, row, column * width..(column + 1) * width);
                self.kernels.rms_norm(values, factor, &bytes);
            }
        });
    }

    fn norm_blocks(&self, lane: &Lane<'_>, share: Share, x: &Rows, out: &Rows, weight: &Weight) {
        let Some(bytes) = self.lease(weight, 0, &(0..1)) else { return };
        self.for_values(lane, share, x, |plane, row, cols| {
            let (start, len) = (out.row(plane, row) + norm_bytes(cols.start), norm_bytes(cols.len()));
            // SAFETY: apart: these blocks belong to these columns.
            let blocks = bytemuck::cast_slice_mut(unsafe { self.arena.bytes_mut(start, len) });
            self.kernels.norm_blocks(
                self.values(x, plane, row, cols.clone()),
                &bytes[4 * cols.start..4 * cols.end],
                blocks,
            );
        });
    }

    fn norm_finish(&self, lane: &Lane<'_>, share: Share, x: &Rows, out: &Rows, epsilon: f32) {
        self.for_values(lane, share, out, |plane, row, cols| {
            // SAFETY: apart.
            let blocks = unsafe { self.arena.bytes(x.row(plane, row), norm_bytes(out.width)) };
            let blocks: &[NormBlock] = bytemuck::cast_slice(blocks);
            let squares: f32 = blocks.iter().fold(0.0, |sum, block| sum + block.squares);
            let inv_rms = 1.0 / libm::sqrtf(squares / out.width as f32 + epsilon);
            let blocks = &blocks[cols.start / BLOCK..cols.end / BLOCK];
            let (codes, scales, offsets) = self.activation_parts(out, (plane, row), cols);
            self.kernels.finish_norm(blocks, inv_rms, codes, scales, offsets);
        });
    }

    /// Columns of an activation row that only this lane touches now.
    #[allow(clippy::mut_from_ref)]
    fn activation_parts(
        &self,
        out: &Rows,
        (plane, row): (usize, usize),
        cols: Range<usize>,
    ) -> (&mut [i8], &mut [f32], &mut [i32]) {
        let start = out.row(plane, row);
        // SAFETY: apart. Other lanes fill other blocks of the row: nothing but these parts may be borrowed.
        let bytes = |part: Range<usize>| unsafe { self.arena.bytes_mut(start + part.start, part.len()) };
        let ActivationParts { codes, scales, offsets } = ActivationParts::of(out.width, cols);
        let (codes, scales, offsets) = (bytes(codes), bytes(scales), bytes(offsets));
        (bytemuck::cast_slice_mut(codes), bytemuck::cast_slice_mut(scales), bytemuck::cast_slice_mut(offsets))
    }

    /// Columns of an activation row, of the Q80 blocks at byte `from`.
    fn unpack(&self, from: usize, out: &Rows, at: (usize, usize), cols: Range<usize>) {
        // SAFETY: apart.
        let blocks = unsafe { self.arena.bytes(from, block_bytes(cols.len())) };
        let (codes, scales, offsets) = self.activation_parts(out, at, cols);
        self.kernels.unpack_q80(blocks, codes, scales, offsets);
    }

    fn stack(&self, lane: &Lane<'_>, x: &Rows, out: &Rows) {
        self.for_rows(lane, x.planes, |plane, row| {
            let (from, start) = (self.values(x, plane, row, 0..x.width), plane * x.width);
            if out.repr == Repr::F32 {
                self.values_mut(out, 0, row, start..start + x.width).copy_from_slice(from);
            } else {
                // SAFETY: apart.
                let to = unsafe { self.arena.bytes_mut(out.row(0, row) + block_bytes(start), block_bytes(x.width)) };
                self.kernels.quantize_q80(from, to);
            }
        });
    }

    fn unstack(&self, lane: &Lane<'_>, share: Share, x: &Rows, out: &Rows, pipe: u32) {
        let bounds = self.graph.bounds_from(self.graph.pipes[pipe as usize].bounds).unwrap_or(&[]);
        self.for_values(lane, share, out, |plane, row, cols| {
            for (start, end) in bounds.iter().zip(bounds.iter().skip(1)) {
                let (stacked, width) = (*start as usize, (end - start) as usize / out.planes);
                // This node's columns of the plane, as far as they are wanted.
                let first = stacked / out.planes;
                let some = cols.start.max(first)..cols.end.min(first + width);
                if some.is_empty() {
                    continue;
                }
                let from = stacked + plane * width + (some.start - first);
                if out.repr == Repr::F32 {
                    let from = self.values(x, 0, row, from..from + some.len());
                    self.values_mut(out, plane, row, some).copy_from_slice(from);
                } else {
                    self.unpack(x.row(0, row) + block_bytes(from), out, (plane, row), some);
                }
            }
        });
    }

    /// Input of a product: some of the `count` rows from row `first` on, planes counted through.
    fn input<'i>(&'i self, x: &Rows, first: usize, count: usize, tokens: Tokens<'i>) -> Input<'i> {
        let (offset, stride) = (x.row(0, first), x.row_stride);
        match x.repr {
            Repr::F32 => {
                let stride = stride / 4;
                // SAFETY: apart.
                let x = unsafe { self.arena.f32s(offset, (count - 1) * stride + x.width) };
                Input::F32 { x, stride, tokens }
            }
            Repr::Activations | Repr::Blocks => {
                // SAFETY: apart.
                let rows = unsafe { self.arena.bytes(offset, count * stride) };
                Input::Q80 { rows, stride, tokens }
            }
        }
    }

    /// Rows `share` of matrix `mat` of `weight`, handed to `body`; nothing after storage has failed.
    fn with_matrix(&self, weight: &Weight, mat: u32, share: &Range<usize>, body: impl FnOnce(Matrix<'_>)) {
        let Some(bytes) = self.lease(weight, mat, share) else { return };
        let (rows, cols) = (share.len(), weight.cols as usize);
        let Weight { dtype, order, row_stride, .. } = *weight;
        body(Matrix { dtype, order, bytes: &bytes, rows, cols, row_stride: row_stride as usize });
    }

    /// The product of a lane's rows of a weight, row `start` and the following ones, with some of the `count` rows of `x`
    /// from row `first` on, planes counted through.
    fn product(
        &self,
        lane: &Lane<'_>,
        (matrix, start): (Matrix<'_>, usize),
        (x, out): (&Rows, &Rows),
        (first, count): (usize, usize),
        tokens: Tokens<'_>,
    ) {
        let stride = out.row_stride / 4;
        let len = (count - 1) * stride + matrix.rows;
        let to = self.arena.f32_ptr(out.row(0, first) + 4 * start, len);
        // SAFETY: apart; `f32_ptr` checked that all `len` values lie in the arena, and this lane writes rows of its own.
        let output = unsafe { Output::from_raw(to, stride, len) };
        // SAFETY: each lane has memory of its own.
        let scratch = unsafe { self.arena.unpacked(self.sizes, lane.index) };
        self.kernels.matmul(matrix, 0..matrix.rows, self.input(x, first, count, tokens), output, scratch);
    }

    fn matmul(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, weight: &Weight) {
        let (first, count) = (self.rows.start, self.rows.len());
        let share = lane.share(weight.rows as usize, COLUMN_STEP);
        let window = weight.window_rows(self.storage.window()).max(1) as usize;
        for start in share.clone().step_by(window) {
            if self.is_over() {
                return;
            }
            let rows = start..share.end.min(start + window);
            self.with_matrix(weight, 0, &rows, |matrix| {
                self.product(lane, (matrix, start), (x, out), (first, count), Tokens::First(count));
            });
        }
    }

    /// One product per expert that a row of the batch is routed to.
    fn expert_matmul(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, weight: &Weight, indexes: &Rows) {
        let share = lane.share(weight.rows as usize, COLUMN_STEP);
        if share.is_empty() {
            return;
        }
        let batch_max = self.sizes.batch_max;
        // The gate writes indexes below `mats`; the bound keeps a hostile graph without one inside its weights.
        let last = weight.mats - 1;
        let expert = |plane, row| (self.values(indexes, 0, row, plane..plane + 1)[0] as u32).min(last) as usize;
        let pairs = self.rows.clone().flat_map(|row| (0..x.planes).map(move |plane| (plane, row)));
        // SAFETY: each lane has scratch of its own.
        let scratch: &mut [u32] = bytemuck::cast_slice_mut(unsafe { self.arena.scratch(self.sizes, lane.index) });
        let routed = pairs.map(|(plane, row)| (expert(plane, row), plane * batch_max + row));
        let (ends, listed) = by_expert(routed, weight.mats as usize, scratch);
        let mut start = 0;
        if lane.index == 0 {
            self.prefetch(weight, ends);
        }
        for (mat, end) in (0..).zip(ends) {
            let list = &listed[start..*end as usize];
            start = *end as usize;
            // Rows up to the last one: lists are in no order.
            let Some(count) = list.iter().max().map(|last| *last as usize + 1) else { continue };
            if self.is_over() {
                return;
            }
            self.with_matrix(weight, mat, &share, |matrix| {
                self.product(lane, (matrix, share.start), (x, out), (0, count), Tokens::Listed(list));
            });
        }
    }

    /// Tells Storage which experts come, by where their lists end.
    fn prefetch(&self, weight: &Weight, ends: &[u32]) {
        let mut start = 0;
        for (mat, end) in (0..).zip(ends) {
            if *end > start
                && let (Some(mat_end), Some(first)) = (weight.mat_end(mat), weight.mat_start(mat))
            {
                self.storage.prefetch(Span { offset: first, bytes: mat_end - first });
            }
            start = *end;
        }
    }

    fn rope(&self, lane: &Lane<'_>, x: &Rows, halves: bool) {
        let head_dim = self.sizes.head_dim;
        self.for_rows(lane, 1, |_, row| {
            // SAFETY: the table is written between passes only.
            let angles = unsafe { self.arena.rope_row(self.sizes, row) };
            for values in self.values_mut(x, 0, row, 0..x.width).chunks_exact_mut(head_dim) {
                if halves {
                    self.kernels.rotate_halves(values, angles);
                } else {
                    self.kernels.rotate_pairs(values, angles);
                }
            }
        });
    }

    fn cast(&self, lane: &Lane<'_>, share: Share, x: &Rows, out: &Rows, source_plane: impl Fn(usize) -> usize) {
        self.for_values(lane, share, out, |plane, row, cols| {
            let from = self.values(x, source_plane(plane), row, cols.clone());
            match out.repr {
                Repr::F32 => self.values_mut(out, plane, row, cols).copy_from_slice(from),
                Repr::Blocks => {
                    let (start, len) = (out.row(plane, row) + block_bytes(cols.start), block_bytes(cols.len()));
                    // SAFETY: apart.
                    self.kernels.quantize_q80(from, unsafe { self.arena.bytes_mut(start, len) });
                }
                Repr::Activations => {
                    let (codes, scales, offsets) = self.activation_parts(out, (plane, row), cols);
                    self.kernels.quantize_activation_parts(from, codes, scales, offsets);
                }
            }
        });
    }

    fn merge_add(&self, lane: &Lane<'_>, share: Share, x: &Rows, out: &Rows) {
        let slices = x.width / out.width;
        self.for_values(lane, share, out, |_, row, cols| {
            let to = self.values_mut(out, 0, row, cols.clone());
            for slice in 0..slices {
                let (start, end) = (slice * out.width + cols.start, slice * out.width + cols.end);
                if x.repr == Repr::F32 {
                    self.kernels.add(to, self.values(x, 0, row, start..end));
                } else {
                    let (start, end) = (block_bytes(start), block_bytes(end));
                    // SAFETY: apart.
                    self.kernels.add_q80(to, unsafe { self.arena.bytes(x.row(0, row) + start, end - start) });
                }
            }
        });
    }

    fn merge_sum(&self, lane: &Lane<'_>, share: Share, x: &Rows, out: &Rows) {
        self.for_values(lane, share, out, |_, row, cols| {
            let to = self.values_mut(out, 0, row, cols.clone());
            to.fill(0.0);
            for plane in 0..x.planes {
                self.kernels.add(to, self.values(x, plane, row, cols.clone()));
            }
        });
    }

    /// The `k` largest values in falling order, the lower index first where two are equal.
    fn moe_gate(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, indexes: &Rows, renormalise: bool) {
        self.for_rows(lane, 1, |_, row| {
            let gates = self.values_mut(x, 0, row, 0..x.width);
            let ids = self.values_mut(indexes, 0, row, 0..indexes.width);
            let mut sum = 0.0;
            for (plane, id) in ids.iter_mut().enumerate() {
                let (mut best, mut weight) = (0, f32::NEG_INFINITY);
                for (index, gate) in gates.iter().enumerate() {
                    if *gate > weight {
                        (best, weight) = (index, *gate);
                    }
                }
                gates[best] = f32::NEG_INFINITY;
                *id = best as f32;
                self.values_mut(out, plane, row, 0..1)[0] = weight;
                sum += weight;
            }
            if renormalise {
                for plane in 0..out.planes {
                    self.values_mut(out, plane, row, 0..1)[0] /= sum;
                }
            }
        });
    }
}

/// Bytes of `len` values as Q80 blocks.
const fn block_bytes(len: usize) -> usize {
    len / BLOCK * size_of::<BlockQ80>()
}

/// Bytes of `len` values as blocks of a norm.
const fn norm_bytes(len: usize) -> usize {
    len / BLOCK * size_of::<NormBlock>()
}

/// Values of scratch that [`by_expert`] takes.
pub(super) const fn lists_len(experts: usize, pairs: usize) -> usize {
    experts + pairs
}

/// Sorts rows by the expert that they are routed to: where each expert's list ends, and the lists, one behind the other.
fn by_expert(
    routed: impl Iterator<Item = (usize, usize)> + Clone,
    experts: usize,
    scratch: &mut [u32],
) -> (&[u32], &[u32]) {
    let (ends, listed) = scratch.split_at_mut(experts);
    ends.fill(0);
    routed.clone().for_each(|(expert, _)| ends[expert] += 1);
    let mut start = 0;
    for end in ends.iter_mut() {
        (*end, start) = (start, start + *end);
    }
    // Each bound moves from the start of its list to the end.
    for (expert, row) in routed {
        listed[ends[expert] as usize] = row as u32;
        ends[expert] += 1;
    }
    (ends, listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn rows_are_listed_by_their_expert_in_order() {
        let routed = [(2, 10), (0, 11), (2, 12), (4, 13), (0, 14)];
        let mut scratch = vec![u32::MAX; lists_len(6, routed.len())];
        let (ends, listed) = by_expert(routed.into_iter(), 6, &mut scratch);
        assert_eq!(ends, [2, 2, 4, 4, 5, 5]);
        assert_eq!(listed, [11, 14, 10, 12, 13]);
    }
}
