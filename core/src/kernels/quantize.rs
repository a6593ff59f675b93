//! Quantisers of activations, and the sum of quantised partial results.

use super::lanes::{LANES, Lanes};
use crate::quant::{BLOCK, BlockQ80, f16_to_f32, f32_to_f16};

/// Codes and scale (F16 bits) of a block.
#[inline(always)]
pub(super) fn quantize<S: Lanes>(s: S, x: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> u16 {
    const { assert!(BLOCK == 2 * LANES) };
    let x = x.as_chunks().0;
    let (low, high) = (s.load(&x[0]), s.load(&x[1]));
    let peak = s.largest(s.max(s.abs(low), s.max(s.abs(high), s.splat(0.0))));
    let d = peak / 127.0;
    let inverse = 1.0 / d;
    // Neither zero nor the smallest subnormals have a finite inverse; all of these are zero in F16.
    let inverse = s.splat(if inverse < f32::INFINITY { inverse } else { 0.0 });
    let codes = codes.as_chunks_mut().0;
    s.store_i8(s.mul(low, inverse), &mut codes[0]);
    s.store_i8(s.mul(high, inverse), &mut codes[1]);
    f32_to_f16(d)
}

/// Codes, scales and offsets of an activation row.
#[inline(always)]
pub(super) fn quantize_activations<S: Lanes>(
    s: S,
    x: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    let blocks = x.as_chunks().0.iter().zip(codes.as_chunks_mut().0);
    for (((x, codes), scale), offset) in blocks.zip(scales).zip(offsets) {
        *scale = f16_to_f32(quantize(s, x, codes));
        let mut total = 0;
        for code in codes {
            total += i32::from(*code);
        }
        *offset = -8 * total;
    }
}

/// Q80 blocks of `x`.
#[inline(always)]
pub(super) fn quantize_q80<S: Lanes>(s: S, x: &[f32], out: &mut [BlockQ80]) {
    for (x, block) in x.as_chunks().0.iter().zip(out) {
        block.d = quantize(s, x, &mut block.qs).to_le_bytes();
    }
}

/// `x = fma(q, d, x)`
#[inline(always)]
pub(super) fn add_q80<S: Lanes>(s: S, x: &mut [f32], blocks: &[BlockQ80]) {
    for (x, block) in x.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
        let d = s.splat(block.scale());
        for (x, q) in x.as_chunks_mut().0.iter_mut().zip(block.qs.as_chunks().0) {
            s.store(s.fma(s.load_i8(q), d, s.load(x)), x);
        }
    }
}
