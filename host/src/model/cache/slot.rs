//! The place of one source in the cache: its versions, who may write them, and what is thrown away.

use super::error::CacheError;
use super::identity::{Hash, Identity};
use super::{Entry, Event};
use crate::machine::file;
use crate::model::convert::ConvertError;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the model in the folder of a version.
pub const MODEL: &str = "model.m";
/// Name of the tokenizer beside it.
pub const TOKENIZER: &str = "model.t";
const RECORD: &str = "source.json";
const LOCK: &str = "lock";
const PART: &str = "part";
/// Largest record that is read: one of a model in a thousand files is smaller.
const MAX_RECORD_BYTES: u64 = 1 << 20;
/// Most places that are looked through for what can be thrown away.
const MAX_SLOTS: usize = 10_000;
/// Longest part of a name that comes from the source.
const MAX_STEM_CHARS: usize = 80;
/// How long a model is kept whose source is away together with its folder.
const KEPT_WITHOUT_FOLDER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Time between two looks at a lock that another process holds.
const POLL: Duration = Duration::from_millis(50);

/// A name without what a shell or a disk may stumble over, as a part of one in the cache.
pub fn plain(name: &OsStr) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    name.to_string_lossy().chars().map(|c| if is_plain(c) { c } else { '_' }).take(MAX_STEM_CHARS).collect()
}

/// What is written beside a pair.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    identity: Identity,
    model_bytes: u64,
    tokenizer_bytes: u64,
}

