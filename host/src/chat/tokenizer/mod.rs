//! A tokenizer file, read into memory together with its index, and what it makes of text.
//!
//! Files that `dair convert` writes say how the model's own tokenizer cuts text (`exact`); for files of other programs the rule
//! of Distributed-Llama stands in, which is what core knows alone.

mod added;
mod exact;
mod merge;
mod normalize;
mod split;
#[cfg(test)]
mod tests;

use super::template::Rendered;
use crate::machine::file;
use crate::model::kind::{FileKind, HEAD_BYTES};
use crate::model::{is_padding, max_padding};
use dair_core::format::tokenizer::{MAX_FILE_BYTES, Pipeline, TokenizerError, TokenizerFile};
use dair_core::text::{Decoder, EncodeError, EncodeOptions, MAX_TEXT_BYTES, Vocabulary, encode_scratch_len};
use exact::{Exact, ExactError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The bytes of a `.t` file and room for the index over them.
#[derive(Debug)]
pub struct TokenizerBytes {
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
    /// It is a file of another kind.
    Kind(PathBuf, FileKind),
    /// Its content is wrong.
    Format(PathBuf, TokenizerError),
    /// Its description of how text is cut can't be used.
    Pipeline(PathBuf, ExactError),
    /// It has more tokens than the model, or so few that the others can't be padding: both counts.
    Foreign(PathBuf, u32, u32),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, error) => write!(f, "cannot open the tokenizer {}: {error}", path.display()),
            Self::TooLarge(path, bytes) => {
                write!(f, "{}: {bytes} bytes; a tokenizer has at most {MAX_FILE_BYTES}", path.display())
            }
            Self::Kind(path, kind) => {
                write!(f, "{} is no tokenizer (.t) but {}", path.display(), kind.advice(path))
            }
            Self::Format(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Pipeline(path, error) => write!(f, "{}: {error}; make it again with dair convert", path.display()),
            Self::Foreign(path, tokens, model) => write!(
                f,
                "{}: {tokens} tokens; the model has {model}, of which at most {} may be padding: it is the tokenizer of \
                 another model, name the right one with --tokenizer",
                path.display(),
                max_padding(*model)
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl TokenizerBytes {
    /// Reads the file; its content is checked by [`Self::tokenizer`].
    ///
    /// # Errors
    /// Names the file and why it can't be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let refused = |error| OpenError::Open(path.into(), error);
        let file = file::open_regular(path).map_err(refused)?;
        let stated = file.metadata().map_err(refused)?.len();
        if stated > MAX_FILE_BYTES as u64 {
            return Err(OpenError::TooLarge(path.into(), stated));
        }
        let mut bytes = Vec::new();
        // A file that grows, or one of /proc, may hold more than it says.
        file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
        match FileKind::of(&bytes[..bytes.len().min(HEAD_BYTES)]) {
            FileKind::Tokenizer | FileKind::Unknown => {}
            other => return Err(OpenError::Kind(path.into(), other)),
        }
        Ok(Self { path: path.into(), bytes, index: Vec::new() })
    }

    /// Checks the file and prepares its tables; where the model is known, for one of `model_vocab_size` rows. These may be a few
    /// more, as [`is_padding`] says: output matrices are often padded.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn tokenizer(&mut self, model_vocab_size: Option<u32>) -> Result<Tokenizer<'_>, OpenError> {
        let file = TokenizerFile::parse(&self.bytes).map_err(|error| OpenError::Format(self.path.clone(), error))?;
        let vocab_size = file.header().vocab_size;
        if let Some(rows) = model_vocab_size.filter(|rows| !is_padding(vocab_size, *rows)) {
            return Err(OpenError::Foreign(self.path.clone(), vocab_size, rows));
        }
        self.index.resize(Vocabulary::index_len(vocab_size), 0);
        Tokenizer::new(&file, &mut self.index).map_err(|error| OpenError::Pipeline(self.path.clone(), error))
    }
}

/// Text to tokens and back, for one model.
#[derive(Debug)]
pub struct Tokenizer<'a> {
    vocab: Vocabulary<'a>,
    exact: Option<Exact<'a>>,
}

impl<'a> Tokenizer<'a> {
    /// Prepares the tables of a checked file; `index` is memory of [`Vocabulary::index_len`] numbers.
    ///
    /// # Errors
    /// A description of how text is cut that can't be used.
    pub fn new(file: &TokenizerFile<'a>, index: &'a mut [u32]) -> Result<Self, ExactError> {
        let vocab = Vocabulary::new(file, index);
        let exact = file.pipeline().map(|pipeline| Exact::new(&vocab, pipeline)).transpose()?;
        Ok(Self { vocab, exact })
    }

    /// One that knows nothing but Distributed-Llama's rule.
    #[cfg(test)]
    pub fn by_rule(vocab: Vocabulary<'a>) -> Self {
        Self { vocab, exact: None }
    }

