//! Matrices whose rows are to lie interleaved, cut into pieces that lanes share out.

use dair_core::graph::{Graph, Weight};
use dair_core::io::Pool;
use dair_core::quant::{DType, INTERLEAVED_ROWS, Order};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes that a lane repacks in one go.
const PIECE_BYTES: u64 = 1 << 20;

/// Rows that follow each other: whole groups of [`INTERLEAVED_ROWS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Where they lie.
    pub span: Range<u64>,
    /// Bytes of one group.
    pub group_bytes: u64,
    /// Type of the weights.
    pub dtype: DType,
}

impl Groups {
    /// The matrices of `weight`.
    fn of(weight: &Weight) -> impl Iterator<Item = Self> {
        let Weight { dtype, offset, row_stride, mat_stride, .. } = *weight;
        let (bytes, group_bytes) = (u64::from(weight.rows) * row_stride, row_stride * INTERLEAVED_ROWS as u64);
        (0..u64::from(weight.mats)).map(move |mat| {
            let start = offset + mat * mat_stride;
            Self { span: start..start + bytes, group_bytes, dtype }
        })
    }

    fn pieces(&self) -> impl Iterator<Item = Self> {
        let piece = (PIECE_BYTES / self.group_bytes).max(1) * self.group_bytes;
        let starts = self.span.clone().step_by(piece as usize);
        starts.map(move |start| Self { span: start..self.span.end.min(start + piece), ..*self })
    }
}

/// The matrices of `graph` that lie interleaved, each once, in the order of their bytes.
pub fn interleaved(graph: &Graph<'_>) -> Vec<Groups> {
    let weights = graph.ops.iter().filter_map(|op| op.weight.as_ref());
    let mut matrices: Vec<_> =
        weights.filter(|weight| weight.order == Order::Interleaved).flat_map(Groups::of).collect();
    matrices.retain(|matrix| !matrix.span.is_empty());
    matrices.sort_unstable_by_key(|matrix| matrix.span.start);
    matrices.dedup();
    matrices
}

/// Bytes of `graph`'s matrices that lie interleaved.
pub fn interleaved_bytes(graph: &Graph<'_>) -> u64 {
    interleaved(graph).iter().map(|matrix| matrix.span.end - matrix.span.start).sum()
}

/// Bytes of the largest group of rows that `lanes` lanes interleave at once, one each.
pub fn group_bytes(graph: &Graph<'_>, lanes: usize) -> u64 {
    let largest = interleaved(graph).iter().map(|matrix| matrix.group_bytes).max().unwrap_or(0);
    largest.saturating_mul(lanes as u64)
}

/// Calls `each` with all pieces of `matrices`, which do not overlap, and their bytes in `memory`, in all lanes of `pool`.
///
/// # Panics
/// If a matrix ends behind `memory`.
pub fn for_each_piece(
    matrices: &[Groups],
    memory: &mut [u8],
    pool: &impl Pool,
    each: impl Fn(&Groups, &mut [u8]) + Sync,
) {
    let mut rest = memory;
    let mut at = 0;
    let mut pieces: Vec<_> = Vec::new();
    for piece in matrices.iter().flat_map(Groups::pieces) {
        let (_, from) = rest.split_at_mut((piece.span.start - at) as usize);
        let (bytes, behind) = from.split_at_mut((piece.span.end - piece.span.start) as usize);
        (rest, at) = (behind, piece.span.end);
        pieces.push(Mutex::new((piece, bytes)));
    }
    pool.run(&|lane| {
        for piece in &pieces[lane.share(pieces.len(), 1)] {
            let (piece, bytes) = &mut *piece.lock().unwrap_or_else(PoisonError::into_inner);
            each(piece, bytes);
        }
    });
}
