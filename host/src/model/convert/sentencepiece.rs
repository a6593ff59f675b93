//! `tokenizer.model`: the vocabulary of a sentencepiece BPE model, a protobuf message.
//!
//! Read are, by their field numbers in sentencepiece's `ModelProto`: pieces (1: text 1, score 2, type 3), trainer (2: model
//! type 3, ids of unknown, BOS and EOS 40 to 42) and normalizer (3: name 1, compiled map 2, add_dummy_prefix 3,
//! remove_extra_whitespaces 4).

use super::error::ConvertError;
use super::pipeline::{Pipeline, sentencepiece_steps};
use super::source::SourceFile;
use super::vocabulary::{Token, byte_piece, sentencepiece, unused_token};
use dair_core::format::tokenizer::{Added, Flags, Kind, MAX_VOCAB_SIZE, Method};
use std::path::Path;

/// Largest file read: several times the largest published.
const MAX_BYTES: u64 = 64 << 20;
/// `TrainerSpec.ModelType` of BPE; 1 is Unigram.
const BPE: u64 = 2;

/// Reads the tokens of a model whose embedding has `vocab_size` rows. `added` are tokens that stand beside the file.
///
/// # Errors
/// Names what is broken, or of a kind other than BPE without a map of characters.
pub fn read(
    path: &Path,
    added: Vec<(u32, String, bool)>,
    vocab_size: u32,
) -> Result<(Vec<Token>, Pipeline), ConvertError> {
    let file = SourceFile::open(path)?;
    if file.bytes > MAX_BYTES {
        return Err(ConvertError::refused(path, "size", file.bytes, format!("allowed: up to {MAX_BYTES} bytes")));
    }
    let bytes = file.read(0, file.bytes)?;
    let model = Model::parse(&bytes).ok_or_else(|| {
        ConvertError::refused(path, "content", "no sentencepiece model", "the file may be cut short; download it again")
    })?;
    model.check(path)?;
    let mut tokens: Vec<Token> = (0..vocab_size as usize).map(unused_token).collect();
    for (id, token) in model.pieces.into_iter().enumerate() {
        put(path, &mut tokens, id as u64, token)?;
    }
    for (id, text, special) in added {
        // A piece of the file with the same text is what is meant.
        let is_known = tokens.get(id as usize).is_some_and(|token| token.bytes == text.as_bytes());
        let kind = if special { Kind::Control } else { Kind::UserDefined };
        match tokens.get_mut(id as usize) {
            Some(token) if is_known && special => token.kind = kind,
            Some(_) if is_known => {}
            _ => put(path, &mut tokens, id.into(), Token { kind, ..Token::normal(text.into_bytes()) })?,
        }
    }
    let flags = Flags { byte_fallback: true, strip_blank: model.dummy_prefix, ..Flags::default() };
    let steps = sentencepiece_steps(model.dummy_prefix);
    Ok((tokens, Pipeline { flags, steps, unknown: model.unknown, ..Pipeline::of(Method::Scores) }))
}

fn put(path: &Path, tokens: &mut [Token], id: u64, token: Token) -> Result<(), ConvertError> {
    let rows = tokens.len();
    match tokens.get_mut(id as usize) {
        Some(slot) => {
            *slot = if token.bytes.is_empty() { unused_token(id as usize) } else { token };
            Ok(())
        }
        None => {
            let text = String::from_utf8_lossy(&token.bytes).into_owned();
            let allowed = format!("the embedding has {rows} rows");
            Err(ConvertError::refused(path, format!("id of token {text:?}"), id, allowed))
        }
    }
}

/// What the file says.
struct Model {
    pieces: Vec<Token>,
    kind: u64,
    unknown: Option<u32>,
    normalizer: String,
    has_map: bool,
    dummy_prefix: bool,
    removes_blanks: bool,
}

impl Model {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            kind: 1,
            unknown: Some(0),
            normalizer: String::new(),
            has_map: false,
            dummy_prefix: true,
            removes_blanks: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.pieces.push(piece_token(piece)?),
                (2, Field::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Field::Varint(kind)) => model.kind = kind,
                            (40, Field::Varint(id)) => model.unknown = u32::try_from(id).ok(),
                            _ => {}
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        match field? {
                            (1, Field::Bytes(name)) => model.normalizer = String::from_utf8_lossy(name).into_owned(),
                            (2, Field::Bytes(map)) => model.has_map = !map.is_empty(),
                            (3, Field::Varint(flag)) => model.dummy_prefix = flag != 0,
                            (4, Field::Varint(flag)) => model.removes_blanks = flag != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            if model.pieces.len() > MAX_VOCAB_SIZE as usize {
                return None;
            }
        }
        (!model.pieces.is_empty()).then_some(model)
    }

    fn check(&self, path: &Path) -> Result<(), ConvertError> {
        let beside = "a tokenizer.json beside it would be read instead";
        if self.kind != BPE {
            let kind =
                ["of no kind", "Unigram", "BPE", "words", "characters"].get(self.kind as usize).unwrap_or(&"unknown");
            return Err(ConvertError::refused(path, "model type", kind, format!("allowed: BPE; {beside}")));
        }
        if self.has_map {
            let allowed = format!("allowed: identity; {beside}");
            return Err(ConvertError::refused(path, "normalizer", format!("{:?}", self.normalizer), allowed));
        }
        if self.removes_blanks {
            let allowed = format!("allowed: false; {beside}");
            return Err(ConvertError::refused(path, "remove_extra_whitespaces", "true", allowed));
        }
        Ok(())
    }
}

/// One `SentencePiece`.
fn piece_token(bytes: &[u8]) -> Option<Token> {
    let (mut text, mut score, mut code) = ("", 0.0, 1);
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => text = std::str::from_utf8(bytes).ok()?,
            (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
            (3, Field::Varint(value)) => code = value,
            _ => {}
        }
    }
    let (kind, bytes) = match code {
        1 => (Kind::Normal, sentencepiece(text)),
        2 => (Kind::Unknown, text.into()),
        3 => (Kind::Control, text.into()),
        4 => (Kind::UserDefined, sentencepiece(text)),
        5 => (Kind::Unused, sentencepiece(text)),
        6 => (Kind::Byte, byte_piece(text).map_or_else(|| text.into(), |byte| vec![byte])),
        _ => return None,
    };
    // User-defined symbols are looked for where blanks are U+2581 already.
    let added = Added { normalized: kind == Kind::UserDefined, ..Added::default() };
    Some(Token { bytes, score: Some(score).filter(|score| score.is_finite()), kind, added })
}

/// The fields of a protobuf message, in order; `None` once where it is broken.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(usize::try_from(len).ok()?)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, field))
    }

    /// Up to 64 bits, seven in a byte, the lowest first.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}
