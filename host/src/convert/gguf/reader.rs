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
//! what a model means by its keys and tensors is in [`super::model`].

use super::error::GgufError;
use crate::convert::ggml::GgmlType;
use std::collections::BTreeMap;
use std::fmt;

/// First four bytes.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Longest metadata and tensor table that are read: far more than the largest published vocabulary needs.
pub const MAX_HEAD_BYTES: u64 = 256 << 20;
const MAX_PAIRS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_NAME_BYTES: u64 = (1 << 16) - 1;
/// Sizes that a tensor may have.
pub const MAX_DIMS: u32 = 4;
/// Largest alignment of tensor data.
pub const MAX_ALIGNMENT: u64 = 1 << 20;
/// Nesting of arrays that is still read.
pub const MAX_DEPTH: u32 = 4;

/// Type of a metadata value, by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names are the documentation
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64]
    };

    /// Name for messages.
    pub const fn name(self) -> &'static str {
        use ValueType::*;
        match self {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
            Str => "string",
            Array => "array",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
        }
    }

    /// Bytes of one value; of a string or an array at least.
    const fn min_bytes(self) -> u64 {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => 1,
            U16 | I16 => 2,
            U32 | I32 | F32 => 4,
            Str | U64 | I64 | F64 => 8,
            Array => 12,
        }
    }
}

/// One metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer type.
    Int(i128),
    /// F32 or F64.
    Float(f64),
    /// A truth value; any byte but 0 is true.
    Bool(bool),
    /// Bytes, by convention UTF-8.
    Str(&'a [u8]),
    /// Values of one type.
    Array(Array<'a>),
}

impl Value<'_> {
    /// What kind of value this is, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a bool",
            Value::Str(_) => "a string",
            Value::Array(_) => "an array",
        }
    }
}

/// An array as it lies in the file; its lengths were checked when it was parsed.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    /// Type of every element.
    pub element: ValueType,
    /// Number of elements.
    pub len: usize,
    bytes: &'a [u8],
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element.name(), self.len)
    }
}

impl<'a> Array<'a> {
    /// The elements, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes, at: 0, file_bytes: self.bytes.len() as u64 };
        let element = self.element;
        // Parsed once already, so that no element fails.
        (0..self.len).map_while(move |_| cursor.value("", element, 0).ok())
    }
}

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

/// A place in the head of a file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_bytes: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, field: &'static str, needed: u64) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = usize::try_from(needed).ok().and_then(|len| rest.get(..len)) else {
            return Err(GgufError::Truncated { field, offset: self.at as u64, needed, file_bytes: self.file_bytes });
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N as u64)?);
        Ok(array)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, GgufError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, GgufError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `min_bytes` each.
    fn count(&mut self, field: &'static str, max: u64) -> Result<u64, GgufError> {
        let offset = self.at as u64;
        let found = self.u64(field)?;
        if found > max { Err(GgufError::Limit { field, offset, found, max }) } else { Ok(found) }
    }

    fn name(&mut self, field: &'static str) -> Result<&'a str, GgufError> {
        let offset = self.at as u64;
        let len = self.count(field, MAX_NAME_BYTES)?;
        std::str::from_utf8(self.take(field, len)?).map_err(|_| GgufError::NotUtf8 { field, offset })
    }

    fn value_type(&mut self, key: &str, depth: u32) -> Result<ValueType, GgufError> {
        let offset = self.at as u64;
        let found = self.u32("value type")?;
        let known = ValueType::ALL.into_iter().find(|known| *known as u32 == found);
        known.filter(|known| *known != ValueType::Array || depth < MAX_DEPTH).ok_or_else(|| GgufError::ValueType {
            key: key.to_owned(),
            offset,
            found,
        })
    }

    fn value(&mut self, key: &str, kind: ValueType, depth: u32) -> Result<Value<'a>, GgufError> {
        const FIELD: &str = "metadata value";
        Ok(match kind {
            ValueType::U8 => Value::Int(u8::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::I8 => Value::Int(i8::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::U16 => Value::Int(u16::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::I16 => Value::Int(i16::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::U32 => Value::Int(u32::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::I32 => Value::Int(i32::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::U64 => Value::Int(u64::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::I64 => Value::Int(i64::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::F32 => Value::Float(f32::from_le_bytes(self.array(FIELD)?).into()),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.array(FIELD)?)),
            ValueType::Bool => Value::Bool(self.array::<1>(FIELD)? != [0]),
            ValueType::Str => {
                let len = self.u64("string length")?;
                Value::Str(self.take("string", len)?)
            }
            ValueType::Array => {
                let element = self.value_type(key, depth + 1)?;
                let len = self.u64("array length")?;
                let start = self.at;
                if matches!(element, ValueType::Str | ValueType::Array) {
                    // Each turn takes at least eight bytes, so that an absurd length ends at the end of the file.
                    for _ in 0..len {
                        self.value(key, element, depth + 1)?;
                    }
                } else {
                    self.take("array", len.saturating_mul(element.min_bytes()))?;
                }
                Value::Array(Array { element, len: len as usize, bytes: &self.bytes[start..self.at] })
            }
        })
    }

    fn tensor(&mut self) -> Result<(&'a str, Vec<u64>, u32, u64), GgufError> {
        let name = self.name("tensor name")?;
        let offset = self.at as u64;
        let n_dims = self.u32("number of dimensions")?;
        if n_dims > MAX_DIMS {
            let (found, max) = (u64::from(n_dims), u64::from(MAX_DIMS));
            return Err(GgufError::Limit { field: "number of dimensions", offset, found, max });
        }
        let mut dims = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            dims.push(self.u64("dimension")?);
        }
        dims.reverse();
        Ok((name, dims, self.u32("tensor type")?, self.u64("tensor offset")?))
    }
}

impl<'a> Gguf<'a> {
    /// Parses the head of a file of `file_bytes` bytes, of which `bytes` are the first.
    ///
    /// # Errors
    /// Names the field or tensor, its place, the value found and what is allowed. [`GgufError::Truncated`] also where
    /// `bytes` is too short a part of the file.
    pub fn parse(bytes: &'a [u8], file_bytes: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor { bytes, at: 0, file_bytes };
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
        let data_start = (cursor.at as u64).next_multiple_of(alignment);
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
        self.typed(key, allowed.first().map_or("an array", |kind| array_of(*kind)), |value| match value {
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

const fn array_of(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Str => "an array of strings",
        ValueType::F32 | ValueType::F64 => "an array of floats",
        _ => "an array of integers",
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
