//! A small model and its tokenizer in a folder of their own.

use dair_core::format::Header;
use dair_host::synthetic;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `m.m` and `m.t` in a folder that goes away with this.
pub struct Files {
    folder: TempDir,
    /// The model.
    pub model: String,
    /// Its tokenizer.
    pub tokenizer: String,
}

impl Files {
    /// Files of the shape called `preset`.
    pub fn new(preset: &str, seed: u64) -> Self {
        Self::with(&header(preset), seed)
    }

    /// Files of any shape.
    pub fn with(header: &Header, seed: u64) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = |name| text(&folder.path().join(name));
        let (model, tokenizer) = (path("m.m"), path("m.t"));
        synthetic::write_model(model.as_ref(), header, seed).expect("a model");
        synthetic::write_tokenizer(tokenizer.as_ref(), header.vocab_size).expect("a tokenizer");
        Self { folder, model, tokenizer }
    }

    /// Path of a file beside them.
    pub fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    /// Writes a file beside them.
    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// Names of all files in the folder.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("the folder");
        let mut names: Vec<_> = entries.map(|entry| text(Path::new(&entry.expect("an entry").file_name()))).collect();
        names.sort();
        names
    }
}

/// The header called `name`.
pub fn header(name: &str) -> Header {
    synthetic::preset(name).unwrap_or_else(|| panic!("no shape {name}"))
}

fn text(path: &Path) -> String {
    PathBuf::from(path).into_os_string().into_string().expect("UTF-8")
}
