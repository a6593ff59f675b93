//! What of a file is here already, and of which version: a small file beside the unfinished one.

use super::place::Place;
use super::source::Facts;
use super::{Got, MAX_PARTS};
use crate::machine::file;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;
use tempfile::NamedTempFile;

/// Raised when older programs can't read it any more.
const FORMAT: u32 = 1;
/// Largest ledger that is read: one of 16 TiB is smaller.
const MAX_BYTES: u64 = 32 << 20;
/// Size of the pieces that are asked for: small enough that all connections have something to do until the end, large enough that
/// asking takes no time of note.
const CHUNKS: u64 = 16;
const CHUNK_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

/// What of a file is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    format: u32,
    parts: Vec<Part>,
}

/// What of a part is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    url: String,
    bytes: u64,
    version: Option<String>,
    /// Size of all chunks but the last one.
    chunk_bytes: u64,
    /// Of each chunk, how many bytes from its start.
    done: Vec<u64>,
}

/// A chunk that is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The part.
    pub part: usize,
    /// The chunk in it.
    pub chunk: usize,
    /// Where the part begins in the file.
    pub part_start: u64,
}

impl Part {
    fn new(place: &Place, facts: &Facts) -> Self {
        let chunk_bytes = (facts.bytes / CHUNKS).next_power_of_two().clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end());
        // What can't be asked for in pieces is one.
        let chunk_bytes = if facts.has_ranges { chunk_bytes } else { facts.bytes.max(1) };
        let done = vec![0; chunks(facts.bytes, chunk_bytes)];
        Self { url: place.to_string(), bytes: facts.bytes, version: facts.version.clone(), chunk_bytes, done }
    }

    fn chunk(&self, index: usize) -> Range<u64> {
        let start = index as u64 * self.chunk_bytes;
        start..self.bytes.min(start.saturating_add(self.chunk_bytes))
    }

    fn is_sound(&self) -> bool {
        self.chunk_bytes > 0
            && self.done.len() == chunks(self.bytes, self.chunk_bytes)
            && self.done.iter().enumerate().all(|(index, done)| *done <= self.len(index))
    }

    fn len(&self, index: usize) -> u64 {
        let chunk = self.chunk(index);
        chunk.end - chunk.start
    }

    /// Whether it is the same version of the same thing, in the same pieces.
    fn goes_on_with(&self, now: &Self) -> bool {
        // Without a version nobody knows whether the rest belongs to it.
        self.version.is_some()
            && (&self.url, self.bytes, &self.version, self.chunk_bytes)
                == (&now.url, now.bytes, &now.version, now.chunk_bytes)
    }
}

fn chunks(bytes: u64, chunk_bytes: u64) -> usize {
    bytes.div_ceil(chunk_bytes) as usize
}

impl Ledger {
    /// Of a file of which nothing is here. Sizes must be within the limits.
    pub fn new(places: &[Place], facts: &[Facts]) -> Self {
        let parts = places.iter().zip(facts).map(|(place, facts)| Part::new(place, facts)).collect();
        Self { format: FORMAT, parts }
    }

    /// Reads the ledger of an unfinished file; none where it can't be that file's.
    pub fn read(path: &Path, part: &Path) -> Option<Self> {
        let mut text = Vec::new();
        file::open_regular(path).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
        let ledger: Self = serde_json::from_slice(&text).ok()?;
        let is_sound = ledger.format == FORMAT
            && (1..=MAX_PARTS).contains(&ledger.parts.len())
            && ledger.parts.iter().all(Part::is_sound);
        let found = fs::metadata(part).ok()?;
        (is_sound && found.is_file() && ledger.total() == Some(found.len())).then_some(ledger)
    }

    /// Writes it, wholly or not at all.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    }

