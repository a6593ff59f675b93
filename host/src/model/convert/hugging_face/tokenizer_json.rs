//! tokenizer.json: its tokens, and the rule by which they are merged.

use super::json;
use super::steps::{self, Cut};
use crate::model::alphabet;
use crate::model::convert::error::ConvertError;
use crate::model::convert::pipeline::Pipeline;
use crate::model::convert::vocabulary::{Token, byte_piece, sentencepiece, unused_token};
use dair_core::format::tokenizer::{Added, Flags, Kind, Method};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The file.
#[derive(Deserialize)]
pub struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    post_processor: Option<Value>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Pair>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    dropout: Option<f64>,
}

/// A merge, in the two forms in which files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Line(String),
    Parts([String; 2]),
}

impl Pair {
    fn parts(&self) -> Option<(&str, &str)> {
        match self {
            Self::Line(line) => line.split_once(' '),
            Self::Parts([left, right]) => Some((left, right)),
        }
    }
}

impl TokenizerJson {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, ConvertError> {
        json::read_as(path)
    }

    /// Whether a character without a token becomes its bytes.
    pub fn has_byte_fallback(&self) -> bool {
        self.model.byte_fallback == Some(true)
    }

    /// Whether it says what goes around a text.
    pub fn has_post_processor(&self) -> bool {
        self.post_processor.is_some()
    }

    /// Texts of the tokens put before and behind a text.
    pub fn around(&self) -> [Vec<&str>; 2] {
        let mut around = [Vec::new(), Vec::new()];
        if let Some(part) = &self.post_processor {
            collect_around(part, &mut around);
        }
        around
    }

    /// The tokens of a model whose embedding has `vocab_size` rows, ids as they are, and how text becomes them. Rows without a
    /// token get one that nothing is encoded to.
    pub fn tokens(&self, path: &Path, vocab_size: u32) -> Result<(Vec<Token>, Pipeline), ConvertError> {
        let refused = |field: &str, found: String, allowed: &str| ConvertError::refused(path, field, found, allowed);
        let model = &self.model;
        self.check_model(path)?;
        let cut = steps::read(self.normalizer.as_ref(), self.pre_tokenizer.as_ref())
            .map_err(|(field, found, allowed)| refused(&field, found, allowed))?;
        let byte_level_decoder = self.decoder.as_ref().is_some_and(|part| has_type(part, "ByteLevel"));
        let is_byte_level = cut.byte_level || byte_level_decoder;
        if !is_byte_level && !self.has_byte_fallback() {
            return Err(refused(
                "model",
                "BPE of characters".into(),
                "allowed: byte-level BPE, or BPE with byte_fallback",
            ));
        }
        let vocab = HashMap::<String, u32>::deserialize(&model.vocab)
            .map_err(|source| ConvertError::Json { path: path.to_owned(), source })?;
        let mut tokens: Vec<Option<Token>> = vec![None; vocab_size as usize];
        let mut put = |id: u32, text: &str, token: Token, replaces: bool| -> Result<(), ConvertError> {
            let rows = tokens.len();
            let field = format!("id of token {text:?}");
            match tokens.get_mut(id as usize) {
                None => Err(refused(&field, id.to_string(), &format!("the embedding has {rows} rows"))),
                Some(Some(_)) if !replaces => Err(refused(&field, id.to_string(), "another token has it")),
                Some(slot) => {
                    *slot = Some(if token.bytes.is_empty() { unused_token(id as usize) } else { token });
                    Ok(())
                }
            }
        };
        for (text, id) in &vocab {
            let token = match byte_piece(text).filter(|_| self.has_byte_fallback()) {
                Some(byte) => Token { kind: Kind::Byte, ..Token::normal(vec![byte]) },
                None if is_byte_level => Token::normal(alphabet::spelled(text)),
                None => Token::normal(sentencepiece(text)),
            };
            put(*id, text, token, false)?;
        }
        for added in &self.added_tokens {
            put(added.id, &added.content, added.token(is_byte_level), true)?;
        }
        let tokens: Vec<_> =
            tokens.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| unused_token(id))).collect();
        let pipeline = self.pipeline(path, &vocab, cut, is_byte_level)?;
        Ok((tokens, pipeline))
    }

    /// Refuses what is not BPE, and variants of it that no model of these architectures has.
    fn check_model(&self, path: &Path) -> Result<(), ConvertError> {
        let model = &self.model;
        if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
            return Err(ConvertError::refused(path, "model.type", format!("{kind:?}"), "allowed: BPE"));
        }
        let parts = [
            ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
            ("model.end_of_word_suffix", &model.end_of_word_suffix),
        ];
        for (field, text) in parts {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                return Err(ConvertError::refused(path, field, format!("{text:?}"), "allowed: none"));
            }
        }
        match model.dropout.filter(|dropout| *dropout > 0.0) {
            Some(dropout) => Err(ConvertError::refused(path, "model.dropout", dropout, "allowed: none")),
            None => Ok(()),
        }
    }

    fn pipeline(
        &self,
        path: &Path,
        vocab: &HashMap<String, u32>,
        cut: Cut,
        byte_level: bool,
    ) -> Result<Pipeline, ConvertError> {
        let model = &self.model;
        let mut merges = Vec::with_capacity(model.merges.len());
        let mut whole = String::new();
        for (rank, pair) in model.merges.iter().enumerate() {
            let known = |text: &str| vocab.get(text).copied();
            let merge = pair.parts().and_then(|(left, right)| {
                whole.clear();
                whole.push_str(left);
                whole.push_str(right);
                Some([known(left)?, known(right)?, known(&whole)?])
            });
            merges.push(merge.ok_or_else(|| {
                let found = pair.parts().map_or("no pair".into(), |pair| format!("{pair:?}"));
                let allowed = "a merge is two tokens that make a third";
                ConvertError::refused(path, format!("model.merges, number {rank}"), found, allowed)
            })?);
        }
        let unknown = model.unk_token.as_deref().and_then(|text| vocab.get(text).copied());
        let flags = Flags {
            ignore_merges: model.ignore_merges == Some(true),
            byte_fallback: self.has_byte_fallback(),
            fuse_unknown: model.fuse_unk == Some(true),
            byte_level,
            strip_blank: cut.blank_prefix
                && self.decoder.as_ref().is_some_and(|part| has_type(part, "Strip") || has_type(part, "Metaspace")),
        };
        Ok(Pipeline { flags, unknown, merges, steps: cut.steps, ..Pipeline::of(Method::Merges) })
    }
}

