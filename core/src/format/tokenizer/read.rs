//! Bytes to a checked view.

use super::pipeline::{PIPELINE_MAGIC, Pipeline};
use super::{
    MAGIC, MAGIC_OLD, MAX_EOS, MAX_FILE_BYTES, MAX_TEMPLATE_BYTES, MAX_TOKEN_BYTES, MAX_VOCAB_SIZE, TokenizerError,
    TokenizerHeader, key,
};

/// More pairs than any writer makes; C++ headers have at most a dozen.
const MAX_PAIRS: i64 = 64;
const HEADER_SIZE: &str = "header size (a multiple of 8)";

/// A tokenizer file whose every byte was checked, as a view of these bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerFile<'a> {
    header: TokenizerHeader<'a>,
    entries: &'a [u8],
    pipeline: Option<Pipeline<'a>>,
}

impl<'a> TokenizerFile<'a> {
    /// Checks all of `bytes`, the whole file in either format.
    ///
    /// # Errors
    /// Whatever is not as the format wants it, with its place; limits are the `MAX_` constants of this module.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TokenizerError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(TokenizerError::FileTooLarge { bytes: bytes.len() });
        }
        let mut reader = Reader { bytes, offset: 0 };
        let header = match reader.i32("magic number")? as u32 {
            MAGIC => current_header(&mut reader)?,
            MAGIC_OLD => old_header(&mut reader)?,
            found => return Err(TokenizerError::Magic { found }),
        };
        let start = reader.offset;
        for id in 0..header.vocab_size {
            check_token(&mut reader, id, header.max_token_len)?;
        }
        let (entries, behind) = (&bytes[start..reader.offset], &bytes[reader.offset..]);
        let pipeline = match behind.first_chunk() {
            None if behind.is_empty() => None,
            Some(magic) if u32::from_le_bytes(*magic) == PIPELINE_MAGIC => {
                Some(Pipeline::parse(behind, reader.offset, header.vocab_size)?)
            }
            _ => return Err(TokenizerError::TrailingBytes { offset: reader.offset, extra: behind.len() }),
        };
        Ok(Self { header, entries, pipeline })
    }

    /// Everything but the tokens.
    pub fn header(&self) -> &TokenizerHeader<'a> {
        &self.header
    }

    /// How the model's own tokenizer cuts text, where the file says so.
    pub fn pipeline(&self) -> Option<&Pipeline<'a>> {
        self.pipeline.as_ref()
    }

    /// The tokens with their scores, in the order of their ids.
    pub fn tokens(&self) -> Tokens<'a> {
        Tokens { rest: self.entries }
    }

    /// The tokens as they stand in the file: score, length, bytes, without gaps.
    pub(crate) fn entries(&self) -> &'a [u8] {
        self.entries
    }
}

/// Iterator over `(score, bytes)` of a checked file.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (f32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (score, rest) = self.rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (token, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some((f32::from_le_bytes(*score), token))
    }
}

