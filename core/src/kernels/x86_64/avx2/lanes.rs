//! Sixteen lanes as two registers.

use super::Avx2;
use crate::kernels::lanes::{LANES, Lanes};
use core::arch::x86_64::*;

/// The lower and the upper eight lanes.
#[derive(Clone, Copy)]
pub(super) struct V(__m256, __m256);

impl Lanes for Avx2 {
    type V = V;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    fn splat_f16(self, x: [u8; 2]) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe {
            let v = _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(x)));
            V(v, v)
        }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the loads.
        unsafe { V(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> V {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the loads.
        unsafe { V(_mm256_loadu_ps(x.as_ptr().cast()), _mm256_loadu_ps(x.as_ptr().add(32).cast())) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> V {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the loads.
        unsafe {
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(16).cast());
            V(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> V {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the loads.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().add(8).cast()));
            V(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    fn store(self, v: V, out: &mut [f32; LANES]) {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the stores.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v.1);
        }
    }
    #[inline(always)]
    fn store_f16(self, v: V, out: &mut [u8; 2 * LANES]) {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the stores.
        unsafe {
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.0));
            _mm_storeu_si128(out.as_mut_ptr().add(16).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.1));
        }
    }
    #[inline(always)]
    fn store_bytes(self, v: V, out: &mut [u8; 4 * LANES]) {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the stores.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr().cast(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(32).cast(), v.1);
        }
    }
    #[inline(always)]
    fn store_i8(self, v: V, out: &mut [i8; LANES]) {
        // SAFETY: an `Avx2` proves the feature, and the array is as long as the stores.
        unsafe {
            let low = _mm256_cvtps_epi32(_mm256_and_ps(v.0, _mm256_cmp_ps::<_CMP_ORD_Q>(v.0, v.0)));
            let high = _mm256_cvtps_epi32(_mm256_and_ps(v.1, _mm256_cmp_ps::<_CMP_ORD_Q>(v.1, v.1)));
            // Packing works within 128-bit halves: put the quarters back in order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe { V(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            V(_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        }
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            V(_mm256_round_ps::<NEAREST>(a.0), _mm256_round_ps::<NEAREST>(a.1))
        }
    }
    #[inline(always)]
    fn pow2(self, n: V) -> V {
        // SAFETY: an `Avx2` proves the feature.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n.0), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n.1), bias));
            V(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        // SAFETY: an `Avx2` proves the feature.
        unsafe {
            let v = _mm256_add_ps(v.0, v.1);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn largest(self, v: V) -> f32 {
        // SAFETY: an `Avx2` proves the feature.
        unsafe {
            let v = _mm256_max_ps(v.0, v.1);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
}
