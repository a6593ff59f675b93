//! Graph + memory + kernels = forward pass.
//!
//! [`Program::new`] checks a graph once, whoever made it, and lays out the arena; from then on everything is trusted.
//! [`Engine::forward`] then runs a batch: one fork of the pool per exchange, barriers where ops need them, one exchange per
//! sync. It allocates nothing.

mod arena;
mod attend;
mod batch;
mod check;
mod error;
mod places;
mod rope;
mod run;
mod share;
mod step;

pub use arena::ARENA_ALIGN;
pub use batch::{Batch, CacheCopy, Logits, PAGE, Run};
pub use error::GraphError;
pub use places::Place;
pub use step::Step;

use crate::graph::{Graph, OpKind, Segment, pipes};
use crate::io::{Exchange, Links, Pool, Storage};
use crate::kernels::{Kernels, KvType};
use arena::{Arena, FirstError};
use batch::BatchRows;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use places::Places;
use rope::Frequencies;
use step::{Cache, Kind};

/// The caller's tables for a [`Program`].
#[derive(Debug)]
pub struct Rooms<'p> {
    /// One slot per pipe and buffer: [`Program::places_len`].
    pub places: &'p mut [Place],
    /// One slot per op.
    pub steps: &'p mut [Step],
}

/// A checked graph: every operand resolved to a place in the arena.
#[derive(Clone, Copy, Debug)]
pub struct Program<'p> {
    graph: Graph<'p>,
    places: &'p [Place],
    steps: &'p [Step],
    arena: arena::Sizes,
    frequencies: Frequencies,
    seq_len: u32,
    slots: u32,
    vocab_size: Option<u32>,
}

impl<'p> Program<'p> {
    /// Slots of [`Rooms::places`] that a graph takes.
    pub const fn places_len(graph: &Graph<'_>) -> usize {
        graph.pipes.len() + graph.buffers.len()
    }

    /// Checks `graph` against itself and against the `storage_bytes` of its weights, for a pool of `lanes`. Keys and values
    /// are kept as `kv`, whatever the graph declares: only shifts and attention touch them, which is checked.
    ///
    /// # Errors
    /// Names the op, what is wrong, the value found and the value allowed.
    ///
    /// # Panics
    /// If the rooms are smaller than the graph.
    pub fn new(
        graph: &Graph<'p>,
        storage_bytes: u64,
        kv: KvType,
        lanes: usize,
        rooms: Rooms<'p>,
    ) -> Result<Self, GraphError> {
        let Rooms { places, steps } = rooms;
        let places = &mut places[..Self::places_len(graph)];
        let steps = &mut steps[..graph.ops.len()];
        let arena_bytes = places::lay_out(graph, kv, places)?;
        let limits = check::resolve(graph, Places::new(graph, places), storage_bytes, lanes, steps)?;
        share::plan(graph, steps);
        Ok(Self {
            graph: *graph,
            places,
            steps,
            arena: arena::Sizes::new(arena_bytes, limits.frequencies.head_dim, limits.needs, graph.batch_max, lanes)?,
            frequencies: limits.frequencies,
            seq_len: limits.seq_len,
            slots: limits.slots,
            vocab_size: limits.vocab_size,
        })
    }

    /// Bytes of the arena, KV cache included.
    pub const fn arena_bytes(&self) -> usize {
        self.arena.bytes
    }

    /// Barriers that lanes meet at in one pass, besides those that start and end the pool's runs.
    pub fn barriers(&self) -> usize {
        self.steps.iter().filter(|step| step.barrier).count()
    }

    /// Segments that run together, by index: an exchange ends a run.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let segments = self.graph.segments;
        let mut start = 0;
        core::iter::from_fn(move || {
            let rest = segments.get(start..).filter(|rest| !rest.is_empty())?;
            let len =
                rest.iter().position(|segment| share::ends_run(&self.graph, segment)).map_or(rest.len(), |at| at + 1);
            let run = start..start + len;
            start = run.end;
            Some(run)
        })
    }

    /// Positions of the KV cache.
    pub const fn seq_len(&self) -> u32 {
        self.seq_len
    }

    /// Sequences of the KV cache.
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of keys and values of all sequences.
    pub fn cache_bytes(&self) -> u64 {
        let of_step = |step: &Step| match &step.kind {
            Kind::Shift { cache, .. } => (cache.end() - cache.offset) as u64,
            _ => 0,
        };
        self.steps.iter().map(of_step).sum()
    }

    /// The graph that was checked.
    pub const fn graph(&self) -> &Graph<'p> {
        &self.graph
    }
}

