//! Products of many tokens in BF16, which are not exact: what AVX-512 and AMX share.
//!
//! A panel's block is 16 pairs of columns by 16 rows, a pair of BF16 in a dword: what `vdpbf16ps` multiplies lane by lane
//! and what a tile of weights is. A packed tile's block is 32 values of each token.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use super::avx512::products::SixteenRows;
use super::products::{Column, Ints, Lie, Unsigned};
use crate::kernels::groups::{Activations, Group};
use crate::kernels::operands::ActivationRows;
use crate::kernels::{Input, Tokens};
use crate::quant::BLOCK;
use core::arch::x86_64::*;
use core::ops::Range;

/// Rows of a panel's groups.
pub(super) const ROWS: usize = 16;
/// Pairs of columns in a block.
pub(super) const PAIRS: usize = BLOCK / 2;
/// Bytes of a block of one row or token.
pub(super) const BLOCK_BYTES: usize = 2 * BLOCK;
/// Panels of 128 rows then take 256 KB.
pub(super) const PANEL_BLOCKS: usize = 32;

/// Activations that are rounded to BF16 while they are packed.
pub(super) struct Rounded<'x> {
    pub input: Input<'x>,
    pub cols: usize,
}

/// Thirty-two values, rounded to nearest even: `low` first.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[inline(always)]
unsafe fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: as promised to this function; both types are 64 plain bytes.
    unsafe { core::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

impl Activations for Rounded<'_> {
    const BLOCK_BYTES: usize = BLOCK_BYTES;

    #[inline(always)]
    fn tokens(&self) -> Tokens<'_> {
        self.input.tokens()
    }

    #[inline(always)]
    fn cols(&self) -> usize {
        self.cols
    }

    #[inline(always)]
    unsafe fn pack(&self, tokens: Range<usize>, blocks: Range<usize>, tile: usize, out: &mut [u8]) {
        for (i, t) in tokens.enumerate() {
            let out = out.chunks_exact_mut(tile * BLOCK_BYTES).map(|block| block[i * BLOCK_BYTES..].as_mut_ptr());
            // SAFETY: every block has room for each token; the processor has the instructions.
            unsafe {
                match self.input {
                    Input::F32 { x, stride, tokens } => {
                        let row = &x[tokens.row(t) * stride..][..self.cols];
                        for (values, out) in row.as_chunks::<BLOCK>().0[blocks.clone()].iter().zip(out) {
                            let half = |from: usize| _mm512_loadu_ps(values.as_ptr().add(from));
                            _mm512_storeu_si512(out.cast(), round(half(0), half(BLOCK / 2)));
                        }
                    }
                    Input::Q80 { .. } => {
                        let rows = ActivationRows::new(&self.input, self.cols);
                        let row = rows.row(t);
                        let codes = row.codes.as_chunks::<BLOCK>().0[blocks.clone()].iter();
                        for ((codes, scale), out) in codes.zip(&row.scales[blocks.clone()]).zip(out) {
                            let half = |from: usize| {
                                let codes = _mm_loadu_si128(codes.as_ptr().add(from).cast());
                                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)), _mm512_set1_ps(*scale))
                            };
                            _mm512_storeu_si512(out.cast(), round(half(0), half(BLOCK / 2)));
                        }
                    }
                }
            }
        }
    }
}

/// Weights that are rounded to BF16 while they are unpacked.
pub(super) trait Weights {
    /// Unpacks block `b` of sixteen rows. Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The block is inside the rows of `group`; `panel` has room for it; the processor has AVX-512 BF16.
    unsafe fn unpack(group: &Group, b: usize, panel: *mut u8);
}

/// Weights of blocks `F`, whose rows lie as `L` says.
pub(super) struct Blocks<F, L>(core::marker::PhantomData<(F, L)>);

