//! One answer in progress.

use super::ask::{Ask, Choice, Ended, Event, Failed, Logprob, Logprobs, Token, Why};
use super::figures::Figures;
use super::seats::Seat;
use crate::chat::generate::{self, GenerateError, with_text};
use crate::chat::wording::Wording;
use crate::cluster::root::Root;
use dair_core::exec::{Logits, PAGE, Run};
use dair_core::text::{Candidate, Stop, Vocabulary};
use std::time::Instant;

/// An answer that has a seat.
#[derive(Debug)]
pub struct Sequence {
    ask: Ask,
    /// No other one has the same.
    pub number: u64,
    /// Its place in the KV cache.
    pub slot: u32,
    /// The prompt, and what was drawn.
    tokens: Vec<u32>,
    /// How many of them are in the cache.
    fed: u32,
    cached: u32,
    /// More of the prompt may be on disk.
    searches: bool,
    drawn: u32,
    wording: Wording,
    begun: Instant,
    /// When the first token was there.
    first: Option<Instant>,
}

impl Sequence {
    /// Begins to compute what is asked for, at its seat; if it `searches`, after what is on disk of the prompt.
    pub fn new(mut ask: Ask, number: u64, (seat, searches): (Seat, bool), vocab: &Vocabulary<'_>) -> Self {
        let wording = Wording::new(vocab, ask.ends(&vocab.header().eos), &ask.stop);
        ask.ticket = None;
        ask.timeline.seated(seat.reused);
        let tokens = std::mem::take(&mut ask.prompt);
        let (slot, cached) = (seat.slot, seat.reused);
        let begun = Instant::now();
        let new =
            Self { ask, number, slot, tokens, fed: cached, cached, searches, drawn: 0, wording, begun, first: None };
        new.say(Event::Begun { cached });
        new
    }

    /// Whether more of the prompt may be on disk: until that is known, nothing is computed.
    pub fn searches(&self) -> bool {
        self.searches
    }

    /// Gets what is on disk of the prompt, so many pages at most; how many tokens need not be computed for that.
    pub fn search(&mut self, root: &mut Root<'_>, pages: u32) -> u32 {
        // One token is always computed, because its logits are asked for.
        let most = self.tokens.len().saturating_sub(1);
        let end = most.min((self.fed / PAGE).saturating_add(pages).saturating_mul(PAGE) as usize);
        let known = root.restore(self.slot, &self.tokens[..end]);
        self.searches = known == Some(end as u32) && end < most;
        let known = known.unwrap_or(self.fed);
        let found = known.saturating_sub(self.fed);
        (self.fed, self.cached) = (known, known);
        found
    }

    /// Tokens that are to be computed before the next one can be drawn.
    pub fn left(&self) -> u32 {
        self.tokens.len() as u32 - self.fed
    }

    /// Tokens that may still be drawn.
    pub fn expected(&self) -> u32 {
        self.ask.max_tokens.saturating_sub(self.drawn)
    }

    /// The prompt, and what was drawn.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The last of these.
    pub fn last(&self) -> u32 {
        self.tokens[self.tokens.len() - 1]
    }

