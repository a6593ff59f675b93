//! This machine's part of a model, as a value: graph, memory, weights and what computes them.

use crate::cluster::error::RootError;
use crate::cluster::kv;
use crate::cluster::options::{Repack, StorageKind};
use crate::cluster::pages::{Disk, PagesOfPart};
use crate::cluster::room::{Beside, NoRoom};
use crate::cluster::tables::GraphTables;
use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use crate::model::Model;
use crate::model::fingerprint::fingerprint;
use crate::net::NetError;
use crate::storage::stream::{self, DirectFile, Stream};
use crate::storage::{Repacked, Weights, interleaved_bytes};
use dair_core::exec::{Engine, Place, Program, Rooms, Step};
use dair_core::graph::{Graph, Op, pipes};
use dair_core::io::Pool;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{self, Cut, DLLAMA_BATCH};
use dair_core::wire::native::{Pages, Ready};
use self_cell::{MutBorrow, self_cell};
use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How this machine computes.
#[derive(Clone, Copy, Debug)]
pub struct Local<'l> {
    /// Its threads.
    pub pool: &'l Threads,
    /// What computes.
    pub kernels: Kernels,
    /// Type in which it keeps keys and values.
    pub kv: KvType,
    /// Whether weights are repacked into memory.
    pub repack: Repack,
    /// Most bytes of memory for weights, keys, values and activations.
    pub max_memory: u64,
    /// Where weights are.
    pub storage: StorageKind,
    /// Where keys and values are kept, if they are.
    pub disk: Option<&'l Arc<Disk>>,
    /// Set from elsewhere, it ends waits for weights, if there are no other nodes.
    pub stop: Option<&'static AtomicBool>,
}

/// What an engine computes with.
type PartEngine<'p> = Engine<'p, Weights<'p>, Threads>;

/// The memory that a part's engine lives on. What its size follows from is known only on the way.
struct Memory<'m> {
    pool: &'m Threads,
    tables: MutBorrow<GraphTables>,
    ops: OnceCell<MutBorrow<Vec<Op>>>,
    places: OnceCell<MutBorrow<Vec<Place>>>,
    steps: OnceCell<MutBorrow<Vec<Step>>>,
    arena: OnceCell<MutBorrow<ArenaMemory>>,
    weights: OnceCell<Weights<'m>>,
}

self_cell!(
    struct Cell<'m> {
        owner: Memory<'m>,
        #[not_covariant]
        dependent: PartEngine,
    }
);

/// A part that is ready to compute.
pub struct Part<'m> {
    cell: Cell<'m>,
    kept: Option<Kept>,
    repack_time: Option<Duration>,
    pages: Option<PagesOfPart>,
}

/// What of a part is worth keeping for the one that takes its place.
#[derive(Clone, Debug)]
pub enum Kept {
    /// Rows that were interleaved.
    Repacked(Arc<Repacked>),
    /// Weights that were read, and the threads that read on.
    Streamed(Arc<Stream>),
}

impl Kept {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Repacked(repacked) => repacked.bytes(),
            Self::Streamed(stream) => stream.figures().memory_bytes(),
        }
    }
}

/// How weights get to the kernels.
enum Way {
    Mapped,
    Repacked,
    Streamed(Box<stream::Plan>),
}

/// Puts a value where it can be borrowed for as long as the part lives.
fn lend<T>(place: &OnceCell<MutBorrow<T>>, value: T) -> &mut T {
    place.get_or_init(|| MutBorrow::new(value)).borrow_mut()
}

