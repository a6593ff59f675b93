//! Quantised products: eight rows at once, a lane per row, so that no sum runs across lanes.
//!
//! Dwords of eight rows are transposed; each piece of four codes meets the same four codes of the activations in every
//! lane.

use crate::kernels::groups::{Group, Product, matmul};
use crate::kernels::operands::ActivationRows;
use crate::kernels::{Input, Matrix, Output};
use crate::quant::{BLOCK, BlockQ40, BlockQ80};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// Rows at once.
const ROWS: usize = 8;

/// Product of Q40 weights.
///
/// # Safety
/// The operands passed `check`; the processor has the features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul_q40(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    // SAFETY: as promised to this function.
    unsafe { matmul::<EightRows<Q40>>(w, rows, x, out) }
}

/// Product of Q80 weights.
///
/// # Safety
/// The operands passed `check`; the processor has the features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul_q80(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    // SAFETY: as promised to this function.
    unsafe { matmul::<EightRows<Q80>>(w, rows, x, out) }
}

/// Eight blocks, one of each row of a group.
#[derive(Clone, Copy)]
struct Column {
    /// The block of the first row.
    first: *const u8,
    /// Bytes to the block of the next row.
    stride: usize,
}

impl Column {
    /// Sixteen bytes from byte `offset` of the blocks of rows `r` and `r + 4`.
    #[inline(always)]
    unsafe fn pair(self, r: usize, offset: usize) -> __m256i {
        // SAFETY: the caller stays inside the blocks.
        unsafe {
            let low = self.first.add(r * self.stride + offset);
            let high = self.first.add((r + 4) * self.stride + offset);
            _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(low.cast())),
                _mm_loadu_si128(high.cast()),
            )
        }
    }

    /// Vector `j` holds bytes `offset + 4 * j..` of each row's block, a lane per row.
    #[inline(always)]
    unsafe fn dwords(self, offset: usize) -> [__m256i; 4] {
        // SAFETY: the caller stays inside the blocks.
        unsafe {
            let (a, b, c, d) = (self.pair(0, offset), self.pair(1, offset), self.pair(2, offset), self.pair(3, offset));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    /// Scales of the blocks, which begin with them.
    #[inline(always)]
    unsafe fn scales(self) -> __m256 {
        // SAFETY: blocks are at least 16 bytes long.
        unsafe {
            let (a, b, c, d) = (self.pair(0, 0), self.pair(1, 0), self.pair(2, 0), self.pair(3, 0));
            let scales = _mm256_unpacklo_epi32(_mm256_unpacklo_epi16(a, b), _mm256_unpacklo_epi16(c, d));
            _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b10_00>(scales)))
        }
    }
}

/// Four codes of an activation row, in every lane.
#[inline(always)]
unsafe fn broadcast(codes: *const i8) -> __m256i {
    // SAFETY: the caller stays inside the row.
    unsafe { _mm256_set1_epi32(codes.cast::<i32>().read_unaligned()) }
}

/// A block type.
trait Format {
    const BLOCK_BYTES: usize;

    /// Exact dot products of eight blocks with a block of `T` tokens each; `codes` and `offsets` as in activation rows.
    ///
    /// # Safety
    /// All blocks and codes are readable; the processor has the features.
    unsafe fn dots<const T: usize>(w: Column, codes: [*const i8; T], offsets: [i32; T]) -> [__m256i; T];
}

struct Q40;
struct Q80;

impl Format for Q40 {
    const BLOCK_BYTES: usize = size_of::<BlockQ40>();

