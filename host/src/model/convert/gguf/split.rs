//! Models in several GGUF files, as `gguf-split` makes them.
//!
//! ```text
//! NAME-00001-of-00003.gguf   all metadata, some tensors or none   split.no 0, split.count 3, split.tensors.count of all parts
//! NAME-00002-of-00003.gguf   the three keys again, more tensors   split.no 1, …
//! ```
//! Whichever part is given, what the files say decides, and names find the others in the same folder.

use super::error::GgufError;
use super::reader::Gguf;
use crate::model::convert::error::ConvertError;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Most parts of a model: each is an open file.
const MAX_PARTS: u32 = 512;

/// Which part of a model a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 0.
    pub no: u32,
    /// How many parts there are.
    pub count: u32,
    /// Tensors of all parts together, where the file says so.
    pub tensors: Option<u64>,
}

impl Part {
    /// What a file says of itself; a whole model is the only part.
    ///
    /// # Errors
    /// Numbers that contradict each other or exceed their limits.
    pub fn of(gguf: &Gguf<'_>, path: &Path) -> Result<Self, ConvertError> {
        let wrong = |source: GgufError| ConvertError::gguf(path, source);
        let int = |key: &str| gguf.int(key).map_err(wrong);
        let count = int("split.count")?.unwrap_or(1).max(1);
        let no = int("split.no")?.unwrap_or(0);
        let in_range = |found: i128, end: u32| u32::try_from(found).ok().filter(|number| *number < end);
        let Some(count) = in_range(count, MAX_PARTS + 1) else {
            return Err(ConvertError::refused(path, "split.count", count, format!("allowed: up to {MAX_PARTS}")));
        };
        let Some(no) = in_range(no, count) else {
            return Err(ConvertError::refused(
                path,
                "split.no",
                no,
                format!("there are {count} parts, counted from 0"),
            ));
        };
        let tensors = int("split.tensors.count")?.and_then(|found| u64::try_from(found).ok());
        Ok(Self { no, count, tensors })
    }
}

/// A file name that says which part of a model the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// Folder and name, up to the numbers.
    stem: OsString,
    /// Number of the part, from 0.
    pub no: u32,
    /// How many parts there are.
    pub count: u32,
}

impl PartName {
    /// Reads `…-00002-of-00003.gguf`.
    pub fn of(path: &Path) -> Option<Self> {
        const NUMBERS: &str = "-00000-of-00000.gguf";
        let bytes = path.as_os_str().as_bytes();
        let (stem, numbers) = bytes.split_at_checked(bytes.len().checked_sub(NUMBERS.len())?)?;
        let numbers = std::str::from_utf8(numbers).ok()?.strip_prefix('-')?.strip_suffix(".gguf")?;
        let (no, count) = numbers.split_once("-of-")?;
        let number = |digits: &str| -> Option<u32> {
            (digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
        };
        let (no, count) = (number(no)?.checked_sub(1)?, number(count)?);
        (no < count && count <= MAX_PARTS).then(|| Self { stem: OsString::from_vec(stem.to_vec()), no, count })
    }

    /// The path of part `no`.
    pub fn part(&self, no: u32) -> PathBuf {
        let mut path = self.stem.clone();
        path.push(format!("-{:05}-of-{:05}.gguf", no + 1, self.count));
        path.into()
    }

    /// The paths of all parts.
    pub fn parts(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.count).map(|no| self.part(no))
    }
}

/// The name of a file that says it is `part`, which must say the same.
///
/// # Errors
/// Where the other parts can't be found by this name.
pub fn name_of(path: &Path, part: Part) -> Result<PartName, ConvertError> {
    let Part { no, count, .. } = part;
    PartName::of(path).filter(|name| (name.no, name.count) == (no, count)).ok_or_else(|| {
        let found = format!("part {} of {count} of a model", no + 1);
        let allowed = format!(
            "the others are found by their names: this must end in -{:05}-of-{count:05}.gguf; or join them with \
             `llama-gguf-split --merge`",
            no + 1
        );
        ConvertError::refused(path, "this", found, allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_read_and_made() {
        let name = PartName::of("a/b-of-7-00002-of-00003.gguf".as_ref()).unwrap();
        assert_eq!((name.no, name.count), (1, 3));
        let parts: Vec<_> = name.parts().collect();
        assert_eq!(parts[0], Path::new("a/b-of-7-00001-of-00003.gguf"));
        assert_eq!(parts[2], Path::new("a/b-of-7-00003-of-00003.gguf"));
        for other in [
            "",
            "x.gguf",
            "x-00000-of-00003.gguf",
            "x-00004-of-00003.gguf",
            "x-00001-of-00000.gguf",
            "x-00001-of-99999.gguf",
            "x-0001-of-00003.gguf",
            "x-+0001-of-00003.gguf",
            "x-00001-of-0000é.gguf",
            "x-00001-of-00003.gguf.part",
            "x-00001_of_00003.gguf",
        ] {
            assert_eq!(PartName::of(other.as_ref()), None, "{other}");
        }
        let latin1 = OsString::from_vec(b"\xe9-00001-of-00002.gguf".to_vec());
        let second = PartName::of(latin1.as_ref()).unwrap().part(1);
        assert_eq!(second.as_os_str().as_bytes(), b"\xe9-00002-of-00002.gguf");
    }
}
