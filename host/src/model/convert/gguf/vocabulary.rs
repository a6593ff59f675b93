//! The tokens of a GGUF file.

use super::reader::Gguf;
use super::value::{Array, Value, ValueType};
use crate::model::alphabet;
use crate::model::convert::error::ConvertError;
use crate::model::convert::pipeline::{self, Pipeline, StepList, sentencepiece_steps};
use crate::model::convert::vocabulary::{Token, Vocabulary, byte_piece, sentencepiece, unused_token};
use dair_core::format::tokenizer::{Added, Flags, Kind, Method};
use std::collections::HashMap;
use std::path::Path;

/// How the vocabulary spells its tokens.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    ByteLevel,
    Sentencepiece,
}

/// Reads the vocabulary, ids as they are; `notes` gets what the user should know.
pub fn read(gguf: &Gguf<'_>, path: &Path, notes: &mut Vec<String>) -> Result<Vocabulary, ConvertError> {
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
    let mut ids = HashMap::new();
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
        let kind = kind_of(kind)
            .ok_or_else(|| refused(&format!("type of token {id}"), kind.to_string(), "allowed: 0 to 6".into()))?;
        ids.insert(text, id as u32);
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
    let flag = |key: &str| gguf.bool(key).map_err(wrong);
    let pre = gguf.str("tokenizer.ggml.pre").map_err(wrong)?;
    // Files without the flag mean what their kind of vocabulary was trained with.
    let usual = spelling == Spelling::Sentencepiece || matches!(pre, Some("llama3" | "llama-v3" | "llama-bpe"));
    let add_bos = flag("tokenizer.ggml.add_bos_token")?.unwrap_or(usual);
    let own_eos = id("tokenizer.ggml.eos_token_id")?;
    let pipeline = Pipeline {
        eos: own_eos,
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        after: own_eos
            .filter(|_| flag("tokenizer.ggml.add_eos_token").is_ok_and(|add| add == Some(true)))
            .into_iter()
            .collect(),
        ..match spelling {
            Spelling::ByteLevel => {
                let merges = merges(gguf, path, &ids, &tokens)?;
                byte_level_pipeline(pre, merges, path, notes)?
            }
            Spelling::Sentencepiece => scored_pipeline(flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true)),
        }
    };
    let chat_template = gguf.str("tokenizer.chat_template").map_err(wrong)?.map(str::to_owned);
    let mut vocabulary = Vocabulary { tokens, bos, eos, add_bos, chat_template, has_bos: bos.is_some(), pipeline };
    vocabulary.complete_eos();
    Ok(vocabulary)
}

/// By `tokenizer.ggml.token_type`; 0 is what says nothing.
fn kind_of(code: i128) -> Option<Kind> {
    let kinds = [Kind::Normal, Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte];
    usize::try_from(code).ok().and_then(|index| kinds.get(index).copied())
}

fn token(id: usize, text: &str, kind: Kind, score: Option<f32>, spelling: Spelling) -> Token {
    if text.is_empty() {
        return unused_token(id);
    }
    let spelled = || match spelling {
        Spelling::ByteLevel => alphabet::spelled(text),
        Spelling::Sentencepiece => sentencepiece(text),
    };
    // Runs of blanks are user-defined tokens of sentencepiece, which looks for them where blanks are U+2581 already.
    let normalized = kind == Kind::UserDefined && spelling == Spelling::Sentencepiece && text.contains('\u{2581}');
    let bytes = match kind {
        Kind::Normal => spelled(),
        Kind::Byte => byte_piece(text).map_or_else(|| text.into(), |byte| vec![byte]),
        _ if normalized => spelled(),
        _ => text.into(),
    };
    Token { bytes, score, kind, added: Added { normalized, ..Added::default() } }
}

/// `tokenizer.ggml.merges`: two tokens and a blank between them, the first merge first.
fn merges(
    gguf: &Gguf<'_>,
    path: &Path,
    ids: &HashMap<&str, u32>,
    tokens: &[Token],
) -> Result<Vec<[u32; 3]>, ConvertError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let wrong = |source| ConvertError::Gguf { path: path.to_owned(), source };
    let Some(texts) = gguf.array(KEY, &[ValueType::Str]).map_err(wrong)? else {
        return match tokens.iter().any(|token| token.kind == Kind::Normal && token.bytes.len() > 1) {
            true => Err(ConvertError::missing(path, KEY)),
            false => Ok(Vec::new()), // Single bytes need none.
        };
    };
    let mut merges = Vec::with_capacity(texts.len);
    for (rank, text) in texts.iter().enumerate() {
        let Value::Str(text) = text else { unreachable!("element types were checked") };
        let text = std::str::from_utf8(text).unwrap_or_default();
        let known = |text: &str| ids.get(text).copied();
        let merge = text
            .split_once(' ')
            .and_then(|(left, right)| Some([known(left)?, known(right)?, known(&[left, right].concat())?]));
        merges.push(merge.ok_or_else(|| {
            let allowed = "a merge is two tokens that make a third";
            ConvertError::refused(path, format!("{KEY}, number {rank}"), format!("{text:?}"), allowed)
        })?);
    }
    Ok(merges)
}

fn byte_level_pipeline(
    pre: Option<&str>,
    merges: Vec<[u32; 3]>,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<Pipeline, ConvertError> {
    let name = pre.filter(|pre| *pre != "default").unwrap_or_else(|| {
        notes.push("tokenizer.ggml.pre does not say how text is cut before merges: taken for GPT-2's rule".into());
        "gpt-2"
    });
    let unknown = || {
        let allowed = format!("known: {}; the model's Hugging Face folder can be converted instead", pipeline::NAMED);
        ConvertError::refused(path, "tokenizer.ggml.pre", format!("{name:?}"), allowed)
    };
    let (steps, ignore_merges): (StepList, bool) = pipeline::named(name).ok_or_else(unknown)?;
    let flags = Flags { byte_level: true, ignore_merges, ..Flags::default() };
    Ok(Pipeline { flags, merges, steps, ..Pipeline::of(Method::Merges) })
}

fn scored_pipeline(blank_prefix: bool) -> Pipeline {
    let flags = Flags { byte_fallback: true, strip_blank: blank_prefix, ..Flags::default() };
    Pipeline { flags, steps: sentencepiece_steps(blank_prefix), ..Pipeline::of(Method::Scores) }
}
