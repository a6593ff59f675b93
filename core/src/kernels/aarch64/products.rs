//! Quantised products of AArch64: a *quad* of four rows fills the four lanes of a register.
//!
//! Few tokens: whole blocks of rows meet whole blocks of tokens, and pairwise additions, which put row `r` into lane `r`
//! on the way, are all that runs across lanes. Many tokens: panels lie as the instruction set likes it best.
//! Written once over [`Dots`], which is what a generation of NEON offers.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use super::lanes::widen;
use crate::kernels::groups::{self, FromRows, Group, MAX_ROWS, MAX_TILE, Panel, Sums, panel_bytes, tile_bytes};
use crate::kernels::operands::ActivationRows;
use crate::kernels::table::BlockProducts;
use crate::kernels::{Input, Matrix, Output};
use crate::quant::{BLOCK, BlockQ40, BlockQ80};
use core::arch::aarch64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// Rows of a quad.
pub(super) const QUAD: usize = 4;
/// Most quads of a group.
const MAX_QUADS: usize = 2;

/// 32 codes: a block of a row or of a token.
pub(super) type Codes = [int8x16_t; 2];

/// Integer sums begin here: `BIAS + i` are the bits of 12582912 + `i` in F32 while |`i`| < 2^22, so that a subtraction
/// makes an F32 of them. A conversion takes a pipe twice as long on most cores, and `i` is at most 32 * 128 * 128.
pub(super) const BIAS: i32 = 0x4b40_0000;

/// Exact dot products of blocks. A caller of any of these has the instructions; all are `#[inline(always)]`.
///
/// Sums of a pair of tokens over a quad are two registers, in an order of the implementor's choice.
#[allow(clippy::missing_safety_doc, reason = "said above")]
pub(super) trait Dots {
    /// Quads of a group, at most [`MAX_QUADS`].
    const QUADS: usize;
    /// Most pairs of tokens of a tile: as many as registers hold sums for.
    const PAIRS: usize;

    /// Lane `r`: row `r` of the quad times a token, plus `start`.
    unsafe fn quad<F: Format>(w: [Codes; QUAD], x: Codes, start: i32) -> int32x4_t;
    /// The codes of a quad in the order that [`Self::pairs`] wants.
    unsafe fn arrange(w: [Codes; QUAD]) -> [int8x16_t; 2 * QUAD];
    /// An arranged quad times pairs of tokens, whose codes follow each other at `x`; plus [`BIAS`].
    unsafe fn pairs<F: Format, const P: usize>(w: *const i8, x: *const i8) -> [[int32x4_t; 2]; P];

    /// Products of a quad's scales with those of a pair of tokens.
    #[inline(always)]
    unsafe fn scales(d: float32x4_t, x: *const f32) -> [float32x4_t; 2] {
        // SAFETY: NEON belongs to the target; the caller's pointer is good for a pair.
        unsafe { [vmulq_n_f32(d, *x), vmulq_n_f32(d, *x.add(1))] }
    }
    /// Sums of a pair from a register per token, a lane per row.
    #[inline(always)]
    unsafe fn from_tokens(tokens: [float32x4_t; 2]) -> [float32x4_t; 2] {
        tokens
    }
    /// The way back.
    #[inline(always)]
    unsafe fn to_tokens(pair: [float32x4_t; 2]) -> [float32x4_t; 2] {
        pair
    }
}

/// A block type.
pub(super) trait Format {
    const BLOCK_BYTES: usize;
    /// Whether codes are from -8 to 15 and not any bytes.
    const NIBBLES: bool;

    /// The codes of a block, greater than they should be where [`Self::start`] takes that back.
    ///
    /// # Safety
    /// The block is readable.
    unsafe fn codes(block: *const u8) -> Codes;

    /// Where the sum over a block of such codes begins, [`BIAS`] included; `offset` as in an activation row.
    fn start(offset: i32) -> i32;

    /// The codes as they should be.
    ///
    /// # Safety
    /// The block is readable.
    unsafe fn exact_codes(block: *const u8) -> Codes;
}

/// Weights of [`BlockQ40`].
struct Q40;
/// Weights of [`BlockQ80`].
struct Q80;

impl Format for Q40 {
    const BLOCK_BYTES: usize = size_of::<BlockQ40>();
    const NIBBLES: bool = true;

    /// Nibbles stay unsigned, 0 to 15.
    #[inline(always)]
    unsafe fn codes(block: *const u8) -> Codes {
        // SAFETY: 16 bytes of nibbles after the scale.
        unsafe {
            let packed = vld1q_u8(block.add(2));
            let low = vandq_u8(packed, vdupq_n_u8(15));
            [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(vshrq_n_u8::<4>(packed))]
        }
    }

    #[inline(always)]
    fn start(offset: i32) -> i32 {
        offset + BIAS
    }

