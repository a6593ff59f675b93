//! Models that were pulled, in the user's cache folder beside those that were converted there.
//!
//! ```text
//! CACHE/models/NAME/
//!     pull.lock           held by the one that pulls or removes
//!     pull.json           Record: where the files came from, and their checksums
//!     NAME.t NAME.m       or NAME.gguf; NAME.m.part and NAME.m.part.json while it is fetched
//! ```
//! A checksum is kept from the first download on: what comes later under the same name must have it, too.

use super::cache::{self, CacheError};
use crate::machine::file;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

const LOCK: &str = "pull.lock";
const RECORD: &str = "pull.json";
/// Raised when older programs can't read records any more.
const FORMAT: u32 = 1;
/// Largest record that is read: one of 1000 parts with long URLs is smaller.
const MAX_RECORD_BYTES: u64 = 8 << 20;
/// Longest name, in bytes.
const MAX_NAME: usize = 100;
/// Most models that are listed, and most files of each.
const MAX_MODELS: usize = 10_000;

/// The name of a model here: one part of a path, and no hidden one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// Where it is none.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(is_plain)
            && text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if is_name { Ok(Self(text.to_owned())) } else { Err(StoreError::Name(text.to_owned())) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why models here can't be used or changed.
#[derive(Debug)]
pub enum StoreError {
    /// That is no name.
    Name(String),
    /// There is no model of this name.
    Unknown(String),
    /// Somebody else is at it.
    Busy(String),
    /// There is no cache folder.
    Cache(CacheError),
    /// The system refuses.
    Io(&'static str, PathBuf, io::Error),
}

impl StoreError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io(action, path, error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) => write!(
                f,
                "{text:?} is no name of a model: letters, digits, `.`, `_` and `-`, up to {MAX_NAME}, beginning with a letter or digit"
            ),
            Self::Unknown(name) => write!(f, "there is no model {name} here; dair list shows those that are"),
            Self::Busy(name) => {
                write!(f, "another process is pulling or removing {name}; try again when it has ended")
            }
            Self::Cache(error) => error.fmt(f),
            Self::Io(action, path, error) => {
                write!(f, "can't {action} {}: {error}; name another folder by {}", path.display(), cache::VARIABLE)
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io(_, _, error) = self { Some(error) } else { None }
    }
}

/// What is kept of a pulled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// Its name.
    pub name: String,
    /// Where it came from: a base, or a URL.
    pub source: String,
    /// On which terms it may be used, if that is known.
    pub licence: Option<String>,
    /// Seconds since 1970 of its last download.
    pub pulled_unix_s: u64,
    /// Whether all of it is here, and was looked at.
    pub is_complete: bool,
    /// Its files.
    pub files: Vec<FileRecord>,
}

/// What is kept of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name here.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its checksum, as `b3sum` prints it.
    pub blake3: String,
    /// What it was made of.
    pub parts: Vec<PartRecord>,
}

/// What is kept of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Where it came from.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Its version there, if there was one.
    pub version: Option<String>,
}

impl Record {
    /// Of a model of which nothing is here.
    pub fn new(name: &Name, source: String, licence: Option<String>) -> Self {
        let name = name.to_string();
        Self { format: FORMAT, name, source, licence, pulled_unix_s: 0, is_complete: false, files: Vec::new() }
    }

    fn read(folder: &Path) -> Option<Self> {
        let mut text = Vec::new();
        file::open_regular(&folder.join(RECORD)).ok()?.take(MAX_RECORD_BYTES).read_to_end(&mut text).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        // A name is never a way out of its folder.
        let is_sound = record.format == FORMAT && record.files.iter().all(|file| Name::new(&file.name).is_ok());
        is_sound.then_some(record)
    }

    /// The record of a file.
    pub fn file(&self, name: &str) -> Option<&FileRecord> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Keeps the record of a file, in the place of an earlier one.
    pub fn put(&mut self, file: FileRecord) {
        self.files.retain(|other| other.name != file.name);
        self.files.push(file);
    }
}