/// Why a forward pass ended early.
#[derive(Debug)]
pub enum Failure<S, L> {
    /// No row, or more than the graph's batch.
    Rows {
        /// As asked.
        rows: u32,
        /// Most.
        max: u32,
    },
    /// A sequence that the cache has no place for.
    Slot {
        /// As asked.
        slot: u32,
        /// Places that there are.
        slots: u32,
    },
    /// Two runs of one sequence in a batch.
    Twice {
        /// Its place.
        slot: u32,
    },
    /// Positions beyond the cache.
    Context {
        /// First position behind the batch.
        end: u64,
        /// Positions of the cache.
        seq_len: u32,
    },
    /// A token that the vocabulary does not have, or a token missing.
    Token {
        /// Its id, if there was one.
        id: Option<u32>,
        /// Tokens of the embedding.
        vocab_size: u32,
    },
    /// Weights could not be had.
    Storage(S),
    /// An exchange failed.
    Links(L),
    /// The caller wanted it to end.
    Stopped,
}

impl<S: fmt::Display, L: fmt::Display> fmt::Display for Failure<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows { rows, max } => {
                write!(f, "batch of {rows} rows; allowed: 1 to {max}, at least one in each run")
            }
            Self::Slot { slot, slots } => write!(f, "sequence {slot}; the KV cache has room for {slots}"),
            Self::Twice { slot } => write!(f, "two runs of sequence {slot} in one batch"),
            Self::Context { end, seq_len } => {
                write!(f, "positions up to {end} asked for; the context holds {seq_len}")
            }
            Self::Token { id: Some(id), vocab_size } => {
                write!(f, "token id {id}; the model's vocabulary has {vocab_size}")
            }
            Self::Token { id: None, .. } => f.write_str("a batch with fewer tokens than rows"),
            Self::Storage(error) => write!(f, "weights: {error}"),
            Self::Links(error) => error.fmt(f),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl<S: core::error::Error, L: core::error::Error> core::error::Error for Failure<S, L> {}

/// Runs one node's program.
pub struct Engine<'a, S: Storage + ?Sized, P: Pool> {
    program: Program<'a>,
    storage: &'a S,
    pool: &'a P,
    kernels: Kernels,
    arena: Arena<'a>,
    /// Of the last batch.
    rows: BatchRows,
    stop: Option<&'a AtomicBool>,
    /// Fewer rows are computed as a whole.
    halve_from: usize,
}

impl<'a, S: Storage + ?Sized, P: Pool> Engine<'a, S, P> {
    /// Binds a program to its weights, threads and memory. The arena need not be zeroed.
    ///
    /// # Panics
    /// If `arena` is smaller than [`Program::arena_bytes`], not aligned to [`ARENA_ALIGN`], or the pool has more lanes
    /// than the program was made for.
    pub fn new(program: &Program<'a>, storage: &'a S, pool: &'a P, kernels: Kernels, arena: &'a mut [u8]) -> Self {
        assert!(pool.lanes() <= program.arena.lanes, "{} lanes of {}", pool.lanes(), program.arena.lanes);
        let arena = Arena::new(arena, program.arena.bytes);
        // SAFETY: nobody else has the arena yet.
        program.frequencies.fill(unsafe { arena.frequencies(&program.arena) });
        Self {
            program: *program,
            storage,
            pool,
            kernels,
            arena,
            rows: BatchRows::new(),
            stop: None,
            halve_from: usize::MAX,
        }
    }

    /// Passes end with [`Failure::Stopped`] soon after `flag` is set, before the next op. Beside other nodes they do not: those
    /// would wait for what was promised to them.
    pub fn stop_on(&mut self, flag: &'a AtomicBool) {
        self.stop = Some(flag).filter(|_| self.program.graph.nodes == 1);
    }

    /// Batches of at least `rows` rows are computed in two halves from now on: while one computes, the other one's exchange is on its
    /// way. All nodes must do the same.
    pub fn halve_from(&mut self, rows: u32) {
        self.halve_from = rows.max(2) as usize;
    }