impl<'m> Part<'m> {
    /// Prepares the part of `node`. `announce` is called when it is known to fit, before weights are repacked. What was `kept` of
    /// another part is used again, if it is just what this one needs.
    ///
    /// # Errors
    /// Those of preparing and of `announce`.
    pub fn prepare<T, E: From<RootError>>(
        model: &'m Model,
        (cut, node): (&Cut<'_>, u32),
        local: &Local<'m>,
        kept: Option<Kept>,
        announce: impl FnOnce(&Ready) -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        let header = model.header();
        let memory = Memory {
            pool: local.pool,
            tables: MutBorrow::new(GraphTables::new(cut.sizes(header))),
            ops: OnceCell::new(),
            places: OnceCell::new(),
            steps: OnceCell::new(),
            arena: OnceCell::new(),
            weights: OnceCell::new(),
        };
        let pages = local.disk.map(|disk| pages(model, (cut, node), local, disk)).transpose()?;
        let (mut keep, mut repack_time, mut announced) = (None, None, None);
        let cell = Cell::try_new(memory, |memory| {
            // Its memory is this part's, whether it is used or given back.
            let kept_bytes = kept.as_ref().map_or(0, Kept::bytes);
            let (program, way) = check(model, (cut, node), (local, kept_bytes), memory)?;
            let (graph, start) = (program.graph(), Instant::now());
            let arena_bytes = program.arena_bytes() as u64;
            let ready = Ready { arena_bytes, repacked_bytes: interleaved_bytes(graph), keeps: pages.is_some() };
            announced = Some(announce(&ready)?);
            let arena = lend(&memory.arena, arena_of(model, (cut, node), local, &program)?);
            let weights = match way {
                Way::Mapped => Weights::mapped(&model.file),
                Way::Repacked => {
                    let repacked = match kept {
                        Some(Kept::Repacked(kept)) if kept.is_of(graph) => kept,
                        _ => Arc::new(repack(model, graph, local.pool)?),
                    };
                    repack_time = Some(start.elapsed());
                    keep = Some(Kept::Repacked(Arc::clone(&repacked)));
                    Weights::beside(&model.file, repacked)
                }
                Way::Streamed(plan) => {
                    model.file.forget_all();
                    let stream = match kept {
                        Some(Kept::Streamed(kept)) if kept.is_of(&plan) => kept,
                        _ => Arc::new(stream(model, *plan, local, cut.nodes())?),
                    };
                    keep = Some(Kept::Streamed(Arc::clone(&stream)));
                    Weights::Streamed(stream)
                }
            };
            let weights = memory.weights.get_or_init(|| weights);
            Ok::<_, E>(Engine::new(&program, weights, memory.pool, local.kernels, arena))
        })?;
        let announced = announced.unwrap_or_else(|| unreachable!("a part that is ready was announced"));
        Ok((Self { cell, kept: keep, repack_time, pages }, announced))
    }

    /// Lets `body` compute.
    pub fn compute<'s, R>(&'s mut self, body: impl for<'p> FnOnce(&'s mut PartEngine<'p>) -> R) -> R {
        self.cell.with_dependent_mut(|_, engine| body(engine))
    }

    /// How long repacking took, if weights are repacked.
    pub fn repack_time(&self) -> Option<Duration> {
        self.repack_time
    }

    /// Where weights come from, if not all of them are in memory.
    pub fn stream(&self) -> Option<&Stream> {
        match &self.kept {
            Some(Kept::Streamed(stream)) => Some(stream),
            _ => None,
        }
    }

    /// How long its lanes have waited for a disk so far.
    pub fn disk_wait(&self) -> Duration {
        self.stream().map(Stream::waited).unwrap_or_default()
    }

    /// Keeps pages of a sequence that are not on disk yet; whether all are there, or on their way.
    pub fn keep(&mut self, pages: &Pages<'_>) -> bool {
        let Some(disk) = &self.pages else { return true };
        for (page, name) in (pages.first..).zip(pages.names) {
            if disk.has(name) {
                continue;
            }
            let mut bytes = Vec::new();
            let copied = self.cell.with_dependent_mut(|_, engine| {
                engine.page::<NetError>(pages.slot, page, |piece| bytes.extend_from_slice(piece))
            });
            // A node without layers has nothing to keep.
            if copied.is_ok() && !bytes.is_empty() && !disk.put(name, bytes) {
                return false;
            }
        }
        true
    }

    /// Puts pages of a sequence from disk where they belong; how many there are, from the first on.
    pub fn restore(&mut self, pages: &Pages<'_>) -> u32 {
        let Some(disk) = &self.pages else { return 0 };
        let mut count = 0;
        for (page, name) in (pages.first..).zip(pages.names) {
            let is_here = self.cell.with_dependent_mut(|_, engine| {
                let mut len = 0;
                engine.page::<NetError>(pages.slot, page, |piece| len += piece.len()).ok()?;
                // A node without layers has nothing to get.
                let bytes = if len > 0 { disk.get(name, len)? } else { Vec::new() };
                let mut rest = &bytes[..];
                let put = engine.page::<NetError>(pages.slot, page, |piece| {
                    let (own, others) = rest.split_at(piece.len());
                    piece.copy_from_slice(own);
                    rest = others;
                });
                put.ok()
            });
            if is_here.is_none() {
                break;
            }
            count += 1;
        }
        count
    }

    /// What the part that takes this one's place may use.
    pub fn into_kept(self) -> Option<Kept> {
        self.kept
    }
}

/// Bytes that a part is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Of weights, the embedding left out.
    pub weights: u64,
    /// Of keys and values.
    pub cache: u64,
}

