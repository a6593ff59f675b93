//! The weights of a model: a stream, or its mapped file and matrices that were repacked into memory once.
//!
//! Interleaved rows take the bytes that rows in a file take, so what was repacked keeps its offset: it is read from
//! memory, everything else from the file. Pages of the file that were repacked are given back, so that there is one copy.

use super::MappedFile;
use super::interleaved::{for_each_piece, interleaved};
use super::stream::{Lease, Stream, StreamError};
use dair_core::graph::{Graph, Weight};
use dair_core::io::{Pool, Span, Storage};
use dair_core::quant::interleave;
use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Weights, wherever they are.
#[derive(Debug)]
pub enum Weights<'m> {
    /// In a mapped file, some of them also repacked in memory.
    Mapped(&'m MappedFile, Option<Arc<Repacked>>),
    /// Partly in memory, partly read as they are needed.
    Streamed(Arc<Stream>),
}

/// Rows that were interleaved; several may read them, one after the other or together.
#[derive(Debug)]
pub struct Repacked {
    /// As long as the file; pages are there where something was repacked.
    map: MmapMut,
    /// What was repacked, in rising order.
    spans: Vec<Range<u64>>,
}

impl<'m> Weights<'m> {
    /// The file as it is.
    pub fn mapped(file: &'m MappedFile) -> Self {
        Self::Mapped(file, None)
    }

    /// The file, and beside it what was repacked of it.
    pub fn beside(file: &'m MappedFile, repacked: Arc<Repacked>) -> Self {
        assert_eq!(repacked.map.len(), file.len(), "bytes that were repacked of a file");
        Self::Mapped(file, Some(repacked))
    }
}

impl Repacked {
    /// Interleaves the rows of those matrices of `graph` that say so, in all lanes of `pool`.
    ///
    /// # Errors
    /// Where the system has no memory.
    pub fn new(file: &MappedFile, graph: &Graph<'_>, pool: &impl Pool) -> io::Result<Self> {
        let mut map = MmapOptions::new().len(file.len()).no_reserve_swap().map_anon()?;
        // Large pages are a matter of speed, and not every system has them.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let matrices = interleaved(graph);
        for_each_piece(&matrices, &mut map, pool, |piece, to| {
            let from = &file[piece.span.start as usize..piece.span.end as usize];
            let group_bytes = piece.group_bytes as usize;
            for (from, to) in from.chunks_exact(group_bytes).zip(to.chunks_exact_mut(group_bytes)) {
                interleave(piece.dtype, from, to);
            }
            file.forget(&piece.span);
        });
        let spans = matrices.into_iter().map(|matrix| matrix.span).collect();
        Ok(Self { map, spans })
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }

    /// Whether the byte at `offset` was repacked.
    fn has(&self, offset: u64) -> bool {
        let after = self.spans.partition_point(|repacked| repacked.start <= offset);
        after > 0 && offset < self.spans[after - 1].end
    }

    /// Whether these are the rows of those matrices of `graph` that are to be interleaved.
    pub fn is_of(&self, graph: &Graph<'_>) -> bool {
        self.spans.iter().eq(interleaved(graph).iter().map(|matrix| &matrix.span))
    }
}

impl Storage for Weights<'_> {
    type Error = StreamError;
    type Lease<'s>
        = Lease<'s>
    where
        Self: 's;

    fn bytes(&self) -> u64 {
        match self {
            Self::Mapped(file, _) => file.len() as u64,
            Self::Streamed(stream) => stream.bytes(),
        }
    }

    fn lease(&self, span: Span) -> Result<Lease<'_>, StreamError> {
        match self {
            Self::Mapped(_, Some(repacked)) if repacked.has(span.offset) => Ok(Lease::Kept(part(&repacked.map, span))),
            Self::Mapped(file, _) => Ok(Lease::Kept(part(file, span))),
            Self::Streamed(stream) => stream.lease(span),
        }
    }

    fn window(&self) -> u64 {
        match self {
            Self::Mapped(..) => u64::MAX,
            Self::Streamed(stream) => stream.window(),
        }
    }

    fn begin(&self, matrices: &mut dyn Iterator<Item = &Weight>) {
        if let Self::Streamed(stream) = self {
            stream.begin(matrices);
        }
    }

    fn prefetch(&self, span: Span) {
        if let Self::Streamed(stream) = self {
            stream.prefetch(span);
        }
    }
}

/// Bytes of memory that is as long as the file.
fn part(bytes: &[u8], span: Span) -> &[u8] {
    &bytes[span.offset as usize..(span.offset + span.bytes) as usize]
}

impl MappedFile {
    /// Gives all pages back to the system.
    pub fn forget_all(&self) {
        self.forget(&(0..self.len() as u64));
    }

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