impl Record {
    fn read(file: &File) -> Option<Self> {
        let mut bytes = Vec::new();
        file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The place of one source.
#[derive(Debug)]
pub struct Slot {
    folder: PathBuf,
}

impl Slot {
    /// The place of `source`.
    pub fn of(cache: &Path, source: &Path) -> Self {
        let stem = if source.extension() == Some(OsStr::new("gguf")) { source.file_stem() } else { source.file_name() };
        let stem = plain(stem.unwrap_or_default());
        Self { folder: cache.join(format!("{stem}-{}", Hash::of_path(source).hex())) }
    }

    /// A complete pair made of exactly this source, from now on in use.
    pub fn find(&self, identity: &Identity) -> Option<Entry> {
        let folder = self.folder.join(identity.version());
        let path = folder.join(RECORD);
        let in_use = file::open_regular(&path).ok()?;
        // Somebody who throws it away holds the lock alone. Disks without locks have nobody who could tell.
        if matches!(in_use.try_lock_shared(), Err(TryLockError::WouldBlock)) || !file::is_same(&in_use, &path).ok()? {
            return None;
        }
        let record = Record::read(&in_use)?;
        let has = |name: &str, bytes: u64| {
            fs::metadata(folder.join(name)).is_ok_and(|found| found.is_file() && found.len() == bytes)
        };
        let is_whole = has(MODEL, record.model_bytes) && has(TOKENIZER, record.tokenizer_bytes);
        (is_whole && record.identity == *identity).then(|| Entry {
            model: folder.join(MODEL),
            tokenizer: folder.join(TOKENIZER),
            notes: Vec::new(),
            _in_use: in_use,
        })
    }

    /// Waits until nobody else writes here.
    ///
    /// # Errors
    /// [`ConvertError::Interrupted`] where `watch` ends the wait; where the cache can't be written.
    pub fn lock(&self, watch: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<File, CacheError> {
        loop {
            fs::create_dir_all(&self.folder).map_err(CacheError::io("create", &self.folder))?;
            let path = self.folder.join(LOCK);
            let lock = match File::options().write(true).create(true).truncate(false).open(&path) {
                // Somebody has just thrown the place away.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(CacheError::io("create", &path))?,
            };
            match lock.try_lock() {
                Ok(()) if file::is_same(&lock, &path).unwrap_or(false) => return Ok(lock),
                Ok(()) => continue,
                Err(TryLockError::Error(error)) => return Err(CacheError::io("lock", &path)(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if watch(Event::Waiting).is_break() {
                return Err(ConvertError::Interrupted.into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Throws away what is not in use: all versions, and parts, which nobody writes while this process holds the lock.
    /// What can't be removed stays.
    pub fn tidy(&self) {
        for folder in folders_in(&self.folder) {
            if folder.extension() == Some(OsStr::new(PART)) {
                let _ = fs::remove_dir_all(&folder);
                continue;
            }
            let record = folder.join(RECORD);
            let lock = File::open(&record);
            if lock.as_ref().is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock))) {
                continue;
            }
            // The record first: without it, what is left is no version.
            let _ = fs::remove_file(&record);
            let _ = fs::remove_dir_all(&folder);
        }
    }

    /// Throws away all versions that are not in use, unless somebody writes here, and says how many bytes that were.
    pub fn forget(&self) -> u64 {
        let path = self.folder.join(LOCK);
        let Ok(lock) = File::options().write(true).open(&path) else { return 0 };
        if lock.try_lock().is_err() {
            return 0;
        }
        let bytes = |name: &str, folder: &Path| fs::metadata(folder.join(name)).map_or(0, |found| found.len());
        let taken = || -> u64 {
            folders_in(&self.folder).iter().map(|folder| bytes(MODEL, folder) + bytes(TOKENIZER, folder)).sum()
        };
        let before = taken();
        self.tidy();
        let freed = before.saturating_sub(taken());
        self.remove_if_empty(&path);
        freed
    }

    /// The place itself goes where nothing is in it any more; its lock must be held.
    fn remove_if_empty(&self, lock: &Path) {
        if folders_in(&self.folder).is_empty() {
            let _ = fs::remove_file(lock);
            let _ = fs::remove_dir(&self.folder);
        }
    }

    /// A folder in which a version can be made; the lock must be held.
    ///
    /// # Errors
    /// Where the cache can't be written.
    pub fn part(&self, identity: &Identity) -> Result<Part, CacheError> {
        let target = self.folder.join(identity.version());
        let folder = target.with_extension(PART);
        fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        Ok(Part { slot: Self { folder: self.folder.clone() }, folder, target })
    }
}

/// A version that is being made. Dropped before [`Self::finish`], it is removed.
#[derive(Debug)]
pub struct Part {
    slot: Slot,
    folder: PathBuf,
    target: PathBuf,
}

impl Part {
    /// Where it is made.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Says what it was made of and gives it its name.
    ///
    /// # Errors
    /// Where the cache can't be written.
    pub fn finish(self, identity: &Identity) -> Result<Entry, CacheError> {
        let bytes = |name: &str| {
            let path = self.folder.join(name);
            fs::metadata(&path).map(|found| found.len()).map_err(CacheError::io("read", &path))
        };
        let record =
            Record { identity: identity.clone(), model_bytes: bytes(MODEL)?, tokenizer_bytes: bytes(TOKENIZER)? };
        let path = self.folder.join(RECORD);
        let text = serde_json::to_vec_pretty(&record).map_err(|error| CacheError::io("write", &path)(error.into()))?;
        File::create(&path)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(CacheError::io("write", &path))?;
        // A broken version that somebody looked at just when it was to be tidied away.
        let _ = fs::remove_dir_all(&self.target);
        fs::rename(&self.folder, &self.target).map_err(CacheError::io("rename", &self.folder))?;
        let vanished = || CacheError::io("use", &self.target)(ErrorKind::NotFound.into());
        self.slot.find(identity).ok_or_else(vanished)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where it was finished; nothing can be done about a failure here.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Throws away, besides `own`, all versions whose source is gone, and what killed processes have left.
pub fn tidy_orphans(cache: &Path, own: &Slot) {
    for folder in folders_in(cache).into_iter().filter(|folder| *folder != own.folder) {
        let lock_path = folder.join(LOCK);
        let Ok(lock) = File::options().write(true).open(&lock_path) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        let slot = Slot { folder };
        let versions = folders_in(&slot.folder);
        for part in versions.iter().filter(|folder| folder.extension() == Some(OsStr::new(PART))) {
            let _ = fs::remove_dir_all(part);
        }
        let mut records = versions.iter().filter_map(|folder| File::open(folder.join(RECORD)).ok());
        if records.all(|record| Record::read(&record).is_none_or(|found| is_gone(&found.identity.source, &record))) {
            slot.tidy();
        }
        slot.remove_if_empty(&lock_path);
    }
}

/// Whether a source was removed. One whose folder is gone, too, may lie on a disk that is away, so its model is kept for a
/// while; one with a name that is not UTF-8 can't be told from the record.
fn is_gone(source: &str, record: &File) -> bool {
    let path = Path::new(source);
    let is_missing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let has_folder = path.parent().is_some_and(Path::is_dir);
    let written = || record.metadata()?.modified();
    let is_old = || written().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT_WITHOUT_FOLDER));
    is_missing && !source.contains(char::REPLACEMENT_CHARACTER) && (has_folder || is_old())
}

/// The folders in a folder.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).take(MAX_SLOTS).filter(|path| path.is_dir()).collect()
}