    /// The program that runs here.
    pub const fn program(&self) -> &Program<'a> {
        &self.program
    }

    /// Computes `batch`; earlier positions of its sequences must have been computed before, later ones are forgotten.
    ///
    /// # Errors
    /// A batch that does not fit is refused before anything is computed. After any other failure the positions of the
    /// batch are undefined, those before it stay valid.
    pub fn forward<L: Links>(&mut self, links: &mut L, batch: Batch<'_>) -> Result<(), Failure<S::Error, L::Error>> {
        self.check(&batch)?;
        self.accept(&batch);
        let (program, rows) = (self.program, self.rows.at().len());
        let half = if rows >= self.halve_from && program.graph.nodes > 1 { rows / 2 } else { 0 };
        // Rows that need logits may be in both halves.
        let is_head = |run: &Range<usize>| program.graph.segments[run.clone()].iter().any(|segment| segment.head);
        let parts = |run: Range<usize>| {
            let half = if is_head(&run) { 0 } else { half };
            [0..half, half..rows].into_iter().filter(|rows| !rows.is_empty()).map(move |rows| (run.clone(), rows))
        };
        self.announce(program.runs().flat_map(parts));
        // An exchange that was begun: the segment before it, and its rows.
        let mut begun: Option<(&Segment, Range<usize>)> = None;
        for (run, rows) in program.runs().flat_map(parts) {
            let last = &program.graph.segments[run.end - 1];
            if let Some((segment, begun)) = begun.take_if(|(_, begun)| is_head(&run) || *begun == rows) {
                self.exchange(links, segment, &begun)?;
            }
            self.compute(run, &batch, &rows)?;
            if let Some((segment, begun)) = begun.take() {
                self.exchange(links, segment, &begun)?;
            }
            self.begin(links, last, &rows)?;
            begun = Some((last, rows));
        }
        begun.map_or(Ok(()), |(segment, rows)| self.exchange(links, segment, &rows))
    }

    /// Copies keys and values of positions, bit for bit, so that they need not be computed again; what the other sequence had
    /// is forgotten.
    ///
    /// # Errors
    /// Sequences or positions that there are not.
    pub fn copy<E>(&mut self, copy: CacheCopy) -> Result<(), Failure<S::Error, E>> {
        let CacheCopy { from, to, positions } = copy;
        let (slots, seq_len) = (self.program.slots, self.program.seq_len);
        if let Some(slot) = [from, to].into_iter().find(|slot| *slot >= slots) {
            return Err(Failure::Slot { slot, slots });
        }
        if positions > seq_len {
            return Err(Failure::Context { end: positions.into(), seq_len });
        }
        for step in self.program.steps {
            if let Kind::Shift { cache, .. } = &step.kind {
                self.copy_in(cache, copy);
            }
        }
        Ok(())
    }

    /// One layer's keys or values.
    fn copy_in(&mut self, cache: &Cache, copy: CacheCopy) {
        let bytes = cache.layout.first_bytes(cache.part, copy.positions as usize);
        for head in 0..cache.heads {
            let [from, to] = [copy.from, copy.to].map(|slot| self.arena.byte_ptr(cache.head(slot, head), bytes));
            // SAFETY: `byte_ptr` checked both ranges, no lane runs while `self` is borrowed here, and a copy may overlap itself.
            unsafe { core::ptr::copy(from, to, bytes) };
        }
    }

    /// Shows `each` the keys and values of the positions of a page, those from `page * PAGE` on, piece by piece: to be read, or to be
    /// put there. How many bytes they are, and in which order they come, depends on the graph and on the type of the cache alone.
    ///
    /// # Errors
    /// A sequence or positions that there are not.
    pub fn page<E>(
        &mut self,
        slot: u32,
        page: u32,
        mut each: impl FnMut(&mut [u8]),
    ) -> Result<(), Failure<S::Error, E>> {
        let (slots, seq_len) = (self.program.slots, self.program.seq_len);
        if slot >= slots {
            return Err(Failure::Slot { slot, slots });
        }
        let end = (u64::from(page) + 1) * u64::from(PAGE);
        if end > u64::from(seq_len) {
            return Err(Failure::Context { end, seq_len });
        }
        let positions = [(end - u64::from(PAGE)) as usize, end as usize];
        for step in self.program.steps {
            let Kind::Shift { cache, .. } = &step.kind else { continue };
            let [from, to] = positions.map(|position| cache.layout.tile_start(cache.part, position));
            for head in 0..cache.heads {
                let first = self.arena.byte_ptr(cache.head(slot, head) + from, to - from);
                // SAFETY: `byte_ptr` checked the range, of which every byte was written when the arena was made, and no lane runs
                // while `self` is borrowed here.
                each(unsafe { core::slice::from_raw_parts_mut(first, to - from) });
            }
        }
        Ok(())
    }

    /// Exchanges the logits of the last batch once more.
    ///
    /// # Errors
    /// Where a peer is gone, silent or misbehaves.
    pub fn exchange_logits<L: Links>(&mut self, links: &mut L) -> Result<(), Failure<S::Error, L::Error>> {
        match self.program.graph.segments.last().filter(|segment| segment.head) {
            Some(head) => self.exchange(links, head, &(0..self.rows.at().len())),
            None => Ok(()),
        }
    }

    /// Logits of a row of the last batch, for which they were asked.
    ///
    /// # Panics
    /// If the graph has no pipe for them or `row` lies beyond the batch.
    pub fn logits(&mut self, row: u32) -> &mut [f32] {
        let graph = &self.program.graph;
        let pipe = graph.pipe(pipes::LOGITS).expect("graphs that are asked for logits have a pipe for them");
        assert!(row < graph.batch_max, "row {row} of {}", graph.batch_max);
        let (place, width) = (self.program.places[pipe], graph.pipes[pipe].width as usize);
        // SAFETY: no lane runs while `self` is borrowed here.
        unsafe { self.arena.f32s_mut(place.offset + row as usize * place.row_bytes, width) }
    }

    /// Logits of the last row of the last batch.
    ///
    /// # Panics
    /// As [`Self::logits`]; before the first batch.
    pub fn last_logits(&mut self) -> &mut [f32] {
        let rows = self.rows.at().len() as u32;
        self.logits(rows.checked_sub(1).expect("a batch has been computed"))
    }

    /// Rows of the last batch from the first to the last whose logits were asked for; empty where none were.
    pub fn asked(&self) -> Range<u32> {
        self.rows.head.start as u32..self.rows.head.end as u32
    }

    /// Whether a batch would be computed, before others are told of it.
    ///
    /// # Errors
    /// Those with which [`forward`](Self::forward) refuses a batch.
    pub fn check<E>(&self, batch: &Batch<'_>) -> Result<(), Failure<S::Error, E>> {
        BatchRows::check(batch, &self.program)
    }

    /// Writes what the ops read: positions, tokens, the RoPE table.
    fn accept(&mut self, batch: &Batch<'_>) {
        let program = &self.program;
        self.rows.take(batch);
        let (at, rows) = (self.rows.at(), self.rows.at().len());
        for (pipe, place) in program.graph.pipes.iter().zip(program.places) {
            // SAFETY: no lane runs while `self` is borrowed here; `check` saw that the two pipes have one value per row.
            let values = || unsafe { self.arena.f32s_mut(place.offset, rows) }.iter_mut();
            if pipe.name == pipes::POSITIONS {
                values().zip(at).for_each(|(value, at)| *value = at.position as f32);
            } else if pipe.name == pipes::TOKENS {
                values().zip(batch.tokens).for_each(|(value, token)| *value = *token as f32);
            }
        }
        // SAFETY: no lane runs while `self` is borrowed here; the two regions are apart.
        let (frequencies, table) = unsafe { (self.arena.frequencies(&program.arena), self.arena.rope(&program.arena)) };
        for (at, angles) in at.iter().zip(table.chunks_exact_mut(program.arena.head_dim.max(1))) {
            rope::fill_row(frequencies, at.position, angles);
        }
    }

    /// Tells Storage what a pass will read. Which experts, is not known yet.
    fn announce(&self, runs: impl Iterator<Item = (Range<usize>, Range<usize>)>) {
        let graph = &self.program.graph;
        let is_read = |segment: &&Segment, of: &Range<usize>| self.rows_of(segment, of).is_some();
        let mut matrices = runs.flat_map(|(run, of)| {
            let segments = graph.segments[run].iter().filter(move |segment| is_read(segment, &of));
            let ops = segments.flat_map(|segment| graph.ops_of(segment));
            let dense = ops.filter(|op| matches!(op.kind, OpKind::Matmul { experts: 0, .. }));
            dense.filter_map(|op| op.weight.as_ref())
        });
        self.storage.begin(&mut matrices);
    }

    /// Runs the ops of some segments in every lane, for a part of the batch.
    fn compute<E>(
        &mut self,
        segments: Range<usize>,
        batch: &Batch<'_>,
        of: &Range<usize>,
    ) -> Result<(), Failure<S::Error, E>> {
        let Program { graph, steps, .. } = self.program;
        if graph.segments[segments.clone()]
            .iter()
            .all(|segment| segment.ops.is_empty() || self.rows_of(segment, of).is_none())
        {
            return Ok(());
        }
        let error = FirstError::new();
        self.pool.run(&|lane| {
            for segment in &graph.segments[segments.clone()] {
                let Some(rows) = self.rows_of(segment, of) else { continue };
                let work = run::Work {
                    graph: &graph,
                    storage: self.storage,
                    kernels: self.kernels,
                    arena: &self.arena,
                    sizes: &self.program.arena,
                    error: &error,
                    rows,
                    at: self.rows.at(),
                    runs: batch.runs,
                    stop: self.stop,
                };
                for step in &steps[segment.ops.start as usize..segment.ops.end as usize] {
                    if step.barrier {
                        lane.barrier();
                    }
                    // After a failure lanes still meet at every barrier.
                    if work.is_over() {
                        work.skip(step, &lane);
                    } else {
                        work.step(step, &lane);
                    }
                }
            }
        });
        // Whoever wants it to end does not want to hear that a wait for weights ended, too.
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Failure::Stopped);
        }
        error.into_result().map_err(Failure::Storage)
    }

    /// Begins the first exchange behind a segment.
    fn begin<L: Links>(
        &mut self,
        links: &mut L,
        segment: &Segment,
        of: &Range<usize>,
    ) -> Result<(), Failure<S::Error, L::Error>> {
        self.for_exchanges(segment, of, 1, |exchange, pipe| links.begin(exchange, pipe))
    }

    /// Exchanges what a segment has computed.
    fn exchange<L: Links>(
        &mut self,
        links: &mut L,
        segment: &Segment,
        of: &Range<usize>,
    ) -> Result<(), Failure<S::Error, L::Error>> {
        self.for_exchanges(segment, of, usize::MAX, |exchange, pipe| links.exchange(exchange, pipe))
    }

    /// Hands the first exchanges behind a segment to `body`, each with the rows that it is about.
    fn for_exchanges<E>(
        &mut self,
        segment: &Segment,
        of: &Range<usize>,
        count: usize,
        mut body: impl FnMut(Exchange<'_>, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), Failure<S::Error, E>> {
        let graph = &self.program.graph;
        let Some(rows) = self.rows_of(segment, of) else { return Ok(()) };
        if graph.nodes == 1 {
            return Ok(());
        }
        for sync in graph.syncs_of(segment).iter().take(count) {
            let place = self.program.places[sync.pipe as usize];
            let row_bytes = place.row_bytes;
            let (offset, bytes) = (place.offset + rows.start * row_bytes, rows.len() * row_bytes);
            // SAFETY: no lane runs while `self` is borrowed here.
            let pipe = unsafe { self.arena.bytes_mut(offset, bytes) };
            let (dtype, bounds) = (graph.pipes[sync.pipe as usize].dtype, graph.bounds_from(sync.bounds));
            let exchange = Exchange { collective: sync.collective, row_bytes, nodes: graph.nodes, dtype, bounds };
            body(exchange, pipe).map_err(Failure::Links)?;
        }
        Ok(())
    }

    /// The rows of a part of the batch that a segment computes, or `None` where nothing is asked of it.
    fn rows_of(&self, segment: &Segment, of: &Range<usize>) -> Option<Range<usize>> {
        let rows = if segment.head { self.rows.head.clone() } else { of.clone() };
        Some(rows).filter(|rows| !rows.is_empty())
    }
}