fn current_header<'a>(reader: &mut Reader<'a>) -> Result<TokenizerHeader<'a>, TokenizerError> {
    let header_bytes = reader.ranged(HEADER_SIZE, 8, 8 + 8 * MAX_PAIRS)?;
    if header_bytes % 8 != 0 {
        let below = header_bytes / 8 * 8;
        return Err(out_of_range(HEADER_SIZE, reader.offset - 4, header_bytes, below, below + 8));
    }
    let (mut version, mut vocab_size, mut max_token_len, mut bos) = (None, None, None, None);
    let (mut add_bos, mut template_bytes, mut n_eos, mut skipped_bytes) = (1, 0, 0, 0);
    let mut eos = EosIds::new();
    for _ in 1..header_bytes / 8 {
        let key = reader.i32("header key")?;
        match key {
            key::VERSION => version = Some(reader.ranged("version", 1, 1)?),
            key::VOCAB_SIZE => vocab_size = Some(reader.vocab_size()?),
            key::MAX_TOKEN_LEN => max_token_len = Some(reader.max_token_len()?),
            key::BOS => bos = reader.optional_id("BOS id")?,
            key::EOS => push_eos(&mut eos, reader.optional_id("EOS id")?)?,
            key::CHAT_EOS => push_eos(&mut eos, reader.optional_id("chat EOS id")?)?,
            key::PAD => {
                reader.i32("padding id")?;
            }
            key::TEMPLATE_BYTES => {
                template_bytes = reader.ranged("chat template length", 0, i64::from(MAX_TEMPLATE_BYTES))?;
            }
            key::SKIPPED_BYTES => {
                skipped_bytes += reader.ranged("chat stop length", 0, i64::from(MAX_TEMPLATE_BYTES))?;
            }
            key::N_EOS => n_eos = reader.ranged("number of EOS ids", 0, MAX_EOS as i64)?,
            key::ADD_BOS => add_bos = reader.i32("add BOS")?,
            _ => return Err(TokenizerError::UnknownKey { key, offset: reader.offset - 4 }),
        }
    }
    let missing = |field, key| TokenizerError::MissingKey { field, key };
    version.ok_or(missing("the version", key::VERSION))?;
    let vocab_size = vocab_size.ok_or(missing("the vocab size", key::VOCAB_SIZE))?;
    let max_token_len = max_token_len.ok_or(missing("the max token length", key::MAX_TOKEN_LEN))?;

    reader.take("legacy chat stop", skipped_bytes as usize)?;
    let template_offset = reader.offset;
    let template = reader.take("chat template", template_bytes as usize)?;
    let template = core::str::from_utf8(template)
        .map_err(|error| TokenizerError::TemplateNotUtf8 { offset: template_offset + error.valid_up_to() })?;
    for _ in 0..n_eos {
        let id = reader.id("EOS id")?;
        push_eos(&mut eos, Some(id))?;
    }
    Ok(TokenizerHeader {
        vocab_size,
        max_token_len,
        bos: bos.map(|id| id.checked(vocab_size)).transpose()?,
        eos: eos.iter().map(|id| id.checked(vocab_size)).collect::<Result<_, _>>()?,
        add_bos: add_bos == 1,
        chat_template: (!template.is_empty()).then_some(template),
    })
}

fn old_header<'a>(reader: &mut Reader<'a>) -> Result<TokenizerHeader<'a>, TokenizerError> {
    let vocab_size = reader.vocab_size()?;
    let max_token_len = reader.max_token_len()?;
    let bos = reader.optional_id("BOS id")?;
    let eos = reader.optional_id("EOS id")?;
    reader.i32("padding id")?;
    Ok(TokenizerHeader {
        vocab_size,
        max_token_len,
        bos: bos.map(|id| id.checked(vocab_size)).transpose()?,
        eos: eos.iter().map(|id| id.checked(vocab_size)).collect::<Result<_, _>>()?,
        add_bos: true,
        chat_template: None,
    })
}

fn check_token(reader: &mut Reader<'_>, id: u32, max_token_len: u32) -> Result<(), TokenizerError> {
    let offset = reader.offset;
    let score = f32::from_bits(reader.i32("score of a token")? as u32);
    if !score.is_finite() {
        return Err(TokenizerError::Score { id, offset, found: score });
    }
    let found = reader.i32("length of a token")?;
    if found < 1 || found as u32 > max_token_len {
        return Err(TokenizerError::TokenLength { id, offset: offset + 4, found, max: max_token_len });
    }
    reader.take("bytes of a token", found as usize)?;
    Ok(())
}

/// A token id as it was read. It can be checked only once the vocab size is known.
#[derive(Clone, Copy, Debug)]
struct Id {
    field: &'static str,
    offset: usize,
    value: i32,
}

impl Id {
    fn checked(&self, vocab_size: u32) -> Result<u32, TokenizerError> {
        match u32::try_from(self.value) {
            Ok(id) if id < vocab_size => Ok(id),
            _ => Err(out_of_range(self.field, self.offset, i64::from(self.value), 0, i64::from(vocab_size) - 1)),
        }
    }
}

type EosIds = heapless::Vec<Id, MAX_EOS>;

fn push_eos(eos: &mut EosIds, id: Option<Id>) -> Result<(), TokenizerError> {
    let Some(id) = id else { return Ok(()) };
    let one_too_many = MAX_EOS as i64 + 1;
    eos.push(id).map_err(|id| out_of_range("number of EOS ids", id.offset, one_too_many, 0, one_too_many - 1))
}

