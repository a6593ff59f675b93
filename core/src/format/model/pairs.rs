//! The key/value pairs of a header, before they mean anything.

use super::{HeaderError, Key, MAGIC, MAX_HEADER_BYTES, OLD_MAGICS, PREFIX_BYTES};

/// Values as stored, indexed by key code.
pub(super) struct Pairs([Option<i32>; Key::ALL.len()]);

impl Pairs {
    pub fn parse(bytes: &[u8]) -> Result<(Self, u32), HeaderError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let found = bytes.len() as u64;
        if bytes.len() < PREFIX_BYTES {
            return Err(HeaderError::Truncated { needed: PREFIX_BYTES as u64, found });
        }
        match word(0) {
            MAGIC => {}
            magic if OLD_MAGICS.contains(&magic) => return Err(HeaderError::OldFormat(magic)),
            magic => return Err(HeaderError::NotAModel(magic)),
        }
        let header_bytes = word(4);
        let size = header_bytes as usize;
        if size <= PREFIX_BYTES || size > MAX_HEADER_BYTES || !size.is_multiple_of(8) {
            return Err(HeaderError::HeaderBytes(header_bytes));
        }
        if bytes.len() < size {
            return Err(HeaderError::Truncated { needed: size as u64, found });
        }
        let mut values = [None; Key::ALL.len()];
        for at in (PREFIX_BYTES..size).step_by(8) {
            let code = word(at);
            let slot = values.get_mut(code as usize).ok_or(HeaderError::UnknownKey { code, offset: at as u32 })?;
            *slot = Some(word(at + 4) as i32);
        }
        Ok((Self(values), header_bytes))
    }

    /// The value as stored.
    pub fn stored(&self, key: Key) -> Option<i32> {
        self.0[key as usize]
    }

    /// The value, or `default` where the key is absent; checked against the key's range.
    pub fn checked(&self, key: Key, default: Option<u32>) -> Result<u32, HeaderError> {
        let Some(found) = self.stored(key) else {
            return default.ok_or(HeaderError::Missing(key));
        };
        let (min, max) = key.range();
        match u32::try_from(found) {
            Ok(value) if (min..=max).contains(&value) => Ok(value),
            _ => Err(HeaderError::OutOfRange { key, found, min, max }),
        }
    }

    pub fn required(&self, key: Key) -> Result<u32, HeaderError> {
        self.checked(key, None)
    }
}
