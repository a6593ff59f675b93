//! The root of a run: node 0, which has the model file, the tokens and the logits. It works alone or drives workers.

use crate::cluster::kv::{self, Unfit};
use crate::cluster::room::NoRoom;
use crate::cluster::tables::GraphTables;
use crate::machine::arena::ArenaMemory;
use crate::machine::cores;
use crate::machine::cpu;
use crate::machine::memory;
use crate::machine::pool::Threads;
use crate::model::Model;
use crate::net::{Address, Mesh, NetError, Stage, Timeouts, dial};
use crate::storage::{Weights, interleaved_bytes};
use dair_core::exec::{Batch, Engine, Failure, GraphError, Logits, Place, Program, Rooms, Step};
use dair_core::graph::{Graph, Op};
use dair_core::io::Pool;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{self, Cut, DLLAMA_BATCH, PlanError};
use dair_core::quant::DType;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// How to run a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lanes of the pool on this machine.
    pub threads: usize,
    /// Each on a processor of its own.
    pub pin: bool,
    /// What computes.
    pub kernels: Kernels,
    /// Type of the inputs of products, where the model's usual one is not wanted.
    pub activations: Option<DType>,
    /// Type in which this machine keeps keys and values.
    pub kv: KvType,
    /// Shortens the context; it never exceeds the model's.
    pub max_seq_len: Option<u32>,
    /// Whether weights are repacked into memory.
    pub repack: Repack,
    /// Nodes 1, 2, …; none to work alone.
    pub workers: Vec<Address>,
    /// How long to wait for them.
    pub timeouts: Timeouts,
    /// Set from elsewhere, it ends passes of a node that works alone.
    pub stop: Option<&'static AtomicBool>,
}

/// Whether weights are repacked for the kernels at the start, into memory that then can't be given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repack {
    /// Where the kernels gain by it and the copy leaves half of the free memory free, and room for the KV cache.
    #[default]
    Auto,
    /// Wherever the kernels take it.
    Always,
    /// Weights are read from the file as they are.
    Never,
}

