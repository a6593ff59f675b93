//! Reads the fields of a GGUF head one after the other, each checked before it is used.

use super::error::GgufError;
use super::value::{Array, Value, ValueType};

/// Longest key or tensor name.
const MAX_NAME_BYTES: u64 = (1 << 16) - 1;
/// Sizes that a tensor may have.
pub const MAX_DIMS: u32 = 4;
/// Nesting of arrays that is still read.
pub const MAX_DEPTH: u32 = 4;

/// A place in the head of a file.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_bytes: u64,
}

impl<'a> Cursor<'a> {
    /// The start of `bytes`, which are the first of a file of `file_bytes`.
    pub const fn new(bytes: &'a [u8], file_bytes: u64) -> Self {
        Self { bytes, at: 0, file_bytes }
    }

    /// Bytes from the start.
    pub const fn offset(&self) -> u64 {
        self.at as u64
    }

    fn take(&mut self, field: &'static str, needed: u64) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = usize::try_from(needed).ok().and_then(|len| rest.get(..len)) else {
            return Err(GgufError::Truncated { field, offset: self.at as u64, needed, file_bytes: self.file_bytes });
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// A field of this many bytes.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N as u64)?);
        Ok(array)
    }

    /// A number.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, GgufError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A number.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, GgufError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count with a limit.
    pub fn count(&mut self, field: &'static str, max: u64) -> Result<u64, GgufError> {
        let offset = self.at as u64;
        let found = self.u64(field)?;
        if found > max { Err(GgufError::Limit { field, offset, found, max }) } else { Ok(found) }
    }

    /// A key or a name.
    pub fn name(&mut self, field: &'static str) -> Result<&'a str, GgufError> {
        let offset = self.at as u64;
        let len = self.count(field, MAX_NAME_BYTES)?;
        std::str::from_utf8(self.take(field, len)?).map_err(|_| GgufError::NotUtf8 { field, offset })
    }

    /// The type of a value, inside of `depth` arrays.
    pub fn value_type(&mut self, key: &str, depth: u32) -> Result<ValueType, GgufError> {
        let offset = self.at as u64;
        let found = self.u32("value type")?;
        ValueType::from_code(found)
            .filter(|known| *known != ValueType::Array || depth < MAX_DEPTH)
            .ok_or_else(|| GgufError::ValueType { key: key.to_owned(), offset, found })
    }

    /// A value of this type; `key` is for messages.
    pub fn value(&mut self, key: &str, kind: ValueType, depth: u32) -> Result<Value<'a>, GgufError> {
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

    /// An entry of the tensor table: name, sizes outermost first, type code, offset.
    pub fn tensor(&mut self) -> Result<(&'a str, Vec<u64>, u32, u64), GgufError> {
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
