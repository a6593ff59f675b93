//! Proposals of a draft model: a smaller one with the same tokens, which says what it finds most probable.

use super::{Kind, Proposer};
use crate::cluster::error::RootError;
use crate::cluster::root::Root;
use dair_core::exec::Logits;
use dair_core::text::{Looks, Vocabulary};
use std::fmt;
use std::ops::ControlFlow;

/// A draft model, its KV cache in step with the answer.
pub struct Draft<'d, 'm> {
    root: &'d mut Root<'m>,
    vocab_size: u32,
}

impl fmt::Debug for Draft<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").finish_non_exhaustive()
    }
}

/// Why a model can't draft for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Tokens of its tokenizer, and of the other one.
    Count(u32, u32),
    /// The first token with other bytes.
    Token(u32),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(draft, model) => {
                write!(f, "it has {draft} tokens, the model {model}; a draft model needs the same ones")
            }
            Self::Token(id) => {
                write!(f, "token {id} is another one there than in the model; a draft model needs the same ones")
            }
        }
    }
}

/// Demands that a draft model's tokens are those of the model.
///
/// # Errors
/// What differs first.
pub fn check_same_tokens(draft: &Vocabulary<'_>, model: &Vocabulary<'_>) -> Result<(), Foreign> {
    let (own, other) = (draft.vocab_size(), model.vocab_size());
    if own != other {
        return Err(Foreign::Count(own, other));
    }
    match (0..own).find(|id| draft.bytes(*id) != model.bytes(*id)) {
        Some(id) => Err(Foreign::Token(id)),
        None => Ok(()),
    }
}

impl<'d, 'm> Draft<'d, 'm> {
    /// A draft by `root`, of which the first `vocab_size` tokens are the model's.
    pub fn new(root: &'d mut Root<'m>, vocab_size: u32) -> Self {
        root.want(Looks::Best(1), vocab_size);
        Self { root, vocab_size }
    }

    /// The most probable token behind the last pass.
    fn most_probable(&mut self) -> Option<u32> {
        let logits = self.root.logits();
        let known = &logits[..logits.len().min(self.vocab_size as usize)];
        let best = known.iter().zip(0..).reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, token)| token)
    }

    /// Computes `tokens`; whether it was not stopped.
    fn feed(&mut self, tokens: &[u32], position: usize) -> Result<bool, RootError> {
        match self.root.feed(tokens, position as u32, Logits::Last, |_| ControlFlow::Continue(())) {
            Ok(()) => Ok(true),
            // The model's own pass sees it, too.
            Err(RootError::Stopped { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Proposer for Draft<'_, '_> {
    fn begin(&mut self) {}

    fn look(&mut self, tokens: &[u32]) -> Option<Kind> {
        let has_room = tokens.len() < self.root.seq_len() as usize;
        Some(Kind::Draft).filter(|_| has_room && !tokens.is_empty())
    }

    fn propose(&mut self, tokens: &[u32], count: usize, out: &mut Vec<u32>) -> Result<(), RootError> {
        // What turned out wrong is forgotten; one token is fed for its logits.
        let common = self.root.computed(0).iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let position = common.min(tokens.len() - 1);
        let count = count.min(self.root.seq_len() as usize - tokens.len() + 1);
        let mut goes_on = self.feed(&tokens[position..], position)?;
        for index in 1..=count {
            let Some(token) = self.most_probable().filter(|_| goes_on) else { break };
            out.push(token);
            if index < count {
                goes_on = self.feed(&[token], tokens.len() + index - 1)?;
            }
        }
        Ok(())
    }
}
