//! Sixteen rows at once: four byte products and their sum in one instruction.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use crate::kernels::x86_64::avx2::products::EightRows;
use crate::kernels::x86_64::avxvnni::products::Evex;
use crate::kernels::x86_64::products::{Column, InFile, Interleaved, Ints, Q40, Q80, Rows, Vnni, products};
use core::arch::x86_64::*;

// Sixteen streams of rows are more than prefetchers follow: few tokens take eight rows at a time.
products!(
    [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")],
    BLOCKS {
        q40: Rows<EightRows<Evex>, Q40, InFile>, Rows<SixteenRows, Q40, InFile>;
        q80: Rows<EightRows<Evex>, Q80, InFile>, Rows<SixteenRows, Q80, InFile>;
    }
    INTERLEAVED {
        q40: Rows<SixteenRows, Q40, Interleaved>, Rows<SixteenRows, Q40, Interleaved>;
        q80: Rows<SixteenRows, Q80, Interleaved>, Rows<SixteenRows, Q80, Interleaved>;
    }
);

pub(in crate::kernels::x86_64) struct SixteenRows;

/// Sixteen bytes from byte `offset` of the blocks of rows `r`, `r + 4`, `r + 8` and `r + 12`.
#[inline(always)]
unsafe fn quad(w: Column, r: usize, offset: usize) -> __m512i {
    // SAFETY: the caller stays inside the blocks.
    unsafe {
        let part = |i: usize| _mm_loadu_si128(w.at(r + 4 * i, offset).cast());
        let v = _mm512_castsi128_si512(part(0));
        let v = _mm512_inserti32x4::<1>(v, part(1));
        let v = _mm512_inserti32x4::<2>(v, part(2));
        _mm512_inserti32x4::<3>(v, part(3))
    }
}

impl Ints for SixteenRows {
    type I = __m512i;
    type F = __m512;
    const ROWS: usize = 16;
    const GROUPS: usize = 1;
    const TILE: usize = 12;
    const FEW: usize = 0;

    #[inline(always)]
    unsafe fn dwords(w: Column, offset: usize) -> [__m512i; 4] {
        // SAFETY: the caller stays inside the blocks.
        unsafe {
            let (a, b, c, d) = (quad(w, 0, offset), quad(w, 1, offset), quad(w, 2, offset), quad(w, 3, offset));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn scales(w: Column) -> __m512 {
        // SAFETY: blocks are at least 2 bytes long.
        unsafe {
            let d = |r: usize| i32::from(w.at(r, 0).cast::<u16>().read_unaligned());
            macro_rules! eight {
                ($r:expr) => {{
                    let v = _mm_cvtsi32_si128(d($r));
                    let v = _mm_insert_epi16::<1>(v, d($r + 1));
                    let v = _mm_insert_epi16::<2>(v, d($r + 2));
                    let v = _mm_insert_epi16::<3>(v, d($r + 3));
                    let v = _mm_insert_epi16::<4>(v, d($r + 4));
                    let v = _mm_insert_epi16::<5>(v, d($r + 5));
                    let v = _mm_insert_epi16::<6>(v, d($r + 6));
                    _mm_insert_epi16::<7>(v, d($r + 7))
                }};
            }
            let scales = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(eight!(0)), eight!(8));
            _mm512_cvtph_ps(scales)
        }
    }
    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> __m512 {
        // SAFETY: the caller's pointer is good for sixteen scales.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the caller has the instructions; so below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(v, _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(v), _mm512_set1_epi8(15)) }
    }
    /// Unsigned: 128 more than the code.
    #[inline(always)]
    unsafe fn prepare_q80(v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN)) }
    }
    #[inline(always)]
    unsafe fn dots_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m512i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m512i; T]; G] {
        // SAFETY: as above.
        unsafe { Self::vnni_q40(w, x, offsets) }
    }
    #[inline(always)]
    unsafe fn dots_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m512i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m512i; T]; G] {
        // SAFETY: as above.
        unsafe { Self::vnni_q80(w, x, offsets) }
    }
    #[inline(always)]
    unsafe fn add_block(acc: __m512, dots: __m512i, d: __m512, x: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(d, x), acc) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller's pointer is good for a vector; so below.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(v: __m512i, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_f32(v: __m512, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, v) }
    }
}

impl Vnni for SixteenRows {
    #[inline(always)]
    unsafe fn add_products(sum: __m512i, unsigned: __m512i, signed: i32) -> __m512i {
        // SAFETY: the caller has the instructions; so below.
        unsafe { _mm512_dpbusd_epi32(sum, unsigned, _mm512_set1_epi32(signed)) }
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn times_16(v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_slli_epi32::<4>(v) }
    }
}
