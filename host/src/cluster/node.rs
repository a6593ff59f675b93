//! A worker: takes a root, computes what it is asked for until the session ends, and is ready for the next root.

use crate::cluster::best::{Gathered, NativeLinks};
use crate::cluster::error::RootError;
use crate::cluster::hashing::{self, Hashing};
use crate::cluster::local::{Kept, Local, Part};
use crate::cluster::options::{Repack, StorageKind};
use crate::cluster::pages::Disk;
use crate::cluster::tables::GraphTables;
use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use crate::model::cache::{Digests, FileState};
use crate::model::{Model, ModelError, identity};
use crate::net::door::{Access, Answers, Arrival, Door};
use crate::net::listen::{Joined, Listener, Root};
use crate::net::native::{self, Announced, Caller, DigestOf, Task};
use crate::net::watch::Life;
use crate::net::{Mesh, NetError};
use crate::storage::{Received, group_bytes};
use dair_core::exec::{Batch, Engine, Failure, GraphError, Logits, Place, Program, Rooms, Run, Step};
use dair_core::graph::{Op, Sizes};
use dair_core::io::Pool;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{Cut, Way};
use dair_core::wire::native::{Beat, Digest, Fingerprint, HasModel, Have, MODELS_MAX, Plan, VERSION};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// What a session did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// This node; the root is 0.
    pub node: u32,
    /// All nodes.
    pub nodes: u32,
    /// Bytes of weights that were received.
    pub weight_bytes: u64,
    /// Forward passes.
    pub passes: u64,
    /// Rows of all passes.
    pub tokens: u64,
    /// Bytes of weights that were read in passes, if they are streamed.
    pub streamed_bytes: u64,
    /// Bytes sent to all peers, set-up included.
    pub sent_bytes: u64,
    /// Bytes received from all peers, set-up included.
    pub received_bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let Self { node, nodes, passes, tokens, .. } = self;
        write!(
            f,
            "node {node} of {nodes}, {tokens} tokens in {passes} passes, {:.1} MB of weights, {:.1} MB sent, {:.1} MB received",
            mb(self.weight_bytes),
            mb(self.sent_bytes),
            mb(self.received_bytes)
        )?;
        if self.streamed_bytes > 0 { write!(f, ", {:.1} MB read from disk", mb(self.streamed_bytes)) } else { Ok(()) }
    }
}

