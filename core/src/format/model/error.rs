//! Why a header is refused.

use super::{Key, MAGIC, MAX_HEADER_BYTES};
use core::fmt;

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The file ends before the header does.
    Truncated {
        /// Bytes that the header takes.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The first four bytes are those of an obsolete layout.
    OldFormat(u32),
    /// The first four bytes are not a model's.
    NotAModel(u32),
    /// The size field is not `8 + 8 * pairs` or beyond [`MAX_HEADER_BYTES`].
    HeaderBytes(u32),
    /// A key that this version does not know.
    UnknownKey {
        /// Its code.
        code: u32,
        /// Where it stands in the file.
        offset: u32,
    },
    /// A key without which a model can't be used is absent.
    Missing(Key),
    /// A value outside its range.
    OutOfRange {
        /// Which value.
        key: Key,
        /// As stored.
        found: i32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// A value that contradicts another one.
    Mismatch {
        /// Which value.
        key: Key,
        /// As stored or derived.
        found: u32,
        /// What it must be.
        rule: &'static str,
        /// The other value of the rule.
        other: u32,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { needed, found } => {
                write!(f, "model header: {needed} bytes needed, the file has {found}; it is cut short, copy it again")
            }
            Self::OldFormat(magic) => write!(
                f,
                "model header: magic {magic:#010x} is an obsolete layout; convert the original model again with `dair convert`"
            ),
            Self::NotAModel(magic) => {
                write!(f, "model header: magic {magic:#010x} at byte 0 is not a .m model ({MAGIC:#010x} expected)")
            }
            Self::HeaderBytes(found) => write!(
                f,
                "model header: size field at byte 4 is {found}; allowed: 16 to {MAX_HEADER_BYTES} in steps of 8"
            ),
            Self::UnknownKey { code, offset } => {
                write!(
                    f,
                    "model header: unknown key {code} at byte {offset}; known keys are 0 to {}",
                    Key::ALL.len() - 1
                )
            }
            Self::Missing(key) => write!(f, "model header: {key} is missing (key {})", key as u32),
            Self::OutOfRange { key, found, min, max } => {
                write!(f, "model header: {key} is {found}; allowed: {min} to {max}")
            }
            Self::Mismatch { key, found, rule, other } => {
                write!(f, "model header: {key} is {found}; it must {rule} {other}")
            }
        }
    }
}

impl core::error::Error for HeaderError {}
