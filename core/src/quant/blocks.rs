//! Blocks of 32 values: layout, quantisers and their inverses, one value at a time.
//!
//! These are the rules of the converters, so that a file made here equals a file made there.
//! The fast quantiser of activations is in [`crate::kernels`].

use super::{DType, f16_to_f32, f32_to_f16};
use bytemuck::{Pod, Zeroable};

/// Values per block.
pub const BLOCK: usize = 32;

/// 32 four-bit codes with one scale: value `j` is `(low nibble of qs[j] - 8) * d`, value `j + 16` the same of the high nibble.
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub struct BlockQ40 {
    /// Scale, binary16, little-endian.
    pub d: [u8; 2],
    /// Codes, two per byte.
    pub qs: [u8; BLOCK / 2],
}

/// 32 signed bytes with one scale: value `i` is `qs[i] * d`.
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq, Eq)]
#[repr(C)]
pub struct BlockQ80 {
    /// Scale, binary16, little-endian.
    pub d: [u8; 2],
    /// Codes.
    pub qs: [i8; BLOCK],
}

/// 32 values of a row that is to be normed, before the others are known: what nodes exchange that have a part of it each.
///
/// A norm multiplies a row with one factor, which changes the codes of no block. So they can be made of `weight * x` by
/// whoever has these values; the factor, which follows from the squares of all blocks, goes into the scale.
#[derive(Clone, Copy, Debug, Pod, Zeroable, PartialEq)]
#[repr(C)]
pub struct NormBlock {
    /// Of `weight * x`; in F32, since the residual stream may be too small for F16.
    pub scale: f32,
    /// Sum of `x²`.
    pub squares: f32,
    /// Of `weight * x`, as in Q80.
    pub codes: [i8; BLOCK],
}

impl NormBlock {
    /// Words of four bytes that a block takes: in pipes it counts as so many F32.
    pub const WORDS: usize = size_of::<Self>() / 4;
}

const _: () = assert!(size_of::<BlockQ40>() == 18 && align_of::<BlockQ40>() == 1);
const _: () = assert!(size_of::<BlockQ80>() == 34 && align_of::<BlockQ80>() == 1);

impl BlockQ40 {
    /// The scale as F32.
    pub fn scale(&self) -> f32 {
        f16_to_f32(u16::from_le_bytes(self.d))
    }

    /// Quantises as the converters do: the extreme of larger magnitude becomes code 0 (the positive one on a tie).
    pub fn quantize(values: &[f32; BLOCK]) -> Self {
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        let d = if -min > max { min } else { max } / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let code = |x: f32| (x * inverse + 8.5).clamp(0.0, 15.0) as u8;
        let mut qs = [0; BLOCK / 2];
        for (j, q) in qs.iter_mut().enumerate() {
            *q = code(values[j]) | code(values[j + BLOCK / 2]) << 4;
        }
        Self { d: f32_to_f16(d).to_le_bytes(), qs }
    }

    /// The 32 values.
    pub fn dequantize(&self, out: &mut [f32; BLOCK]) {
        let d = self.scale();
        for (j, q) in self.qs.iter().enumerate() {
            out[j] = f32::from((q & 15) as i8 - 8) * d;
            out[j + BLOCK / 2] = f32::from((q >> 4) as i8 - 8) * d;
        }
    }
}

impl BlockQ80 {
    /// The scale as F32.
    pub fn scale(&self) -> f32 {
        f16_to_f32(u16::from_le_bytes(self.d))
    }

    /// Quantises to the nearest code, ties to even: scale = max |x| / 127.
    pub fn quantize(values: &[f32; BLOCK]) -> Self {
        let peak = values.iter().fold(0f32, |peak, x| peak.max(x.abs()));
        let d = peak / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut qs = [0; BLOCK];
        for (q, x) in qs.iter_mut().zip(values) {
            *q = libm::rintf(x * inverse) as i8;
        }
        Self { d: f32_to_f16(d).to_le_bytes(), qs }
    }

