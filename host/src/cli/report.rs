//! What is printed about a run: to people on standard error, to scripts as JSON.

use super::streaming;
use crate::chat::generate::{Answer, Phase};
use crate::chat::speculate::Proposed;
use crate::machine::{memory, terminal};
use crate::net::Traffic;
use crate::storage::stream::{Figures, Reading};
use console::style;
use serde_json::{Value, json};
use std::time::Duration;

/// Figures of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Report<'r> {
    /// From the start of the command to the first forward pass.
    pub load: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Of that, repacking weights, if they were.
    pub repack: Option<Duration>,
    /// What was computed.
    pub answer: &'r Answer,
    /// How long a token was predicted to take, if it was.
    pub predicted: Option<Duration>,
    /// Tokens for which the best of each node's logits did not do.
    pub rests: u64,
    /// What crossed the network, if there are workers.
    pub network: Option<Traffic>,
    /// What was read of weights that are streamed, and how, if they are.
    pub streaming: Option<(Reading, Figures)>,
}

/// What became of guessed tokens, behind the speed of an answer; nothing where there were none.
pub fn guesses(proposed: &Proposed) -> String {
    match proposed {
        Proposed { proposed: 0, .. } => String::new(),
        Proposed { proposed, accepted, .. } => format!(", {accepted} of {proposed} guessed tokens accepted"),
    }
}

impl Report<'_> {
    /// Prints a few lines for people.
    pub fn print(&self) {
        let line = |name: &str, text: String| {
            terminal::note(format_args!("{} {text}", style(format!("{name:>8}")).for_stderr().dim()));
        };
        let phase = |phase: &Phase| {
            format!("{} tokens in {:.2} s, {:.1} tokens/s", phase.tokens, phase.time.as_secs_f64(), phase.rate())
        };
        terminal::note("");
        let repack = self.repack.map(|time| format!(", {:.2} s of it to repack weights", time.as_secs_f64()));
        line("load", format!("{:.2} s{}", self.load.as_secs_f64(), repack.unwrap_or_default()));
        line("prefill", phase(&self.answer.prefill));
        let predicted = self.predicted.map(|time| format!(", {:.1} were predicted", 1.0 / time.as_secs_f64()));
        let guesses = guesses(&self.answer.proposed);
        line("decode", phase(&self.answer.decode) + &predicted.unwrap_or_default() + &guesses);
        if let (Some((sent, received)), Some(network)) = (self.per_token(), self.network) {
            let (kb, seconds) = ([sent / 1e3, received / 1e3], network.exchanging.as_secs_f64());
            line(
                "network",
                format!("{:.1} kB sent, {:.1} kB received per token, {seconds:.2} s in exchanges", kb[0], kb[1]),
            );
        }
        if let Some((reading, figures)) = &self.streaming {
            line("disk", streaming::line(reading, figures));
        }
        line("memory", format!("{:.1} MB at its peak", memory::peak_bytes() as f64 / 1e6));
    }

    /// The same as JSON, with `text`.
    pub fn json(&self, text: &str) -> Value {
        let phase = |phase: &Phase| json!({"tokens": phase.tokens, "seconds": phase.time.as_secs_f64(), "tokens_per_second": phase.rate()});
        let network = self
            .per_token()
            .zip(self.network)
            .map(|((sent, received), network)| json!({"sent_bytes_per_token": sent, "received_bytes_per_token": received, "exchange_seconds": network.exchanging.as_secs_f64(), "exchanges": network.exchanges, "whole_rows_of_logits": self.rests}));
        let Proposed { proposed, accepted, passes } = self.answer.proposed;
        let speculation = (proposed > 0).then(|| json!({"proposed": proposed, "accepted": accepted, "passes": passes}));
        json!({
            "text": text,
            "finish_reason": self.answer.finish.name(),
            "seed": self.seed,
            "generated_tokens": self.answer.tokens,
            "load_seconds": self.load.as_secs_f64(),
            "repack_seconds": self.repack.map(|time| time.as_secs_f64()),
            "prefill": phase(&self.answer.prefill),
            "decode": phase(&self.answer.decode),
            "speculation": speculation,
            "predicted_seconds_per_token": self.predicted.map(|time| time.as_secs_f64()),
            "network": network,
            "streaming": self.streaming.as_ref().map(|(reading, figures)| streaming::json(reading, figures)),
            "peak_memory_bytes": memory::peak_bytes(),
        })
    }

    fn per_token(&self) -> Option<(f64, f64)> {
        let Traffic { sent, received, .. } = self.network?;
        let tokens = f64::from(self.answer.prefill.tokens + self.answer.decode.tokens);
        Some((sent as f64 / tokens, received as f64 / tokens))
    }
}
