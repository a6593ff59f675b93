//! API keys: who may ask. A file holds a name and the BLAKE3 hash of each key, never the key itself.

use blake3::Hash;
use std::fmt;
use std::path::{Path, PathBuf};

/// What every key begins with, so that one that has got about is known for what it is.
const PREFIX: &str = "dair-";
/// Largest file of keys, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest name.
const NAME_MAX: usize = 64;

/// Keys, by their names. Without any, everybody may ask.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: Vec<(String, Hash)>,
}

/// Why a file of keys is of no use.
#[derive(Debug)]
pub enum KeysError {
    /// It can't be read.
    Read(PathBuf, std::io::Error),
    /// It is larger than any.
    TooLarge(PathBuf),
    /// A line is wrong: its number, from 1 on.
    Line(PathBuf, usize),
    /// There is none in it.
    Empty(PathBuf),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read the API keys {}: {error}", path.display()),
            Self::TooLarge(path) => {
                write!(f, "{}: more than the {FILE_BYTES_MAX} bytes of any file of API keys", path.display())
            }
            Self::Line(path, line) => write!(
                f,
                "{}, line {line}: wanted are a name and the hash of a key, as dair api-key prints them",
                path.display()
            ),
            Self::Empty(path) => write!(f, "{}: no API key in it; make one by dair api-key", path.display()),
        }
    }
}

impl std::error::Error for KeysError {}

impl KeyRing {
    /// Those of a file: a name and a hash a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let failed = |error| KeysError::Read(path.into(), error);
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, FILE_BYTES_MAX + 1), &mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(KeysError::TooLarge(path.into()));
        }
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.push(parse(line).ok_or_else(|| KeysError::Line(path.into(), number))?);
        }
        if keys.is_empty() { Err(KeysError::Empty(path.into())) } else { Ok(Self { keys }) }
    }

    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whose key this is. All keys are compared, each in the same time whatever is equal in it.
    pub fn name_of(&self, key: &str) -> Option<&str> {
        let hash = blake3::hash(key.as_bytes());
        self.keys.iter().fold(None, |found, (name, other)| if *other == hash { Some(name) } else { found })
    }
}

fn parse(line: &str) -> Option<(String, Hash)> {
    let (name, hash) = line.split_once(char::is_whitespace)?;
    let is_name = name.len() <= NAME_MAX;
    Some((name.to_owned(), Hash::from_hex(hash.trim()).ok()?)).filter(|_| is_name)
}

/// A new key, and the line of a file that stands for it.
///
/// # Errors
/// A name that can't stand in a file, or a system without random numbers.
pub fn new_key(name: &str) -> Result<(String, String), String> {
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('#') || name.contains(char::is_whitespace) {
        return Err(format!("{name:?}: a name has 1 to {NAME_MAX} bytes, no blanks, and no # at its beginning"));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| format!("the system has no random numbers: {error}"))?;
    let key = random.iter().fold(PREFIX.to_owned(), |key, byte| key + &format!("{byte:02x}"));
    let line = format!("{name} {}", blake3::hash(key.as_bytes()).to_hex());
    Ok((key, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_the_line_that_was_made_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (ann, bob) = (new_key("ann").unwrap(), new_key("bob").unwrap());
        std::fs::write(&path, format!("# who may ask\n\n{}\n  {}  \n", ann.1, bob.1)).unwrap();
        let ring = KeyRing::read(&path).unwrap();
        assert_eq!((ring.name_of(&ann.0), ring.name_of(&bob.0)), (Some("ann"), Some("bob")));
        assert_eq!((ring.name_of("dair-"), ring.name_of("")), (None, None));
        assert!(!ring.is_empty() && !ann.1.contains(&ann.0[5..]), "the key itself is not kept");
    }

    #[test]
    fn files_that_are_of_no_use_are_refused_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        for (text, want) in [
            ("# nobody\n", "no API key in it"),
            ("a\n", "line 1: wanted are"),
            (&format!("{}\nbob 12", new_key("ann").unwrap().1), "line 2: wanted are"),
        ] {
            std::fs::write(&path, text).unwrap();
            let line = KeyRing::read(&path).unwrap_err().to_string();
            assert!(line.contains(want), "{line}");
        }
        assert!(KeyRing::read(folder.path()).unwrap_err().to_string().starts_with("cannot read the API keys"));
        for name in ["", "a b", "#a", &"x".repeat(65)] {
            assert!(new_key(name).is_err(), "{name}");
        }
    }
}
