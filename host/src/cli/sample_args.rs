//! Flags that say how tokens are chosen and where an answer ends.

use super::Failure;
use dair_core::text::{Filters, Sampler};

/// How the next token is chosen, in this order: penalties, top-k, min-p, temperature, top-p.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub struct ChoiceArgs {
    /// 0 takes the most probable token, larger values are more adventurous
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = from_zero, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Choose among the most probable tokens that together exceed P; 0 or 1: among all
    #[arg(long, value_name = "P", default_value_t = 0.9, value_parser = up_to_one, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Choose among the K most probable tokens; 0 or -1: among all
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = from_minus_one, allow_negative_numbers = true)]
    pub top_k: i32,
    /// Choose among the tokens that are at least P times as probable as the most probable one; 0: among all
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = up_to_one, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Divides the logits of tokens that came up lately (multiplies negative ones); 1: no penalty
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = above_zero, allow_negative_numbers = true)]
    pub repeat_penalty: f32,
    /// How many of the last tokens, the prompt's included, the penalties look at; 0: none, -1: all
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = from_minus_one, allow_negative_numbers = true)]
    pub repeat_last_n: i32,
    /// Taken off the logits of tokens that came up lately
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = finite, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Taken off the logits of tokens once for each time that they came up lately
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = finite, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
}

/// How the next token is chosen, and where an answer ends.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub struct SampleArgs {
    /// How the next token is chosen.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Seed of the random numbers; the same seed gives the same answer [default: a new one each time, shown by --json]
    #[arg(short, long, value_name = "N")]
    pub seed: Option<u64>,
    /// End the answer where this text would begin; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = some_text)]
    pub stop: Vec<String>,
}

fn number(text: &str, allowed: &str, is_allowed: impl Fn(f32) -> bool) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value: &f32| value.is_finite() && is_allowed(*value));
    value.ok_or_else(|| format!("allowed are {allowed}"))
}

fn from_zero(text: &str) -> Result<f32, String> {
    number(text, "numbers from 0", |value| value >= 0.0)
}

fn above_zero(text: &str) -> Result<f32, String> {
    number(text, "numbers above 0", |value| value > 0.0)
}

fn up_to_one(text: &str) -> Result<f32, String> {
    number(text, "numbers from 0 to 1", |value| (0.0..=1.0).contains(&value))
}

fn finite(text: &str) -> Result<f32, String> {
    number(text, "numbers", |_| true)
}

fn from_minus_one(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|n| *n >= -1).ok_or_else(|| "allowed are whole numbers from -1".into())
}

fn some_text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("allowed are texts of a character or more".into()) } else { Ok(text.into()) }
}

impl ChoiceArgs {
    /// All but temperature and top-p.
    pub fn filters(&self) -> Filters {
        Filters {
            // All tokens are 0 of them there.
            top_k: u32::try_from(self.top_k).unwrap_or(0),
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            last_n: u32::try_from(self.repeat_last_n).unwrap_or(u32::MAX),
        }
    }
}

impl SampleArgs {
    /// A sampler as asked, and its seed.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn sampler(&self) -> Result<(Sampler, u64), Failure> {
        let seed = self.seed.map_or_else(new_seed, Ok)?;
        let sampler = Sampler::new(self.choice.temperature, self.choice.top_p, seed)?;
        Ok((sampler.with(self.choice.filters()), seed))
    }
}

/// A seed from the operating system, of as many bits as a number in JSON keeps everywhere.
fn new_seed() -> Result<u64, Failure> {
    let random =
        getrandom::u64().map_err(|error| format!("the system has no random numbers: {error}; give a --seed"))?;
    Ok(random >> 11)
}
