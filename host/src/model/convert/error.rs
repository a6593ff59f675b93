//! Why a conversion was refused or failed.

use super::gguf::GgufError;
use crate::model::kind::FileKind;
use dair_core::format::{HeaderError, LayoutError};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a conversion was refused or failed. Nothing is left under the names of the output then.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConvertError {
    /// The operating system refused something.
    Io {
        /// What was attempted, as "read" or "create".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of another kind than was expected.
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// A GGUF file that breaks the format.
    Gguf {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// A JSON file that breaks the format.
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// A value, tensor or token that can't be carried over.
    Refused {
        /// Which file.
        path: PathBuf,
        /// Key, tensor or token.
        field: String,
        /// What it is.
        found: String,
        /// What it may be, or what to do.
        allowed: String,
    },
    /// Something without which a model can't be made.
    Missing {
        /// Which file or folder.
        path: PathBuf,
        /// Key, tensor or file.
        field: String,
    },
    /// The model does not fit the header of a `.m` file.
    Header {
        /// Which model.
        path: PathBuf,
        /// What is wrong.
        source: HeaderError,
    },
    /// The model does not fit the layout of a `.m` file.
    Layout {
        /// Which model.
        path: PathBuf,
        /// What is wrong.
        source: LayoutError,
    },
    /// The output is there already.
    Exists(PathBuf),
    /// The output would replace a file that is being read.
    SameFile(PathBuf),
    /// Somebody else writes this file.
    Busy(PathBuf),
    /// Model and tokenizer would have the same name.
    SameNames(PathBuf),
    /// The output does not fit the disk.
    DiskSpace {
        /// Where it was to be written.
        path: PathBuf,
        /// Bytes that the output takes.
        needed: u64,
        /// Bytes there are.
        free: u64,
    },
    /// The progress callback asked for an end.
    Interrupted,
}

impl ConvertError {
    /// Wraps an error of the operating system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A GGUF file that breaks the format.
    pub(crate) fn gguf(path: &Path, source: GgufError) -> Self {
        Self::Gguf { path: path.to_owned(), source }
    }

    /// A value that can't be carried over.
    pub(crate) fn refused(
        path: &Path,
        field: impl Into<String>,
        found: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Refused { path: path.to_owned(), field: field.into(), found: found.to_string(), allowed: allowed.into() }
    }

    /// The model does not fit a header.
    pub(crate) fn header(path: &Path) -> impl FnOnce(HeaderError) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Header { path, source }
    }

    /// The model does not fit a layout.
    pub(crate) fn layout(path: &Path) -> impl FnOnce(LayoutError) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Layout { path, source }
    }

    /// Something is absent.
    pub(crate) fn missing(path: &Path, field: impl Into<String>) -> Self {
        Self::Missing { path: path.to_owned(), field: field.into() }
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, source } => write!(f, "can't {action} {}: {source}", path.display()),
            Self::Kind { path, kind } => write!(f, "{} is {}", path.display(), kind.advice(path)),
            Self::Gguf { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Json { path, source } => {
                write!(f, "{}: not the JSON expected: {}", path.display(), OneLine(&source.to_string()))
            }
            Self::Refused { path, field, found, allowed } => {
                write!(f, "{}: {} is {}; {allowed}", path.display(), OneLine(field), OneLine(found))
            }
            Self::Missing { path, field } => write!(f, "{}: {} is missing", path.display(), OneLine(field)),
            Self::Header { path, source } => write!(f, "{}: as a {source}", path.display()),
            Self::Layout { path, source } => write!(f, "{}: as a {source}", path.display()),
            Self::Exists(path) => {
                write!(f, "{} is there already; choose another name, or --force to replace it", path.display())
            }
            Self::SameFile(path) => {
                write!(f, "{} is the model to be read; choose another name for the output", path.display())
            }
            Self::Busy(path) => write!(f, "{} is being written by another conversion; wait for it", path.display()),
            Self::SameNames(path) => {
                write!(f, "model and tokenizer would both be {}; name the tokenizer with --tokenizer", path.display())
            }
            Self::DiskSpace { path, needed, free } => write!(
                f,
                "the output takes {needed} bytes, the disk of {} has {free} left; free {} bytes or choose smaller weights",
                path.display(),
                needed - free
            ),
            Self::Interrupted => f.write_str("interrupted; nothing was written"),
        }
    }
}

impl std::error::Error for ConvertError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Gguf { source, .. } => Some(source),
            Self::Json { source, .. } => Some(source),
            Self::Header { source, .. } => Some(source),
            Self::Layout { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Text out of a file, fit for a terminal: control characters escaped, cut after [`OneLine::MAX_CHARS`].
pub(crate) struct OneLine<'a>(pub &'a str);

impl OneLine<'_> {
    const MAX_CHARS: usize = 200;
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(Self::MAX_CHARS) {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        if self.0.chars().nth(Self::MAX_CHARS).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_out_of_files_cannot_break_the_line_or_talk_to_the_terminal() {
        let error = ConvertError::refused("in".as_ref(), "a\nb", "\u{1b}[2J", "fine");
        assert_eq!(error.to_string(), r"in: a\nb is \u{1b}[2J; fine");
        let error = ConvertError::missing("in".as_ref(), "é".repeat(10_000));
        assert_eq!(error.to_string(), format!("in: {}… is missing", "é".repeat(200)));
    }
}
