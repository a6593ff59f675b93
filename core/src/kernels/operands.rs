//! What products work on: a matrix in mapped bytes, token rows, and an output that several threads fill.

use crate::quant::{BLOCK, DType, INTERLEAVED_ROWS, Order, interleaves};
use core::marker::PhantomData;
use core::ops::Range;

/// Weights as they lie in the file, row by row, or interleaved; any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'w> {
    /// Type of the weights.
    pub dtype: DType,
    /// How the rows lie. Interleaved ones ([`interleaves`]) have no gaps, their number is a multiple of
    /// [`INTERLEAVED_ROWS`].
    pub order: Order,
    /// The rows; the last one may end without the padding of its stride.
    pub bytes: &'w [u8],
    /// Rows: outputs of the product.
    pub rows: usize,
    /// Columns: inputs of the product. A multiple of 32 for block types.
    pub cols: usize,
    /// Bytes from the start of a row to the start of the next.
    pub row_stride: usize,
}

/// Tokens of a product: which rows of its input and of its output.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'x> {
    /// As many rows from the first on.
    First(usize),
    /// These rows, such as the tokens that were routed to an expert.
    Listed(&'x [u32]),
}

impl Tokens<'_> {
    /// How many.
    #[inline(always)]
    pub const fn count(&self) -> usize {
        match self {
            Self::First(count) => *count,
            Self::Listed(rows) => rows.len(),
        }
    }

    /// Row of token `t`.
    #[inline(always)]
    pub(super) fn row(&self, t: usize) -> usize {
        match self {
            Self::First(_) => t,
            Self::Listed(rows) => rows[t] as usize,
        }
    }

    /// Rows up to the last one.
    fn extent(&self) -> usize {
        match self {
            Self::First(count) => *count,
            Self::Listed(rows) => rows.iter().max().map_or(0, |row| *row as usize + 1),
        }
    }
}

/// Activations, one row per token.
#[derive(Clone, Copy, Debug)]
pub enum Input<'x> {
    /// Plain values, for F32, F16 and Q80 weights.
    F32 {
        /// The rows.
        x: &'x [f32],
        /// Values from the start of a row to the start of the next.
        stride: usize,
        /// Which rows.
        tokens: Tokens<'x>,
    },
    /// Activation rows as [`Kernels::quantize_activations`](super::Kernels::quantize_activations) makes them, for
    /// Q40 and Q80 weights; 64-byte aligned.
    Q80 {
        /// The rows.
        rows: &'x [u8],
        /// Bytes from the start of a row to the start of the next, a multiple of 64.
        stride: usize,
        /// Which rows.
        tokens: Tokens<'x>,
    },
}

impl<'x> Input<'x> {
    /// Which rows.
    pub const fn tokens(&self) -> Tokens<'x> {
        match self {
            Input::F32 { tokens, .. } | Input::Q80 { tokens, .. } => *tokens,
        }
    }

    /// Type of the activations.
    pub const fn dtype(&self) -> DType {
        match self {
            Input::F32 { .. } => DType::F32,
            Input::Q80 { .. } => DType::Q80,
        }
    }
}

/// Where a product goes: the value of weight row `r` for token row `t` at `t * stride + r`.
///
/// Several threads may hold such views of one buffer while each writes rows of its own.
#[derive(Debug)]
pub struct Output<'o> {
    ptr: *mut f32,
    stride: usize,
    len: usize,
    buffer: PhantomData<&'o mut [f32]>,
}

impl<'o> Output<'o> {
    /// A view of a buffer that nobody else touches.
    pub fn from_slice(buffer: &'o mut [f32], stride: usize) -> Self {
        Self { ptr: buffer.as_mut_ptr(), stride, len: buffer.len(), buffer: PhantomData }
    }

