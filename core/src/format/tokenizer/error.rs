//! Why a tokenizer file is refused.

use core::fmt;

/// A tokenizer file that can't be used: which field, what was found, what is allowed, at which byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenizerError {
    /// The file begins with neither magic number.
    Magic {
        /// First four bytes, little-endian.
        found: u32,
    },
    /// More bytes than any tokenizer has.
    FileTooLarge {
        /// Length of the file.
        bytes: usize,
    },
    /// The file ends inside a field.
    Truncated {
        /// The field.
        field: &'static str,
        /// Where the field begins.
        offset: usize,
        /// Bytes the field takes.
        needed: usize,
        /// Bytes there are from there on.
        available: usize,
    },
    /// A number outside its range.
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Where it stands.
        offset: usize,
        /// Its value.
        found: i64,
        /// Smallest allowed value.
        min: i64,
        /// Largest allowed value.
        max: i64,
    },
    /// A key that has no meaning.
    UnknownKey {
        /// The key.
        key: i32,
        /// Where it stands.
        offset: usize,
    },
    /// A key that every file has to carry is not there.
    MissingKey {
        /// What it stands for.
        field: &'static str,
        /// The key.
        key: i32,
    },
    /// The chat template is not UTF-8.
    TemplateNotUtf8 {
        /// Where the first bad byte stands.
        offset: usize,
    },
    /// A token of a length that is not allowed.
    TokenLength {
        /// The token.
        id: u32,
        /// Where its length stands.
        offset: usize,
        /// The length found.
        found: i32,
        /// Largest allowed length, in bytes.
        max: u32,
    },
    /// The score of a token is not a finite number.
    Score {
        /// The token.
        id: u32,
        /// Where the score stands.
        offset: usize,
        /// The score.
        found: f32,
    },
    /// A part of the description of how text is cut.
    Pipeline {
        /// The part.
        field: &'static str,
        /// Where it stands.
        offset: usize,
    },
    /// The description of how text is cut is of another version.
    PipelineVersion {
        /// The version.
        found: u32,
    },
    /// Bytes follow the last token.
    TrailingBytes {
        /// Where they begin.
        offset: usize,
        /// How many there are.
        extra: usize,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic { found } => write!(
                f,
                "not a tokenizer file: it begins with {found:#010x}, allowed are {:#010x} and {:#010x}",
                super::MAGIC,
                super::MAGIC_OLD
            ),
            Self::FileTooLarge { bytes } => {
                write!(f, "tokenizer file has {bytes} bytes, allowed are at most {}", super::MAX_FILE_BYTES)
            }
            Self::Truncated { field, offset, needed, available } => write!(
                f,
                "tokenizer file ends too early: {field} at byte {offset} takes {needed} bytes, {available} are left"
            ),
            Self::OutOfRange { field, offset, found, min, max } => {
                write!(f, "tokenizer file: {field} at byte {offset} is {found}, allowed are {min} to {max}")
            }
            Self::UnknownKey { key, offset } => {
                write!(f, "tokenizer file: unknown header key {key} at byte {offset}, allowed are 0 to 10")
            }
            Self::MissingKey { field, key } => write!(f, "tokenizer file: header lacks {field} (key {key})"),
            Self::TemplateNotUtf8 { offset } => {
                write!(f, "tokenizer file: chat template is not UTF-8 at byte {offset}")
            }
            Self::TokenLength { id, offset, found, max } => write!(
                f,
                "tokenizer file: length of token {id} at byte {offset} is {found}, allowed are 1 to {max} bytes"
            ),
            Self::Score { id, offset, found } => {
                write!(f, "tokenizer file: score of token {id} at byte {offset} is {found}, allowed are finite numbers")
            }
            Self::Pipeline { field, offset } => write!(
                f,
                "tokenizer file: {field} at byte {offset}, behind the tokens, is broken; make the file again with dair convert"
            ),
            Self::PipelineVersion { found } => write!(
                f,
                "tokenizer file: the part behind the tokens is of version {found}, allowed is {}; make it again with this dair's convert",
                super::pipeline::PIPELINE_VERSION
            ),
            Self::TrailingBytes { offset, extra } => write!(
                f,
                "tokenizer file: {extra} bytes follow the last token at byte {offset}, allowed are none; \
                 the vocab size of the header may be wrong"
            ),
        }
    }
}

impl core::error::Error for TokenizerError {}
