//! Products of F32, F16 and Q80 weights with F32 activations, and the dot product.

use super::lanes::{LANES, Lanes, load_part};
use super::prefetch::Ahead;
use super::{Input, Matrix, Output};
use crate::quant::{BLOCK, BlockQ80};
use core::ops::Range;

/// A stored weight that widens to F32 exactly.
trait Weight {
    /// Bytes of a chunk: whole vectors of weights.
    type Chunk;
    /// Vectors of a chunk.
    const VECTORS: usize;
    /// Bytes of a row of `cols` weights.
    fn row_bytes(cols: usize) -> usize;
    /// A row as whole chunks.
    fn chunks(row: &[u8]) -> &[Self::Chunk];
    /// A vector of a chunk.
    fn load<S: Lanes>(s: S, chunk: &Self::Chunk, vector: usize) -> S::V;
    /// Fewer weights than a vector, zeros behind them.
    fn load_part<S: Lanes>(s: S, bytes: &[u8]) -> S::V;
}

struct F32;
struct F16;
struct Q80;

macro_rules! plain_weight {
    ($type:ty, $bytes:literal, $load:ident) => {
        impl Weight for $type {
            type Chunk = [u8; $bytes * LANES];
            const VECTORS: usize = 1;
            #[inline(always)]
            fn row_bytes(cols: usize) -> usize {
                cols * $bytes
            }
            #[inline(always)]
            fn chunks(row: &[u8]) -> &[Self::Chunk] {
                row.as_chunks().0
            }
            #[inline(always)]
            fn load<S: Lanes>(s: S, chunk: &Self::Chunk, _: usize) -> S::V {
                s.$load(chunk)
            }
            #[inline(always)]
            fn load_part<S: Lanes>(s: S, bytes: &[u8]) -> S::V {
                let mut chunk = [0; $bytes * LANES];
                chunk[..bytes.len()].copy_from_slice(bytes);
                s.$load(&chunk)
            }
        }
    };
}
plain_weight!(F32, 4, load_bytes);
plain_weight!(F16, 2, load_f16);

/// A code of 8 bits times a scale of 11 is exact in F32: the product is that of the widened matrix, bit for bit.
impl Weight for Q80 {
    type Chunk = BlockQ80;
    const VECTORS: usize = BLOCK / LANES;
    #[inline(always)]
    fn row_bytes(cols: usize) -> usize {
        cols / BLOCK * size_of::<BlockQ80>()
    }
    #[inline(always)]
    fn chunks(row: &[u8]) -> &[BlockQ80] {
        bytemuck::cast_slice(row)
    }
    #[inline(always)]
    fn load<S: Lanes>(s: S, block: &BlockQ80, vector: usize) -> S::V {
        s.mul(s.load_i8(&block.qs.as_chunks().0[vector]), s.splat_f16(block.d))
    }
    #[inline(always)]
    fn load_part<S: Lanes>(_: S, _: &[u8]) -> S::V {
        unreachable!("checked: whole blocks")
    }
}

/// `Σ a[i] * b[i]` of equally long slices.
#[inline(always)]
pub(super) fn dot<S: Lanes>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_tail) = a.as_chunks();
    let (b, b_tail) = b.as_chunks();
    let mut acc = s.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        acc = s.fma(s.load(a), s.load(b), acc);
    }
    if !a_tail.is_empty() {
        acc = s.fma(load_part(s, a_tail, 0.0), load_part(s, b_tail, 0.0), acc);
    }
    s.sum(acc)
}

/// [`Kernels::matmul`](super::Kernels::matmul) of F32 weights; the operands passed `check`.
#[inline(always)]
pub(super) fn matmul_f32<S: Lanes>(s: S, w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    matmul::<S, F32>(s, w, rows, x, out);
}

/// [`Kernels::matmul`](super::Kernels::matmul) of F16 weights; the operands passed `check`.
#[inline(always)]
pub(super) fn matmul_f16<S: Lanes>(s: S, w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    matmul::<S, F16>(s, w, rows, x, out);
}

/// [`Kernels::matmul`](super::Kernels::matmul) of Q80 weights and F32 activations; the operands passed `check`.
#[inline(always)]
pub(super) fn matmul_q80<S: Lanes>(s: S, w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    matmul::<S, Q80>(s, w, rows, x, out);
}

