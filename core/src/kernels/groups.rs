//! The way of a quantised product through a matrix.
//!
//! Few tokens: groups of rows straight from the file, a lane per row, memory read in order once. Many tokens: the codes
//! of a *panel* of rows are unpacked into scratch once and then meet tile after tile of tokens, whose activations are
//! packed so that a tile is one run of memory. Both ways add up blocks in the same order, so they give the same bits.

use super::operands::ActivationRows;
use super::prefetch::Ahead;
use super::{Input, Matrix, Output};
use crate::quant::BLOCK;
use core::ops::Range;

/// The inner loops of a quantised product on one instruction set. All functions must be `#[inline(always)]`.
pub(super) trait Product {
    /// Rows that are worked on at once, a lane each.
    const ROWS: usize;
    /// Bytes of a block of weights.
    const BLOCK_BYTES: usize;
    /// Tokens of a full tile over a panel, at most [`MAX_TILE`].
    const TILE: usize;
    /// Groups of as many bytes are prefetched into the first-level cache, one ahead; larger ones into the second.
    const NEAR_BYTES: usize;
    /// Most blocks of a row in a panel.
    const PANEL_BLOCKS: usize = MAX_PANEL_BLOCKS;

    /// The rows of `group` times tokens `t..t + T`.
    ///
    /// # Safety
    /// The operands passed `check`; the processor has the instruction set.
    unsafe fn rows<const T: usize>(group: &Group, x: &ActivationRows<'_>, t: usize, out: &Output<'_>);

    /// Comes before the first of some calls of `unpack` and `tile`, on their thread.
    ///
    /// # Safety
    /// The processor has the instruction set; `end` follows on this thread.
    #[inline(always)]
    unsafe fn begin() {}

    /// Comes after the last call that `begin` announced.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn end() {}

    /// Unpacks blocks of the rows of `group` to `panel`, [`panel_bytes`] a block, in the form that `tile` wants.
    ///
    /// # Safety
    /// The group is as wide as `ROWS` and lies inside its matrix; `panel` has room for `blocks`; the processor has the
    /// instruction set.
    unsafe fn unpack(group: &Group, blocks: Range<usize>, panel: *mut u8);

    /// Adds the products of a panel's rows and of the packed `tokens` (at most `TILE`) to `sums`, which begin at +0
    /// where `first` is set.
    ///
    /// # Safety
    /// After `begin`; `unpack` wrote the panel and [`pack`] the activations, both of `blocks` blocks; every pointer of
    /// `sums` that counts is valid for `ROWS` values; the processor has the instruction set.
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool);
}

/// Most tokens of a tile.
pub(super) const MAX_TILE: usize = 16;

/// Where the sums of a tile go.
pub(super) struct Sums {
    /// The first value of each token.
    pub rows: [*mut f32; MAX_TILE],
    /// Tokens that count.
    pub tokens: usize,
}

/// Rows that are worked on at once.
pub(super) struct Group {
    /// Start of the first row.
    pub first: *const u8,
    /// Bytes from a row to the next: 0 where one row stands in all lanes.
    pub stride: usize,
    /// Number of the first row.
    pub row: usize,
    /// Rows whose results count: all, or the first.
    pub width: usize,
    ahead: Ahead,
}

impl Group {
    /// What to prefetch while the tile that begins with token `t` is at work: the first one fetches for all.
    #[inline(always)]
    pub fn ahead(&self, t: usize) -> Option<Ahead> {
        (t == 0).then_some(self.ahead)
    }
}

/// How far ahead the second-level cache is filled.
const FAR_BYTES: usize = 48 << 10;

/// The groups of a range of rows.
struct Groups<'a> {
    w: &'a Matrix<'a>,
    rows: Range<usize>,
    /// Rows per group: those of the product, or 1 where the range has fewer.
    width: usize,
}

