//! Weights that do not fit the memory: some of them stay in it, the others come from disk for every pass, ahead of those who need them.
//!
//! ```text
//! file --threads, whole sectors, past the system's cache--> slots (pieces of this pass, in order) --leases--> lanes
//!                                                       --> kept pieces, read when they are needed first
//!                                                       --> places of experts
//! ```
//! What is read lies in memory as it lies in the file, and lanes compute from there: nothing is copied. Memory is fixed when a
//! [`Plan`] is made, and taken as it is filled.

mod experts;
mod pieces;
mod plan;
mod queue;
mod source;

pub use experts::Hits;
pub use pieces::{Grain, weight_bytes};
pub use plan::{Figures, Plan};
pub use source::{DirectFile, Source, Stamp};

use crate::machine::arena::ArenaMemory;
use dair_core::graph::Weight;
use dair_core::io::{Span, Storage};
use experts::{Experts, Key};
use plan::ExpertWeight;
use queue::Queue;
use source::{frame, frame_bytes};
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Threads that read: disks want several requests at once.
const READERS: usize = 4;
/// How soon a wait for the disk notices that it is to end.
const WATCH: Duration = Duration::from_millis(50);

/// Why weights could not be had.
#[derive(Clone, Debug)]
pub enum StreamError {
    /// The system refuses to read.
    Read(PathBuf, Range<u64>, Arc<io::Error>),
    /// The file ends too early, at the second number.
    Short(PathBuf, Range<u64>, u64),
    /// The file has another content than before.
    Changed(PathBuf),
    /// It was to end.
    Stopped,
    /// Somebody wants what was not announced: a mistake of this program.
    Unplanned(u64),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, range, error) => {
                let Range { start, end } = range;
                write!(f, "cannot read bytes {start} to {end} of {}: {error}", path.display())
            }
            Self::Short(path, range, end) => write!(
                f,
                "{} was shortened while it was in use: it ends at byte {end}, and bytes {} to {} are needed; copy or convert it again",
                path.display(),
                range.start,
                range.end
            ),
            Self::Changed(path) => write!(
                f,
                "{} was changed while it was in use; start again, and replace files only by renaming",
                path.display()
            ),
            Self::Stopped => f.write_str("stopped while weights were read"),
            Self::Unplanned(offset) => write!(f, "weights at byte {offset} are wanted that were not announced"),
        }
    }
}

impl std::error::Error for StreamError {}

/// Looks at the content of a file once more: whether it is what it was.
pub type IsSame = Box<dyn Fn() -> io::Result<bool> + Send + Sync>;

/// What was read so far, and what waiting for it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Bytes of the file.
    pub bytes: u64,
    /// Time that lanes waited, per lane.
    pub waited: Duration,
    /// Passes that were begun.
    pub passes: u64,
    /// Of experts.
    pub experts: Hits,
}

impl Reading {
    /// What is more than in `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            passes: self.passes - before.passes,
            waited: self.waited.saturating_sub(before.waited),
            experts: Hits {
                hits: self.experts.hits - before.experts.hits,
                misses: self.experts.misses - before.experts.misses,
            },
        }
    }
}

/// Weights of a graph, of which only a part is in memory.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

/// What lanes and readers share.
struct Shared {
    source: Box<dyn Source>,
    is_same: IsSame,
    /// How the file looked when its content was looked at last.
    stamp: Mutex<Stamp>,
    file_bytes: u64,
    plan: Plan,
    lanes: usize,
    stop: Option<&'static AtomicBool>,
    state: Mutex<State>,
    /// Something was read.
    arrived: Condvar,
    /// There is something to read, or room for it.
    work: Condvar,
    kept: Vec<OnceLock<Framed>>,
    vectors: BTreeMap<u64, Framed>,
    slots: Vec<RwLock<Framed>>,
    places: Vec<RwLock<Framed>>,
    bytes: AtomicU64,
    passes: AtomicU64,
    waited_ns: AtomicU64,
}

struct State {
    queue: Queue<StreamError>,
    experts: Experts<StreamError>,
    is_over: bool,
}

/// Sectors, and which of their bytes were asked for.
#[derive(Debug)]
struct Framed {
    memory: ArenaMemory,
    start: u64,
    range: Range<usize>,
}

impl Framed {
    fn new(bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory: ArenaMemory::large(bytes)?, start: 0, range: 0..0 })
    }

    /// Some of the bytes that were asked for.
    fn part(&self, span: Span) -> &[u8] {
        let at = self.range.start + (span.offset - self.start) as usize;
        &self.memory[at..at + span.bytes as usize]
    }
}