    /// A view of `len` values at `ptr`.
    ///
    /// # Safety
    /// For `'o`, `ptr` is valid for writes of `len` values, and nobody else reads or writes those elements
    /// that are written through this view: rows `r` of the products it is given to, for all their tokens.
    pub unsafe fn from_raw(ptr: *mut f32, stride: usize, len: usize) -> Self {
        Self { ptr, stride, len, buffer: PhantomData }
    }

    /// Address of the value of token row `t` and weight row `r`.
    ///
    /// # Safety
    /// [`check`] accepted this view for a product with these rows.
    #[inline(always)]
    pub(super) unsafe fn at(&self, t: usize, r: usize) -> *mut f32 {
        // SAFETY: inside the buffer, as `check` saw.
        unsafe { self.ptr.add(t * self.stride + r) }
    }
}

/// Memory that a product of many tokens unpacks weights into: its bytes at most, 64-byte aligned.
///
/// With less, products are the same and slower; one token at a time needs none.
pub const SCRATCH_BYTES: usize = 384 << 10;

/// Whether there is a product of `weight` weights with `input` activations.
pub const fn supports(weight: DType, input: DType) -> bool {
    match weight {
        DType::F32 | DType::F16 => matches!(input, DType::F32),
        DType::Q40 => matches!(input, DType::Q80),
        DType::Q80 => matches!(input, DType::F32 | DType::Q80),
    }
}

/// Bytes of an activation row of `n` values, a multiple of 64.
///
/// The row is not a file format: `n` codes (i8), `n / 32` scales (F32, already rounded to F16), `n / 32` offsets (i32),
/// padding. An offset is -8 times the sum of its block's codes: it takes back what a product with unsigned nibbles
/// counts too much. The number of cache lines is odd, so that the rows of a batch do not meet in a few sets of a cache.
pub const fn activation_row_bytes(n: usize) -> usize {
    assert!(n.is_multiple_of(BLOCK), "activations come in blocks of 32");
    (n + n / BLOCK * 8).next_multiple_of(64) | 64
}

/// Where the parts of some values of an activation row lie, in bytes from the start of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationParts {
    /// A code (i8) per value.
    pub codes: Range<usize>,
    /// A scale (F32) per block.
    pub scales: Range<usize>,
    /// An offset (i32) per block.
    pub offsets: Range<usize>,
}

impl ActivationParts {
    /// The parts of `values`, whole blocks of a row of `n` values.
    pub const fn of(n: usize, values: Range<usize>) -> Self {
        assert!(n.is_multiple_of(BLOCK) && values.end <= n, "activations come in blocks of 32");
        assert!(values.start.is_multiple_of(BLOCK) && values.end.is_multiple_of(BLOCK), "parts are whole blocks");
        let (start, end, scales) = (values.start / BLOCK * 4, values.end / BLOCK * 4, n);
        let offsets = scales + n / BLOCK * 4;
        Self { codes: values, scales: scales + start..scales + end, offsets: offsets + start..offsets + end }
    }
}

/// Codes, scales and offsets of an activation row of `n` values.
pub(super) fn split_row_mut(row: &mut [u8], n: usize) -> (&mut [i8], &mut [f32], &mut [i32]) {
    let bytes = activation_row_bytes(n);
    assert!(row.len() >= bytes, "activation row: {} bytes for {n} values, {bytes} needed", row.len());
    assert!(row.as_ptr().addr().is_multiple_of(64), "activation row: not 64-byte aligned");
    let blocks = n / BLOCK;
    let (codes, rest) = row.split_at_mut(n);
    let (scales, rest) = rest.split_at_mut(blocks * 4);
    (
        bytemuck::cast_slice_mut(codes),
        bytemuck::cast_slice_mut(scales),
        bytemuck::cast_slice_mut(&mut rest[..blocks * 4]),
    )
}

/// Activation rows of `cols` values.
pub(super) struct ActivationRows<'x> {
    rows: &'x [u8],
    stride: usize,
    /// Which rows.
    pub tokens: Tokens<'x>,
    /// Values of a row.
    pub cols: usize,
}

