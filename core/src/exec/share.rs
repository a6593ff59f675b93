//! How lanes divide each step, and before which steps they must meet.
//!
//! A graph may come off the wire, so that nothing here goes by what an op is usually for. Each step lists the bytes that
//! it reads and writes, and which of them a lane touches in its own share only. A step can run without a barrier before
//! it unless bytes that it touches are touched by a step since the last barrier, one of the two writes them, and they are
//! not the same lane's own on both sides.

use super::step::{Cache, Kind, Repr, Rows, Step};
use crate::graph::{Graph, Segment};
use crate::quant::{BLOCK, BlockQ80};
use core::ops::Range;

/// Which part of a step a lane computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Share {
    /// Whole rows of the batch, in all planes.
    #[default]
    Rows,
    /// Columns of the output in all rows and planes; of a product, rows of its weight.
    Columns,
    /// As the step itself likes; any lane may touch anything.
    Own,
}

/// Steps between two barriers, at most: bounds the work that a graph can ask of [`plan`].
const STEPS_MAX: usize = 64;

/// Bytes that a step touches.
struct Access {
    bytes: Range<usize>,
    /// Of rows, the first byte and the width.
    of: (usize, usize),
    write: bool,
    /// A lane touches only rows, or columns, of its share.
    local: bool,
}

/// Stands for the memory through which lanes hand states of attention to each other, which lies behind all places.
const PARTIALS: Range<usize> = usize::MAX - 1..usize::MAX;

/// From the first byte to the last; what lies between rows of a slice belongs to it.
fn bytes_of_rows(rows: &Rows) -> Range<usize> {
    let Rows { offset, row_stride, plane_stride, planes, width, repr } = *rows;
    let row_bytes = match repr {
        Repr::F32 => 4 * width,
        Repr::Blocks => width / BLOCK * size_of::<BlockQ80>(),
        Repr::Activations => row_stride,
    };
    offset..offset + (planes * plane_stride).saturating_sub(row_stride) + row_bytes
}

impl Access {
    /// Bytes that are no rows.
    fn anywhere(bytes: Range<usize>, write: bool) -> Self {
        Self { of: (bytes.start, 0), bytes, write, local: false }
    }

    fn of_cache(cache: &Cache, write: bool) -> Self {
        Self::anywhere(cache.offset..cache.end(), write)
    }

    /// Whether the lanes would have to meet between these two, which steps of these shares make.
    fn meets(&self, other: &Access, share: (Share, Share), same_rows: bool) -> bool {
        let (a, b) = (&self.bytes, &other.bytes);
        if !(self.write || other.write) || a.end <= b.start || b.end <= a.start {
            return false;
        }
        // Places do not overlap, so this is one place: its rows begin at the same bytes for both.
        let own = match share {
            (Share::Rows, Share::Rows) => same_rows,
            (Share::Columns, Share::Columns) => self.of == other.of,
            _ => false,
        };
        !(own && self.local && other.local)
    }
}

/// Everything in the arena that a step touches when it is divided by `share`, but for scratch of a lane's own and the
/// RoPE table, which no step writes.
fn accesses(kind: &Kind, share: Share) -> [Option<Access>; 5] {
    let rows =
        |of: &Rows, write, local| Some(Access { bytes: bytes_of_rows(of), of: (of.offset, of.width), write, local });
    let any = |of, write| rows(of, write, false);
    let (reads, writes) = (|of| rows(of, false, true), |of| rows(of, true, true));
    match kind {
        Kind::Nothing => [const { None }; 5],
        Kind::Embedding { tokens: x, out, .. } | Kind::InvRms { x, out, .. } => {
            [reads(x), writes(out), None, None, None]
        }
        Kind::RmsNorm { x, out, inv_rms, .. } => [reads(x), reads(inv_rms), writes(out), None, None],
        // Columns of the output are other bytes than those of the input that they are made of.
        Kind::NormBlocks { x, out, .. } => [reads(x), writes(out), None, None, None],
        // The squares of a whole row go into each of its scales; planes lie one behind the other.
        Kind::NormFinish { x, out, .. } | Kind::Unstack { x, out, .. } if share == Share::Columns => {
            [any(x, false), writes(out), None, None, None]
        }
        Kind::NormFinish { x, out, .. } | Kind::Unstack { x, out, .. } | Kind::Stack { x, out } => {
            [reads(x), writes(out), None, None, None]
        }
        Kind::Matmul { x, out, .. } => [any(x, false), writes(out), None, None, None],
        Kind::ExpertMatmul { x, out, indexes, .. } => [any(x, false), any(indexes, false), writes(out), None, None],
        Kind::Rope { x, .. } | Kind::Softmax { x } | Kind::Silu { x } => [writes(x), None, None, None, None],
        // Rows of a cache are positions.
        Kind::Shift { x, cache } => [reads(x), Some(Access::of_cache(cache, true)), None, None, None],
        Kind::Attention { query, keys, values, out, .. } => {
            let [keys, values] = [keys, values].map(|cache| Some(Access::of_cache(cache, false)));
            [any(query, false), keys, values, any(out, true), Some(Access::anywhere(PARTIALS, true))]
        }
        Kind::Mul { x, by } => [writes(x), reads(by), None, None, None],
        // One factor for all columns.
        Kind::Scale { x, by } if share == Share::Columns => [writes(x), any(by, false), None, None, None],
        Kind::Scale { x, by } => [writes(x), reads(by), None, None, None],
        // A column of the sum comes from one of each slice.
        Kind::MergeAdd { x, out } if share == Share::Columns && x.width != out.width => {
            [any(x, false), writes(out), None, None, None]
        }
        Kind::Cast { x, out }
        | Kind::Unpack { x, out }
        | Kind::RepeatZ { x, out }
        | Kind::MergeAdd { x, out }
        | Kind::MergeSum { x, out } => [reads(x), writes(out), None, None, None],
        Kind::MoeGate { x, out, indexes, .. } => [writes(x), writes(out), writes(indexes), None, None],
    }
}

