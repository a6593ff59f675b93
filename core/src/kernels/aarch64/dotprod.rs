//! Dot products of four bytes in one instruction (ARMv8.2): the cores since Cortex-A55 and A76, so a Raspberry Pi 5.
//!
//! The instruction is written in assembly: the intrinsic is not stable yet.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use super::products::{self, BIAS, Codes, Dots, Format, QUAD};
use crate::kernels::Isa;
use crate::kernels::table::{Products, Table};
use core::arch::aarch64::*;
use core::arch::asm;

pub(in crate::kernels) static TABLE: Table = Table {
    isa: Isa::Dotprod,
    products: Products { blocks: products::blocks::<Sdot>(), ..super::NEON.products },
    ..super::NEON
};

/// Signed dot products.
pub(super) struct Sdot;

/// Adds to each lane the products of its four bytes.
#[inline(always)]
unsafe fn dot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, which the caller has, from registers to a register.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Adds to each lane the products of its four bytes with the four bytes of one lane of `b`.
#[inline(always)]
unsafe fn dot_lane<const LANE: usize>(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, which the caller has, from registers to a register.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {sum:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `x`, 0, 0, 0
#[inline(always)]
fn first_lane(x: i32) -> int32x4_t {
    let v: int32x4_t;
    // SAFETY: one instruction, from register to register. (The intrinsic makes two of it.)
    unsafe {
        asm!("fmov {v:s}, {x:w}", v = lateout(vreg) v, x = in(reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    v
}

/// Lane `r`: row `r` of the quad times a token, plus `start`.
#[inline(always)]
pub(super) unsafe fn quad(w: [Codes; QUAD], x: Codes, start: i32) -> int32x4_t {
    // SAFETY: the caller has the instructions.
    unsafe {
        // The first lane of every row takes the start with it.
        let start = first_lane(start);
        let row = |w: Codes| dot(dot(start, w[0], x[0]), w[1], x[1]);
        vpaddq_s32(vpaddq_s32(row(w[0]), row(w[1])), vpaddq_s32(row(w[2]), row(w[3])))
    }
}

/// Dwords of four vectors, transposed.
#[inline(always)]
unsafe fn transpose(a: int8x16_t, b: int8x16_t, c: int8x16_t, d: int8x16_t) -> [int8x16_t; 4] {
    // SAFETY: NEON belongs to the target.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        let (c, d) = (vreinterpretq_s32_s8(c), vreinterpretq_s32_s8(d));
        let pair = |a, b| (vreinterpretq_s64_s32(vtrn1q_s32(a, b)), vreinterpretq_s64_s32(vtrn2q_s32(a, b)));
        let ((ab_even, ab_odd), (cd_even, cd_odd)) = (pair(a, b), pair(c, d));
        [
            vreinterpretq_s8_s64(vtrn1q_s64(ab_even, cd_even)),
            vreinterpretq_s8_s64(vtrn1q_s64(ab_odd, cd_odd)),
            vreinterpretq_s8_s64(vtrn2q_s64(ab_even, cd_even)),
            vreinterpretq_s8_s64(vtrn2q_s64(ab_odd, cd_odd)),
        ]
    }
}

impl Dots for Sdot {
    const QUADS: usize = 1;
    const PAIRS: usize = 4;

    #[inline(always)]
    unsafe fn quad<F: Format>(w: [Codes; QUAD], x: Codes, start: i32) -> int32x4_t {
        // SAFETY: as promised to this function.
        unsafe { quad(w, x, start) }
    }

    /// Four codes of each row.
    #[inline(always)]
    unsafe fn arrange(w: [Codes; QUAD]) -> [int8x16_t; 2 * QUAD] {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let [a, b, c, d] = transpose(w[0][0], w[1][0], w[2][0], w[3][0]);
            let [e, f, g, h] = transpose(w[0][1], w[1][1], w[2][1], w[3][1]);
            [a, b, c, d, e, f, g, h]
        }
    }

    #[inline(always)]
    unsafe fn pairs<F: Format, const P: usize>(w: *const i8, x: *const i8) -> [[int32x4_t; 2]; P] {
        // SAFETY: the caller's pointers are good for a quad and for the pairs, and it has the instructions.
        unsafe {
            let mut sums = [[vdupq_n_s32(BIAS); 2]; P];
            for half in 0..2 {
                macro_rules! lane {
                    ($lane:literal) => {
                        let w = vld1q_s8(w.add(16 * (4 * half + $lane)));
                        for p in 0..P {
                            for k in 0..2 {
                                let x = vld1q_s8(x.add(32 * (2 * p + k) + 16 * half));
                                sums[p][k] = dot_lane::<$lane>(sums[p][k], w, x);
                            }
                        }
                    };
                }
                lane!(0);
                lane!(1);
                lane!(2);
                lane!(3);
            }
            sums
        }
    }
}