impl Repack {
    /// Whether to repack as many bytes of weights, beside a KV cache of `cache_bytes`.
    fn of(self, bytes: u64, cache_bytes: u64) -> bool {
        match self {
            Self::Auto => {
                let is_small = bytes <= memory::available_bytes().unwrap_or(0) / 2;
                is_small && bytes.saturating_add(cache_bytes) <= memory::usable_bytes()
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Options {
    /// One node with `threads` lanes and the fastest kernels.
    pub fn alone(threads: usize) -> Self {
        Self {
            threads,
            pin: false,
            kernels: cpu::best_kernels(),
            activations: None,
            kv: KvType::default(),
            max_seq_len: None,
            repack: Repack::Auto,
            workers: Vec::new(),
            timeouts: Timeouts::default(),
            stop: None,
        }
    }

    fn cut(&self, model: &Model) -> Cut<'static> {
        let header = model.header();
        let cut = match self.workers.len() as u32 {
            0 => Cut::single(header),
            workers => Cut::dllama(header, workers + 1),
        };
        Cut {
            activation: self.activations.unwrap_or(cut.activation),
            seq_len: self.max_seq_len.map_or(cut.seq_len, |limit| limit.min(cut.seq_len)),
            ..cut
        }
    }
}

/// Why a run can't start or go on.
#[derive(Debug)]
pub enum RootError {
    /// The model can't be cut as asked; the node counts that it can be cut into.
    Plan(PlanError, Vec<u32>),
    /// The model does not go with the KV cache.
    Kv(Unfit),
    /// The KV cache does not go with the memory.
    Room(NoRoom),
    /// The graph does not fit its weights.
    Graph(GraphError),
    /// Threads or memory are refused: what was asked, and the reason.
    System(String, io::Error),
    /// A worker can't be had or is lost.
    Net(NetError),
    /// A forward pass failed.
    Forward(String),
    /// It was to end.
    Stopped {
        /// Tokens of the prompt that are in the KV cache.
        done: u32,
    },
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(
                error @ (PlanError::Nodes { .. } | PlanError::KvHeads { .. } | PlanError::Indivisible { .. }),
                counts,
            ) => {
                let counts: Vec<_> = counts.iter().map(u32::to_string).collect();
                write!(f, "{error}; nodes that this model can be cut into, the root included: {}", counts.join(", "))
            }
            Self::Plan(error, _) => error.fmt(f),
            Self::Kv(error) => error.fmt(f),
            Self::Room(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
            Self::System(what, error) => write!(f, "cannot get {what}: {error}"),
            Self::Net(error) => error.fmt(f),
            Self::Forward(error) => f.write_str(error),
            Self::Stopped { .. } => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for RootError {}

impl From<NetError> for RootError {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

/// A model that is ready to run.
pub struct Root<'a> {
    engine: Engine<'a, Weights<'a>, Threads>,
    mesh: Mesh,
    repack_time: Option<Duration>,
    /// Bytes on the network before the first forward pass: configs and weights.
    setup_bytes: (u64, u64),
}

/// Hears what preparing is at, where that takes its time.
pub type Progress<'p> = &'p (dyn Fn(Stage<'_>) + Sync);

/// Prepares `model` as `options` say and hands it to `body`; everything is released when `body` returns.
///
/// # Errors
/// Those of preparing, and those of `body`.
pub fn with_root<R, E: From<RootError>>(
    model: &Model,
    options: &Options,
    progress: Progress<'_>,
    body: impl FnOnce(&mut Root<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let (header, cut) = (model.header(), options.cut(model));
    let layout = kv::layout(options.kv, header).map_err(RootError::Kv)?;
    let kernels = options.kernels;
    let mut tables: Vec<_> = (0..cut.nodes()).map(|_| GraphTables::new(cut.sizes(header))).collect();
    let graphs: Vec<Graph<'_>> = (0..)
        .zip(&mut tables)
        .map(|(node, tables)| plan::build(&model.layout, &cut, node, tables.tables()))
        .collect::<Result<_, _>>()
        .map_err(|error| RootError::Plan(error, plan::node_counts(header).collect()))?;

    let mut ops = vec![Op::default(); graphs[0].ops.len()];
    let cache_bytes = kv::cache_bytes(&layout, header, cut.kv_heads(header, 0), cut.seq_len);
    let interleave = kernels.takes_interleaved() && options.repack.of(model.layout.file_bytes(), cache_bytes);
    let graph = if interleave { graphs[0].interleaved(&mut ops) } else { graphs[0] };

    let pool = Threads::new(options.threads)
        .map_err(|error| RootError::System(format!("{} threads", options.threads), error))?;
    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let program =
        Program::new(&graph, model.layout.file_bytes(), options.kv, pool.lanes(), rooms).map_err(RootError::Graph)?;
    let bytes = interleaved_bytes(&graph);
    let (what, needed) = ((header, &cut, &layout), (program.arena_bytes() as u64, bytes));
    NoRoom::check(what, needed, memory::usable_bytes()).map_err(RootError::Room)?;
    let mut arena = ArenaMemory::new(program.arena_bytes()).map_err(|_| RootError::Room(NoRoom::of(what, None)))?;
    let start = Instant::now();
    let weights = if bytes > 0 {
        Weights::repacked(&model.file, &graph, &pool).map_err(|error| {
            RootError::System(format!("{bytes} bytes to repack weights into (--repack never does without)"), error)
        })?
    } else {
        Weights::mapped(&model.file)
    };
    let repack_time = (bytes > 0).then(|| start.elapsed());
    let mut engine = Engine::new(&program, &weights, &pool, kernels, &mut arena);
    if let Some(stop) = options.stop {
        engine.stop_on(stop);
    }

    let mesh = connect(model, options, &graphs[1..], progress).map_err(RootError::Net)?;
    if options.pin {
        // Only now: threads that a pinned one starts share its processor.
        cores::pin(&pool).map_err(|error| RootError::System("a processor for each thread (--pin)".into(), error))?;
    }
    let setup_bytes = (mesh.sent_bytes(), mesh.received_bytes());
    let mut root = Root { engine, mesh, repack_time, setup_bytes };
    let result = body(&mut root);
    root.mesh.stop();
    result
}

/// Links to the workers, each with its graph and its weights.
fn connect(model: &Model, options: &Options, graphs: &[Graph<'_>], progress: Progress<'_>) -> Result<Mesh, NetError> {
    if graphs.is_empty() {
        return Mesh::alone();
    }
    let mut workers = dial::dial(&options.workers, &options.timeouts, progress)?;
    workers.configure(graphs, progress)?;
    let total = dial::total_bytes(graphs);
    workers.push(graphs, &model.file, &|bytes| progress(Stage::Weights { bytes, total }))?;
    workers.into_mesh()
}

impl Root<'_> {
    /// Positions of the context.
    pub fn seq_len(&self) -> u32 {
        self.engine.program().seq_len()
    }

    /// Computes `tokens` from `position` on; `logits` asks about the last of them ([`Logits::Last`]) or none.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn forward(&mut self, tokens: &[u32], position: u32, logits: Logits) -> Result<(), RootError> {
        self.feed(tokens, position, logits, |_| ControlFlow::Continue(()))
    }

    /// As [`Self::forward`], in as few batches as the graph allows, of about the same size. `progress` hears how many are done, and may end it before the next batch.
    ///
    /// # Errors
    /// Where the tokens do not fit the context, a node fails, or `progress` or [`Options::stop`] has ended it.
    pub fn feed(
        &mut self,
        tokens: &[u32],
        position: u32,
        logits: Logits,
        mut progress: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<(), RootError> {
        let batches = tokens.len().div_ceil(self.engine.program().graph().batch_max as usize);
        for batch in 0..batches {
            let (start, end) = (tokens.len() * batch / batches, tokens.len() * (batch + 1) / batches);
            if progress(start as u32).is_break() {
                return Err(RootError::Stopped { done: start as u32 });
            }
            let logits = if end < tokens.len() { Logits::None } else { logits };
            let rows = (end - start) as u32;
            self.pass(Batch { position: position + start as u32, rows, tokens: &tokens[start..end], logits }).map_err(
                |error| match error {
                    RootError::Stopped { .. } => RootError::Stopped { done: start as u32 },
                    other => other,
                },
            )?;
        }
        Ok(())
    }

    /// Computes `tokens` from `position` on and calls `each` with the index and the logits of every one of them.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_each(
        &mut self,
        tokens: &[u32],
        position: u32,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RootError> {
        // Logits are long rows: fewer of them at a time.
        let batch_max = self.engine.program().graph().batch_max.min(DLLAMA_BATCH) as usize;
        let mut done = 0;
        for tokens in tokens.chunks(batch_max) {
            let rows = tokens.len() as u32;
            self.pass(Batch { position: position + done, rows, tokens, logits: Logits::All })?;
            for row in 0..rows {
                each((done + row) as usize, self.engine.logits(row));
            }
            done += rows;
        }
        Ok(())
    }

    /// How long weights were repacked at the start, if they were.
    pub fn repack_time(&self) -> Option<Duration> {
        self.repack_time
    }

    /// Bytes sent to and received from workers in forward passes so far, if there are workers.
    pub fn network_bytes(&self) -> Option<(u64, u64)> {
        let (sent, received) = self.setup_bytes;
        (self.mesh.nodes() > 1).then(|| (self.mesh.sent_bytes() - sent, self.mesh.received_bytes() - received))
    }

    fn pass(&mut self, batch: Batch<'_>) -> Result<(), RootError> {
        self.mesh.begin(batch.position, batch.rows);
        self.engine.forward(&mut self.mesh, batch).map_err(|error| match error {
            Failure::Stopped => RootError::Stopped { done: 0 },
            other => RootError::Forward(other.to_string()),
        })
    }

    /// Logits of the token that was computed last.
    pub fn logits(&mut self) -> &mut [f32] {
        self.engine.last_logits()
    }
}