/// Bytes in memory, as long as they are used.
pub enum Lease<'s> {
    /// They stay.
    Kept(&'s [u8]),
    /// They were read for this lease.
    Own(Box<OwnBytes>),
    /// They are of this pass.
    Passing(Passing<'s>),
}

/// Bytes that were read for a lease.
pub struct OwnBytes(Framed);

/// Bytes of a slot that is used again when all lanes are done with it.
pub struct Passing<'s> {
    memory: RwLockReadGuard<'s, Framed>,
    span: Span,
    shared: &'s Shared,
    held: Held,
}

#[derive(Clone, Copy)]
enum Held {
    Visit(u64, u32),
    Place(usize, u32),
}

impl Deref for Lease<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Own(own) => &own.0.memory[own.0.range.clone()],
            Self::Passing(passing) => passing.memory.part(passing.span),
        }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let is_free = match self.held {
            Held::Visit(id, rows) => state.queue.release(id, rows),
            Held::Place(place, rows) => state.experts.release(place, rows),
        };
        drop(state);
        if is_free {
            self.shared.work.notify_one();
        }
    }
}

impl Stream {
    /// Begins to read `source` as `plan` says. `is_same` is asked when the file looks changed from outside; `stop`,
    /// set from elsewhere, ends waits.
    ///
    /// # Errors
    /// Where the system has no memory or threads, or the file can't be read.
    pub fn new(
        source: Box<dyn Source>,
        is_same: IsSame,
        plan: Plan,
        stop: Option<&'static AtomicBool>,
    ) -> io::Result<Self> {
        let stamp = source.stamp()?;
        let memory = |count: usize, bytes: u64| {
            (0..count).map(|_| Framed::new(bytes).map(RwLock::new)).collect::<io::Result<Vec<_>>>()
        };
        let slots = memory(plan.slots, frame_bytes(plan.pieces.largest()))?;
        let places = memory(plan.places, plan.place_bytes)?;
        let mut shared = Shared {
            is_same,
            file_bytes: stamp.bytes,
            stamp: Mutex::new(stamp),
            lanes: plan.pieces.grain().lanes,
            stop,
            state: Mutex::new(State {
                queue: Queue::new(plan.slots),
                experts: Experts::new(plan.places),
                is_over: false,
            }),
            arrived: Condvar::new(),
            work: Condvar::new(),
            kept: (0..plan.pieces.len()).map(|_| OnceLock::new()).collect(),
            vectors: BTreeMap::new(),
            slots,
            places,
            bytes: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            source,
            plan,
        };
        for (start, span) in &shared.plan.vectors {
            let vector = shared.read_own(span).map_err(io::Error::other)?;
            shared.vectors.insert(*start, vector);
        }
        let shared = Arc::new(shared);
        let mut stream = Self { shared: Arc::clone(&shared), readers: Vec::new() };
        for _ in 0..READERS {
            let shared = Arc::clone(&shared);
            let reader = thread::Builder::new().name("reader".into()).spawn(move || shared.serve())?;
            stream.readers.push(reader);
        }
        Ok(stream)
    }

    /// The plan in bytes.
    pub fn figures(&self) -> &Figures {
        &self.shared.plan.figures
    }

    /// Whether this is what `plan` asks for.
    pub fn is_of(&self, plan: &Plan) -> bool {
        self.shared.plan == *plan
    }

    /// What was read so far.
    pub fn reading(&self) -> Reading {
        let Shared { bytes, passes, .. } = &*self.shared;
        Reading {
            bytes: bytes.load(Ordering::Relaxed),
            passes: passes.load(Ordering::Relaxed),
            waited: self.waited(),
            experts: self.shared.state().experts.hits(),
        }
    }

    /// Time that lanes have waited so far, per lane.
    pub fn waited(&self) -> Duration {
        let Shared { waited_ns, lanes, .. } = &*self.shared;
        Duration::from_nanos(waited_ns.load(Ordering::Relaxed) / *lanes as u64)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.work.notify_all();
        for reader in self.readers.drain(..) {
            // One that has panicked has nothing more to say.
            let _ = reader.join();
        }
    }
}

