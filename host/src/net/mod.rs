//! Links to other nodes over TCP, in the `dllama` dialect.
//!
//! A root [`dial`]s its workers, a worker [`listen`]s for its root; both go through handshake, configs and weights over
//! blocking streams and then hold a [`Mesh`], which carries what nodes exchange during forward passes.

mod address;
mod conn;
pub mod dial;
mod error;
pub mod listen;
mod mesh;

pub use address::{Address, AddressError, DEFAULT_PORT};
pub use error::NetError;
pub use mesh::Mesh;

use std::time::Duration;

/// How long to wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a peer that refuses connections to start up.
    pub start: Duration,
    /// For a handshake as a whole.
    pub handshake: Duration,
    /// For the next byte, whenever one is due.
    pub progress: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            start: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            progress: Duration::from_secs(30),
        }
    }
}
