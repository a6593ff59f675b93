//! The digest of a worker's model file: known from the cache, else computed once by a thread of low priority, for whoever asks.

use crate::machine::priority;
use crate::model::cache::{Digests, FileState};
use crate::model::digest;
use dair_core::wire::native::Digest;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How often whoever waits hears how far the work is.
const EVERY: Duration = Duration::from_millis(200);

/// A model file and what is known of its digest.
#[derive(Debug)]
pub struct Hashing {
    path: PathBuf,
    opened: FileState,
    cache: Option<Digests>,
    known: Mutex<Known>,
    changed: Condvar,
    wanted: Mutex<Wanted>,
    goes_on: Condvar,
}

/// Who has a say in whether the work goes on.
#[derive(Debug, Default)]
struct Wanted {
    /// Those who need the disk for themselves.
    holds: u32,
    /// Those who wait for the digest, and come first.
    waits: u32,
}

/// As long as it lives, the disk is not read for a digest that nobody waits for.
#[derive(Debug)]
pub struct Hold<'h>(&'h Hashing);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.want(|wanted| wanted.holds -= 1);
    }
}

#[derive(Clone, Debug)]
enum Known {
    Nothing,
    /// A thread is at it: bytes so far.
    Hashed(u64),
    Digest(Digest),
    /// Why there is none; the next one who asks lets it be tried again.
    Failed(String),
}

impl Hashing {
    /// Of the file at `path`, which was in the state `opened` when its weights were mapped.
    pub fn new(path: PathBuf, opened: FileState, cache: Option<Digests>) -> Self {
        let found = cache.as_ref().and_then(|cache| cache.find(&path, &opened));
        let known = Mutex::new(found.map_or(Known::Nothing, Known::Digest));
        let (changed, wanted, goes_on) = (Condvar::new(), Mutex::default(), Condvar::new());
        Self { path, opened, cache, known, changed, wanted, goes_on }
    }

