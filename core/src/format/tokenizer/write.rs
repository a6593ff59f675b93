//! Values to bytes, one token at a time.

use super::pipeline::{PIPELINE_MAGIC, PIPELINE_VERSION, Pipeline, tag};
use super::{MAGIC, MAX_FILE_BYTES, MAX_TEMPLATE_BYTES, MAX_TOKEN_BYTES, MAX_VOCAB_SIZE, TokenizerHeader, key};
use core::fmt;
use embedded_io::Write;

/// Writes the current format: the header at once, then the tokens in the order of their ids.
///
/// Only files that [`TokenizerFile::parse`](super::TokenizerFile::parse) accepts are written. The pairs stand in the
/// order in which the converters of Distributed-Llama write them, so the bytes are theirs.
#[derive(Debug)]
pub struct TokenizerWriter<W> {
    sink: W,
    vocab_size: u32,
    max_token_len: u32,
    written: u32,
    bytes: usize,
}

impl<W: Write> TokenizerWriter<W> {
    /// Checks the header and writes it.
    ///
    /// # Errors
    /// A value that no reader would accept, or what the sink says.
    pub fn new(sink: W, header: &TokenizerHeader<'_>) -> Result<Self, TokenizerWriteError<W::Error>> {
        let template = header.chat_template.unwrap_or_default();
        let ranged = |field, found: u64, min: u64, max: u64| match found {
            found if found < min || found > max => Err(TokenizerWriteError::OutOfRange { field, found, min, max }),
            _ => Ok(()),
        };
        ranged("vocab size", header.vocab_size.into(), 1, MAX_VOCAB_SIZE.into())?;
        ranged("max token length", header.max_token_len.into(), 1, MAX_TOKEN_BYTES.into())?;
        ranged("chat template length", template.len() as u64, 0, MAX_TEMPLATE_BYTES.into())?;
        let last_id = u64::from(header.vocab_size) - 1;
        if let Some(bos) = header.bos {
            ranged("BOS id", bos.into(), 0, last_id)?;
        }
        for &eos in &header.eos {
            ranged("EOS id", eos.into(), 0, last_id)?;
        }

        let pairs = [
            (key::BOS, header.bos),
            (key::VERSION, Some(1)),
            (key::VOCAB_SIZE, Some(header.vocab_size)),
            (key::MAX_TOKEN_LEN, Some(header.max_token_len)),
            (key::TEMPLATE_BYTES, (!template.is_empty()).then_some(template.len() as u32)),
            (key::N_EOS, Some(header.eos.len() as u32)),
            (key::ADD_BOS, Some(header.add_bos.into())),
        ];
        let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key as u32, value?)));
        let mut writer =
            Self { sink, vocab_size: header.vocab_size, max_token_len: header.max_token_len, written: 0, bytes: 0 };
        writer.u32(MAGIC)?;
        writer.u32(8 + 8 * pairs.clone().count() as u32)?;
        for (key, value) in pairs {
            writer.u32(key)?;
            writer.u32(value)?;
        }
        writer.all(template.as_bytes())?;
        for &id in &header.eos {
            writer.u32(id)?;
        }
        Ok(writer)
    }

    /// Writes the next token.
    ///
    /// # Errors
    /// A token that no reader would accept, one too many, or what the sink says.
    pub fn push(&mut self, score: f32, token: &[u8]) -> Result<(), TokenizerWriteError<W::Error>> {
        let id = self.written;
        if id == self.vocab_size {
            return Err(TokenizerWriteError::Count { found: id + 1, vocab_size: self.vocab_size });
        }
        if token.is_empty() || token.len() > self.max_token_len as usize {
            return Err(TokenizerWriteError::TokenLength { id, found: token.len(), max: self.max_token_len });
        }
        if !score.is_finite() {
            return Err(TokenizerWriteError::Score { id, found: score });
        }
        if self.bytes + 8 + token.len() > MAX_FILE_BYTES {
            return Err(TokenizerWriteError::FileTooLarge);
        }
        self.u32(score.to_bits())?;
        self.u32(token.len() as u32)?;
        self.all(token)?;
        self.written += 1;
        Ok(())
    }

    /// Flushes and hands back the sink, once all tokens of the header have been pushed.
    ///
    /// # Errors
    /// Missing tokens, or what the sink says.
    pub fn finish(mut self) -> Result<W, TokenizerWriteError<W::Error>> {
        if self.written != self.vocab_size {
            return Err(TokenizerWriteError::Count { found: self.written, vocab_size: self.vocab_size });
        }
        self.sink.flush().map_err(TokenizerWriteError::Sink)?;
        Ok(self.sink)
    }

    /// Writes how text is cut, behind the last token, where it must stand.
    ///
    /// # Errors
    /// Tokens that are still missing, a description that no reader would accept, or what the sink says.
    pub fn pipeline(&mut self, pipeline: &Pipeline<'_>) -> Result<(), TokenizerWriteError<W::Error>> {
        if self.written != self.vocab_size {
            return Err(TokenizerWriteError::Count { found: self.written, vocab_size: self.vocab_size });
        }
        let kinds = pipeline.kinds.len() as u64;
        if kinds != u64::from(self.vocab_size) {
            let n = self.vocab_size.into();
            return Err(TokenizerWriteError::OutOfRange { field: "kinds of tokens", found: kinds, min: n, max: n });
        }
        let settings = pipeline.settings().map(u32::to_le_bytes);
        let sections: [(u32, &[u8]); 6] = [
            (tag::SETTINGS, settings.as_flattened()),
            (tag::KINDS, pipeline.kinds),
            (tag::MERGES, bytemuck::cast_slice(pipeline.merges)),
            (tag::STEPS, pipeline.steps.bytes()),
            (tag::BEFORE, bytemuck::cast_slice(pipeline.before)),
            (tag::AFTER, bytemuck::cast_slice(pipeline.after)),
        ];
        let bytes = sections.iter().map(|(_, content)| 8 + content.len()).sum::<usize>();
        if self.bytes + 12 + bytes > MAX_FILE_BYTES {
            return Err(TokenizerWriteError::FileTooLarge);
        }
        for word in [PIPELINE_MAGIC, PIPELINE_VERSION, bytes as u32] {
            self.u32(word)?;
        }
        for (tag, content) in sections {
            self.u32(tag)?;
            self.u32(content.len() as u32)?;
            self.all(content)?;
        }
        Ok(())
    }

    fn u32(&mut self, value: u32) -> Result<(), TokenizerWriteError<W::Error>> {
        self.all(&value.to_le_bytes())
    }

    fn all(&mut self, bytes: &[u8]) -> Result<(), TokenizerWriteError<W::Error>> {
        self.bytes += bytes.len();
        self.sink.write_all(bytes).map_err(TokenizerWriteError::Sink)
    }
}

