//! Keys and values on disk: what was computed of a sequence is found again when its place in memory has been given to another one,
//! and when the process has ended.
//!
//! ```text
//! FOLDER/PART/NAME     BLAKE3 of what follows, and the keys and values of a page
//! ```
//! PART stands for all that they depend on besides tokens: the model file, as it is now, the types, and which part of the model this
//! node computes. NAME is a hash of all tokens up to the last of the page, so sequences that begin alike share pages. Files are complete
//! when they get their names, what was damaged since then is computed again, and those that were used longest ago go first where the
//! folder becomes too large.

use crate::machine::terminal;
use crate::model::cache::FileState;
use dair_core::exec::PAGE;
use dair_core::wire::native::{PAGES_MAX, PageName};
use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Pages that wait to be written, at most.
const QUEUE: usize = 16;
/// A folder that has become too large is left with so much of what it may have.
const LEFT: f64 = 0.9;
/// Bytes of the hash before a page.
const HASH: usize = blake3::OUT_LEN;
/// Another number, where pages or what leads to them are no longer what they were.
const FORMAT: u32 = 1;

/// Pages whose files are not written yet.
type Waiting = Arc<Mutex<BTreeMap<PathBuf, Arc<[u8]>>>>;

/// A folder of pages, and the thread that writes to it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// Nothing once it has ended.
    queue: Option<SyncSender<PathBuf>>,
    waiting: Waiting,
    /// Of all pages, as far as is known.
    bytes: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Disk {
    /// Pages in `folder`, which is made where it is not there, of up to `limit` bytes in all.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn open(folder: &Path, limit: u64) -> io::Result<Arc<Self>> {
        make(folder)?;
        let (queue, pages) = sync_channel(QUEUE);
        let bytes = Arc::new(AtomicU64::new(0));
        let (folder, waiting) = (folder.to_owned(), Waiting::default());
        let (bytes_of, waiting_of) = (Arc::clone(&bytes), Arc::clone(&waiting));
        let keeper = Keeper { folder: folder.clone(), limit, bytes: bytes_of, waiting: waiting_of, has_failed: false };
        let thread = Mutex::new(Some(thread::Builder::new().name("pages".into()).spawn(move || keeper.run(&pages))?));
        Ok(Arc::new(Self { folder, queue: Some(queue), waiting, bytes, thread }))
    }

    /// Bytes of all pages in the folder, as far as is known.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until everything that was to be kept is written: for processes that end without taking leave of their values.
    pub fn finish(&self) {
        let is_writing = || {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.as_ref().is_some_and(|thread| !thread.is_finished())
        };
        while is_writing() && !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The pages of a part of a model, of which `what` says all that they depend on besides the file and tokens.
    ///
    /// # Errors
    /// Where there is no such file, or the folder can't be made.
    pub fn part(self: &Arc<Self>, model: &Path, what: &str) -> io::Result<PagesOfPart> {
        let (path, state) = (model.canonicalize()?, FileState::of(model)?);
        let hash = blake3::hash(format!("{FORMAT} {path:?} {state:?} {what}").as_bytes());
        let folder = self.folder.join(&hash.to_hex()[..2 * size_of::<PageName>()]);
        make(&folder)?;
        Ok(PagesOfPart { disk: Arc::clone(self), folder })
    }
}

