//! One lane's part of one step.
//!
//! Every step is shared out so that lanes write apart: by rows of the batch where there are enough of them, else by
//! columns; products by output rows; attention as `attend` says. What a step reads was written before the last barrier.

use super::arena::{Arena, FirstError, Sizes};
use super::step::{Kind, Repr, Rows, Step};
use crate::graph::Weight;
use crate::io::{Lane, Span, Storage};
use crate::kernels::{Input, Kernels, Matrix, Output};
use crate::quant::{BLOCK, BlockQ80};
use core::ops::Range;

/// Values that are shared out together: a cache line of F32, and what all kernels take in one go.
const COLUMN_STEP: usize = 32;

/// What all lanes share while a segment runs.
pub(super) struct Run<'r, 'a, S: Storage + ?Sized> {
    pub storage: &'r S,
    pub kernels: Kernels,
    pub arena: &'r Arena<'a>,
    pub sizes: &'r Sizes,
    pub error: &'r FirstError<S::Error>,
    /// Rows of the batch that are computed.
    pub rows: Range<usize>,
    /// Position of row 0.
    pub position: usize,
}

// Every access to the arena below is sound for the same reason, called *apart* there: a step writes only its output, which
// it reads nowhere else; `check` made sure that the operands exist and have these widths; the lanes' parts of an output
// do not overlap; and other steps run before or after a barrier.
impl<S: Storage + ?Sized> Run<'_, '_, S> {
    /// Runs this lane's part of `step`.
    pub fn step(&self, step: &Step, lane: &Lane<'_>) {
        match &step.0 {
            Kind::Nothing => {}
            Kind::Embedding { tokens, out, weight } => self.embedding(lane, tokens, out, weight),
            Kind::InvRms { x, out, columns, epsilon } => self.inv_rms(lane, x, out, *columns, *epsilon),
            Kind::RmsNorm { x, out, inv_rms, columns, weight } => {
                self.rms_norm(lane, (x, out), inv_rms, *columns, weight);
            }
            Kind::Matmul { x, out, weight } => self.matmul(lane, x, out, weight),
            Kind::ExpertMatmul { x, out, weight, indexes } => self.expert_matmul(lane, x, out, weight, indexes),
            Kind::Rope { x, halves } => self.rope(lane, x, *halves),
            Kind::Shift { x, cache } => self.shift(lane, x, cache),
            Kind::Attention { query, keys, values, out, heads } => {
                self.attention(lane, query, (keys, values), out, heads);
            }
            Kind::Silu { x } => {
                self.for_values(lane, x, |plane, row, cols| self.kernels.silu(self.values_mut(x, plane, row, cols)));
            }
            Kind::Mul { x, by } => self.for_values(lane, x, |plane, row, cols| {
                self.kernels.mul(self.values_mut(x, plane, row, cols.clone()), self.values(by, plane, row, cols));
            }),
            Kind::Scale { x, by } => self.for_values(lane, x, |plane, row, cols| {
                let factor = self.values(by, plane, row, 0..1)[0];
                self.kernels.scale(self.values_mut(x, plane, row, cols), factor);
            }),
            Kind::Cast { x, out } => self.cast(lane, x, out, |plane| plane),
            Kind::RepeatZ { x, out } => self.cast(lane, x, out, |_| 0),
            Kind::MergeAdd { x, out } => self.merge_add(lane, x, out),
            Kind::MergeSum { x, out } => self.merge_sum(lane, x, out),
            Kind::Softmax { x } => self.for_rows(lane, x.planes, |plane, row| {
                self.kernels.softmax(self.values_mut(x, plane, row, 0..x.width));
            }),
            Kind::MoeGate { x, out, indexes, renormalise } => self.moe_gate(lane, x, out, indexes, *renormalise),
        }
    }

