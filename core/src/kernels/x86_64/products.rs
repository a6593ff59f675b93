//! Quantised products of x86-64: a lane per row, so that no sum runs across lanes.
//!
//! Dwords of as many rows as a vector has lanes are transposed; each piece of four codes meets the same four codes of
//! the activations in every lane. Written once over [`Ints`], which is what a generation of vector instructions offers.

#![allow(clippy::needless_range_loop, reason = "hot loops count, see `lanes`")]

use crate::kernels::Output;
use crate::kernels::groups::{FromRows, Group, MAX_ROWS, MAX_TILE, Panel, Sums, panel_bytes, tile_bytes};
use crate::kernels::operands::ActivationRows;
use crate::quant::{BLOCK, BlockQ40, BlockQ80, INTERLEAVED_ROWS};
use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::marker::PhantomData;
use core::ops::Range;

/// Pieces of four codes in a block.
const PIECES: usize = BLOCK / 4;

/// Vectors of one lane per row. A caller of any of these has the instructions; all are `#[inline(always)]`.
#[allow(clippy::missing_safety_doc, reason = "said above")]
pub(super) trait Ints {
    /// A dword, or four bytes, a lane.
    type I: Copy;
    /// An F32 a lane.
    type F: Copy;
    /// Lanes.
    const ROWS: usize;
    /// Vectors of the rows of a panel: 1 where registers hold the sums of a tile, or as many as [`add_tile`] takes.
    const GROUPS: usize;
    /// Most tokens of a tile.
    const TILE: usize;
    /// As [`Panel::FEW_INTERLEAVED`].
    const FEW: usize;

    /// Vector `j` holds bytes `offset + 4 * j..` of each row's block.
    unsafe fn dwords(w: Column, offset: usize) -> [Self::I; 4];
    /// Scales of the blocks, which begin with them.
    unsafe fn scales(w: Column) -> Self::F;
    /// Scales (F16) that follow each other.
    unsafe fn load_scales(from: *const u8) -> Self::F;
    /// A number in every lane.
    unsafe fn splat(x: f32) -> Self::F;
    /// The lower four bits of each byte.
    unsafe fn low_nibbles(v: Self::I) -> Self::I;
    /// The upper four bits of each byte.
    unsafe fn high_nibbles(v: Self::I) -> Self::I;
    /// Bytes of Q80 weights in the form that [`Self::dots_q80`] wants.
    unsafe fn prepare_q80(v: Self::I) -> Self::I;
    /// Exact dot products of blocks of nibbles (0 to 15) with a block of each token, `offsets` added: `w(g, j)` is piece
    /// `j` of the rows of vector `g`, `x(t, j)` that of token `t`.
    unsafe fn dots_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> Self::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[Self::I; T]; G];
    /// Exact dot products of blocks of prepared bytes with a block of each token; `offsets` as in activation rows.
    unsafe fn dots_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> Self::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[Self::I; T]; G];
    /// `fma(f32(dots), d * x, acc)`
    unsafe fn add_block(acc: Self::F, dots: Self::I, d: Self::F, x: Self::F) -> Self::F;
    unsafe fn load(from: *const u8) -> Self::I;
    unsafe fn load_f32(from: *const f32) -> Self::F;
    unsafe fn store(v: Self::I, to: *mut u8);
    unsafe fn store_f32(v: Self::F, to: *mut f32);
}

/// Vectors with an instruction that adds to each lane the products of its four unsigned and four signed bytes.
///
/// A caller of any of these has the instructions; all are `#[inline(always)]`.
#[allow(clippy::missing_safety_doc, reason = "said above")]
pub(super) trait Vnni: Ints {
    /// `signed` is the same in every lane.
    unsafe fn add_products(sum: Self::I, unsigned: Self::I, signed: i32) -> Self::I;
    /// A number in every lane.
    unsafe fn splat_i32(x: i32) -> Self::I;
    /// Every lane times 16.
    unsafe fn times_16(v: Self::I) -> Self::I;

