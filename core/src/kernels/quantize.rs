//! Quantisers of activations, and the sum of quantised partial results.

use super::lanes::{LANES, Lanes};
use crate::quant::{BLOCK, BlockQ80, NormBlock, f16_to_f32, f32_to_f16};

/// Codes and scale (F16 bits) of a block.
#[inline(always)]
pub(super) fn quantize<S: Lanes>(s: S, x: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> u16 {
    f32_to_f16(quantize_wide(s, x, codes))
}

/// Codes and scale of a block.
#[inline(always)]
fn quantize_wide<S: Lanes>(s: S, x: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> f32 {
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
    d
}

/// Offset of a block of an activation row: see [`super::activation_row_bytes`].
#[inline(always)]
fn offset(codes: &[i8; BLOCK]) -> i32 {
    let mut total = 0;
    for code in codes {
        total += i32::from(*code);
    }
    -8 * total
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
    for (((x, codes), scale), to) in blocks.zip(scales).zip(offsets) {
        *scale = f16_to_f32(quantize(s, x, codes));
        *to = offset(codes);
    }
}

/// First half of a norm: blocks of `weight * x`, and the squares of `x`.
#[inline(always)]
pub(super) fn norm_blocks<S: Lanes>(s: S, x: &[f32], weight: &[u8], out: &mut [NormBlock]) {
    const { assert!(BLOCK == 2 * LANES) };
    let weights = weight.as_chunks::<4>().0.as_chunks::<BLOCK>().0;
    for ((x, weights), block) in x.as_chunks::<BLOCK>().0.iter().zip(weights).zip(out) {
        let mut scaled = *x;
        for (x, w) in scaled.iter_mut().zip(weights) {
            *x *= f32::from_le_bytes(*w);
        }
        block.scale = quantize_wide(s, &scaled, &mut block.codes);
        let halves = x.as_chunks().0;
        let (low, high) = (s.load(&halves[0]), s.load(&halves[1]));
        block.squares = s.sum(s.fma(high, high, s.mul(low, low)));
    }
}

/// The other half: parts of an activation row of blocks whose row has this `inv_rms`.
#[inline(always)]
pub(super) fn finish_norm<S: Lanes>(
    _: S,
    blocks: &[NormBlock],
    inv_rms: f32,
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    let parts = codes.as_chunks_mut().0.iter_mut().zip(scales).zip(offsets);
    for (block, ((codes, scale), to)) in blocks.iter().zip(parts) {
        *codes = block.codes;
        *scale = f16_to_f32(f32_to_f16(block.scale * inv_rms));
        *to = offset(codes);
    }
}

/// Parts of an activation row of Q80 blocks, as they are.
#[inline(always)]
pub(super) fn unpack_q80<S: Lanes>(
    _: S,
    blocks: &[BlockQ80],
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    let parts = codes.as_chunks_mut().0.iter_mut().zip(scales).zip(offsets);
    for (block, ((codes, scale), to)) in blocks.iter().zip(parts) {
        *codes = block.qs;
        *scale = block.scale();
        *to = offset(codes);
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
