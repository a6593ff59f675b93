//! `tokenizer.json`, or a `tokenizer.model` in its place, and their companions as a vocabulary.

use super::json::Json;
use super::tokenizer_json::TokenizerJson;
use crate::model::convert::error::ConvertError;
use crate::model::convert::sentencepiece;
use crate::model::convert::source::SourceFile;
use crate::model::convert::vocabulary::{Token, Vocabulary};
use dair_core::format::tokenizer::MAX_TEMPLATE_BYTES;
use serde_json::Value;
use std::path::Path;

/// Reads the vocabulary of a model whose embedding has `vocab_size` rows, ids as they are. Rows without a token get one that
/// nothing is encoded to.
pub fn read(folder: &Path, config: &Json, vocab_size: u32) -> Result<Vocabulary, ConvertError> {
    let settings = Json::read_optional(&folder.join("tokenizer_config.json"))?;
    let (json, model) = (folder.join("tokenizer.json"), folder.join("tokenizer.model"));
    if !json.exists() && model.exists() {
        let (tokens, pipeline) = sentencepiece::read(&model, added_tokens(folder, &settings)?, vocab_size)?;
        return assemble(folder, config, &settings, tokens, pipeline, Around { before: None, after: Vec::new() });
    }
    let tokenizer = TokenizerJson::read(&json)?;
    let (tokens, pipeline) = tokenizer.tokens(&json, vocab_size)?;
    let [before, after] = tokenizer.around().map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>());
    // Without a post-processor, vocabularies with byte fallback were trained with BOS.
    let says = tokenizer.has_post_processor() || !tokenizer.has_byte_fallback();
    assemble(folder, config, &settings, tokens, pipeline, Around { before: says.then_some(before), after })
}

/// Texts of the tokens around a text; what goes before it is `None` where nothing is said.
struct Around {
    before: Option<Vec<String>>,
    after: Vec<String>,
}

fn assemble(
    folder: &Path,
    config: &Json,
    settings: &Json,
    tokens: Vec<Token>,
    mut pipeline: crate::model::convert::pipeline::Pipeline,
    around: Around,
) -> Result<Vocabulary, ConvertError> {
    let generation = Json::read_optional(&folder.join("generation_config.json"))?;
    let ids = Ids { tokens: &tokens };
    let bos = match settings.value("bos_token").and_then(token_text) {
        Some(text) => Some(ids.of_text(settings, "bos_token", text)?),
        None => ids.of_setting(config, "bos_token_id")?.first().copied(),
    };
    // The tokenizer's own end token closes the turns of a chat; the others end the text, too.
    let mut eos = Vec::new();
    if let Some(text) = settings.value("eos_token").and_then(token_text) {
        eos.push(ids.of_text(settings, "eos_token", text)?);
        pipeline.eos = eos.first().copied();
    }
    for json in [&generation, config] {
        for id in ids.of_setting(json, "eos_token_id")? {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
    }
    pipeline.eos = pipeline.eos.or(eos.first().copied());

    let named = |texts: &[String]| -> Vec<u32> { texts.iter().filter_map(|text| ids.find(text)).collect() };
    let before = around.before.as_deref().map(named);
    let add_bos = settings.bool("add_bos_token")?;
    let add_bos =
        add_bos.unwrap_or_else(|| bos.is_some_and(|bos| before.as_ref().is_none_or(|ids| ids.contains(&bos))));
    pipeline.before = before.unwrap_or_default().into_iter().filter(|id| Some(*id) != bos).collect();
    pipeline.after = match settings.bool("add_eos_token")? {
        Some(true) => pipeline.eos.into_iter().collect(),
        Some(false) => named(&around.after).into_iter().filter(|id| Some(*id) != pipeline.eos).collect(),
        None => named(&around.after),
    };
    let chat_template = chat_template(folder, settings)?;
    let mut vocabulary = Vocabulary { has_bos: bos.is_some(), tokens, bos, eos, add_bos, chat_template, pipeline };
    vocabulary.complete_eos();
    Ok(vocabulary)
}

/// Tokens that stand beside a `tokenizer.model`: id, text, whether it is a control token.
fn added_tokens(folder: &Path, settings: &Json) -> Result<Vec<(u32, String, bool)>, ConvertError> {
    let mut added = Vec::new();
    if let Some(Value::Object(tokens)) = settings.value("added_tokens_decoder") {
        for (id, token) in tokens {
            let allowed = "allowed: objects with a content, by id";
            let wrong = || settings.refused("added_tokens_decoder", format!("{id}: {token}"), allowed);
            let text = token.get("content").and_then(Value::as_str).ok_or_else(wrong)?;
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            added.push((id.parse().map_err(|_| wrong())?, text.to_owned(), special));
        }
    }
    let file = Json::read_optional(&folder.join("added_tokens.json"))?;
    for (text, id) in file.entries() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| file.refused(text, "no id", "allowed: ids by text"))?;
        if !added.iter().any(|(known, ..)| *known == id) {
            added.push((id, text.clone(), false));
        }
    }
    Ok(added)
}

/// Looks tokens up by what settings say.
struct Ids<'a> {
    tokens: &'a [Token],
}

impl Ids<'_> {
    /// The added one, where a normal token has the same text.
    fn find(&self, text: &str) -> Option<u32> {
        let is_it = |token: &Token| token.bytes == text.as_bytes();
        let added = self.tokens.iter().position(|token| is_it(token) && token.kind.is_added());
        added.or_else(|| self.tokens.iter().position(is_it)).map(|id| id as u32)
    }

    fn of_text(&self, json: &Json, key: &str, text: &str) -> Result<u32, ConvertError> {
        self.find(text).ok_or_else(|| json.refused(key, format!("{text:?}"), "the vocabulary has no such token"))
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

/// The chat template: a file of its own, or a setting; of several the one named `default`.
fn chat_template(folder: &Path, settings: &Json) -> Result<Option<String>, ConvertError> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let file = SourceFile::open(&path)?;
        // A byte more than can be kept, so that the longer one is refused.
        let bytes = file.read(0, file.bytes.min(u64::from(MAX_TEMPLATE_BYTES) + 1))?;
        let wrong = |_| ConvertError::refused(&path, "content", "no text", "allowed: UTF-8");
        return String::from_utf8(bytes).map(Some).map_err(wrong);
    }
    Ok(match settings.value("chat_template") {
        Some(Value::Array(named)) => {
            let default = named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
            default.and_then(|entry| entry.get("template")?.as_str().map(str::to_owned))
        }
        _ => settings.str("chat_template")?.map(str::to_owned),
    })
}
