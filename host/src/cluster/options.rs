//! How a model is to be run.

use crate::cluster::choose::Wish;
use crate::cluster::newcomers::Newcomers;
use crate::cluster::pages::Disk;
use crate::machine::memory::Budget;
use crate::machine::{cpu, memory};
use crate::net::{Address, Keys, Timeouts};
use dair_core::format::Header;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::Cut;
use dair_core::quant::DType;
use dair_core::wire::native::Digest;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How to run a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lanes of the pool on this machine.
    pub threads: usize,
    /// Each on a processor of its own.
    pub pin: bool,
    /// What computes.
    pub kernels: Kernels,
    /// Type of the inputs of products, where the model's usual one is not wanted.
    pub activations: Option<DType>,
    /// Type in which this machine keeps keys and values.
    pub kv: KvType,
    /// Shortens the context; it never exceeds the model's.
    pub max_seq_len: Option<u32>,
    /// Sequences that the KV cache has room for, each of the whole context.
    pub slots: u32,
    /// Where this machine keeps keys and values that are needed again, if it does.
    pub disk: Option<Arc<Disk>>,
    /// Whether weights are repacked into memory.
    pub repack: Repack,
    /// Most memory of this process; what is free without it.
    pub memory: Option<Budget>,
    /// Where weights are while they are computed with.
    pub storage: StorageKind,
    /// Nodes 1, 2, …; none to work alone.
    pub workers: Vec<Address>,
    /// Where others are announced while the root runs; they take part where a plan is up to the planner.
    pub newcomers: Option<Newcomers>,
    /// In which way to talk to them.
    pub dialect: Dialect,
    /// What workers of the native dialect must know; without keys they must have none.
    pub keys: Keys,
    /// In which way workers with the model share it.
    pub wish: Wish,
    /// Digest of the model, where it is known: workers that know theirs, too, must have the same.
    pub digest: Option<Digest>,
    /// Whether activations cross the network in Q40, which costs quality.
    pub lossy: bool,
    /// How long to wait for them.
    pub timeouts: Timeouts,
    /// Set from elsewhere, it ends passes of a node that works alone.
    pub stop: Option<&'static AtomicBool>,
}

/// Whether weights are repacked for the kernels at the start, into memory that then can't be given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repack {
    /// Where the kernels gain by it and the copy leaves half of the free memory free, and room for the KV cache.
    #[default]
    Auto,
    /// Wherever the kernels take it.
    Always,
    /// Weights are read from the file as they are.
    Never,
}

/// Where weights are while they are computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageKind {
    /// In the mapped file where they fit the memory, else streamed.
    #[default]
    Auto,
    /// In the mapped file: what does not fit the memory, the system reads when it is needed.
    Mapped,
    /// Read past the system's cache; as much as fits the memory stays in it.
    Streamed,
}

impl Repack {
    /// Whether to repack as many bytes of weights, beside a KV cache of `cache_bytes`, where both may take `max_memory`.
    pub(super) fn of(self, bytes: u64, cache_bytes: u64, max_memory: u64) -> bool {
        match self {
            Self::Auto => {
                let is_small = bytes <= memory::available_bytes().unwrap_or(0) / 2;
                is_small && bytes.saturating_add(cache_bytes) <= max_memory
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Options {
    /// One node with `threads` lanes and the fastest kernels.
    pub fn alone(threads: usize) -> Self {
        Self {
            threads,
            pin: false,
            kernels: cpu::best_kernels(),
            activations: None,
            kv: KvType::default(),
            max_seq_len: None,
            slots: 1,
            disk: None,
            repack: Repack::Auto,
            memory: None,
            storage: StorageKind::Auto,
            workers: Vec::new(),
            newcomers: None,
            dialect: Dialect::default(),
            keys: Keys::default(),
            wish: Wish::default(),
            lossy: false,
            digest: None,
            timeouts: Timeouts::default(),
            stop: None,
        }
    }

    /// Positions of the context.
    pub fn seq_len(&self, header: &Header) -> u32 {
        self.max_seq_len.map_or(header.seq_len, |limit| limit.min(header.seq_len))
    }

    /// The cut that is asked for, as a change of `cut`.
    pub(super) fn applied_to<'s>(&self, cut: Cut<'s>) -> Cut<'s> {
        Cut {
            activation: self.activations.unwrap_or(cut.activation),
            seq_len: self.max_seq_len.map_or(cut.seq_len, |limit| limit.min(cut.seq_len)),
            slots: self.slots,
            ..cut
        }
    }
}

/// In which way to talk to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The native one where all speak it and have a model file, else, if there is no key, that of C++ Distributed-Llama.
    #[default]
    Ask,
    /// That of C++ Distributed-Llama: weights are sent.
    Dllama,
}
