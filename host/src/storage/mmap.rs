//! A file mapped into memory: pages are read when they are first used, and shared with every process that maps it.

use super::shortened;
use crate::machine::file;
use dair_core::io::{Span, Storage};
use memmap2::Mmap;
use std::io;
use std::path::Path;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    /// As [`file::open_regular`], and those of mapping.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = file::open_regular(path)?;
        shortened::watch();
        // SAFETY: the map is read-only. Should another process shorten the file, reads beyond its new end raise SIGBUS, which
        // ends the process; ours write model files under another name and rename them when complete.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    pub(super) fn map(&self) -> &Mmap {
        &self.map
    }
}

impl std::ops::Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Storage for MappedFile {
    type Error = std::convert::Infallible;
    type Lease<'s> = &'s [u8];

    fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    fn lease(&self, span: Span) -> Result<&[u8], Self::Error> {
        self.map[..].lease(span)
    }
}
