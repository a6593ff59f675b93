//! The way of a quantised product through a matrix.
//!
//! Few tokens: rows straight from the file, a lane per row. The lanes' rows lie far apart, each at the start of an equal
//! part of the range, so that every lane reads a stream of its own from the first byte of its part to the last: that is
//! what the hardware's prefetchers follow best. (On a busy Zen 4 core eight streams read Q80 at 90 % of the speed of a
//! plain read loop; eight neighbouring rows, with prefetching by instruction, at 73 %.)
//!
//! Many tokens: the codes of a *panel* of rows are unpacked into scratch once and then meet tile after tile of tokens,
//! whose activations are packed so that a tile is one run of memory.
//!
//! Rows that lie interleaved meet few tokens column by column: the tokens are packed, too, and all of them pass over a column
//! of blocks while it is at hand, so that a matrix is one stream of memory.
//!
//! All ways add up blocks in the same order, so they give the same bits.

use super::operands::ActivationRows;
use super::{Input, Matrix, Output, Tokens};
use crate::quant::{BLOCK, INTERLEAVED_ROWS, Order};
use core::ops::Range;

/// The inner loop of a product of few tokens on one instruction set.
pub(super) trait FromRows {
    /// Rows that are worked on at once, a lane each, at most [`MAX_ROWS`].
    const ROWS: usize;

    /// The rows of some groups times tokens `t..t + T`; results go where [`Group::write`] puts them. Must be
    /// `#[inline(always)]`.
    ///
    /// # Safety
    /// The operands passed `check`; the processor has the instruction set.
    unsafe fn rows<const G: usize, const T: usize>(
        groups: &[Group; G],
        x: &ActivationRows<'_>,
        t: usize,
        out: &Output<'_>,
    );
}

/// The activations of a product of many tokens, which are packed tile by tile.
pub(super) trait Activations {
    /// Bytes of a block of one token in a packed tile.
    const BLOCK_BYTES: usize;

    /// Which rows.
    fn tokens(&self) -> Tokens<'_>;
    /// Values of a row.
    fn cols(&self) -> usize;
    /// Packs blocks of tokens to `out`, with room for `tile` tokens in each block. Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the instruction set of the panels.
    unsafe fn pack(&self, tokens: Range<usize>, blocks: Range<usize>, tile: usize, out: &mut [u8]);
}

/// The inner loops of a product of many tokens on one instruction set. All functions must be `#[inline(always)]`.
pub(super) trait Panel {
    /// Activations in the form that `tile` wants.
    type Activations<'x>: Activations;
    /// Rows that are worked on at once.
    const ROWS: usize;
    /// Bytes of a block of one row in a panel.
    const BLOCK_BYTES: usize;
    /// Tokens of a full tile, at most [`MAX_TILE`].
    const TILE: usize;
    /// Most rows of a panel, which all tokens pass over: a lane's panel stays in a second-level cache.
    const PANEL_ROWS: usize = 128;
    /// Most blocks of a row in a panel.
    const PANEL_BLOCKS: usize = 64;
    /// Most tokens that interleaved rows meet by `columns`, at most [`MAX_TILE`]; unpacking pays for more. 0: none.
    const FEW_INTERLEAVED: usize = 0;
    /// Bytes of a column of blocks of interleaved rows.
    const COLUMN_BYTES: usize = 0;

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

    /// Unpacks blocks of the rows of `group` to `panel`, in the form that `tile` wants.
    ///
    /// # Safety
    /// The group has `ROWS` rows inside its matrix; `panel` has room for `blocks`; the processor has the instruction set.
    unsafe fn unpack(group: &Group, blocks: Range<usize>, panel: *mut u8);

    /// Adds the products of a panel's rows and of the packed tokens to `sums`, which begin at +0 where `first` is set.
    ///
    /// # Safety
    /// After `begin`; `unpack` wrote the panel and [`Activations::pack`] the tile, both of `blocks` blocks; every pointer
    /// of `sums` that counts is valid for `ROWS` values; the processor has the instruction set.
    unsafe fn tile(panel: *const u8, x: *const u8, blocks: usize, sums: &Sums, first: bool);

    /// As `tile`, for sixteen interleaved rows as they lie, whose first column is `w`, and a tile with room for as many
    /// tokens as count.
    ///
    /// # Safety
    /// As `tile`, without `begin`; [`Panel::FEW_INTERLEAVED`] is not 0.
    #[inline(always)]
    unsafe fn columns(_w: *const u8, _x: *const u8, _blocks: usize, _sums: &Sums, _first: bool) {
        unreachable!("interleaved rows are unpacked")
    }
}