    /// The 32 values.
    pub fn dequantize(&self, out: &mut [f32; BLOCK]) {
        let d = self.scale();
        for (value, q) in out.iter_mut().zip(self.qs) {
            *value = f32::from(q) * d;
        }
    }
}

/// Widens stored values to F32.
///
/// # Panics
/// If `bytes` does not hold exactly `out.len()` values of `dtype`.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.bytes(out.len() as u64), Some(bytes.len() as u64), "{dtype}: {} values", out.len());
    match dtype {
        DType::F32 => {
            for (value, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*b);
            }
        }
        DType::F16 => {
            for (value, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f16_to_f32(u16::from_le_bytes(*b));
            }
        }
        DType::Q40 => {
            let blocks: &[BlockQ40] = bytemuck::cast_slice(bytes);
            for (values, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
                block.dequantize(values);
            }
        }
        DType::Q80 => {
            let blocks: &[BlockQ80] = bytemuck::cast_slice(bytes);
            for (values, block) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
                block.dequantize(values);
            }
        }
    }
}

/// Stores F32 values as `dtype`.
///
/// # Panics
/// If `bytes` does not hold exactly `values.len()` values of `dtype`.
pub fn quantize(dtype: DType, values: &[f32], bytes: &mut [u8]) {
    assert_eq!(dtype.bytes(values.len() as u64), Some(bytes.len() as u64), "{dtype}: {} values", values.len());
    match dtype {
        DType::F32 => {
            for (b, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *b = value.to_le_bytes();
            }
        }
        DType::F16 => {
            for (b, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *b = f32_to_f16(*value).to_le_bytes();
            }
        }
        DType::Q40 => {
            let blocks: &mut [BlockQ40] = bytemuck::cast_slice_mut(bytes);
            for (block, values) in blocks.iter_mut().zip(values.as_chunks::<BLOCK>().0) {
                *block = BlockQ40::quantize(values);
            }
        }
        DType::Q80 => {
            let blocks: &mut [BlockQ80] = bytemuck::cast_slice_mut(bytes);
            for (block, values) in blocks.iter_mut().zip(values.as_chunks::<BLOCK>().0) {
                *block = BlockQ80::quantize(values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> [f32; BLOCK] {
        core::array::from_fn(|i| (i as f32 - 11.0) * 0.37)
    }

    #[test]
    fn quantised_values_lie_within_half_a_step() {
        let values = ramp();
        let mut back = [0.0; BLOCK];
        let block = BlockQ80::quantize(&values);
        block.dequantize(&mut back);
        for (a, b) in values.iter().zip(back) {
            assert!((a - b).abs() <= block.scale() * 0.51, "{a} {b}");
        }
        let block = BlockQ40::quantize(&values);
        block.dequantize(&mut back);
        for (a, b) in values.iter().zip(back) {
            // The extreme opposite to code 0 is clipped by up to a whole step.
            assert!((a - b).abs() <= block.scale().abs() * 1.01, "{a} {b}");
        }
    }

    #[test]
    fn codes_reach_exactly_the_documented_ends() {
        let values = ramp();
        let q80 = BlockQ80::quantize(&values);
        assert_eq!(q80.qs.iter().copied().max(), Some(127));
        // The largest magnitude is at index 31 (+7.4): it gets code 0 and a negative scale.
        let q40 = BlockQ40::quantize(&values);
        assert_eq!(q40.qs[15] >> 4, 0);
        assert!(q40.scale() < 0.0);
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        let mut back = [1.0; BLOCK];
        BlockQ40::quantize(&[0.0; BLOCK]).dequantize(&mut back);
        assert_eq!(back, [0.0; BLOCK]);
        BlockQ80::quantize(&[0.0; BLOCK]).dequantize(&mut back);
        assert_eq!(back, [0.0; BLOCK]);
    }

    #[test]
    fn a_tie_of_extremes_goes_to_the_positive_one() {
        let mut values = [0.0; BLOCK];
        values[3] = -4.0;
        values[9] = 4.0;
        let block = BlockQ40::quantize(&values);
        assert_eq!(block.scale(), -0.5);
        assert_eq!(block.qs[9] & 15, 0);
    }
}
