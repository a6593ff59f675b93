//! Memory to be read: larger than all caches, and full of bytes that are weights of any type.

use super::BenchError;
use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use dair_core::io::Pool;
use std::ops::Deref;
use std::sync::Mutex;

/// Least bytes where memory allows.
const BYTES_MIN: u64 = 256 << 20;
/// Most bytes: what the largest caches need.
const BYTES_MAX: u64 = 4 << 30;
/// Times the caches of the last level.
const CACHES: u64 = 4;
/// The content repeats after this many bytes; even, so that scales stay where they are.
const TILE_BYTES: usize = 1 << 20;

/// Bytes that a buffer should have, a multiple of 1 MiB: well beyond the caches, within what can be spared.
pub fn wanted_bytes(last_level_bytes: u64, spare_bytes: u64) -> usize {
    let most = spare_bytes.min(BYTES_MAX).min(usize::MAX as u64 / 4);
    let bytes = last_level_bytes.saturating_mul(CACHES).max(BYTES_MIN).min(most);
    (bytes as usize / TILE_BYTES).max(1) * TILE_BYTES
}

/// Bytes in memory, aligned to a page.
#[derive(Debug)]
pub struct Buffer {
    memory: ArenaMemory,
}

impl Buffer {
    /// Takes and fills `bytes`; each lane of `pool` fills, and so gets near to it, the part that it will read.
    ///
    /// # Errors
    /// Where the system has no memory.
    pub fn new(bytes: usize, pool: &Threads) -> Result<Self, BenchError> {
        let mut memory = ArenaMemory::new(bytes).map_err(BenchError::system(format!("get {bytes} bytes of memory")))?;
        let tile = tile();
        let part = bytes.div_ceil(pool.lanes()).next_multiple_of(TILE_BYTES);
        let parts: Vec<_> = memory.chunks_mut(part).map(Mutex::new).collect();
        pool.run(&|lane| {
            let Some(part) = parts.get(lane.index) else { return };
            let mut part = part.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            part.chunks_mut(TILE_BYTES).for_each(|bytes| bytes.copy_from_slice(&tile[..bytes.len()]));
        });
        drop(parts);
        Ok(Self { memory })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

/// Random bytes, but every second one says that the number is small and of a normal exponent: the upper byte of an F16,
/// of an F32 and of the scale of a block, whose sizes are all even.
fn tile() -> Vec<u8> {
    let mut state = 1u32;
    let mut byte = |index: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let byte = (state >> 24) as u8;
        if index.is_multiple_of(2) { byte } else { byte & 0x83 | 0x20 }
    };
    (0..TILE_BYTES).map(&mut byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dair_core::quant::{DType, dequantize};

    #[test]
    fn the_size_exceeds_the_caches_and_stays_within_what_can_be_spared() {
        assert_eq!(wanted_bytes(0, 1 << 30), 256 << 20);
        assert_eq!(wanted_bytes(512 << 20, 1 << 40), 2 << 30);
        assert_eq!(wanted_bytes(512 << 20, 300 << 20), 300 << 20);
        assert_eq!(wanted_bytes(0, 0), TILE_BYTES);
        if cfg!(target_pointer_width = "64") {
            assert_eq!(wanted_bytes(u64::MAX, u64::MAX), 4 << 30);
        }
    }

    #[test]
    fn every_byte_is_filled_and_every_type_finds_normal_numbers() {
        let pool = Threads::new(3).unwrap();
        let buffer = Buffer::new(4 * TILE_BYTES, &pool).unwrap();
        assert!(buffer.chunks(TILE_BYTES).all(|bytes| bytes == tile()));
        for dtype in DType::ALL {
            let len = dtype.block_len() as usize * 1000;
            let mut values = vec![0.0; len];
            dequantize(dtype, &buffer[..dtype.bytes(len as u64).unwrap() as usize], &mut values);
            assert!(values.iter().all(|x| (x.is_normal() || *x == 0.0) && x.abs() < 2.0), "{dtype}");
            assert!(values.iter().any(|x| *x < 0.0) && values.iter().any(|x| *x > 0.0), "{dtype}");
        }
    }
}