/// Most rows of a group.
pub(super) const MAX_ROWS: usize = 16;
/// Most tokens of a tile.
pub(super) const MAX_TILE: usize = 16;

/// Where the sums of a tile go.
pub(super) struct Sums {
    /// The first value of each token.
    pub rows: [*mut f32; MAX_TILE],
    /// Tokens that count.
    pub tokens: usize,
}

/// Rows that are worked on at once: row `row + i * spread` of the matrix in lane `i`.
pub(super) struct Group {
    /// Start of the first row.
    pub first: *const u8,
    /// Bytes from a lane's row to the next lane's: 0 where one row stands in all lanes. No matter where rows are
    /// interleaved.
    pub stride: usize,
    /// Where rows are interleaved, the first row's place in its sixteen, at whose start `first` points; else 0.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "rows lie as in files there"))]
    pub lane: usize,
    row: usize,
    spread: usize,
    /// Lanes whose results count: all, or the first.
    pub width: usize,
}

impl Group {
    /// `width` rows of `w`, the first being `row`.
    fn new(w: &Matrix<'_>, row: usize, spread: usize, width: usize) -> Self {
        let stride = if width > 1 { spread * w.row_stride } else { 0 };
        let lane = if w.order == Order::Interleaved { row % INTERLEAVED_ROWS } else { 0 };
        let first = w.bytes[(row - lane) * w.row_stride..].as_ptr();
        Self { first, stride, lane, row, spread, width }
    }

    /// Writes the lanes' results for the token of output row `token`.
    ///
    /// # Safety
    /// `check` accepted the output for the rows of this group and this token.
    #[inline(always)]
    pub unsafe fn write(&self, lanes: &[f32], out: &Output<'_>, token: usize) {
        for (i, value) in lanes.iter().take(self.width).enumerate() {
            // SAFETY: as promised to this function.
            unsafe { out.at(token, self.row + i * self.spread).write(*value) }
        }
    }
}

/// Product of block weights and activation rows.
///
/// # Safety
/// The operands passed `check`; the processor has the instruction set of `F` and `P`.
#[inline(always)]
pub(super) unsafe fn matmul<F: FromRows, P: for<'x> Panel<Activations<'x> = ActivationRows<'x>>>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Input<'_>,
    out: &Output<'_>,
    scratch: &mut [u8],
) {
    let x = ActivationRows::new(x, w.cols);
    // SAFETY: as promised to this function.
    unsafe {
        if !by_columns::<P>(w, rows.clone(), &x, out, scratch) && !by_panels::<P>(w, rows.clone(), &x, out, scratch) {
            from_rows::<F>(w, rows, &x, out);
        }
    }
}

/// Product by way of panels; `false`, and nothing done, where unpacking does not pay: few tokens, few rows, or no room.
///
/// # Safety
/// The operands passed `check`; the processor has the instruction set of `P`.
#[inline(always)]
pub(super) unsafe fn by_panels<P: Panel>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &P::Activations<'_>,
    out: &Output<'_>,
    scratch: &mut [u8],
) -> bool {
    let Some(panels) = Panels::<P>::new(w, rows, x, scratch) else { return false };
    // SAFETY: as promised to this function.
    unsafe {
        P::begin();
        panels.matmul(out);
        P::end();
    }
    true
}

/// Most tokens that weights straight from the file are unpacked for at once.
pub(super) const FEW_TOKENS: usize = 4;

/// Rows meet the tokens as they lie in the file.
///
/// # Safety
/// As [`matmul`].
#[inline(always)]
unsafe fn from_rows<F: FromRows>(w: &Matrix<'_>, rows: Range<usize>, x: &ActivationRows<'_>, out: &Output<'_>) {
    const { assert!(F::ROWS <= MAX_ROWS) };
    let groups = rows.len() / F::ROWS;
    // SAFETY: as promised to this function.
    unsafe {
        if w.order == Order::Interleaved {
            if x.tokens.count() == 1 {
                if F::ROWS == INTERLEAVED_ROWS {
                    interleaved::<F, 4>(w, rows, x, out);
                } else {
                    interleaved::<F, 8>(w, rows, x, out);
                }
            } else {
                for row in rows.step_by(F::ROWS) {
                    all_tokens::<F>(Group::new(w, row, 1, F::ROWS), x, out);
                }
            }
            return;
        }
        for i in 0..groups {
            all_tokens::<F>(Group::new(w, rows.start + i, groups, F::ROWS), x, out);
        }
        if groups == 0 {
            for row in rows {
                all_tokens::<F>(Group::new(w, row, 1, 1), x, out);
            }
        } else if groups * F::ROWS < rows.len() {
            // The last rows, some of them for the second time.
            all_tokens::<F>(Group::new(w, rows.end - F::ROWS, 1, F::ROWS), x, out);
        }
    }
}