fn out_of_range(field: &'static str, offset: usize, found: i64, min: i64, max: i64) -> TokenizerError {
    TokenizerError::OutOfRange { field, offset, found, min, max }
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], TokenizerError> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..needed).ok_or(TokenizerError::Truncated {
            field,
            offset: self.offset,
            needed,
            available: rest.len(),
        })?;
        self.offset += needed;
        Ok(taken)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, TokenizerError> {
        let bytes = self.take(field, 4)?;
        Ok(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn ranged(&mut self, field: &'static str, min: i64, max: i64) -> Result<i64, TokenizerError> {
        let found = i64::from(self.i32(field)?);
        if found < min || found > max {
            return Err(out_of_range(field, self.offset - 4, found, min, max));
        }
        Ok(found)
    }

    fn vocab_size(&mut self) -> Result<u32, TokenizerError> {
        Ok(self.ranged("vocab size", 1, i64::from(MAX_VOCAB_SIZE))? as u32)
    }

    fn max_token_len(&mut self) -> Result<u32, TokenizerError> {
        Ok(self.ranged("max token length", 1, i64::from(MAX_TOKEN_BYTES))? as u32)
    }

    fn id(&mut self, field: &'static str) -> Result<Id, TokenizerError> {
        let value = self.i32(field)?;
        Ok(Id { field, offset: self.offset - 4, value })
    }

    /// -1 stands for "none".
    fn optional_id(&mut self, field: &'static str) -> Result<Option<Id>, TokenizerError> {
        let id = self.id(field)?;
        Ok((id.value != -1).then_some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::ToString, vec, vec::Vec};

    fn ints(values: &[i32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn token(score: f32, token: &[u8]) -> Vec<u8> {
        [&score.to_le_bytes(), &(token.len() as i32).to_le_bytes(), token].concat()
    }

    /// Header with these pairs, then `rest`.
    fn file(pairs: &[[i32; 2]], rest: &[&[u8]]) -> Vec<u8> {
        let mut bytes = ints(&[0x567124, 8 + 8 * pairs.len() as i32]);
        bytes.extend(ints(pairs.as_flattened()));
        bytes.extend(rest.concat());
        bytes
    }

    const PAIRS: [[i32; 2]; 5] = [[3, 1], [0, 1], [1, 2], [2, 3], [10, 0]];

    #[test]
    fn reads_the_current_format() {
        let pairs = [PAIRS.as_slice(), &[[4, 1], [5, 99], [6, 0], [7, 4], [8, 3], [9, 1]]].concat();
        let bytes = file(&pairs, &[b"old", b"tmpl", &ints(&[1]), &token(-0.5, b"abc"), &token(2.0, b"\0")]);
        let file = TokenizerFile::parse(&bytes).unwrap();
        let header = file.header();
        assert_eq!((header.vocab_size, header.max_token_len, header.bos), (2, 3, Some(1)));
        assert_eq!(header.eos, [1, 0, 1]);
        assert_eq!((header.add_bos, header.chat_template), (false, Some("tmpl")));
        assert!(!header.is_special(0) && header.is_special(1));
        assert_eq!(file.tokens().collect::<Vec<_>>(), [(-0.5, b"abc".as_slice()), (2.0, b"\0")]);
    }

    #[test]
    fn reads_the_old_format() {
        let bytes = [ints(&[0x567123, 2, 3, 0, -1, -1]), token(0.0, b"ab"), token(1.0, b"c")].concat();
        let file = TokenizerFile::parse(&bytes).unwrap();
        let header = file.header();
        assert_eq!((header.vocab_size, header.max_token_len, header.bos), (2, 3, Some(0)));
        assert!(header.eos.is_empty() && header.add_bos && header.chat_template.is_none());
        assert_eq!(file.tokens().count(), 2);
    }

    #[test]
    fn without_bos_only_eos_tokens_are_special() {
        let pairs = [[0, 1], [1, 3], [2, 1], [3, -1], [4, 1]];
        let bytes = file(&pairs, &[&token(0.0, b"a"), &token(0.0, b"b"), &token(0.0, b"c")]);
        let file = TokenizerFile::parse(&bytes).unwrap();
        assert_eq!(file.header().bos, None);
        assert_eq!([0, 1, 2].map(|id| file.header().is_special(id)), [false, true, false]);
        assert!(file.header().add_bos, "files that do not say add BOS");
    }

    #[test]
    fn every_cut_is_reported_as_truncated() {
        let pairs = [PAIRS.as_slice(), &[[7, 4], [9, 1]]].concat();
        let bytes = file(&pairs, &[b"tmpl", &ints(&[1]), &token(0.0, b"ab"), &token(0.0, b"c")]);
        TokenizerFile::parse(&bytes).unwrap();
        for end in 0..bytes.len() {
            match TokenizerFile::parse(&bytes[..end]) {
                Err(TokenizerError::Truncated { offset, needed, available, .. }) => {
                    assert_eq!((offset + available, needed > available), (end, true));
                }
                other => panic!("cut at {end}: {other:?}"),
            }
        }
    }

    #[test]
    fn errors_say_what_where_and_what_is_allowed() {
        let tokens = [token(0.0, b"ab"), token(0.0, b"c")].concat();
        let with = |pair: [i32; 2]| file(&[PAIRS.as_slice(), &[pair]].concat(), &[&tokens]);
        let cases = [
            (b"GGUF".to_vec(), "begins with 0x46554747, allowed are 0x00567124 and 0x00567123"),
            (ints(&[0x567124, 7]), "header size (a multiple of 8) at byte 4 is 7, allowed are 8 to 520"),
            (ints(&[0x567124, 20]), "at byte 4 is 20, allowed are 16 to 24"),
            (ints(&[0x567124, i32::MIN]), "at byte 4 is -2147483648"),
            (with([0, 2]), "version at byte 52 is 2, allowed are 1 to 1"),
            (with([1, 0]), "vocab size at byte 52 is 0, allowed are 1 to 1048576"),
            (with([1, i32::MAX]), "vocab size at byte 52 is 2147483647"),
            (with([2, 4097]), "max token length at byte 52 is 4097, allowed are 1 to 4096"),
            (with([3, 2]), "BOS id at byte 52 is 2, allowed are 0 to 1"),
            (with([3, -2]), "BOS id at byte 52 is -2"),
            (with([4, 2]), "EOS id at byte 52 is 2, allowed are 0 to 1"),
            (with([7, -1]), "chat template length at byte 52 is -1, allowed are 0 to 1048576"),
            (with([7, 1000]), "chat template at byte 56 takes 1000 bytes, 19 are left"),
            (with([8, 1000]), "legacy chat stop at byte 56 takes 1000 bytes, 19 are left"),
            (with([9, 33]), "number of EOS ids at byte 52 is 33, allowed are 0 to 32"),
            (with([11, 0]), "unknown header key 11 at byte 48, allowed are 0 to 10"),
            (with([-1, 0]), "unknown header key -1 at byte 48"),
            (file(&[[0, 1], [1, 1], [2, 3]], &[&tokens]), "9 bytes follow the last token at byte 42"),
            (with([2, 1]), "length of token 0 at byte 60 is 2, allowed are 1 to 1 bytes"),
            (file(&PAIRS[..4], &[&token(0.0, b""), &tokens]), "length of token 0 at byte 44 is 0, allowed are 1 to 3"),
            (file(&PAIRS[..4], &[&token(f32::NAN, b"a"), &tokens]), "score of token 0 at byte 40 is NaN"),
            (file(&[[0, 1], [1, 2]], &[&tokens]), "header lacks the max token length (key 2)"),
            (file(&[[2, 1], [1, 2]], &[&tokens]), "header lacks the version (key 0)"),
            (file(&[[0, 1]], &[&tokens]), "header lacks the vocab size (key 1)"),
            (file(&[PAIRS.as_slice(), &[[7, 4]]].concat(), &[b"ab\xffd"]), "not UTF-8 at byte 58"),
        ];
        for (bytes, expected) in cases {
            let message = TokenizerFile::parse(&bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
        let many = vec![[4, 1]; MAX_EOS + 1];
        let message = TokenizerFile::parse(&file(&many, &[])).unwrap_err().to_string();
        assert!(message.contains(&format!("number of EOS ids at byte {}", 8 + 8 * MAX_EOS + 4)), "{message}");
    }
}
