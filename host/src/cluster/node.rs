//! A worker: takes a root, computes what it is asked for until the session ends, and is ready for the next root.

use crate::cluster::tables::GraphTables;
use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use crate::net::NetError;
use crate::net::listen::{Joined, Listener};
use crate::storage::{Received, group_bytes};
use dair_core::exec::{Batch, Engine, Failure, GraphError, Logits, Place, Program, Rooms, Step};
use dair_core::graph::{Op, Sizes};
use dair_core::io::Pool;
use dair_core::kernels::{Kernels, KvType};
use std::convert::Infallible;
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
        )
    }
}

/// Why a session ended before its root said so.
#[derive(Debug)]
pub enum SessionError {
    /// A peer is gone, silent or misbehaves.
    Net(NetError),
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
            Self::Graph(error) => error.fmt(f),
            Self::Memory { weights, arena, max } => write!(
                f,
                "{weights} bytes of weights and {arena} of activations and KV cache asked for; allowed: {max} bytes; \
                 more workers or a shorter context need less, --max-memory allows more"
            ),
            Self::System(error) => write!(f, "cannot get memory: {error}"),
            Self::Forward(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<NetError> for SessionError {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

/// Serves one root after the other, for ever, with keys and values kept as `kv`; `event` hears what happens.
///
/// # Errors
/// Where the port itself fails.
pub fn serve(
    listener: &mut Listener,
    pool: &Threads,
    kernels: Kernels,
    kv: KvType,
    max_memory: impl Fn() -> u64,
    mut event: impl FnMut(Event<'_>),
) -> Result<Infallible, NetError> {
    loop {
        let client = listener.wait()?;
        let from = client.1;
        let result = listener.join(client).map_err(SessionError::Net).and_then(|joined| {
            event(Event::Joined(&joined));
            run(joined, pool, (kernels, kv), max_memory())
        });
        event(Event::Ended(from, &result));
    }
}

/// What happens to a worker.
#[derive(Debug)]
pub enum Event<'e> {
    /// A root has come, and all links are there.
    Joined(&'e Joined),
    /// A session with this client is over.
    Ended(std::net::SocketAddr, &'e Result<Summary, SessionError>),
}

/// Runs a session to its end.
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
        let batch = Batch { position: control.position, rows: control.batch, tokens: &[], logits: Logits::All };
        engine.forward(&mut mesh, batch).map_err(|failure| match failure {
            Failure::Links(error) => SessionError::Net(error),
            other => SessionError::Forward(other.to_string()),
        })?;
        summary.passes += 1;
        summary.tokens += u64::from(control.batch);
    }
    (summary.sent_bytes, summary.received_bytes) = (mesh.sent_bytes(), mesh.received_bytes());
    Ok(summary)
}
