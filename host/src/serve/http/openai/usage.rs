//! How many tokens a request took.

use crate::serve::engine::Ended;
use serde_json::{Value, json};

/// Tokens of a request; its prompt counts once, however many answers there are to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    prompt: u32,
    cached: u32,
    completion: u32,
}

impl Usage {
    /// One more answer to the same prompt.
    pub fn add(&mut self, ended: &Ended) {
        self.prompt = ended.prompt;
        self.cached = self.cached.max(ended.cached);
        self.completion += ended.drawn;
    }

    /// Those of another prompt.
    pub fn join(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.completion += other.completion;
    }

    /// As in OpenAI's API.
    pub fn json(self) -> Value {
        let Self { prompt, cached, completion } = self;
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": { "cached_tokens": cached },
        })
    }
}
