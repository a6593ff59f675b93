//! Metadata values, as they lie in the file.

use super::cursor::Cursor;
use std::fmt;

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

    /// What an array of this type is called in messages.
    pub(super) const fn array_name(self) -> &'static str {
        match self {
            ValueType::Str => "an array of strings",
            ValueType::F32 | ValueType::F64 => "an array of floats",
            _ => "an array of integers",
        }
    }

    /// The type with this code.
    pub(super) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u32 == code)
    }

    /// Bytes of one value; of a string or an array at least.
    pub(super) const fn min_bytes(self) -> u64 {
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
    pub(super) bytes: &'a [u8],
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element.name(), self.len)
    }
}

impl<'a> Array<'a> {
    /// The elements, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes, self.bytes.len() as u64);
        let element = self.element;
        // Parsed once already, so that no element fails.
        (0..self.len).map_while(move |_| cursor.value("", element, 0).ok())
    }
}