/// The share of a step; `None` where it can be divided by rows or by columns.
fn fixed(kind: &Kind) -> Option<Share> {
    match kind {
        Kind::Nothing
        | Kind::Embedding { .. }
        | Kind::InvRms { .. }
        | Kind::RmsNorm { .. }
        | Kind::Stack { .. }
        | Kind::Rope { .. }
        | Kind::Shift { .. }
        | Kind::Softmax { .. }
        | Kind::MoeGate { .. } => Some(Share::Rows),
        Kind::Matmul { .. } | Kind::ExpertMatmul { .. } => Some(Share::Columns),
        Kind::Attention { .. } => Some(Share::Own),
        Kind::Silu { .. }
        | Kind::Mul { .. }
        | Kind::Scale { .. }
        | Kind::Cast { .. }
        | Kind::Unpack { .. }
        | Kind::NormBlocks { .. }
        | Kind::NormFinish { .. }
        | Kind::Unstack { .. }
        | Kind::RepeatZ { .. }
        | Kind::MergeAdd { .. }
        | Kind::MergeSum { .. } => None,
    }
}

/// Whether lanes must meet before `step` when it is divided by `share` and follows `past` without a barrier.
fn meets(step: &Step, share: Share, past: &[Step]) -> bool {
    let accesses_of = |kind, share| accesses(kind, share).into_iter().flatten();
    past.iter().any(|other| {
        accesses_of(&other.kind, other.share).any(|before| {
            accesses_of(&step.kind, share).any(|now| now.meets(&before, (share, other.share), step.head == other.head))
        })
    })
}

/// Whether the pool's run ends behind a segment, with the exchange that follows.
pub(super) fn ends_run(graph: &Graph<'_>, segment: &Segment) -> bool {
    graph.nodes > 1 && !segment.syncs.is_empty()
}

/// Gives every step its share, and a barrier before it where one is needed.
///
/// A step that can be divided either way takes the one that needs no barrier, rows before columns: what follows it without
/// a product between is most often a norm.
pub(super) fn plan(graph: &Graph<'_>, steps: &mut [Step]) {
    // Where the steps start that may still be running: the lanes have met, or forked, before this one.
    let mut start = 0;
    for segment in graph.segments {
        let before = start;
        for index in segment.ops.start as usize..segment.ops.end as usize {
            let (past, step) = steps.split_at_mut(index);
            let (past, step) = (&past[start..], &mut step[0]);
            step.head = segment.head;
            let shares: &[Share] = match fixed(&step.kind) {
                Some(Share::Rows) => &[Share::Rows],
                Some(Share::Columns) => &[Share::Columns],
                Some(Share::Own) => &[Share::Own],
                None => &[Share::Rows, Share::Columns],
            };
            let free = |share: &&Share| past.len() < STEPS_MAX && !meets(step, **share, past);
            let chosen = shares.iter().find(free);
            (step.share, step.barrier) = (*chosen.unwrap_or(&shares[0]), chosen.is_none());
            if step.barrier {
                start = index;
            }
        }
        if segment.head {
            // It may be left out, and its barriers with it.
            start = before;
        }
        if ends_run(graph, segment) {
            start = segment.ops.end as usize;
        }
    }
}
