//! The calls of OpenAI's API.

mod chat;
mod completions;
mod logprobs;
mod models;
mod usage;

pub use chat::{Words, chat, context};
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

/// Refuses what would change the answer and is not there yet: an answer that only looks as if it had been heard is worse than none.
fn check_offered(fields: &Fields) -> Result<(), ApiError> {
    let format = fields.object("response_format")?;
    let kind = format.as_ref().map(|format| format.text("type")).transpose()?.flatten();
    if kind.is_some_and(|kind| kind != "text") {
        return Err(ApiError::field("response_format", "response_format: answers are text here; leave it out"));
    }
    let is_forced = fields.get("tool_choice").is_some_and(|choice| choice != "auto" && choice != "none");
    if is_forced {
        return Err(ApiError::field("tool_choice", "tool_choice: no tool can be forced here; auto and none go"));
    }
    Ok(())
}

/// Most answers to one request.
const ANSWERS_MAX: i64 = 16;

/// How many answers are wanted.
fn answers(fields: &Fields) -> Result<u32, ApiError> {
    Ok(fields.integer("n", 1..=ANSWERS_MAX)?.unwrap_or(1) as u32)
}
