//! The flags that say how much memory there is, and where weights are.

use crate::cluster::options::StorageKind;
use crate::machine::memory::Budget;

/// `--memory` and `--storage`, for every command that computes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct MemoryArgs {
    /// Most memory of this process, such as 2GiB, 1500MB or 50%: what does not fit is read from disk for every token
    /// [default: nine tenths of what is free]
    #[arg(long, visible_alias = "max-memory", value_name = "BYTES")]
    pub memory: Option<Budget>,
    /// Where weights are [default: mapped where they fit the memory, else streamed]
    #[arg(long, value_enum, value_name = "WHERE", default_value_t, hide_default_value = true)]
    pub storage: StorageArg,
}

/// What `--storage` takes.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum StorageArg {
    /// Mapped where they fit, else streamed
    #[default]
    Auto,
    /// In the mapped file: what does not fit the memory, the system reads when it is needed
    Mmap,
    /// As much as fits stays in memory, the rest is read ahead past the system's cache
    Stream,
}

impl From<StorageArg> for StorageKind {
    fn from(storage: StorageArg) -> Self {
        match storage {
            StorageArg::Auto => Self::Auto,
            StorageArg::Mmap => Self::Mapped,
            StorageArg::Stream => Self::Streamed,
        }
    }
}
