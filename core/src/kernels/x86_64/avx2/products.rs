//! Eight rows at once. AVX2 adds byte products up in pairs of 16 bits; what came later does it otherwise.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use crate::kernels::x86_64::products::{Column, InFile, Interleaved, Ints, Q40, Q80, Rows, products};
use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;

products!(
    [target_feature(enable = "avx2,fma,f16c")],
    BLOCKS {
        q40: Rows<EightRows<Pairs>, Q40, InFile>, Rows<EightRows<Pairs>, Q40, InFile>;
        q80: Rows<EightRows<Pairs>, Q80, InFile>, Rows<EightRows<Pairs>, Q80, InFile>;
    }
    INTERLEAVED {
        q40: Rows<EightRows<Pairs>, Q40, Interleaved>, Rows<EightRows<Pairs>, Q40, Interleaved>;
        q80: Rows<EightRows<Pairs>, Q80, Interleaved>, Rows<EightRows<Pairs>, Q80, Interleaved>;
    }
);

/// Eight rows, whose bytes are multiplied by way of `B`.
pub(in crate::kernels::x86_64) struct EightRows<B>(PhantomData<B>);

/// How bytes are multiplied. A caller of any of these has the instructions; all are `#[inline(always)]`.
#[allow(clippy::missing_safety_doc, reason = "said above")]
pub(in crate::kernels::x86_64) trait ByteProducts {
    /// As [`Ints::GROUPS`].
    const GROUPS: usize;
    /// As [`Ints::TILE`].
    const TILE: usize;
    /// As [`Ints::FEW`].
    const FEW: usize;

    /// As [`Ints::prepare_q80`].
    unsafe fn prepare_q80(v: __m256i) -> __m256i;
    /// As [`Ints::dots_q40`].
    unsafe fn dots_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G];
    /// As [`Ints::dots_q80`].
    unsafe fn dots_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G];
}

/// Pairs of products in 16 bits.
struct Pairs;

/// Sixteen bytes from byte `offset` of the blocks of rows `r` and `r + 4`.
#[inline(always)]
unsafe fn pair(w: Column, r: usize, offset: usize) -> __m256i {
    // SAFETY: the caller stays inside the blocks.
    unsafe {
        let low = _mm_loadu_si128(w.at(r, offset).cast());
        let high = _mm_loadu_si128(w.at(r + 4, offset).cast());
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
    }
}

impl<B: ByteProducts> Ints for EightRows<B> {
    type I = __m256i;
    type F = __m256;
    const ROWS: usize = 8;
    const GROUPS: usize = B::GROUPS;
    const TILE: usize = B::TILE;
    const FEW: usize = B::FEW;

    #[inline(always)]
    unsafe fn dwords(w: Column, offset: usize) -> [__m256i; 4] {
        // SAFETY: the caller stays inside the blocks.
        unsafe {
            let (a, b, c, d) = (pair(w, 0, offset), pair(w, 1, offset), pair(w, 2, offset), pair(w, 3, offset));
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
    #[inline(always)]
    unsafe fn scales(w: Column) -> __m256 {
        // SAFETY: blocks are at least 16 bytes long.
        unsafe {
            let (a, b, c, d) = (pair(w, 0, 0), pair(w, 1, 0), pair(w, 2, 0), pair(w, 3, 0));
            let scales = _mm256_unpacklo_epi32(_mm256_unpacklo_epi16(a, b), _mm256_unpacklo_epi16(c, d));
            _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b10_00>(scales)))
        }
    }
    #[inline(always)]
    unsafe fn load_scales(from: *const u8) -> __m256 {
        // SAFETY: the caller's pointer is good for eight scales.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: the caller has the instructions; so below.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(v, _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(v), _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn prepare_q80(v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { B::prepare_q80(v) }
    }
    #[inline(always)]
    unsafe fn dots_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G] {
        // SAFETY: as above.
        unsafe { B::dots_q40(w, x, offsets) }
    }
    #[inline(always)]
    unsafe fn dots_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G] {
        // SAFETY: as above.
        unsafe { B::dots_q80(w, x, offsets) }
    }
    #[inline(always)]
    unsafe fn add_block(acc: __m256, dots: __m256i, d: __m256, x: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_mul_ps(d, x), acc) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller's pointer is good for a vector; so below.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(v: __m256i, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_f32(v: __m256, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, v) }
    }
}

/// Has the compiler finish the `sums` of several vectors of rows before it goes on: left alone it loads ahead and adds in
/// another order, runs out of registers, and keeps every fourth instruction busy with memory.
#[inline(always)]
unsafe fn settle<const G: usize, const T: usize>(sums: &mut [[__m256i; T]; G]) {
    if G > 1 {
        for g in 0..G {
            for t in 0..T {
                // SAFETY: the caller has the instructions.
                sums[g][t] = unsafe { settled(sums[g][t]) };
            }
        }
    }
}

/// See [`settle`].
#[target_feature(enable = "avx2")]
#[inline]
fn settled(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction. That it might touch memory keeps loads behind it.
    unsafe { asm!("/* {} */", inout(ymm_reg) v, options(nostack, preserves_flags)) }
    v
}

impl ByteProducts for Pairs {
    const GROUPS: usize = 2;
    const TILE: usize = 16;
    const FEW: usize = 16;

    #[inline(always)]
    unsafe fn prepare_q80(v: __m256i) -> __m256i {
        v
    }
    #[inline(always)]
    unsafe fn dots_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G] {
        // SAFETY: the caller has the instructions.
        unsafe {
            // Eight pairs of products of at most 15 * 127 each: at most 30480, an i16.
            let mut sums = [[_mm256_setzero_si256(); T]; G];
            // Two pieces that come from one vector of bytes follow each other.
            macro_rules! add_pieces {
                ($($j:literal)+) => {$(
                    for t in 0..T {
                        let x = _mm256_set1_epi32(x(t, $j));
                        for g in 0..G {
                            sums[g][t] = _mm256_add_epi16(sums[g][t], _mm256_maddubs_epi16(w(g, $j), x));
                        }
                    }
                    settle(&mut sums);
                )+};
            }
            add_pieces!(0 4 1 5 2 6 3 7);
            for t in 0..T {
                for g in 0..G {
                    let pairs = _mm256_madd_epi16(sums[g][t], _mm256_set1_epi16(1));
                    sums[g][t] = _mm256_add_epi32(pairs, _mm256_set1_epi32(offsets[t]));
                }
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn dots_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        _: [i32; T],
    ) -> [[__m256i; T]; G] {
        // SAFETY: as above.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); T]; G];
            macro_rules! add_pieces {
                ($($j:literal)+) => {$(
                    for t in 0..T {
                        let x = _mm256_set1_epi32(x(t, $j));
                        for g in 0..G {
                            let w = w(g, $j);
                            // |w| is at most 128 and a code at most 127, so a pair of products is an i16.
                            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                            sums[g][t] = _mm256_add_epi32(sums[g][t], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                        }
                    }
                    settle(&mut sums);
                )+};
            }
            add_pieces!(0 1 2 3 4 5 6 7);
            sums
        }
    }
}
