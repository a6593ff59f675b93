//! Why there is no converted model.

use super::VARIABLE;
use crate::model::convert::ConvertError;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why there is no converted model.
#[derive(Debug)]
#[non_exhaustive]
pub enum CacheError {
    /// The user has no folder for it.
    NoHome,
    /// The cache can't be read or written.
    Io {
        /// What was attempted, as "create".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The model can't be converted.
    Convert(Box<ConvertError>),
    /// The converted model can't be written to the cache.
    Output {
        /// What is being converted.
        source: PathBuf,
        /// Why not.
        error: Box<ConvertError>,
    },
    /// The source changed during the conversion.
    Changed(PathBuf),
}

impl CacheError {
    /// Wraps an error of the operating system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Tells what is wrong with the cache in `folder` from what is wrong with the model.
    pub(super) fn converting(source: &Path, folder: &Path, error: ConvertError) -> Self {
        let is_ours = match &error {
            ConvertError::DiskSpace { .. } => true,
            ConvertError::Io { path, .. } => path.starts_with(folder),
            _ => false,
        };
        if is_ours { Self::Output { source: source.to_owned(), error: Box::new(error) } } else { error.into() }
    }
}

impl From<ConvertError> for CacheError {
    fn from(error: ConvertError) -> Self {
        Self::Convert(Box::new(error))
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => write!(
                f,
                "there is no home folder to keep the converted model in; name one by {VARIABLE}, or convert it by `dair convert`"
            ),
            Self::Io { action, path, source } => write!(
                f,
                "can't {action} {}: {source}; name another folder for converted models by {VARIABLE}, or convert it by \
                 `dair convert`",
                path.display()
            ),
            Self::Convert(error) => error.fmt(f),
            Self::Output { source, error } => write!(
                f,
                "{error}; name another folder for converted models by {VARIABLE}, or one file by `dair convert {} OUT.m`",
                source.display()
            ),
            Self::Changed(source) => {
                write!(f, "{} changed while it was converted; start again when it is complete", source.display())
            }
        }
    }
}

impl std::error::Error for CacheError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Convert(error) | Self::Output { error, .. } => Some(error),
            Self::NoHome | Self::Changed(_) => None,
        }
    }
}
