//! The calls of OpenAI's API.

mod chat;
mod completions;
mod logprobs;
mod models;
mod usage;

pub use chat::chat;
pub use completions::completions;
pub use models::{embeddings, model, models};

use super::error::ApiError;
use super::fields::Fields;

/// Whether an answer comes in pieces, and whether figures come at its end.
#[derive(Clone, Copy, Debug)]
struct Streaming {
    is_on: bool,
    has_usage: bool,
}

impl Streaming {
    fn of(fields: &Fields) -> Result<Self, ApiError> {
        let options = fields.object("stream_options")?;
        let has_usage = options.map(|options| options.flag("include_usage")).transpose()?.flatten().unwrap_or(false);
        Ok(Self { is_on: fields.flag("stream")?.unwrap_or(false), has_usage })
    }
}

/// A seed as it was given: negative ones go, too.
const fn signed(seed: u64) -> i64 {
    seed.cast_signed()
}

/// Most answers to one request.
const ANSWERS_MAX: i64 = 16;

/// How many answers are wanted.
fn answers(fields: &Fields) -> Result<u32, ApiError> {
    Ok(fields.integer("n", 1..=ANSWERS_MAX)?.unwrap_or(1) as u32)
}