    /// Leaves the disk to others for now.
    pub fn hold(&self) -> Hold<'_> {
        self.want(|wanted| wanted.holds += 1);
        Hold(self)
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        self.goes_on.notify_all();
    }

    /// The digest, where it is known and the file is what it was.
    pub fn known(&self) -> Option<Digest> {
        match *self.lock() {
            Known::Digest(digest) if self.check().is_ok() => Some(digest),
            _ => None,
        }
    }

    /// Computes it in the calling thread, unless it is known or another one does so already.
    pub fn run(&self) {
        if self.claim() {
            self.compute();
        }
    }

    /// Waits for the digest, which is computed by a thread of its own if nobody does so yet. `tell` hears how many bytes are hashed,
    /// a few times per second, and may end the wait; the work goes on.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn wait(self: &Arc<Self>, tell: impl FnMut(u64) -> ControlFlow<()>) -> Result<Digest, String> {
        self.want(|wanted| wanted.waits += 1);
        let digest = self.wait_for(tell);
        self.want(|wanted| wanted.waits -= 1);
        digest
    }

    fn wait_for(self: &Arc<Self>, mut tell: impl FnMut(u64) -> ControlFlow<()>) -> Result<Digest, String> {
        self.check()?;
        if self.claim() {
            let own = Arc::clone(self);
            start(move || own.compute()).inspect_err(|error| self.set(Known::Failed(error.clone())))?;
        }
        let mut known = self.lock();
        loop {
            let bytes = match &*known {
                Known::Digest(digest) => return self.check().map(|()| *digest),
                Known::Failed(reason) => return Err(reason.clone()),
                Known::Hashed(bytes) => *bytes,
                Known::Nothing => 0,
            };
            drop(known);
            if tell(bytes).is_break() {
                return Err("nobody waits for it any more".into());
            }
            let waited = self.changed.wait_timeout_while(self.lock(), EVERY, |known| matches!(known, Known::Hashed(_)));
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the work is now the caller's.
    fn claim(&self) -> bool {
        let mut known = self.lock();
        let is_free = matches!(*known, Known::Nothing | Known::Failed(_));
        if is_free {
            *known = Known::Hashed(0);
        }
        is_free
    }

    fn compute(&self) {
        let progress = |some: u64| {
            if let Known::Hashed(bytes) = &mut *self.lock() {
                *bytes += some;
            }
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let is_held = |wanted: &mut Wanted| wanted.holds > 0 && wanted.waits == 0;
            drop(self.goes_on.wait_while(wanted, is_held));
        };
        let digest = digest::digest_of(&self.path, &self.opened, self.cache.as_ref(), 1, &progress);
        let failed = |error| Known::Failed(format!("cannot read {}: {error}", self.path.display()));
        self.set(digest.map_or_else(failed, Known::Digest));
    }

    /// Demands that the file is the one that is mapped.
    fn check(&self) -> Result<(), String> {
        let name = self.path.display();
        match FileState::of(&self.path) {
            Ok(now) if now == self.opened => Ok(()),
            Ok(_) => Err(format!("{name} was changed after it was opened; start the worker again")),
            Err(error) => Err(format!("cannot read {name}: {error}")),
        }
    }

    fn set(&self, known: Known) {
        *self.lock() = known;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes what is not known of `models`, one after the other, in a thread of low priority.
///
/// # Errors
/// Where there is no thread to be had.
pub fn in_background(models: Vec<Arc<Hashing>>) -> Result<(), String> {
    start(move || models.iter().for_each(|model| model.run()))
}

fn start(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name("hashing".into()).spawn(|| {
        priority::lower();
        work();
    });
    thread.map(|_| ()).map_err(|error| format!("cannot start a thread that hashes: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GO_ON: fn(u64) -> ControlFlow<()> = |_| ControlFlow::Continue(());

    fn hashing(path: &std::path::Path, cache: Option<Digests>) -> Arc<Hashing> {
        Arc::new(Hashing::new(path.into(), FileState::of(path).unwrap(), cache))
    }

    #[test]
    fn all_who_wait_get_the_digest_and_a_changed_file_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = (folder.path().join("m.m"), vec![7; 3 << 20]);
        fs::write(&path, &bytes).unwrap();
        let (model, want) = (hashing(&path, None), *blake3::hash(&bytes).as_bytes());
        assert_eq!(model.known(), None);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn({
                    let model = Arc::clone(&model);
                    move || model.wait(GO_ON)
                })
            })
            .collect();
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.join().unwrap(), Ok(want)));
        assert_eq!(model.known(), Some(want));

        fs::write(&path, &bytes[1..]).unwrap();
        assert_eq!(model.known(), None);
        assert!(model.wait(GO_ON).unwrap_err().ends_with("start the worker again"));
        fs::remove_file(&path).unwrap();
        assert!(model.wait(GO_ON).unwrap_err().starts_with("cannot read"));
    }

    #[test]
    fn who_does_not_wait_any_more_does_not_end_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.m");
        fs::write(&path, vec![7; 3 << 20]).unwrap();
        let model = hashing(&path, None);
        // Work that has begun, and takes its time.
        assert!(model.claim());
        let ended = model.wait(|_| ControlFlow::Break(()));
        assert!(matches!(&ended, Err(reason) if reason.starts_with("nobody")), "{ended:?}");
        model.compute();
        assert!(model.wait(GO_ON).is_ok());
    }

    #[test]
    fn work_that_is_held_goes_on_for_whoever_waits_or_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.m");
        fs::write(&path, vec![7; 3 << 20]).unwrap();
        let model = hashing(&path, None);
        let hold = model.hold();
        in_background(vec![Arc::clone(&model)]).unwrap();
        while !matches!(*model.lock(), Known::Hashed(1..)) {
            thread::yield_now();
        }
        assert_eq!(model.known(), None);
        assert!(model.wait(GO_ON).is_ok());
        let other = hashing(&path, None);
        let other_hold = other.hold();
        in_background(vec![Arc::clone(&other)]).unwrap();
        drop((hold, other_hold));
        while other.known().is_none() {
            thread::yield_now();
        }
    }

    #[test]
    fn what_the_cache_knows_is_not_computed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("m.m"), Digests::at(folder.path()));
        fs::write(&path, "some").unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        cache.keep(&path, &FileState::of(&path).unwrap(), later, &[9; 32]).unwrap();
        assert_eq!(hashing(&path, Some(cache)).known(), Some([9; 32]));
    }
}