    /// As [`Ints::dots_q40`].
    #[inline(always)]
    unsafe fn vnni_q40<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> Self::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[Self::I; T]; G] {
        // SAFETY: as promised to this function.
        unsafe {
            let mut sums = [Self::splat_i32(0); T];
            for t in 0..T {
                sums[t] = Self::splat_i32(offsets[t]);
            }
            Self::add_block_products(w, x, [sums; G])
        }
    }

    /// As [`Ints::dots_q80`] of bytes 128 greater than the codes: -128 times the sum of a token's codes is added, where
    /// an offset is -8 times.
    #[inline(always)]
    unsafe fn vnni_q80<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> Self::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[Self::I; T]; G] {
        // SAFETY: as promised to this function.
        unsafe {
            let mut sums = [Self::splat_i32(0); T];
            for t in 0..T {
                sums[t] = Self::times_16(Self::splat_i32(offsets[t]));
            }
            Self::add_block_products(w, x, [sums; G])
        }
    }

    /// Adds the products of a block to `sums`.
    #[inline(always)]
    unsafe fn add_block_products<const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> Self::I,
        x: impl Fn(usize, usize) -> i32,
        mut sums: [[Self::I; T]; G],
    ) -> [[Self::I; T]; G] {
        for j in 0..PIECES {
            for g in 0..G {
                let w = w(g, j);
                for t in 0..T {
                    // SAFETY: as promised to this function.
                    sums[g][t] = unsafe { Self::add_products(sums[g][t], w, x(t, j)) };
                }
            }
        }
        sums
    }
}

/// Blocks of a group of rows, one of each.
#[derive(Clone, Copy)]
pub(super) struct Column {
    /// The block of the first row; of all sixteen rows where they are interleaved.
    pub first: *const u8,
    /// Bytes to the block of the next row.
    pub stride: usize,
    /// The first row's place among sixteen interleaved ones.
    pub lane: usize,
}

impl Column {
    /// The blocks number `b` of the rows of `group`, which lie as `L` says and are `block_bytes` long.
    #[inline(always)]
    pub fn new<L: Lie>(group: &Group, b: usize, block_bytes: usize) -> Self {
        let first = group.first.wrapping_add(b * L::BLOCKS * block_bytes);
        Self { first, stride: group.stride, lane: group.lane }
    }

    /// Byte `offset` of the block of row `r`.
    #[inline(always)]
    pub fn at(self, r: usize, offset: usize) -> *const u8 {
        self.first.wrapping_add(r * self.stride + offset)
    }
}

/// How rows lie, see [`Order`](crate::quant::Order). Both functions are `#[inline(always)]`; callers have the
/// instructions, and the column is readable.
#[allow(clippy::missing_safety_doc, reason = "said above")]
pub(super) trait Lie {
    /// Blocks from a column to the next.
    const BLOCKS: usize;

    /// The column that begins `rows` rows further on.
    fn behind(w: Column, rows: usize) -> Column;
    /// As [`Ints::dwords`].
    unsafe fn dwords<V: Ints>(w: Column, offset: usize) -> [V::I; 4];
    /// As [`Ints::scales`].
    unsafe fn scales<V: Ints>(w: Column) -> V::F;
}

/// One after the other.
pub(super) struct InFile;
/// Interleaved.
pub(super) struct Interleaved;

impl Lie for InFile {
    const BLOCKS: usize = 1;

    #[inline(always)]
    fn behind(w: Column, rows: usize) -> Column {
        Column { first: w.at(rows, 0), ..w }
    }

    #[inline(always)]
    unsafe fn dwords<V: Ints>(w: Column, offset: usize) -> [V::I; 4] {
        // SAFETY: as promised to this function.
        unsafe { V::dwords(w, offset) }
    }
    #[inline(always)]
    unsafe fn scales<V: Ints>(w: Column) -> V::F {
        // SAFETY: as promised to this function.
        unsafe { V::scales(w) }
    }
}

impl Interleaved {
    /// Vector `j` of the dwords behind byte `offset` of each row's block.
    ///
    /// # Safety
    /// As [`Lie::dwords`].
    #[inline(always)]
    unsafe fn dword<V: Ints>(w: Column, offset: usize, j: usize) -> V::I {
        const { assert!(INTERLEAVED_ROWS.is_multiple_of(V::ROWS)) };
        // SAFETY: byte `offset` of sixteen blocks lies behind as many bytes of each; then dwords follow, row by row.
        unsafe { V::load(w.first.wrapping_add(INTERLEAVED_ROWS * (offset + 4 * j) + 4 * w.lane)) }
    }
}

impl Lie for Interleaved {
    const BLOCKS: usize = INTERLEAVED_ROWS;

    #[inline(always)]
    fn behind(w: Column, rows: usize) -> Column {
        Column { lane: w.lane + rows, ..w }
    }

