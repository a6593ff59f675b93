//! The files of a model, one after the other: kept where they are what they were, fetched where not, and looked at.

use super::{Done, Work};
use crate::chat::tokenizer::TokenizerBytes;
use crate::cli::{Failure, interrupt, list, progress};
use crate::client::download::{self, DownloadError, Event, Wanted};
use crate::machine::{cpu, terminal};
use crate::model::cache::FileState;
use crate::model::store::{FileRecord, PartRecord, Record};
use crate::model::{Model, convert, digest};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

impl Work<'_> {
    fn say(&self, line: impl std::fmt::Display) {
        if !self.args.quiet {
            terminal::note(line);
        }
    }

    /// All of it; `record` is what is kept of an earlier pull.
    pub fn run(&self, record: Option<Record>) -> Result<Done, Failure> {
        let licence = self.what.entry.map(|entry| format!("{}, {}", entry.licence.name, entry.licence.url));
        let mut record =
            record.unwrap_or_else(|| Record::new(&self.what.name, self.what.source.clone(), licence.clone()));
        let mut is_new = false;
        for file in &self.what.files {
            if self.is_whole(&record, &file.name)? {
                continue;
            }
            if !is_new {
                is_new = true;
                self.announce(licence.as_deref());
                // From now on it is not complete, whatever happens.
                if std::mem::take(&mut record.is_complete) {
                    self.held.keep(&record)?;
                }
            }
            let parts = self.fetch(file)?;
            let found = self.digest(&file.name)?;
            self.check_digest(&record, file, &found)?;
            record.put(FileRecord { name: file.name.clone(), parts, ..found });
            record.source.clone_from(&self.what.source);
            self.held.keep(&record)?;
        }
        let model = self.look()?;
        if !record.is_complete {
            record.is_complete = true;
            record.pulled_unix_s =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            self.held.keep(&record)?;
        }
        Ok(Done { record, is_new, model })
    }

    /// Says what is fetched and on which terms, before anything is.
    fn announce(&self, licence: Option<&str>) {
        let (name, source) = (&self.what.name, &self.what.source);
        match self.what.entry {
            Some(entry) => self.say(format_args!("{name}: about {} from {source}", list::size(entry.bytes))),
            None => self.say(format_args!("{name}: from {source}")),
        }
        self.say(format_args!("licence: {}", licence.unwrap_or("not known here; look where it is published")));
    }

    /// Whether a file is here and is what it was when it was fetched. One that is damaged is removed.
    fn is_whole(&self, record: &Record, name: &str) -> Result<bool, Failure> {
        let path = self.held.path(name);
        let (Some(known), Ok(_)) = (record.file(name), FileState::of(&path)) else { return Ok(false) };
        if self.digest(name)?.blake3 == known.blake3 {
            return Ok(true);
        }
        self.say(format_args!("{} is damaged: not what was fetched; it is fetched again", path.display()));
        std::fs::remove_file(&path).map_err(|error| format!("can't remove {}: {error}", path.display()))?;
        Ok(false)
    }

    /// Size and checksum of a file here.
    fn digest(&self, name: &str) -> Result<FileRecord, Failure> {
        let path = self.held.path(name);
        let failed = |error: std::io::Error| Failure::Line(format!("cannot read {}: {error}", path.display()));
        let state = FileState::of(&path).map_err(failed)?;
        let bar = progress::bar(self.args.quiet || self.args.json);
        bar.set_length(state.bytes);
        // From the disk, whatever was known before.
        let digest = digest::digest_of(&path, &state, None, cpu::threads(), &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        let blake3 = super::table::hex(&digest.map_err(failed)?);
        Ok(FileRecord { name: name.to_owned(), bytes: state.bytes, blake3, parts: Vec::new() })
    }

    /// What was fetched must be what was fetched the first time, or what is known to everybody.
    fn check_digest(&self, record: &Record, file: &super::what::File, found: &FileRecord) -> Result<(), Failure> {
        let first = record.file(&file.name).map(|first| &first.blake3[..]);
        let Some(wanted) = first.or(file.blake3).filter(|wanted| *wanted != found.blake3) else { return Ok(()) };
        let path = self.held.path(&file.name);
        let _ = std::fs::remove_file(&path);
        let name = &self.what.name;
        let whose = if first.is_some() {
            format!("of its first download; if it was changed on purpose, dair rm {name} comes first")
        } else {
            "that is known".to_owned()
        };
        let (url, found) = (&file.parts[0], &found.blake3);
        Err(format!("{url}: another file than expected: BLAKE3 {found}, not {wanted}, {whose}").into())
    }

    fn fetch(&self, file: &super::what::File) -> Result<Vec<PartRecord>, Failure> {
        let path = self.held.path(&file.name);
        let bar = progress::bar(self.args.quiet || self.args.json);
        let mut is_first = true;
        let mut watch = |event: Event<'_>| {
            match event {
                Event::Progress { done, total } => {
                    if std::mem::take(&mut is_first) && done > 0 {
                        let line =
                            format!("{}: {} of {} are here already", file.name, list::size(done), list::size(total));
                        bar.suspend(|| self.say(line));
                        bar.reset_eta();
                    }
                    bar.set_length(total);
                    bar.set_position(done);
                }
                Event::Again { url, why, pause } => {
                    let line = format!("{url}: {why}; asking again in {} s", pause.as_secs());
                    bar.suspend(|| self.say(line));
                }
                Event::Changed(url) => {
                    is_first = true;
                    let line = format!("{url} is not what it was: all of it is fetched anew");
                    bar.suspend(|| self.say(line));
                }
            }
            if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let wanted = Wanted { parts: &file.parts, to: &path, connections: self.args.connections };
        // What has come is recorded before the process ends; anything else here may end at once.
        interrupt::catch();
        let got = download::fetch(&wanted, self.client, &mut watch);
        interrupt::release();
        bar.finish_and_clear();
        let got = got.map_err(|error| match error {
            DownloadError::Interrupted => Failure::Interrupted,
            error => Failure::Line(error.to_string()),
        })?;
        Ok(got.into_iter().map(|part| PartRecord { url: part.url, bytes: part.bytes, version: part.version }).collect())
    }

    /// Whether it is a model, and the tokenizer belongs to it: what is none is removed, so that the next pull fetches it again.
    fn look(&self) -> Result<PathBuf, Failure> {
        let path = |index: usize| self.held.path(&self.what.files[index].name);
        let last = path(self.what.files.len() - 1);
        let (model, result) = if last.extension().is_some_and(|ending| ending == "m") {
            let result = open(&last, &path(0));
            (last, result)
        } else {
            let first = path(0);
            let result = convert::check(&first).map(drop).map_err(Failure::from);
            (first, result)
        };
        let Err(failure) = result else { return Ok(model) };
        for file in &self.what.files {
            let _ = std::fs::remove_file(self.held.path(&file.name));
        }
        self.held.forget_record();
        Err(format!("what {} sent is of no use, and was removed: {failure}", self.what.source).into())
    }
}

fn open(model: &Path, tokenizer: &Path) -> Result<(), Failure> {
    let model = Model::open(model)?;
    TokenizerBytes::open(tokenizer)?.tokenizer(Some(model.header().vocab_size))?;
    Ok(())
}
