//! The tokens of a GGUF file.

use super::reader::Gguf;
use super::value::{Array, Value, ValueType};
use crate::model::convert::error::ConvertError;
use crate::model::convert::vocabulary::{
    Token, TokenKind, Vocabulary, byte_level, byte_piece, sentencepiece, unused_token,
};
use std::path::Path;

/// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
const NORMAL: i128 = 1;
const BYTE: i128 = 6;

/// How the vocabulary spells its tokens.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    ByteLevel,
    Sentencepiece,
}

/// Reads the vocabulary, ids as they are.
pub fn read(gguf: &Gguf<'_>, path: &Path) -> Result<Vocabulary, ConvertError> {
    let wrong = |source| ConvertError::Gguf { path: path.to_owned(), source };
    let refused = |field: &str, found: String, allowed: String| ConvertError::refused(path, field, found, allowed);
    let model = gguf.str("tokenizer.ggml.model").map_err(wrong)?;
    let spelling = match model {
        Some("gpt2") => Spelling::ByteLevel,
        Some("llama") => Spelling::Sentencepiece,
        Some(other) => {
            return Err(refused("tokenizer.ggml.model", format!("{other:?}"), "allowed: gpt2, llama".into()));
        }
        None => return Err(ConvertError::missing(path, "tokenizer.ggml.model")),
    };
    let array = |key: &str, allowed: &[ValueType], len: Option<usize>| -> Result<Option<Array<'_>>, ConvertError> {
        let array = gguf.array(key, allowed).map_err(wrong)?;
        match (array, len) {
            (Some(array), Some(len)) if array.len != len => {
                Err(refused(key, format!("{} values long", array.len), format!("there are {len} tokens")))
            }
            _ => Ok(array),
        }
    };
    let texts = array("tokenizer.ggml.tokens", &[ValueType::Str], None)?
        .ok_or_else(|| ConvertError::missing(path, "tokenizer.ggml.tokens"))?;
    let kinds = array("tokenizer.ggml.token_type", &[ValueType::I32, ValueType::U32], Some(texts.len))?
        .ok_or_else(|| ConvertError::missing(path, "tokenizer.ggml.token_type"))?;
    let scores = match spelling {
        Spelling::ByteLevel => None,
        Spelling::Sentencepiece => array("tokenizer.ggml.scores", &[ValueType::F32], Some(texts.len))?
            .ok_or_else(|| ConvertError::missing(path, "tokenizer.ggml.scores"))
            .map(Some)?,
    };

    let mut tokens = Vec::new();
    let mut scores = scores.map(|scores| scores.iter());
    for (id, (text, kind)) in texts.iter().zip(kinds.iter()).enumerate() {
        let score = match scores.as_mut().and_then(Iterator::next) {
            Some(Value::Float(score)) => Some(score as f32),
            _ => None,
        };
        let (Value::Str(text), Value::Int(kind)) = (text, kind) else { unreachable!("element types were checked") };
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(refused(&format!("token {id}"), format!("{text:02x?}"), "tokens must be UTF-8".into()));
        };
        tokens.push(token(id, text, kind, score, spelling));
    }

    let id = |key: &str| -> Result<Option<u32>, ConvertError> {
        match gguf.int(key).map_err(wrong)? {
            None => Ok(None),
            Some(found) => match u32::try_from(found) {
                Ok(id) if (id as usize) < tokens.len() => Ok(Some(id)),
                _ => Err(refused(key, found.to_string(), format!("the vocabulary has {} tokens", tokens.len()))),
            },
        }
    };
    let bos = id("tokenizer.ggml.bos_token_id")?;
    let mut eos = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        if let Some(id) = id(key)?.filter(|id| !eos.contains(id)) {
            eos.push(id);
        }
    }
    let stated = gguf.bool("tokenizer.ggml.add_bos_token").map_err(wrong)?;
    let pre = gguf.str("tokenizer.ggml.pre").map_err(wrong)?;
    // Files without the flag mean what their kind of vocabulary was trained with.
    let usual = spelling == Spelling::Sentencepiece || matches!(pre, Some("llama3" | "llama-v3" | "llama-bpe"));
    let chat_template = gguf.str("tokenizer.chat_template").map_err(wrong)?.map(str::to_owned);
    let mut vocabulary = Vocabulary { tokens, bos, eos, add_bos: stated.unwrap_or(usual), chat_template };
    vocabulary.complete_eos();
    Ok(vocabulary)
}

fn token(id: usize, text: &str, kind: i128, score: Option<f32>, spelling: Spelling) -> Token {
    let (bytes, kind) = match kind {
        _ if text.is_empty() => return unused_token(id),
        NORMAL if spelling == Spelling::ByteLevel => (byte_level(text), TokenKind::Regular),
        NORMAL => (sentencepiece(text), TokenKind::Regular),
        BYTE => (byte_piece(text).map_or_else(|| text.into(), |byte| vec![byte]), TokenKind::Regular),
        _ => (text.into(), TokenKind::Special),
    };
    Token { bytes, score, kind }
}
