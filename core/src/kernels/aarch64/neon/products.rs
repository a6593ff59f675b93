//! Quantised products: four rows at once; sums across lanes are left to pairwise additions, which put row `r` into
//! lane `r` on the way.
//!
//! Multiplications of bytes are written in assembly, because the compiler makes two instructions of each
//! multiply-accumulate.

use super::Neon;
use super::lanes::widen;
use crate::kernels::groups::{Group, Product, matmul};
use crate::kernels::lanes::Lanes;
use crate::kernels::operands::ActivationRows;
use crate::kernels::{Input, Matrix, Output};
use crate::quant::{BLOCK, BlockQ40, BlockQ80};
use core::arch::aarch64::*;
use core::arch::asm;
use core::marker::PhantomData;
use core::ops::Range;

/// Rows at once.
const ROWS: usize = 4;

/// Product of Q40 weights.
///
/// # Safety
/// The operands passed `check`.
pub(super) unsafe fn matmul_q40(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    // SAFETY: as promised to this function.
    unsafe { matmul::<FourRows<Q40>>(w, rows, x, out) }
}

/// Product of Q80 weights.
///
/// # Safety
/// The operands passed `check`.
pub(super) unsafe fn matmul_q80(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    // SAFETY: as promised to this function.
    unsafe { matmul::<FourRows<Q80>>(w, rows, x, out) }
}

/// Products of the lower eight bytes.
#[inline(always)]
fn mul_low(a: int8x16_t, b: int8x16_t) -> int16x8_t {
    // SAFETY: NEON belongs to the target.
    unsafe { vmull_s8(vget_low_s8(a), vget_low_s8(b)) }
}

