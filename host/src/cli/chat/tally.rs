//! What a chat has computed so far.

use crate::chat::generate::{Answer, Phase};
use crate::chat::speculate::Proposed;
use crate::cli::report::guesses;
use console::style;

/// Names and figures.
pub type Lines = Vec<(&'static str, String)>;

/// Sums over all answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    answers: u32,
    prefill: Phase,
    decode: Phase,
    proposed: Proposed,
}

impl Tally {
    /// Adds an answer.
    pub fn add(&mut self, answer: &Answer) {
        self.answers += 1;
        self.proposed += answer.proposed;
        for (sum, phase) in [(&mut self.prefill, answer.prefill), (&mut self.decode, answer.decode)] {
            // Servers do not say how many tokens an answer had that was interrupted.
            if phase.tokens > 0 {
                sum.tokens = sum.tokens.saturating_add(phase.tokens);
                sum.time += phase.time;
            }
        }
    }

    /// The lines that `/stats` shows, with `others` of whoever answers.
    pub fn text(&self, messages: usize, others: Lines) -> String {
        let phase = |phase: &Phase| {
            format!("{} tokens in {:.2} s, {:.1} tokens/s", phase.tokens, phase.time.as_secs_f64(), phase.rate())
        };
        let mut lines = vec![
            ("answers", format!("{}, {messages} messages in the conversation", self.answers)),
            ("prefill", phase(&self.prefill)),
            ("decode", phase(&self.decode) + &guesses(&self.proposed)),
        ];
        lines.extend(others);
        let line = |(name, text)| format!("{} {text}", style(format!("{name:>8}")).for_stderr().dim());
        lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