/// The parts of an activation row.
pub(super) struct ActivationRow<'x> {
    pub codes: &'x [i8],
    pub scales: &'x [f32],
    #[allow(dead_code, reason = "the reference does without")]
    pub offsets: &'x [i32],
}

impl<'x> ActivationRows<'x> {
    /// The rows of an input that passed [`check`] for block weights.
    pub fn new(x: &Input<'x>, cols: usize) -> Self {
        match *x {
            Input::Q80 { rows, stride, tokens } => Self { rows, stride, tokens, cols },
            Input::F32 { .. } => unreachable!("checked: block weights meet Q80 activations"),
        }
    }

    /// The row of token `t`.
    #[inline(always)]
    pub fn row(&self, t: usize) -> ActivationRow<'x> {
        let scales_bytes = self.cols / BLOCK * 4;
        let (codes, rest) = self.rows[self.tokens.row(t) * self.stride..].split_at(self.cols);
        let (scales, rest) = rest.split_at(scales_bytes);
        ActivationRow {
            codes: bytemuck::cast_slice(codes),
            scales: bytemuck::cast_slice(scales),
            offsets: bytemuck::cast_slice(&rest[..scales_bytes]),
        }
    }
}

/// Elements from the first to the last of `count` rows of `len`, `stride` apart; `None` on overflow or overlap.
pub(super) fn extent(count: usize, stride: usize, len: usize) -> Option<usize> {
    match count {
        0 => Some(0),
        1 => Some(len),
        _ if stride < len => None,
        _ => (count - 1).checked_mul(stride)?.checked_add(len),
    }
}

/// Panics unless the operands of a product fit each other.
pub(super) fn check(w: &Matrix<'_>, rows: &Range<usize>, x: &Input<'_>, out: &Output<'_>) {
    assert!(supports(w.dtype, x.dtype()), "matmul: {} weights with {} input", w.dtype, x.dtype());
    assert!(rows.start <= rows.end && rows.end <= w.rows, "matmul: rows {rows:?} of {}", w.rows);
    let row_bytes = w.dtype.bytes(w.cols as u64).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = row_bytes.and_then(|row_bytes| extent(w.rows, w.row_stride, row_bytes));
    assert!(
        bytes.is_some_and(|bytes| bytes <= w.bytes.len()),
        "matmul: {} x {} {} weights, stride {}, in {} bytes",
        w.rows,
        w.cols,
        w.dtype,
        w.row_stride,
        w.bytes.len()
    );
    if w.order == Order::Interleaved {
        let whole = [w.rows, rows.start, rows.end].iter().all(|row| row.is_multiple_of(INTERLEAVED_ROWS));
        assert!(
            interleaves(w.dtype, x.dtype()) && whole && row_bytes == Some(w.row_stride),
            "matmul: interleaved {} weights, rows {rows:?} of {}, {} columns, stride {}",
            w.dtype,
            w.rows,
            w.cols,
            w.row_stride
        );
    }
    let tokens = x.tokens().extent();
    let (held, needed) = match *x {
        Input::F32 { x, stride, .. } => (x.len(), extent(tokens, stride, w.cols)),
        Input::Q80 { rows, stride, .. } => {
            assert!(
                rows.as_ptr().addr().is_multiple_of(64) && (stride.is_multiple_of(64) || tokens < 2),
                "matmul: activation rows are not 64-byte aligned"
            );
            (rows.len(), extent(tokens, stride, activation_row_bytes(w.cols)))
        }
    };
    assert!(needed.is_some_and(|needed| needed <= held), "matmul: {tokens} tokens of {} in {held}", w.cols);
    let end = extent(tokens, out.stride, rows.end);
    assert!(
        end.is_some_and(|end| end <= out.len),
        "matmul: output of {tokens} tokens, rows {rows:?}, stride {}, in {}",
        out.stride,
        out.len
    );
}