    #[inline(always)]
    unsafe fn dwords<V: Ints>(w: Column, offset: usize) -> [V::I; 4] {
        let dword = |j| {
            // SAFETY: as promised to this function.
            unsafe { Self::dword::<V>(w, offset, j) }
        };
        [dword(0), dword(1), dword(2), dword(3)]
    }
    #[inline(always)]
    unsafe fn scales<V: Ints>(w: Column) -> V::F {
        // SAFETY: a column begins with the scales of its rows.
        unsafe { V::load_scales(w.first.wrapping_add(2 * w.lane)) }
    }
}

/// A block type: two bytes of scale, then codes. A caller has the instructions; all functions are `#[inline(always)]`.
#[allow(clippy::missing_safety_doc, reason = "said above")]
pub(super) trait Format {
    /// Bytes of a block.
    const BLOCK_BYTES: usize;

    /// The codes of a readable column of blocks, which lie as `L` says, ready for [`Self::dots`].
    unsafe fn codes<V: Ints, L: Lie>(w: Column) -> [V::I; PIECES];

    /// Piece `j` of [`Self::codes`] of an interleaved column.
    unsafe fn piece<V: Ints>(w: Column, j: usize) -> V::I;

    /// Exact dot products with a block of `T` tokens each, see [`Ints::dots_q40`].
    unsafe fn dots<V: Ints, const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> V::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[V::I; T]; G];
}

/// Weights of [`BlockQ40`].
pub(super) struct Q40;
/// Weights of [`BlockQ80`].
pub(super) struct Q80;

impl Format for Q40 {
    const BLOCK_BYTES: usize = size_of::<BlockQ40>();

    #[inline(always)]
    unsafe fn codes<V: Ints, L: Lie>(w: Column) -> [V::I; PIECES] {
        // SAFETY: 16 bytes of nibbles after the scale.
        unsafe {
            let [a, b, c, d] = L::dwords::<V>(w, 2);
            [
                V::low_nibbles(a),
                V::low_nibbles(b),
                V::low_nibbles(c),
                V::low_nibbles(d),
                V::high_nibbles(a),
                V::high_nibbles(b),
                V::high_nibbles(c),
                V::high_nibbles(d),
            ]
        }
    }

    #[inline(always)]
    unsafe fn piece<V: Ints>(w: Column, j: usize) -> V::I {
        // SAFETY: as above.
        unsafe {
            let dword = Interleaved::dword::<V>(w, 2, j % 4);
            if j < 4 { V::low_nibbles(dword) } else { V::high_nibbles(dword) }
        }
    }

    #[inline(always)]
    unsafe fn dots<V: Ints, const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> V::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[V::I; T]; G] {
        // SAFETY: as promised to this function.
        unsafe { V::dots_q40(w, x, offsets) }
    }
}

impl Format for Q80 {
    const BLOCK_BYTES: usize = size_of::<BlockQ80>();

    #[inline(always)]
    unsafe fn codes<V: Ints, L: Lie>(w: Column) -> [V::I; PIECES] {
        // SAFETY: 32 bytes of codes after the scale.
        unsafe {
            let ([a, b, c, d], [e, f, g, h]) = (L::dwords::<V>(w, 2), L::dwords::<V>(w, 18));
            [
                V::prepare_q80(a),
                V::prepare_q80(b),
                V::prepare_q80(c),
                V::prepare_q80(d),
                V::prepare_q80(e),
                V::prepare_q80(f),
                V::prepare_q80(g),
                V::prepare_q80(h),
            ]
        }
    }

    #[inline(always)]
    unsafe fn piece<V: Ints>(w: Column, j: usize) -> V::I {
        // SAFETY: as above.
        unsafe { V::prepare_q80(Interleaved::dword::<V>(w, 2, j)) }
    }

    #[inline(always)]
    unsafe fn dots<V: Ints, const G: usize, const T: usize>(
        w: impl Fn(usize, usize) -> V::I,
        x: impl Fn(usize, usize) -> i32,
        offsets: [i32; T],
    ) -> [[V::I; T]; G] {
        // SAFETY: as promised to this function.
        unsafe { V::dots_q80(w, x, offsets) }
    }
}

/// Formats whose codes [`Format::codes`] gives without a sign, over vectors that are [`Vnni`].
pub(super) trait Unsigned: Format {
    /// What stands for zero.
    const ZERO: u8;
}
impl Unsigned for Q40 {
    const ZERO: u8 = 8;
}
impl Unsigned for Q80 {
    const ZERO: u8 = 128;
}