/// Bytes of weights that stay in the second-level cache while all tokens pass over them.
const PANEL_BYTES: usize = 192 << 10;

#[inline(always)]
fn matmul<S: Lanes, W: Weight>(s: S, w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    let Input::F32 { x, stride, count } = *x else { unreachable!("checked: F32 input") };
    let product = Product { w, x, stride, decode: count == 1, out };
    let panel_rows = if count == 1 { rows.len() } else { (PANEL_BYTES / W::row_bytes(w.cols).max(1)).max(4) };
    let mut start = rows.start;
    while start < rows.end {
        let panel = start..rows.end.min(start + panel_rows);
        start = panel.end;
        let mut t = 0;
        while t + 3 <= count {
            product.panel::<S, W, 2, 3>(s, panel.clone(), t);
            t += 3;
        }
        match count - t {
            0 => {}
            1 => product.panel::<S, W, 4, 1>(s, panel, t),
            _ => product.panel::<S, W, 2, 2>(s, panel, t),
        }
    }
}

struct Product<'a> {
    w: &'a Matrix<'a>,
    x: &'a [f32],
    stride: usize,
    /// One token: weights come from memory all the time, so the next rows are prefetched.
    decode: bool,
    out: &'a Output<'a>,
}

impl Product<'_> {
    /// Tokens `t..t + T` of all of `rows`, `R` rows at a time.
    #[inline(always)]
    fn panel<S: Lanes, W: Weight, const R: usize, const T: usize>(&self, s: S, rows: Range<usize>, t: usize) {
        let mut r = rows.start;
        while r + R <= rows.end {
            self.tile::<S, W, R, T>(s, r, t, rows.end);
            r += R;
        }
        while r < rows.end {
            self.tile::<S, W, 1, T>(s, r, t, rows.end);
            r += 1;
        }
    }

    /// Rows `r..r + R` and tokens `t..t + T`: enough sums at once to hide the latency of an FMA.
    #[inline(always)]
    fn tile<S: Lanes, W: Weight, const R: usize, const T: usize>(&self, s: S, r: usize, t: usize, end: usize) {
        let cols = self.w.cols;
        let whole = cols / (LANES * W::VECTORS);
        let mut weights: [&[u8]; R] = [&[]; R];
        for (k, row) in weights.iter_mut().enumerate() {
            *row = &self.w.bytes[(r + k) * self.w.row_stride..][..W::row_bytes(cols)];
        }
        let mut tokens: [&[f32]; T] = [&[]; T];
        for (k, token) in tokens.iter_mut().enumerate() {
            *token = &self.x[(t + k) * self.stride..][..cols];
        }
        let mut acc = [[s.splat(0.0); T]; R];
        let next = if r + R < end { r + R } else { r };
        let mut ahead = self.decode.then(|| Ahead::new(self.w, next, R, size_of::<W::Chunk>(), whole));
        for i in 0..whole {
            if let Some(ahead) = &mut ahead {
                let ahead = ahead.step();
                for line in 0..(R * size_of::<W::Chunk>()).div_ceil(64) {
                    s.prefetch(ahead.wrapping_add(64 * line));
                }
            }
            for v in 0..W::VECTORS {
                let mut xs = [s.splat(0.0); T];
                for j in 0..T {
                    // SAFETY: every token has `cols` values, so `whole` chunks of vectors.
                    xs[j] = s.load(unsafe { tokens[j].as_chunks().0.get_unchecked(i * W::VECTORS + v) });
                }
                for k in 0..R {
                    // SAFETY: every row has `cols` weights, so `whole` chunks.
                    let w = W::load(s, unsafe { W::chunks(weights[k]).get_unchecked(i) }, v);
                    for j in 0..T {
                        acc[k][j] = s.fma(w, xs[j], acc[k][j]);
                    }
                }
            }
        }
        let done = whole * LANES * W::VECTORS;
        if done < cols {
            for (acc, row) in acc.iter_mut().zip(weights) {
                let w = W::load_part(s, &row[W::row_bytes(done)..]);
                for (acc, token) in acc.iter_mut().zip(tokens) {
                    *acc = s.fma(w, load_part(s, &token[done..], 0.0), *acc);
                }
            }
        }
        for (k, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                // SAFETY: `check` saw that tokens and rows of the product lie inside the output.
                unsafe { self.out.at(t + j, r + k).write(s.sum(acc)) }
            }
        }
    }
}
