//! What one forward pass computes: runs of rows, each of a sequence.

use super::{Failure, Program};
use crate::graph::MAX_BATCH;
use core::ops::Range;

/// Which rows of a run need logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logits {
    /// None: the run only fills the cache.
    None,
    /// The last row.
    #[default]
    Last,
    /// Every row.
    All,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The place of the sequence in the KV cache.
    pub slot: u32,
    /// Position of the first row.
    pub position: u32,
    /// Rows.
    pub rows: u32,
    /// What is asked of the head.
    pub logits: Logits,
}

impl Run {
    /// Of the only sequence of a cache.
    pub const fn new(position: u32, rows: u32, logits: Logits) -> Self {
        Self { slot: 0, position, rows, logits }
    }
}

/// The beginning of one sequence that becomes that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCopy {
    /// The place of the sequence that has it.
    pub from: u32,
    /// The place of the one that gets it.
    pub to: u32,
    /// How many positions, from the first one on.
    pub positions: u32,
}

/// Positions of a page: keys and values that are moved into and out of a cache together. Whole tiles of every layout.
pub const PAGE: u32 = 64;

/// Runs of different sequences that are computed together; each has the bits that it has alone.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'b> {
    /// No sequence twice. The head computes all rows from the first to the last that needs logits.
    pub runs: &'b [Run],
    /// Token ids of the rows of all runs, one behind the other. Of a graph that does not read them, as a worker's in the
    /// `dllama` dialect, there may be none.
    pub tokens: &'b [u32],
}

/// What a row is of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowAt {
    pub slot: u32,
    pub position: u32,
}

/// The rows of a batch that was accepted.
#[derive(Clone, Debug)]
pub(super) struct BatchRows {
    at: [RowAt; MAX_BATCH as usize],
    len: usize,
    /// From the first to the last row that needs logits.
    pub head: Range<usize>,
}

impl BatchRows {
    pub const fn new() -> Self {
        Self { at: [RowAt { slot: 0, position: 0 }; MAX_BATCH as usize], len: 0, head: 0..0 }
    }

    /// All rows.
    pub fn at(&self) -> &[RowAt] {
        &self.at[..self.len]
    }

    /// Takes the rows of a batch that was checked.
    pub fn take(&mut self, batch: &Batch<'_>) {
        (self.len, self.head) = (0, 0..0);
        for run in batch.runs {
            self.push(run);
        }
    }

    /// Demands that a batch fits the program.
    pub fn check<S, L>(batch: &Batch<'_>, program: &Program<'_>) -> Result<(), Failure<S, L>> {
        let max = program.graph.batch_max;
        let rows: u64 = batch.runs.iter().map(|run| u64::from(run.rows)).sum();
        if rows > u64::from(max) || batch.runs.is_empty() || batch.runs.iter().any(|run| run.rows == 0) {
            return Err(Failure::Rows { rows: rows.try_into().unwrap_or(u32::MAX), max });
        }
        for (index, run) in batch.runs.iter().enumerate() {
            if run.slot >= program.slots {
                return Err(Failure::Slot { slot: run.slot, slots: program.slots });
            }
            if batch.runs[..index].iter().any(|other| other.slot == run.slot) {
                return Err(Failure::Twice { slot: run.slot });
            }
            let end = u64::from(run.position) + u64::from(run.rows);
            if end > u64::from(program.seq_len) {
                return Err(Failure::Context { end, seq_len: program.seq_len });
            }
        }
        let Some(vocab_size) = program.vocab_size else { return Ok(()) };
        for row in 0..rows as usize {
            let id = batch.tokens.get(row).copied();
            if id.is_none_or(|id| id >= vocab_size) {
                return Err(Failure::Token { id, vocab_size });
            }
        }
        Ok(())
    }

    fn push(&mut self, run: &Run) {
        let (start, end) = (self.len, self.len + run.rows as usize);
        for (at, position) in self.at[start..end].iter_mut().zip(run.position..) {
            *at = RowAt { slot: run.slot, position };
        }
        self.len = end;
        let first = match run.logits {
            Logits::None => return,
            Logits::Last => end - 1,
            Logits::All => start,
        };
        self.head = if self.head.is_empty() { first..end } else { self.head.start..end };
    }
}