/// What a reader is to do.
enum Job {
    Piece(queue::Order),
    Expert(Key, usize),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be read next.
    fn next_job(&self, state: &mut State) -> Option<Job> {
        // Experts are wanted by lanes that stand still.
        if let Some((key, place)) = state.experts.next() {
            return Some(Job::Expert(key, place));
        }
        let stays = |piece: u32| {
            let is_kept = self.plan.pieces.get(piece).is_kept;
            (!is_kept || self.kept[piece as usize].get().is_none()).then_some(is_kept)
        };
        state.queue.next(stays, |piece| self.plan.pieces.get(piece).rows).map(Job::Piece)
    }

    /// A reader's life.
    fn serve(&self) {
        let mut state = self.state();
        while !state.is_over {
            let Some(job) = self.next_job(&mut state) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            match job {
                Job::Piece(order) => {
                    let result = self.read_piece(order);
                    state = self.state();
                    state.queue.done(order.id, result);
                }
                Job::Expert((product, expert), place) => {
                    let span = self.expert_span(product, expert);
                    let result = self.read_into(&span, &mut write(&self.places[place]));
                    state = self.state();
                    state.experts.done(place, result);
                }
            }
            self.arrived.notify_all();
        }
    }

    fn read_piece(&self, order: queue::Order) -> Result<(), StreamError> {
        let piece = self.plan.pieces.get(order.piece);
        let span = piece.start..piece.end;
        match order.slot {
            Some(slot) => self.read_into(&span, &mut write(&self.slots[slot])),
            None => {
                let kept = self.read_own(&span)?;
                // Whoever was first has read the same.
                let _ = self.kept[order.piece as usize].set(kept);
                Ok(())
            }
        }
    }

    /// Reads a span into memory of its own.
    fn read_own(&self, span: &Range<u64>) -> Result<Framed, StreamError> {
        let frame = frame(span);
        let failed = |error| StreamError::Read(self.source.path().into(), span.clone(), Arc::new(error));
        let mut framed = Framed::new(frame.end - frame.start).map_err(failed)?;
        self.read_into(span, &mut framed)?;
        Ok(framed)
    }

    fn read_into(&self, span: &Range<u64>, to: &mut Framed) -> Result<(), StreamError> {
        let frame = frame(span);
        let len = (frame.end - frame.start) as usize;
        let got = self
            .source
            .read(frame.start, &mut to.memory[..len])
            .map_err(|error| StreamError::Read(self.source.path().into(), span.clone(), Arc::new(error)))?;
        self.bytes.fetch_add(got as u64, Ordering::Relaxed);
        let end = frame.start + got as u64;
        if end < span.end {
            return Err(StreamError::Short(self.source.path().into(), span.clone(), end));
        }
        self.check_file()?;
        let first = (span.start - frame.start) as usize;
        (to.start, to.range) = (span.start, first..first + (span.end - span.start) as usize);
        Ok(())
    }

