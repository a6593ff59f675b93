//! The key of a cluster: whoever has it may be a root or a worker of it.
//!
//! In a file it is one line: `dair-key-1:` and 64 hexadecimal digits. Two of them are accepted at a time, so that a key can be
//! replaced while nodes work.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What the text of a key begins with.
const PREFIX: &str = "dair-key-1:";
/// Bytes of a key.
const BYTES: usize = 32;

/// 32 random bytes. Memory is wiped when it goes, and nothing prints them but [`Key::to_text`].
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; BYTES]);

/// Why a text is no key. The text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// No line with a key.
    None,
    /// A line, counted from 1, is something else.
    Line(usize),
    /// More than [`Keys::MAX`].
    TooMany,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "no key in it; a key is a line of {PREFIX} and {} hexadecimal digits", 2 * BYTES),
            Self::Line(line) => {
                write!(f, "line {line} is no key; a key is a line of {PREFIX} and {} hexadecimal digits", 2 * BYTES)
            }
            Self::TooMany => write!(f, "more than {} keys; one calls, and one more is accepted", Keys::MAX),
        }
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// Where the system has no random bytes.
    pub fn fresh() -> Result<Self, getrandom::Error> {
        let mut key = Self([0; BYTES]);
        getrandom::fill(&mut key.0)?;
        Ok(key)
    }

    /// What [`Self::to_text`] wrote.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?.as_bytes();
        let mut key = Self([0; BYTES]);
        if digits.len() != 2 * BYTES {
            return None;
        }
        for (byte, pair) in key.0.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = (high? * 16 + low?) as u8;
        }
        Some(key)
    }

    /// As it stands in a file, without the end of the line.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * BYTES));
        text.push_str(PREFIX);
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        text.extend(digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        text
    }

    /// By which people know it, 16 hexadecimal digits: it gives nothing of the key away.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key("dair 2026-11-26 fingerprint of a cluster key", &self.0);
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.fingerprint())
    }
}

/// The keys of a node: the first one is used to call others, all are accepted. Without any, nothing is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(heapless::Vec<Key, { Keys::MAX }>);

impl Keys {
    /// Most keys at a time: the one in use, and the one before or after it.
    pub const MAX: usize = 2;

    /// Reads keys, one a line; what follows a `#`, and empty lines, do not count.
    ///
    /// # Errors
    /// No key, too many, or a line that is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                keys.push(Key::parse(line).ok_or(KeyError::Line(number))?)?;
            }
        }
        if keys.are_none() { Err(KeyError::None) } else { Ok(keys) }
    }

    /// Accepts one more; one that is there already is not counted twice.
    ///
    /// # Errors
    /// If there are [`Self::MAX`].
    pub fn push(&mut self, key: Key) -> Result<(), KeyError> {
        if self.0.contains(&key) {
            return Ok(());
        }
        self.0.push(key).map_err(|_| KeyError::TooMany)
    }

    /// Whether nothing is encrypted.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, the one that calls first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    pub(super) fn first(&self) -> Option<&Key> {
        self.0.first()
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        let mut keys = Self::default();
        // One fits.
        let _ = keys.0.push(key);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let (key, other) = (Key::fresh().unwrap(), Key::fresh().unwrap());
        assert_ne!(key, other);
        let text = format!("# of the attic\n{}\n\n  {} # the new one\r\n", *key.to_text(), *other.to_text());
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [&key, &other]);
        assert_eq!(keys.first(), Some(&key));
        assert_eq!(Keys::parse(&key.to_text().to_uppercase().replace("DAIR-KEY", "dair-key")), Ok(key.into()));
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line() {
        let text = Key::fresh().unwrap().to_text();
        for (wrong, want) in [
            (String::new(), KeyError::None),
            ("# nothing\n\n".into(), KeyError::None),
            (text[1..].into(), KeyError::Line(1)),
            (format!("\n{}", &text[..text.len() - 1]), KeyError::Line(2)),
            (format!("{}0", *text), KeyError::Line(1)),
            (format!("{}g", &text[..text.len() - 1]), KeyError::Line(1)),
            (text.replace(":", ":\u{e9}"), KeyError::Line(1)),
            (format!("{}\n{}", *text, &text[10..]), KeyError::Line(2)),
        ] {
            assert_eq!(Keys::parse(&wrong), Err(want));
        }
        let three: Vec<_> = (0..3).map(|_| Key::fresh().unwrap().to_text().to_string()).collect();
        assert_eq!(Keys::parse(&three.join("\n")), Err(KeyError::TooMany));
        assert_eq!(Keys::parse(&[&three[0], &three[0], &three[1][..]].join("\n")).unwrap().iter().count(), 2);
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let key = Key::fresh().unwrap();
        let secret = key.to_text()[PREFIX.len()..].to_owned();
        let said = format!("{key:?} {:?} {}", Keys::from(key.clone()), key.fingerprint());
        let decimal = format!("{:?}", key.0);
        let parts = secret.as_bytes().chunks(8).map(|part| str::from_utf8(part).unwrap());
        assert!(parts.chain([&decimal[1..decimal.len() - 1]]).all(|part| !said.contains(part)), "{said}");
        assert_eq!(key.fingerprint().len(), 16);
    }
}