    #[inline(always)]
    unsafe fn exact_codes(block: *const u8) -> Codes {
        // SAFETY: as promised to this function.
        unsafe {
            let [low, high] = Self::codes(block);
            [vsubq_s8(low, vdupq_n_s8(8)), vsubq_s8(high, vdupq_n_s8(8))]
        }
    }
}

impl Format for Q80 {
    const BLOCK_BYTES: usize = size_of::<BlockQ80>();
    const NIBBLES: bool = false;

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> Codes {
        // SAFETY: 32 bytes of codes after the scale.
        unsafe { [vld1q_s8(block.add(2).cast()), vld1q_s8(block.add(18).cast())] }
    }

    #[inline(always)]
    fn start(_: i32) -> i32 {
        BIAS
    }

    #[inline(always)]
    unsafe fn exact_codes(block: *const u8) -> Codes {
        // SAFETY: as promised to this function.
        unsafe { Self::codes(block) }
    }
}

/// The blocks of a quad of rows, one of each.
#[derive(Clone, Copy)]
struct Column {
    /// The block of the first row.
    first: *const u8,
    /// Bytes to the block of the next row.
    stride: usize,
}

impl Column {
    /// The block of row `r`.
    #[inline(always)]
    fn row(self, r: usize) -> *const u8 {
        self.first.wrapping_add(r * self.stride)
    }

    /// Scales of the blocks, which begin with them.
    ///
    /// # Safety
    /// The blocks are readable.
    #[inline(always)]
    unsafe fn scales(self) -> float32x4_t {
        // SAFETY: as promised to this function.
        unsafe {
            let mut d = vdup_n_u16(0);
            d = vld1_lane_u16::<0>(self.row(0).cast(), d);
            d = vld1_lane_u16::<1>(self.row(1).cast(), d);
            d = vld1_lane_u16::<2>(self.row(2).cast(), d);
            d = vld1_lane_u16::<3>(self.row(3).cast(), d);
            widen(d)
        }
    }
}

/// `acc + f32(dots - BIAS) * scale`, rounded once.
#[inline(always)]
fn add_block(acc: float32x4_t, dots: int32x4_t, scale: float32x4_t) -> float32x4_t {
    // SAFETY: NEON belongs to the target.
    unsafe {
        let bias = vreinterpretq_f32_s32(vdupq_n_s32(BIAS));
        vfmaq_f32(acc, vsubq_f32(vreinterpretq_f32_s32(dots), bias), scale)
    }
}

/// The product of weights `F` by way of `D`.
struct Rows<D, F>(PhantomData<(D, F)>);

impl<D: Dots, F: Format> Rows<D, F> {
    /// [`Panel::tile`] for `P` pairs of tokens, of which `sums.tokens` tokens count.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn tile_of<const P: usize>(mut panel: *const u8, mut x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        // SAFETY: panel and tile have `blocks` blocks; sums that count are valid for as many values as there are rows.
        unsafe {
            let zero = vdupq_n_f32(0.0);
            let mut acc = [[[zero; 2]; P]; MAX_QUADS];
            if !first {
                for q in 0..D::QUADS {
                    for p in 0..P {
                        let mut tokens = [zero; 2];
                        for k in 0..2 {
                            if 2 * p + k < sums.tokens {
                                tokens[k] = vld1q_f32(sums.rows[2 * p + k].add(QUAD * q));
                            }
                        }
                        acc[q][p] = D::from_tokens(tokens);
                    }
                }
            }
            for _ in 0..blocks {
                let scales = x.add(<Self as Panel>::TILE * BLOCK).cast::<f32>();
                for q in 0..D::QUADS {
                    let dots = D::pairs::<F, P>(panel.cast(), x.cast());
                    let d = vld1q_f32(panel.add(QUAD * BLOCK).cast());
                    for p in 0..P {
                        let scale = D::scales(d, scales.add(2 * p));
                        for k in 0..2 {
                            acc[q][p][k] = add_block(acc[q][p][k], dots[p][k], scale[k]);
                        }
                    }
                    panel = panel.add(panel_bytes(QUAD));
                }
                x = x.add(tile_bytes(<Self as Panel>::TILE));
            }
            for q in 0..D::QUADS {
                for p in 0..P {
                    let tokens = D::to_tokens(acc[q][p]);
                    for k in 0..2 {
                        if 2 * p + k < sums.tokens {
                            vst1q_f32(sums.rows[2 * p + k].add(QUAD * q), tokens[k]);
                        }
                    }
                }
            }
        }
    }

    /// Lanes of quad `q` of the group, as [`FromRows::rows`] wants them.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn quad_of<const T: usize>(group: &Group, q: usize, x: &ActivationRows<'_>, t: usize) -> [float32x4_t; T] {
        let mut codes = [core::ptr::null::<i8>(); T];
        let mut scales = [core::ptr::null::<f32>(); T];
        let mut offsets = [core::ptr::null::<i32>(); T];
        for k in 0..T {
            let row = x.row(t + k);
            (codes[k], scales[k], offsets[k]) = (row.codes.as_ptr(), row.scales.as_ptr(), row.offsets.as_ptr());
        }
        let mut column = Column { first: group.first.wrapping_add(QUAD * q * group.stride), stride: group.stride };
        // SAFETY: block `b` of rows and tokens is inside them.
        unsafe {
            let mut acc = [vdupq_n_f32(0.0); T];
            for b in 0..x.cols / BLOCK {
                let d = column.scales();
                let w = [
                    F::codes(column.row(0)),
                    F::codes(column.row(1)),
                    F::codes(column.row(2)),
                    F::codes(column.row(3)),
                ];
                for k in 0..T {
                    let x = codes[k].add(b * BLOCK);
                    let start = F::start(*offsets[k].add(b));
                    let dots = D::quad::<F>(w, [vld1q_s8(x), vld1q_s8(x.add(16))], start);
                    acc[k] = add_block(acc[k], dots, vmulq_n_f32(d, *scales[k].add(b)));
                }
                column.first = column.first.wrapping_add(F::BLOCK_BYTES);
            }
            acc
        }
    }
}

