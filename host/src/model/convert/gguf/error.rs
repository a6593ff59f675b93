//! Why a GGUF file was refused.

use super::cursor::{MAX_DEPTH, MAX_DIMS};
use super::reader::MAX_ALIGNMENT;
use crate::model::convert::error::OneLine;
use crate::model::convert::ggml::{GgmlType, published_name};
use std::fmt;

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // fields: what, where (byte offset), found, allowed
pub enum GgufError {
    /// The first four bytes are not "GGUF".
    NotGguf([u8; 4]),
    /// A version other than 2 and 3.
    Version(u32),
    /// The file was written on a big-endian machine.
    BigEndian,
    /// The file ends inside a field.
    Truncated { field: &'static str, offset: u64, needed: u64, file_bytes: u64 },
    /// A count or length beyond its limit.
    Limit { field: &'static str, offset: u64, found: u64, max: u64 },
    /// A key or name that is not UTF-8.
    NotUtf8 { field: &'static str, offset: u64 },
    /// A metadata type that does not exist, or arrays nested too deeply.
    ValueType { key: String, offset: u64, found: u32 },
    /// A key or a tensor that stands in the file twice.
    Duplicate { field: &'static str, name: String },
    /// `general.alignment` is not a power of two from 8 to 1 MiB.
    Alignment(i128),
    /// A metadata value of another kind than the format says.
    Kind { key: String, found: &'static str, allowed: &'static str },
    /// A tensor of a type that is not read.
    TensorType { name: String, code: u32 },
    /// A tensor without values, of too many, or with rows that are not whole blocks.
    TensorShape { name: String, dims: Vec<u64>, kind: GgmlType },
    /// A tensor that does not start at a multiple of the alignment.
    TensorAlignment { name: String, offset: u64, alignment: u64 },
    /// A tensor that ends behind the file.
    TensorRange { name: String, start: u64, bytes: u64, file_bytes: u64 },
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGguf(found) => write!(f, "not a GGUF file: starts with {found:02x?} instead of \"GGUF\""),
            Self::Version(found) => write!(f, "GGUF version is {found}; allowed: 2 and 3"),
            Self::BigEndian => f.write_str("the file is big-endian; allowed: little-endian"),
            Self::Truncated { field, offset, needed, file_bytes } => {
                write!(
                    f,
                    "{field} at byte {offset} takes {needed} bytes, the file ends at {file_bytes}; copy or download it again"
                )
            }
            Self::Limit { field, offset, found, max } => {
                write!(f, "{field} at byte {offset} is {found}; allowed: up to {max}")
            }
            Self::NotUtf8 { field, offset } => write!(f, "{field} at byte {offset} is not UTF-8"),
            Self::ValueType { key, offset, found } => {
                write!(
                    f,
                    "{}: value type at byte {offset} is {found}; allowed: 0 to 12, arrays nested at most {MAX_DEPTH} deep",
                    OneLine(key)
                )
            }
            Self::Duplicate { field, name } => {
                write!(f, "{field} \"{}\" stands in the file twice", OneLine(name))
            }
            Self::Alignment(found) => {
                write!(f, "general.alignment is {found}; allowed: powers of two from 8 to {MAX_ALIGNMENT}")
            }
            Self::Kind { key, found, allowed } => write!(f, "{} is {found}; allowed: {allowed}", OneLine(key)),
            Self::TensorType { name, code } => {
                write!(
                    f,
                    "tensor {} has type {} ({code}); readable: {}",
                    OneLine(name),
                    published_name(*code),
                    GgmlType::READABLE
                )
            }
            Self::TensorShape { name, dims, kind } => write!(
                f,
                "tensor {} of type {kind} has sizes {dims:?}; allowed: 1 to {MAX_DIMS} sizes above 0, the last a multiple of {}",
                OneLine(name),
                kind.block_len()
            ),
            Self::TensorAlignment { name, offset, alignment } => {
                write!(f, "tensor {} has offset {offset}; allowed: multiples of {alignment}", OneLine(name))
            }
            Self::TensorRange { name, start, bytes, file_bytes } => write!(
                f,
                "tensor {} takes {bytes} bytes at byte {start}, the file ends at {file_bytes}; copy or download it again",
                OneLine(name)
            ),
        }
    }
}

impl std::error::Error for GgufError {}
