//! `tokenizer.json` and its companions as a vocabulary.

use super::json::{self, Json};
use crate::model::convert::error::ConvertError;
use crate::model::convert::vocabulary::{
    Token, TokenKind, Vocabulary, byte_level, byte_piece, sentencepiece, unused_token,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    post_processor: Option<Value>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Value,
    #[serde(default)]
    byte_fallback: bool,
}

/// Reads the vocabulary of a model whose embedding has `vocab_size` rows, ids as they are. Rows without a token get one that
/// nothing is encoded to.
pub fn read(folder: &Path, config: &Json, vocab_size: u32) -> Result<Vocabulary, ConvertError> {
    let path = folder.join("tokenizer.json");
    let tokenizer: Tokenizer = json::read_as(&path)?;
    let tokens = tokens(&tokenizer, &path, vocab_size)?;
    let settings = Json::read_optional(&folder.join("tokenizer_config.json"))?;
    let generation = Json::read_optional(&folder.join("generation_config.json"))?;
    let ids = Ids { tokens: &tokens };

    let bos = match settings.value("bos_token").and_then(token_text) {
        Some(text) => Some(ids.of_text(&settings, "bos_token", text)?),
        None => ids.of_setting(config, "bos_token_id")?.first().copied(),
    };
    // The tokenizer's own end token closes the turns of a chat; the others end the text, too.
    let mut eos = Vec::new();
    if let Some(text) = settings.value("eos_token").and_then(token_text) {
        eos.push(ids.of_text(&settings, "eos_token", text)?);
    }
    for json in [&generation, config] {
        eos.extend(ids.of_setting(json, "eos_token_id")?);
    }
    let mut seen = Vec::new();
    eos.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });

    let bos_text = bos.map(|bos| &tokens[bos as usize].bytes);
    let is_prepended =
        || tokenizer.post_processor.as_ref().zip(bos_text).is_some_and(|(post, bos)| prepends(post, bos));
    // Without a post-processor, vocabularies of this kind were trained with BOS.
    let usual = tokenizer.model.byte_fallback && tokenizer.post_processor.is_none();
    let add_bos = settings.bool("add_bos_token")?.unwrap_or_else(|| is_prepended() || usual);
    let chat_template = chat_template(folder, &settings)?;
    let mut vocabulary = Vocabulary { tokens, bos, eos, add_bos, chat_template };
    vocabulary.complete_eos();
    Ok(vocabulary)
}

fn tokens(tokenizer: &Tokenizer, path: &Path, vocab_size: u32) -> Result<Vec<Token>, ConvertError> {
    let refused = |field: &str, found: String, allowed: &str| ConvertError::refused(path, field, found, allowed);
    let model = &tokenizer.model;
    if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return Err(refused("model.type", format!("{kind:?}"), "allowed: BPE"));
    }
    let parts = [&tokenizer.pre_tokenizer, &tokenizer.decoder];
    let is_byte_level = parts.into_iter().flatten().any(|part| has_type(part, "ByteLevel"));
    if !is_byte_level && !model.byte_fallback {
        return Err(refused("model", "BPE of characters".into(), "allowed: byte-level BPE, or BPE with byte_fallback"));
    }
    let vocab = BTreeMap::<String, u32>::deserialize(&model.vocab)
        .map_err(|source| ConvertError::Json { path: path.to_owned(), source })?;
    let mut tokens: Vec<Option<Token>> = vec![None; vocab_size as usize];
    let mut put = |id: u32, text: &str, token: Token, replaces: bool| -> Result<(), ConvertError> {
        let rows = tokens.len();
        match tokens.get_mut(id as usize) {
            None => Err(refused(
                &format!("id of token {text:?}"),
                id.to_string(),
                &format!("the embedding has {rows} rows"),
            )),
            Some(Some(_)) if !replaces => {
                Err(refused(&format!("id of token {text:?}"), id.to_string(), "another token has it"))
            }
            Some(slot) => {
                *slot = Some(if token.bytes.is_empty() { unused_token(id as usize) } else { token });
                Ok(())
            }
        }
    };
    for (text, id) in &vocab {
        let bytes = match byte_piece(text).filter(|_| model.byte_fallback) {
            Some(byte) => vec![byte],
            None if is_byte_level => byte_level(text),
            None => sentencepiece(text),
        };
        put(*id, text, Token { bytes, score: None, kind: TokenKind::Regular }, false)?;
    }
    for AddedToken { id, content } in &tokenizer.added_tokens {
        let token = Token { bytes: content.clone().into_bytes(), score: None, kind: TokenKind::Special };
        put(*id, content, token, true)?;
    }
    Ok(tokens.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| unused_token(id))).collect())
}

/// Looks tokens up by what settings say.
struct Ids<'a> {
    tokens: &'a [Token],
}

impl Ids<'_> {
    fn of_text(&self, json: &Json, key: &str, text: &str) -> Result<u32, ConvertError> {
        let is_it = |token: &Token| token.bytes == text.as_bytes();
        // The special one, where a regular token has the same text.
        let special = self.tokens.iter().position(|token| is_it(token) && token.kind == TokenKind::Special);
        let id = special.or_else(|| self.tokens.iter().position(is_it));
        id.map(|id| id as u32).ok_or_else(|| json.refused(key, format!("{text:?}"), "the vocabulary has no such token"))
    }

    /// One id or a list of them.
    fn of_setting(&self, json: &Json, key: &str) -> Result<Vec<u32>, ConvertError> {
        let ids = match json.value(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        let known = |id: &Value| id.as_u64().filter(|id| *id < self.tokens.len() as u64).map(|id| id as u32);
        let wrong = |id| json.refused(key, id, &format!("allowed: ids of the {} tokens", self.tokens.len()));
        ids.iter().map(|id| known(id).ok_or_else(|| wrong(id))).collect()
    }
}

/// A token in `tokenizer_config.json`: its text, or an object with its text.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
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

/// Whether a post-processor puts the token `bos` before a text: a template whose form for one text starts with it.
fn prepends(part: &Value, bos: &[u8]) -> bool {
    let first = |part: &Value| -> Option<String> {
        Some(part.get("single")?.get(0)?.get("SpecialToken")?.get("id")?.as_str()?.to_owned())
    };
    let inner = part.get("processors").and_then(Value::as_array);
    first(part).is_some_and(|id| id.as_bytes() == bos)
        || inner.is_some_and(|list| list.iter().any(|part| prepends(part, bos)))
}

/// The chat template: a file of its own, or a setting; of several the one named `default`.
fn chat_template(folder: &Path, settings: &Json) -> Result<Option<String>, ConvertError> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        return std::fs::read_to_string(&path).map(Some).map_err(ConvertError::io("read", &path));
    }
    Ok(match settings.value("chat_template") {
        Some(Value::Array(named)) => {
            let default = named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
            default.and_then(|entry| entry.get("template")?.as_str().map(str::to_owned))
        }
        _ => settings.str("chat_template")?.map(str::to_owned),
    })
}
