//! The root of a run: node 0, which has the model file, the tokens and the logits. It works alone or drives workers.

use crate::cluster::best::NativeLinks;
use crate::cluster::kv::Unfit;
use crate::cluster::local::{self, Local};
use crate::cluster::room::NoRoom;
use crate::cluster::tables::GraphTables;
use crate::cluster::workers;
use crate::machine::cores;
use crate::machine::cpu;
use crate::machine::memory;
use crate::machine::pool::Threads;
use crate::machine::speed;
use crate::model::{Model, identity};
use crate::net::native::{self, Called};
use crate::net::{Address, Mesh, NetError, Stage, Timeouts, dial};
use crate::storage::Weights;
use dair_core::exec::{Batch, Engine, Failure, GraphError, Logits};
use dair_core::graph::Graph;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{self, Cut, DLLAMA_BATCH, PlanError, Share};
use dair_core::quant::DType;
use dair_core::wire::dllama::Control;
use dair_core::wire::native::{
    BEST_MAX, Best, Digest, Fingerprint, HasModel, Pass, Plan, Ready, SessionId, VERSION, Wanted,
};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
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
    /// In which way to talk to them.
    pub dialect: Dialect,
    /// A share for each node that speaks the native dialect, the root's first; none for shares by speed.
    pub shares: Vec<Share>,
    /// Digest of the model, where it is known: workers that know theirs, too, must have the same.
    pub digest: Option<Digest>,
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
    /// Whether to repack as many bytes of weights, beside a KV cache of `cache_bytes`, where both may take `max_memory`.
    pub(super) fn of(self, bytes: u64, cache_bytes: u64, max_memory: u64) -> bool {
        match self {
            Self::Auto => {
                let is_small = bytes <= memory::available_bytes().unwrap_or(0) / 2;
                is_small && bytes.saturating_add(cache_bytes) <= max_memory
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
            dialect: Dialect::default(),
            shares: Vec::new(),
            digest: None,
            timeouts: Timeouts::default(),
            stop: None,
        }
    }

    /// The cut that is asked for, as a change of `cut`.
    fn applied_to<'s>(&self, cut: Cut<'s>) -> Cut<'s> {
        Cut {
            activation: self.activations.unwrap_or(cut.activation),
            seq_len: self.max_seq_len.map_or(cut.seq_len, |limit| limit.min(cut.seq_len)),
            ..cut
        }
    }
}

/// In which way to talk to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The native one where all speak it and have a model file, else that of C++ Distributed-Llama.
    #[default]
    Ask,
    /// That of C++ Distributed-Llama: weights are sent.
    Dllama,
}

/// Why a run can't start or go on.
#[derive(Debug)]
pub enum RootError {
    /// The model can't be cut as asked; the node counts that it can be cut into.
    Plan(PlanError, Vec<u32>),
    /// The model does not go with the KV cache.
    Kv(Unfit),
    /// There is not a share for each node.
    Shares {
        /// Shares that were given.
        shares: usize,
        /// Nodes, the root included.
        nodes: usize,
    },
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
            Self::Shares { shares, nodes } => {
                write!(f, "{shares} shares given for {nodes} nodes; --shares takes one for each, the root's first")
            }
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
    /// Whether passes are announced in the native dialect.
    native: bool,
    wanted: Wanted,
    /// Memory for what [`NativeLinks`] gathers.
    pairs: Vec<u8>,
    repack_time: Option<Duration>,
    /// Bytes on the network before the first forward pass: a plan, or configs and weights.
    setup_bytes: (u64, u64),
}

