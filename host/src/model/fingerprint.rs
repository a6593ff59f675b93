//! What a model file is known by on other machines.

use crate::storage::MappedFile;
use dair_core::wire::native::Fingerprint;

/// Bytes of a block that is looked at.
const BLOCK: usize = 4096;
/// Blocks that are looked at, in equal distances from the first to the last: 4 MB of any file, which takes milliseconds
/// where the disk is not the fastest.
const BLOCKS: usize = 1024;

/// Hashes the size, the header and samples of the content (BLAKE3). Files that differ in size, shape, type or training
/// differ in it; one that differs in a few bytes only may not.
pub fn fingerprint(file: &MappedFile) -> Fingerprint {
    let mut hasher = blake3::Hasher::new_derive_key("dair model fingerprint 1");
    hasher.update(&(file.len() as u64).to_le_bytes());
    if file.len() <= BLOCK * BLOCKS {
        hasher.update(file);
        return *hasher.finalize().as_bytes();
    }
    let last = file.len() - BLOCK;
    for block in 0..BLOCKS {
        // The first has the header.
        let start = (last as u128 * block as u128 / (BLOCKS as u128 - 1)) as usize;
        hasher.update(&file[start..start + BLOCK]);
    }
    *hasher.finalize().as_bytes()
}