/// The product of weights `F`, whose rows lie as `L` says, over vectors `V`.
pub(super) struct Rows<V, F, L>(PhantomData<(V, F, L)>);

impl<V: Ints, F: Format, L: Lie> FromRows for Rows<V, F, L> {
    const ROWS: usize = V::ROWS;

    #[inline(always)]
    unsafe fn rows<const G: usize, const T: usize>(
        groups: &[Group; G],
        x: &ActivationRows<'_>,
        t: usize,
        out: &Output<'_>,
    ) {
        let blocks = x.cols / BLOCK;
        let mut codes = [core::ptr::null::<i32>(); T];
        let mut scales = [core::ptr::null(); T];
        let mut offsets = [core::ptr::null(); T];
        for k in 0..T {
            let row = x.row(t + k);
            (codes[k], scales[k], offsets[k]) = (row.codes.as_ptr().cast(), row.scales.as_ptr(), row.offsets.as_ptr());
        }
        // SAFETY: block `b` of rows and tokens is inside them.
        unsafe {
            let mut acc = [[V::splat(0.0); T]; G];
            for b in 0..blocks {
                let mut block_offsets = [0; T];
                for k in 0..T {
                    block_offsets[k] = *offsets[k].add(b);
                }
                for g in 0..G {
                    let column = Column::new::<L>(&groups[g], b, F::BLOCK_BYTES);
                    let d = L::scales::<V>(column);
                    let w = F::codes::<V, L>(column);
                    let piece = |k: usize, j| codes[k].add(b * PIECES + j).read_unaligned();
                    let [dots] = F::dots::<V, 1, T>(|_, j| w[j], piece, block_offsets);
                    for k in 0..T {
                        acc[g][k] = V::add_block(acc[g][k], dots[k], d, V::splat(*scales[k].add(b)));
                    }
                }
            }
            for g in 0..G {
                for k in 0..T {
                    let mut lanes = [0.0; MAX_ROWS];
                    V::store_f32(acc[g][k], lanes.as_mut_ptr());
                    groups[g].write(&lanes[..V::ROWS], out, x.tokens.row(t + k));
                }
            }
        }
    }
}

impl<V: Ints, F: Format, L: Lie> Panel for Rows<V, F, L> {
    type Activations<'x> = ActivationRows<'x>;
    const ROWS: usize = V::ROWS * V::GROUPS;
    const BLOCK_BYTES: usize = panel_bytes(1);
    const TILE: usize = V::TILE;
    const FEW_INTERLEAVED: usize = V::FEW;
    const COLUMN_BYTES: usize = INTERLEAVED_ROWS * F::BLOCK_BYTES;

    #[inline(always)]
    unsafe fn unpack(group: &Group, blocks: Range<usize>, panel: *mut u8) {
        const { assert!(V::GROUPS == 1 || V::GROUPS == GROUPS && <Self as Panel>::ROWS == INTERLEAVED_ROWS) };
        let mut panel = panel;
        for b in blocks {
            for g in 0..V::GROUPS {
                let column = L::behind(Column::new::<L>(group, b, F::BLOCK_BYTES), g * V::ROWS);
                // SAFETY: the block is inside the group's rows; the panel has room for it.
                unsafe {
                    for (j, codes) in F::codes::<V, L>(column).into_iter().enumerate() {
                        V::store(codes, panel.add(4 * V::ROWS * (g * PIECES + j)));
                    }
                    let scales = panel.add(BLOCK * <Self as Panel>::ROWS).cast::<f32>();
                    V::store_f32(L::scales::<V>(column), scales.add(g * V::ROWS));
                }
            }
            panel = panel.wrapping_add(panel_bytes(<Self as Panel>::ROWS));
        }
    }

    #[inline(always)]
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        const { assert!(V::TILE.is_multiple_of(4) && V::TILE <= MAX_TILE) };
        // SAFETY: as promised to this function; a tile of more tokens than count reads packed bytes of others.
        unsafe {
            if V::GROUPS > 1 {
                return add_tile::<V, F, Unpacked>(panel, x, V::TILE, blocks, sums, first);
            }
            match sums.tokens.div_ceil(4) {
                3.. if V::TILE >= 12 => tile_of::<V, F, 12>(panel, x, blocks, sums, first),
                2.. if V::TILE >= 8 => tile_of::<V, F, 8>(panel, x, blocks, sums, first),
                _ => tile_of::<V, F, 4>(panel, x, blocks, sums, first),
            }
        }
    }

    #[inline(always)]
    unsafe fn columns(w: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool) {
        const { assert!(V::FEW == 0 || V::ROWS * GROUPS == INTERLEAVED_ROWS && V::FEW <= MAX_TILE) };
        if V::FEW > 0 {
            // SAFETY: as promised to this function.
            unsafe { add_tile::<V, F, Interleaved>(w, x, sums.tokens, blocks, sums, first) }
        }
    }
}