    /// Tokens that end it, of those that end answers of the model.
    pub fn ends<'t>(&self, eos: &'t [u32]) -> &'t [u32] {
        self.ask.ends(eos)
    }

    /// How tokens are chosen.
    pub fn choice(&self) -> &Choice {
        &self.ask.choice
    }

    /// Whether nobody listens any more.
    pub fn is_left(&self) -> bool {
        self.ask.listener.is_closed()
    }

    /// Whether it should have been there by now.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.ask.deadline
    }

    /// Its next `rows` rows, and their tokens; the last one's logits are asked for where they tell the next token.
    pub fn run(&self, rows: u32) -> (Run, &[u32]) {
        let start = self.fed as usize;
        let logits = if rows == self.left() { Logits::Last } else { Logits::None };
        let run = Run { slot: self.slot, position: self.fed, rows, logits };
        (run, &self.tokens[start..start + rows as usize])
    }

    /// So many rows were computed; where the next token can be drawn, it is, from `row` of the pass. Whether, and how, that ends
    /// the answer.
    ///
    /// # Errors
    /// Where no token can be drawn.
    pub fn computed(
        &mut self,
        rows: u32,
        (root, row): (&mut Root<'_>, u32),
        (vocab, candidates): (&Vocabulary<'_>, &mut [Candidate]),
    ) -> Result<Option<Why>, GenerateError> {
        self.fed += rows;
        if self.left() > 0 {
            return Ok(None);
        }
        let seq_len = root.seq_len();
        let (token, logprob) = self.draw((root, row), (vocab, candidates))?;
        let is_complete = match &mut self.ask.choice.constraint {
            Some(constraint) => constraint.push(token)?,
            None => false,
        };
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.ask.timeline.first_token();
        }
        self.drawn += 1;
        self.tokens.push(token);
        let (stop, text) = self.wording.push(vocab, token);
        let mut text = text.to_owned();
        if stop == Stop::No && is_complete {
            text.push_str(self.wording.rest());
        }
        let why = match stop {
            Stop::Yes => Some(Why::Stop),
            Stop::No if is_complete => Some(Why::Stop),
            Stop::No if self.drawn >= self.ask.max_tokens || self.fed >= seq_len => Some(Why::Length),
            Stop::No => None,
        };
        if !text.is_empty() || logprob.is_some() {
            self.say(Event::Token(Token { text, logprob }));
        }
        Ok(why)
    }

    fn draw(
        &mut self,
        (root, row): (&mut Root<'_>, u32),
        (vocab, candidates): (&Vocabulary<'_>, &mut [Candidate]),
    ) -> Result<(u32, Option<Logprobs>), GenerateError> {
        let is_plain = self.ask.choice.is_plain();
        let Choice { sampler, bias, logprobs, constraint } = &mut self.ask.choice;
        if is_plain {
            return Ok((generate::sample(vocab, sampler, &self.tokens, candidates, (root, row))?, None));
        }
        let logits = with_text(vocab, root.logits_of(row))?;
        // The sampler overwrites them.
        let mut told = logprobs.map(|top| (LogSum::of(logits), most_probable(logits, top)));
        let before = told.as_ref().map(|_| logits.to_vec());
        for (id, bias) in &*bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if let Some(constraint) = constraint {
            constraint.narrow(logits)?;
        }
        let token = sampler.sample(logits, &self.tokens, candidates)?;
        let logprob = told.take().zip(before).map(|((sum, top), before)| {
            let of = |id: u32| Logprob { id, logprob: sum.logprob(before[id as usize]) };
            Logprobs { drawn: of(token), top: top.into_iter().map(of).collect() }
        });
        Ok((token, logprob))
    }

    /// It has ended; nobody hears of it any more.
    pub fn end(mut self, why: Why, figures: &Figures) {
        if why == Why::Length {
            let text = self.wording.rest().to_owned();
            if !text.is_empty() {
                self.say(Event::Token(Token { text, logprob: None }));
            }
        }
        let first = self.first.unwrap_or_else(Instant::now);
        let ended = Ended {
            why,
            prompt: self.tokens.len() as u32 - self.drawn,
            cached: self.cached,
            drawn: self.drawn,
            prefill: first.duration_since(self.begun),
            decode: first.elapsed(),
        };
        self.ask.timeline.over(self.drawn, why.name());
        // Whoever hears of it finds it counted.
        figures.ended(&ended);
        self.say(Event::Ended(ended));
    }

    /// It can't go on.
    pub fn fail(self, failed: Failed) {
        self.ask.timeline.over(self.drawn, "failed");
        self.say(Event::Failed(failed));
    }

    fn say(&self, event: Event) {
        // Who has gone away is found before the next pass.
        let _ = self.ask.listener.send(event);
    }
}

/// The logarithm of the sum of the exponentials of logits.
struct LogSum(f64);

impl LogSum {
    fn of(logits: &[f32]) -> Self {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
        Self(f64::from(highest) + sum.ln())
    }

    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.0) as f32
    }
}

/// The ids of the `count` highest logits, the highest first; of equals the lower id.
fn most_probable(logits: &[f32], count: u32) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let count = (count as usize).min(ids.len());
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_up_to_one_and_the_most_probable_come_first() {
        let logits = [1.0f32, 3.0, -2.0, 3.0, 0.5];
        let sum = LogSum::of(&logits);
        let all: f32 = logits.iter().map(|logit| sum.logprob(*logit).exp()).sum();
        assert!((all - 1.0).abs() < 1e-6, "{all}");
        assert_eq!(most_probable(&logits, 3), [1, 3, 0]);
        assert_eq!((most_probable(&logits, 9).len(), most_probable(&logits, 0).len()), (5, 0));
    }
}