    /// Bytes of all parts, if they are a number.
    pub fn total(&self) -> Option<u64> {
        self.parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.bytes))
    }

    /// Bytes that are here.
    pub fn done(&self) -> u64 {
        self.parts.iter().flat_map(|part| &part.done).sum()
    }

    /// Whether the rest can be fetched as `now` says.
    pub fn goes_on_with(&self, now: &Self) -> bool {
        self.parts.len() == now.parts.len()
            && self.parts.iter().zip(&now.parts).all(|(part, now)| part.goes_on_with(now))
    }

    /// The first part that is from where it was, and of another version than it was.
    pub fn changed_since<'l>(&self, earlier: &'l Self) -> Option<&'l str> {
        let is_changed = |(part, before): &(&Part, &'l Part)| part.url == before.url && !before.goes_on_with(part);
        self.parts.iter().zip(&earlier.parts).find(is_changed).map(|(_, before)| &before.url[..])
    }

    /// All chunks that are not whole.
    pub fn jobs(&self) -> Vec<Job> {
        let (mut jobs, mut part_start) = (Vec::new(), 0);
        for (part, held) in self.parts.iter().enumerate() {
            let open = (0..held.done.len()).filter(|chunk| held.done[*chunk] < held.len(*chunk));
            jobs.extend(open.map(|chunk| Job { part, chunk, part_start }));
            part_start += held.bytes;
        }
        jobs
    }

    /// What of a chunk is missing: bytes of its part.
    pub fn missing(&self, job: &Job) -> Range<u64> {
        let part = &self.parts[job.part];
        let chunk = part.chunk(job.chunk);
        chunk.start + part.done[job.chunk]..chunk.end
    }

    /// So many bytes more of a chunk are here.
    pub fn add(&mut self, job: &Job, bytes: u64) {
        self.parts[job.part].done[job.chunk] += bytes;
    }

    /// Nothing of a chunk is here.
    pub fn clear(&mut self, job: &Job) {
        self.parts[job.part].done[job.chunk] = 0;
    }

    /// What there is to be said of the whole file.
    pub fn got(&self) -> Vec<Got> {
        let got = |part: &Part| Got { url: part.url.clone(), bytes: part.bytes, version: part.version.clone() };
        self.parts.iter().map(got).collect()
    }
}

/// A file that is being written, and its ledger.
pub fn sync(file: &File, ledger: &Ledger, path: &Path) -> io::Result<()> {
    // In this order: what is said to be here is here after a power cut, too.
    file.sync_data()?;
    ledger.write(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(bytes: u64, version: &str) -> Facts {
        Facts { bytes, version: Some(version.into()), has_ranges: true }
    }

    fn places(count: usize) -> Vec<Place> {
        (0..count).map(|index| format!("http://box/{index}").parse().unwrap()).collect()
    }

    #[test]
    fn chunks_cover_all_parts_once_and_what_is_done_is_no_job() {
        let sizes = [0, 1, (1 << 20) + 1, 300 << 20];
        let facts: Vec<_> = sizes.iter().map(|bytes| facts(*bytes, "v")).collect();
        let mut ledger = Ledger::new(&places(4), &facts);
        let mut end = 0;
        for job in ledger.jobs() {
            let missing = ledger.missing(&job);
            assert_eq!(job.part_start + missing.start, end);
            end = job.part_start + missing.end;
            ledger.add(&job, missing.end - missing.start - 1);
            assert_eq!(ledger.missing(&job), missing.end - 1..missing.end);
            ledger.add(&job, 1);
        }
        assert_eq!((Some(end), ledger.done()), (ledger.total(), end));
        assert_eq!(ledger.jobs(), []);
        assert!(Ledger::new(&places(1), &[Facts { has_ranges: false, ..facts[3].clone() }]).jobs().len() == 1);
    }

    #[test]
    fn a_ledger_that_fits_no_file_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("l"), folder.path().join("p"));
        let ledger = Ledger::new(&places(2), &[facts(5, "v"), facts(7, "v")]);
        ledger.write(&path).unwrap();
        assert_eq!(Ledger::read(&path, &part), None, "there is no file");
        File::create(&part).unwrap().set_len(12).unwrap();
        assert_eq!(Ledger::read(&path, &part).as_ref(), Some(&ledger));
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("\"bytes\":5", "\"bytes\":6"),
            ("\"bytes\":5", "\"bytes\":18446744073709551615"),
            ("\"chunk_bytes\":1048576", "\"chunk_bytes\":0"),
            ("\"chunk_bytes\":1048576", "\"chunk_bytes\":1"),
            ("\"done\":[0]", "\"done\":[6]"),
            ("\"done\":[0]", "\"done\":[]"),
            ("}", ""),
        ] {
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert_eq!(Ledger::read(&path, &part), None, "{to}");
        }
    }

    #[test]
    fn only_the_same_version_goes_on() {
        let now = Ledger::new(&places(1), &[facts(5, "v")]);
        assert!(now.goes_on_with(&now) && now.changed_since(&now).is_none());
        let other = Ledger::new(&places(1), &[facts(5, "w")]);
        assert!(!other.goes_on_with(&now));
        assert_eq!(now.changed_since(&other), Some("http://box/0"));
        let unknown = Ledger::new(&places(1), &[Facts { bytes: 5, version: None, has_ranges: true }]);
        assert!(!unknown.goes_on_with(&unknown), "nobody knows");
        assert!(!now.goes_on_with(&Ledger::new(&places(2), &[facts(5, "v"), facts(5, "v")])));
    }
}