/// Where the codes of sixteen rows lie that [`add_tile`] multiplies. A caller has the instructions, and the column is
/// readable; all functions are `#[inline(always)]`.
#[allow(clippy::missing_safety_doc, reason = "said above")]
trait Sixteen {
    /// How far ahead bytes are fetched; 0: not at all.
    const AHEAD: usize;

    /// Bytes of a column of blocks.
    fn bytes<F: Format>() -> usize;
    /// Piece `j` of the rows of vector `g`.
    unsafe fn piece<V: Ints, F: Format>(w: *const u8, g: usize, j: usize) -> V::I;
    /// Their scales.
    unsafe fn scales<V: Ints>(w: *const u8, g: usize) -> V::F;
}

/// In a panel.
struct Unpacked;

impl Sixteen for Unpacked {
    const AHEAD: usize = 0;

    #[inline(always)]
    fn bytes<F: Format>() -> usize {
        panel_bytes(INTERLEAVED_ROWS)
    }
    #[inline(always)]
    unsafe fn piece<V: Ints, F: Format>(w: *const u8, g: usize, j: usize) -> V::I {
        // SAFETY: as promised to this function.
        unsafe { V::load(w.add(4 * V::ROWS * (g * PIECES + j))) }
    }
    #[inline(always)]
    unsafe fn scales<V: Ints>(w: *const u8, g: usize) -> V::F {
        // SAFETY: as promised to this function.
        unsafe { V::load_f32(w.add(BLOCK * INTERLEAVED_ROWS).cast::<f32>().add(g * V::ROWS)) }
    }
}

impl Sixteen for Interleaved {
    const AHEAD: usize = 4096;

    #[inline(always)]
    fn bytes<F: Format>() -> usize {
        INTERLEAVED_ROWS * F::BLOCK_BYTES
    }
    #[inline(always)]
    unsafe fn piece<V: Ints, F: Format>(w: *const u8, g: usize, j: usize) -> V::I {
        // SAFETY: as promised to this function.
        unsafe { F::piece::<V>(Column { first: w, stride: 0, lane: g * V::ROWS }, j) }
    }
    #[inline(always)]
    unsafe fn scales<V: Ints>(w: *const u8, g: usize) -> V::F {
        // SAFETY: as promised to this function.
        unsafe { <Self as Lie>::scales::<V>(Column { first: w, stride: 0, lane: g * V::ROWS }) }
    }
}

/// Vectors of rows that meet a token at once in [`add_tile`]: one load of activations serves both.
const GROUPS: usize = 2;

/// Adds the products of sixteen rows, whose codes lie as `S` says, and of tokens that are packed in tiles of `tile` to `sums`.
///
/// Tokens pass over a block four at a time. Registers hold the sums of that block only, the others wait in memory.
///
/// # Safety
/// As [`Panel::tile`].
#[inline(always)]
unsafe fn add_tile<V: Ints, F: Format, S: Sixteen>(
    mut w: *const u8,
    mut x: *const u8,
    tile: usize,
    blocks: usize,
    sums: &Sums,
    first: bool,
) {
    // SAFETY: rows and tile have `blocks` blocks; sums that count are valid for sixteen values.
    unsafe {
        let mut acc = [[V::splat(0.0); GROUPS]; MAX_TILE];
        if !first {
            for t in 0..sums.tokens {
                for g in 0..GROUPS {
                    acc[t][g] = V::load_f32(sums.rows[t].add(g * V::ROWS));
                }
            }
        }
        for _ in 0..blocks {
            if S::AHEAD > 0 {
                for line in (0..S::bytes::<F>()).step_by(64) {
                    // No more than a hint, whatever is there.
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(S::AHEAD + line).cast());
                }
            }
            let mut t = 0;
            while t + 4 <= sums.tokens {
                add_blocks::<V, F, S, 4>(w, x, tile, t, &mut acc);
                t += 4;
            }
            match sums.tokens - t {
                1 => add_blocks::<V, F, S, 1>(w, x, tile, t, &mut acc),
                2 => add_blocks::<V, F, S, 2>(w, x, tile, t, &mut acc),
                3 => add_blocks::<V, F, S, 3>(w, x, tile, t, &mut acc),
                _ => {}
            }
            w = w.wrapping_add(S::bytes::<F>());
            x = x.wrapping_add(tile_bytes(tile));
        }
        for t in 0..sums.tokens {
            for g in 0..GROUPS {
                V::store_f32(acc[t][g], sums.rows[t].add(g * V::ROWS));
            }
        }
    }
}

