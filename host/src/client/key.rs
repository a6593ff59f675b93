//! The key that a server wants of its clients.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::machine::file;

/// The environment variable that holds it.
const VARIABLE: &str = "DAIR_API_KEY";
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 4096;

/// A key; nothing prints it.
#[derive(Clone)]
pub struct ApiKey(String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

/// Why there is no key where one was looked for.
#[derive(Debug)]
pub enum KeyError {
    /// The file can't be read.
    Read(PathBuf, std::io::Error),
    /// That place holds none.
    Invalid(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read the API key {}: {error}", path.display()),
            Self::Invalid(place) => {
                write!(f, "{place}: no API key; wanted is one line of up to {KEY_BYTES_MAX} letters, digits and signs")
            }
        }
    }
}

impl std::error::Error for KeyError {}

impl ApiKey {
    /// The key of a file, else the one in the environment, if there is any.
    ///
    /// # Errors
    /// Names the place whose key is none.
    pub fn find(file: Option<&Path>) -> Result<Option<Self>, KeyError> {
        file.map_or_else(|| Self::of_variable(VARIABLE), |path| Self::read(path).map(Some))
    }

    /// The key that an environment variable holds, if it is set.
    ///
    /// # Errors
    /// Names the variable where that is no key.
    pub fn of_variable(variable: &str) -> Result<Option<Self>, KeyError> {
        let Some(text) = std::env::var_os(variable).filter(|text| !text.is_empty()) else { return Ok(None) };
        let place = || format!("environment variable {variable}");
        text.to_str().and_then(Self::parse).map(Some).ok_or_else(|| KeyError::Invalid(place()))
    }

    /// The key in a file.
    ///
    /// # Errors
    /// Names the file where it holds none.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |error| KeyError::Read(path.into(), error);
        let mut bytes = Vec::new();
        // One byte more than a key and its line end may have.
        let limit = KEY_BYTES_MAX as u64 + 3;
        file::open_regular(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
        let text = str::from_utf8(&bytes).ok();
        text.and_then(Self::parse).ok_or_else(|| KeyError::Invalid(path.display().to_string()))
    }

    fn parse(text: &str) -> Option<Self> {
        let key = text.trim();
        let is_key = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        is_key.then(|| Self(key.to_owned()))
    }

    /// What goes into the header `Authorization`.
    pub(in crate::client) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_key_and_nothing_prints_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let find = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            ApiKey::find(Some(&path)).map_err(|error| error.to_string())
        };
        let key = find(b"dair-abc\r\n").unwrap().unwrap();
        assert_eq!((key.bearer(), format!("{key:?}")), ("Bearer dair-abc".into(), "ApiKey".into()));
        for bytes in [&b""[..], b"\n", b"one\ntwo\n", b"caf\xe9", &[b'a'; KEY_BYTES_MAX + 1]] {
            assert!(find(bytes).unwrap_err().contains("no API key"));
        }
        assert!(ApiKey::find(Some(folder.path())).unwrap_err().to_string().contains("a folder"));
    }
}
