//! A tokenizer file, read into memory together with its index.

use super::special::SpecialTexts;
use super::template::Rendered;
use dair_core::format::tokenizer::{MAX_FILE_BYTES, TokenizerError, TokenizerFile};
use dair_core::text::{EncodeError, EncodeOptions, Vocabulary, encode_scratch_len};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The bytes of a `.t` file and room for the index over them.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    bytes: Vec<u8>,
    index: Vec<u32>,
}

/// Why a tokenizer can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The system refuses.
    Open(PathBuf, io::Error),
    /// Larger than any tokenizer: its bytes.
    TooLarge(PathBuf, u64),
    /// Its content is wrong.
    Format(PathBuf, TokenizerError),
    /// It has more tokens than the model: both counts.
    Foreign(PathBuf, u32, u32),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, error) => write!(f, "cannot open the tokenizer {}: {error}", path.display()),
            Self::TooLarge(path, bytes) => {
                write!(f, "{}: {bytes} bytes; a tokenizer has at most {MAX_FILE_BYTES}", path.display())
            }
            Self::Format(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Foreign(path, tokens, model) => write!(
                f,
                "{}: {tokens} tokens; the model has {model}: it is the tokenizer of another model, name the right one with --tokenizer",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl Tokenizer {
    /// Reads the file; its content is checked by [`Self::vocabulary`].
    ///
    /// # Errors
    /// Names the file and why it can't be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let refused = |error| OpenError::Open(path.into(), error);
        let bytes = std::fs::metadata(path).map_err(refused)?.len();
        if bytes > MAX_FILE_BYTES as u64 {
            return Err(OpenError::TooLarge(path.into(), bytes));
        }
        let bytes = std::fs::read(path).map_err(refused)?;
        Ok(Self { path: path.into(), bytes, index: Vec::new() })
    }

    /// Checks the file and indexes its tokens, for a model of `model_vocab_size`. That may be larger: output matrices are
    /// often padded.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn vocabulary(&mut self, model_vocab_size: u32) -> Result<Vocabulary<'_>, OpenError> {
        let path = self.path.clone();
        let vocab = self.vocabulary_alone()?;
        let vocab_size = vocab.vocab_size();
        if vocab_size > model_vocab_size {
            return Err(OpenError::Foreign(path, vocab_size, model_vocab_size));
        }
        Ok(vocab)
    }

    /// Checks the file and indexes its tokens, where no model is to run.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn vocabulary_alone(&mut self) -> Result<Vocabulary<'_>, OpenError> {
        let file = TokenizerFile::parse(&self.bytes).map_err(|error| OpenError::Format(self.path.clone(), error))?;
        self.index.resize(Vocabulary::index_len(file.header().vocab_size), 0);
        Ok(Vocabulary::new(&file, &mut self.index))
    }
}

/// Encodes text into a fresh list of tokens.
///
/// # Errors
/// As [`Vocabulary::encode`].
pub fn encode(vocab: &Vocabulary<'_>, text: &str, options: EncodeOptions) -> Result<Vec<u32>, EncodeError> {
    let mut scratch = vec![0; encode_scratch_len(text.len().min(dair_core::text::MAX_TEXT_BYTES))];
    vocab.encode(text.as_bytes(), options, &mut scratch).map(<[u32]>::to_vec)
}

/// Encodes a conversation: special tokens are those that the template wrote, and what messages spell like them is text.
/// Nothing is put before it.
///
/// # Errors
/// As [`Vocabulary::encode`].
pub fn encode_rendered(vocab: &Vocabulary<'_>, rendered: &Rendered) -> Result<Vec<u32>, EncodeError> {
    let special = SpecialTexts::new(vocab);
    let text = rendered.text.as_str();
    let (mut tokens, mut start, mut end) = (Vec::new(), 0, 0);
    let plain = |from: usize, to: usize, tokens: &mut Vec<u32>| -> Result<(), EncodeError> {
        let piece = &text[from..to];
        let unguarded = rendered.guard.map(|guard| piece.replace(guard, ""));
        let options = EncodeOptions { start: false, special: false };
        tokens.extend(encode(vocab, unguarded.as_deref().unwrap_or(piece), options)?);
        Ok(())
    };
    while let Some(c) = text[end..].chars().next() {
        match special.at(&text.as_bytes()[end..]) {
            // A special text may end inside of a character; then it is none in this text.
            Some((found, id)) if text.is_char_boundary(end + found.len()) => {
                plain(start, end, &mut tokens)?;
                tokens.push(id);
                end += found.len();
                start = end;
            }
            _ => end += c.len_utf8(),
        }
    }
    plain(start, end, &mut tokens)?;
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::tests::{Tokens, with_vocabulary};

    #[test]
    fn only_what_has_no_guard_is_special() {
        let tokens = Tokens { regular: &["ab"], special: &["<s>", "<end>", "<end>>"], eos: 1 };
        with_vocabulary(&tokens, |vocab| {
            let bos = vocab.header().bos.unwrap();
            let rendered = Rendered { text: "<s>ab<end>>a<\u{FDD0}end>b<end>".to_owned(), guard: Some('\u{FDD0}') };
            let encoded = encode_rendered(vocab, &rendered).unwrap();
            let text: Vec<u32> = b"a<end>b".iter().map(|byte| u32::from(*byte)).collect();
            assert_eq!(encoded, [&[bos, 256, bos + 2], &text[..], &[bos + 1]].concat());
        });
    }
}
