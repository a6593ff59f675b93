//! The weights of a model: its mapped file, and matrices that were repacked into memory once.
//!
//! Interleaved rows take the bytes that rows in a file take, so what was repacked keeps its offset: it is read from
//! memory, everything else from the file. Pages of the file that were repacked are given back, so that there is one copy.

use super::MappedFile;
use dair_core::graph::{Graph, Weight};
use dair_core::io::{Pool, Span, Storage};
use dair_core::quant::{INTERLEAVED_ROWS, Order, interleave_q40};
use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use std::io;
use std::ops::Range;

/// Bytes that are repacked in one go.
const PIECE_BYTES: u64 = 1 << 20;

/// Weights in a file, some of them also repacked in memory.
#[derive(Debug)]
pub struct Weights<'m> {
    file: &'m MappedFile,
    repacked: Option<Repacked>,
}

#[derive(Debug)]
struct Repacked {
    /// As long as the file; pages are there where something was repacked.
    map: MmapMut,
    /// What was repacked, in rising order.
    spans: Vec<Range<u64>>,
}

impl<'m> Weights<'m> {
    /// The file as it is.
    pub fn mapped(file: &'m MappedFile) -> Self {
        Self { file, repacked: None }
    }

    /// Interleaves the rows of those matrices of `graph` that say so, in all lanes of `pool`.
    ///
    /// # Errors
    /// Where the system has no memory.
    pub fn repacked(file: &'m MappedFile, graph: &Graph<'_>, pool: &impl Pool) -> io::Result<Self> {
        let matrices = interleaved(graph);
        let mut map = MmapOptions::new().len(file.len()).no_reserve_swap().map_anon()?;
        // Large pages are a matter of speed, and not every system has them.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let pieces: Vec<(Range<u64>, u64)> = matrices
            .iter()
            .flat_map(|(span, row_bytes)| {
                let group = row_bytes * INTERLEAVED_ROWS as u64;
                let piece = (PIECE_BYTES / group).max(1) * group;
                let starts = (span.start..span.end).step_by(piece as usize);
                starts.map(move |start| (start..span.end.min(start + piece), group))
            })
            .collect();
        let memory = SharedBytes(map.as_mut_ptr());
        pool.run(&|lane| {
            for (piece, group) in &pieces[lane.share(pieces.len(), 1)] {
                let (start, len) = (piece.start as usize, (piece.end - piece.start) as usize);
                // SAFETY: pieces do not overlap and end inside the file, which is as long as the map.
                let to = unsafe { std::slice::from_raw_parts_mut(memory.at(start), len) };
                let from = &file[start..start + len];
                for (from, to) in from.chunks_exact(*group as usize).zip(to.chunks_exact_mut(*group as usize)) {
                    interleave_q40(from, to);
                }
                file.forget(piece);
            }
        });
        let mut spans: Vec<_> = matrices.into_iter().map(|(span, _)| span).collect();
        spans.sort_unstable_by_key(|span| span.start);
        Ok(Self { file, repacked: Some(Repacked { map, spans }) })
    }
}

/// Bytes of `graph`'s matrices that lie interleaved.
pub fn interleaved_bytes(graph: &Graph<'_>) -> u64 {
    interleaved(graph).iter().map(|(span, _)| span.end - span.start).sum()
}

/// Spans of the matrices that lie interleaved, each once, and the bytes of their rows.
fn interleaved(graph: &Graph<'_>) -> Vec<(Range<u64>, u64)> {
    let weights = graph.ops.iter().filter_map(|op| op.weight.as_ref());
    let mut spans: Vec<_> = weights.filter(|weight| weight.order == Order::Interleaved).flat_map(matrices).collect();
    spans.sort_unstable_by_key(|(span, _)| span.start);
    spans.dedup();
    spans
}

fn matrices(weight: &Weight) -> impl Iterator<Item = (Range<u64>, u64)> {
    let bytes = u64::from(weight.rows) * weight.row_stride;
    let (offset, stride, row_bytes) = (weight.offset, weight.mat_stride, weight.row_stride);
    (0..u64::from(weight.mats)).map(move |mat| (offset + mat * stride..offset + mat * stride + bytes, row_bytes))
}

/// Memory that lanes write different parts of.
struct SharedBytes(*mut u8);

// SAFETY: who writes which part is the callers' business, see `at`.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// Address of byte `offset`, which lies inside the memory.
    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

impl Storage for Weights<'_> {
    type Error = std::convert::Infallible;
    type Lease<'s>
        = &'s [u8]
    where
        Self: 's;

    fn bytes(&self) -> u64 {
        self.file.len() as u64
    }

    fn lease(&self, span: Span) -> Result<&[u8], Self::Error> {
        if let Some(Repacked { map, spans }) = &self.repacked {
            let after = spans.partition_point(|repacked| repacked.start <= span.offset);
            if after > 0 && span.offset < spans[after - 1].end {
                return map[..].lease(span);
            }
        }
        self.file.lease(span)
    }
}

impl MappedFile {
    /// Gives the pages inside a span back to the system, which reads them again if they are needed again.
    fn forget(&self, span: &Range<u64>) {
        const PAGE: u64 = 4096;
        let (start, end) = (span.start.next_multiple_of(PAGE), span.end / PAGE * PAGE);
        if start < end {
            // A matter of memory: a system that refuses keeps the pages.
            // SAFETY: the map is shared with the file and read-only, so that pages come back as they were.
            let _ = unsafe {
                self.map().unchecked_advise_range(UncheckedAdvice::DontNeed, start as usize, (end - start) as usize)
            };
        }
    }
}
