//! JSON files with messages that name the key, the value found and what is allowed.

use crate::model::convert::error::ConvertError;
use crate::model::convert::source::SourceFile;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest JSON file that is read: several times the largest published tokenizer.
const MAX_BYTES: u64 = 256 << 20;

/// Reads a file as a known structure.
pub fn read_as<T: DeserializeOwned>(path: &Path) -> Result<T, ConvertError> {
    let file = SourceFile::open(path)?;
    if file.bytes > MAX_BYTES {
        return Err(ConvertError::refused(path, "size", file.bytes, format!("allowed: up to {MAX_BYTES} bytes")));
    }
    let bytes = file.read(0, file.bytes)?;
    serde_json::from_slice(&bytes).map_err(|source| ConvertError::Json { path: path.to_owned(), source })
}

/// An object of settings.
pub struct Json {
    /// The file, for messages.
    pub path: PathBuf,
    prefix: String,
    map: Map<String, Value>,
}

impl Json {
    /// Reads a file that must be there.
    pub fn read(path: &Path) -> Result<Self, ConvertError> {
        Ok(Self { path: path.to_owned(), prefix: String::new(), map: read_as(path)? })
    }

    /// Reads a file; one that is not there is an empty object.
    pub fn read_optional(path: &Path) -> Result<Self, ConvertError> {
        if path.exists() {
            Self::read(path)
        } else {
            Ok(Self { path: path.to_owned(), prefix: String::new(), map: Map::new() })
        }
    }

    /// The value under `key`; null counts as absent.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// All keys and values.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// The object under `key`.
    pub fn object(&self, key: &str) -> Result<Option<Self>, ConvertError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Self { path: self.path.clone(), prefix, map: map.clone() }))
            }
            Some(other) => Err(self.refused(key, other, "allowed: an object")),
        }
    }

    /// The count under `key`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, ConvertError> {
        self.typed(key, "allowed: 0 to 4294967295", |value| value.as_u64().and_then(|count| count.try_into().ok()))
    }

    /// The count under one of two names for the same thing; where both are there, they must agree.
    pub fn u32_named(&self, key: &str, other: &str) -> Result<Option<u32>, ConvertError> {
        match (self.u32(key)?, self.u32(other)?) {
            (Some(one), Some(two)) if one != two => {
                Err(self.refused(other, two, &format!("{key} is {one}; both mean the same and must agree")))
            }
            (one, two) => Ok(one.or(two)),
        }
    }

    /// The count under `key`, which must be there.
    pub fn required_u32(&self, key: &str) -> Result<u32, ConvertError> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// The number under `key`.
    pub fn float(&self, key: &str) -> Result<Option<f64>, ConvertError> {
        self.typed(key, "allowed: a number", Value::as_f64)
    }

    /// The truth value under `key`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConvertError> {
        self.typed(key, "allowed: true, false", Value::as_bool)
    }

    /// The text under `key`.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ConvertError> {
        self.typed(key, "allowed: a string", Value::as_str)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        allowed: &str,
        pick: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConvertError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => pick(value).map(Some).ok_or_else(|| self.refused(key, value, allowed)),
        }
    }

    /// An error about the value under `key`.
    pub fn refused(&self, key: &str, found: impl std::fmt::Display, allowed: &str) -> ConvertError {
        ConvertError::refused(&self.path, format!("{}{key}", self.prefix), found, allowed)
    }

    /// An error about the absence of `key`.
    pub fn missing(&self, key: &str) -> ConvertError {
        ConvertError::missing(&self.path, format!("{}{key}", self.prefix))
    }
}
