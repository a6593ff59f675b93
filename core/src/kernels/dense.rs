//! Products of F32 and F16 weights with F32 activations, and the dot product.

use super::groups::Ahead;
use super::lanes::{LANES, Lanes, load_part};
use super::{Input, Matrix, Output};
use core::ops::Range;

/// A stored weight that widens to F32 exactly.
trait Weight {
    /// Bytes of one weight.
    const BYTES: usize;
    /// Bytes of a vector of weights.
    type Chunk;
    /// A row as whole vectors.
    fn chunks(row: &[u8]) -> &[Self::Chunk];
    /// A vector of weights.
    fn load<S: Lanes>(s: S, chunk: &Self::Chunk) -> S::V;
    /// Fewer weights than a vector, zeros behind them.
    fn load_part<S: Lanes>(s: S, bytes: &[u8]) -> S::V;
}

struct F32;
struct F16;

macro_rules! weight {
    ($type:ty, $bytes:literal, $load:ident) => {
        impl Weight for $type {
            const BYTES: usize = $bytes;
            type Chunk = [u8; $bytes * LANES];
            #[inline(always)]
            fn chunks(row: &[u8]) -> &[Self::Chunk] {
                row.as_chunks().0
            }
            #[inline(always)]
            fn load<S: Lanes>(s: S, chunk: &Self::Chunk) -> S::V {
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
weight!(F32, 4, load_bytes);
weight!(F16, 2, load_f16);

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

/// Bytes of weights that stay in the second-level cache while all tokens pass over them.
const PANEL_BYTES: usize = 192 << 10;

#[inline(always)]
fn matmul<S: Lanes, W: Weight>(s: S, w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    let Input::F32 { x, stride, count } = *x else { unreachable!("checked: F32 input") };
    let product = Product { w, x, stride, decode: count == 1, out };
    let panel_rows = if count == 1 { rows.len() } else { (PANEL_BYTES / (w.cols * W::BYTES).max(1)).max(4) };
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
        let whole = cols / LANES;
        let mut weights: [&[u8]; R] = [&[]; R];
        for (k, row) in weights.iter_mut().enumerate() {
            *row = &self.w.bytes[(r + k) * self.w.row_stride..][..cols * W::BYTES];
        }
        let mut tokens: [&[f32]; T] = [&[]; T];
        for (k, token) in tokens.iter_mut().enumerate() {
            *token = &self.x[(t + k) * self.stride..][..cols];
        }
        let mut acc = [[s.splat(0.0); T]; R];
        let next = if r + R < end { r + R } else { r };
        let mut ahead = self.decode.then(|| Ahead::new(self.w, next, R, LANES * W::BYTES, whole));
        for i in 0..whole {
            if let Some(ahead) = &mut ahead {
                let ahead = ahead.step();
                for line in 0..(R * LANES * W::BYTES).div_ceil(64) {
                    s.prefetch(ahead.wrapping_add(64 * line));
                }
            }
            let mut xs = [s.splat(0.0); T];
            for j in 0..T {
                // SAFETY: every token has `cols` values, so `whole` vectors.
                xs[j] = s.load(unsafe { tokens[j].as_chunks().0.get_unchecked(i) });
            }
            for k in 0..R {
                // SAFETY: every row has `cols` weights, so `whole` vectors.
                let w = W::load(s, unsafe { W::chunks(weights[k]).get_unchecked(i) });
                for j in 0..T {
                    acc[k][j] = s.fma(w, xs[j], acc[k][j]);
                }
            }
        }
        if !cols.is_multiple_of(LANES) {
            for (acc, row) in acc.iter_mut().zip(weights) {
                let w = W::load_part(s, &row[whole * LANES * W::BYTES..]);
                for (acc, token) in acc.iter_mut().zip(tokens) {
                    *acc = s.fma(w, load_part(s, &token[whole * LANES..], 0.0), *acc);
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
