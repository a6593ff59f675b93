//! What is measured of this machine once and then known: how fast it multiplies, and how fast it reads a disk.
//!
//! ```text
//! CACHE/machine/NAME.json     NAME hashes what was measured on what; the file says both and the result
//! ```
//! A figure holds for one version of this program on one processor with as many threads, the same instruction set and the same limits
//! of its time; another one is measured anew. A cache that can't be read or written costs time and nothing else.

use crate::machine::pool::Threads;
use crate::machine::{cpu, cpu_name, disk, speed};
use crate::model::cache;
use dair_core::io::Pool;
use dair_core::kernels::Kernels;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// More than a record has.
const RECORD_MAX_BYTES: u64 = 64 << 10;

/// Whether what was measured before counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Before {
    /// It does.
    #[default]
    Counts,
    /// It is measured again, and the new figure is kept.
    Forgotten,
}

/// What a figure belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Subject {
    /// Products of one token.
    Speed { dair: String, processor: String, processors: usize, quotas: String, threads: usize, isa: String },
    /// Reading files of a device.
    Disk { dair: String, device: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    subject: Subject,
    bytes_per_s: f64,
}

/// Bytes of weights per second that `pool` multiplies with one token ([`speed::bytes_per_s`]): as it was measured once.
///
/// # Errors
/// As the measurement.
pub fn speed(pool: &Threads, kernels: Kernels, before: Before) -> io::Result<f64> {
    let subject = Subject::Speed {
        dair: env!("CARGO_PKG_VERSION").to_owned(),
        processor: cpu_name::detect(),
        processors: cpu::processors(),
        quotas: cpu::quotas(),
        threads: pool.lanes(),
        isa: kernels.isa().name().to_owned(),
    };
    known_or(folder().as_deref(), subject, before, || speed::bytes_per_s(pool, kernels))
}

/// Bytes per second that the disk of `file` is read with ([`disk::read_bytes_per_s`]), 0 where the file is too small to tell: as
/// it was measured once for the device.
///
/// # Errors
/// Where the file can't be read.
pub fn disk_bytes_per_s(file: &Path, before: Before) -> io::Result<f64> {
    let subject = Subject::Disk { dair: env!("CARGO_PKG_VERSION").to_owned(), device: fs::metadata(file)?.dev() };
    known_or(folder().as_deref(), subject, before, || Ok(disk::read_bytes_per_s(file)?.unwrap_or(0.0)))
}

/// Where figures are kept, if anywhere.
fn folder() -> Option<PathBuf> {
    cache::folder_of_user().ok().map(|folder| folder.join("machine"))
}

fn known_or(
    folder: Option<&Path>,
    subject: Subject,
    before: Before,
    measure: impl FnOnce() -> io::Result<f64>,
) -> io::Result<f64> {
    let path = folder.map(|folder| folder.join(name(&subject)));
    let known = path.as_deref().filter(|_| before == Before::Counts).and_then(|path| read(path, &subject));
    if let Some(known) = known {
        return Ok(known);
    }
    let bytes_per_s = measure()?;
    if let (Some(path), true) = (path, is_figure(bytes_per_s)) {
        // Without it, the next start measures again.
        let _ = write(&path, &Record { subject, bytes_per_s });
    }
    Ok(bytes_per_s)
}

fn is_figure(bytes_per_s: f64) -> bool {
    bytes_per_s.is_finite() && bytes_per_s > 0.0
}

fn name(subject: &Subject) -> String {
    let hash = blake3::hash(format!("{subject:?}").as_bytes()).to_hex();
    format!("{}.json", &hash[..16])
}

fn read(path: &Path, subject: &Subject) -> Option<f64> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(RECORD_MAX_BYTES).read_to_end(&mut text).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.subject == *subject && is_figure(record.bytes_per_s)).then_some(record.bytes_per_s)
}

/// Under its name when it is complete.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_figure_is_measured_once_for_each_subject_until_it_is_forgotten_or_broken() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("not/yet/there");
        let times = Cell::new(0u32);
        let ask = |folder: Option<&Path>, device, before| {
            let measure = || {
                times.set(times.get() + 1);
                Ok(f64::from(times.get()))
            };
            known_or(folder, Subject::Disk { dair: "1".into(), device }, before, measure).unwrap()
        };
        assert_eq!([1, 1, 2, 1].map(|device| ask(Some(&inner), device, Before::Counts)), [1.0, 1.0, 2.0, 1.0]);
        assert_eq!(ask(Some(&inner), 1, Before::Forgotten), 3.0);
        assert_eq!(ask(Some(&inner), 1, Before::Counts), 3.0);
        for entry in fs::read_dir(&inner).unwrap() {
            fs::write(entry.unwrap().path(), "{}").unwrap();
        }
        assert_eq!([1, 1].map(|device| ask(Some(&inner), device, Before::Counts)), [4.0, 4.0]);
        // No cache, or none that can be written.
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!([None, Some(&*file)].map(|folder| ask(folder, 1, Before::Counts)), [5.0, 6.0]);
    }

    #[test]
    fn a_figure_that_is_none_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let subject = || Subject::Disk { dair: "1".into(), device: 1 };
        for value in [0.0, f64::INFINITY, f64::NAN] {
            known_or(Some(folder.path()), subject(), Before::Counts, || Ok(value)).unwrap();
        }
        assert_eq!(known_or(Some(folder.path()), subject(), Before::Counts, || Ok(1.0)).unwrap(), 1.0);
    }
}
