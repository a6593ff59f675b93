//! Where a stream reads: whole sectors of a file, past the system's cache.

use crate::machine::{disk, file};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Reads begin and end at multiples of this.
pub const SECTOR: u64 = 4096;

/// Bytes that can be read from several threads.
pub trait Source: fmt::Debug + Send + Sync {
    /// Reads into `memory` from `at` on, both in whole sectors; fewer bytes only where the file ends.
    ///
    /// # Errors
    /// Those of the system.
    fn read(&self, at: u64, memory: &mut [u8]) -> io::Result<usize>;

    /// Says how the file looks from outside: another answer than before calls for a look at its content.
    ///
    /// # Errors
    /// Those of the system.
    fn stamp(&self) -> io::Result<Stamp>;

    /// What it is called in messages.
    fn path(&self) -> &Path;
}

/// Size and time of the last change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub bytes: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
}

/// Sectors that hold some bytes.
pub fn frame(range: &Range<u64>) -> Range<u64> {
    range.start / SECTOR * SECTOR..range.end.next_multiple_of(SECTOR)
}

/// Bytes that the sectors of any `bytes` take.
pub const fn frame_bytes(bytes: u64) -> u64 {
    bytes.next_multiple_of(SECTOR) + SECTOR
}

/// A file on a disk.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    path: PathBuf,
}

impl DirectFile {
    /// Opens the regular file at `path` for reading past the cache, where the system lets itself be passed.
    ///
    /// # Errors
    /// As [`file::open_regular`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = file::open_regular(path)?;
        disk::pass_cache(&file, true);
        Ok(Self { file, path: path.into() })
    }
}

impl Source for DirectFile {
    fn read(&self, at: u64, memory: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < memory.len() {
            match self.file.read_at(&mut memory[got..], at + got as u64) {
                Ok(0) => break,
                // Less than a sector is left of the file.
                Ok(read) if !(read as u64).is_multiple_of(SECTOR) => return Ok(got + read),
                Ok(read) => got += read,
                // A file system that has no way past its cache says so only now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && disk::passes_cache(&self.file) => {
                    disk::pass_cache(&self.file, false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !disk::passes_cache(&self.file) {
            disk::forget(&self.file, at..at + got as u64);
        }
        Ok(got)
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let metadata = self.file.metadata()?;
        Ok(Stamp { bytes: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_read_up_to_the_end_of_the_file() {
        let bytes: Vec<u8> = (0..30_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for folder in [std::env::temp_dir(), "/dev/shm".into()].into_iter().filter(|folder| folder.is_dir()) {
            let file = tempfile::NamedTempFile::new_in(folder).unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let source = DirectFile::open(file.path()).unwrap();
            assert_eq!(source.stamp().unwrap().bytes, 30_000);
            for range in [0..4096, 4000..5000, 8192..20_000, 29_999..30_000] {
                let frame = frame(&range);
                let len = (frame.end - frame.start) as usize;
                assert!(len as u64 <= frame_bytes(range.end - range.start));
                let mut memory = crate::machine::arena::ArenaMemory::new(len).unwrap();
                let got = source.read(frame.start, &mut memory).unwrap();
                let end = (frame.start as usize + got).min(bytes.len());
                assert!(end as u64 >= range.end, "{range:?}");
                assert_eq!(memory[..got], bytes[frame.start as usize..end]);
            }
        }
        assert!(DirectFile::open(Path::new("/nowhere")).is_err());
    }
}