impl Drop for Disk {
    /// What waits is written first.
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

/// A folder that nobody else may look into: what was said can be told from keys and values.
fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// What each page of `tokens` is known by, as far as they fill pages.
pub fn names(tokens: &[u32]) -> Vec<PageName> {
    let mut hasher = blake3::Hasher::new();
    let pages = tokens.chunks_exact(PAGE as usize).take(PAGES_MAX);
    let name = |tokens: &[u32]| {
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        let mut name = PageName::default();
        name.copy_from_slice(&hasher.finalize().as_bytes()[..size_of::<PageName>()]);
        name
    };
    pages.map(name).collect()
}

/// Pages of a part of a model.
#[derive(Debug)]
pub struct PagesOfPart {
    disk: Arc<Disk>,
    folder: PathBuf,
}

impl PagesOfPart {
    fn path(&self, name: &PageName) -> PathBuf {
        self.folder.join(name.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// What is to be written to a file, if that has not been done yet.
    fn waiting(&self, path: &Path) -> Option<Arc<[u8]>> {
        self.disk.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Whether a page is there, which counts as a use of it.
    pub fn has(&self, name: &PageName) -> bool {
        let path = self.path(name);
        self.waiting(&path).is_some() || File::open(path).map(|file| touch(&file)).is_ok()
    }

    /// Keeps a page, soon; `false`, and nothing done, while too many wait for the disk.
    pub fn put(&self, name: &PageName, page: Vec<u8>) -> bool {
        let Some(queue) = &self.disk.queue else { return true };
        let path = self.path(name);
        let waiting = || self.disk.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting().insert(path.clone(), page.into());
        match queue.try_send(path) {
            Ok(()) => true,
            Err(TrySendError::Full(path)) => {
                waiting().remove(&path);
                false
            }
            // Nobody writes any more: there is nothing to wait for.
            Err(TrySendError::Disconnected(path)) => waiting().remove(&path).is_some(),
        }
    }

    /// A page of so many bytes; nothing where it is not there, or not what it was.
    pub fn get(&self, name: &PageName, len: usize) -> Option<Vec<u8>> {
        let path = self.path(name);
        if let Some(page) = self.waiting(&path) {
            return Some(page.to_vec()).filter(|page| page.len() == len);
        }
        let mut file = File::open(&path).ok()?;
        let mut page = vec![0; len];
        let mut hash = [0; HASH];
        let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == (HASH + len) as u64)
            && file.read_exact(&mut hash).and_then(|()| file.read_exact(&mut page)).is_ok()
            && blake3::hash(&page) == hash;
        if is_whole {
            touch(&file);
        } else {
            let _ = fs::remove_file(&path);
        }
        is_whole.then_some(page)
    }
}

/// It was used now. Where that can't be written down, it goes earlier.
fn touch(file: &File) {
    let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
}

/// Writes pages, and sees to it that they do not become too many.
struct Keeper {
    folder: PathBuf,
    limit: u64,
    bytes: Arc<AtomicU64>,
    waiting: Waiting,
    has_failed: bool,
}

impl Keeper {
    fn run(mut self, pages: &Receiver<PathBuf>) {
        self.tidy(self.limit);
        for path in pages {
            let waiting = Arc::clone(&self.waiting);
            let waiting = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let page = waiting().get(&path).cloned();
            if let Some(page) = page {
                self.write(&path, &page);
            }
            waiting().remove(&path);
        }
    }

    fn write(&mut self, path: &Path, page: &[u8]) {
        let bytes = (HASH + page.len()) as u64;
        if path.exists() || bytes > self.limit {
            return;
        }
        if self.bytes.load(Ordering::Relaxed) + bytes > self.limit {
            self.tidy(((self.limit as f64 * LEFT) as u64).saturating_sub(bytes));
        }
        match write(path, page) {
            Ok(()) => drop(self.bytes.fetch_add(bytes, Ordering::Relaxed)),
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                terminal::note(format_args!("cannot keep keys and values in {}: {error}", self.folder.display()));
            }
            Err(_) => {}
        }
    }

    /// Removes what was used longest ago until no more than `left` bytes are there, and what a process that was killed has left behind.
    fn tidy(&self, left: u64) {
        let mut files = files(&self.folder);
        files.sort_by_key(|file| file.used);
        let mut bytes = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if bytes <= left {
                break;
            }
            if fs::remove_file(&file.path).is_ok() {
                bytes -= file.bytes;
            }
        }
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// All files two folders down. What can't be looked at is no file of this process's.
fn files(folder: &Path) -> Vec<Kept> {
    let inside = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = inside(folder).flat_map(|part| inside(&part.path()).collect::<Vec<_>>());
    parts
        .filter_map(|file| {
            let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(Kept { path: file.path(), bytes: metadata.len(), used: metadata.modified().ok()? })
        })
        .collect()
}

/// Writes the file of a page, which gets its name when it is complete.
fn write(path: &Path, page: &[u8]) -> io::Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let fill = |mut file: File| file.write_all(blake3::hash(page).as_bytes()).and_then(|()| file.write_all(page));
    let result = written.and_then(fill).and_then(|()| fs::rename(&part, path));
    if result.is_err() {
        let _ = fs::remove_file(&part);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; 1000]
    }