/// Hears what preparing is at, where that takes its time.
pub type Progress<'p> = &'p (dyn Fn(Stage<'_>) + Sync);

/// The other nodes, before they know what they are to compute.
enum Others {
    Nobody,
    Native(Vec<Called>),
    Dllama,
}

impl Others {
    /// Finds out who the workers of `options` are.
    fn find(options: &Options, wanted: &HasModel, progress: Progress<'_>) -> Result<Self, NetError> {
        if options.dialect == Dialect::Dllama {
            return Ok(Self::Dllama);
        }
        let called = native::call(&options.workers, &options.timeouts, progress)?;
        let called = workers::with_model(&options.workers, called, wanted, progress)?;
        Ok(called.map_or(Self::Dllama, Self::Native))
    }
}

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
    let header = model.header();
    let workers = options.workers.len();
    let (mut others, mut fingerprint) = (Others::Nobody, Fingerprint::default());
    if workers > 0 {
        let wanted = identity::identity(model, options.digest)
            .map_err(|error| RootError::System(format!("the content of {}", model.path.display()), error))?;
        others = Others::find(options, &wanted, progress).map_err(RootError::Net)?;
        fingerprint = wanted.fingerprint;
    }
    let pool = Threads::new(options.threads)
        .map_err(|error| RootError::System(format!("{} threads", options.threads), error))?;
    let mut shares = options.shares.clone();
    if shares.is_empty() {
        shares = match &others {
            Others::Native(called) => shares_of(called, &pool, options.kernels)?,
            Others::Nobody | Others::Dllama => vec![Share::EQUAL; workers + 1],
        };
    }
    let cut = match others {
        Others::Dllama => Cut::dllama(header, workers as u32 + 1),
        Others::Nobody | Others::Native(_) if shares.len() != workers + 1 => {
            return Err(RootError::Shares { shares: shares.len(), nodes: workers + 1 }.into());
        }
        Others::Nobody | Others::Native(_) => Cut::rows(header, &shares),
    };
    let cut = options.applied_to(cut);
    let local = Local {
        pool: &pool,
        kernels: options.kernels,
        kv: options.kv,
        repack: options.repack,
        max_memory: memory::usable_bytes(),
    };
    let native = matches!(others, Others::Native(_));
    let announce = |_: &Ready| match others {
        Others::Native(called) => {
            let plan = native_plan(&cut, fingerprint, options.kv)?;
            Ok(Some(native::plan(called, &plan, &shares, &options.timeouts).map_err(RootError::Net)?))
        }
        Others::Nobody | Others::Dllama => Ok(None),
    };
    local::with_engine(model, (&cut, 0), &local, announce, |planned, mut engine, repack_time| {
        if let Some(stop) = options.stop {
            engine.stop_on(stop);
        }
        let mesh = match planned {
            Some(planned) => planned.link(progress).map(|(mesh, _)| mesh),
            None if workers == 0 => Mesh::alone(),
            None => push(model, options, &cut, progress)?,
        };
        let mesh = mesh.map_err(RootError::Net)?;
        if options.pin {
            // Only now: threads that a pinned one starts share its processor.
            cores::pin(&pool)
                .map_err(|error| RootError::System("a processor for each thread (--pin)".into(), error))?;
        }
        let setup_bytes = (mesh.sent_bytes(), mesh.received_bytes());
        let mut root = Root { engine, mesh, native, wanted: Wanted::All, pairs: Vec::new(), repack_time, setup_bytes };
        let result = body(&mut root);
        if native {
            native::end(root.mesh);
        } else {
            root.mesh.stop(&Control::STOP.emit());
        }
        result
    })
}

/// Shares in proportion to speeds, the root's own measured now. Where one is not known, and where they hardly differ, all are
/// equal.
fn shares_of(workers: &[Called], pool: &Threads, kernels: Kernels) -> Result<Vec<Share>, RootError> {
    let equal = || Ok(vec![Share::EQUAL; workers.len() + 1]);
    if workers.iter().any(|worker| worker.have.speed == 0) {
        return equal();
    }
    let own = speed::bytes_per_s(pool, kernels)
        .map_err(|error| RootError::System("memory to measure its speed".into(), error))?;
    let speeds: Vec<_> = [own].into_iter().chain(workers.iter().map(|worker| worker.have.speed as f64)).collect();
    let [least, most] = [f64::min, f64::max].map(|pick| speeds.iter().copied().reduce(pick).unwrap_or(own));
    if most < HARDLY * least {
        return equal();
    }
    let share = |speed: &f64| (speed / most * f64::from(SHARE)).round() as u16;
    Ok(speeds.iter().map(share).map(|share| Share { layers: share, head: share }).collect())
}

/// Speeds that are measured twice differ by as much.
const HARDLY: f64 = 1.2;
/// The share of the fastest node.
const SHARE: u16 = 1000;

/// What all nodes of a new session agree on.
fn native_plan(cut: &Cut<'_>, fingerprint: Fingerprint, kv: KvType) -> Result<Plan, RootError> {
    let mut session = SessionId::default();
    getrandom::fill(&mut session)
        .map_err(|error| RootError::System("random bytes".into(), io::Error::other(error.to_string())))?;
    Ok(Plan {
        version: VERSION,
        session,
        fingerprint,
        node: 0,
        nodes: cut.nodes(),
        activation: cut.activation,
        kv,
        batch_max: cut.batch_max,
        seq_len: cut.seq_len,
    })
}

/// Links to the workers of the `dllama` dialect, each with its graph and its weights.
fn push(
    model: &Model,
    options: &Options,
    cut: &Cut<'_>,
    progress: Progress<'_>,
) -> Result<Result<Mesh, NetError>, RootError> {
    let header = model.header();
    let mut tables: Vec<_> = (1..cut.nodes()).map(|_| GraphTables::new(cut.sizes(header))).collect();
    let graphs: Vec<Graph<'_>> = (1..)
        .zip(&mut tables)
        .map(|(node, tables)| plan::build(&model.layout, cut, node, tables.tables()))
        .collect::<Result<_, _>>()
        .map_err(|error| RootError::Plan(error, plan::node_counts(header).collect()))?;
    let connect = || {
        let mut workers = dial::dial(&options.workers, &options.timeouts, progress)?;
        workers.configure(&graphs, progress)?;
        let total = dial::total_bytes(&graphs);
        workers.push(&graphs, &model.file, &|bytes| progress(Stage::Weights { bytes, total }))?;
        workers.into_mesh()
    };
    Ok(connect())
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

    /// Bytes sent to and received from workers before the first forward pass: plans, or configs and weights.
    pub fn setup_bytes(&self) -> (u64, u64) {
        self.setup_bytes
    }

    /// Bytes sent to and received from workers in forward passes so far, if there are workers.
    pub fn network_bytes(&self) -> Option<(u64, u64)> {
        let (sent, received) = self.setup_bytes;
        (self.mesh.nodes() > 1).then(|| (self.mesh.sent_bytes() - sent, self.mesh.received_bytes() - received))
    }

    fn pass(&mut self, batch: Batch<'_>) -> Result<(), RootError> {
        let failed = |error: Failure<_, NetError>| match error {
            Failure::Stopped => RootError::Stopped { done: 0 },
            other => RootError::Forward(other.to_string()),
        };
        if !self.native {
            self.mesh.begin(batch.position, batch.rows);
            return self.engine.forward(&mut self.mesh, batch).map_err(failed);
        }
        // All rows are for those who look at all of each.
        let wanted = if batch.logits == Logits::Last { self.wanted } else { Wanted::All };
        let pass = Pass { position: batch.position, rows: batch.rows, logits: batch.logits, wanted };
        native::announce(&mut self.mesh, &pass, batch.tokens);
        let mut links = NativeLinks { mesh: &mut self.mesh, wanted, pairs: &mut self.pairs };
        self.engine.forward(&mut links, batch).map_err(failed)
    }

    /// Of how many of the most probable of the first `tokens` tokens the logits are wanted from now on, where only the last
    /// token of a pass is asked about; none for all. Others may be [`f32::MIN`] then: from workers that have a copy of the model,
    /// they do not cross the network.
    pub fn want_best(&mut self, count: Option<u32>, tokens: u32) {
        let best = count.filter(|count| (1..=BEST_MAX).contains(count));
        self.wanted = best.map_or(Wanted::All, |count| Wanted::Best(Best { count, below: tokens }));
    }

    /// Logits of the token that was computed last.
    pub fn logits(&mut self) -> &mut [f32] {
        self.engine.last_logits()
    }
}