impl Needs {
    /// Those of the part of `node`.
    ///
    /// # Errors
    /// A cut that the model can't be cut by, and a cache that it does not go with.
    pub fn of(model: &Model, (cut, node): (&Cut<'_>, u32), kv: KvType) -> Result<Self, RootError> {
        let header = model.header();
        let layout = kv::layout(kv, header).map_err(RootError::Kv)?;
        let mut tables = GraphTables::new(cut.sizes(header));
        let graph = plan::build(&model.layout, cut, node, tables.tables())
            .map_err(|error| RootError::Plan(error, plan::node_counts(header).collect()))?;
        let cache = kv::cache_bytes(&layout, cut.kv_rows(header, node), cut.seq_len);
        Ok(Self { weights: stream::weight_bytes(&graph), cache })
    }

    /// All of them.
    pub const fn bytes(self) -> u64 {
        self.weights.saturating_add(self.cache)
    }
}

/// Builds and checks the graph of `node`, and decides how its weights get to the kernels.
fn check<'p>(
    model: &Model,
    (cut, node): (&Cut<'_>, u32),
    (local, kept_bytes): (&Local<'_>, u64),
    memory: &'p Memory<'_>,
) -> Result<(Program<'p>, Way), RootError> {
    let Local { pool, kernels, kv, repack, storage, .. } = *local;
    let max_memory = local.max_memory.saturating_add(kept_bytes);
    let header = model.header();
    let layout = kv::layout(kv, header).map_err(RootError::Kv)?;
    let tables = memory.tables.borrow_mut().tables();
    let graph = plan::build(&model.layout, cut, node, tables)
        .map_err(|error| RootError::Plan(error, plan::node_counts(header).collect()))?;
    let ops = lend(&memory.ops, vec![Op::default(); graph.ops.len()]);
    let interleaved = graph.interleaved(ops);
    let cache_bytes = kv::cache_bytes(&layout, cut.kv_rows(header, node), cut.seq_len);
    let wanted = stream::weight_bytes(&graph).saturating_add(cache_bytes);
    let is_streamed = storage == StorageKind::Streamed || (storage == StorageKind::Auto && wanted > max_memory);
    let interleave = kernels.takes_interleaved()
        && !is_streamed
        && repack.of(interleaved_bytes(&interleaved).saturating_sub(kept_bytes), cache_bytes, max_memory);
    let graph = if interleave { interleaved } else { graph };

    let places = lend(&memory.places, vec![Place::default(); Program::places_len(&graph)]);
    let steps = lend(&memory.steps, vec![Step::default(); graph.ops.len()]);
    let rooms = Rooms { places, steps };
    let program = Program::new(&graph, model.layout.file_bytes(), kv, pool.lanes(), rooms).map_err(RootError::Graph)?;
    let arena_bytes = (program.arena_bytes() as u64).saturating_sub(untouched_bytes(&graph));
    let check = |weights| NoRoom::check((header, cut, node, &layout), (arena_bytes, weights), max_memory);
    if !is_streamed {
        check(Beside::Repacked(interleaved_bytes(&graph))).map_err(RootError::Room)?;
        return Ok((program, if interleave { Way::Repacked } else { Way::Mapped }));
    }
    let grain = stream::Grain::of(pool.lanes());
    let least = stream::Plan::least(&graph, grain);
    check(Beside::Streamed(least)).map_err(RootError::Room)?;
    let plan = stream::Plan::new(&graph, grain, max_memory - arena_bytes);
    Ok((program, Way::Streamed(Box::new(plan))))
}

/// Rows of a batch whose logits are asked for at a time, about.
const ASKED_ROWS: u32 = DLLAMA_BATCH;

/// Bytes of an arena that are for logits that nobody asks for: pages that are not taken.
fn untouched_bytes(graph: &Graph<'_>) -> u64 {
    let width = graph.pipe(pipes::LOGITS).map_or(0, |pipe| graph.pipes[pipe].width);
    u64::from(graph.batch_max.saturating_sub(ASKED_ROWS)) * u64::from(width) * 4
}

/// The pages of the part of `node`.
fn pages(
    model: &Model,
    (cut, node): (&Cut<'_>, u32),
    local: &Local<'_>,
    disk: &Arc<Disk>,
) -> Result<PagesOfPart, RootError> {
    let Cut { way, activation, .. } = cut;
    let what = format!("node {node} of {way:?}, {activation} by {}, {}", local.kernels.products(), local.kv);
    disk.part(&model.path, &what)
        .map_err(|error| RootError::System("a folder for keys and values (--kv-disk)".into(), error))
}

/// Begins to read the weights of a part.
fn stream(model: &Model, plan: stream::Plan, local: &Local<'_>, nodes: u32) -> Result<Stream, RootError> {
    let path = model.path.clone();
    let failed = |error| RootError::System(format!("weights of {}", model.path.display()), error);
    let before = fingerprint(&path).map_err(failed)?;
    let is_same = move || fingerprint(&path).map(|now| now == before);
    let source = DirectFile::open(&model.path).map_err(failed)?;
    let stop = local.stop.filter(|_| nodes == 1);
    Stream::new(Box::new(source), Box::new(is_same), plan, stop).map_err(failed)
}

fn arena_of(
    model: &Model,
    (cut, node): (&Cut<'_>, u32),
    local: &Local<'_>,
    program: &Program<'_>,
) -> Result<ArenaMemory, RootError> {
    let layout = kv::layout(local.kv, model.header()).map_err(RootError::Kv)?;
    let refused = |_| RootError::Room(NoRoom::of((model.header(), cut, node, &layout), None));
    ArenaMemory::new(program.arena_bytes()).map_err(refused)
}

fn repack(model: &Model, graph: &Graph<'_>, pool: &Threads) -> Result<Repacked, RootError> {
    Repacked::new(&model.file, graph, pool).map_err(|error| {
        let bytes = interleaved_bytes(graph);
        RootError::System(format!("{bytes} bytes to repack weights into (--repack never does without)"), error)
    })
}
