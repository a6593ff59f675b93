//! What a file is, by its first bytes: so that whoever gives the wrong one hears which it is and what to do with it.

use crate::machine::file;
use dair_core::format::{model, tokenizer};
use std::io::{self, Read};
use std::path::Path;

/// First bytes that tell kinds apart.
pub const HEAD_BYTES: usize = 512;

/// Kinds of files that people take for models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the documentation; `what` spells them out
pub enum FileKind {
    Empty,
    Model,
    Tokenizer,
    Gguf,
    OldGgml,
    Safetensors,
    LfsPointer,
    WebPage,
    Json,
    Zip,
    Compressed,
    Pickle,
    Unknown,
}

/// Kinds that begin with fixed bytes.
const MAGICS: [(&[u8], FileKind); 14] = [
    (b"GGUF", FileKind::Gguf),
    (b"lmgg", FileKind::OldGgml),
    (b"tjgg", FileKind::OldGgml),
    (b"fmgg", FileKind::OldGgml),
    (b"version https://git-lfs", FileKind::LfsPointer),
    (b"PK\x03\x04", FileKind::Zip),
    (b"\x1f\x8b", FileKind::Compressed),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed),
    (b"\xfd7zXZ\0", FileKind::Compressed),
    (b"BZh", FileKind::Compressed),
    (b"7z\xbc\xaf\x27\x1c", FileKind::Compressed),
    (b"\x80\x02", FileKind::Pickle),
    (b"\x80\x04", FileKind::Pickle),
    (b"\x80\x05", FileKind::Pickle),
];

impl FileKind {
    /// The kind of a file with these first bytes, [`HEAD_BYTES`] where it has as many.
    pub fn of(head: &[u8]) -> Self {
        if head.is_empty() {
            return Self::Empty;
        }
        if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
            return *kind;
        }
        match head.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) {
            Some(magic) if magic == model::MAGIC || model::OLD_MAGICS.contains(&magic) => return Self::Model,
            Some(tokenizer::MAGIC | tokenizer::MAGIC_OLD) => return Self::Tokenizer,
            _ => {}
        }
        if head.get(257..262) == Some(b"ustar") {
            return Self::Compressed;
        }
        // The length of a table, then the table as JSON.
        if head.get(4..10).is_some_and(|bytes| bytes.starts_with(&[0; 4]) && bytes.ends_with(b"{\"")) {
            return Self::Safetensors;
        }
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        let starts_with = |tag: &str| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag.as_bytes()));
        if ["<!doctype", "<html", "<?xml", "<head", "<!--"].into_iter().any(starts_with) {
            Self::WebPage
        } else if text.first().is_some_and(|byte| b"{[".contains(byte)) && !text.contains(&0) {
            Self::Json
        } else {
            Self::Unknown
        }
    }

    /// The kind of the regular file at `path`.
    ///
    /// # Errors
    /// As [`file::open_regular`], and those of reading.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut head = Vec::new();
        file::open_regular(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        Ok(Self::of(&head))
    }

    /// What it is, and what to do with it, where a model or a tokenizer was expected at `path`.
    pub fn advice(self, path: &Path) -> String {
        let (what, next) = match self {
            Self::Empty => ("an empty file (0 bytes)", "copy or download it again"),
            Self::Model => ("a .m model", "give it as --model; it needs no conversion"),
            Self::Tokenizer => ("a .t tokenizer", "give it as --tokenizer, and the .m model as --model"),
            Self::Gguf => {
                let model = path.with_extension("m");
                return format!(
                    "a GGUF file; `dair convert {} {}` makes a .m and a .t file of it",
                    path.display(),
                    model.display()
                );
            }
            Self::OldGgml => ("a GGML file from before GGUF", "download the model as GGUF"),
            Self::Safetensors | Self::Json => {
                let what = if self == Self::Json { "a JSON file" } else { "a safetensors file, the tensors alone" };
                let folder = path.parent().filter(|folder| folder.join("config.json").exists());
                return match folder.map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder }) {
                    Some(folder) => format!("{what}; name its folder, {}", folder.display()),
                    None => {
                        format!("{what}; name the folder of a Hugging Face model, with config.json and tokenizer.json")
                    }
                };
            }
            Self::LfsPointer => (
                "a Git LFS pointer, the download itself is missing",
                "run `git lfs pull` in its folder, or download the file by itself",
            ),
            Self::WebPage => (
                "a web page",
                "download the file itself (at Hugging Face its address has /resolve/ where the page has /blob/)",
            ),
            Self::Zip => (
                "a ZIP archive, as PyTorch checkpoints are, too",
                "unpack it, or get the model as GGUF or in a folder with *.safetensors",
            ),
            Self::Compressed => ("a packed archive", "unpack it first"),
            Self::Pickle => {
                ("a PyTorch checkpoint (pickle)", "get the model as GGUF or in a folder with *.safetensors")
            }
            Self::Unknown => (
                "neither a .m model nor a GGUF file",
                "name one of these, or the folder of a Hugging Face model; if it should be one, download it again",
            ),
        };
        format!("{what}; {next}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_their_first_bytes() {
        let tar = [&[b'x'; 257][..], b"ustar\0"].concat();
        let model = model::MAGIC.to_le_bytes();
        let tokenizer = tokenizer::MAGIC.to_le_bytes();
        let cases: [(&[u8], FileKind); 19] = [
            (b"", FileKind::Empty),
            (b"GGUF\x03\0\0\0", FileKind::Gguf),
            (b"GGU", FileKind::Unknown),
            (b"tjgg\x03\0\0\0", FileKind::OldGgml),
            (&model, FileKind::Model),
            (&tokenizer, FileKind::Tokenizer),
            (b"\x40\0\0\0\0\0\0\0{\"a\":{}}", FileKind::Safetensors),
            (b"\x40\0\0\0\0\0\0\x01{\"a\":{}}", FileKind::Unknown),
            (b"version https://git-lfs.github.com/spec/v1\n", FileKind::LfsPointer),
            (b"\n<!DOCTYPE html><html>", FileKind::WebPage),
            (b"\xef\xbb\xbf<HTML>", FileKind::WebPage),
            (b"{\"error\": \"not found\"}", FileKind::Json),
            (b"[1, 2]", FileKind::Json),
            (b"[\0\0\0", FileKind::Unknown),
            (b"PK\x03\x04", FileKind::Zip),
            (b"\x1f\x8b\x08", FileKind::Compressed),
            (&tar, FileKind::Compressed),
            (b"\x80\x02\x8a\x0a", FileKind::Pickle),
            (b"Entry not found", FileKind::Unknown),
        ];
        for (head, kind) in cases {
            assert_eq!(FileKind::of(head), kind, "{head:02x?}");
            let line = kind.advice("folder/x.gguf".as_ref());
            assert!(line.contains("; ") && !line.contains('\n') && line.len() < 200, "{line}");
        }
        let line = FileKind::Gguf.advice("folder/x.gguf".as_ref());
        assert!(line.contains("`dair convert folder/x.gguf folder/x.m`"), "{line}");
    }
}
