//! Products of F32, F16 and Q80 weights with F32 activations, and the dot product.

use super::lanes::{LANES, Lanes, load_part};
use super::operands::Tokens;
use super::{Input, Matrix, Output};
use crate::quant::{BLOCK, BlockQ80};
use core::ops::Range;

/// A stored weight that widens to F32 exactly.
trait Weight {
    /// Bytes of a chunk: whole vectors of weights.
    type Chunk;
    /// Vectors of a chunk.
    const VECTORS: usize;
    /// Whether widening takes instructions that are worth saving.
    const NARROW: bool;
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
    ($type:ty, $bytes:literal, $load:ident, narrow: $narrow:literal) => {
        impl Weight for $type {
            type Chunk = [u8; $bytes * LANES];
            const VECTORS: usize = 1;
            const NARROW: bool = $narrow;
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
plain_weight!(F32, 4, load_bytes, narrow: false);
plain_weight!(F16, 2, load_f16, narrow: true);

/// A code of 8 bits times a scale of 11 is exact in F32: the product is that of the widened matrix, bit for bit.
impl Weight for Q80 {
    type Chunk = BlockQ80;
    const VECTORS: usize = BLOCK / LANES;
    const NARROW: bool = true;
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

macro_rules! matmul_of {
    ($name:ident, $weight:ty, $what:literal) => {
        #[doc = concat!("[`Kernels::matmul`](super::Kernels::matmul) of ", $what, " weights and F32 activations; the operands passed `check`.")]
        #[inline(always)]
        pub(super) fn $name<S: Lanes>(
            s: S,
            w: &Matrix<'_>,
            rows: Range<usize>,
            x: &Input<'_>,
            out: &Output<'_>,
            scratch: &mut [u8],
        ) {
            matmul::<S, $weight>(s, w, rows, x, out, scratch);
        }
    };
}
matmul_of!(matmul_f32, F32, "F32");
matmul_of!(matmul_f16, F16, "F16");
matmul_of!(matmul_q80, Q80, "Q80");

/// Bytes of weights, widened, that stay in a second-level cache while all tokens pass over them.
const PANEL_BYTES: usize = 256 << 10;

/// Product of weights and F32 activations. Where many tokens meet weights of another type, a panel of rows is widened
/// into scratch once.
#[inline(always)]
fn matmul<S: Lanes, W: Weight>(
    s: S,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Input<'_>,
    out: &Output<'_>,
    scratch: &mut [u8],
) {
    let Input::F32 { x, stride, tokens } = *x else { unreachable!("checked: F32 input") };
    let product = Product { x, stride, tokens, cols: w.cols, out };
    // An odd number of cache lines: rows do not meet in a few sets of a cache.
    let wide_row_bytes = (w.cols * size_of::<f32>()).next_multiple_of(64) | 64;
    let panel_rows = (PANEL_BYTES / wide_row_bytes).max(4) & !3;
    let room = (scratch.len() / wide_row_bytes) & !3;
    let widen = W::NARROW && tokens.count() > 4 && room > 0;
    let panel_rows = match tokens.count() {
        // Weights come from memory all the time: streams as long as can be.
        ..=4 => rows.len(),
        _ if widen => panel_rows.min(room),
        _ => panel_rows,
    };
    let mut start = rows.start;
    while start < rows.end {
        let panel = start..rows.end.min(start + panel_rows);
        start = panel.end;
        if widen {
            widen_rows::<S, W>(s, w, panel.clone(), wide_row_bytes, scratch);
            let bytes = &scratch[..panel.len() * wide_row_bytes];
            let wide = Rows { bytes, row_stride: wide_row_bytes, first: panel.start };
            product.over_tokens::<S, F32>(s, &wide, panel);
        } else {
            product.over_tokens::<S, W>(s, &Rows { bytes: w.bytes, row_stride: w.row_stride, first: 0 }, panel);
        }
    }
}

/// Widens rows to little-endian F32, `row_bytes` apart.
#[inline(always)]
fn widen_rows<S: Lanes, W: Weight>(s: S, w: &Matrix<'_>, rows: Range<usize>, row_bytes: usize, out: &mut [u8]) {
    let whole = w.cols / (LANES * W::VECTORS);
    let done = whole * LANES * W::VECTORS;
    for (r, out) in rows.zip(out.chunks_exact_mut(row_bytes)) {
        let row = &w.bytes[r * w.row_stride..][..W::row_bytes(w.cols)];
        let (chunks, tail) = out[..w.cols * 4].as_chunks_mut::<{ 4 * LANES }>();
        for i in 0..whole {
            for v in 0..W::VECTORS {
                s.store_bytes(W::load(s, &W::chunks(row)[i], v), &mut chunks[i * W::VECTORS + v]);
            }
        }
        if done < w.cols {
            let mut last = [0; 4 * LANES];
            s.store_bytes(W::load_part(s, &row[W::row_bytes(done)..]), &mut last);
            tail.copy_from_slice(&last[..tail.len()]);
        }
    }
}

/// Rows of weights from row `first` of the matrix on.
struct Rows<'a> {
    bytes: &'a [u8],
    row_stride: usize,
    first: usize,
}

struct Product<'a> {
    x: &'a [f32],
    stride: usize,
    tokens: Tokens<'a>,
    cols: usize,
    out: &'a Output<'a>,
}

impl Product<'_> {
    /// A panel of rows and all tokens: as many sums at once as registers hold.
    #[inline(always)]
    fn over_tokens<S: Lanes, W: Weight>(&self, s: S, w: &Rows<'_>, rows: Range<usize>) {
        let count = self.tokens.count();
        let mut t = 0;
        if S::REGISTERS >= 32 {
            while t + 6 <= count {
                self.panel::<S, W, 4, 6>(s, w, rows.clone(), t);
                t += 6;
            }
        }
        while t + 3 <= count {
            self.panel::<S, W, 2, 3>(s, w, rows.clone(), t);
            t += 3;
        }
        match count - t {
            0 => {}
            // Then activations exceed the first-level cache: they had better meet more rows.
            1 if S::REGISTERS >= 32 && self.cols > 4096 => self.panel::<S, W, 8, 1>(s, w, rows, t),
            1 => self.panel::<S, W, 4, 1>(s, w, rows, t),
            _ => self.panel::<S, W, 2, 2>(s, w, rows, t),
        }
    }

    /// Tokens `t..t + T` of all of `rows`, `R` rows at a time, far apart: see [`groups`](super::groups).
    #[inline(always)]
    fn panel<S: Lanes, W: Weight, const R: usize, const T: usize>(
        &self,
        s: S,
        w: &Rows<'_>,
        rows: Range<usize>,
        t: usize,
    ) {
        let step = rows.len() / R;
        for r in rows.start..rows.start + step {
            self.tile::<S, W, R, T>(s, w, (r, step), t);
        }
        for r in rows.start + R * step..rows.end {
            self.tile::<S, W, 1, T>(s, w, (r, 0), t);
        }
    }

    /// Rows `r + k * step` for `k` below `R`, and tokens `t..t + T`: enough sums at once to hide the latency of an FMA.
    #[inline(always)]
    fn tile<S: Lanes, W: Weight, const R: usize, const T: usize>(
        &self,
        s: S,
        w: &Rows<'_>,
        (r, step): (usize, usize),
        t: usize,
    ) {
        let cols = self.cols;
        let whole = cols / (LANES * W::VECTORS);
        let mut weights: [&[u8]; R] = [&[]; R];
        for (k, row) in weights.iter_mut().enumerate() {
            *row = &w.bytes[(r + k * step - w.first) * w.row_stride..][..W::row_bytes(cols)];
        }
        let mut tokens: [&[f32]; T] = [&[]; T];
        for (k, token) in tokens.iter_mut().enumerate() {
            *token = &self.x[self.tokens.row(t + k) * self.stride..][..cols];
        }
        let mut acc = [[s.splat(0.0); T]; R];
        for i in 0..whole {
            for v in 0..W::VECTORS {
                let mut ws = [s.splat(0.0); R];
                for k in 0..R {
                    // SAFETY: every row has `cols` weights, so `whole` chunks.
                    ws[k] = W::load(s, unsafe { W::chunks(weights[k]).get_unchecked(i) }, v);
                }
                for j in 0..T {
                    // SAFETY: every token has `cols` values, so `whole` chunks of vectors.
                    let x = s.load(unsafe { tokens[j].as_chunks().0.get_unchecked(i * W::VECTORS + v) });
                    for k in 0..R {
                        acc[k][j] = s.fma(ws[k], x, acc[k][j]);
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
                unsafe { self.out.at(self.tokens.row(t + j), r + k * step).write(s.sum(acc)) }
            }
        }
    }
}