/// Adds the products of a column of blocks and of tokens `t..t + T` of a packed tile to `acc`.
///
/// # Safety
/// `w` is a column that lies as `S` says, `x` a block of the tile; the processor has the instruction set.
#[inline(always)]
unsafe fn add_blocks<V: Ints, F: Format, S: Sixteen, const T: usize>(
    w: *const u8,
    x: *const u8,
    tile: usize,
    t: usize,
    acc: &mut [[V::F; GROUPS]; MAX_TILE],
) {
    // SAFETY: as promised to this function.
    unsafe {
        let codes = x.add(BLOCK * t).cast::<i32>();
        let scales = x.add(BLOCK * tile + 4 * t).cast::<f32>();
        let mut offsets = [0; T];
        for k in 0..T {
            offsets[k] = scales.add(tile + k).cast::<i32>().read();
        }
        let dots =
            F::dots::<V, GROUPS, T>(|g, j| S::piece::<V, F>(w, g, j), |k, j| codes.add(PIECES * k + j).read(), offsets);
        for g in 0..GROUPS {
            let d = S::scales::<V>(w, g);
            for k in 0..T {
                acc[t + k][g] = V::add_block(acc[t + k][g], dots[g][k], d, V::splat(scales.add(k).read()));
            }
        }
    }
}

/// [`Panel::tile`] for `T` tokens, of which `sums.tokens` count.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn tile_of<V: Ints, F: Format, const T: usize>(
    mut panel: *const u8,
    mut x: *const u8,
    blocks: usize,
    sums: &Sums,
    first: bool,
) {
    // SAFETY: panel and tile have `blocks` blocks; sums that count are valid for as many values as there are rows.
    unsafe {
        let mut acc = [V::splat(0.0); T];
        if !first {
            for k in 0..T.min(sums.tokens) {
                acc[k] = V::load_f32(sums.rows[k]);
            }
        }
        for _ in 0..blocks {
            let mut offsets = [0; T];
            for k in 0..T {
                offsets[k] = x.add(V::TILE * (BLOCK + 4) + 4 * k).cast::<i32>().read();
            }
            let [dots] = F::dots::<V, 1, T>(
                |_, j| V::load(panel.add(4 * V::ROWS * j)),
                |k, j| x.add(BLOCK * k + 4 * j).cast::<i32>().read(),
                offsets,
            );
            let d = V::load_f32(panel.add(BLOCK * V::ROWS).cast());
            for k in 0..T {
                let scale = V::splat(x.add(V::TILE * BLOCK + 4 * k).cast::<f32>().read());
                acc[k] = V::add_block(acc[k], dots[k], d, scale);
            }
            panel = panel.add(panel_bytes(V::ROWS));
            x = x.add(tile_bytes(V::TILE));
        }
        for k in 0..T.min(sums.tokens) {
            V::store_f32(acc[k], sums.rows[k]);
        }
    }
}

/// `products!([attribute, …], NAME { dtype: few tokens, many tokens; … } …)`: [`BlockProducts`](super::super::table::BlockProducts)
/// called `NAME`, under attributes that enable the instruction set.
macro_rules! products {
    ($attributes:tt, $($name:ident { $($dtype:ident: $few:ty, $many:ty;)+ })+) => {
        $(pub(in $crate::kernels::x86_64) const $name: $crate::kernels::table::BlockProducts =
            $crate::kernels::table::BlockProducts {
                $($dtype: $crate::kernels::x86_64::products::products!(@one $attributes, $few, $many),)+
            };)+
    };
    (@one [$($attribute:meta),*], $few:ty, $many:ty) => {{
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
            // SAFETY: as promised to this function.
            unsafe { $crate::kernels::groups::matmul::<$few, $many>(w, rows, x, out, scratch) }
        }
        matmul
    }};
}
pub(super) use products;
