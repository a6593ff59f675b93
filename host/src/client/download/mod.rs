//! Files that are fetched, from the web or from a disk: in pieces, over several connections, again after whatever goes wrong.
//!
//! ```text
//! Place ──► Source ── facts: size, version, whether parts can be asked for
//!              │
//!              └── reader of a range ──► lanes, one chunk each at a time ──► TO.part          (as long as the file at its end)
//!                                                                   └──► TO.part.json  (Ledger: what is there, of which version)
//! ```
//! A file may lie in several parts, which are joined in their order. What a ledger says is on the disk before the ledger is, so
//! that whoever comes after a process that was killed, or after a power cut, goes on from there; only where the source still has
//! the version that was begun.

mod error;
mod ledger;
mod place;
mod source;
#[cfg(test)]
mod tests;

pub use error::DownloadError;
pub use place::{Place, PlaceError};
pub use source::Client;

use crate::machine::disk;
use error::Fault;
use ledger::{Job, Ledger};
use source::{Facts, Source};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most connections at once.
pub const MAX_CONNECTIONS: u16 = 32;
/// Most parts of a file.
pub const MAX_PARTS: usize = 1000;
/// Largest file, in bytes: 16 TiB.
const MAX_FILE_BYTES: u64 = 1 << 44;
/// How often a source may change while it is fetched.
const CHANGES: u32 = 3;
/// After a failure that came so many bytes after the last one, attempts are counted anew.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Fewer bytes than this within the time of [`Patience::silence`] are as good as none.
const TRICKLE_BYTES: u64 = 4096;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Time between two looks at how it goes.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two records of what is there.
const RECORD: Duration = Duration::from_secs(5);

/// What is endured before a file is given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// So long nothing, or hardly anything, may come.
    pub silence: Duration,
    /// So often a piece is asked for in a row.
    pub attempts: u32,
    /// So long after the first failure, twice as long after the second one, and so on.
    pub pause: Duration,
}

/// A file to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Its parts, in their order.
    pub parts: &'w [Place],
    /// What it will be called; its folder is there.
    pub to: &'w Path,
    /// How many pieces are asked for at the same time.
    pub connections: u16,
}

/// What whoever waits may want to hear.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// So much of it is here; told of at once, and then again and again.
    Progress {
        /// Bytes that are here.
        done: u64,
        /// Bytes of all of it.
        total: u64,
    },
    /// Something went wrong, and will be tried again after a pause.
    Again {
        /// What was asked for.
        url: &'e str,
        /// What went wrong.
        why: &'e str,
        /// The pause.
        pause: Duration,
    },
    /// The source is not what it was: all of it is fetched anew.
    Changed(&'e str),
}

/// A part that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// From where.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Which version of it, if the source tells versions apart.
    pub version: Option<String>,
}

/// Hears of events; it may end the download.
pub type Watch<'w> = &'w mut dyn FnMut(Event<'_>) -> ControlFlow<()>;

/// Fetches a file, from where an earlier attempt has ended. Nothing else may write to it at the same time.
///
/// # Errors
/// Why it is not there; what has come stays for the next attempt.
pub fn fetch(wanted: &Wanted<'_>, client: &Client, watch: Watch<'_>) -> Result<Vec<Got>, DownloadError> {
    for _ in 0..CHANGES {
        match attempt(wanted, client, watch) {
            Err(DownloadError::Changed(url)) => {
                Files::of(wanted.to).forget();
                let _ = watch(Event::Changed(&url));
            }
            done => return done,
        }
    }
    Err(DownloadError::Restless(wanted.parts.first().map(Place::to_string).unwrap_or_default()))
}

/// Removes what an unfinished download of `to` has left.
pub fn forget(to: &Path) {
    Files::of(to).forget();
}

/// The files of a download in progress.
struct Files {
    part: PathBuf,
    ledger: PathBuf,
}

impl Files {
    fn of(to: &Path) -> Self {
        let with = |ending: &str| {
            let mut name = to.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self { part: with(".part"), ledger: with(".part.json") }
    }

    /// The ledger first: without it, what is there counts for nothing.
    fn forget(&self) {
        let _ = fs::remove_file(&self.ledger);
        let _ = fs::remove_file(&self.part);
    }
}

fn attempt(wanted: &Wanted<'_>, client: &Client, watch: Watch<'_>) -> Result<Vec<Got>, DownloadError> {
    let files = Files::of(wanted.to);
    let work = Work::new(wanted, client);
    let facts = work.facts(watch)?;
    let fresh = Ledger::new(wanted.parts, &facts);
    let earlier = Ledger::read(&files.ledger, &files.part);
    let ledger = match earlier {
        Some(earlier) if earlier.goes_on_with(&fresh) => earlier,
        earlier => {
            files.forget();
            if let Some(url) = earlier.as_ref().and_then(|earlier| fresh.changed_since(earlier)) {
                let _ = watch(Event::Changed(url));
            }
            fresh
        }
    };
    let total = ledger.total().unwrap_or(u64::MAX);
    check_room(wanted.to, total - ledger.done())?;
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&files.part);
    let file = file.map_err(DownloadError::io("create", &files.part))?;
    file.set_len(total).map_err(DownloadError::io("write", &files.part))?;
    let jobs = ledger.jobs();
    let sink = Sink { file, files, ledger: Mutex::new(ledger) };
    let result = work.fetch(&jobs, &facts, &sink, watch);
    if !matches!(result, Err(DownloadError::Changed(_))) {
        // Whatever has come stays for the next attempt.
        result.and(sink.record())?;
        sink.finish(wanted.to)?;
    } else {
        result?;
    }
    Ok(sink.ledger().got())
}

/// Whether the disk has room for so many bytes more.
fn check_room(to: &Path, needs: u64) -> Result<(), DownloadError> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let free = disk::free_bytes(folder).map_err(DownloadError::io("ask for the room of", folder))?;
    if needs > free { Err(DownloadError::Room { folder: folder.into(), needs, free }) } else { Ok(()) }
}

