//! Links to other nodes over TCP.
//!
//! A worker [`listen`]s for its root. In the `dllama` dialect a root [`dial`]s its workers, and both go through handshake,
//! configs and weights; in the [`native`] one a root calls workers that have the model, and sends a plan. Both do so over
//! blocking streams and then hold a [`Mesh`], which carries what nodes exchange during forward passes. Where there are [`Keys`],
//! everything of the native dialect is encrypted (`channel.rs`), and nobody is let in without one.
//!
//! # Waiting
//!
//! Nobody is waited for without end. Every phase with a peer (handshake, each config and its answer, the transfer of
//! weights, one exchange of a forward pass) has a limit from [`Timeouts`]. A peer that owes something may be silent for as
//! long as the limit; and the phase as a whole may take the limit, and a second more for every 16 KiB that it moves
//! (`patience.rs`), so that dripping byte by byte wins no time, and bytes that came faster pay for none to come. It holds for
//! both sides and both directions. Two waits have no limit, since nobody owes anything: a worker's for its next root, and, in the
//! `dllama` dialect, its wait for the next forward pass, whose user may be thinking; hosts that vanish meanwhile are noticed by
//! probes of the connection. In the native dialect nodes give [signs of life](watch) all the time.

mod address;
mod channel;
mod conn;
pub mod dial;
pub mod door;
mod error;
mod key;
pub mod listen;
mod mesh;
pub mod native;
mod patience;
mod rate;
pub mod reception;
pub mod watch;

pub use address::{Address, AddressError, DEFAULT_PORT, WorkerAddress};
pub use error::NetError;
pub use key::{Key, KeyError, Keys};
pub use mesh::{Mesh, Traffic};

use std::time::Duration;

/// What another machine wrote, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// What the set-up of links is at, for those who show it.
#[derive(Clone, Copy, Debug)]
pub enum Stage<'s> {
    /// A worker is called.
    Connect(&'s Address),
    /// It is asked for its answer to the handshake.
    Handshake(&'s Address),
    /// These have no model file, so that all are sent the weights.
    WithoutFile(&'s str),
    /// It prepares its part of a plan; what messages call it.
    Prepare(&'s str),
    /// These workers have the model, and nothing to do: tokens would be slower with them.
    Idle(&'s str),
    /// A worker is left out of a session that goes on: why.
    Lost(&'s str),
    /// Workers take part from now on that did not before.
    Back(&'s str),
    /// These have no disk for keys and values, so that nobody keeps any.
    NotKept(&'s str),
    /// What was computed before somebody was lost is computed again: so many tokens.
    Replay(u32),
    /// It is asked for its answer to its graph.
    Configure(&'s Address),
    /// Weights are sent: bytes since the last call, of all for all workers. Several threads say so.
    Weights {
        /// Bytes that have gone out.
        bytes: u64,
        /// Bytes there are to send.
        total: u64,
    },
}

/// The longest silence of a node that lives, where nobody says another one.
pub const SILENCE: Duration = Duration::from_secs(2);

/// How long to wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a peer that refuses connections to start up.
    pub start: Duration,
    /// For a peer to do its part of a handshake.
    pub handshake: Duration,
    /// For the next byte, whenever one is due, in all that follows.
    pub progress: Duration,
    /// For a sign of life, which a node owes whatever else it does.
    pub silence: Duration,
}

impl Timeouts {
    /// What follows from the one number that users give: no wait is longer, and those for somebody who answers at once
    /// if at all are no longer than they are by default.
    pub fn of(progress: Duration) -> Self {
        let most = |seconds| progress.min(Duration::from_secs(seconds));
        Self { connect: most(5), start: most(5), handshake: most(10), progress, silence: SILENCE }
    }
}

impl Timeouts {
    /// For those who are known to answer at once, or are not there: others wait meanwhile.
    pub fn brief(self) -> Self {
        Self {
            connect: self.connect.min(self.silence),
            start: Duration::ZERO,
            handshake: self.handshake.min(self.silence),
            ..self
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::of(Duration::from_secs(30))
    }
}
