//! Fields about how tokens are chosen, which all APIs have in one way or another.

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::server::Server;
use crate::chat::grammar::{Constraint, NEVER};
use crate::serve::engine::Choice;
use dair_core::text::{Filters, Sampler};

/// What the server takes where a request says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Temperature.
    pub temperature: f32,
    /// Top-p.
    pub top_p: f32,
    /// Penalties and the like.
    pub filters: Filters,
}

/// Most stop strings.
const STOPS_MAX: usize = 16;
/// Longest stop string, in bytes: so much of an answer may be held back.
const STOP_BYTES_MAX: usize = 1024;
/// Most probabilities that are told of one token.
pub const TOP_LOGPROBS_MAX: i64 = 20;
/// Seeds that JSON keeps everywhere.
const SEEDS: std::ops::RangeInclusive<i64> = -(1 << 53)..=1 << 53;

/// What makes a token as good as impossible, and more probable than one that the form of an answer does not allow.
const BANNED: f32 = NEVER / 10.0;

/// Where fields have other names than OpenAI's.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Most tokens.
    pub max_tokens: &'static [&'static str],
    /// Division of the logits of recent tokens.
    pub repeat_penalty: &'static [&'static str],
}

/// OpenAI's, and what other servers add to them.
pub const OPENAI: Names = Names {
    max_tokens: &["max_completion_tokens", "max_tokens"],
    repeat_penalty: &["repeat_penalty", "repetition_penalty"],
};
/// Ollama's.
pub const OLLAMA: Names = Names { max_tokens: &["num_predict"], repeat_penalty: &["repeat_penalty"] };

/// How an answer is drawn, and where it ends.
#[derive(Clone, Debug)]
pub struct Sampling {
    temperature: f32,
    top_p: f32,
    filters: Filters,
    bias: Vec<(u32, f32)>,
    /// Given, or drawn.
    pub seed: u64,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Most tokens, if that was said.
    pub max_tokens: Option<u32>,
    /// Go on after an EOS token.
    pub ignore_eos: bool,
    /// The form of the answer; whoever reads the request sets it.
    pub constraint: Option<Constraint>,
}

impl Sampling {
    /// Reads what is said, and takes the server's defaults for the rest.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn of(fields: &Fields, names: Names, server: &Server) -> Result<Self, ApiError> {
        let Defaults { temperature, top_p, filters } = server.defaults;
        let first = |names: &[&str], read: &dyn Fn(&str) -> Result<Option<f32>, ApiError>| {
            names.iter().find_map(|name| read(name).transpose()).transpose()
        };
        let penalty = |name: &str| fields.number(name, -100.0..=100.0);
        let repeat = first(names.repeat_penalty, &|name| fields.number(name, 0.01..=100.0))?;
        let presence = penalty("presence_penalty")?;
        let frequency = penalty("frequency_penalty")?;
        let last_n = match fields.integer("repeat_last_n", -1..=1 << 20)? {
            Some(n) => u32::try_from(n).unwrap_or(u32::MAX),
            // OpenAI's penalties are about all of the text so far.
            None if presence.is_some() || frequency.is_some() => u32::MAX,
            None => filters.last_n,
        };
        let mut max_tokens = None;
        for name in names.max_tokens {
            // Less than one is no limit to Ollama.
            let least = if names.max_tokens.len() == 1 { -2 } else { 1 };
            max_tokens = max_tokens.or(fields.integer(name, least..=i64::from(u32::MAX))?);
        }
        let stop = fields.texts("stop")?;
        if stop.len() > STOPS_MAX || stop.iter().any(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
            return Err(ApiError::field(
                "stop",
                format!("stop may have up to {STOPS_MAX} texts of 1 to {STOP_BYTES_MAX} bytes"),
            ));
        }
        let seed = match fields.integer("seed", SEEDS)? {
            Some(seed) => seed as u64,
            None => new_seed()?,
        };
        Ok(Self {
            temperature: fields.number("temperature", 0.0..=100.0)?.unwrap_or(temperature),
            top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(top_p),
            filters: Filters {
                top_k: fields.integer("top_k", -1..=1 << 20)?.map_or(filters.top_k, |k| u32::try_from(k).unwrap_or(0)),
                min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(filters.min_p),
                repeat_penalty: repeat.unwrap_or(filters.repeat_penalty),
                presence_penalty: presence.unwrap_or(filters.presence_penalty),
                frequency_penalty: frequency.unwrap_or(filters.frequency_penalty),
                last_n,
            },
            bias: bias(fields, server)?,
            seed,
            stop,
            max_tokens: max_tokens.and_then(|most| u32::try_from(most).ok()).filter(|most| *most > 0),
            ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
            constraint: None,
        })
    }

    /// How the tokens of one of several answers are chosen: each has a seed of its own, the first one that which was given.
    ///
    /// # Errors
    /// None that [`Self::of`] lets through.
    pub fn choice(&self, index: u32, logprobs: Option<u32>) -> Result<Choice, ApiError> {
        let seed = self.seed.wrapping_add(index.into());
        let sampler = Sampler::new(self.temperature, self.top_p, seed)
            .map_err(|error| ApiError::field("temperature", error.to_string()))?;
        let (sampler, bias) = (sampler.with(self.filters), self.bias.clone());
        Ok(Choice { sampler, bias, logprobs, constraint: self.constraint.clone() })
    }
}

/// What is added to logits.
fn bias(fields: &Fields, server: &Server) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(bias) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let vocab_size = server.texts.vocabulary().vocab_size();
    let mut all = Vec::new();
    for (id, value) in bias.iter() {
        let token = id.parse().ok().filter(|id| *id < vocab_size).ok_or_else(|| {
            ApiError::field(
                "logit_bias",
                format!("logit_bias has the token {id:?}; the model has 0 to {}", vocab_size - 1),
            )
        })?;
        let number = value.as_f64().filter(|number| (-100.0..=100.0).contains(number));
        let number = number.ok_or_else(|| wrong("logit_bias", value, "numbers from -100 to 100, by token"))?;
        // As in OpenAI's API, that is never and always.
        let number = if number == -100.0 { BANNED } else { number as f32 };
        all.push((token, number));
    }
    Ok(all)
}

/// A seed from the operating system, of as many bits as a number in JSON keeps everywhere.
fn new_seed() -> Result<u64, ApiError> {
    let random = getrandom::u64().map_err(|error| {
        let line = format!("the system has no random numbers: {error}; give a seed");
        ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, line)
    })?;
    Ok(random >> 11)
}