    /// Waits for something to arrive.
    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> Result<MutexGuard<'g, State>, StreamError> {
        let start = Instant::now();
        let (state, _) = self.arrived.wait_timeout(state, WATCH).unwrap_or_else(PoisonError::into_inner);
        self.waited_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) { Err(StreamError::Stopped) } else { Ok(state) }
    }

    fn lease_piece(&self, index: u32, span: Span) -> Result<Lease<'_>, StreamError> {
        let piece = self.plan.pieces.get(index);
        if let Some(kept) = self.kept[index as usize].get() {
            return Ok(Lease::Kept(kept.part(span)));
        }
        let mut state = self.state();
        loop {
            match state.queue.find(index) {
                queue::Found::Ready(visit, slot) => {
                    drop(state);
                    let held = Held::Visit(visit, piece.rows_of(span.bytes));
                    return Ok(Lease::Passing(Passing { memory: read(&self.slots[slot]), span, shared: self, held }));
                }
                queue::Found::Failed(error) => return Err(error),
                queue::Found::Wait => state = self.wait(state)?,
                // It may have come to stay since it was looked for.
                queue::Found::Unplanned => match self.kept[index as usize].get() {
                    Some(kept) => return Ok(Lease::Kept(kept.part(span))),
                    None => return Err(StreamError::Unplanned(span.offset)),
                },
            }
        }
    }

    fn expert_span(&self, product: u32, expert: u32) -> Range<u64> {
        let weight = &self.plan.experts[product as usize].weight;
        // The program was checked: all of this lies in the file.
        weight.mat_start(expert).unwrap_or(0)..weight.mat_end(expert).unwrap_or(0)
    }

    /// The expert in which a byte lies.
    fn expert_at(&self, offset: u64) -> Option<Key> {
        (0..).zip(&self.plan.experts).find_map(|(product, ExpertWeight { weight, .. })| {
            let from = offset.checked_sub(weight.offset)?;
            // Of a single expert, the stride may be anything.
            let expert = from.checked_div(weight.mat_stride).unwrap_or(0);
            let is_inside = expert < weight.mats.into() && offset < weight.mat_end(expert as u32)?;
            is_inside.then_some((product, expert as u32))
        })
    }

    fn lease_expert(&self, key: Key, span: Span) -> Result<Lease<'_>, StreamError> {
        let rows = span.bytes.div_ceil(self.plan.experts[key.0 as usize].weight.row_stride) as u32;
        let mut state = self.state();
        loop {
            match state.experts.find(key) {
                experts::Found::Ready(place) => {
                    drop(state);
                    let held = Held::Place(place, rows);
                    return Ok(Lease::Passing(Passing { memory: read(&self.places[place]), span, shared: self, held }));
                }
                experts::Found::Failed(error) => return Err(error),
                experts::Found::Wait => state = self.wait(state)?,
                // The lane that knows who is chosen is not here yet.
                experts::Found::Unplanned => {
                    self.want(&mut state, key);
                    self.work.notify_all();
                }
            }
        }
    }

    /// A matrix of an expert is needed, and so will be the others of the same expert.
    fn want(&self, state: &mut State, (product, expert): Key) {
        let layer = self.plan.experts[product as usize].layer;
        let others = (product..).zip(&self.plan.experts[product as usize..]);
        for (product, ExpertWeight { weight, .. }) in others.take_while(|(_, other)| other.layer == layer) {
            state.experts.want((product, expert), weight.rows);
        }
    }

    /// Looks at the file from outside, and at its content if it looks changed: what was read before is right then.
    fn check_file(&self) -> Result<(), StreamError> {
        let changed = || StreamError::Changed(self.source.path().into());
        let stamp = self.source.stamp().map_err(|_| changed())?;
        let mut known = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp != *known {
            if !(self.is_same)().unwrap_or(false) {
                return Err(changed());
            }
            *known = stamp;
        }
        Ok(())
    }
}

fn write(memory: &RwLock<Framed>) -> std::sync::RwLockWriteGuard<'_, Framed> {
    memory.write().unwrap_or_else(PoisonError::into_inner)
}

fn read(memory: &RwLock<Framed>) -> RwLockReadGuard<'_, Framed> {
    memory.read().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("source", &self.source)
            .field("figures", &self.plan.figures)
            .finish_non_exhaustive()
    }
}

impl Storage for Stream {
    type Error = StreamError;
    type Lease<'s> = Lease<'s>;

    fn bytes(&self) -> u64 {
        self.shared.file_bytes
    }

    fn lease(&self, span: Span) -> Result<Lease<'_>, StreamError> {
        let shared = &*self.shared;
        if let Some(index) = shared.plan.pieces.find(span.offset) {
            return shared.lease_piece(index, span);
        }
        if let Some((_, vector)) = shared.vectors.range(..=span.offset).next_back()
            && span.offset + span.bytes <= vector.start + vector.range.len() as u64
        {
            return Ok(Lease::Kept(vector.part(span)));
        }
        if let Some(key) = shared.expert_at(span.offset) {
            return shared.lease_expert(key, span);
        }
        // A row of the embedding.
        let own = shared.read_own(&(span.offset..span.offset + span.bytes))?;
        Ok(Lease::Own(Box::new(OwnBytes(own))))
    }

    fn window(&self) -> u64 {
        self.shared.plan.pieces.grain().window
    }

    fn begin(&self, matrices: &mut dyn Iterator<Item = &Weight>) {
        let shared = &*self.shared;
        let is_read = |piece: &u32| shared.kept[*piece as usize].get().is_none();
        let pieces = matrices.flat_map(|weight| shared.plan.pieces.indexes(weight)).filter(is_read).collect();
        let mut state = shared.state();
        state.queue.begin(pieces);
        state.experts.begin();
        shared.passes.fetch_add(1, Ordering::Relaxed);
        drop(state);
        shared.work.notify_all();
    }

    fn prefetch(&self, span: Span) {
        let shared = &*self.shared;
        if let Some(key) = shared.expert_at(span.offset) {
            shared.want(&mut shared.state(), key);
            shared.work.notify_all();
        }
    }
}
