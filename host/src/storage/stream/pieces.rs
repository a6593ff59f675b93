//! What a graph reads of its weights, in pieces, and which of them stay in memory.
//!
//! A pass reads the same pieces in the same order each time, so what was used last is what is needed latest: a cache that keeps the
//! most recent would never hit. A fixed set is kept instead, spread evenly between the pieces that come from disk, so that the
//! disk has time for the next one while those in between are computed.

use dair_core::graph::{Graph, OpKind, WINDOW_ROWS, Weight};
use dair_core::io::share;
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows of a matrix that are read in one go: its next [`Weight::window_rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub start: u64,
    /// First byte behind the last row.
    pub end: u64,
    /// Bytes from row to row.
    pub stride: u64,
    /// Rows.
    pub rows: u32,
    /// Whether it stays in memory.
    pub is_kept: bool,
}

impl Piece {
    /// Bytes, gaps between rows included.
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// How many rows a part of so many bytes is.
    pub const fn rows_of(&self, bytes: u64) -> u32 {
        bytes.div_ceil(self.stride) as u32
    }
}

/// How matrices are cut into pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grain {
    /// Bytes that are read in one go, about.
    pub window: u64,
    /// Lanes, each of which reads its own share of a matrix.
    pub lanes: usize,
}

/// The pieces of one matrix in the order in which lanes need them: the first of each, the second of each, and so on.
fn pieces_of(weight: Weight, Grain { window, lanes }: Grain) -> impl Iterator<Item = Piece> {
    let Weight { offset, rows, row_stride: stride, .. } = weight;
    let (row_bytes, step) = (weight.row_bytes().unwrap_or(0), weight.window_rows(window).max(1) as usize);
    let shares = move || (0..lanes).map(move |lane| share((lane, lanes), rows as usize, WINDOW_ROWS as usize));
    let most = shares().map(|share| share.len().div_ceil(step)).max().unwrap_or(0);
    let turns = (0..most).flat_map(move |turn| shares().map(move |share| (share.start + turn * step, share.end)));
    turns.filter(|(first, end)| first < end).map(move |(first, end)| {
        let rows = step.min(end - first) as u64;
        let start = offset + first as u64 * stride;
        Piece { start, end: start + (rows - 1) * stride + row_bytes, stride, rows: rows as u32, is_kept: false }
    })
}

/// All pieces of the dense products of a graph.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// In the order of their bytes.
    all: Vec<Piece>,
    grain: Grain,
}

impl Pieces {
    /// Of `graph`.
    pub fn of(graph: &Graph<'_>, grain: Grain) -> Self {
        let mut all: Vec<_> = matrices(graph).flat_map(|weight| pieces_of(*weight, grain)).collect();
        all.sort_unstable_by_key(|piece| (piece.start, piece.end));
        all.dedup();
        Self { all, grain }
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.all.iter().map(Piece::bytes).sum()
    }

    /// Bytes of those that are kept.
    pub fn kept_bytes(&self) -> u64 {
        self.all.iter().filter(|piece| piece.is_kept).map(Piece::bytes).sum()
    }

    /// How many of them are kept.
    pub fn kept(&self) -> u64 {
        self.all.iter().filter(|piece| piece.is_kept).count() as u64
    }

    /// Bytes of the largest.
    pub fn largest(&self) -> u64 {
        self.all.iter().map(Piece::bytes).max().unwrap_or(0)
    }

    /// Keeps up to `bytes` of them, evenly spread in the order in which `graph` reads them.
    pub fn keep(&mut self, graph: &Graph<'_>, bytes: u64) {
        let total = self.bytes();
        if bytes >= total {
            self.all.iter_mut().for_each(|piece| piece.is_kept = true);
            return;
        }
        let mut order: Vec<_> = matrices(graph).flat_map(|weight| self.indexes(weight)).collect();
        let mut seen = vec![false; self.all.len()];
        order.retain(|index| !std::mem::replace(&mut seen[*index as usize], true));
        // What should have been kept up to here, times the total: whole numbers, so that every machine chooses the same.
        let (mut due, mut left) = (0u128, bytes);
        for index in order {
            let piece = &mut self.all[index as usize];
            due += u128::from(piece.bytes()) * u128::from(bytes);
            let cost = u128::from(piece.bytes()) * u128::from(total);
            if due >= cost && piece.bytes() <= left {
                piece.is_kept = true;
                due -= cost;
                left -= piece.bytes();
            }
        }
    }

    /// The pieces of a matrix, in the order in which they are needed.
    pub fn indexes(&self, weight: &Weight) -> impl Iterator<Item = u32> {
        pieces_of(*weight, self.grain).filter_map(|piece| self.find(piece.start))
    }

    /// The piece in which byte `offset` lies.
    pub fn find(&self, offset: u64) -> Option<u32> {
        let after = self.all.partition_point(|piece| piece.start <= offset);
        let index = after.checked_sub(1)?;
        (offset < self.all[index].end).then_some(index as u32)
    }

    /// A piece by its index.
    pub fn get(&self, index: u32) -> &Piece {
        &self.all[index as usize]
    }

    /// How they were cut.
    pub const fn grain(&self) -> Grain {
        self.grain
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }
}

/// The matrices of dense products, in the order in which a pass reads them.
fn matrices<'g>(graph: &'g Graph<'_>) -> impl Iterator<Item = &'g Weight> {
    let dense = graph.ops.iter().filter(|op| matches!(op.kind, OpKind::Matmul { experts: 0, .. }));
    dense.filter_map(|op| op.weight.as_ref()).filter(|weight| weight.rows > 0)
}

/// The weights of norms: small, used by every lane as a whole, and always kept.
pub fn vectors(graph: &Graph<'_>) -> BTreeMap<u64, Range<u64>> {
    let norms = graph
        .ops
        .iter()
        .filter(|op| !matches!(op.kind, OpKind::Matmul { .. } | OpKind::Embedding) && op.kind.has_weight());
    let spans = norms.filter_map(|op| op.weight.as_ref()).filter_map(|weight| Some(weight.offset..weight.mat_end(0)?));
    spans.map(|span| (span.start, span)).collect()
}

/// Bytes of weights that a graph reads, the embedding left out.
pub fn weight_bytes(graph: &Graph<'_>) -> u64 {
    let vectors = vectors(graph);
    let of_vectors = vectors.values().map(|span| span.end - span.start);
    let of_mat = |weight: &Weight| weight.mat_end(0).unwrap_or(0).saturating_sub(weight.offset);
    let mut dense: Vec<_> = matrices(graph).map(|weight| (weight.offset, of_mat(weight))).collect();
    dense.sort_unstable();
    dense.dedup();
    let of_experts = expert_weights(graph).map(|(_, weight)| of_mat(weight) * u64::from(weight.mats));
    of_vectors.chain(dense.into_iter().map(|(_, bytes)| bytes)).chain(of_experts).sum()
}

/// The experts of a graph's products: for each op its matrices.
pub fn expert_weights<'g>(graph: &'g Graph<'_>) -> impl Iterator<Item = (u32, &'g Weight)> {
    let experts = graph.ops.iter().filter(|op| matches!(op.kind, OpKind::Matmul { experts: 1.., .. }));
    experts.filter_map(|op| Some((op.layer, op.weight.as_ref()?))).filter(|(_, weight)| weight.rows > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use dair_core::graph::Op;
    use dair_core::quant::{DType, Order};

    /// Matrices of F32 that follow each other, of 64 columns and so many rows each.
    pub fn ops(rows: &[u32]) -> Vec<Op> {
        let mut offset = 100;
        let weights = rows.iter().map(|rows| {
            let weight = Weight {
                dtype: DType::F32,
                order: Order::Rows,
                offset,
                rows: *rows,
                cols: 64,
                row_stride: 256,
                mats: 1,
                mat_stride: 0,
            };
            offset += u64::from(*rows) * 256;
            weight
        });
        let kind = OpKind::Matmul { experts: 0, active: 0, indexes: 0 };
        weights.map(|weight| Op { kind: kind.clone(), weight: Some(weight), ..Op::default() }).collect()
    }

    pub fn graph(ops: &[Op]) -> Graph<'_> {
        Graph { node: 0, nodes: 1, batch_max: 1, pipes: &[], buffers: &[], segments: &[], ops, syncs: &[], bounds: &[] }
    }

    const ONE: usize = 1;

    fn grain(window: u64, lanes: usize) -> Grain {
        Grain { window, lanes }
    }

    #[test]
    fn pieces_cover_matrices_in_windows() {
        let ops = ops(&[96, 32, 33, 0, 1]);
        let pieces = Pieces::of(&graph(&ops), grain(64 * 256, ONE));
        let rows: Vec<_> = pieces.all.iter().map(|piece| piece.rows).collect();
        assert_eq!(rows, [64, 32, 32, 33, 1]);
        let mut at = 100;
        for piece in &pieces.all {
            assert_eq!((piece.start, piece.bytes()), (at, u64::from(piece.rows) * 256));
            at = piece.end;
        }
        assert_eq!([99, 100, at - 1, at].map(|offset| pieces.find(offset)), [None, Some(0), Some(4), None]);
        let of = |op: usize| pieces.indexes(ops[op].weight.as_ref().unwrap()).collect::<Vec<_>>();
        assert_eq!([of(0), of(2), of(3), of(4)], [vec![0, 1], vec![3], vec![], vec![4]]);
        // A window that is smaller than what is read at once.
        assert_eq!(Pieces::of(&graph(&ops), grain(1, ONE)).all.iter().map(|piece| piece.rows).max(), Some(32));
    }

    #[test]
    fn lanes_read_their_own_shares_in_turn() {
        let ops = ops(&[320]);
        let pieces = Pieces::of(&graph(&ops), grain(64 * 256, 2));
        let firsts: Vec<_> = pieces
            .indexes(ops[0].weight.as_ref().unwrap())
            .map(|index| ((pieces.get(index).start - 100) / 256, pieces.get(index).rows))
            .collect();
        assert_eq!(firsts, [(0, 64), (160, 64), (64, 64), (224, 64), (128, 32), (288, 32)]);
        // More lanes than there is work for.
        let pieces = Pieces::of(&graph(&ops), grain(1 << 20, 64));
        assert_eq!((pieces.len(), pieces.bytes()), (10, 320 * 256));
    }

    #[test]
    fn what_is_kept_is_spread_and_within_its_bytes() {
        let ops = ops(&[32; 100]);
        for percent in [0, 1, 10, 25, 50, 75, 90, 99, 100] {
            let mut pieces = Pieces::of(&graph(&ops), grain(1 << 20, ONE));
            let bytes = pieces.bytes() * percent / 100;
            pieces.keep(&graph(&ops), bytes);
            assert_eq!(pieces.kept_bytes(), bytes, "{percent} %");
            // No stretch of ten pieces has more than one kept piece above the average, or one less.
            for ten in pieces.all.windows(10) {
                let kept = ten.iter().filter(|piece| piece.is_kept).count() as u64;
                assert!(kept.abs_diff(percent / 10) <= 1, "{kept} of ten at {percent} %");
            }
        }
    }

    #[test]
    fn a_piece_that_is_larger_than_what_may_be_kept_is_not() {
        let ops = ops(&[320, 32]);
        let mut pieces = Pieces::of(&graph(&ops), grain(1 << 20, ONE));
        pieces.keep(&graph(&ops), 40 * 256);
        assert!(pieces.kept_bytes() <= 40 * 256);
    }
}
