//! From what a user gives as `--model` to the files that are opened: a name leads to what was pulled under it; a GGUF file or a
//! Hugging Face folder is converted once.

use super::{Failure, interrupt, progress};
use crate::chat::tokenizer::Tokenizer;
use crate::machine::terminal;
use crate::model::cache::{Cache, Entry, Event};
use crate::model::catalogue;
use crate::model::convert::Progress;
use crate::model::kind::FileKind;
use crate::model::store::{Name, Store};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A model and the tokenizer that belongs to it.
#[derive(Debug)]
pub struct ModelFiles {
    /// The `.m` file.
    pub model: PathBuf,
    /// The `.t` file.
    pub tokenizer: PathBuf,
    /// Keeps both in the cache.
    _in_use: Option<Entry>,
}

/// Says where the tokens of a text are not surely those that the model was trained on.
pub fn note_rule(tokenizer: &Tokenizer<'_>, path: &Path, quiet: bool) {
    if tokenizer.pipeline().is_none() && !quiet {
        let path = path.display();
        terminal::note(format_args!(
            "{path} does not say how the model's own tokenizer cuts text: tokens by the rule of Distributed-Llama; dair convert makes one that does"
        ));
    }
}

/// The model that was pulled under this name; none where it is the path of a file, or no name. Nothing is fetched here.
///
/// # Errors
/// Where a model of this name can be pulled, or is not whole: what to do about it.
pub fn pulled(model: &Path) -> Result<Option<PathBuf>, String> {
    // A file of that name wins.
    if model.symlink_metadata().is_ok() {
        return Ok(None);
    }
    let text = model.to_str().unwrap_or_default();
    let entry = catalogue::find(text);
    let Ok(name) = Name::new(entry.map_or(text, |entry| entry.name)) else { return Ok(None) };
    let found = Store::of_user().ok().and_then(|store| store.find(&name));
    match (found, entry) {
        (Some(found), _) => match found.model() {
            Some(path) => Ok(Some(path)),
            None => {
                // The URL of what is not in the catalogue.
                let source = found.record.map(|record| record.source).filter(|_| entry.is_none());
                let what = source.map_or(name.to_string(), |source| format!("{source} --name {name}"));
                Err(format!("{name} is not complete; dair pull {what} goes on with it"))
            }
        },
        (None, Some(entry)) => {
            let gb = entry.bytes as f64 / 1e9;
            Err(format!("{name} is not here; dair pull {name} gets it ({gb:.1} GB, {})", entry.licence.name))
        }
        (None, None) => Ok(None),
    }
}

impl ModelFiles {
    /// The files that `model` stands for: itself and its neighbour, or those that it was converted to, now or at another time.
    /// Says so on standard error, unless it is to be `quiet`.
    ///
    /// # Errors
    /// As a conversion, and as [`pulled`]. Whatever else is no model is left to who opens it.
    pub fn of(model: &Path, quiet: bool) -> Result<Self, Failure> {
        let pulled = pulled(model)?;
        let model = pulled.as_deref().unwrap_or(model);
        let is_source = model.is_dir() || FileKind::read(model).is_ok_and(|kind| kind == FileKind::Gguf);
        if !is_source {
            return Ok(Self { model: model.into(), tokenizer: model.with_extension("t"), _in_use: None });
        }
        let cache = Cache::of_user()?;
        let bar = progress::bar(quiet);
        let mut is_told = false;
        let say = |line: String| {
            if !quiet {
                terminal::note(line);
            }
        };
        interrupt::catch();
        let entry = cache.converted(model, &mut |event| {
            match event {
                Event::Waiting if !is_told => {
                    is_told = true;
                    say(format!("waiting for another process that converts {}", model.display()));
                }
                Event::Waiting => {}
                Event::Converting(folder) => {
                    say(format!("converting {}, this once; kept in {}", model.display(), folder.display()));
                }
                Event::Progress(Progress { done_bytes, total_bytes }) => {
                    bar.set_length(total_bytes);
                    bar.set_position(done_bytes);
                }
            }
            if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        interrupt::release();
        let entry = entry?;
        for note in &entry.notes {
            say(format!("note: {note}"));
        }
        Ok(Self { model: entry.model.clone(), tokenizer: entry.tokenizer.clone(), _in_use: Some(entry) })
    }
}