/// Interleaved rows meet one token: `G` groups at a time, which read different parts of the matrix, all rows of a sixteen.
///
/// # Safety
/// As [`matmul`].
#[inline(always)]
unsafe fn interleaved<F: FromRows, const G: usize>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &ActivationRows<'_>,
    out: &Output<'_>,
) {
    let per_sixteen = INTERLEAVED_ROWS / F::ROWS;
    let parts = G / per_sixteen;
    let step = rows.len() / INTERLEAVED_ROWS / parts * INTERLEAVED_ROWS;
    let group = |row| Group::new(w, row, 1, F::ROWS);
    // SAFETY: as promised to this function.
    unsafe {
        for i in (0..step).step_by(INTERLEAVED_ROWS) {
            let row = |g: usize| rows.start + i + g / per_sixteen * step + g % per_sixteen * F::ROWS;
            F::rows::<G, 1>(&core::array::from_fn(|g| group(row(g))), x, 0, out);
        }
        for row in (rows.start + parts * step..rows.end).step_by(F::ROWS) {
            F::rows::<1, 1>(&[group(row)], x, 0, out);
        }
    }
}

/// A group meets all tokens.
///
/// # Safety
/// As [`matmul`].
#[inline(always)]
unsafe fn all_tokens<F: FromRows>(group: Group, x: &ActivationRows<'_>, out: &Output<'_>) {
    let count = x.tokens.count();
    let group = [group];
    let mut t = 0;
    while t < count {
        let tokens = (count - t).min(FEW_TOKENS);
        // SAFETY: as promised to this function.
        unsafe {
            match tokens {
                1 => F::rows::<1, 1>(&group, x, t, out),
                2 => F::rows::<1, 2>(&group, x, t, out),
                3 => F::rows::<1, 3>(&group, x, t, out),
                _ => F::rows::<1, FEW_TOKENS>(&group, x, t, out),
            }
        }
        t += tokens;
    }
}

/// Product of interleaved rows, which few packed tokens meet column by column; `false`, and nothing done, where this is
/// not the way, or there is no room to pack.
///
/// # Safety
/// As [`matmul`].
#[inline(always)]
unsafe fn by_columns<'x, P: Panel<Activations<'x> = ActivationRows<'x>>>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &ActivationRows<'x>,
    out: &Output<'_>,
    scratch: &mut [u8],
) -> bool {
    let (blocks, tokens) = (x.cols / BLOCK, x.tokens.count());
    if w.order != Order::Interleaved || !(2..=P::FEW_INTERLEAVED).contains(&tokens) {
        return false;
    }
    let room = scratch.len() / tile_bytes(tokens);
    if room == 0 {
        return false;
    }
    let mut block = 0;
    loop {
        let chunk = block..blocks.min(block + room);
        // SAFETY: rows and tokens lie inside their matrices and the output, as `check` saw; the tile was just written.
        unsafe {
            x.pack(0..tokens, chunk.clone(), tokens, scratch);
            for row in rows.clone().step_by(INTERLEAVED_ROWS) {
                let mut sums = Sums { rows: [core::ptr::null_mut(); MAX_TILE], tokens };
                for (t, sums) in sums.rows[..tokens].iter_mut().enumerate() {
                    *sums = out.at(x.tokens.row(t), row);
                }
                let w = w.bytes[row * w.row_stride + block * P::COLUMN_BYTES..].as_ptr();
                P::columns(w, scratch.as_ptr(), chunk.len(), &sums, block == 0);
            }
        }
        block = chunk.end;
        if block == blocks {
            return true;
        }
    }
}

/// Bytes of a panel for one block of `rows` rows: 32 codes and a scale (F32) each.
pub(super) const fn panel_bytes(rows: usize) -> usize {
    rows * (BLOCK + 4)
}

/// Bytes of one block of a packed tile: 32 codes, a scale (F32) and an offset (i32) for each of its tokens.
pub(super) const fn tile_bytes(tokens: usize) -> usize {
    tokens * (BLOCK + 8)
}

/// A product by way of panels.
struct Panels<'a, 'x, P: Panel> {
    w: &'a Matrix<'a>,
    rows: Range<usize>,
    x: &'a P::Activations<'x>,
    panel: &'a mut [u8],
    tile: &'a mut [u8],
}

