//! Whether the memory of a root holds what it needs, before any of it is taken.
//!
//! A system grants more than it has, since pages are taken when they are first touched: a context that does not fit would
//! be granted, and the process killed in the middle of a conversation.

use super::choose::Decision;
use super::error::RootError;
use super::kv;
use super::local::Needs;
use super::options::Options;
use crate::model::Model;
use dair_core::format::Header;
use dair_core::kernels::{KvLayout, KvType};
use dair_core::plan::{self, Cut};
use std::fmt;

/// A context that does not fit the memory, and what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Type of the KV cache.
    pub kv: KvType,
    /// Positions that were asked for.
    pub seq_len: u32,
    /// Bytes of their KV cache.
    pub cache_bytes: u64,
    /// Bytes that are free for it; `None` where only the system knows, and refused.
    pub free_bytes: Option<u64>,
    /// Positions that fit.
    pub fitting: u32,
    /// Positions that would fit if they were kept in Q80, where that is something else and the model can.
    pub fitting_q80: Option<u32>,
    /// What else takes memory.
    pub beside: Beside,
    /// Whether more workers could share the cache.
    pub can_be_cut: bool,
}

/// What takes memory beside activations and the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Bytes of repacked weights, which need not be.
    Repacked(u64),
    /// Bytes that streaming weights takes at least.
    Streamed(u64),
}

impl Beside {
    const fn bytes(self) -> u64 {
        match self {
            Self::Repacked(bytes) | Self::Streamed(bytes) => bytes,
        }
    }
}

impl NoRoom {
    /// Demands that `usable_bytes` hold an arena and what is beside it.
    ///
    /// # Errors
    /// What would fit.
    pub fn check(
        (header, cut, node, layout): (&Header, &Cut<'_>, u32, &KvLayout),
        (arena_bytes, beside): (u64, Beside),
        usable_bytes: u64,
    ) -> Result<(), Self> {
        if arena_bytes.saturating_add(beside.bytes()) <= usable_bytes {
            return Ok(());
        }
        let cache_bytes = kv::cache_bytes(layout, cut.kv_rows(header, node), cut.seq_len);
        let besides = arena_bytes.saturating_sub(cache_bytes).saturating_add(beside.bytes());
        let refusal = Self::of((header, cut, node, layout), Some(usable_bytes.saturating_sub(besides)));
        Err(Self { beside, ..refusal })
    }

    /// A refusal where `free_bytes` are there for the cache, as far as they are known.
    pub fn of((header, cut, node, layout): (&Header, &Cut<'_>, u32, &KvLayout), free_bytes: Option<u64>) -> Self {
        let within = |layout: &KvLayout| {
            kv::positions_within(layout, header, cut.kv_rows(header, node), free_bytes.unwrap_or(0))
        };
        let q80 = KvLayout::new(KvType::Q80, header.head_dim as usize).filter(|_| layout.kv() != KvType::Q80);
        Self {
            kv: layout.kv(),
            seq_len: cut.seq_len,
            cache_bytes: kv::cache_bytes(layout, cut.kv_rows(header, node), cut.seq_len),
            free_bytes,
            fitting: within(layout),
            fitting_q80: q80.as_ref().map(within),
            beside: Beside::Repacked(0),
            can_be_cut: plan::node_counts(header).any(|count| count > cut.nodes()),
        }
    }
}

/// Sequences, of `most`, that have room for their keys and values, each for the whole context, where all nodes together have
/// `memory_bytes`; at least one. Where weights do not fit, a quarter of the memory is for the cache.
///
/// # Errors
/// As [`Needs::of`].
pub fn slots_within(model: &Model, options: &Options, (memory_bytes, most): (u64, u32)) -> Result<u32, RootError> {
    let alone = Decision::alone();
    let cut = Cut { slots: 1, ..options.applied_to(alone.cut(model.header())) };
    let Needs { weights, cache } = Needs::of(model, (&cut, 0), options.kv)?;
    let free_bytes = memory_bytes.saturating_sub(weights).max(memory_bytes / 4);
    Ok((free_bytes / cache.max(1)).clamp(1, most.into()) as u32)
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kv, seq_len, cache_bytes, free_bytes, fitting, fitting_q80, beside, can_be_cut } = self;
        let gb = |bytes: u64| bytes as f64 / 1e9;
        write!(f, "the {kv} KV cache of {seq_len} positions takes {:.2} GB of memory", gb(*cache_bytes))?;
        let Some(free) = free_bytes else {
            f.write_str(", which the system refuses: a smaller --max-seq-len makes it smaller")?;
            let q80 = if fitting_q80.is_some() { ", and --kv q80" } else { "" };
            return f.write_str(q80);
        };
        write!(f, ", and {:.2} GB are free for it: ", gb(*free))?;
        match (fitting, fitting_q80) {
            (0, _) => f.write_str("close other programs, or allow more by --memory")?,
            (fitting, None) => write!(f, "--max-seq-len {fitting} fits")?,
            (fitting, Some(q80)) => write!(f, "--max-seq-len {fitting} fits, with --kv q80 {q80}")?,
        }
        match *beside {
            Beside::Repacked(0) => {}
            Beside::Repacked(bytes) => write!(f, "; --repack never leaves {:.2} GB more", gb(bytes))?,
            Beside::Streamed(bytes) => write!(f, "; weights, streamed, take {:.2} GB at least", gb(bytes))?,
        }
        if *can_be_cut { f.write_str("; more --workers share it") } else { Ok(()) }
    }
}