/// `sum` plus the products of the lower eight bytes.
#[inline(always)]
fn mul_add_low(mut sum: int16x8_t, a: int8x16_t, b: int8x16_t) -> int16x8_t {
    // SAFETY: one instruction, from registers to a register.
    unsafe {
        asm!("smlal {sum:v}.8h, {a:v}.8b, {b:v}.8b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `sum` plus the products of the upper eight bytes.
#[inline(always)]
fn mul_add_high(mut sum: int16x8_t, a: int8x16_t, b: int8x16_t) -> int16x8_t {
    // SAFETY: one instruction, from registers to a register.
    unsafe {
        asm!("smlal2 {sum:v}.8h, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Products of a row's nibbles and a block of codes; a lane sums 4, of at most 15 * 127 each.
#[inline(always)]
fn nibbles(w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int16x8_t {
    let low = mul_add_high(mul_low(w[0], x[0]), w[0], x[0]);
    mul_add_high(mul_add_low(low, w[1], x[1]), w[1], x[1])
}

/// Products of a row's bytes and a block of codes; a lane sums 8, of at most 128 * 127 each, of which an i16 holds 2.
#[inline(always)]
fn bytes(w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    let low = mul_add_high(mul_low(w[0], x[0]), w[0], x[0]);
    let high = mul_add_high(mul_low(w[1], x[1]), w[1], x[1]);
    // SAFETY: NEON belongs to the target.
    unsafe { vpadalq_s16(vpaddlq_s16(low), high) }
}

/// A block type.
trait Format {
    const BLOCK_BYTES: usize;

    /// The codes of a block: two vectors that meet the two halves of the activations.
    ///
    /// # Safety
    /// The block is readable.
    unsafe fn unpack(block: *const u8) -> [int8x16_t; 2];

    /// Exact dot products of four rows with a token's codes; `offset` as in an activation row.
    fn dots(w: [[int8x16_t; 2]; ROWS], x: [int8x16_t; 2], offset: i32) -> int32x4_t;
}

struct Q40;
struct Q80;

impl Format for Q40 {
    const BLOCK_BYTES: usize = size_of::<BlockQ40>();

    /// Nibbles stay unsigned, 0 to 15.
    #[inline(always)]
    unsafe fn unpack(block: *const u8) -> [int8x16_t; 2] {
        // SAFETY: 16 bytes of nibbles after the scale.
        unsafe {
            let packed = vld1q_u8(block.add(2));
            let low = vandq_u8(packed, vdupq_n_u8(15));
            [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(vshrq_n_u8::<4>(packed))]
        }
    }

    #[inline(always)]
    fn dots(w: [[int8x16_t; 2]; ROWS], x: [int8x16_t; 2], offset: i32) -> int32x4_t {
        // SAFETY: NEON belongs to the target.
        unsafe {
            // Pairwise additions make 16 products of a lane's 4: at most 30480, an i16.
            let (a, b, c, d) = (nibbles(w[0], x), nibbles(w[1], x), nibbles(w[2], x), nibbles(w[3], x));
            let sums = vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d));
            vpadalq_s16(vdupq_n_s32(offset), sums)
        }
    }
}

impl Format for Q80 {
    const BLOCK_BYTES: usize = size_of::<BlockQ80>();

    #[inline(always)]
    unsafe fn unpack(block: *const u8) -> [int8x16_t; 2] {
        // SAFETY: 32 bytes of codes after the scale.
        unsafe { [vld1q_s8(block.add(2).cast()), vld1q_s8(block.add(18).cast())] }
    }

    #[inline(always)]
    fn dots(w: [[int8x16_t; 2]; ROWS], x: [int8x16_t; 2], _: i32) -> int32x4_t {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let (a, b, c, d) = (bytes(w[0], x), bytes(w[1], x), bytes(w[2], x), bytes(w[3], x));
            vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
        }
    }
}

/// The inner loop: four rows, a lane each.
struct FourRows<F>(PhantomData<F>);

impl<F: Format> Product for FourRows<F> {
    const ROWS: usize = ROWS;
    const BLOCK_BYTES: usize = F::BLOCK_BYTES;

    #[inline(always)]
    unsafe fn tile<const T: usize>(group: &Group, x: &ActivationRows<'_>, t: usize, out: &Output<'_>) {
        let mut codes = [core::ptr::null(); T];
        let mut scales = [core::ptr::null(); T];
        let mut offsets = [core::ptr::null(); T];
        for k in 0..T {
            let row = x.row(t + k);
            (codes[k], scales[k], offsets[k]) = (row.codes.as_ptr(), row.scales.as_ptr(), row.offsets.as_ptr());
        }
        let mut first = group.first;
        let mut ahead = group.ahead(t);
        // SAFETY: block `b` of rows and tokens is inside them.
        unsafe {
            let mut acc = [vdupq_n_f32(0.0); T];
            for b in 0..x.cols / BLOCK {
                if let Some(ahead) = &mut ahead {
                    let ahead = ahead.step();
                    for line in 0..(ROWS * F::BLOCK_BYTES).div_ceil(64) {
                        Neon.prefetch(ahead.wrapping_add(64 * line));
                    }
                }
                let mut d = vdup_n_u16(0);
                d = vld1_lane_u16::<0>(first.cast(), d);
                d = vld1_lane_u16::<1>(first.add(group.stride).cast(), d);
                d = vld1_lane_u16::<2>(first.add(2 * group.stride).cast(), d);
                d = vld1_lane_u16::<3>(first.add(3 * group.stride).cast(), d);
                let d = widen(d);
                let w = [
                    F::unpack(first),
                    F::unpack(first.add(group.stride)),
                    F::unpack(first.add(2 * group.stride)),
                    F::unpack(first.add(3 * group.stride)),
                ];
                for k in 0..T {
                    let x = codes[k].add(b * BLOCK);
                    let dots = F::dots(w, [vld1q_s8(x), vld1q_s8(x.add(16))], *offsets[k].add(b));
                    let scale = vmulq_n_f32(d, *scales[k].add(b));
                    acc[k] = vfmaq_f32(acc[k], vcvtq_f32_s32(dots), scale);
                }
                first = first.wrapping_add(F::BLOCK_BYTES);
            }
            for (k, acc) in acc.into_iter().enumerate() {
                let out = out.at(t + k, group.row);
                if group.width == ROWS {
                    vst1q_f32(out, acc);
                } else {
                    out.write(vgetq_lane_f32::<0>(acc));
                }
            }
        }
    }
}
