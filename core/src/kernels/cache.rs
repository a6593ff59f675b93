//! How the keys and values of one KV head lie in memory, and how a position gets there.
//!
//! One head is one run of bytes, so that attention reads it as one stream:
//!
//! ```text
//! keys    tiles of 16 positions    F16, F32  [head_dim][16 positions]
//!                                  Q80       [head_dim / 32] { 16 F16 scales, [32][16 positions] codes }
//! values  position by position     F16, F32  [head_dim, padded to 16]
//!                                  Q80       [head_dim / 32] Q80 blocks
//! ```
//!
//! So the scores of 16 positions are made in 16 lanes, and what attention adds up of the values are vectors, too.

use super::lanes::{LANES, Lanes, load_part};
use super::quantize::quantize;
use crate::quant::{BLOCK, BlockQ80};
use core::fmt;
use core::marker::PhantomData;

/// Type in which keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// IEEE binary16, rounded to nearest even: half the memory of F32. SmolLM2's perplexity goes from 24.744 to 24.745.
    #[default]
    F16,
    /// As they were computed.
    F32,
    /// Blocks of 32 values with a scale, along a head: half of F16 again. SmolLM2's perplexity moves by 0.5 %.
    Q80,
}

impl KvType {
    /// Every type.
    pub const ALL: [KvType; 3] = [KvType::F16, KvType::F32, KvType::Q80];

    /// Name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::F32 => "f32",
            KvType::Q80 => "q80",
        }
    }

    /// What `head_dim` must be a multiple of.
    pub const fn block_len(self) -> usize {
        match self {
            KvType::F16 | KvType::F32 => 1,
            KvType::Q80 => BLOCK,
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvPart {
    /// Keys, in tiles of positions.
    #[default]
    Keys,
    /// Values, position by position.
    Values,
}

/// Layout of the cache of one KV head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvLayout {
    kv: KvType,
    head_dim: usize,
}

/// Positions of a tile of keys.
pub(super) const TILE: usize = LANES;
/// Bytes of a block of a tile of Q80 keys: a scale for each position, then codes.
pub(super) const KEY_BLOCK_BYTES: usize = TILE * size_of::<BlockQ80>();

impl KvLayout {
    /// The layout for heads of `head_dim` values, or `None` where these are none or no whole blocks.
    pub const fn new(kv: KvType, head_dim: usize) -> Option<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(kv.block_len()) {
            return None;
        }
        Some(Self { kv, head_dim })
    }

    /// Type of the values.
    pub const fn kv(&self) -> KvType {
        self.kv
    }

    /// Values of a key, and of a value.
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of the 16 positions of a tile.
    pub const fn tile_bytes(&self, part: KvPart) -> u64 {
        let padded = match part {
            KvPart::Keys => self.head_dim as u64,
            KvPart::Values => (self.head_dim as u64).next_multiple_of(LANES as u64),
        };
        match self.kv {
            KvType::F16 => padded * (2 * TILE) as u64,
            KvType::F32 => padded * (4 * TILE) as u64,
            KvType::Q80 => padded / BLOCK as u64 * KEY_BLOCK_BYTES as u64,
        }
    }

    /// Bytes of one head with room for `positions`, or `None` on overflow. A multiple of 64.
    pub const fn head_bytes(&self, part: KvPart, positions: u64) -> Option<u64> {
        match positions.div_ceil(TILE as u64).checked_mul(self.tile_bytes(part)) {
            Some(bytes) => bytes.checked_next_multiple_of(64),
            None => None,
        }
    }

    /// First byte, in the memory of a head, of the tile that a position belongs to.
    pub const fn tile_start(&self, part: KvPart, position: usize) -> usize {
        position / TILE * self.tile_bytes(part) as usize
    }

    /// Bytes, in the memory of a head, of all tiles that hold a part of the first `positions`.
    pub const fn first_bytes(&self, part: KvPart, positions: usize) -> usize {
        positions.div_ceil(TILE) * self.tile_bytes(part) as usize
    }

    /// Bytes of the value of one position.
    pub(super) const fn value_bytes(&self) -> usize {
        self.tile_bytes(KvPart::Values) as usize / TILE
    }
}

/// The keys or values of one head, for writing.
///
/// Several threads may hold such views of one head while each writes positions of its own.
#[derive(Debug)]
pub struct KvHead<'c> {
    layout: KvLayout,
    part: KvPart,
    ptr: *mut u8,
    bytes: usize,
    memory: PhantomData<&'c mut [u8]>,
}