impl AddedToken {
    fn token(&self, byte_level: bool) -> Token {
        let &Self { lstrip, rstrip, single_word, normalized, special, .. } = self;
        // Where the alphabet is characters, U+2581 decodes to a blank. In a text it stands for itself, until that is normalized.
        let has_sign = !byte_level && self.content.contains('\u{2581}');
        let blank_sign = has_sign && !normalized && !self.content.contains(' ');
        let bytes = match blank_sign || (has_sign && normalized) {
            true => sentencepiece(&self.content),
            false => self.content.clone().into_bytes(),
        };
        let kind = if special { Kind::Control } else { Kind::UserDefined };
        Token { kind, added: Added { lstrip, rstrip, single_word, normalized, blank_sign }, ..Token::normal(bytes) }
    }
}

/// Whether a component, or one that it is made of, has this type.
fn has_type(part: &Value, kind: &str) -> bool {
    match part {
        Value::Object(map) => {
            map.get("type").and_then(Value::as_str) == Some(kind) || map.values().any(|inner| has_type(inner, kind))
        }
        Value::Array(list) => list.iter().any(|inner| has_type(inner, kind)),
        _ => false,
    }
}

/// The tokens that a template of a post-processor puts around one text.
fn collect_around<'v>(part: &'v Value, around: &mut [Vec<&'v str>; 2]) {
    for inner in part.get("processors").and_then(Value::as_array).into_iter().flatten() {
        collect_around(inner, around);
    }
    let mut side = 0;
    for piece in part.get("single").and_then(Value::as_array).into_iter().flatten() {
        if piece.get("Sequence").is_some() {
            side = 1;
        }
        if let Some(id) = piece.get("SpecialToken").and_then(|token| token.get("id")?.as_str()) {
            around[side].push(id);
        }
    }
}
