//! The reference: arrays for vectors, and the quantised products one block at a time.

use super::lanes::{LANES, Lanes};
use super::operands::ActivationRows;
use super::table::{BlockProducts, Table, table};
use super::{Input, Isa, Matrix, Output};
use crate::quant::{BLOCK, BlockQ40, BlockQ80, f16_to_f32, f32_to_f16};
use bytemuck::AnyBitPattern;
use core::ops::Range;

pub(super) static TABLE: Table =
    table!(Isa::Scalar, Scalar, BlockProducts { q40: matmul_q40, q80: matmul_q80 }, None, []);

/// Sixteen numbers, one by one.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

/// `[f(a[0], …), f(a[1], …), …]`
#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    core::array::from_fn(f)
}

/// Halves the lanes four times: lane `i` with lane `i + 8`, `+ 4`, `+ 2`, `+ 1`.
#[inline(always)]
fn tree(mut v: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            v[i] = f(v[i], v[i + half]);
        }
        half /= 2;
    }
    v[0]
}

impl Lanes for Scalar {
    type V = [f32; LANES];
    // The compiler makes of it what it likes: one sum at a time is the least code.
    const REGISTERS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> Self::V {
        [f16_to_f32(u16::from_le_bytes(x)); LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> Self::V {
        each(|i| f32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::V {
        each(|i| f16_to_f32(u16::from_le_bytes([x[2 * i], x[2 * i + 1]])))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::V {
        each(|i| f32::from(x[i]))
    }
    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [u8; 2 * LANES]) {
        for (out, v) in out.as_chunks_mut().0.iter_mut().zip(v) {
            *out = f32_to_f16(v).to_le_bytes();
        }
    }
    #[inline(always)]
    fn store_bytes(self, v: Self::V, out: &mut [u8; 4 * LANES]) {
        for (out, v) in out.as_chunks_mut().0.iter_mut().zip(v) {
            *out = v.to_le_bytes();
        }
    }
    #[inline(always)]
    fn store_i8(self, v: Self::V, out: &mut [i8; LANES]) {
        for (out, v) in out.iter_mut().zip(v) {
            *out = libm::rintf(v) as i8;
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| libm::fmaf(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        each(|i| libm::rintf(a[i]))
    }
    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        each(|i| f32::from_bits((n[i] as i32).wrapping_add(127).cast_unsigned() << 23))
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        tree(v, |a, b| a + b)
    }
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        tree(v, |a, b| if a > b { a } else { b })
    }
}

/// Product of Q40 weights; the operands passed `check`.
unsafe fn matmul_q40(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>, _: &mut [u8]) {
    matmul(w, rows, x, out, BlockQ40::scale, |block, x| {
        let mut dot = 0;
        for (j, q) in block.qs.iter().enumerate() {
            dot += (i32::from(q & 15) - 8) * i32::from(x[j]);
            dot += (i32::from(q >> 4) - 8) * i32::from(x[j + BLOCK / 2]);
        }
        dot
    });
}

/// Product of Q80 weights; the operands passed `check`.
unsafe fn matmul_q80(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>, _: &mut [u8]) {
    matmul(w, rows, x, out, BlockQ80::scale, |block, x| {
        block.qs.iter().zip(x).map(|(q, x)| i32::from(*q) * i32::from(*x)).sum()
    });
}

/// `acc = fma(f32(i), d_w * d_x, acc)` over the blocks of each row and token.
fn matmul<B: AnyBitPattern>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Input<'_>,
    out: &Output<'_>,
    scale: impl Fn(&B) -> f32,
    dot: impl Fn(&B, &[i8; BLOCK]) -> i32,
) {
    let x = ActivationRows::new(x, w.cols);
    let blocks = w.cols / BLOCK;
    for r in rows {
        let row: &[B] = bytemuck::cast_slice(&w.bytes[r * w.row_stride..][..blocks * size_of::<B>()]);
        for t in 0..x.tokens.count() {
            let token = x.row(t);
            let mut acc = 0.0;
            for ((block, codes), d) in row.iter().zip(token.codes.as_chunks().0).zip(token.scales) {
                acc = libm::fmaf(dot(block, codes) as f32, scale(block) * d, acc);
            }
            // SAFETY: `check` saw that tokens and rows of the product lie inside the output.
            unsafe { out.at(x.tokens.row(t), r).write(acc) }
        }
    }
}
