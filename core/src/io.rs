//! The three doors to the outside: weights ([`Storage`]), other nodes ([`Links`]) and threads ([`Pool`]).

use crate::graph::{Collective, Weight};
use crate::quant::DType;
use core::ops::{Deref, Range};

/// A run of bytes in a [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Weight bytes: a mapped file, RAM filled over the wire, a budgeted stream.
pub trait Storage: Sync {
    /// Why bytes could not be had.
    type Error: core::error::Error + Send;
    /// Keeps the bytes in memory while it lives.
    type Lease<'s>: Deref<Target = [u8]>
    where
        Self: 's;

    /// Bytes there are; spans end at or below.
    fn bytes(&self) -> u64;

    /// Blocks until the bytes are in memory. Called from every lane of a [`Pool`].
    ///
    /// # Errors
    /// Where they can't be read.
    fn lease(&self, span: Span) -> Result<Self::Lease<'_>, Self::Error>;

    /// Most bytes of a matrix that one lease covers: of a product, each lane takes its [`share`] window by window
    /// ([`Weight::window_rows`]).
    fn window(&self) -> u64 {
        u64::MAX
    }

    /// A pass begins, and nothing is leased any more. It will lease these matrices, the way they are listed, every row of each once;
    /// besides them spans of a few rows, and experts.
    fn begin(&self, matrices: &mut dyn Iterator<Item = &Weight>) {
        let _ = matrices;
    }

    /// Hints that a span will be leased soon: never blocks, never fails.
    fn prefetch(&self, span: Span) {
        let _ = span;
    }
}

/// Bytes that are in memory already.
impl Storage for [u8] {
    type Error = core::convert::Infallible;
    type Lease<'s> = &'s [u8];

    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn lease(&self, span: Span) -> Result<&[u8], Self::Error> {
        Ok(&self[span.offset as usize..(span.offset + span.bytes) as usize])
    }
}

/// One exchange of the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange<'e> {
    /// Who sends what to whom.
    pub collective: Collective,
    /// Bytes of one row of the pipe.
    pub row_bytes: usize,
    /// Nodes that share a row.
    pub nodes: u32,
    /// Type of the values.
    pub dtype: DType,
    /// Where parts begin, in values: `nodes + 1` of them; none where all parts are equal.
    pub bounds: Option<&'e [u32]>,
}

impl Exchange<'_> {
    /// An exchange of equal parts.
    pub const fn equal(collective: Collective, row_bytes: usize, nodes: u32) -> Self {
        Self { collective, row_bytes, nodes, dtype: DType::F32, bounds: None }
    }

    /// The bytes of a row that go from one node to another; none is an empty range.
    pub fn sent(&self, from: u32, to: u32) -> Range<usize> {
        let goes = match self.collective {
            Collective::Broadcast => from == 0,
            Collective::AllGather => true,
            Collective::Gather => to == 0,
            Collective::To(first, end) => (u32::from(first)..u32::from(end)).contains(&to),
        };
        match self.collective {
            _ if !goes || from == to => 0..0,
            Collective::Broadcast => 0..self.row_bytes,
            _ => self.part(from),
        }
    }

    /// The bytes of a row that `node` computes, in node order.
    pub fn part(&self, node: u32) -> Range<usize> {
        if let Some(bounds) = self.bounds {
            let (len, bytes) = (self.dtype.block_len() as usize, self.dtype.block_bytes() as usize);
            let bound = |node: u32| bounds[node as usize] as usize / len * bytes;
            return bound(node)..bound(node + 1);
        }
        let bytes = self.row_bytes / self.nodes as usize;
        node as usize * bytes..(node as usize + 1) * bytes
    }
}

/// The other nodes.
pub trait Links {
    /// Why an exchange failed; names the peer.
    type Error: core::error::Error;

    /// Begins an exchange as far as that needs no waiting; [`exchange`](Self::exchange) with the same rows is the next call, and
    /// completes it. What this node sends does not change in between.
    ///
    /// # Errors
    /// As there.
    fn begin(&mut self, exchange: Exchange<'_>, pipe: &[u8]) -> Result<(), Self::Error> {
        let _ = (exchange, pipe);
        Ok(())
    }

    /// Exchanges all rows of `pipe` (`rows * row_bytes` bytes) and returns when this node's side is complete.
    ///
    /// # Errors
    /// Where a peer is gone, silent or misbehaves.
    fn exchange(&mut self, exchange: Exchange<'_>, pipe: &mut [u8]) -> Result<(), Self::Error>;
}

/// A node without peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Links for Alone {
    type Error = core::convert::Infallible;

    fn exchange(&mut self, _: Exchange<'_>, _: &mut [u8]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Threads that run one task together.
pub trait Pool: Sync {
    /// How many lanes a task gets.
    fn lanes(&self) -> usize;

    /// Runs `task` once in every lane and returns when all are done.
    fn run(&self, task: &(dyn Fn(Lane<'_>) + Sync));
}

/// One lane of a running task.
#[derive(Clone, Copy)]
pub struct Lane<'p> {
    /// This lane, `0..count`.
    pub index: usize,
    /// All lanes.
    pub count: usize,
    barrier: &'p (dyn Fn(usize) + Sync),
}

impl<'p> Lane<'p> {
    /// For implementors of [`Pool`]: `barrier` is called with the lane's index and returns when all lanes have called it.
    pub fn new(index: usize, count: usize, barrier: &'p (dyn Fn(usize) + Sync)) -> Self {
        Self { index, count, barrier }
    }

    /// Waits until every lane is here.
    pub fn barrier(&self) {
        if self.count > 1 {
            (self.barrier)(self.index);
        }
    }

    /// This lane's [`share`].
    pub fn share(&self, len: usize, step: usize) -> Range<usize> {
        share((self.index, self.count), len, step)
    }
}

/// The share of lane `index` of `count` of `len` items, in multiples of `step` (the last may be less): all lanes together cover them
/// once.
pub fn share((index, count): (usize, usize), len: usize, step: usize) -> Range<usize> {
    let steps = len.div_ceil(step);
    let bound = |lane: usize| (steps * lane / count * step).min(len);
    bound(index)..bound(index + 1)
}

/// The pool of one lane, for boards and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Pool for Serial {
    fn lanes(&self) -> usize {
        1
    }

    fn run(&self, task: &(dyn Fn(Lane<'_>) + Sync)) {
        task(Lane::new(0, 1, &|_| ()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_items_once() {
        for count in 1..9 {
            for len in 0..100 {
                for step in [1, 8, 16] {
                    let mut next = 0;
                    for index in 0..count {
                        let share = Lane::new(index, count, &|_| ()).share(len, step);
                        assert_eq!(share.start, next);
                        assert!(share.end == len || share.end.is_multiple_of(step));
                        next = share.end;
                    }
                    assert_eq!(next, len);
                }
            }
        }
    }
}