/// The unfinished file.
struct Sink {
    file: File,
    files: Files,
    ledger: Mutex<Ledger>,
}

impl Sink {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes next of a chunk.
    fn write(&self, job: &Job, at: u64, bytes: &[u8]) -> Result<(), DownloadError> {
        let written = self.file.write_all_at(bytes, job.part_start + at);
        written.map_err(DownloadError::io("write", &self.files.part))?;
        self.ledger().add(job, bytes.len() as u64);
        Ok(())
    }

    /// Makes sure that what is here now will be here after a power cut.
    fn record(&self) -> Result<(), DownloadError> {
        // Lanes go on meanwhile.
        let now = self.ledger().clone();
        ledger::sync(&self.file, &now, &self.files.ledger).map_err(DownloadError::io("write", &self.files.ledger))
    }

    fn finish(&self, to: &Path) -> Result<(), DownloadError> {
        fs::rename(&self.files.part, to).map_err(DownloadError::io("rename", &self.files.part))?;
        let _ = fs::remove_file(&self.files.ledger);
        Ok(())
    }
}

/// A failure that is made up for.
struct Again {
    url: String,
    why: String,
    pause: Duration,
}

impl Again {
    fn tell(&self, watch: Watch<'_>) -> Result<(), DownloadError> {
        let Self { url, why, pause } = self;
        heard(watch(Event::Again { url, why, pause: *pause }))
    }
}

fn heard(flow: ControlFlow<()>) -> Result<(), DownloadError> {
    if flow.is_break() { Err(DownloadError::Interrupted) } else { Ok(()) }
}

/// Does the job of a number, and tells of what it makes up for.
type JobOf<'j> = &'j (dyn Fn(usize, &Sender<Again>) -> Result<(), DownloadError> + Sync);

/// Connections, and what they are at.
struct Work {
    sources: Vec<Source>,
    connections: usize,
    patience: Patience,
    is_stopped: AtomicBool,
}

impl Work {
    fn new(wanted: &Wanted<'_>, client: &Client) -> Self {
        Self {
            sources: wanted.parts.iter().map(|place| Source::new(place, client)).collect(),
            connections: wanted.connections.clamp(1, MAX_CONNECTIONS).into(),
            patience: client.patience,
            is_stopped: AtomicBool::new(false),
        }
    }