/// What is here under a name.
#[derive(Debug)]
pub struct Pulled {
    /// The name.
    pub name: Name,
    /// What is kept of it; nothing of one of which no file is complete.
    pub record: Option<Record>,
    /// What it takes on the disk, in bytes.
    pub disk_bytes: u64,
    folder: PathBuf,
}

impl Pulled {
    /// The model that can be opened: a `.m` or a GGUF file, of the size that it had when it was complete.
    pub fn model(&self) -> Option<PathBuf> {
        let record = self.record.as_ref().filter(|record| record.is_complete)?;
        let is_here = |file: &FileRecord| {
            fs::metadata(self.folder.join(&file.name)).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
        };
        let is_model = |file: &&FileRecord| file.name.ends_with(".m") || file.name.ends_with(".gguf");
        let model = record.files.iter().find(is_model)?;
        record.files.iter().all(is_here).then(|| self.folder.join(&model.name))
    }
}

/// The folder of pulled models.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Of this user; it need not be there yet.
    ///
    /// # Errors
    /// Where the user has no place for it.
    pub fn of_user() -> Result<Self, StoreError> {
        cache::folder_of_user().map(|cache| Self::at(&cache)).map_err(StoreError::Cache)
    }

    /// In this cache folder.
    pub fn at(cache: &Path) -> Self {
        Self { folder: cache.join("models") }
    }

    /// What is here under a name, whole or not.
    pub fn find(&self, name: &Name) -> Option<Pulled> {
        let folder = self.folder.join(name.as_str());
        // Models that were converted have other files.
        if !folder.join(LOCK).is_file() {
            return None;
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten().take(MAX_MODELS);
        let disk_bytes = entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.blocks() * 512).sum();
        Some(Pulled { name: name.clone(), record: Record::read(&folder), disk_bytes, folder })
    }

    /// All that is here, by name.
    pub fn list(&self) -> Vec<Pulled> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().take(MAX_MODELS);
        let names = entries.filter_map(|entry| Name::new(entry.file_name().to_str()?).ok());
        let mut all: Vec<_> = names.filter_map(|name| self.find(&name)).collect();
        all.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        all
    }

    /// The folder of a name, which nobody else changes as long as what is returned lives; it is made if it is not there.
    ///
    /// # Errors
    /// Where somebody else is at it, or it can't be written.
    pub fn lock(&self, name: &Name) -> Result<Held, StoreError> {
        let folder = self.folder.join(name.as_str());
        loop {
            fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
            let path = folder.join(LOCK);
            let lock = match File::options().write(true).create(true).truncate(false).open(&path) {
                // Somebody has just removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(StoreError::io("create", &path))?,
            };
            match lock.try_lock() {
                Ok(()) if file::is_same(&lock, &path).unwrap_or(false) => return Ok(Held { folder, _lock: lock }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(name.to_string())),
                Err(TryLockError::Error(error)) => return Err(StoreError::Io("lock", path, error)),
            }
        }
    }

    /// Removes what is here under a name, whole or not, and says how many bytes the disk has won.
    ///
    /// # Errors
    /// Where there is nothing, somebody else is at it, or it can't be removed.
    pub fn remove(&self, name: &Name) -> Result<u64, StoreError> {
        let found = self.find(name).ok_or_else(|| StoreError::Unknown(name.to_string()))?;
        let held = self.lock(name)?;
        let converted = found.model().map_or(0, |model| cache::Cache::beside(&self.folder).forget(&model));
        let entries = fs::read_dir(&held.folder).map_err(StoreError::io("read", &held.folder))?;
        let paths = entries.flatten().map(|entry| entry.path());
        // The record before what it is about, the lock last: without it, others may begin anew.
        let (lock, record) = (held.folder.join(LOCK), held.folder.join(RECORD));
        let mut paths: Vec<_> = paths.filter(|path| *path != lock && *path != record).collect();
        if record.exists() {
            paths.insert(0, record);
        }
        for path in paths.iter().chain([&lock]) {
            fs::remove_file(path).map_err(StoreError::io("remove", path))?;
        }
        fs::remove_dir(&held.folder).map_err(StoreError::io("remove", &held.folder))?;
        Ok(found.disk_bytes + converted)
    }
}

