//! Conversions of models of which one file is the input.

use dair_core::format::tokenizer::TokenizerFile;
use dair_core::format::{Header, Layout};
use dair_core::text::{EncodeOptions, Vocabulary};
use dair_host::chat::tokenizer::Tokenizer;
use dair_host::model::convert::{Options, convert};
use dair_tests::published;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A place for an input and what is made of it.
pub struct Place {
    folder: TempDir,
    /// What is converted.
    pub input: PathBuf,
}

impl Place {
    /// An empty one, for a file of this name.
    pub fn file(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let input = folder.path().join(name);
        Self { folder, input }
    }

    /// A small Hugging Face folder, without these files.
    pub fn hugging_face(without: &[&str]) -> Self {
        let place = Self::file("model");
        fs::create_dir(&place.input).expect("a folder for the model");
        published::small_folder().write(&place.input, 1);
        for name in without {
            fs::remove_file(place.input.join(name)).expect("a file of the model");
        }
        place
    }

    /// Puts a file into the folder that is converted.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.input.join(name), bytes).expect("room for the input");
    }

    /// Converts. What is made is read again, with everything checked; what is refused is refused in one line.
    pub fn convert(&self) {
        let model = self.folder.path().join("out.m");
        let options =
            Options { input: self.input.clone(), model, tokenizer: None, weights: None, force: true, lanes: 1 };
        match convert(&options, &mut |_| ControlFlow::Continue(())) {
            Ok(summary) => {
                check_model(&summary.model);
                check_tokenizer(&summary.tokenizer);
            }
            Err(error) => {
                let line = error.to_string();
                assert!(!line.contains('\n'), "{line}");
            }
        }
    }
}

fn check_model(path: &Path) {
    let bytes = fs::read(path).expect("the model that was made");
    let header = Header::parse(&bytes).expect("a header that was written");
    let layout = Layout::new(&header).expect("a layout of a header that was written");
    layout.check_file(bytes.len() as u64).expect("a file of the size that its header says");
}

fn check_tokenizer(path: &Path) {
    let bytes = fs::read(path).expect("the tokenizer that was made");
    let file = TokenizerFile::parse(&bytes).expect("a tokenizer that was written");
    let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
    let Ok(tokenizer) = Tokenizer::new(&file, &mut index) else { return };
    if let Ok(ids) = tokenizer.encode(b" ab\n", EncodeOptions { start: true, special: true }) {
        assert!(ids.iter().all(|id| *id < file.header().vocab_size), "{ids:?}");
        tokenizer.decode_text(&ids);
    }
}
