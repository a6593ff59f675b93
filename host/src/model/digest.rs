//! BLAKE3 of a whole model file, as `b3sum` prints it: what is known of every byte.
//!
//! The file is read in pieces by several lanes, each into a buffer of its own, so that a file of any size takes a few
//! megabytes of memory. A piece is a subtree of BLAKE3's tree; the pieces' hashes merge into the file's.

use super::cache::{Digests, FileState};
use crate::machine::file;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use dair_core::wire::native::Digest;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

/// Bytes of a piece: a whole subtree, so a power of two.
const PIECE: u64 = 1 << 20;

/// Hears how many bytes more are hashed, from several threads.
pub type Progress<'p> = &'p (dyn Fn(u64) + Sync);

/// The digest of the file at `path`, which is in the state `now`: found in `known`, or computed with `lanes` threads and kept there.
///
/// # Errors
/// Where the file can't be read, or was changed meanwhile.
pub fn digest_of(
    path: &Path,
    now: &FileState,
    known: Option<&Digests>,
    lanes: usize,
    progress: Progress<'_>,
) -> io::Result<Digest> {
    if let Some(digest) = known.and_then(|known| known.find(path, now)) {
        return Ok(digest);
    }
    let start = SystemTime::now();
    let digest = digest(&file::open_regular(path)?, now.bytes, lanes, progress)?;
    if FileState::of(path)? != *now {
        return Err(io::Error::other("it was changed while it was read"));
    }
    if let Some(known) = known {
        // A cache that can't be written costs time only.
        let _ = known.keep(path, now, start, &digest);
    }
    Ok(digest)
}

/// Hashes the first `len` bytes of `file`.
fn digest(file: &File, len: u64, lanes: usize, progress: Progress<'_>) -> io::Result<Digest> {
    if len <= PIECE {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        progress(len);
        return Ok(*blake3::hash(&bytes).as_bytes());
    }
    let count = len.div_ceil(PIECE);
    let (next, pieces) = (AtomicU64::new(0), Mutex::new(vec![ChainingValue::default(); count as usize]));
    let work = || -> io::Result<()> {
        let mut bytes = vec![0; PIECE as usize];
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= count {
                return Ok(());
            }
            let start = piece * PIECE;
            let bytes = &mut bytes[..(len - start).min(PIECE) as usize];
            if let Err(error) = file.read_exact_at(bytes, start) {
                // Nobody starts another piece.
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
            let hash = blake3::Hasher::new().set_input_offset(start).update(bytes).finalize_non_root();
            pieces.lock().unwrap_or_else(PoisonError::into_inner)[piece as usize] = hash;
            progress(bytes.len() as u64);
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..lanes.min(count as usize)).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().fold(own, |result, other| result.and(other.join().expect("hashing does not panic")))
    })?;
    let pieces = pieces.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (left, right) = split(&pieces, len);
    Ok(*hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// The two subtrees of at least two pieces, which have `len` bytes.
fn split(pieces: &[ChainingValue], len: u64) -> (ChainingValue, ChainingValue) {
    let left_len = hazmat::left_subtree_len(len);
    let (left, right) = pieces.split_at((left_len / PIECE) as usize);
    (merge(left, left_len), merge(right, len - left_len))
}

fn merge(pieces: &[ChainingValue], len: u64) -> ChainingValue {
    if let [piece] = pieces {
        return *piece;
    }
    let (left, right) = split(pieces, len);
    hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn any_size_and_number_of_lanes_gives_blake3() {
        let bytes: Vec<u8> = (0..7 * PIECE + 1).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
        for len in [0, 1, 1024, 1025, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE, 5 * PIECE - 7, 7 * PIECE + 1] {
            let some = &bytes[..len as usize];
            let want = *blake3::hash(some).as_bytes();
            for lanes in [1, 2, 5] {
                assert_eq!(digest(&file(some), len, lanes, &|_| ()).unwrap(), want, "{len} bytes, {lanes} lanes");
            }
        }
    }

    #[test]
    fn all_bytes_are_told_of_and_a_file_that_is_too_short_has_no_digest() {
        let (len, told) = (3 * PIECE + 5, AtomicU64::new(0));
        let file = file(&vec![7; len as usize]);
        let tell = |bytes| _ = told.fetch_add(bytes, Ordering::Relaxed);
        digest(&file, len, 2, &tell).unwrap();
        assert_eq!(told.into_inner(), len);
        for lanes in [1, 2] {
            let error = digest(&file, len + 1, lanes, &|_| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn what_is_known_is_not_read_and_what_is_read_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let (path, known) = (folder.path().join("m.m"), Digests::at(folder.path()));
        std::fs::write(&path, "some").unwrap();
        thread::sleep(Duration::from_millis(2100));
        let state = FileState::of(&path).unwrap();
        let read = AtomicU64::new(0);
        let digest =
            || digest_of(&path, &state, Some(&known), 1, &|bytes| _ = read.fetch_add(bytes, Ordering::Relaxed));
        for _ in 0..2 {
            assert_eq!(digest().unwrap(), *blake3::hash(b"some").as_bytes());
            assert_eq!(read.load(Ordering::Relaxed), 4);
        }
        std::fs::write(&path, "sum!").unwrap();
        assert_eq!(
            digest_of(&path, &state, None, 1, &|_| ()).unwrap_err().to_string(),
            "it was changed while it was read"
        );
    }
}