impl Groups<'_> {
    fn count(&self) -> usize {
        self.rows.len().div_ceil(self.width)
    }

    /// Groups that share no row with the one before.
    fn whole(&self) -> usize {
        self.rows.len() / self.width
    }

    /// First row of group `i`; where the last group is not full, it shares rows with the one before.
    fn row(&self, i: usize) -> usize {
        (self.rows.start + i * self.width).min(self.rows.end - self.width)
    }

    fn group<P: Product>(&self, i: usize) -> Group {
        let (w, row) = (self.w, self.row(i));
        let blocks = w.cols / BLOCK;
        let group_bytes = (self.width * blocks * P::BLOCK_BYTES).max(1);
        let near = group_bytes <= P::NEAR_BYTES;
        let next = i + if near { 1 } else { FAR_BYTES.div_ceil(group_bytes) };
        let next = &w.bytes[self.row(next) * w.row_stride..];
        let mut ahead = Ahead::new(next, w.row_stride, P::ROWS, P::BLOCK_BYTES, blocks);
        ahead.near = near;
        Group {
            first: w.bytes[row * w.row_stride..].as_ptr(),
            stride: if self.width == P::ROWS { w.row_stride } else { 0 },
            row,
            width: self.width,
            ahead,
        }
    }
}

/// Product of block weights and activation rows.
///
/// # Safety
/// The operands passed `check`; the processor has the instruction set of `P`.
#[inline(always)]
pub(super) unsafe fn matmul<P: Product>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Input<'_>,
    out: &Output<'_>,
    scratch: &mut [u8],
) {
    let x = ActivationRows::new(x, w.cols);
    let width = if rows.len() < P::ROWS { 1 } else { P::ROWS };
    let groups = Groups { w, rows, width };
    // SAFETY: as promised to this function.
    unsafe {
        match Panels::new::<P>(&groups, &x, scratch) {
            Some(panels) => {
                P::begin();
                panels.matmul::<P>(out);
                P::end();
            }
            None => from_rows::<P>(&groups, &x, out),
        }
    }
}

/// Most tokens that weights straight from the file are unpacked for at once.
const ROWS_TOKENS: usize = 4;
/// Bytes of weights that stay in a second-level cache while all tokens pass over them.
const WEIGHTS_BYTES: usize = 128 << 10;

/// Groups of rows meet the tokens as they lie in the file.
///
/// # Safety
/// As [`matmul`].
#[inline(always)]
unsafe fn from_rows<P: Product>(groups: &Groups<'_>, x: &ActivationRows<'_>, out: &Output<'_>) {
    let (count, tokens) = (groups.count(), x.tokens.count());
    let group_bytes = (x.cols / BLOCK * P::BLOCK_BYTES * groups.width).max(1);
    let panel = (WEIGHTS_BYTES / group_bytes).max(1);
    let mut first = 0;
    while first < count {
        let end = count.min(first + panel);
        let mut t = 0;
        while t < tokens {
            let here = (tokens - t).min(ROWS_TOKENS);
            for i in first..end {
                let group = groups.group::<P>(i);
                // SAFETY: as promised to this function.
                unsafe {
                    match here {
                        1 => P::rows::<1>(&group, x, t, out),
                        2 => P::rows::<2>(&group, x, t, out),
                        3 => P::rows::<3>(&group, x, t, out),
                        _ => P::rows::<ROWS_TOKENS>(&group, x, t, out),
                    }
                }
            }
            t += here;
        }
        first = end;
    }
}

/// Rows of a panel.
const PANEL_ROWS: usize = 128;
/// Most blocks of a panel's rows.
const MAX_PANEL_BLOCKS: usize = 64;

/// Bytes of a panel for one block of `rows` rows: 32 codes and a scale (F32) each.
pub(super) const fn panel_bytes(rows: usize) -> usize {
    rows * (BLOCK + 4)
}

/// Bytes of one block of a packed tile: 32 codes, a scale (F32) and an offset (i32) for each of its tokens.
pub(super) const fn tile_bytes(tokens: usize) -> usize {
    tokens * (BLOCK + 8)
}

/// A product by way of panels.
struct Panels<'a> {
    groups: &'a Groups<'a>,
    x: &'a ActivationRows<'a>,
    panel: &'a mut [u8],
    tile: &'a mut [u8],
}