/// Why a tokenizer file can't be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenizerWriteError<E> {
    /// What the sink says.
    Sink(E),
    /// A number of the header outside its range.
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
    },
    /// A token of a length that is not allowed.
    TokenLength {
        /// The token.
        id: u32,
        /// Its length in bytes.
        found: usize,
        /// Largest allowed length, in bytes.
        max: u32,
    },
    /// The score of a token is not a finite number.
    Score {
        /// The token.
        id: u32,
        /// The score.
        found: f32,
    },
    /// More or fewer tokens than the header says.
    Count {
        /// Tokens pushed.
        found: u32,
        /// Tokens announced.
        vocab_size: u32,
    },
    /// The file would become larger than any reader accepts.
    FileTooLarge,
}

impl<E: fmt::Display> fmt::Display for TokenizerWriteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(error) => write!(f, "can't write the tokenizer file: {error}"),
            Self::OutOfRange { field, found, min, max } => {
                write!(f, "tokenizer: {field} is {found}, allowed are {min} to {max}")
            }
            Self::TokenLength { id, found, max } => {
                write!(f, "tokenizer: length of token {id} is {found}, allowed are 1 to {max} bytes")
            }
            Self::Score { id, found } => {
                write!(f, "tokenizer: score of token {id} is {found}, allowed are finite numbers")
            }
            Self::Count { found, vocab_size } => {
                write!(f, "tokenizer: {found} tokens, but the header says {vocab_size}")
            }
            Self::FileTooLarge => write!(f, "tokenizer: the file would exceed {MAX_FILE_BYTES} bytes"),
        }
    }
}

impl<E: core::error::Error> core::error::Error for TokenizerWriteError<E> {}

