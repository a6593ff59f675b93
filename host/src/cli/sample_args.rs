//! Flags that say how tokens are chosen and where an answer ends.

use super::Failure;
use dair_core::text::{Filters, Sampler};
use serde_json::{Map, Value, json};

/// How the next token is chosen, in this order: penalties, top-k, min-p, temperature, top-p. What is not given has a default.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub struct ChoiceArgs {
    /// 0 takes the most probable token, larger values are more adventurous [default: 0.8]
    #[arg(long, value_name = "T", value_parser = from_zero, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the most probable tokens that together exceed P; 0 or 1: among all [default: 0.9]
    #[arg(long, value_name = "P", value_parser = up_to_one, allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Choose among the K most probable tokens; 0 or -1: among all [default: 0]
    #[arg(long, value_name = "K", value_parser = from_minus_one, allow_negative_numbers = true)]
    top_k: Option<i32>,
    /// Choose among the tokens that are at least P times as probable as the most probable one; 0: among all [default: 0]
    #[arg(long, value_name = "P", value_parser = up_to_one, allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Divides the logits of tokens that came up lately (multiplies negative ones); 1: no penalty [default: 1]
    #[arg(long, value_name = "X", value_parser = above_zero, allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// How many of the last tokens, the prompt's included, the penalties look at; 0: none, -1: all [default: 64]
    #[arg(long, value_name = "N", value_parser = from_minus_one, allow_negative_numbers = true)]
    repeat_last_n: Option<i32>,
    /// Taken off the logits of tokens that came up lately [default: 0]
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Taken off the logits of tokens once for each time that they came up lately [default: 0]
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
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
    /// How adventurous.
    pub fn temperature(&self) -> f32 {
        self.temperature.unwrap_or(0.8)
    }

    /// How much of the probability is chosen from.
    pub fn top_p(&self) -> f32 {
        self.top_p.unwrap_or(0.9)
    }

    /// All but temperature and top-p.
    pub fn filters(&self) -> Filters {
        Filters {
            // All tokens are 0 of them there.
            top_k: u32::try_from(self.top_k()).unwrap_or(0),
            min_p: self.min_p(),
            repeat_penalty: self.repeat_penalty(),
            presence_penalty: self.presence_penalty(),
            frequency_penalty: self.frequency_penalty(),
            last_n: u32::try_from(self.repeat_last_n()).unwrap_or(u32::MAX),
        }
    }

    fn top_k(&self) -> i32 {
        self.top_k.unwrap_or(0)
    }

    fn min_p(&self) -> f32 {
        self.min_p.unwrap_or(0.0)
    }

    fn repeat_penalty(&self) -> f32 {
        self.repeat_penalty.unwrap_or(1.0)
    }

    fn repeat_last_n(&self) -> i32 {
        self.repeat_last_n.unwrap_or(64)
    }

    fn presence_penalty(&self) -> f32 {
        self.presence_penalty.unwrap_or(0.0)
    }

    fn frequency_penalty(&self) -> f32 {
        self.frequency_penalty.unwrap_or(0.0)
    }

    /// With a value for each flag.
    fn filled(&self) -> Self {
        Self {
            temperature: Some(self.temperature()),
            top_p: Some(self.top_p()),
            top_k: Some(self.top_k()),
            min_p: Some(self.min_p()),
            repeat_penalty: Some(self.repeat_penalty()),
            repeat_last_n: Some(self.repeat_last_n()),
            presence_penalty: Some(self.presence_penalty()),
            frequency_penalty: Some(self.frequency_penalty()),
        }
    }

    /// What was given, as fields of JSON that servers know, too.
    fn given(&self) -> Map<String, Value> {
        // The digits that the user wrote, not those of the double next to a float.
        let number =
            |value: Option<f32>| value.map(|value| json!(value.to_string().parse::<f64>().unwrap_or_default()));
        let fields = [
            ("temperature", number(self.temperature)),
            ("top_p", number(self.top_p)),
            ("top_k", self.top_k.map(Value::from)),
            ("min_p", number(self.min_p)),
            ("repeat_penalty", number(self.repeat_penalty)),
            ("repeat_last_n", self.repeat_last_n.map(Value::from)),
            ("presence_penalty", number(self.presence_penalty)),
            ("frequency_penalty", number(self.frequency_penalty)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

impl SampleArgs {
    /// A sampler as asked, and its seed.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn sampler(&self) -> Result<(Sampler, u64), Failure> {
        let seed = self.seed.map_or_else(new_seed, Ok)?;
        let sampler = Sampler::new(self.choice.temperature(), self.choice.top_p(), seed)?;
        Ok((sampler.with(self.choice.filters()), seed))
    }

    /// All values but the seed's, as fields of JSON.
    pub fn all(&self) -> Map<String, Value> {
        let mut fields = self.choice.filled().given();
        fields.insert("stop".into(), json!(self.stop));
        fields
    }

    /// What was given, as fields of JSON: whoever is asked has defaults of his own for the rest.
    pub fn given(&self) -> Map<String, Value> {
        let mut fields = self.choice.given();
        if !self.stop.is_empty() {
            fields.insert("stop".into(), json!(self.stop));
        }
        if let Some(seed) = self.seed {
            fields.insert("seed".into(), seed.into());
        }
        fields
    }
}

/// A seed from the operating system, of as many bits as a number in JSON keeps everywhere.
fn new_seed() -> Result<u64, Failure> {
    let random =
        getrandom::u64().map_err(|error| format!("the system has no random numbers: {error}; give a --seed"))?;
    Ok(random >> 11)
}
