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
    /// Characters that have begun so far.
    chars: usize,
}

impl OfCompletion {
    /// Behind a prompt of so many characters: tokens are where they are in prompt and answer together, whether the prompt is said
    /// again or not.
    pub fn behind(chars: usize) -> Self {
        Self { chars, ..Self::default() }
    }

    /// One more token.
    pub fn push(&mut self, texts: &Texts, logprobs: &Logprobs) {
        let offset = self.offset(texts.bytes(logprobs.drawn.id));
        self.offsets.push(offset);
        self.tokens.push(text(texts, logprobs.drawn.id));
        self.logprobs.push(logprobs.drawn.logprob);
        let tops = logprobs.top.iter().map(|one| (text(texts, one.id), one.logprob.into()));
        self.tops.push(Value::Object(tops.collect::<Map<_, _>>()));
    }

    /// Where the next token is. One that goes on with a character that another one has begun is where that is.
    fn offset(&mut self, token: &[u8]) -> usize {
        let goes_on = |byte: &u8| byte & 0xc0 == 0x80;
        let offset = self.chars.saturating_sub(token.first().is_some_and(goes_on).into());
        self.chars += token.iter().filter(|byte| !goes_on(byte)).count();
        offset
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_in_characters_and_a_character_has_one() {
        let mut told = OfCompletion::behind(10);
        let offsets: Vec<usize> = [&b" caf"[..], b"\xc3", b"\xa9!", b"\xf0\x9f", b"\x92\x96", b"", b"x"]
            .map(|token| told.offset(token))
            .into();
        assert_eq!(offsets, [10, 14, 14, 16, 16, 17, 17]);
    }
}
