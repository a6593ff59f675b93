//! Why there are no figures.

use crate::cluster::error::RootError;
use crate::model::ModelError;
use std::path::PathBuf;
use std::{fmt, io};

/// Why a measurement can't be made.
#[derive(Debug)]
pub enum BenchError {
    /// The shape has fewer layers than were asked for.
    Layers {
        /// The shape.
        shape: &'static str,
        /// Layers as asked.
        asked: u32,
        /// Layers it has.
        found: u32,
    },
    /// The model does not fit into memory.
    Memory {
        /// Bytes of weights and KV cache.
        needed: u64,
        /// Bytes that may be used.
        usable: u64,
    },
    /// The model does not fit on the disk.
    Disk {
        /// Where it was to be written.
        folder: PathBuf,
        /// Bytes of the file.
        needed: u64,
        /// Bytes there are.
        free: u64,
    },
    /// The system refuses: what could not be done, and the reason.
    System(String, io::Error),
    /// The temporary model can't be opened.
    Model(ModelError),
    /// The temporary model can't be run.
    Root(RootError),
    /// The picture can't be drawn.
    Plot(String),
    /// The user has had enough.
    Interrupted,
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gb = |bytes: &u64| *bytes as f64 / 1e9;
        let smaller = "choose fewer --layers, smaller --weights or another --shape";
        match self {
            Self::Layers { shape, asked, found } => {
                write!(f, "--layers {asked}: {shape} has {found}; allowed: 1 to {found}")
            }
            Self::Memory { needed, usable } => {
                write!(f, "the model takes {:.2} GB of memory, {:.2} GB are free; {smaller}", gb(needed), gb(usable))
            }
            Self::Disk { folder, needed, free } => write!(
                f,
                "the model takes {:.2} GB, the disk of {} has {:.2} GB left; {smaller}, or a --dir elsewhere",
                gb(needed),
                folder.display(),
                gb(free)
            ),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Model(error) => error.fmt(f),
            Self::Root(error) => error.fmt(f),
            Self::Plot(error) => write!(f, "cannot draw the roofline: {error}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<RootError> for BenchError {
    fn from(error: RootError) -> Self {
        Self::Root(error)
    }
}

impl BenchError {
    /// For `map_err`: an error of the system while doing `what`.
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |error| Self::System(what.into(), error)
    }
}
