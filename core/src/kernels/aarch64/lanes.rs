//! Sixteen lanes as four registers.

use super::Neon;
use crate::kernels::lanes::{LANES, Lanes};
use core::arch::aarch64::*;
use core::arch::asm;

/// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
type V = [float32x4_t; 4];

/// Widens four F16 values.
#[inline(always)]
pub(super) fn widen(half: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: one instruction, from register to register. (The intrinsic is younger than the oldest compiler we take.)
    unsafe {
        asm!("fcvtl {wide:v}.4s, {half:v}.4h", wide = lateout(vreg) wide, half = in(vreg) half,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Rounds to four F16 values, nearest even.
#[inline(always)]
fn narrow(wide: float32x4_t) -> uint16x4_t {
    let half: uint16x4_t;
    // SAFETY: one instruction, from register to register, as above.
    unsafe {
        asm!("fcvtn {half:v}.4h, {wide:v}.4s", half = lateout(vreg) half, wide = in(vreg) wide,
            options(pure, nomem, nostack, preserves_flags));
    }
    half
}

impl Lanes for Neon {
    type V = V;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> V {
        // SAFETY: NEON belongs to the target.
        [widen(unsafe { vdup_n_u16(u16::from_le_bytes(x)) }); 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: NEON belongs to the target, and the array is as long as the loads.
        unsafe {
            let p = x.as_ptr();
            [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]
        }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> V {
        // SAFETY: NEON belongs to the target, and the array is as long as the loads.
        unsafe {
            let p = x.as_ptr();
            [
                vreinterpretq_f32_u8(vld1q_u8(p)),
                vreinterpretq_f32_u8(vld1q_u8(p.add(16))),
                vreinterpretq_f32_u8(vld1q_u8(p.add(32))),
                vreinterpretq_f32_u8(vld1q_u8(p.add(48))),
            ]
        }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> V {
        // SAFETY: NEON belongs to the target, and the array is as long as the loads.
        unsafe {
            let p = x.as_ptr();
            [
                widen(vreinterpret_u16_u8(vld1_u8(p))),
                widen(vreinterpret_u16_u8(vld1_u8(p.add(8)))),
                widen(vreinterpret_u16_u8(vld1_u8(p.add(16)))),
                widen(vreinterpret_u16_u8(vld1_u8(p.add(24)))),
            ]
        }
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> V {
        // SAFETY: NEON belongs to the target, and the array is as long as the loads.
        unsafe {
            let bytes = vld1q_s8(x.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }
    #[inline(always)]
    fn store(self, v: V, out: &mut [f32; LANES]) {
        // SAFETY: NEON belongs to the target, and the array is as long as the stores.
        unsafe {
            let p = out.as_mut_ptr();
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3]);
        }
    }
    #[inline(always)]
    fn store_f16(self, v: V, out: &mut [u8; 2 * LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: NEON belongs to the target, and the array is as long as the store.
            unsafe { vst1_u8(out.as_mut_ptr(), vreinterpret_u8_u16(narrow(v))) }
        }
    }
    #[inline(always)]
    fn store_bytes(self, v: V, out: &mut [u8; 4 * LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: NEON belongs to the target, and the array is as long as the store.
            unsafe { vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_f32(v)) }
        }
    }
    #[inline(always)]
    fn store_i8(self, v: V, out: &mut [i8; LANES]) {
        // SAFETY: NEON belongs to the target, and the array is as long as the stores.
        unsafe {
            let low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(v[0])), vqmovn_s32(vcvtnq_s32_f32(v[1])));
            let high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(v[2])), vqmovn_s32(vcvtnq_s32_f32(v[3])));
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1]), vsubq_f32(a[2], b[2]), vsubq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1]), vdivq_f32(a[2], b[2]), vdivq_f32(a[3], b[3])] }
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        [larger(a[0], b[0]), larger(a[1], b[1]), larger(a[2], b[2]), larger(a[3], b[3])]
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe {
            [
                vbslq_f32(vcltq_f32(a[0], b[0]), a[0], b[0]),
                vbslq_f32(vcltq_f32(a[1], b[1]), a[1], b[1]),
                vbslq_f32(vcltq_f32(a[2], b[2]), a[2], b[2]),
                vbslq_f32(vcltq_f32(a[3], b[3]), a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vabsq_f32(a[0]), vabsq_f32(a[1]), vabsq_f32(a[2]), vabsq_f32(a[3])] }
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe { [vrndnq_f32(a[0]), vrndnq_f32(a[1]), vrndnq_f32(a[2]), vrndnq_f32(a[3])] }
    }
    #[inline(always)]
    fn pow2(self, n: V) -> V {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let bias = vdupq_n_s32(127);
            [
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n[0]), bias))),
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n[1]), bias))),
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n[2]), bias))),
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n[3]), bias))),
            ]
        }
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        }
    }
    #[inline(always)]
    fn largest(self, v: V) -> f32 {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let v = larger(larger(v[0], v[2]), larger(v[1], v[3]));
            let (low, high) = (vget_low_f32(v), vget_high_f32(v));
            let v = vbsl_f32(vcgt_f32(low, high), low, high);
            let (a, b) = (vget_lane_f32::<0>(v), vget_lane_f32::<1>(v));
            if a > b { a } else { b }
        }
    }
}

/// `a` where `a > b`, else `b`. NEON's own maximum treats NaN otherwise.
#[inline(always)]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON belongs to the target.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}