impl<D: Dots, F: Format> FromRows for Rows<D, F> {
    const ROWS: usize = QUAD * D::QUADS;

    #[inline(always)]
    unsafe fn rows<const G: usize, const T: usize>(
        groups: &[Group; G],
        x: &ActivationRows<'_>,
        t: usize,
        out: &Output<'_>,
    ) {
        const { assert!(D::QUADS <= MAX_QUADS) };
        for group in groups {
            let mut lanes = [[0.0; MAX_ROWS]; T];
            // One row stands in all lanes where they are fewer than a group.
            let quads = if group.width > 1 { D::QUADS } else { 1 };
            for q in 0..quads {
                // SAFETY: as promised to this function; there is room for all quads.
                unsafe {
                    let sums = Self::quad_of::<T>(group, q, x, t);
                    for k in 0..T {
                        vst1q_f32(lanes[k].as_mut_ptr().add(QUAD * q), sums[k]);
                    }
                }
            }
            for k in 0..T {
                // SAFETY: as promised to this function.
                unsafe { group.write(&lanes[k][..QUAD * quads], out, x.tokens.row(t + k)) }
            }
        }
    }
}

impl<D: Dots, F: Format> Panel for Rows<D, F> {
    type Activations<'x> = ActivationRows<'x>;
    const ROWS: usize = QUAD * D::QUADS;
    const BLOCK_BYTES: usize = panel_bytes(1);
    const TILE: usize = 2 * D::PAIRS;
    /// Four lanes of a Cortex-A72 share a second-level cache of 1 MB: 74 KB each, and the activations.
    const PANEL_ROWS: usize = 64;
    const PANEL_BLOCKS: usize = 32;

    #[inline(always)]
    unsafe fn unpack(group: &Group, blocks: Range<usize>, mut panel: *mut u8) {
        for b in blocks {
            for q in 0..D::QUADS {
                let first = group.first.wrapping_add(QUAD * q * group.stride + b * F::BLOCK_BYTES);
                let column = Column { first, stride: group.stride };
                // SAFETY: the blocks are inside the group's rows; the panel has room for them.
                unsafe {
                    let codes = D::arrange([
                        F::exact_codes(column.row(0)),
                        F::exact_codes(column.row(1)),
                        F::exact_codes(column.row(2)),
                        F::exact_codes(column.row(3)),
                    ]);
                    for i in 0..2 * QUAD {
                        vst1q_s8(panel.add(16 * i).cast(), codes[i]);
                    }
                    vst1q_f32(panel.add(QUAD * BLOCK).cast(), column.scales());
                    panel = panel.add(panel_bytes(QUAD));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        const { assert!(D::PAIRS <= 4 && <Self as Panel>::TILE <= MAX_TILE) };
        // SAFETY: as promised to this function; a tile of more tokens than count reads packed bytes of others.
        unsafe {
            match sums.tokens.div_ceil(2) {
                4.. if D::PAIRS >= 4 => Self::tile_of::<4>(panel, x, blocks, sums, first),
                3.. if D::PAIRS >= 3 => Self::tile_of::<3>(panel, x, blocks, sums, first),
                2.. if D::PAIRS >= 2 => Self::tile_of::<2>(panel, x, blocks, sums, first),
                _ => Self::tile_of::<1>(panel, x, blocks, sums, first),
            }
        }
    }
}

/// Product of weights `F`.
///
/// # Safety
/// The operands passed `check`; the processor has the instructions of `D`.
unsafe fn matmul<D: Dots, F: Format>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Input<'_>,
    out: &Output<'_>,
    scratch: &mut [u8],
) {
    // SAFETY: as promised to this function.
    unsafe { groups::matmul::<Rows<D, F>, Rows<D, F>>(w, rows, x, out, scratch) }
}

/// The products of block weights; the processor must have the instructions of `D`.
pub(super) const fn blocks<D: Dots>() -> BlockProducts {
    BlockProducts { q40: matmul::<D, Q40>, q80: matmul::<D, Q80> }
}
