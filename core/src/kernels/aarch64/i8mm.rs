//! Products of small matrices of bytes in one instruction (ARMv8.6): Neoverse V1, Apple M2 and what came after.
//!
//! Two rows by two tokens, eight codes deep: twice the work of a dot product, where there are two tokens. The instruction
//! is written in assembly: the intrinsic is not stable yet.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use super::dotprod;
use super::products::{self, BIAS, Codes, Dots, Format, QUAD};
use crate::kernels::Isa;
use crate::kernels::table::{Products, Table};
use core::arch::aarch64::*;
use core::arch::asm;

pub(in crate::kernels) static TABLE: Table = Table {
    isa: Isa::I8mm,
    products: Products { blocks: products::blocks::<Smmla>(), ..super::NEON.products },
    ..super::NEON
};

/// Signed matrix multiply-accumulate. Sums of a pair of tokens: rows 0 and 1, rows 2 and 3; within a register the tokens
/// of the first row, then of the second.
pub(super) struct Smmla;

/// Adds the products of the halves of `a` with the halves of `b`: first with first, first with second, and so on.
#[inline(always)]
unsafe fn product(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, which the caller has, from registers to a register.
    unsafe {
        asm!(".arch_extension i8mm", "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The lower halves of two vectors, and the upper ones.
#[inline(always)]
fn halves(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: NEON belongs to the target.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
    }
}

impl Dots for Smmla {
    const QUADS: usize = 2;
    const PAIRS: usize = 2;

    #[inline(always)]
    unsafe fn quad<F: Format>(w: [Codes; QUAD], x: Codes, start: i32) -> int32x4_t {
        // SAFETY: as promised to this function: what has these instructions has those.
        unsafe { dotprod::quad(w, x, start) }
    }

    /// Eight codes of two rows: rows 0 and 1, rows 2 and 3, the next eight.
    #[inline(always)]
    unsafe fn arrange(w: [Codes; QUAD]) -> [int8x16_t; 2 * QUAD] {
        let ([a, c], [b, d]) = (halves(w[0][0], w[1][0]), halves(w[2][0], w[3][0]));
        let ([e, g], [f, h]) = (halves(w[0][1], w[1][1]), halves(w[2][1], w[3][1]));
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    unsafe fn pairs<F: Format, const P: usize>(w: *const i8, x: *const i8) -> [[int32x4_t; 2]; P] {
        // SAFETY: the caller's pointers are good for a quad and for the pairs, and it has the instructions.
        unsafe {
            let mut sums = [[vdupq_n_s32(BIAS); 2]; P];
            for eight in 0..QUAD {
                let (a, b) = (vld1q_s8(w.add(32 * eight)), vld1q_s8(w.add(32 * eight + 16)));
                for p in 0..P {
                    let x = x.add(64 * p + 8 * eight);
                    let x = vcombine_s8(vld1_s8(x), vld1_s8(x.add(32)));
                    sums[p] = [product(sums[p][0], a, x), product(sums[p][1], b, x)];
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn scales(d: float32x4_t, x: *const f32) -> [float32x4_t; 2] {
        // SAFETY: NEON belongs to the target; the caller's pointer is good for a pair.
        unsafe {
            let x = vreinterpretq_f32_u64(vld1q_dup_u64(x.cast()));
            [vmulq_f32(vzip1q_f32(d, d), x), vmulq_f32(vzip2q_f32(d, d), x)]
        }
    }

    #[inline(always)]
    unsafe fn from_tokens([a, b]: [float32x4_t; 2]) -> [float32x4_t; 2] {
        // SAFETY: NEON belongs to the target.
        unsafe { [vzip1q_f32(a, b), vzip2q_f32(a, b)] }
    }

    #[inline(always)]
    unsafe fn to_tokens([a, b]: [float32x4_t; 2]) -> [float32x4_t; 2] {
        // SAFETY: NEON belongs to the target.
        unsafe { [vuzp1q_f32(a, b), vuzp2q_f32(a, b)] }
    }
}
