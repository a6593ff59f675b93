//! The type of the KV cache as users write it, and whether a model goes with it.

use dair_core::format::Header;
use dair_core::kernels::{KvLayout, KvPart, KvType};
use std::fmt;

/// What `--kv` takes.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Kv {
    /// 16 bits
    #[default]
    F16,
    /// 32 bits
    F32,
    /// 8 bits and a scale per 32 values
    Q80,
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => Self::F16,
            Kv::F32 => Self::F32,
            Kv::Q80 => Self::Q80,
        }
    }
}

/// A model whose heads do not fall into the blocks of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit {
    kv: KvType,
    head_dim: u32,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kv, head_dim } = self;
        let block_len = kv.block_len();
        write!(f, "head_dim is {head_dim}; a {kv} KV cache wants a multiple of {block_len}: use --kv f16")
    }
}

impl std::error::Error for Unfit {}

/// The layout of a KV head of a model.
///
/// # Errors
/// A `head_dim` that is not whole blocks of `kv`.
pub fn layout(kv: KvType, header: &Header) -> Result<KvLayout, Unfit> {
    let head_dim = header.head_dim;
    KvLayout::new(kv, head_dim as usize).ok_or(Unfit { kv, head_dim })
}

/// Bytes of a KV cache of so many rows ([`Cut::kv_rows`](dair_core::plan::Cut::kv_rows)), for `positions`.
pub fn cache_bytes(layout: &KvLayout, rows: u64, positions: u32) -> u64 {
    let parts = [KvPart::Keys, KvPart::Values];
    let of_part = |part: &KvPart| layout.head_bytes(*part, positions.into()).unwrap_or(u64::MAX / 2);
    let head_bytes: u64 = parts.iter().map(of_part).sum();
    head_bytes.saturating_mul(rows)
}

/// Most positions, up to the model's, of a KV cache of so many rows that takes up to `bytes`, in steps that are easy to remember.
pub fn positions_within(layout: &KvLayout, header: &Header, rows: u64, bytes: u64) -> u32 {
    // Keys lie in tiles of some positions; a step is whole tiles.
    const STEP: u32 = 256;
    let step_bytes = cache_bytes(layout, rows, STEP).max(1);
    let steps = (bytes / step_bytes).min(u64::from(header.seq_len / STEP));
    steps as u32 * STEP
}
