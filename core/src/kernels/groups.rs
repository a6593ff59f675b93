//! The way of a quantised product through a matrix: panels and groups of rows, chunks and tiles of tokens.

use super::operands::ActivationRows;
use super::prefetch::Ahead;
use super::{Input, Matrix, Output};
use crate::quant::BLOCK;
use core::ops::Range;

/// The inner loop of a quantised product on one instruction set.
pub(super) trait Product {
    /// Rows that are worked on at once, a lane each.
    const ROWS: usize;
    /// Bytes of a block of weights.
    const BLOCK_BYTES: usize;

    /// The rows of `group` times tokens `t..t + T`. Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The operands passed `check`; the processor has the instruction set.
    unsafe fn tile<const T: usize>(group: &Group, x: &ActivationRows<'_>, t: usize, out: &Output<'_>);
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

    /// First row of group `i`; where the last group is not full, it shares rows with the one before.
    fn row(&self, i: usize) -> usize {
        (self.rows.start + i * self.width).min(self.rows.end - self.width)
    }

    fn group<P: Product>(&self, i: usize) -> Group {
        let (w, row) = (self.w, self.row(i));
        let blocks = w.cols / BLOCK;
        Group {
            first: w.bytes[row * w.row_stride..].as_ptr(),
            stride: if self.width == P::ROWS { w.row_stride } else { 0 },
            row,
            width: self.width,
            ahead: Ahead::new(w, self.row(i + 1), P::ROWS, P::BLOCK_BYTES, blocks),
        }
    }
}

/// Bytes of weights that stay in a second-level cache while all tokens pass over them.
const PANEL_BYTES: usize = 128 << 10;
/// Bytes of activations that stay there while a panel passes over them.
const CHUNK_BYTES: usize = 64 << 10;

/// Product of block weights and activation rows: a panel of weights comes from memory once, and each panel meets the
/// tokens in chunks.
///
/// # Safety
/// The operands passed `check`; the processor has the instruction set of `P`.
#[inline(always)]
pub(super) unsafe fn matmul<P: Product>(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    let x = ActivationRows::new(x, w.cols);
    let width = if rows.len() < P::ROWS { 1 } else { P::ROWS };
    let groups = Groups { w, rows, width };
    let row_bytes = (w.cols / BLOCK * P::BLOCK_BYTES).max(1);
    let panel = (PANEL_BYTES / (row_bytes * width)).max(1);
    let chunk = (CHUNK_BYTES / w.cols.max(1)).next_multiple_of(TOKENS).max(TOKENS);
    let (mut first, count) = (0, groups.count());
    while first < count {
        let end = count.min(first + panel);
        let mut t = 0;
        while t < x.count {
            let tokens = t..x.count.min(t + chunk);
            t = tokens.end;
            for i in first..end {
                // SAFETY: as promised to this function.
                unsafe { over_tokens::<P>(&groups.group::<P>(i), &x, tokens.clone(), out) }
            }
        }
        first = end;
    }
}

/// Tokens per tile: weights are unpacked once for as many.
const TOKENS: usize = 4;

#[inline(always)]
unsafe fn over_tokens<P: Product>(group: &Group, x: &ActivationRows<'_>, tokens: Range<usize>, out: &Output<'_>) {
    let mut t = tokens.start;
    // SAFETY: as promised to the caller.
    unsafe {
        while t + TOKENS <= tokens.end {
            P::tile::<TOKENS>(group, x, t, out);
            t += TOKENS;
        }
        match tokens.end - t {
            0 => {}
            1 => P::tile::<1>(group, x, t, out),
            2 => P::tile::<2>(group, x, t, out),
            _ => P::tile::<3>(group, x, t, out),
        }
    }
}
