//! The type of the KV cache as users write it, and whether a model goes with it.

use dair_core::format::Header;
use dair_core::kernels::{KvLayout, KvType};
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
