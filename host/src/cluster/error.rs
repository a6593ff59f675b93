//! Why a root can't start or go on.

use crate::cluster::kv::Unfit;
use crate::cluster::planner::NoPlan;
use crate::cluster::room::NoRoom;
use crate::net::NetError;
use dair_core::exec::GraphError;
use dair_core::plan::PlanError;
use std::{fmt, io};

/// Why a run can't start or go on.
#[derive(Debug)]
pub enum RootError {
    /// The model can't be cut as asked; the node counts that it can be cut into.
    Plan(PlanError, Vec<u32>),
    /// No worker that was asked has the model, and it can't be cut for weights to be sent: their addresses.
    NobodyHasIt(String, Box<Self>),
    /// The model does not go with the KV cache.
    Kv(Unfit),
    /// There is not a share for each node.
    Shares {
        /// Shares that were given.
        shares: usize,
        /// Nodes, the root included.
        nodes: usize,
    },
    /// The model fits no plan.
    NoPlan(NoPlan),
    /// No plan of the kind that is wished for fits.
    NoSuchPlan(&'static str),
    /// The KV cache does not go with the memory.
    Room(NoRoom),
    /// The graph does not fit its weights.
    Graph(GraphError),
    /// Threads or memory are refused: what was asked, and the reason.
    System(String, io::Error),
    /// A worker can't be had or is lost.
    Net(NetError),
    /// Weights could not be read.
    Weights(String),
    /// A forward pass failed.
    Forward(String),
    /// A link was lost, and nobody has called the workers again.
    NoSession,
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
            Self::NobodyHasIt(workers, error) => write!(
                f,
                "no worker with the model answers at {workers}: is host-worker --model started there, and UDP not filtered? \
                 Sent the weights, they could not share it: {error}"
            ),
            Self::Shares { shares, nodes } => {
                write!(f, "{shares} shares given for {nodes} nodes; --shares takes one for each, the root's first")
            }
            Self::NoPlan(error) => error.fmt(f),
            Self::NoSuchPlan(kind) => {
                write!(f, "no plan by {kind} fits these nodes; dair plan shows what does, and --cut best takes it")
            }
            Self::Kv(error) => error.fmt(f),
            Self::Room(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
            Self::System(what, error) => write!(f, "cannot get {what}: {error}"),
            Self::Net(error) => error.fmt(f),
            Self::Weights(error) | Self::Forward(error) => f.write_str(error),
            Self::NoSession => f.write_str("the session with the workers is over"),
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
