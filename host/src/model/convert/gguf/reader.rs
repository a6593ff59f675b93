//! Reader of GGUF files (versions 2 and 3, little-endian): metadata and the table of tensors, checked before use.
//!
//! ```text
//! "GGUF"  u32 version  u64 tensors  u64 pairs
//! pairs:    string key, u32 type, value          string = u64 length, bytes; array = u32 type, u64 length, values
//! tensors:  string name, u32 dims, u64 dim[dims] (innermost first), u32 type, u64 offset
//! padding to `general.alignment` (32)
//! tensor data; offsets count from here
//! ```
//! The parser is pure: bytes in, borrowed views out, nothing allocated beyond the two tables. It knows nothing of models;
//! what a model means by its keys and tensors is in `model.rs`.

use super::cursor::Cursor;
use super::error::GgufError;
use super::value::{Array, Value, ValueType};
use crate::model::convert::ggml::GgmlType;
use std::collections::BTreeMap;

/// First four bytes.
const MAGIC: [u8; 4] = *b"GGUF";
/// Longest metadata and tensor table that are read: far more than the largest published vocabulary needs.
pub const MAX_HEAD_BYTES: u64 = 256 << 20;
const MAX_PAIRS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 16;
/// Largest alignment of tensor data.
pub const MAX_ALIGNMENT: u64 = 1 << 20;

/// One tensor of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its values.
    pub kind: GgmlType,
    /// Its sizes, outermost first (the file has them innermost first): a matrix is `[rows, cols]`.
    pub dims: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes of the whole tensor.
    pub bytes: u64,
}

/// The head of a GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Metadata by key.
    pub metadata: BTreeMap<&'a str, Value<'a>>,
    /// Tensors in the order of the file.
    pub tensors: Vec<Tensor<'a>>,
    /// Where tensor data starts, from the start of the file.
    pub data_start: u64,
}

impl<'a> Gguf<'a> {
    /// Parses the head of a file of `file_bytes` bytes, of which `bytes` are the first.
    ///
    /// # Errors
    /// Names the field or tensor, its place, the value found and what is allowed. [`GgufError::Truncated`] also where
    /// `bytes` is too short a part of the file.
    pub fn parse(bytes: &'a [u8], file_bytes: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes, file_bytes);
        let magic = cursor.array("magic")?;
        if magic != MAGIC {
            return Err(GgufError::NotGguf(magic));
        }
        let version = cursor.u32("version")?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
            _ => return Err(GgufError::Version(version)),
        }
        let n_tensors = cursor.count("number of tensors", MAX_TENSORS)?;
        let n_pairs = cursor.count("number of metadata pairs", MAX_PAIRS)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..n_pairs {
            let key = cursor.name("metadata key")?;
            let kind = cursor.value_type(key, 0)?;
            let value = cursor.value(key, kind, 0)?;
            if metadata.insert(key, value).is_some() {
                return Err(GgufError::Duplicate { field: "key", name: key.to_owned() });
            }
        }
        let alignment = alignment(&metadata)?;
        let mut entries = Vec::new();
        for _ in 0..n_tensors {
            entries.push(cursor.tensor()?);
        }
        let data_start = cursor.offset().next_multiple_of(alignment);
        let tensors = entries
            .into_iter()
            .map(|entry| place(entry, data_start, alignment, file_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = tensors.iter().map(|tensor| tensor.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(GgufError::Duplicate { field: "tensor", name: pair[0].to_owned() });
        }
        Ok(Self { version, metadata, tensors, data_start })
    }

    /// The integer under `key`, if there is one.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub fn int(&self, key: &str) -> Result<Option<i128>, GgufError> {
        self.typed(key, "an integer", |value| if let Value::Int(int) = value { Some(int) } else { None })
    }

    /// The number under `key`, if there is one.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", |value| match value {
            Value::Float(float) => Some(float),
            Value::Int(int) => Some(int as f64),
            _ => None,
        })
    }

    /// The truth value under `key`, if there is one.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| if let Value::Bool(bool) = value { Some(bool) } else { None })
    }

    /// The string under `key`, if there is one.
    ///
    /// # Errors
    /// If the value is of another kind or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "a string of UTF-8", |value| match value {
            Value::Str(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// The array under `key`, if there is one, of elements of one of the types `allowed`.
    ///
    /// # Errors
    /// If the value is of another kind.
    pub fn array(&self, key: &str, allowed: &[ValueType]) -> Result<Option<Array<'a>>, GgufError> {
        self.typed(key, allowed.first().map_or("an array", |kind| kind.array_name()), |value| match value {
            Value::Array(array) if allowed.contains(&array.element) => Some(array),
            _ => None,
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        allowed: &'static str,
        pick: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let wrong = || GgufError::Kind { key: key.to_owned(), found: value.kind(), allowed };
        pick(*value).map(Some).ok_or_else(wrong)
    }
}

fn alignment(metadata: &BTreeMap<&str, Value<'_>>) -> Result<u64, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(Value::Int(found)) => u64::try_from(*found)
            .ok()
            .filter(|bytes| bytes.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(bytes))
            .ok_or(GgufError::Alignment(*found)),
        Some(other) => {
            let key = "general.alignment".to_owned();
            Err(GgufError::Kind { key, found: other.kind(), allowed: "an integer" })
        }
    }
}

/// Checks one entry of the tensor table against the file.
fn place<'a>(
    (name, dims, code, offset): (&'a str, Vec<u64>, u32, u64),
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Tensor<'a>, GgufError> {
    let owned = || name.to_owned();
    let kind = GgmlType::from_code(code).ok_or_else(|| GgufError::TensorType { name: owned(), code })?;
    let len = dims.iter().try_fold(1u64, |len, dim| len.checked_mul(*dim)).filter(|len| *len > 0);
    let whole = dims.last().is_some_and(|cols| cols.is_multiple_of(kind.block_len()));
    let Some(bytes) = len.filter(|_| whole).and_then(|len| kind.bytes(len)) else {
        return Err(GgufError::TensorShape { name: owned(), dims, kind });
    };
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::TensorAlignment { name: owned(), offset, alignment });
    }
    let start = data_start.saturating_add(offset);
    if start.checked_add(bytes).is_none_or(|end| end > file_bytes) {
        return Err(GgufError::TensorRange { name: owned(), start, bytes, file_bytes });
    }
    Ok(Tensor { name, kind, dims, offset: start, bytes })
}