impl<'c> KvHead<'c> {
    /// A view of memory that nobody else touches.
    pub fn from_slice(layout: KvLayout, part: KvPart, memory: &'c mut [u8]) -> Self {
        Self { layout, part, ptr: memory.as_mut_ptr(), bytes: memory.len(), memory: PhantomData }
    }

    /// A view of `bytes` bytes at `ptr`.
    ///
    /// # Safety
    /// For `'c`, `ptr` is valid for writes of `bytes` bytes, and nobody else reads or writes the positions that are
    /// written through this view. Others may write other positions meanwhile, even of the same tile.
    pub unsafe fn from_raw(layout: KvLayout, part: KvPart, ptr: *mut u8, bytes: usize) -> Self {
        Self { layout, part, ptr, bytes, memory: PhantomData }
    }

    /// Panics unless `x` fits the layout and `position` the memory.
    pub(super) fn check(&self, x: &[f32], position: usize) {
        assert_eq!(x.len(), self.layout.head_dim(), "KV cache: values of a position");
        let end = self.layout.tile_start(self.part, position) as u64 + self.layout.tile_bytes(self.part);
        assert!(end <= self.bytes as u64, "KV cache: position {position} in {} bytes", self.bytes);
    }
}

/// Writes one position; `x` and `position` passed [`KvHead::check`].
#[inline(always)]
pub(super) fn store_position<S: Lanes>(s: S, to: &KvHead<'_>, x: &[f32], position: usize) {
    let (layout, lane) = (&to.layout, position % TILE);
    // SAFETY: `check` saw that the tile lies inside the memory.
    let tile = unsafe { to.ptr.add(layout.tile_start(to.part, position)) };
    if to.part == KvPart::Values {
        let row_bytes = layout.value_bytes();
        // SAFETY: rows of a tile follow each other, and this one is ours alone.
        let row = unsafe { core::slice::from_raw_parts_mut(tile.add(lane * row_bytes), row_bytes) };
        return store_value(s, layout.kv, x, row);
    }
    // Tiles are shared with whoever writes their other positions: nothing but single numbers may be touched.
    match layout.kv {
        KvType::F32 => {
            for (d, x) in x.iter().enumerate() {
                // SAFETY: number `d` of this position, of which `head_dim` lie in the tile.
                unsafe { tile.add(4 * (d * TILE + lane)).cast::<[u8; 4]>().write(x.to_le_bytes()) }
            }
        }
        KvType::F16 => {
            for (start, x) in (0..).step_by(LANES).zip(x.chunks(LANES)) {
                let mut half = [0; 2 * LANES];
                s.store_f16(load_part(s, x, 0.0), &mut half);
                for (d, half) in (start..).zip(&half.as_chunks::<2>().0[..x.len()]) {
                    // SAFETY: as above.
                    unsafe { tile.add(2 * (d * TILE + lane)).cast::<[u8; 2]>().write(*half) }
                }
            }
        }
        KvType::Q80 => {
            for (b, x) in x.as_chunks().0.iter().enumerate() {
                let mut codes = [0i8; BLOCK];
                let scale = quantize(s, x, &mut codes);
                // SAFETY: block `b` of this tile: scales of all positions, then codes.
                unsafe {
                    let block = tile.add(b * KEY_BLOCK_BYTES);
                    block.add(2 * lane).cast::<[u8; 2]>().write(scale.to_le_bytes());
                    for (d, code) in codes.iter().enumerate() {
                        block.add(2 * TILE + d * TILE + lane).write(code.cast_unsigned());
                    }
                }
            }
        }
    }
}

/// Writes one value, zeros behind it.
#[inline(always)]
fn store_value<S: Lanes>(s: S, kv: KvType, x: &[f32], row: &mut [u8]) {
    match kv {
        KvType::F32 => {
            let (row, padding) = row.split_at_mut(4 * x.len());
            for (x, out) in x.iter().zip(row.as_chunks_mut().0) {
                *out = x.to_le_bytes();
            }
            padding.fill(0);
        }
        KvType::F16 => {
            for (x, out) in x.chunks(LANES).zip(row.as_chunks_mut().0) {
                s.store_f16(load_part(s, x, 0.0), out);
            }
        }
        KvType::Q80 => {
            let blocks: &mut [BlockQ80] = bytemuck::cast_slice_mut(row);
            for (x, block) in x.as_chunks().0.iter().zip(blocks) {
                block.d = quantize(s, x, &mut block.qs).to_le_bytes();
            }
        }
    }
}
