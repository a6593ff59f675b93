//! This machine's part of a model: graph, memory, weights and what computes them.

use crate::cluster::kv;
use crate::cluster::room::NoRoom;
use crate::cluster::root::{Repack, RootError};
use crate::cluster::tables::GraphTables;
use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use crate::model::Model;
use crate::storage::{Weights, interleaved_bytes};
use dair_core::exec::{Engine, Place, Program, Rooms, Step};
use dair_core::graph::Op;
use dair_core::io::Pool;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{self, Cut};
use dair_core::wire::native::Ready;
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
    /// Most bytes of memory for keys, values, activations and repacked weights.
    pub max_memory: u64,
}

/// Prepares the part of `node` and hands it to `body`, with the time that repacking took, if anything was repacked.
/// `announce` is called when the part is known to fit, before weights are repacked; `body` gets what it returns.
///
/// # Errors
/// Those of preparing, of `announce` and of `body`.
pub fn with_engine<T, R, E: From<RootError>>(
    model: &Model,
    (cut, node): (&Cut<'_>, u32),
    local: &Local<'_>,
    announce: impl FnOnce(&Ready) -> Result<T, E>,
    body: impl FnOnce(T, Engine<'_, Weights<'_>, Threads>, Option<Duration>) -> Result<R, E>,
) -> Result<R, E> {
    let Local { pool, kernels, kv, repack, max_memory } = *local;
    let header = model.header();
    let layout = kv::layout(kv, header).map_err(RootError::Kv)?;
    let mut tables = GraphTables::new(cut.sizes(header));
    let graph = plan::build(&model.layout, cut, node, tables.tables())
        .map_err(|error| RootError::Plan(error, plan::node_counts(header).collect()))?;
    let mut ops = vec![Op::default(); graph.ops.len()];
    let interleaved = graph.interleaved(&mut ops);
    let cache_bytes = kv::cache_bytes(&layout, header, cut.kv_heads(header, node), cut.seq_len);
    let interleave = kernels.takes_interleaved() && repack.of(interleaved_bytes(&interleaved), cache_bytes, max_memory);
    let graph = if interleave { interleaved } else { graph };

    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let program = Program::new(&graph, model.layout.file_bytes(), kv, pool.lanes(), rooms).map_err(RootError::Graph)?;
    let ready = Ready { arena_bytes: program.arena_bytes() as u64, repacked_bytes: interleaved_bytes(&graph) };
    let what = (header, cut, node, &layout);
    NoRoom::check(what, (ready.arena_bytes, ready.repacked_bytes), max_memory).map_err(RootError::Room)?;
    let mut arena = ArenaMemory::new(program.arena_bytes()).map_err(|_| RootError::Room(NoRoom::of(what, None)))?;
    let announced = announce(&ready)?;
    let start = Instant::now();
    let bytes = ready.repacked_bytes;
    let weights = if bytes > 0 {
        Weights::repacked(&model.file, &graph, pool).map_err(|error| {
            RootError::System(format!("{bytes} bytes to repack weights into (--repack never does without)"), error)
        })?
    } else {
        Weights::mapped(&model.file)
    };
    let repack_time = (bytes > 0).then(|| start.elapsed());
    body(announced, Engine::new(&program, &weights, pool, kernels, &mut arena), repack_time)
}
