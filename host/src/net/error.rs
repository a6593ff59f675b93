//! Why nodes do not reach or understand each other. Every message names the peer.

use super::Address;
use dair_core::wire::{Invalid, Part, ReadError};
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
    /// A peer's machine does not answer any more, not even to probes.
    Vanished { peer: String, phase: &'static str },
    /// A peer ended the connection.
    Closed { peer: String, phase: &'static str },
    /// The connection to a peer failed.
    Failed { peer: String, phase: &'static str, error: io::Error },
    /// A peer sent something that it may not send.
    Invalid { peer: String, invalid: Box<Invalid> },
    /// Weights to be sent could not be had.
    Weights { peer: String, reason: String },
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
    }
}

impl NetError {
    /// What the system said about the connection to `peer`. Where reads and writes have a `timeout`, the system may call
    /// it by the name of what else means that probes of the connection were in vain.
    pub(super) fn io(peer: &str, phase: &'static str, timeout: Option<Duration>, error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let peer = peer.to_owned();
        match (error.kind(), timeout) {
            (Kind::WouldBlock | Kind::TimedOut, Some(timeout)) => Self::Silent { peer, phase, timeout },
            (Kind::TimedOut | Kind::HostUnreachable | Kind::NetworkUnreachable, _) => Self::Vanished { peer, phase },
            (Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe, _) => {
                Self::Closed { peer, phase }
            }
            _ => Self::Failed { peer, phase, error },
        }
    }

    /// What a codec said about the words of `peer`.
    pub(super) fn read(peer: &str, timeout: Duration, error: ReadError<io::Error>) -> Self {
        match error {
            ReadError::Io { part, error } => Self::io(peer, phase_of(part), Some(timeout), error),
            ReadError::Closed(spot) => Self::Closed { peer: peer.to_owned(), phase: phase_of(spot.part) },
            ReadError::Invalid(invalid) => Self::Invalid { peer: peer.to_owned(), invalid: Box::new(invalid) },
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
            Self::Vanished { peer, phase } => write!(f, "{peer}: its machine stopped answering during {phase}"),
            Self::Closed { peer, phase } => write!(f, "{peer} closed the connection during {phase}"),
            Self::Failed { peer, phase, error } => write!(f, "{peer}: {error} during {phase}"),
            Self::Invalid { peer, invalid } => write!(f, "{peer}: {invalid}"),
            Self::Weights { peer, reason } => write!(f, "weights for {peer}: {reason}"),
            Self::System(error) => write!(f, "cannot get sockets: {error}"),
        }
    }
}

impl std::error::Error for NetError {}
