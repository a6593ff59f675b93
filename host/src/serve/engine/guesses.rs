//! Tokens that are [guessed](crate::chat::speculate) for an answer that is computed alone. Beside others the weights that a pass reads
//! serve several rows as it is, and rows that turn out wrong would hold everybody up.

use super::sequence::Sequence;
use crate::chat::speculate::{Room, Speculation};
use crate::cluster::error::RootError;
use dair_core::exec::{Logits, Run};
use std::time::Duration;

/// Guesses, and for which answer.
#[derive(Debug)]
pub struct Guesses<'g> {
    speculation: Speculation<'g>,
    answer: Option<u64>,
}

impl<'g> Guesses<'g> {
    /// By `speculation`.
    pub fn by(speculation: Speculation<'g>) -> Self {
        Self { speculation, answer: None }
    }

    /// The next rows of `one`, of at most `most`: those of the token that was drawn last, and of what may follow. Logits of all are asked
    /// for.
    ///
    /// # Errors
    /// As [`Speculation::next`].
    pub fn rows(
        &mut self,
        one: &Sequence,
        (most, seq_len): (u32, u32),
        (vocab_size, eos): (u32, &[u32]),
    ) -> Result<(Run, &[u32]), RootError> {
        if self.answer.replace(one.number) != Some(one.number) {
            self.speculation.begin();
        }
        let (mut run, _) = one.run(1);
        let tokens = one.expected().min(seq_len - run.position).min(most).saturating_sub(1);
        let room = Room { tokens, vocab_size, ends: one.ends(eos) };
        let tokens = self.speculation.next(one.tokens(), room)?;
        (run.rows, run.logits) = (tokens.len() as u32, Logits::All);
        Ok((run, tokens))
    }

    /// The pass of [`rows`](Self::rows) took so long.
    pub fn took(&mut self, time: Duration) {
        self.speculation.took(time);
    }

    /// Whether `token`, which was drawn, is the one that was guessed there, so that the row behind it tells the next one.
    pub fn accepts(&mut self, token: u32) -> bool {
        self.speculation.accepts(token)
    }

    /// The answer is over.
    pub fn end(&mut self) {
        self.speculation.end();
        self.answer = None;
    }
}