#[cfg(test)]
mod tests {
    use super::super::TokenizerFile;
    use super::*;
    use proptest::prelude::*;
    use std::{string::String, vec, vec::Vec};

    fn write(header: &TokenizerHeader<'_>, tokens: &[(f32, Vec<u8>)]) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let mut writer = TokenizerWriter::new(buffer.as_mut_slice(), header).unwrap();
        for (score, token) in tokens {
            writer.push(*score, token).unwrap();
        }
        let left = writer.finish().unwrap().len();
        buffer.truncate(buffer.len() - left);
        buffer
    }

    proptest! {
        #[test]
        fn parse_of_write_is_identity(
            tokens in prop::collection::vec((-1e6f32..1e6, prop::collection::vec(any::<u8>(), 1..20)), 1..40),
            bos in any::<Option<prop::sample::Index>>(),
            eos in prop::collection::vec(any::<prop::sample::Index>(), 0..=4),
            add_bos: bool,
            template in any::<Option<String>>(),
        ) {
            let template = template.filter(|text| !text.is_empty());
            let header = TokenizerHeader {
                vocab_size: tokens.len() as u32,
                max_token_len: 20,
                bos: bos.map(|index| index.index(tokens.len()) as u32),
                eos: eos.iter().map(|index| index.index(tokens.len()) as u32).collect(),
                add_bos,
                chat_template: template.as_deref(),
            };
            let bytes = write(&header, &tokens);
            let file = TokenizerFile::parse(&bytes).unwrap();
            prop_assert_eq!(file.header(), &header);
            let read: Vec<_> = file.tokens().map(|(score, token)| (score, token.to_vec())).collect();
            prop_assert_eq!(read, tokens);
        }
    }

    const HEADER: TokenizerHeader<'static> = TokenizerHeader {
        vocab_size: 2,
        max_token_len: 3,
        bos: Some(1),
        eos: heapless::Vec::new(),
        add_bos: true,
        chat_template: None,
    };

    #[test]
    fn pairs_stand_in_the_converters_order() {
        let header = TokenizerHeader { chat_template: Some("tm"), ..HEADER };
        let bytes = write(&header, &[(0.0, b"a".to_vec()), (0.0, b"b".to_vec())]);
        let words: Vec<u32> = bytes[..64].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [0x567124, 64, 3, 1, 0, 1, 1, 2, 2, 3, 7, 2, 9, 0, 10, 1]);
    }

    #[test]
    fn what_no_reader_accepts_is_not_written() {
        let mut buffer = [0; 256];
        let header = |change: fn(&mut TokenizerHeader<'static>)| {
            let mut header = HEADER;
            change(&mut header);
            header
        };
        for bad in [
            header(|h| h.vocab_size = 0),
            header(|h| h.vocab_size = MAX_VOCAB_SIZE + 1),
            header(|h| h.max_token_len = MAX_TOKEN_BYTES + 1),
            header(|h| h.bos = Some(2)),
            header(|h| h.eos.push(2).unwrap()),
        ] {
            let error = TokenizerWriter::new(buffer.as_mut_slice(), &bad).err().unwrap();
            assert!(matches!(error, TokenizerWriteError::OutOfRange { .. }), "{error:?}");
        }
        let mut writer = TokenizerWriter::new(buffer.as_mut_slice(), &HEADER).unwrap();
        assert!(matches!(writer.push(0.0, b""), Err(TokenizerWriteError::TokenLength { id: 0, found: 0, max: 3 })));
        assert!(matches!(writer.push(0.0, b"abcd"), Err(TokenizerWriteError::TokenLength { found: 4, .. })));
        assert!(matches!(writer.push(f32::INFINITY, b"a"), Err(TokenizerWriteError::Score { id: 0, .. })));
        writer.push(0.0, b"a").unwrap();
        writer.push(0.0, b"b").unwrap();
        assert!(matches!(writer.push(0.0, b"c"), Err(TokenizerWriteError::Count { found: 3, vocab_size: 2 })));

        let writer = TokenizerWriter::new(buffer.as_mut_slice(), &HEADER).unwrap();
        assert!(matches!(writer.finish(), Err(TokenizerWriteError::Count { found: 0, vocab_size: 2 })));
    }
}