    /// What all parts are.
    fn facts(&self, watch: Watch<'_>) -> Result<Vec<Facts>, DownloadError> {
        let found: Vec<_> = self.sources.iter().map(|_| Mutex::new(None)).collect();
        let ask = |index: usize, tell: &Sender<Again>| {
            let source = &self.sources[index];
            let facts = self.patiently(source, tell, |_| source.facts())?;
            if facts.bytes == 0 {
                return Err(DownloadError::Unfit(source.url().to_owned(), "an empty file"));
            }
            *found[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
            Ok(())
        };
        self.run(self.sources.len(), &ask, &mut |again| again.map_or(Ok(()), |again| again.tell(watch)))?;
        let facts = found.into_iter().map(|facts| facts.into_inner().unwrap_or_else(PoisonError::into_inner));
        let facts: Vec<Facts> = facts.map(|facts| facts.expect("every part was asked for")).collect();
        let total = facts.iter().try_fold(0u64, |sum, facts| sum.checked_add(facts.bytes));
        match total {
            Some(total) if total <= MAX_FILE_BYTES => Ok(facts),
            _ => Err(DownloadError::TooLarge(self.sources[0].url().to_owned())),
        }
    }

    /// Fetches all chunks.
    fn fetch(&self, jobs: &[Job], facts: &[Facts], sink: &Sink, watch: Watch<'_>) -> Result<(), DownloadError> {
        let total = sink.ledger().total().unwrap_or(u64::MAX);
        let mut recorded = Instant::now();
        let mut hear = |again: Option<Again>| {
            if let Some(again) = again {
                again.tell(watch)?;
            }
            if recorded.elapsed() >= RECORD {
                sink.record()?;
                recorded = Instant::now();
            }
            let done = sink.ledger().done();
            heard(watch(Event::Progress { done, total }))
        };
        hear(None)?;
        let one = |index: usize, tell: &Sender<Again>| {
            let (job, mut piece) = (&jobs[index], vec![0; PIECE]);
            let (source, facts) = (&self.sources[job.part], &facts[job.part]);
            self.patiently(source, tell, |came| self.chunk(job, (source, facts), sink, (&mut piece, came)))
        };
        self.run(jobs.len(), &one, &mut hear)?;
        hear(None)
    }

    /// Fetches what is missing of a chunk, and counts in `came` what stays even if the rest does not come.
    fn chunk(
        &self,
        job: &Job,
        (source, facts): (&Source, &Facts),
        sink: &Sink,
        (piece, came): (&mut [u8], &mut u64),
    ) -> Result<(), Fault> {
        if !facts.has_ranges {
            sink.ledger().clear(job);
        }
        let missing = sink.ledger().missing(job);
        if missing.is_empty() {
            return Ok(());
        }
        let (mut reader, bytes) = source.open(facts, &missing)?;
        let (mut at, end) = (missing.start, missing.start + bytes);
        let (mut since, mut trickle) = (Instant::now(), 0);
        while at < end {
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(DownloadError::Interrupted.into());
            }
            let most = (end - at).min(piece.len() as u64) as usize;
            let read = match reader.read(&mut piece[..most]) {
                Ok(0) => return Err(Fault::again("it ends in the middle")),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(source::fault_of_read(error)),
            };
            sink.write(job, at, &piece[..read])?;
            at += read as u64;
            *came += if facts.has_ranges { read as u64 } else { 0 };
            trickle += read as u64;
            if since.elapsed() >= self.patience.silence {
                if trickle < TRICKLE_BYTES && at < end {
                    return Err(Fault::again("hardly anything comes"));
                }
                (since, trickle) = (Instant::now(), 0);
            }
        }
        if end < missing.end { Err(Fault::again("it ends in the middle")) } else { Ok(()) }
    }

    /// Does something again and again, as long as patience lasts.
    fn patiently<T>(
        &self,
        source: &Source,
        tell: &Sender<Again>,
        mut once: impl FnMut(&mut u64) -> Result<T, Fault>,
    ) -> Result<T, DownloadError> {
        let (mut attempts, mut came) = (0, 0);
        loop {
            let (why, least) = match once(&mut came) {
                Ok(done) => return Ok(done),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Again(why, least)) => (why, least),
            };
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(DownloadError::Interrupted);
            }
            if came >= PROGRESS_BYTES {
                (attempts, came) = (0, 0);
            }
            attempts += 1;
            let url = source.url().to_owned();
            if attempts >= self.patience.attempts {
                return Err(DownloadError::GivenUp { url, attempts, why });
            }
            let pause = (self.patience.pause * attempts).max(least);
            // Whoever listens may have gone already.
            let _ = tell.send(Again { url, why, pause });
            let end = Instant::now() + pause;
            while Instant::now() < end && !self.is_stopped.load(Ordering::Relaxed) {
                thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Does so many jobs, over all connections, until one fails or whoever hears of it has heard enough.
    fn run(
        &self,
        jobs: usize,
        job: JobOf<'_>,
        hear: &mut dyn FnMut(Option<Again>) -> Result<(), DownloadError>,
    ) -> Result<(), DownloadError> {
        let (next, (sender, receiver)) = (AtomicUsize::new(0), channel());
        let lane = |sender: Sender<Again>| loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= jobs || self.is_stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Err(error) = job(index, &sender) {
                self.stop();
                return Err(error);
            }
        };
        thread::scope(|scope| {
            let lanes = (0..self.connections.min(jobs)).map(|_| {
                let (sender, lane) = (sender.clone(), &lane);
                scope.spawn(move || lane(sender))
            });
            let lanes: Vec<_> = lanes.collect();
            drop(sender);
            let mut result = Ok(());
            loop {
                let again = match receiver.recv_timeout(LOOK) {
                    Ok(again) => Some(again),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if result.is_ok() {
                    result = hear(again);
                    if result.is_err() {
                        self.stop();
                    }
                }
            }
            for lane in lanes {
                match lane.join().expect("a lane does not panic") {
                    // The others end because of one.
                    Err(DownloadError::Interrupted) if result.is_err() => {}
                    Err(error) if matches!(result, Ok(()) | Err(DownloadError::Interrupted)) => result = Err(error),
                    _ => {}
                }
            }
            result
        })
    }

    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.sources.iter().for_each(Source::shut_down);
    }
}