impl std::error::Error for NoRoom {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn what_is_said_to_fit_fits_and_a_step_more_does_not() {
        let header = Header { seq_len: 1 << 20, ..synthetic::preset("llama3.2-1b").unwrap() };
        for (kv, nodes) in [(KvType::F16, 1), (KvType::F32, 1), (KvType::Q80, 1), (KvType::F16, 2)] {
            let layout = KvLayout::new(kv, header.head_dim as usize).unwrap();
            let cut = if nodes == 1 { Cut::single(&header) } else { Cut::dllama(&header, nodes) };
            let arena = |seq_len| kv::cache_bytes(&layout, cut.kv_rows(&header, 0), seq_len) + 1_000_000;
            let check = |seq_len, usable| {
                let cut = Cut { seq_len, ..cut };
                NoRoom::check((&header, &cut, 0, &layout), (arena(seq_len), Beside::Repacked(500_000)), usable)
            };
            let usable = 4_000_000_000;
            let error = check(header.seq_len, usable).unwrap_err();
            assert!(error.fitting > 1000 && error.fitting.is_multiple_of(256), "{error:?}");
            assert_eq!(check(error.fitting, usable), Ok(()));
            assert!(check(error.fitting + 256, usable).is_err());
            assert_eq!(error.fitting_q80.is_some(), kv != KvType::Q80);
            assert!(error.fitting_q80.is_none_or(|fitting| fitting > error.fitting));
        }
    }

    #[test]
    fn slots_are_as_many_as_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.m");
        synthetic::write_model(&path, &synthetic::preset("tiny-llama").unwrap(), 3).unwrap();
        let model = Model::open(&path).unwrap();
        for (seq_len, most_of) in [(128, "cache"), (16, "weights")] {
            let options = Options { max_seq_len: Some(seq_len), ..Options::alone(1) };
            let alone = Decision::alone();
            let cut = options.applied_to(alone.cut(model.header()));
            let Needs { weights, cache } = Needs::of(&model, (&cut, 0), options.kv).unwrap();
            let slots = |memory_bytes| slots_within(&model, &options, (memory_bytes, 4)).unwrap();
            assert_eq!([u64::MAX, weights + 4 * cache, 0].map(slots), [4, 4, 1]);
            if most_of == "cache" {
                assert_eq!([weights + 4 * cache - 1, weights + 2 * cache, weights].map(slots), [3, 2, 1]);
            } else {
                // Where weights are streamed, or hardly anything is left beside them.
                assert!((7 * cache..8 * cache).contains(&weights), "{cache} beside {weights}");
                assert_eq!([7 * cache, 8 * cache].map(slots), [1, 2]);
            }
        }
    }

    #[test]
    fn the_message_names_all_ways_out() {
        let mut room = NoRoom {
            kv: KvType::F16,
            seq_len: 1 << 20,
            cache_bytes: 137_438_953_472,
            free_bytes: Some(20_000_000_000),
            fitting: 152_576,
            fitting_q80: Some(287_232),
            beside: Beside::Repacked(0),
            can_be_cut: true,
        };
        assert_eq!(
            room.to_string(),
            "the f16 KV cache of 1048576 positions takes 137.44 GB of memory, and 20.00 GB are free for it: \
             --max-seq-len 152576 fits, with --kv q80 287232; more --workers share it"
        );
        (room.fitting, room.can_be_cut) = (0, false);
        assert!(room.to_string().ends_with("close other programs, or allow more by --memory"));
        room.free_bytes = None;
        assert!(room.to_string().ends_with("a smaller --max-seq-len makes it smaller, and --kv q80"));
    }
}
