//! What a source was when it was converted: so that a change of it shows.

use super::error::CacheError;
use crate::machine::file;
use crate::model::convert::{self, ConvertError};
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Bytes that are looked at at the start, in the middle and at the end of a file.
const SAMPLE_BYTES: usize = 4096;

/// A source: all files that a conversion reads, and by which rules. Nothing in it depends on where the disk keeps a file, so a
/// copy that keeps names and times is the same source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of dair.
    dair: String,
    /// Version of what conversions write.
    conversion: u32,
    /// The file or folder.
    pub source: String,
    /// What is read of it.
    files: Vec<FileIdentity>,
}

/// One file. Its content is sampled, because size and time survive some tools that put another file in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileIdentity {
    path: String,
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
    samples: String,
}

impl Identity {
    /// The source at `path` as it is now.
    ///
    /// # Errors
    /// Where it is none, or can't be read.
    pub fn of(path: &Path) -> Result<Self, CacheError> {
        let files = convert::files_of(path)?;
        Ok(Self {
            dair: env!("CARGO_PKG_VERSION").to_owned(),
            conversion: convert::CONVERSION,
            source: path.display().to_string(),
            files: files.iter().map(|file| FileIdentity::of(file)).collect::<Result<_, _>>()?,
        })
    }

    /// A name for it.
    pub fn version(&self) -> String {
        let mut hash = Hash::new();
        for part in [&self.dair, &self.source] {
            hash.add(part.as_bytes());
        }
        hash.add(&self.conversion.to_le_bytes());
        for FileIdentity { path, bytes, modified_s, modified_ns, samples } in &self.files {
            hash.add(path.as_bytes());
            hash.add(&bytes.to_le_bytes());
            hash.add(&modified_s.to_le_bytes());
            hash.add(&modified_ns.to_le_bytes());
            hash.add(samples.as_bytes());
        }
        hash.hex()
    }
}

impl FileIdentity {
    fn of(path: &Path) -> Result<Self, ConvertError> {
        let file = file::open_regular(path).map_err(ConvertError::io("open", path))?;
        let metadata = file.metadata().map_err(ConvertError::io("read", path))?;
        let mut samples = Hash::new();
        let last = metadata.len().saturating_sub(SAMPLE_BYTES as u64);
        for offset in [0, last / 2, last] {
            let mut sample = vec![0; metadata.len().min(SAMPLE_BYTES as u64) as usize];
            file.read_exact_at(&mut sample, offset).map_err(ConvertError::io("read", path))?;
            samples.add(&sample);
        }
        Ok(Self {
            path: path.display().to_string(),
            bytes: metadata.len(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            samples: samples.hex(),
        })
    }
}

/// FNV-1a: names, and samples of files that nobody forges, are told apart well enough by it.
pub struct Hash(u64);

impl Hash {
    /// Of nothing.
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Of a path.
    pub fn of_path(path: &Path) -> Self {
        let mut hash = Self::new();
        hash.add(path.as_os_str().as_bytes());
        hash
    }

    /// Adds bytes and their number.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&bytes.len().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// As 16 digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    #[test]
    fn size_time_and_content_make_another_source_and_a_copy_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let version = |bytes: &[u8], time| {
            std::fs::remove_file(&path).ok();
            std::fs::write(&path, bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            Identity::of(&path).unwrap().version()
        };
        let bytes = vec![7; 100_000];
        let first = version(&bytes, time);
        assert_eq!(version(&bytes, time), first, "another inode with the same content and time");
        assert_ne!(version(&bytes[1..], time), first);
        assert_ne!(version(&bytes, time + Duration::from_nanos(1)), first);
        for at in [0, 4095, 50_000, 99_999] {
            let mut bytes = bytes.clone();
            bytes[at] = 8;
            assert_ne!(version(&bytes, time), first, "byte {at}");
        }
        for short in [&b"GGUF"[..], b"GGUG"] {
            assert_ne!(version(short, time), first);
        }
    }
}
