//! What a chat has computed so far.

use crate::chat::conversation::Conversation;
use crate::chat::generate::{Answer, Phase};
use crate::chat::speculate::Proposed;
use crate::cli::report::guesses;
use crate::cluster::root::Root;
use crate::machine::memory;
use crate::net::Traffic;
use console::style;
use std::time::Duration;

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
            sum.tokens = sum.tokens.saturating_add(phase.tokens);
            sum.time += phase.time;
        }
    }

    /// The lines that `/stats` shows.
    pub fn lines(&self, conversation: &Conversation, root: &Root<'_>, load: Duration) -> String {
        let phase = |phase: &Phase| {
            format!("{} tokens in {:.2} s, {:.1} tokens/s", phase.tokens, phase.time.as_secs_f64(), phase.rate())
        };
        let (used, there) = (conversation.position(), root.seq_len());
        let percent = f64::from(used) / f64::from(there) * 100.0;
        let mut lines = vec![
            ("answers", format!("{}, {} messages in the conversation", self.answers, conversation.messages().len())),
            ("context", format!("{used} of {there} positions, {percent:.0} %")),
            ("load", format!("{:.2} s", load.as_secs_f64())),
            ("prefill", phase(&self.prefill)),
            ("decode", phase(&self.decode) + &guesses(&self.proposed)),
            ("memory", format!("{:.1} MB at its peak", memory::peak_bytes() as f64 / 1e6)),
        ];
        if let Some(Traffic { sent, received, .. }) = root.traffic() {
            lines.push((
                "network",
                format!("{:.1} MB sent, {:.1} MB received", sent as f64 / 1e6, received as f64 / 1e6),
            ));
        }
        let line = |(name, text)| format!("{} {text}", style(format!("{name:>8}")).for_stderr().dim());
        lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
