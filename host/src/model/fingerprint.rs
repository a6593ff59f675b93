//! What a model file is known by on other machines.

use super::Model;
use crate::machine::file;
use dair_core::wire::native::Fingerprint;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a block that is looked at.
const BLOCK: u64 = 4096;
/// Blocks that are looked at, in equal distances from the first to the last: 4 MB of any file.
const BLOCKS: u64 = 1024;

/// Hashes the size, the header and samples of the content (BLAKE3). Files that differ in size, shape, type or training
/// differ in it; one that differs in a few bytes only may not.
///
/// # Errors
/// Where the file can't be read.
pub fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let file = file::open_regular(path)?;
    let len = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new_derive_key("dair model fingerprint 1");
    hasher.update(&len.to_le_bytes());
    // Blocks of a small file follow each other.
    let last = len.saturating_sub(BLOCK);
    let count = len.div_ceil(BLOCK).min(BLOCKS);
    let mut bytes = [0; BLOCK as usize];
    for block in 0..count {
        // The first has the header.
        let start = (u128::from(last) * u128::from(block) / u128::from(count.max(2) - 1)) as u64;
        let some = &mut bytes[..len.min(BLOCK) as usize];
        file.read_exact_at(some, start)?;
        hasher.update(some);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Hashes the header of a model alone.
pub fn header(model: &Model) -> Fingerprint {
    let mut hasher = blake3::Hasher::new_derive_key("dair model header 1");
    hasher.update(&model.file[..model.header().header_bytes as usize]);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_of_a_small_file_counts_and_the_ends_of_a_large_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            fingerprint(&path).unwrap()
        };
        for len in [0, 1, 4096, 4097, 50_000, 5_000_000] {
            let mut bytes = vec![7; len];
            let first = of(&bytes);
            assert_eq!(of(&bytes), first);
            bytes.push(7);
            assert_ne!(of(&bytes), first, "{len} bytes and one more");
            bytes.pop();
            let places =
                if len > 100_000 { vec![0, 4095, len - 4096, len - 1] } else { (0..len).step_by(997).collect() };
            for at in places {
                bytes[at] = 8;
                assert_ne!(of(&bytes), first, "byte {at} of {len}");
                bytes[at] = 7;
            }
        }
    }
}
