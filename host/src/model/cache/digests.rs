//! Digests of model files that were computed once, so that nobody reads a file of many gigabytes twice.
//!
//! ```text
//! CACHE/digests/NAME-HASH.json    a file, by its path: its state when it was read, and its digest
//! ```
//! A digest counts as long as size, inode and both times of the file are what they were. Time stands still between two ticks of
//! the system's clock, so a file that was written to just before it was read gets no record.

use super::identity::Hash;
use crate::machine::file;
use dair_core::wire::native::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest record that is read.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Changes within less than this may leave the times of a file as they are: on some disks these are whole seconds, or two.
const TICK: Duration = Duration::from_secs(2);

/// A folder of digests.
#[derive(Clone, Debug)]
pub struct Digests {
    folder: PathBuf,
}

/// What a file shows of itself without being read; whoever changes a byte of it changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Its size.
    pub bytes: u64,
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
    changed_s: i64,
    changed_ns: i64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    state: FileState,
    blake3: String,
}

impl FileState {
    /// The file at `path` as it is now.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    /// From what the system says of a file.
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            inode: metadata.ino(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            changed_s: metadata.ctime(),
            changed_ns: metadata.ctime_nsec(),
        }
    }

    /// Whether another change would have shown at `now`. A time to come says nothing.
    fn is_settled(&self, now: SystemTime) -> bool {
        let last = self.modified_s.max(self.changed_s);
        let last =
            u64::try_from(last).map_or(SystemTime::UNIX_EPOCH, |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        now.duration_since(last).is_ok_and(|age| age > TICK)
    }
}

impl Digests {
    /// Digests in the cache of this user; none where there is no place for one.
    pub fn of_user() -> Option<Self> {
        super::folder_of_user().ok().map(|folder| Self::at(&folder))
    }

    /// Digests in this cache folder, which need not be there yet.
    pub fn at(cache: &Path) -> Self {
        Self { folder: cache.join("digests") }
    }

    /// The digest of the file at `path`, if it is known and the file is still in `state`.
    pub fn find(&self, path: &Path, state: &FileState) -> Option<Digest> {
        let mut text = Vec::new();
        file::open_regular(&self.record_of(path)?).ok()?.take(MAX_RECORD_BYTES).read_to_end(&mut text).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let digest = blake3::Hash::from_hex(record.blake3).ok()?;
        (record.state == *state).then_some(*digest.as_bytes())
    }

    /// Keeps the digest of the file at `path`, which was in `state` before and after it was read from `start` on; not where it was
    /// written to just before.
    ///
    /// # Errors
    /// Where the cache can't be written.
    pub fn keep(&self, path: &Path, state: &FileState, start: SystemTime, digest: &Digest) -> io::Result<()> {
        let Some(target) = self.record_of(path).filter(|_| state.is_settled(start)) else { return Ok(()) };
        let blake3 = blake3::Hash::from_bytes(*digest).to_hex().to_string();
        let record = Record { state: *state, blake3 };
        fs::create_dir_all(&self.folder)?;
        let mut part = tempfile::NamedTempFile::new_in(&self.folder)?;
        part.write_all(&serde_json::to_vec_pretty(&record)?)?;
        part.persist(target)?;
        Ok(())
    }

    /// Where the record of a file is; none of a file that is not there.
    fn record_of(&self, path: &Path) -> Option<PathBuf> {
        let path = path.canonicalize().ok()?;
        Some(self.folder.join(format!("{}-{}.json", super::slot::plain(path.file_name()?), Hash::of_path(&path).hex())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// Long enough after the file was made.
    fn later() -> SystemTime {
        SystemTime::now() + 2 * TICK
    }

    #[test]
    fn a_digest_counts_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digests) = (folder.path().join("ä m.m"), Digests::at(&folder.path().join("cache")));
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let touch = |time| File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        fs::write(&path, "some").unwrap();
        touch(time);
        let state = FileState::of(&path).unwrap();
        assert_eq!(digests.find(&path, &state), None);
        digests.keep(&path, &state, later(), &[7; 32]).unwrap();
        assert_eq!(digests.find(&path, &FileState::of(&path).unwrap()), Some([7; 32]));

        touch(time + Duration::from_nanos(1));
        assert_eq!(digests.find(&path, &FileState::of(&path).unwrap()), None, "another time");
        // Whoever sets the time back is seen by the time of that, once the system's clock has ticked.
        std::thread::sleep(Duration::from_millis(50));
        touch(time);
        assert_eq!(digests.find(&path, &FileState::of(&path).unwrap()), None, "another change");
        for state in [FileState { bytes: 5, ..state }, FileState { inode: !state.inode, ..state }] {
            assert_eq!(digests.find(&path, &state), None, "{state:?}");
        }
        digests.keep(&path, &FileState::of(&path).unwrap(), later(), &[8; 32]).unwrap();
        assert_eq!(digests.find(&path, &FileState::of(&path).unwrap()), Some([8; 32]));
        assert_eq!(fs::read_dir(folder.path().join("cache/digests")).unwrap().count(), 1, "one record for a file");
    }

    #[test]
    fn a_file_that_was_written_just_now_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digests) = (folder.path().join("m.m"), Digests::at(folder.path()));
        fs::write(&path, "some").unwrap();
        let state = FileState::of(&path).unwrap();
        digests.keep(&path, &state, SystemTime::now(), &[7; 32]).unwrap();
        assert_eq!(digests.find(&path, &state), None);
    }

    #[test]
    fn a_damaged_record_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digests) = (folder.path().join("m.m"), Digests::at(folder.path()));
        fs::write(&path, "some").unwrap();
        let state = FileState::of(&path).unwrap();
        digests.keep(&path, &state, later(), &[7; 32]).unwrap();
        let record = digests.record_of(&path).unwrap();
        let text = fs::read_to_string(&record).unwrap();
        for damaged in [text.replace("07", "0x"), text[..text.len() / 2].into(), String::new()] {
            fs::write(&record, damaged).unwrap();
            assert_eq!(digests.find(&path, &state), None);
        }
        fs::write(&record, text).unwrap();
        assert_eq!(digests.find(&path, &state), Some([7; 32]));
    }
}
