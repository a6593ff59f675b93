//! What is wrong with the bytes of a peer: where, which field, the value found and what is allowed.

use crate::graph::{Name, Printable};
use core::fmt;

/// Part of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Who is who.
    Handshake,
    /// What all nodes share.
    Network,
    /// The graph of one node.
    Node,
    /// Weight records.
    Weights,
    /// What precedes a forward pass.
    Control,
    /// Any message of the native dialect.
    Message,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Part::Handshake => "handshake",
            Part::Network => "network config",
            Part::Node => "node config",
            Part::Weights => "weights",
            Part::Control => "control packet",
            Part::Message => "message",
        })
    }
}

/// Entry of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // indexes and names of entries
pub enum At {
    /// Before or behind the entries.
    Top,
    Peer(u32),
    Pipe(u32),
    Buffer(u32),
    Segment(u32),
    Op {
        segment: u32,
        op: u32,
    },
    Weight {
        name: Name,
        layer: u32,
    },
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Top => Ok(()),
            At::Peer(index) => write!(f, "peer {index}: "),
            At::Pipe(index) => write!(f, "pipe {index}: "),
            At::Buffer(index) => write!(f, "buffer {index}: "),
            At::Segment(index) => write!(f, "segment {index}: "),
            At::Op { segment, op } => write!(f, "segment {segment}, op {op}: "),
            At::Weight { name, layer } => write!(f, "{} of layer {layer}: ", Printable(name)),
        }
    }
}

/// One field of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Part that it belongs to.
    pub part: Part,
    /// Entry of that part.
    pub at: At,
    /// Name of the field.
    pub field: &'static str,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.part, self.at, self.field)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the value found, and what is allowed
pub enum Fault {
    Range {
        found: u64,
        min: u64,
        max: u64,
    },
    Differs {
        found: u64,
        expected: u64,
    },
    /// Not whole blocks, or not equal parts.
    Indivisible {
        found: u64,
        by: u64,
    },
    /// The message ends before it is complete.
    Short,
    /// Bytes that belong to no field.
    TooLong {
        bytes: u64,
    },
    /// Not UTF-8 closed by one NUL.
    Text,
    /// The record that says that there is nothing.
    Missing,
    /// Beyond 2^63 bytes.
    TooLarge,
    /// Weights for an op that is not there or takes none.
    NoSuchWeight,
    /// Weights that were received before.
    Complete,
}

/// A value that a peer may not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where it stands.
    pub spot: Spot,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spot = &self.spot;
        match self.fault {
            Fault::Range { found, min, max } => write!(f, "{spot} is {found}; allowed: {min} to {max}"),
            Fault::Differs { found, expected } => write!(f, "{spot} is {found}; it must be {expected}"),
            Fault::Indivisible { found, by } => write!(f, "{spot} is {found}; it must be a multiple of {by}"),
            Fault::Short => write!(f, "{spot} is not there: the message ends before it"),
            Fault::TooLong { bytes } => write!(f, "{spot} has {bytes} bytes too many"),
            Fault::Text => write!(f, "{spot} is not UTF-8 text closed by a NUL"),
            Fault::Missing => write!(f, "{spot} has no float type"),
            Fault::TooLarge => write!(f, "{spot} exceeds 2^63 bytes"),
            Fault::NoSuchWeight => write!(f, "{spot} names no op that takes weights"),
            Fault::Complete => write!(f, "{spot} repeats what was received before"),
        }
    }
}

impl core::error::Error for Invalid {}

/// Why nothing could be read. Says nothing about who the peer is: the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The connection failed.
    Io {
        /// Where the conversation stood.
        part: Part,
        /// What the reader said.
        error: E,
    },
    /// The connection ended before this field was complete.
    Closed(Spot),
    /// The peer sent something that it may not send.
    Invalid(Invalid),
}

impl<E> From<Invalid> for ReadError<E> {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl<E: fmt::Display> fmt::Display for ReadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { part, error } => write!(f, "{part}: {error}"),
            Self::Closed(spot) => write!(f, "{spot}: the connection was closed before it was complete"),
            Self::Invalid(invalid) => write!(f, "{invalid}"),
        }
    }
}

impl<E: core::error::Error> core::error::Error for ReadError<E> {}
