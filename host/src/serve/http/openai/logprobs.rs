//! How probable tokens were, in the two shapes that OpenAI's API has for that.

use super::super::texts::Texts;
use crate::serve::engine::{Logprob, Logprobs};
use serde_json::{Map, Value, json};

fn text(texts: &Texts, id: u32) -> String {
    String::from_utf8_lossy(texts.bytes(id)).into_owned()
}

fn entry(texts: &Texts, one: Logprob) -> Value {
    json!({ "token": text(texts, one.id), "logprob": one.logprob, "bytes": texts.bytes(one.id) })
}

/// An entry of `logprobs.content` of a chat.
pub fn of_chat(texts: &Texts, logprobs: &Logprobs) -> Value {
    let mut object = entry(texts, logprobs.drawn);
    object["top_logprobs"] = logprobs.top.iter().map(|one| entry(texts, *one)).collect();
    object
}

/// The `logprobs` of a completion, token by token.
#[derive(Debug, Default)]
pub struct OfCompletion {
    tokens: Vec<String>,
    logprobs: Vec<f32>,
    tops: Vec<Value>,
    offsets: Vec<usize>,
    offset: usize,
}

impl OfCompletion {
    /// One more token.
    pub fn push(&mut self, texts: &Texts, logprobs: &Logprobs) {
        let token = text(texts, logprobs.drawn.id);
        self.offsets.push(self.offset);
        self.offset += token.chars().count();
        self.tokens.push(token);
        self.logprobs.push(logprobs.drawn.logprob);
        let tops = logprobs.top.iter().map(|one| (text(texts, one.id), one.logprob.into()));
        self.tops.push(Value::Object(tops.collect::<Map<_, _>>()));
    }

    /// Those since the last call.
    pub fn take(&mut self) -> Value {
        let json = json!({
            "tokens": std::mem::take(&mut self.tokens), "token_logprobs": std::mem::take(&mut self.logprobs),
            "top_logprobs": std::mem::take(&mut self.tops), "text_offset": std::mem::take(&mut self.offsets),
        });
        json
    }
}
