//! Why nodes do not reach or understand each other. Every message names the peer.

use super::Address;
use crate::model::identity::Difference;
use dair_core::wire::dllama::Unsupported;
use dair_core::wire::native::VERSION;
use dair_core::wire::{Invalid, Part};
use std::time::Duration;
use std::{fmt, io};

/// What went wrong between nodes.
#[derive(Debug)]
#[allow(missing_docs)] // peers, phases, reasons
pub enum NetError {
    /// A name is not known.
    Resolve { address: Address, reason: String },
    /// A worker can't be reached.
    Connect { address: Address, error: io::Error },
    /// A worker takes the connection and does not answer.
    Unanswered { address: Address, timeout: Duration },
    /// A port can't be listened on.
    Listen { address: Address, error: io::Error },
    /// The list of workers makes no sense.
    Workers(String),
    /// A peer did not send or take anything for this long.
    Silent { peer: String, phase: &'static str, timeout: Duration },
    /// A peer moved too few bytes in this long.
    Slow { peer: String, phase: &'static str, bytes: u64, time: Duration },
    /// A peer's machine does not answer any more, not even to probes.
    Vanished { peer: String, phase: &'static str },
    /// A peer ended the connection.
    Closed { peer: String, phase: &'static str },
    /// The connection to a peer failed.
    Failed { peer: String, phase: &'static str, error: io::Error },
    /// A peer sent something that it may not send.
    Invalid { peer: String, invalid: Box<Invalid> },
    /// A worker says why it does not compute its part.
    Refused { peer: String, reason: String },
    /// A peer does not keep to the order of a conversation.
    Unexpected { peer: String, what: &'static str },
    /// A worker's dialect is another version of ours.
    Version { peer: String, version: u32 },
    /// A worker does not have the model that is wanted, but something else.
    OtherModel { peer: String, difference: Difference },
    /// A worker does not speak the native dialect, while others do.
    Other { address: Address },
    /// A worker serves another root: what it says.
    Busy { peer: String, busy: String },
    /// A worker wants a key, and this root has none.
    Locked { peer: String },
    /// A worker has no key, and this root has one.
    Unlocked { peer: String },
    /// A peer knows none of the keys of this node.
    OtherKey { peer: String },
    /// A client speaks no dialect that this worker takes.
    Foreigner { peer: String },
    /// Workers that would be spoken to in the dialect of C++ Distributed-Llama, which a key does not protect.
    Exposed { workers: String },
    /// A worker that is not ours can't compute its part.
    Foreign { peer: String, unsupported: Unsupported },
    /// Weights to be sent could not be had.
    Weights { peer: String, reason: String },
    /// Somebody is lost while nobody was waited for.
    Lost,
    /// A worker was told to end.
    Left { peer: String },
    /// The system refuses sockets.
    System(io::Error),
}

/// As it follows "during".
pub(super) fn phase_of(part: Part) -> &'static str {
    match part {
        Part::Handshake => "the handshake",
        Part::Network => "the network config",
        Part::Node => "the node config",
        Part::Weights => "the transfer of weights",
        Part::Control => "the wait for a control packet",
        Part::Message => "the wait for a message",
    }
}

impl NetError {
    /// Whose fault it is, as messages call him, if it is that of one peer.
    pub fn peer(&self) -> Option<String> {
        match self {
            Self::Resolve { address, .. }
            | Self::Connect { address, .. }
            | Self::Unanswered { address, .. }
            | Self::Other { address } => Some(format!("worker {address}")),
            Self::Silent { peer, .. }
            | Self::Slow { peer, .. }
            | Self::Vanished { peer, .. }
            | Self::Closed { peer, .. }
            | Self::Failed { peer, .. }
            | Self::Invalid { peer, .. }
            | Self::Refused { peer, .. }
            | Self::Unexpected { peer, .. }
            | Self::Version { peer, .. }
            | Self::OtherModel { peer, .. }
            | Self::Busy { peer, .. }
            | Self::Locked { peer }
            | Self::Unlocked { peer }
            | Self::OtherKey { peer }
            | Self::Foreigner { peer }
            | Self::Left { peer }
            | Self::Foreign { peer, .. }
            | Self::Weights { peer, .. } => Some(peer.clone()),
            Self::Listen { .. } | Self::Workers(_) | Self::Exposed { .. } | Self::Lost | Self::System(_) => None,
        }
    }

    /// What the system said about the connection to `peer`, timeouts of ours apart.
    pub(super) fn io(peer: &str, phase: &'static str, error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let peer = peer.to_owned();
        match error.kind() {
            Kind::TimedOut | Kind::HostUnreachable | Kind::NetworkUnreachable => Self::Vanished { peer, phase },
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                Self::Closed { peer, phase }
            }
            _ => Self::Failed { peer, phase, error },
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { address, reason } => write!(f, "cannot resolve {address}: {reason}"),
            Self::Connect { address, error } if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(
                    f,
                    "cannot connect to worker {address}: nothing listens there; is it started, and not busy with another root?"
                )
            }
            Self::Connect { address, error } => write!(f, "cannot connect to worker {address}: {error}"),
            Self::Unanswered { address, timeout } => {
                let seconds = timeout.as_secs_f32();
                write!(
                    f,
                    "worker {address} did not answer the handshake for {seconds} s; is it busy with another root?"
                )
            }
            Self::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: the port is in use; stop its user or choose another with --port")
            }
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Workers(what) => f.write_str(what),
            Self::Silent { peer, phase, timeout } => {
                write!(f, "{peer}: no data for {} s during {phase}", timeout.as_secs_f32())
            }
            Self::Slow { peer, phase, bytes, time } => {
                write!(f, "{peer}: only {bytes} bytes in {:.1} s during {phase}", time.as_secs_f32())
            }
            Self::Vanished { peer, phase } => write!(f, "{peer}: its machine stopped answering during {phase}"),
            // What connects to a worker may be anything, but a worker has a terminal.
            Self::Closed { peer, phase } if peer.starts_with("worker ") => match *phase {
                "the handshake" => {
                    write!(
                        f,
                        "{peer} closed the connection during the handshake; it may be serving another root, or want --dialect dllama"
                    )
                }
                phase => write!(f, "{peer} closed the connection during {phase}; its terminal says why"),
            },
            Self::Closed { peer, phase } => write!(f, "{peer} closed the connection during {phase}"),
            Self::Failed { peer, phase, error } => write!(f, "{peer}: {error} during {phase}"),
            Self::Invalid { peer, invalid } => write!(f, "{peer}: {invalid}"),
            Self::Busy { peer, busy } => {
                write!(f, "{peer} is busy: {busy}; try again when that is over, or without it")
            }
            Self::Locked { peer } => write!(
                f,
                "{peer} wants the key of its cluster, and there is none here: give the file by --key; dair key show says where \
                 it is looked for"
            ),
            Self::Unlocked { peer } => write!(
                f,
                "{peer} has no key, and this root has one: copy the key there, to where dair key show finds it, and start it again"
            ),
            Self::OtherKey { peer } if peer.starts_with("worker ") => write!(
                f,
                "{peer} does not accept this cluster key: dair key show there and here must tell the same fingerprint; copy the \
                 key, or give the right one by --key"
            ),
            Self::OtherKey { peer } => write!(f, "{peer} does not know the key of this cluster"),
            Self::Foreigner { peer } => write!(
                f,
                "{peer} is no root of dair; those of C++ Distributed-Llama, and dllama:// of dair, are taken with --dialect dllama"
            ),
            Self::Exposed { workers } => write!(
                f,
                "{workers} can only be sent the weights, which no key protects: start host-worker --model there, open its UDP \
                 port, or write dllama:// before all addresses"
            ),
            Self::Unexpected { peer, what } => write!(f, "{peer} sent {what}"),
            Self::Version { peer, version } => write!(
                f,
                "{peer} speaks version {version} of the dialect between nodes, this root version {VERSION}: run the same dair on both"
            ),
            Self::OtherModel { peer, difference } => write!(
                f,
                "{peer} does not have this model; {difference}: start it with a copy of this file (--model), or write \
                 dllama:// before all addresses to send the weights"
            ),
            Self::Other { address } => write!(
                f,
                "worker {address} does not answer as dair's workers do: is host-worker --model started there, and its UDP port \
                 open? To send weights to C++ workers, write dllama:// before all addresses"
            ),
            Self::Refused { peer, reason } => write!(f, "{peer} refuses: {reason}"),
            Self::Foreign { peer, unsupported } => write!(
                f,
                "{peer} is no host-worker of this version, and C++ Distributed-Llama can't compute {unsupported}: \
                 convert the model with --weights q40, or run host-worker there"
            ),
            Self::Weights { peer, reason } => write!(f, "weights for {peer}: {reason}"),
            Self::Lost => f.write_str("a worker is lost"),
            Self::Left { peer } => write!(f, "{peer} was told to end"),
            Self::System(error) => write!(f, "cannot get sockets: {error}"),
        }
    }
}

impl std::error::Error for NetError {}