/// Why a session ended before its root said so.
#[derive(Debug)]
pub enum SessionError {
    /// A peer is gone, silent or misbehaves.
    Net(NetError),
    /// This machine can't do its part of the root's plan.
    Prepare(RootError),
    /// The root sent a graph that can't be computed.
    Graph(GraphError),
    /// The root's graph needs more memory than it may take.
    Memory {
        /// Bytes of weights.
        weights: u64,
        /// Bytes of activations and KV cache.
        arena: u64,
        /// Most bytes of both.
        max: u64,
    },
    /// The system has no memory.
    System(io::Error),
    /// A forward pass that the graph does not allow.
    Forward(String),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(error) => error.fmt(f),
            Self::Prepare(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
            Self::Memory { weights, arena, max } => write!(
                f,
                "{weights} bytes of weights and {arena} of activations and KV cache asked for; allowed: {max} bytes; \
                 more workers or a shorter context need less, --memory allows more"
            ),
            Self::System(error) => write!(f, "cannot get memory: {error}"),
            Self::Forward(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<RootError> for SessionError {
    fn from(error: RootError) -> Self {
        Self::Prepare(error)
    }
}

impl<S: fmt::Display> From<Failure<S, NetError>> for SessionError {
    fn from(failure: Failure<S, NetError>) -> Self {
        match failure {
            Failure::Links(error) => Self::Net(error),
            other => Self::Forward(other.to_string()),
        }
    }
}

impl From<NetError> for SessionError {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

/// What a worker has, and how it computes.
pub struct Worker<'w> {
    /// Its threads.
    pool: &'w Threads,
    kernels: Kernels,
    kv: KvType,
    speed: u64,
    disk_speed: u64,
    models: Vec<OwnModel>,
    storage: StorageKind,
    /// Where keys and values are kept, if they are.
    disk: Option<Arc<Disk>>,
    access: Access,
    /// What the last session left in memory, and of which model, for the next one.
    kept: Mutex<Option<(Fingerprint, Kept)>>,
}

/// A model file of a worker.
#[derive(Debug)]
pub struct OwnModel {
    model: Model,
    /// Without the digest.
    identity: HasModel,
    hashing: Arc<Hashing>,
}

impl OwnModel {
    /// Opens a file. What its digest is, nobody knows before it is asked for.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::open_with(path, None)
    }

    /// Opens a file whose digest is kept in `digests`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: &Path, digests: Option<Digests>) -> Result<Self, ModelError> {
        let failed = |error| ModelError::Open(path.into(), error);
        // The state first: a change from here on shows.
        let state = FileState::of(path).map_err(failed)?;
        let model = Model::open(path)?;
        let identity = identity::identity(&model, None).map_err(failed)?;
        let hashing = Arc::new(Hashing::new(path.into(), state, digests));
        Ok(Self { model, identity, hashing })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.model.path
    }

    fn told(&self) -> HasModel {
        HasModel { digest: self.hashing.known(), ..self.identity.clone() }
    }
}

impl fmt::Display for OwnModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HasModel { name, bytes, fingerprint, .. } = &self.identity;
        write!(f, "model {name}, {:.2} GB, fingerprint ", *bytes as f64 / 1e9)?;
        fingerprint[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'w> Worker<'w> {
    /// A worker with these threads and kernels, and up to [`MODELS_MAX`] model files. `kv` is the type in which it keeps keys and
    /// values where a root does not say, `speeds` the bytes of weights per second that it multiplies and those that it reads of its
    /// disk, or 0.
    pub fn new(
        pool: &'w Threads,
        kernels: Kernels,
        kv: KvType,
        (speed, disk_speed): (u64, u64),
        models: Vec<OwnModel>,
    ) -> Self {
        let (storage, disk, access) = (StorageKind::Auto, None, Access::default());
        Self { pool, kernels, kv, speed, disk_speed, models, storage, disk, access, kept: Mutex::default() }
    }

    /// From now on it is up to `access` who may come in; without that, all roots of the native dialect, and no others.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Weights are where `storage` says from now on.
    #[must_use]
    pub fn with_storage(self, storage: StorageKind) -> Self {
        Self { storage, ..self }
    }

    /// Keys and values that a root wants kept are kept there from now on.
    #[must_use]
    pub fn with_disk(self, disk: Option<Arc<Disk>>) -> Self {
        Self { disk, ..self }
    }

    fn have(&self, max_memory: u64) -> Have {
        // What the last session left, the next one may have.
        let memory = max_memory.saturating_add(self.kept().as_ref().map_or(0, |(_, kept)| kept.bytes()));
        let models = self.models.iter().take(MODELS_MAX).map(OwnModel::told).collect();
        let (threads, speed, disk_speed) = (self.pool.lanes() as u32, self.speed, self.disk_speed);
        let isa = self.kernels.isa().name().try_into().expect("names of instruction sets are short");
        Have { version: VERSION, threads, speed, isa, disk_speed, memory, models, ..Have::default() }
    }

    /// Computes the digests of its models that are not known yet, in a thread that runs when nobody else wants to.
    ///
    /// # Errors
    /// Where there is no thread to be had, for people.
    pub fn hash_in_background(&self) -> Result<(), String> {
        hashing::in_background(self.models.iter().map(|model| Arc::clone(&model.hashing)).collect())
    }

    fn model(&self, fingerprint: &Fingerprint) -> Option<&OwnModel> {
        self.models.iter().find(|model| model.identity.fingerprint == *fingerprint)
    }

    /// Waits for the digest of a model that a root asks for.
    fn digest(
        &self,
        fingerprint: &Fingerprint,
        tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Digest, String> {
        self.model(fingerprint).ok_or(NOT_HERE)?.hashing.wait(tell)
    }

    /// Serves one root after the other, for ever; `event` hears what happens, also when it is time to end: because somebody has said
    /// so, or `is_over` does, and nobody is served any more.
    ///
    /// # Errors
    /// Where the port itself fails.
    pub fn serve(
        &self,
        listener: &Listener,
        max_memory: impl Fn() -> u64 + Sync,
        mut is_over: impl FnMut() -> bool,
        mut event: impl FnMut(Event<'_>),
    ) -> Result<Infallible, NetError> {
        let door = Door::new(*listener.timeouts(), self.access.clone());
        let have = || self.have(max_memory());
        let digest_of: DigestOf<'_> = &|fingerprint, tell| self.digest(fingerprint, tell);
        let answers = Answers { have: &have, digest_of };
        thread::scope(|scope| {
            let arrivals = door.open(scope, listener, &answers);
            loop {
                if is_over() {
                    door.leave();
                }
                let arrival = match arrivals.recv_timeout(LOOK) {
                    Ok(arrival) => arrival,
                    Err(RecvTimeoutError::Timeout) if door.is_left() => {
                        event(Event::Over);
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => unreachable!("a door takes clients until its port fails"),
                };
                let (from, result) = match arrival {
                    Arrival::Native(from, caller, task, life) => {
                        let result = self.run_native(&door, (caller, &task, &life), max_memory(), &mut event);
                        life.end();
                        (from, result)
                    }
                    Arrival::Dllama(from, root) => (from, self.run_dllama(&door, root, max_memory(), &mut event)),
                    Arrival::Stranger(from, error) => {
                        event(Event::Stranger(from, &error));
                        continue;
                    }
                    Arrival::Worker(_) => unreachable!("this is no root"),
                    Arrival::Failed(error) => return Err(NetError::System(error)),
                };
                door.is_free_again();
                event(Event::Ended(from, &result));
            }
        })
    }

    /// Runs a session of the `dllama` dialect to its end.
    fn run_dllama(
        &self,
        door: &Door,
        root: Root,
        max_memory: u64,
        event: &mut impl FnMut(Event<'_>),
    ) -> Result<Summary, SessionError> {
        let joined = root.join(door)?;
        event(Event::Joined(joined.root(), joined.node(), joined.nodes(), &joined.warnings));
        run(joined, self.pool, (self.kernels, self.kv), max_memory)
    }

    /// Runs a session of the native dialect to its end.
    fn run_native(
        &self,
        door: &Door,
        (mut caller, task, life): (Caller, &Task, &Life),
        max_memory: u64,
        event: &mut impl FnMut(Event<'_>),
    ) -> Result<Summary, SessionError> {
        let Plan { fingerprint, node, nodes, kv, halve_from, .. } = task.plan;
        event(Event::Joined(caller.root(), node, nodes, &[]));
        let Some(OwnModel { model, .. }) = self.model(&fingerprint) else {
            caller.refuse(NOT_HERE);
            return Err(SessionError::Forward("the root's model is not here".into()));
        };
        let shares: Vec<_> = task.nodes.iter().map(|node| node.share).collect();
        let way = match task.plan.columns {
            None => Way::Rows { shares: &shares, stages: &task.plan.stages },
            Some(exchange) => Way::Columns { nodes, exchange },
        };
        let Plan { activation, batch_max, seq_len, slots, .. } = task.plan;
        let cut = Cut { way, activation, batch_max, seq_len, slots };
        let (pool, kernels) = (self.pool, self.kernels);
        let repack = if task.plan.repack { Repack::Auto } else { Repack::Never };
        let disk = self.disk.as_ref().filter(|_| !task.plan.lossy);
        let local = Local { pool, kernels, kv, repack, max_memory, storage: self.storage, disk, stop: None };
        let kept = self.kept().take().filter(|(model, _)| *model == fingerprint).map(|(_, kept)| kept);
        let prepared = Part::prepare(model, (&cut, node), &local, kept, |ready| Ok::<_, RootError>(*ready));
        let (mut part, ready) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                caller.refuse(&error.to_string());
                return Err(error.into());
            }
        };
        part.compute(|engine| engine.halve_from(halve_from));
        let mut summary = Summary { node, nodes, ..Summary::default() };
        // What streams has the disk for itself.
        let _holds: Vec<_> = match part.stream() {
            Some(_) => self.models.iter().map(|model| model.hashing.hold()).collect(),
            None => Vec::new(),
        };
        let read = |part: &Part<'_>| part.stream().map_or(0, |stream| stream.reading().bytes);
        let before = read(&part);
        let result = caller.link(door, (task, life), &ready).map_err(SessionError::Net).and_then(|mut mesh| {
            let result = compute(&mut part, &mut mesh, (&task.plan, life), &mut summary);
            // The root hears whose fault it is before links end, which tells it little.
            match &result {
                Ok(()) => {}
                Err(SessionError::Net(error)) => life.fail(task, error),
                Err(error) => life.give_up(task, error.to_string()),
            }
            result
        });
        summary.streamed_bytes = read(&part) - before;
        *self.kept() = part.into_kept().map(|kept| (fingerprint, kept));
        result.map(|()| summary)
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Fingerprint, Kept)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes passes of a session of the native dialect until it ends.
fn compute(
    part: &mut Part<'_>,
    mesh: &mut Mesh,
    (plan, life): (&Plan, &Life),
    summary: &mut Summary,
) -> Result<(), SessionError> {
    let (mut gathered, mut beat) = (Gathered::default(), Beat::default());
    loop {
        life.is_busy(false);
        let announced = native::next(mesh)?;
        life.is_busy(true);
        let (pass, tokens) = match announced {
            Announced::Pass(pass, tokens) => (pass, tokens),
            Announced::Rest => {
                part.compute(|engine| engine.exchange_logits(mesh))?;
                continue;
            }
            Announced::Copy(copy) => {
                part.compute(|engine| engine.copy(copy))?;
                continue;
            }
            Announced::Keep(pages) => {
                // The root says it again where it has more to keep itself.
                part.keep(&pages.pages());
                continue;
            }
            Announced::Restore(pages) => {
                native::restored(mesh, part.restore(&pages.pages()))?;
                continue;
            }
            Announced::End => return Ok(()),
        };
        if pass.epoch != plan.epoch {
            return Err(mesh.wrong(0, "a pass of another session").into());
        }
        let (start, before, read) = (Instant::now(), mesh.traffic(), part.disk_wait());
        let mut links = NativeLinks { mesh, wanted: pass.wanted, is_lossy: plan.lossy, gathered: &mut gathered };
        part.compute(|engine| engine.forward(&mut links, Batch { runs: &pass.runs, tokens: &tokens }))?;
        let (took, waits) = (start.elapsed(), mesh.traffic().since(before).exchanging);
        beat.spent.add(took, waits, part.disk_wait().saturating_sub(read));
        if pass.rows() == 1 {
            beat.passes += 1;
            beat.busy_us += took.saturating_sub(waits).as_micros() as u64;
        }
        life.did(beat);
        summary.passes += 1;
        summary.tokens += u64::from(pass.rows());
        (summary.sent_bytes, summary.received_bytes) = (mesh.sent_bytes(), mesh.received_bytes());
    }
}

/// To a root that wants a model that is not here.
const NOT_HERE: &str = "it does not have this model";

/// What happens to a worker.
#[derive(Debug)]
pub enum Event<'e> {
    /// A root has come: what messages call it, this node, all nodes, and what is to be said of links.
    Joined(&'e str, u32, u32, &'e [String]),
    /// A client that had no session is gone, and why.
    Stranger(std::net::SocketAddr, &'e NetError),
    /// A session with this client is over.
    Ended(std::net::SocketAddr, &'e Result<Summary, SessionError>),
    /// Nobody is served, nor let in any more.
    Over,
}

/// How often a worker looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a session of the `dllama` dialect to its end.
///
/// # Errors
/// Whatever ends it before the root says so.
pub fn run(
    mut joined: Joined,
    pool: &Threads,
    (kernels, kv): (Kernels, KvType),
    max_memory: u64,
) -> Result<Summary, SessionError> {
    let mut tables = GraphTables::new(Sizes::MAX);
    let (sent, weight_bytes) = joined.configure(&mut tables)?;
    let mut ops = vec![Op::default(); sent.ops.len()];
    let graph = if kernels.takes_interleaved() { sent.interleaved(&mut ops) } else { sent };
    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let mut refuse = |error: SessionError| {
        joined.refuse(&error.to_string());
        error
    };
    let program = Program::new(&graph, weight_bytes, kv, pool.lanes(), rooms)
        .map_err(|error| refuse(SessionError::Graph(error)))?;
    let arena_bytes = program.arena_bytes() as u64;
    // Interleaving takes a copy of a few rows.
    let needed = weight_bytes.saturating_add(group_bytes(&graph, pool.lanes()));
    if needed.checked_add(arena_bytes).is_none_or(|bytes| bytes > max_memory) {
        return Err(refuse(SessionError::Memory { weights: needed, arena: arena_bytes, max: max_memory }));
    }
    let mut weights = Received::new(weight_bytes).map_err(|error| refuse(SessionError::System(error)))?;
    let mut arena = ArenaMemory::new(program.arena_bytes()).map_err(|error| refuse(SessionError::System(error)))?;
    joined.receive(&sent, &mut weights, |_| ())?;
    weights.interleave(&graph, pool);

    let mut summary = Summary { node: joined.node(), nodes: joined.nodes(), weight_bytes, ..Summary::default() };
    let mut engine = Engine::new(&program, &weights, pool, kernels, &mut arena);
    let mut mesh = joined.into_mesh()?;
    while let Some(control) = mesh.next(graph.batch_max, program.seq_len())? {
        let run = Run::new(control.position, control.batch, Logits::All);
        engine.forward(&mut mesh, Batch { runs: &[run], tokens: &[] })?;
        summary.passes += 1;
        summary.tokens += u64::from(control.batch);
    }
    (summary.sent_bytes, summary.received_bytes) = (mesh.sent_bytes(), mesh.received_bytes());
    Ok(summary)
}
