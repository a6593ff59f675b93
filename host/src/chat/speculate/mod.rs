//! Several tokens of one pass: what may come next is proposed, computed together with the token that is there, and kept as far as
//! it is what the sampler draws.
//!
//! A row of logits does not depend on the rows beside it, and the sampler draws from the rows in order, with the random numbers and
//! the recent tokens that it would have one pass at a time. So an answer is the one without speculation, token for token, whatever
//! is proposed; a bad proposal costs time only.
//!
//! A [`Proposer`] proposes: [`Lookup`] what followed the last tokens where they stood before, [`Draft`] what a smaller model would
//! say. [`Pace`] says how many tokens are worth it. [`Speculation`] is both, and the rows of the last pass.

mod draft;
mod lookup;
mod pace;
#[cfg(test)]
mod tests;

pub use draft::{Draft, Foreign, check_same_tokens};
pub use lookup::Lookup;
pub use pace::Pace;

use crate::cluster::error::RootError;
use std::fmt;
use std::time::{Duration, Instant};

/// Most tokens that are proposed at once: with the one before them, fewer rows than those that are computed in halves.
pub const MOST: u32 = 23;

/// Where a proposal comes from: what is worth how much is learnt for each kind by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The last two tokens stood there before.
    Two,
    /// The last three.
    Three,
    /// Four to seven.
    Some,
    /// Eight and more.
    Many,
    /// A smaller model.
    Draft,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Two, Self::Three, Self::Some, Self::Many, Self::Draft];
}

/// Proposes tokens.
pub trait Proposer: fmt::Debug {
    /// An answer begins: `tokens` asked about from now on may be others than before.
    fn begin(&mut self);

    /// Whether something can be proposed behind `tokens`, and of what kind it is. Costs hardly anything.
    fn look(&mut self, tokens: &[u32]) -> Option<Kind>;

    /// Adds up to `count` tokens to `out` that may follow `tokens`, about which [`look`](Self::look) was asked.
    ///
    /// # Errors
    /// Where a pass of its own fails.
    fn propose(&mut self, tokens: &[u32], count: usize, out: &mut Vec<u32>) -> Result<(), RootError>;
}

/// How many tokens are proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Amount {
    /// As many as make it faster.
    #[default]
    Auto,
    /// Always as many, where anything is found.
    Fixed(u32),
}

/// What became of proposals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proposed {
    /// Tokens that were proposed and computed.
    pub proposed: u32,
    /// Of these, tokens of the answer.
    pub accepted: u32,
    /// Passes in which they were computed.
    pub passes: u32,
}

impl std::ops::AddAssign for Proposed {
    fn add_assign(&mut self, other: Self) {
        self.proposed = self.proposed.saturating_add(other.proposed);
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.passes = self.passes.saturating_add(other.passes);
    }
}

/// What a pass is to compute, as far as the answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Room<'r> {
    /// Tokens behind the last one that the answer, the context and a pass have room for.
    pub tokens: u32,
    /// Tokens that may be fed: those below.
    pub vocab_size: u32,
    /// Tokens that end the answer: what follows them is of no use.
    pub ends: &'r [u32],
}

/// Proposers, how many tokens are proposed, and what was in the last pass.
#[derive(Debug, Default)]
pub struct Speculation<'p> {
    proposers: Vec<Box<dyn Proposer + 'p>>,
    amount: Amount,
    pace: Pace,
    last: Last,
    /// Of this answer.
    proposed: Proposed,
}

/// A pass whose rows are sampled from, one after the other.
#[derive(Debug, Default)]
struct Last {
    /// The token that was there and those that were proposed behind it.
    tokens: Vec<u32>,
    /// How many of those have turned out right.
    accepted: usize,
    kind: Option<Kind>,
    /// How long it took to propose them and to compute all.
    times: (Duration, Duration),
}

impl<'p> Speculation<'p> {
    /// Nothing is proposed.
    pub fn off() -> Self {
        Self::default()
    }

    /// The first of `proposers` that has something worth its time proposes it.
    pub fn new(amount: Amount, proposers: Vec<Box<dyn Proposer + 'p>>) -> Self {
        Self { proposers, amount, ..Self::default() }
    }

    /// An answer begins.
    pub fn begin(&mut self) {
        self.proposers.iter_mut().for_each(|proposer| proposer.begin());
        self.last = Last::default();
        self.pace.begin();
        self.proposed = Proposed::default();
    }

    /// Whether `token`, the one that was drawn, was computed in the last pass already, so that the next row is there.
    pub fn accepts(&mut self, token: u32) -> bool {
        let is_right = self.last.tokens.get(self.last.accepted + 1) == Some(&token);
        if is_right {
            self.last.accepted += 1;
            self.proposed.accepted += 1;
        }
        is_right
    }

    /// The tokens of the next pass: the last one of `tokens`, which is not what was proposed, and what is proposed behind it.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub fn next(&mut self, tokens: &[u32], room: Room<'_>) -> Result<&[u32], RootError> {
        self.settle(true);
        self.last.tokens.extend(tokens.last());
        let most = room.tokens.min(MOST) as usize;
        if most == 0 {
            return Ok(&self.last.tokens);
        }
        for proposer in &mut self.proposers {
            let Some(kind) = proposer.look(tokens) else { continue };
            let count = match self.amount {
                Amount::Auto => self.pace.choose(kind, most),
                Amount::Fixed(count) => most.min(count as usize),
            };
            if count == 0 {
                continue;
            }
            let (start, out) = (Instant::now(), &mut self.last.tokens);
            proposer.propose(tokens, count, out)?;
            out.truncate(1 + count);
            let known = out.iter().position(|token| *token >= room.vocab_size).unwrap_or(out.len()).max(1);
            let end = out[1..].iter().position(|token| room.ends.contains(token)).map_or(out.len(), |end| end + 2);
            out.truncate(known.min(end));
            if out.len() > 1 {
                self.last.times.0 = start.elapsed();
                self.last.kind = Some(kind);
                self.proposed.proposed += out.len() as u32 - 1;
                self.proposed.passes += 1;
                break;
            }
        }
        Ok(&self.last.tokens)
    }

    /// The pass of [`next`](Self::next) was computed, and took so long.
    pub fn took(&mut self, time: Duration) {
        self.last.times.1 = time;
    }

    /// An answer ends; what became of what was proposed for it.
    pub fn end(&mut self) -> Proposed {
        // What was not asked about is not wrong.
        self.settle(false);
        self.proposed
    }

    /// Learns from the last pass, if there was one. `is_over` says that the token behind those accepted was another one.
    fn settle(&mut self, is_over: bool) {
        let Last { tokens, accepted, kind, times } = &mut self.last;
        if let Some(proposed) = tokens.len().checked_sub(1).filter(|_| !times.1.is_zero()) {
            let rejected = is_over && *accepted < proposed;
            self.pace.learn(*kind, (proposed, *accepted, rejected), (times.0, times.1));
        }
        tokens.clear();
        (*accepted, *kind, *times) = (0, None, (Duration::ZERO, Duration::ZERO));
    }
}