impl<'a, 'x, P: Panel> Panels<'a, 'x, P> {
    /// Bytes of one block of a packed tile.
    const TILE_BYTES: usize = P::TILE * <P::Activations<'x> as Activations>::BLOCK_BYTES;

    /// `None` where unpacking does not pay.
    #[inline(always)]
    fn new(w: &'a Matrix<'a>, rows: Range<usize>, x: &'a P::Activations<'x>, scratch: &'a mut [u8]) -> Option<Self> {
        const { assert!(P::TILE <= MAX_TILE && P::PANEL_ROWS.is_multiple_of(P::ROWS)) };
        const {
            let bytes = P::PANEL_BLOCKS * (P::PANEL_ROWS * P::BLOCK_BYTES + Self::TILE_BYTES);
            assert!(bytes <= super::SCRATCH_BYTES);
        }
        if x.tokens().count() <= FEW_TOKENS || rows.len() < P::ROWS {
            return None;
        }
        let (panel, rest) = scratch.split_at_mut_checked(P::PANEL_BLOCKS * P::PANEL_ROWS * P::BLOCK_BYTES)?;
        let tile = rest.get_mut(..P::PANEL_BLOCKS * Self::TILE_BYTES)?;
        Some(Self { w, rows, x, panel, tile })
    }

    /// # Safety
    /// As [`by_panels`].
    #[inline(always)]
    unsafe fn matmul(self, out: &Output<'_>) {
        let (whole, count) = (self.rows.len() / P::ROWS, self.rows.len().div_ceil(P::ROWS));
        let (blocks, all_tokens) = (self.x.cols() / BLOCK, self.x.tokens());
        // Where the last group is not full, it shares rows with the one before.
        let row = |i: usize| (self.rows.start + i * P::ROWS).min(self.rows.end - P::ROWS);
        let mut first = 0;
        while first < count {
            // A last group that shares rows with the one before comes alone: it begins its sums anew.
            let end = if first < whole { whole.min(first + P::PANEL_ROWS / P::ROWS) } else { count };
            let mut block = 0;
            loop {
                let chunk = block..blocks.min(block + P::PANEL_BLOCKS);
                let step = chunk.len() * P::ROWS * P::BLOCK_BYTES;
                for (i, panel) in (first..end).zip(self.panel.chunks_exact_mut(step.max(1))) {
                    let group = Group::new(self.w, row(i), 1, P::ROWS);
                    // SAFETY: the panel has room for whole groups of the chunk; the rest as promised to this function.
                    unsafe { P::unpack(&group, chunk.clone(), panel.as_mut_ptr()) }
                }
                let mut t = 0;
                while t < all_tokens.count() {
                    let tokens = t..all_tokens.count().min(t + P::TILE);
                    // SAFETY: as promised to this function.
                    unsafe { self.x.pack(tokens.clone(), chunk.clone(), P::TILE, self.tile) }
                    for i in first..end {
                        let panel = self.panel[(i - first) * step..].as_ptr();
                        let mut sums = Sums { rows: [core::ptr::null_mut(); MAX_TILE], tokens: tokens.len() };
                        for (sums, t) in sums.rows.iter_mut().zip(tokens.clone()) {
                            // SAFETY: `check` saw that tokens and rows of the product lie inside the output.
                            *sums = unsafe { out.at(all_tokens.row(t), row(i)) };
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

/// A packed block is 32 codes for each token of the tile, then their scales, then their offsets.
impl Activations for ActivationRows<'_> {
    const BLOCK_BYTES: usize = tile_bytes(1);

    #[inline(always)]
    fn tokens(&self) -> Tokens<'_> {
        self.tokens
    }

    #[inline(always)]
    fn cols(&self) -> usize {
        self.cols
    }

    #[inline(always)]
    unsafe fn pack(&self, tokens: Range<usize>, blocks: Range<usize>, tile: usize, out: &mut [u8]) {
        for (i, t) in tokens.enumerate() {
            let row = self.row(t);
            let codes = row.codes.as_chunks::<BLOCK>().0[blocks.clone()].iter();
            let numbers = row.scales[blocks.clone()].iter().zip(&row.offsets[blocks.clone()]);
            for ((codes, (scale, offset)), out) in codes.zip(numbers).zip(out.chunks_exact_mut(tile_bytes(tile))) {
                out[i * BLOCK..][..BLOCK].copy_from_slice(bytemuck::cast_slice(codes));
                out[tile * BLOCK + 4 * i..][..4].copy_from_slice(&scale.to_ne_bytes());
                out[tile * (BLOCK + 4) + 4 * i..][..4].copy_from_slice(&offset.to_ne_bytes());
            }
        }
    }
}
