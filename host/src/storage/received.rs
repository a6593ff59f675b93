//! Weights that came over the wire, in memory.

use super::interleaved::{for_each_piece, interleaved};
use dair_core::graph::Graph;
use dair_core::io::{Pool, Span, Storage};
use dair_core::quant::interleave;
use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// Zeroed memory, aligned to a page, to be filled by a root. Pages are taken from the system as weights arrive.
#[derive(Debug)]
pub struct Received {
    map: MmapMut,
    bytes: usize,
}

impl Received {
    /// Reserves `bytes`.
    ///
    /// # Errors
    /// Where this machine has no such address range.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes.max(1))?;
        // Large pages are a matter of speed, and not every system has them.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, bytes })
    }

    /// Interleaves the rows of those matrices of `graph` that say so, in all lanes of `pool`; no memory is needed but
    /// for sixteen rows a lane.
    pub fn interleave(&mut self, graph: &Graph<'_>, pool: &impl Pool) {
        for_each_piece(&interleaved(graph), self, pool, |piece, bytes| {
            let mut rows = vec![0; piece.group_bytes as usize];
            for group in bytes.chunks_exact_mut(rows.len()) {
                rows.copy_from_slice(group);
                interleave(piece.dtype, &rows, group);
            }
        });
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.bytes]
    }
}

impl DerefMut for Received {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.bytes]
    }
}

impl Storage for Received {
    type Error = std::convert::Infallible;
    type Lease<'s> = &'s [u8];

    fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    fn lease(&self, span: Span) -> Result<&[u8], Self::Error> {
        self[..].lease(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::pool::Threads;
    use crate::storage::group_bytes;
    use dair_core::graph::{Op, Weight};
    use dair_core::quant::{DType, Order};

    const WEIGHT: Weight = Weight {
        dtype: DType::F32,
        order: Order::Rows,
        offset: 0,
        rows: 0,
        cols: 0,
        row_stride: 0,
        mats: 1,
        mat_stride: 0,
    };

    #[test]
    fn what_was_filled_in_is_leased_out() {
        let mut received = Received::new(100).unwrap();
        received[96..].fill(7);
        assert_eq!(received.bytes(), 100);
        assert_eq!(received.lease(Span { offset: 95, bytes: 5 }), Ok(&[0, 7, 7, 7, 7][..]));
        assert!(received.as_ptr().addr().is_multiple_of(4096));
        assert!(Received::new(0).unwrap().is_empty());
    }

    #[test]
    fn received_rows_are_interleaved_where_they_lie() {
        let weight = Weight { dtype: DType::Q80, order: Order::Interleaved, rows: 32, cols: 64, mats: 2, ..WEIGHT };
        let stride = weight.row_bytes().unwrap();
        let weight = Weight { offset: 64, row_stride: stride, mat_stride: 32 * stride + 64, ..weight };
        let (mat, gap) = (32 * stride as usize, 64);
        let rows: Vec<u8> = (0..2 * (gap + mat)).map(|i| (i * 31 % 251) as u8).collect();
        let mut received = Received::new(rows.len() as u64).unwrap();
        received.copy_from_slice(&rows);
        let ops = [Op { weight: Some(weight), ..Op::default() }];
        let graph = Graph {
            node: 1,
            nodes: 2,
            batch_max: 1,
            pipes: &[],
            buffers: &[],
            segments: &[],
            ops: &ops,
            syncs: &[],
            bounds: &[],
        };
        received.interleave(&graph, &Threads::new(2).unwrap());
        let mut expected = rows.clone();
        for start in [gap, 2 * gap + mat] {
            for group in [start, start + mat / 2] {
                let group = group..group + mat / 2;
                interleave(DType::Q80, &rows[group.clone()], &mut expected[group]);
            }
        }
        assert_eq!(received[..], expected[..]);
    }

    #[test]
    fn matrices_of_nothing_are_left_alone() {
        let nothing = Weight { dtype: DType::Q40, order: Order::Interleaved, rows: 16, ..WEIGHT };
        let ops = [Op { weight: Some(nothing), ..Op::default() }];
        let graph = Graph {
            node: 1,
            nodes: 2,
            batch_max: 1,
            pipes: &[],
            buffers: &[],
            segments: &[],
            ops: &ops,
            syncs: &[],
            bounds: &[],
        };
        Received::new(0).unwrap().interleave(&graph, &Threads::new(2).unwrap());
        assert_eq!(group_bytes(&graph, 2), 0);
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(Received::new(1 << 62).is_err());
        assert!(Received::new(u64::MAX).is_err());
    }
}
