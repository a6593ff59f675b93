//! Texts to tokens and back.

use super::content::Content;
use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::server::Server;
use super::texts::apart;
use axum::Json;
use axum::extract::State;
use dair_core::text::EncodeOptions;
use serde_json::{Value, json};
use std::sync::Arc;

/// `POST /tokenize`: the tokens of a text, `content` or `prompt`; with `with_pieces`, what each stands for, too.
///
/// # Errors
/// Names the field that is wrong.
pub async fn tokenize(State(server): State<Arc<Server>>, Content(body): Content) -> Result<Json<Value>, ApiError> {
    let answer = move || {
        let fields = Fields::of(&body)?;
        let name = if fields.get("prompt").is_some() { "prompt" } else { "content" };
        let text =
            fields.text(name)?.ok_or_else(|| ApiError::field("content", "content is missing; wanted is a text"))?;
        let start = fields.flag("add_special")?.or(fields.flag("add_special_tokens")?).unwrap_or(false);
        let special = fields.flag("parse_special")?.unwrap_or(true);
        // No text has no tokens, which is no mistake here.
        let tokens = match text.is_empty() && !start {
            true => Vec::new(),
            false => server.texts.text(name, text, EncodeOptions { start, special })?.tokens,
        };
        let count = tokens.len();
        let list: Vec<Value> = match fields.flag("with_pieces")?.unwrap_or(false) {
            true => tokens.into_iter().map(|id| piece(&server, id)).collect(),
            false => tokens.into_iter().map(Value::from).collect(),
        };
        Ok(Json(json!({ "tokens": list, "count": count })))
    };
    apart(answer).await
}

/// A token with its text, or its bytes where these are none.
fn piece(server: &Server, id: u32) -> Value {
    let bytes = server.texts.bytes(id);
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "id": id, "piece": text }),
        Err(_) => json!({ "id": id, "piece": bytes }),
    }
}

/// `POST /detokenize`: the text of `tokens`.
///
/// # Errors
/// Names the field that is wrong.
pub async fn detokenize(State(server): State<Arc<Server>>, Content(body): Content) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of(&body)?;
    let list =
        fields.list("tokens")?.ok_or_else(|| ApiError::field("tokens", "tokens is missing; wanted is a list"))?;
    let vocab_size = server.texts.vocabulary().vocab_size();
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocab_size);
        id.ok_or_else(|| wrong("tokens", value, &format!("a list of tokens from 0 to {}", vocab_size - 1)))
    };
    let ids: Vec<u32> = list.iter().map(id).collect::<Result<_, _>>()?;
    let text = server.texts.decode(&ids);
    Ok(Json(json!({ "content": text, "prompt": text })))
}
