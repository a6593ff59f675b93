//! Products of many tokens by tiles of BF16.
//!
//! Speed, a model and not a measurement: a tile product takes 16 cycles for 16 rows, 16 tokens and 32 columns, and the two
//! tiles that it reads 32 loads of a cache line, two a cycle: 1024 operations a cycle, where exact products have 575.

use super::products::Shapes;
use crate::kernels::groups::{Group, Panel, Sums};
use crate::kernels::table::{BlockProducts, Products};
use crate::kernels::x86_64::avx512;
use crate::kernels::x86_64::bf16::relaxed;
use crate::kernels::x86_64::bf16::{self, BLOCK_BYTES, Blocks, F16, F32, Plain, ROWS, Rounded, Weights};
use crate::kernels::x86_64::products::{InFile, Interleaved, Q40, Q80};
use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

macro_rules! matmul {
    ($exact:expr, $weights:ty) => {
        relaxed!(
            [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")],
            Tiles,
            $exact,
            $weights
        )
    };
}

pub(super) const PRODUCTS: Products = Products {
    f32: matmul!(avx512::TABLE.products.f32, Plain<F32>),
    f16: matmul!(avx512::TABLE.products.f16, Plain<F16>),
    q80: matmul!(avx512::TABLE.products.q80, Blocks<Q80, InFile>),
    blocks: BlockProducts {
        q40: matmul!(super::products::BLOCKS.q40, Blocks<Q40, InFile>),
        q80: matmul!(super::products::BLOCKS.q80, Blocks<Q80, InFile>),
    },
    interleaved: Some(BlockProducts {
        q40: matmul!(super::products::INTERLEAVED.q40, Blocks<Q40, Interleaved>),
        q80: matmul!(super::products::INTERLEAVED.q80, Blocks<Q80, Interleaved>),
    }),
};

/// Tokens of a tile.
const TOKENS: usize = 16;
/// Tiles of sums, to which blocks are added in turn: a tile product waits for the one before into the same sums.
const SUMS: usize = 4;

/// Tiles 0 to 3: sums, 16 tokens by 16 rows. Tiles 4 and 6: activations, 16 tokens by 32 columns. Tiles 5 and 7: weights,
/// 16 pairs of columns by 16 rows.
static SHAPES: Shapes = Shapes::of([(16, 64); 8]);

/// Sums of token `t` begin at `16 * t`, one for each row.
#[repr(C, align(64))]
struct Partial([f32; TOKENS * ROWS]);

/// Products by tiles of weights `W`.
struct Tiles<W>(PhantomData<W>);

impl<W: Weights> Panel for Tiles<W> {
    type Activations<'x> = Rounded<'x>;
    const ROWS: usize = ROWS;
    const BLOCK_BYTES: usize = BLOCK_BYTES;
    const TILE: usize = TOKENS;
    const PANEL_BLOCKS: usize = bf16::PANEL_BLOCKS;

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
        for (i, b) in blocks.enumerate() {
            // SAFETY: as promised to this function.
            unsafe { W::unpack(group, b, panel.add(i * ROWS * BLOCK_BYTES)) }
        }
    }

    /// Tiles have sixteen tokens always: the packed bytes of others are multiplied, and their results left alone.
    #[inline(always)]
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        let mut partial = [const { MaybeUninit::<Partial>::uninit() }; SUMS];
        let partial: *mut Partial = partial.as_mut_ptr().cast();
        // SAFETY: panel and tile have `blocks` blocks; sums that count are valid for sixteen values; `products` writes all
        // of `partial`.
        unsafe {
            products(panel, x, blocks, partial);
            for k in 0..sums.tokens {
                let of = |i: usize| _mm512_load_ps(partial.add(i).cast::<f32>().add(ROWS * k));
                let mut sum = _mm512_add_ps(_mm512_add_ps(of(0), of(1)), _mm512_add_ps(of(2), of(3)));
                if !first {
                    sum = _mm512_add_ps(_mm512_loadu_ps(sums.rows[k]), sum);
                }
                _mm512_storeu_ps(sums.rows[k], sum);
            }
        }
    }
}

/// Multiplies the blocks of a panel with those of a packed tile: block `b` counts in sums `b % SUMS`, but for the last
/// `blocks % SUMS`, which count in sums 0.
///
/// # Safety
/// Panel and tile have `blocks` blocks; `out` is valid for [`SUMS`] values; the shapes are set on this thread.
#[inline(always)]
unsafe fn products(panel: *const u8, x: *const u8, blocks: usize, out: *mut Partial) {
    const STEP: usize = ROWS * BLOCK_BYTES;
    const _: () = assert!(ROWS == TOKENS && size_of::<Partial>() == STEP);
    // SAFETY: reads 16 rows of 64 bytes for each block from panel and tile; writes as many for each sum. The compiler keeps
    // nothing in tiles and does not know their shapes.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {fours}, {fours}",
            "jz 3f",
            "2:",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tileloadd tmm5, [{panel} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{x} + {row}*1 + {step}]",
            "tileloadd tmm7, [{panel} + {row}*1 + {step}]",
            "tdpbf16ps tmm1, tmm6, tmm7",
            "tileloadd tmm4, [{x} + {row}*1 + 2*{step}]",
            "tileloadd tmm5, [{panel} + {row}*1 + 2*{step}]",
            "tdpbf16ps tmm2, tmm4, tmm5",
            "tileloadd tmm6, [{x} + {row}*1 + 3*{step}]",
            "tileloadd tmm7, [{panel} + {row}*1 + 3*{step}]",
            "tdpbf16ps tmm3, tmm6, tmm7",
            "add {x}, 4*{step}",
            "add {panel}, 4*{step}",
            "dec {fours}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 5f",
            "4:",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tileloadd tmm5, [{panel} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "add {x}, {step}",
            "add {panel}, {step}",
            "dec {rest}",
            "jnz 4b",
            "5:",
            "tilestored [{out} + {row}*1], tmm0",
            "tilestored [{out} + {row}*1 + {step}], tmm1",
            "tilestored [{out} + {row}*1 + 2*{step}], tmm2",
            "tilestored [{out} + {row}*1 + 3*{step}], tmm3",
            x = inout(reg) x => _,
            panel = inout(reg) panel => _,
            fours = inout(reg) blocks / SUMS => _,
            rest = inout(reg) blocks % SUMS => _,
            row = in(reg) BLOCK_BYTES,
            out = in(reg) out,
            step = const STEP,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}
