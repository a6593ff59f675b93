//! Plain NEON: eight byte products an instruction, with 16-bit sums.
//!
//! Multiplications of bytes are written in assembly, because the compiler makes two instructions of each
//! multiply-accumulate.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use super::products::{BIAS, Codes, Dots, Format, QUAD};
use crate::kernels::table::Table;
use core::arch::aarch64::*;
use core::arch::asm;

pub(in crate::kernels) static TABLE: Table = super::NEON;

/// Multiply-accumulate long, with widening.
pub(super) struct Smlal;

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
fn nibbles(w: Codes, x: Codes) -> int16x8_t {
    let low = mul_add_high(mul_low(w[0], x[0]), w[0], x[0]);
    mul_add_high(mul_add_low(low, w[1], x[1]), w[1], x[1])
}

/// Products of a row's bytes and a block of codes; a lane sums 8, of at most 128 * 127 each, of which an i16 holds 2.
#[inline(always)]
fn bytes(w: Codes, x: Codes) -> int32x4_t {
    let low = mul_add_high(mul_low(w[0], x[0]), w[0], x[0]);
    let high = mul_add_high(mul_low(w[1], x[1]), w[1], x[1]);
    // SAFETY: NEON belongs to the target.
    unsafe { vpadalq_s16(vpaddlq_s16(low), high) }
}

impl Dots for Smlal {
    const QUADS: usize = 1;
    const PAIRS: usize = 2;

    #[inline(always)]
    unsafe fn quad<F: Format>(w: [Codes; QUAD], x: Codes, start: i32) -> int32x4_t {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let start = vdupq_n_s32(start);
            if F::NIBBLES {
                // Pairwise additions make 16 products of a lane's 4: at most 30480, an i16.
                let (a, b, c, d) = (nibbles(w[0], x), nibbles(w[1], x), nibbles(w[2], x), nibbles(w[3], x));
                vpadalq_s16(start, vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)))
            } else {
                let (a, b, c, d) = (bytes(w[0], x), bytes(w[1], x), bytes(w[2], x), bytes(w[3], x));
                vaddq_s32(start, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)))
            }
        }
    }

    /// Row by row.
    #[inline(always)]
    unsafe fn arrange(w: [Codes; QUAD]) -> [int8x16_t; 2 * QUAD] {
        [w[0][0], w[0][1], w[1][0], w[1][1], w[2][0], w[2][1], w[3][0], w[3][1]]
    }

    #[inline(always)]
    unsafe fn pairs<F: Format, const P: usize>(w: *const i8, x: *const i8) -> [[int32x4_t; 2]; P] {
        // SAFETY: the caller's pointers are good for a quad and for the pairs.
        unsafe {
            let codes = |from: *const i8, i: usize| [vld1q_s8(from.add(32 * i)), vld1q_s8(from.add(32 * i + 16))];
            let w = [codes(w, 0), codes(w, 1), codes(w, 2), codes(w, 3)];
            let mut sums = [[vdupq_n_s32(0); 2]; P];
            for p in 0..P {
                for k in 0..2 {
                    sums[p][k] = Self::quad::<F>(w, codes(x, 2 * p + k), BIAS);
                }
            }
            sums
        }
    }
}