    fn opened(folder: &Path, limit: u64) -> PagesOfPart {
        fs::write(folder.join("model.m"), "a model").unwrap();
        Disk::open(&folder.join("kv"), limit).unwrap().part(&folder.join("model.m"), "all of it").unwrap()
    }

    #[test]
    fn pages_are_named_by_all_tokens_before_their_end() {
        let tokens: Vec<u32> = (0..200).collect();
        let all = names(&tokens);
        assert_eq!((all.len(), names(&tokens[..127]).len(), names(&[]).len()), (3, 1, 0));
        assert_eq!(names(&tokens[..128]), all[..2]);
        let mut other = tokens.clone();
        other[0] = 9;
        assert!(names(&other).iter().zip(&all).all(|(a, b)| a != b), "each depends on the first token");
        other.clone_from(&tokens);
        other[130] = 9;
        assert_eq!(names(&other)[..2], all[..2]);
        assert_ne!(names(&other)[2], all[2]);
    }

    #[test]
    fn a_page_is_found_again_by_another_process_unless_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = [[1; 16], [2; 16]];
        let pages = opened(folder.path(), 1 << 20);
        assert!(pages.put(&a, page(7)));
        drop(pages);
        fs::remove_file(folder.path().join("model.m")).unwrap();
        let pages = opened(folder.path(), 1 << 20);
        assert!(!pages.has(&a), "another file of the same content was made since then");
        assert!(pages.put(&a, page(8)));
        let path = pages.path(&a);
        let disk = Arc::clone(&pages.disk);
        drop((pages, disk));
        let disk = Disk::open(&folder.path().join("kv"), 1 << 20).unwrap();
        let pages = disk.part(&folder.path().join("model.m"), "all of it").unwrap();
        assert!(pages.has(&a) && !pages.has(&b));
        assert_eq!((pages.get(&a, 1000), pages.get(&b, 1000)), (Some(page(8)), None));
        assert!(!disk.part(&folder.path().join("model.m"), "a part").unwrap().has(&a));
        let mut bytes = fs::read(&path).unwrap();
        bytes[500] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!((pages.get(&a, 1000), pages.has(&a)), (None, false), "it is removed");
        fs::write(&path, "short").unwrap();
        assert_eq!((pages.get(&a, 1000), pages.has(&a)), (None, false));
    }

    #[test]
    fn those_that_were_used_longest_ago_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let name = |byte: u8| [byte; 16];
        let pages = opened(folder.path(), 10 * 1032);
        assert!((0..10).all(|byte| pages.put(&name(byte), page(byte))));
        pages.disk.finish();
        assert_eq!(files(&folder.path().join("kv")).len(), 10);
        drop(pages);
        // Times of files may be coarse.
        let pages = opened_again(folder.path(), 10 * 1032);
        for byte in 0..10 {
            let file = File::options().write(true).open(pages.path(&name(byte))).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + u64::from(byte));
            file.set_times(FileTimes::new().set_modified(used)).unwrap();
        }
        assert!(pages.has(&name(0)), "which is a use");
        assert!(pages.put(&name(99), page(99)));
        drop(pages);
        let pages = opened_again(folder.path(), 10 * 1032);
        let left: Vec<u8> = (0..100).filter(|byte| pages.path(&name(*byte)).exists()).collect();
        assert_eq!(left, [0, 3, 4, 5, 6, 7, 8, 9, 99]);
        drop(pages);
        let pages = opened_again(folder.path(), 2 * 1032);
        let path = pages.path(&name(99));
        drop(pages);
        assert_eq!((files(&folder.path().join("kv")).len(), path.exists()), (2, true), "a smaller limit holds at once");
    }

    fn opened_again(folder: &Path, limit: u64) -> PagesOfPart {
        Disk::open(&folder.join("kv"), limit).unwrap().part(&folder.join("model.m"), "all of it").unwrap()
    }
}
