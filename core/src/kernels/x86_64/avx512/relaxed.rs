//! Products of many tokens by dot products of BF16.
//!
//! Twice as fast as F32 and slower than the exact products of integers, so only F32 activations take part.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use super::EXACT;
use crate::kernels::groups::{Group, Panel, Sums};
use crate::kernels::table::Products;
use crate::kernels::x86_64::bf16::relaxed;
use crate::kernels::x86_64::bf16::{self, BLOCK_BYTES, Blocks, F16, F32, PAIRS, Plain, ROWS, Rounded, Weights};
use crate::kernels::x86_64::products::{InFile, Q80};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

macro_rules! matmul {
    ($exact:expr, $weights:ty) => {
        relaxed!(
            [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")],
            Dots,
            $exact,
            $weights
        )
    };
}

pub(super) const PRODUCTS: Products = Products {
    f32: matmul!(EXACT.products.f32, Plain<F32>),
    f16: matmul!(EXACT.products.f16, Plain<F16>),
    q80: matmul!(EXACT.products.q80, Blocks<Q80, InFile>),
    ..EXACT.products
};

/// Dot products of weights `W`.
struct Dots<W>(PhantomData<W>);

impl<W: Weights> Panel for Dots<W> {
    type Activations<'x> = Rounded<'x>;
    const ROWS: usize = ROWS;
    const BLOCK_BYTES: usize = BLOCK_BYTES;
    const TILE: usize = 12;
    const PANEL_BLOCKS: usize = bf16::PANEL_BLOCKS;

    #[inline(always)]
    unsafe fn unpack(group: &Group, blocks: Range<usize>, panel: *mut u8) {
        for (i, b) in blocks.enumerate() {
            // SAFETY: as promised to this function.
            unsafe { W::unpack(group, b, panel.add(i * ROWS * BLOCK_BYTES)) }
        }
    }

    #[inline(always)]
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        // SAFETY: as promised to this function; a tile of more tokens than count reads packed bytes of others.
        unsafe {
            match sums.tokens.div_ceil(4) {
                3.. => tile_of::<12>(panel, x, blocks, sums, first),
                2 => tile_of::<8>(panel, x, blocks, sums, first),
                _ => tile_of::<4>(panel, x, blocks, sums, first),
            }
        }
    }
}

/// [`Panel::tile`] for `T` tokens, of which `sums.tokens` count.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn tile_of<const T: usize>(mut panel: *const u8, mut x: *const u8, blocks: usize, sums: &Sums, first: bool) {
    // SAFETY: panel and tile have `blocks` blocks; sums that count are valid for sixteen values. Vectors of either type
    // are 64 plain bytes.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); T];
        if !first {
            for k in 0..T.min(sums.tokens) {
                acc[k] = _mm512_loadu_ps(sums.rows[k]);
            }
        }
        for _ in 0..blocks {
            for j in 0..PAIRS {
                let w = core::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(panel.add(4 * ROWS * j).cast()));
                for k in 0..T {
                    let pair = _mm512_set1_epi32(x.add(BLOCK_BYTES * k + 4 * j).cast::<i32>().read_unaligned());
                    acc[k] = _mm512_dpbf16_ps(acc[k], w, core::mem::transmute::<__m512i, __m512bh>(pair));
                }
            }
            panel = panel.add(ROWS * BLOCK_BYTES);
            x = x.add(<Dots<Plain<F32>> as Panel>::TILE * BLOCK_BYTES);
        }
        for k in 0..T.min(sums.tokens) {
            _mm512_storeu_ps(sums.rows[k], acc[k]);
        }
    }
}