impl<'a> Panels<'a> {
    /// `None` where unpacking does not pay: few tokens, few rows, or no room for it.
    #[inline(always)]
    fn new<P: Product>(groups: &'a Groups<'a>, x: &'a ActivationRows<'a>, scratch: &'a mut [u8]) -> Option<Self> {
        const { assert!(P::TILE <= MAX_TILE && PANEL_ROWS.is_multiple_of(P::ROWS)) };
        const { assert!(P::PANEL_BLOCKS <= MAX_PANEL_BLOCKS) };
        const { assert!(MAX_PANEL_BLOCKS * (panel_bytes(PANEL_ROWS) + tile_bytes(MAX_TILE)) <= super::SCRATCH_BYTES) };
        if x.tokens.count() <= ROWS_TOKENS || groups.width < P::ROWS {
            return None;
        }
        let (panel, rest) = scratch.split_at_mut_checked(P::PANEL_BLOCKS * panel_bytes(PANEL_ROWS))?;
        let tile = rest.get_mut(..P::PANEL_BLOCKS * tile_bytes(P::TILE))?;
        Some(Self { groups, x, panel, tile })
    }

    /// # Safety
    /// As [`matmul`].
    #[inline(always)]
    unsafe fn matmul<P: Product>(self, out: &Output<'_>) {
        let (whole, count) = (self.groups.whole(), self.groups.count());
        let blocks = self.x.cols / BLOCK;
        let mut first = 0;
        while first < count {
            // A last group that shares rows with the one before comes alone: it begins its sums anew.
            let end = if first < whole { whole.min(first + PANEL_ROWS / P::ROWS) } else { count };
            let mut block = 0;
            loop {
                let chunk = block..blocks.min(block + P::PANEL_BLOCKS);
                let step = chunk.len() * panel_bytes(P::ROWS);
                for (i, panel) in (first..end).zip(self.panel.chunks_exact_mut(step.max(1))) {
                    // SAFETY: the panel has room for whole groups of the chunk; the rest as promised to this function.
                    unsafe { P::unpack(&self.groups.group::<P>(i), chunk.clone(), panel.as_mut_ptr()) }
                }
                let mut t = 0;
                while t < self.x.tokens.count() {
                    let tokens = t..self.x.tokens.count().min(t + P::TILE);
                    pack(self.x, tokens.clone(), chunk.clone(), P::TILE, self.tile);
                    for i in first..end {
                        let panel = self.panel[(i - first) * step..].as_ptr();
                        let mut sums = Sums { rows: [core::ptr::null_mut(); MAX_TILE], tokens: tokens.len() };
                        for (sums, t) in sums.rows.iter_mut().zip(tokens.clone()) {
                            // SAFETY: `check` saw that tokens and rows of the product lie inside the output.
                            *sums = unsafe { out.at(self.x.tokens.row(t), self.groups.row(i)) };
                        }
                        // SAFETY: panel and tile were just written; the rest as promised to this function.
                        unsafe { P::tile(panel, self.tile.as_ptr(), chunk.len(), &sums, block == 0) }
                    }
                    t = tokens.end;
                }
                block = chunk.end;
                if block == blocks {
                    break;
                }
            }
            first = end;
        }
    }
}

/// Packs blocks of tokens' activations: per block 32 codes for each of `tile` tokens, then their scales, then their
/// offsets.
#[inline(always)]
fn pack(x: &ActivationRows<'_>, tokens: Range<usize>, blocks: Range<usize>, tile: usize, out: &mut [u8]) {
    for (i, t) in tokens.enumerate() {
        let row = x.row(t);
        let codes = row.codes.as_chunks::<BLOCK>().0[blocks.clone()].iter();
        let numbers = row.scales[blocks.clone()].iter().zip(&row.offsets[blocks.clone()]);
        for ((codes, (scale, offset)), out) in codes.zip(numbers).zip(out.chunks_exact_mut(tile_bytes(tile))) {
            out[i * BLOCK..][..BLOCK].copy_from_slice(bytemuck::cast_slice(codes));
            out[tile * BLOCK + 4 * i..][..4].copy_from_slice(&scale.to_ne_bytes());
            out[tile * (BLOCK + 4) + 4 * i..][..4].copy_from_slice(&offset.to_ne_bytes());
        }
    }
}
