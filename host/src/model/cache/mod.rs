//! Models that were converted on the way: whoever gives a GGUF file or a Hugging Face folder where a `.m` model is expected
//! gets it converted once, into the user's cache folder.
//!
//! ```text
//! CACHE/models/NAME-HASH/         a source, by its path (slot.rs)
//!     lock                        held by the one that converts or tidies up
//!     VERSION/                    a source as it was at some time (identity.rs), complete
//!         source.json             what it was made of; who uses the pair holds a shared lock on it
//!         model.m  model.t
//!     VERSION.part/               being made, or left by a process that was killed
//! ```
//! A version gets its name when it is complete, so that nobody sees half a pair. Versions that a change of the source has left
//! behind go when their source is converted again, those whose source is gone with any conversion; never while somebody uses them.

mod digests;
mod error;
mod identity;
mod slot;

pub use digests::{Digests, FileState};
pub use error::CacheError;

use super::convert::{self, Options, Progress};
use etcetera::BaseStrategy;
use identity::Identity;
use slot::Slot;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The environment variable that names another folder.
pub const VARIABLE: &str = "DAIR_CACHE";

/// A folder of converted models.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// What whoever waits for a model may want to hear.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Another process converts the same source; repeated as long as that takes.
    Waiting,
    /// A conversion to a pair in this folder has begun: the source is a model.
    Converting(&'a Path),
    /// It goes on.
    Progress(Progress),
}

/// A converted model. It is not removed as long as this lives.
#[derive(Debug)]
pub struct Entry {
    /// The `.m` file.
    pub model: PathBuf,
    /// The `.t` file.
    pub tokenizer: PathBuf,
    /// What the user should know, where it was converted just now.
    pub notes: Vec<String>,
    /// Holds the shared lock.
    _in_use: File,
}

/// The folder of this user for what can be made again: `DAIR_CACHE`, or `dair` where the system keeps such things. It need not be
/// there yet.
///
/// # Errors
/// Where there is no such place.
pub fn folder_of_user() -> Result<PathBuf, CacheError> {
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let strategy = etcetera::base_strategy::choose_native_strategy().map_err(|_| CacheError::NoHome)?;
    Ok(strategy.cache_dir().join("dair"))
}

impl Cache {
    /// The cache of this user, in [`folder_of_user`].
    ///
    /// # Errors
    /// Where there is no such place.
    pub fn of_user() -> Result<Self, CacheError> {
        Ok(Self::at(&folder_of_user()?))
    }

    /// A cache in this folder, which need not be there yet.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.join("models") }
    }

    /// A cache whose converted models are in this folder.
    pub(in crate::model) fn beside(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// Throws away what was made of `source`, as far as nobody uses it, and says how many bytes that were.
    pub fn forget(&self, source: &Path) -> u64 {
        convert::first_of(source).map_or(0, |source| Slot::of(&self.folder, &source).forget())
    }

    /// The model made of `source`: found, or converted now with the default weights. `watch` may end the wait.
    ///
    /// # Errors
    /// As a conversion, and where the cache can't be written.
    pub fn converted(
        &self,
        source: &Path,
        watch: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Entry, CacheError> {
        let source = convert::first_of(source)?;
        let slot = Slot::of(&self.folder, &source);
        if let Some(entry) = slot.find(&Identity::of(&source)?) {
            return Ok(entry);
        }
        let _lock = slot.lock(watch)?;
        // Another process may have made it, or changed the source, while this one waited.
        let identity = Identity::of(&source)?;
        if let Some(entry) = slot.find(&identity) {
            return Ok(entry);
        }
        slot.tidy();
        slot::tidy_orphans(&self.folder, &slot);
        let part = slot.part(&identity)?;
        let options = Options {
            input: source.clone(),
            model: part.folder().join(slot::MODEL),
            tokenizer: Some(part.folder().join(slot::TOKENIZER)),
            weights: None,
            force: true,
            lanes: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let mut is_announced = false;
        let summary = convert::convert(&options, &mut |progress| {
            if !is_announced {
                is_announced = true;
                watch(Event::Converting(part.target()))?;
            }
            watch(Event::Progress(progress))
        })
        .map_err(|error| CacheError::converting(&source, &self.folder, error))?;
        if Identity::of(&source)? != identity {
            return Err(CacheError::Changed(source));
        }
        let entry = part.finish(&identity)?;
        Ok(Entry { notes: summary.notes, ..entry })
    }
}
