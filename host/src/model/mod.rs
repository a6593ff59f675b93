//! A model file, opened and checked; [`convert`] makes them from published ones, [`cache`] keeps those that were made on the way,
//! [`store`] those that were pulled, out of a [`catalogue`] or from elsewhere.

pub mod alphabet;
pub mod cache;
pub mod catalogue;
pub mod convert;
pub mod digest;
pub mod fingerprint;
pub mod identity;
pub mod kind;
mod padding;
pub mod store;

pub use padding::{is_padding, max_padding};

use crate::storage::MappedFile;
use dair_core::format::model::PREFIX_BYTES;
use dair_core::format::{Header, HeaderError, Layout, LayoutError};
use kind::{FileKind, HEAD_BYTES};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// A mapped `.m` file whose header and size have been checked.
#[derive(Debug)]
pub struct Model {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub file: MappedFile,
    /// Where its tensors are.
    pub layout: Layout,
}

/// Why a model can't be opened.
#[derive(Debug)]
pub enum ModelError {
    /// The system refuses.
    Open(PathBuf, io::Error),
    /// It is a file of another kind.
    Kind(PathBuf, FileKind),
    /// The header is wrong.
    Header(PathBuf, HeaderError),
    /// The tensors do not fit the file.
    Layout(PathBuf, LayoutError),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, error) => write!(f, "cannot open the model {}: {error}", path.display()),
            Self::Kind(path, kind) => write!(f, "{} is {}", path.display(), kind.advice(path)),
            Self::Header(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Layout(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ModelError {}

impl Model {
    /// Maps the file, reads its header and compares its size with what the header demands.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = MappedFile::open(path).map_err(|error| ModelError::Open(path.into(), error))?;
        match FileKind::of(&file[..file.len().min(HEAD_BYTES)]) {
            FileKind::Model => {}
            // Too short for its kind to show: the header says how much is missing.
            FileKind::Unknown if file.len() < PREFIX_BYTES => {}
            other => return Err(ModelError::Kind(path.into(), other)),
        }
        let header = Header::parse(&file).map_err(|error| ModelError::Header(path.into(), error))?;
        let layout = Layout::new(&header).map_err(|error| ModelError::Layout(path.into(), error))?;
        layout.check_file(file.len() as u64).map_err(|error| ModelError::Layout(path.into(), error))?;
        Ok(Self { path: path.into(), file, layout })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        self.layout.header()
    }
}