    /// The tokens.
    pub fn vocabulary(&self) -> &Vocabulary<'a> {
        &self.vocab
    }

    /// How the model's own tokenizer cuts text, where the file says so. Without it the rule of Distributed-Llama stands in.
    pub fn pipeline(&self) -> Option<&Pipeline<'a>> {
        self.exact.as_ref().map(Exact::pipeline)
    }

    /// Encodes a text: with what begins and ends one if `start`, control tokens that it spells as these tokens if `special`.
    ///
    /// # Errors
    /// A text without tokens, or one that is too long.
    pub fn encode(&self, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        self.encode_guarded(text, None, options)
    }

    /// As [`encode`](Self::encode), for a text in which the character `guard` keeps spellings of control tokens apart that are
    /// none. It is no part of the text.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_guarded(
        &self,
        text: &[u8],
        guard: Option<char>,
        options: EncodeOptions,
    ) -> Result<Vec<u32>, TextError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TextError::Rule(EncodeError::TextTooLong { bytes: text.len() }));
        }
        match &self.exact {
            Some(exact) => exact.encode(text, options.special, guard, options.start).map_err(TextError::Exact),
            None => self.encode_by_rule(text, guard, options).map_err(TextError::Rule),
        }
    }

    /// Encodes a conversation: control tokens are those that the template wrote. Nothing is put around the text.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TextError> {
        self.encode_guarded(rendered.text.as_bytes(), rendered.guard, EncodeOptions { start: false, special: true })
    }

    /// The rule of Distributed-Llama.
    fn encode_by_rule(
        &self,
        text: &[u8],
        guard: Option<char>,
        options: EncodeOptions,
    ) -> Result<Vec<u32>, EncodeError> {
        let mut scratch = vec![0; encode_scratch_len(text.len())];
        let Some(guard) = guard else {
            return self.vocab.encode(text, options, &mut scratch).map(<[u32]>::to_vec);
        };
        // Special tokens are found first, in the guarded text; what stands between them is encoded without guards.
        let mut guard_bytes = [0; 4];
        let guard = guard.encode_utf8(&mut guard_bytes).as_bytes();
        let mut ids = self.vocab.encode(b"", options, &mut scratch)?.to_vec();
        let mut plain = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let special = if options.special { self.vocab.find_special(rest) } else { None };
            if let Some(id) = special {
                ids.extend(self.vocab.encode(&plain, EncodeOptions { start: false, special: false }, &mut scratch)?);
                plain.clear();
                ids.push(id);
                rest = &rest[self.vocab.bytes(id).map_or(1, <[u8]>::len)..];
            } else if let Some(behind) = rest.strip_prefix(guard) {
                rest = behind;
            } else {
                plain.push(rest[0]);
                rest = &rest[1..];
            }
        }
        ids.extend(self.vocab.encode(&plain, EncodeOptions { start: false, special: false }, &mut scratch)?);
        Ok(ids)
    }

    /// Whether a text begins with a blank that was put there, so that a decoded one loses it.
    pub fn strips_blank(&self) -> bool {
        self.pipeline().is_some_and(|pipeline| pipeline.flags.strip_blank)
    }

    /// The bytes of tokens, those that [`encode`](Self::encode) puts around a text left out where they stand there.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (before, after) = self.pipeline().map_or((&[][..], &[][..]), |pipeline| (pipeline.before, pipeline.after));
        let header = self.vocab.header();
        let starts = match self.exact {
            Some(_) => ids.iter().zip(before).take_while(|(id, before)| **id == before.get()).count(),
            None => usize::from(header.add_bos && ids.first() == header.bos.as_ref()),
        };
        let ids = &ids[starts..];
        let text = ids.len().saturating_sub(after.len());
        let ends = ids[text..].iter().copied().eq(after.iter().map(|id| id.get()));
        for id in if ends { &ids[..text] } else { ids } {
            bytes.extend_from_slice(self.vocab.bytes(*id).unwrap_or("\u{FFFD}".as_bytes()));
        }
        if self.strips_blank() && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        bytes
    }

    /// [`decode`](Self::decode) as text; what is no character becomes U+FFFD.
    pub fn decode_text(&self, ids: &[u32]) -> String {
        let (mut decoder, mut text) = (Decoder::new(), String::new());
        // Writing to a String does not fail.
        let _ = decoder.push_bytes(&self.decode(ids), &mut text);
        let _ = decoder.flush(&mut text);
        text
    }
}

/// Why a text has no tokens.
#[derive(Debug, PartialEq, Eq)]
pub enum TextError {
    /// Under the rule of Distributed-Llama.
    Rule(EncodeError),
    /// Under the model's own.
    Exact(ExactError),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(error) => error.fmt(f),
            Self::Exact(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TextError {}

impl fmt::Display for ExactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern, error) => {
                let error = error.lines().last().unwrap_or_default();
                write!(f, "the pattern {pattern:?}, by which text is cut, is broken: {error}")
            }
            Self::NoToken(byte) => {
                write!(
                    f,
                    "the tokenizer's vocabulary has no token for the byte {byte:#04x} of the text, nor one for the unknown"
                )
            }
            Self::TooHard => f.write_str("a pattern of the tokenizer takes too many steps on this text; shorten it"),
        }
    }
}

impl std::error::Error for ExactError {}
