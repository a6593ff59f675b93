//! Sixteen rows by sixteen tokens at once: a tile product for the integers of a block, vectors for its scales.
//!
//! The instructions are inline assembly, since Rust's functions for them are unstable. An assembly block goes from
//! memory to memory: no tile is live after it, only the shapes of tiles, which [`Panel::begin`] sets.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use crate::kernels::groups::{Group, MAX_TILE, Panel, Sums, panel_bytes, tile_bytes};
use crate::kernels::operands::ActivationRows;
use crate::kernels::x86_64::avx2::products::EightRows;
use crate::kernels::x86_64::avx512::products::SixteenRows;
use crate::kernels::x86_64::avxvnni::products::Evex;
use crate::kernels::x86_64::products::{Column, InFile, Interleaved, Ints, Lie, Q40, Q80, Rows, Unsigned, products};
use crate::quant::BLOCK;
use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

products!(
    [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")],
    BLOCKS {
        q40: Rows<EightRows<Evex>, Q40, InFile>, Tiles<Q40, InFile>;
        q80: Rows<EightRows<Evex>, Q80, InFile>, Tiles<Q80, InFile>;
    }
    INTERLEAVED {
        q40: Rows<SixteenRows, Q40, Interleaved>, Tiles<Q40, Interleaved>;
        q80: Rows<SixteenRows, Q80, Interleaved>, Tiles<Q80, Interleaved>;
    }
);

/// Rows and tokens of a tile product.
const SIDE: usize = 16;
const _: () = assert!(SIDE == SixteenRows::ROWS && SIDE <= MAX_TILE);

/// Shapes of tiles, as the instruction `ldtilecfg` reads them.
#[repr(C, align(64))]
pub(super) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}
const _: () = assert!(size_of::<Shapes>() == 64);

impl Shapes {
    /// Tile `i` has that many rows and bytes of each.
    pub const fn of(tiles: [(u8, u16); 8]) -> Self {
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < tiles.len() {
            (shapes.rows[i], shapes.row_bytes[i]) = tiles[i];
            i += 1;
        }
        shapes
    }

    /// Sets them on this thread.
    ///
    /// # Safety
    /// The processor has tiles of these shapes, and the system has given leave to use them.
    #[inline(always)]
    pub unsafe fn set(&'static self) {
        // SAFETY: reads 64 bytes of valid shapes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const *self, options(nostack, preserves_flags, readonly)) }
    }

    /// Empties this thread's tiles: idle ones need not be saved when the system switches threads.
    ///
    /// # Safety
    /// The processor has tiles.
    #[inline(always)]
    pub unsafe fn release() {
        // SAFETY: no tile is live.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
    }
}

/// Tiles 0 and 3: sums, 16 tokens by 16 rows (i32). Tiles 1 and 4: activations, 16 tokens by 32 codes. Tiles 2 and 5:
/// weights, 8 pieces by 16 rows by 4 codes.
static SHAPES: Shapes = {
    let (sums, x, w) = ((16, 64), (16, 32), (8, 64));
    Shapes::of([sums, x, w, sums, x, w, (0, 0), (0, 0)])
};

/// Exact dot products of a block: those of token `t` begin at `16 * t`, one for each row.
#[repr(C, align(64))]
struct Dots([i32; SIDE * SIDE]);

/// A step of the tiles: blocks that are multiplied together, each in tiles of its own.
const STEP: usize = 2;

/// Multiplies two blocks of a panel and a packed tile; the second lies `panel_step` and `x_step` bytes after the first.
///
/// # Safety
/// Both blocks are inside panel and tile; `out` is valid for two [`Dots`]; the shapes are set on this thread.
#[inline(always)]
unsafe fn two_blocks(panel: *const u8, x: *const u8, panel_step: usize, x_step: usize, out: *mut Dots) {
    // SAFETY: reads 8 rows of 64 bytes twice from the panel, 16 rows of 32 bytes twice from the tile; writes 2 * 16
    // rows of 64 bytes. The compiler keeps nothing in tiles and does not know their shapes.
    unsafe {
        asm!(
            "tileloadd tmm1, [{x} + {row}*1]",
            "tileloadd tmm2, [{panel} + {row}*2]",
            "tilezero tmm0",
            "tdpbssd tmm0, tmm1, tmm2",
            "tileloadd tmm4, [{x2} + {row}*1]",
            "tileloadd tmm5, [{panel2} + {row}*2]",
            "tilezero tmm3",
            "tdpbssd tmm3, tmm4, tmm5",
            "tilestored [{out} + {row}*2], tmm0",
            "tilestored [{out} + {row}*2 + {dots}], tmm3",
            x = in(reg) x,
            x2 = in(reg) x.add(x_step),
            panel = in(reg) panel,
            panel2 = in(reg) panel.add(panel_step),
            row = in(reg) BLOCK,
            out = in(reg) out,
            dots = const size_of::<Dots>(),
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            options(nostack, preserves_flags),
        );
    }
}

/// Products of panels by tiles: weights `F`, whose rows lie as `L` says.
pub(super) struct Tiles<F, L>(PhantomData<(F, L)>);

impl<F: Unsigned, L: Lie> Panel for Tiles<F, L> {
    type Activations<'x> = ActivationRows<'x>;
    const ROWS: usize = SIDE;
    const BLOCK_BYTES: usize = panel_bytes(1);
    const TILE: usize = SIDE;
    /// Packed tokens (640 bytes a block) and sixteen rows (576) fit into 48 KB together.
    const PANEL_BLOCKS: usize = 32;