impl<F: Unsigned, L: Lie> Weights for Blocks<F, L> {
    #[inline(always)]
    unsafe fn unpack(group: &Group, b: usize, panel: *mut u8) {
        // SAFETY: as promised to this function.
        unsafe {
            let column = Column::new::<L>(group, b, F::BLOCK_BYTES);
            let d = L::scales::<SixteenRows>(column);
            // Two vectors of values, one lane a row, become pairs.
            let mut pairs = [0u16; 32];
            for i in 0..32 {
                pairs[i] = (i / 2 + i % 2 * 16) as u16;
            }
            let pairs = _mm512_loadu_si512(pairs.as_ptr().cast());
            for (j, codes) in F::codes::<SixteenRows, L>(column).into_iter().enumerate() {
                let codes = _mm512_sub_epi8(codes, _mm512_set1_epi8(F::ZERO.cast_signed()));
                let value = |v: __m512i| _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(v)), d);
                let first = round(value(_mm512_slli_epi32::<24>(codes)), value(_mm512_slli_epi32::<16>(codes)));
                let second = round(value(_mm512_slli_epi32::<8>(codes)), value(codes));
                for (i, values) in [first, second].into_iter().enumerate() {
                    let to = panel.add(4 * ROWS * (2 * j + i));
                    _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(pairs, values));
                }
            }
        }
    }
}

/// Plain numbers.
pub(super) trait Number {
    /// Bytes of one.
    const BYTES: usize;
    /// Sixteen of them. Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// They are readable; the processor has AVX-512.
    unsafe fn load(from: *const u8) -> __m512;
}
/// Weights in F32.
pub(super) struct F32;
/// Weights in F16.
pub(super) struct F16;

impl Number for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512 {
        // SAFETY: as promised to this function.
        unsafe { _mm512_loadu_ps(from.cast()) }
    }
}
impl Number for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512 {
        // SAFETY: as promised to this function.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
}

/// Weights that are numbers `N`.
pub(super) struct Plain<N>(core::marker::PhantomData<N>);

impl<N: Number> Weights for Plain<N> {
    #[inline(always)]
    unsafe fn unpack(group: &Group, b: usize, panel: *mut u8) {
        #[repr(align(64))]
        struct Rows([[u8; BLOCK_BYTES]; ROWS]);
        let mut rows = Rows([[0; BLOCK_BYTES]; ROWS]);
        // SAFETY: as promised to this function.
        unsafe {
            for (r, row) in rows.0.iter_mut().enumerate() {
                let from = group.first.wrapping_add(r * group.stride + b * BLOCK * N::BYTES);
                let half = |i: usize| N::load(from.wrapping_add(i * BLOCK / 2 * N::BYTES));
                _mm512_store_si512(row.as_mut_ptr().cast(), round(half(0), half(1)));
            }
            let column = Column { first: rows.0.as_ptr().cast(), stride: BLOCK_BYTES, lane: 0 };
            for quarter in 0..4 {
                for (i, pair) in SixteenRows::dwords(column, 16 * quarter).into_iter().enumerate() {
                    _mm512_storeu_si512(panel.add(4 * ROWS * (4 * quarter + i)).cast(), pair);
                }
            }
        }
    }
}

/// `relaxed!([attribute, …], Tile, exact, NAME, weights)`: a product of such weights by `Tile`, else by `exact`, under
/// attributes that enable the instructions.
macro_rules! relaxed {
    ([$($attribute:meta),*], $tile:ident, $exact:expr, $weights:ty) => {{
        /// # Safety
        /// The operands passed `check`; the processor has the instructions.
        $(#[$attribute])*
        unsafe fn matmul(
            w: &$crate::kernels::Matrix<'_>,
            rows: core::ops::Range<usize>,
            x: &$crate::kernels::Input<'_>,
            out: &$crate::kernels::Output<'_>,
            scratch: &mut [u8],
        ) {
            let rounded = $crate::kernels::x86_64::bf16::Rounded { input: *x, cols: w.cols };
            // SAFETY: as promised to this function.
            unsafe {
                let whole = w.cols.is_multiple_of($crate::quant::BLOCK);
                if !whole || !$crate::kernels::groups::by_panels::<$tile<$weights>>(w, rows.clone(), &rounded, out, scratch) {
                    ($exact)(w, rows, x, out, scratch);
                }
            }
        }
        matmul
    }};
}
pub(super) use relaxed;