/// The folder of a model that nobody else changes.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    _lock: File,
}

impl Held {
    /// Where a file of it is, or will be.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// What is kept of it.
    pub fn record(&self) -> Option<Record> {
        Record::read(&self.folder)
    }

    /// Keeps a record, wholly or not at all.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn keep(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.folder.join(RECORD);
        let write = || {
            let mut part = NamedTempFile::new_in(&self.folder)?;
            part.write_all(&serde_json::to_vec_pretty(record)?)?;
            part.as_file().sync_all()?;
            part.persist(&path)?;
            Ok(())
        };
        write().map_err(StoreError::io("write", &path))
    }

    /// Keeps nothing of it.
    pub fn forget_record(&self) {
        let _ = fs::remove_file(self.folder.join(RECORD));
    }

    /// Whether nothing of a model is here: only the lock.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == LOCK))
    }

    /// Leaves no trace of a model of which nothing has come.
    pub fn abandon(self) {
        if self.is_empty() {
            let _ = fs::remove_file(self.folder.join(LOCK));
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_name_is_one_plain_part_of_a_path() {
        for text in ["a", "qwen3_0.6b_q40", "A-1.x"] {
            assert_eq!(name(text).as_str(), text);
        }
        for text in ["", ".", "..", "a/b", "/a", ".hidden", "-flag", "a b", "ä", "a\0", &"a".repeat(101)] {
            assert!(matches!(Name::new(text), Err(StoreError::Name(_))), "{text:?}");
        }
    }

    #[test]
    fn one_at_a_time_holds_a_model_and_nothing_is_left_of_one_that_never_came() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        assert!(matches!(store.remove(&name("a")), Err(StoreError::Unknown(_))));
        let held = store.lock(&name("a")).unwrap();
        assert!(matches!(store.lock(&name("a")), Err(StoreError::Busy(_))));
        assert!(matches!(store.remove(&name("a")), Err(StoreError::Busy(_))));
        store.lock(&name("b")).unwrap().abandon();
        held.abandon();
        assert_eq!(fs::read_dir(folder.path().join("models")).unwrap().count(), 0);
    }

    #[test]
    fn a_model_is_whole_when_its_record_says_so_and_its_files_are_as_large() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let held = store.lock(&name("a")).unwrap();
        fs::write(held.path("a.m"), "model").unwrap();
        assert!(store.find(&name("a")).unwrap().model().is_none());
        let mut record = Record::new(&name("a"), "http://box".into(), None);
        let file = FileRecord { name: "a.m".into(), bytes: 5, blake3: String::new(), parts: Vec::new() };
        record.put(file.clone());
        record.put(file);
        held.keep(&record).unwrap();
        assert!(store.find(&name("a")).unwrap().model().is_none());
        record.is_complete = true;
        held.keep(&record).unwrap();
        assert_eq!(held.record().unwrap(), record);
        assert_eq!(store.list()[0].model(), Some(held.path("a.m")));
        fs::write(held.path("a.m"), "mode").unwrap();
        assert!(store.find(&name("a")).unwrap().model().is_none());
        // A record can't lead elsewhere.
        fs::write(held.path("a.m"), "model").unwrap();
        record.files[0].name = "../a.m".into();
        held.keep(&record).unwrap();
        assert!(held.record().is_none());
        drop(held);
        assert!(store.remove(&name("a")).unwrap() > 0);
        assert_eq!(store.list().len(), 0);
    }
}