    #[inline(always)]
    unsafe fn begin() {
        // SAFETY: as promised to this function.
        unsafe { SHAPES.set() }
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: no tile is live.
        unsafe { Shapes::release() }
    }

    #[inline(always)]
    unsafe fn unpack(group: &Group, blocks: Range<usize>, panel: *mut u8) {
        let mut panel = panel;
        for b in blocks {
            let column = Column::new::<L>(group, b, F::BLOCK_BYTES);
            // SAFETY: the block is inside the group's rows; the panel has room for it.
            unsafe {
                let zero = _mm512_set1_epi8(F::ZERO.cast_signed());
                for (j, codes) in F::codes::<SixteenRows, L>(column).into_iter().enumerate() {
                    SixteenRows::store(_mm512_sub_epi8(codes, zero), panel.add(4 * SIDE * j));
                }
                SixteenRows::store_f32(L::scales::<SixteenRows>(column), panel.add(BLOCK * SIDE).cast());
                panel = panel.add(panel_bytes(SIDE));
            }
        }
    }

    /// Tiles have sixteen tokens always: the packed bytes of others are multiplied, and their results left alone.
    #[inline(always)]
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        // SAFETY: as promised to this function.
        unsafe {
            if sums.tokens > SIDE / 2 {
                tile_of::<SIDE>(panel, x, blocks, sums, first);
            } else {
                tile_of::<{ SIDE / 2 }>(panel, x, blocks, sums, first);
            }
        }
    }
}

/// [`Panel::tile`] for `T` tokens, of which `sums.tokens` count.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn tile_of<const T: usize>(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
    const PANEL: usize = panel_bytes(SIDE);
    const X: usize = tile_bytes(SIDE);
    let mut dots = [const { MaybeUninit::<Dots>::uninit() }; 2 * STEP];
    let dots: *mut Dots = dots.as_mut_ptr().cast();
    // SAFETY: panel and tile have `blocks` blocks; sums that count are valid for sixteen values; steps write to the
    // halves of `dots` in turn, each of them before it is read.
    unsafe {
        let step = |b: usize| {
            // After an odd number of blocks the last one is multiplied twice.
            let second = usize::from(b + 1 < blocks);
            two_blocks(panel.add(b * PANEL), x.add(b * X), second * PANEL, second * X, dots.add(b % (2 * STEP)));
        };
        let mut acc = [_mm512_setzero_ps(); T];
        if !first {
            for k in 0..T.min(sums.tokens) {
                acc[k] = _mm512_loadu_ps(sums.rows[k]);
            }
        }
        if blocks > 0 {
            step(0);
        }
        let mut here = 0;
        while here < blocks {
            // Tiles are a step ahead of the scaling: neither waits for the other, nor a load for a store just made.
            if here + STEP < blocks {
                step(here + STEP);
            }
            for b in here..blocks.min(here + STEP) {
                let scales: *const f32 = x.add(b * X + BLOCK * SIDE).cast();
                let d = _mm512_loadu_ps(panel.add(b * PANEL + BLOCK * SIDE).cast());
                let dots: *const i32 = dots.add(b % (2 * STEP)).cast();
                for k in 0..T {
                    let dots = _mm512_load_si512(dots.add(SIDE * k).cast());
                    acc[k] = SixteenRows::add_block(acc[k], dots, d, _mm512_set1_ps(*scales.add(k)));
                }
            }
            here += STEP;
        }
        for k in 0..T.min(sums.tokens) {
            _mm512_storeu_ps(sums.rows[k], acc[k]);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::kernels::tests::{Random, has_avx512};
    use crate::kernels::x86_64::emulated;

    #[test]
    fn a_step_is_two_exact_products() {
        if !has_avx512() {
            std::println!("no AVX-512: nothing to run");
            return;
        }
        emulated::enable();
        const PANEL: usize = 4 * SIDE * (BLOCK / 4);
        for seed in 0..50 {
            let random = &mut Random(seed);
            let mut byte = || if seed % 5 == 0 { i8::MIN } else { random.bits() as i8 };
            let panel: [i8; 2 * PANEL] = core::array::from_fn(|_| byte());
            let x: [i8; 2 * SIDE * BLOCK] = core::array::from_fn(|_| byte());
            let mut out = [const { Dots([-1; SIDE * SIDE]) }; 2];
            type Q = Tiles<Q40, InFile>;
            // SAFETY: two blocks of each; `emulated::enable` lets tile instructions work.
            unsafe {
                Q::begin();
                two_blocks(panel.as_ptr().cast(), x.as_ptr().cast(), PANEL, SIDE * BLOCK, out.as_mut_ptr());
                Q::end();
            }
            for (b, out) in out.iter().enumerate() {
                for (i, dot) in out.0.iter().enumerate() {
                    let (t, r) = (i / SIDE, i % SIDE);
                    let products = (0..BLOCK).map(|k| {
                        let w = panel[b * PANEL + k / 4 * 4 * SIDE + 4 * r + k % 4];
                        i32::from(w) * i32::from(x[b * SIDE * BLOCK + t * BLOCK + k])
                    });
                    assert_eq!(*dot, products.sum::<i32>(), "seed {seed} block {b} token {t} row {r}");
                }
            }
        }
    }
}
