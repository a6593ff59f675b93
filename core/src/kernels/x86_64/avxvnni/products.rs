//! Eight rows at once: four byte products and their sum in one instruction.

use crate::kernels::x86_64::avx2::products::{ByteProducts, EightRows};
use crate::kernels::x86_64::products::{InFile, Interleaved, Q40, Q80, Rows, Vnni, products};
use core::arch::x86_64::*;

products!(
    [target_feature(enable = "avx2,fma,f16c,avxvnni")],
    BLOCKS {
        q40: Rows<EightRows<Vex>, Q40, InFile>, Rows<EightRows<Vex>, Q40, InFile>;
        q80: Rows<EightRows<Vex>, Q80, InFile>, Rows<EightRows<Vex>, Q80, InFile>;
    }
    INTERLEAVED {
        q40: Rows<EightRows<Vex>, Q40, Interleaved>, Rows<EightRows<Vex>, Q40, Interleaved>;
        q80: Rows<EightRows<Vex>, Q80, Interleaved>, Rows<EightRows<Vex>, Q80, Interleaved>;
    }
);

/// One of the two encodings of the instruction: each belongs to an extension of its own.
#[allow(clippy::missing_safety_doc, reason = "a caller has the instruction")]
pub(in crate::kernels::x86_64) trait Encoding {
    /// Adds to each lane the products of its four bytes.
    unsafe fn dpbusd(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i;
}

/// That of AVX-VNNI.
struct Vex;
/// That of AVX-512 VNNI and VL.
pub(in crate::kernels::x86_64) struct Evex;

impl Encoding for Vex {
    #[inline(always)]
    unsafe fn dpbusd(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has the instruction.
        unsafe { _mm256_dpbusd_avx_epi32(sum, unsigned, signed) }
    }
}

impl Encoding for Evex {
    #[inline(always)]
    unsafe fn dpbusd(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        // SAFETY: the caller has the instruction.
        unsafe { _mm256_dpbusd_epi32(sum, unsigned, signed) }
    }
}

impl<E: Encoding> Vnni for EightRows<E> {
    #[inline(always)]
    unsafe fn add_products(sum: __m256i, unsigned: __m256i, signed: i32) -> __m256i {
        // SAFETY: the caller has the instructions; so below.
        unsafe { E::dpbusd(sum, unsigned, _mm256_set1_epi32(signed)) }
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn times_16(v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_slli_epi32::<4>(v) }
    }
}

impl<E: Encoding> ByteProducts for E {
    const GROUPS: usize = 1;
    const TILE: usize = 4;
    const FEW: usize = 0;

    /// Unsigned: 128 more than the code.
    #[inline(always)]
    unsafe fn prepare_q80(v: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_xor_si256(v, _mm256_set1_epi8(i8::MIN)) }
    }
    #[inline(always)]
    unsafe fn dots_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G] {
        // SAFETY: as above.
        unsafe { EightRows::<E>::vnni_q40(w, x, offsets) }
    }
    #[inline(always)]
    unsafe fn dots_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> __m256i,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[__m256i; T]; G] {
        // SAFETY: as above.
        unsafe { EightRows::<E>::vnni_q80(w, x, offsets) }
    }
}