    #[inline(always)]
    unsafe fn dots<const T: usize>(w: Column, codes: [*const i8; T], offsets: [i32; T]) -> [__m256i; T] {
        // SAFETY: loads stay inside the blocks: 16 bytes of nibbles after the scale, 32 codes.
        unsafe {
            let packed = w.dwords(2);
            let mask = _mm256_set1_epi8(15);
            let mut nibbles = [mask; 8];
            for j in 0..4 {
                nibbles[j] = _mm256_and_si256(packed[j], mask);
                nibbles[j + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(packed[j]), mask);
            }
            let mut dots = [mask; T];
            for t in 0..T {
                // Eight pairs of products of at most 15 * 127 each: at most 30480, an i16.
                let mut sum = _mm256_setzero_si256();
                for (j, nibbles) in nibbles.into_iter().enumerate() {
                    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(nibbles, broadcast(codes[t].add(4 * j))));
                }
                let sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
                dots[t] = _mm256_add_epi32(sum, _mm256_set1_epi32(offsets[t]));
            }
            dots
        }
    }
}

impl Format for Q80 {
    const BLOCK_BYTES: usize = size_of::<BlockQ80>();

    #[inline(always)]
    unsafe fn dots<const T: usize>(w: Column, codes: [*const i8; T], _: [i32; T]) -> [__m256i; T] {
        // SAFETY: loads stay inside the blocks: 32 bytes of codes after the scale, 32 codes.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut dots = [_mm256_setzero_si256(); T];
            for half in 0..2 {
                let pieces = w.dwords(2 + 16 * half);
                for (j, w) in pieces.into_iter().enumerate() {
                    // |w| is at most 128 and a code at most 127, so a pair of products is an i16.
                    let magnitude = _mm256_abs_epi8(w);
                    for t in 0..T {
                        let x = _mm256_sign_epi8(broadcast(codes[t].add(16 * half + 4 * j)), w);
                        let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, x), ones);
                        dots[t] = _mm256_add_epi32(dots[t], pairs);
                    }
                }
            }
            dots
        }
    }
}

/// The inner loop: eight rows, a lane each.
struct EightRows<F>(PhantomData<F>);

impl<F: Format> Product for EightRows<F> {
    const ROWS: usize = ROWS;
    const BLOCK_BYTES: usize = F::BLOCK_BYTES;

    #[inline(always)]
    unsafe fn tile<const T: usize>(group: &Group, x: &ActivationRows<'_>, t: usize, out: &Output<'_>) {
        let blocks = x.cols / BLOCK;
        let mut codes = [core::ptr::null(); T];
        let mut scales = [core::ptr::null(); T];
        let mut offsets = [core::ptr::null(); T];
        for k in 0..T {
            let row = x.row(t + k);
            (codes[k], scales[k], offsets[k]) = (row.codes.as_ptr(), row.scales.as_ptr(), row.offsets.as_ptr());
        }
        let mut column = Column { first: group.first, stride: group.stride };
        let mut ahead = group.ahead(t);
        // SAFETY: block `b` of rows and tokens is inside them; prefetching reads nothing.
        unsafe {
            let mut acc = [_mm256_setzero_ps(); T];
            for b in 0..blocks {
                if let Some(ahead) = &mut ahead {
                    let ahead = ahead.step();
                    for line in 0..(ROWS * F::BLOCK_BYTES).div_ceil(64) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line).cast());
                    }
                }
                let d = column.scales();
                let mut block_codes = [core::ptr::null(); T];
                let mut block_offsets = [0; T];
                for k in 0..T {
                    block_codes[k] = codes[k].add(b * BLOCK);
                    block_offsets[k] = *offsets[k].add(b);
                }
                let dots = F::dots(column, block_codes, block_offsets);
                for k in 0..T {
                    let scale = _mm256_mul_ps(d, _mm256_set1_ps(*scales[k].add(b)));
                    acc[k] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[k]), scale, acc[k]);
                }
                column.first = column.first.wrapping_add(F::BLOCK_BYTES);
            }
            for (k, acc) in acc.into_iter().enumerate() {
                let out = out.at(t + k, group.row);
                if group.width == ROWS {
                    _mm256_storeu_ps(out, acc);
                } else {
                    out.write(_mm256_cvtss_f32(acc));
                }
            }
        }
    }
}