    /// Meets the other lanes at the barriers inside `step`, and does nothing else.
    pub fn skip(&self, step: &Step, lane: &Lane<'_>) {
        if let Kind::Attention { heads, .. } = &step.0
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

    /// Shares out whole rows.
    fn for_rows(&self, lane: &Lane<'_>, planes: usize, mut body: impl FnMut(usize, usize)) {
        let count = self.rows.len();
        for item in lane.share(planes * count, 1) {
            body(item / count, self.rows.start + item % count);
        }
    }

    /// Shares out rows where there are enough of them, else columns of every row.
    fn for_values(&self, lane: &Lane<'_>, of: &Rows, mut body: impl FnMut(usize, usize, Range<usize>)) {
        if of.planes * self.rows.len() >= lane.count {
            return self.for_rows(lane, of.planes, |plane, row| body(plane, row, 0..of.width));
        }
        let cols = lane.share(of.width, COLUMN_STEP);
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

    /// Input of a product: `count` rows from `row` on.
    fn input(&self, x: &Rows, plane: usize, row: usize, count: usize) -> Input<'_> {
        let (offset, stride) = (x.row(plane, row), x.row_stride);
        match x.repr {
            Repr::F32 => {
                let stride = stride / 4;
                // SAFETY: apart.
                Input::F32 { x: unsafe { self.arena.f32s(offset, (count - 1) * stride + x.width) }, stride, count }
            }
            Repr::Activations | Repr::Blocks => {
                // SAFETY: apart.
                Input::Q80 { rows: unsafe { self.arena.bytes(offset, count * stride) }, stride, count }
            }
        }
    }

    /// This lane's rows of one product of `weight`'s matrix `mat` with `count` rows of `x`.
    fn product(
        &self,
        lane: &Lane<'_>,
        (x, out): (&Rows, &Rows),
        (plane, row): (usize, usize),
        count: usize,
        weight: &Weight,
        mat: u32,
    ) {
        let share = lane.share(weight.rows as usize, COLUMN_STEP);
        if share.is_empty() {
            return;
        }
        let Some(bytes) = self.lease(weight, mat, &share) else { return };
        let (rows, cols) = (share.len(), weight.cols as usize);
        let matrix = Matrix { dtype: weight.dtype, bytes: &bytes, rows, cols, row_stride: weight.row_stride as usize };
        let stride = out.row_stride / 4;
        let len = (count - 1) * stride + rows;
        let start = self.arena.f32_ptr(out.row(plane, row) + 4 * share.start, len);
        // SAFETY: apart; `f32_ptr` checked that all `len` values lie in the arena, and this lane writes rows of its own.
        let output = unsafe { Output::from_raw(start, stride, len) };
        self.kernels.matmul(matrix, 0..rows, self.input(x, plane, row, count), output);
    }

    fn matmul(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, weight: &Weight) {
        self.product(lane, (x, out), (0, self.rows.start), self.rows.len(), weight, 0);
    }

    fn expert_matmul(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, weight: &Weight, indexes: &Rows) {
        for row in self.rows.clone() {
            for plane in 0..x.planes {
                // The gate writes indexes below `mats`; the bound keeps a hostile graph without one inside its weights.
                let expert = (self.values(indexes, 0, row, plane..plane + 1)[0] as u32).min(weight.mats - 1);
                self.product(lane, (x, out), (plane, row), 1, weight, expert);
            }
        }
    }

    fn rope(&self, lane: &Lane<'_>, x: &Rows, halves: bool) {
        let head_dim = self.sizes.head_dim;
        let heads = x.width / head_dim;
        for item in lane.share(self.rows.len() * heads, 1) {
            let (row, head) = (self.rows.start + item / heads, item % heads);
            // SAFETY: the table is written between passes only.
            let angles = unsafe { self.arena.rope_row(self.sizes, row) };
            let values = self.values_mut(x, 0, row, head * head_dim..(head + 1) * head_dim);
            if halves {
                self.kernels.rotate_halves(values, angles);
            } else {
                self.kernels.rotate_pairs(values, angles);
            }
        }
    }

    fn cast(&self, lane: &Lane<'_>, x: &Rows, out: &Rows, source_plane: impl Fn(usize) -> usize) {
        if out.repr == Repr::Activations {
            return self.for_rows(lane, out.planes, |plane, row| {
                // SAFETY: apart.
                let to = unsafe { self.arena.bytes_mut(out.row(plane, row), out.row_stride) };
                self.kernels.quantize_activations(self.values(x, source_plane(plane), row, 0..x.width), to);
            });
        }
        self.for_values(lane, out, |plane, row, cols| {
            let from = self.values(x, source_plane(plane), row, cols.clone());
            if out.repr == Repr::F32 {
                self.values_mut(out, plane, row, cols).copy_from_slice(from);
            } else {
                let (start, end) = (block_bytes(cols.start), block_bytes(cols.end));
                // SAFETY: apart.
                let to = unsafe { self.arena.bytes_mut(out.row(plane, row) + start, end - start) };
                self.kernels.quantize_q80(from, to);
            }
        });
    }

    fn merge_add(&self, lane: &Lane<'_>, x: &Rows, out: &Rows) {
        let slices = x.width / out.width;
        self.for_values(lane, out, |_, row, cols| {
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

    fn merge_sum(&self, lane: &Lane<'_>, x: &Rows, out: &Rows) {
        self.for_values(lane, out, |_, row, cols| {
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
