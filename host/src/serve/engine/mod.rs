//! The engine: one thread that computes all answers in progress together, a token of each in every pass.
//!
//! ```text
//! HTTP --Ask--> Waiting --Seats--> Sequences --rows of all, and a ration of prompts--> Root::pass --logits--> Event--> HTTP
//! ```
//!
//! Answers join and leave between passes. A row has the bits that it has alone, so an answer does not depend on what else is
//! computed, on who shares its pass, nor on what of its prompt was in the cache.

mod ask;
mod figures;
mod guesses;
mod ration;
mod seats;
mod sequence;
mod waiting;

pub use ask::{Ask, Choice, Ended, Event, Failed, Logprob, Logprobs, Ticket, Timeline, Token, Why};
pub use figures::{Figures, Now, Rows};

use crate::chat::generate::GenerateError;
use crate::chat::speculate::Speculation;
use crate::cluster::error::RootError;
use crate::cluster::root::Root;
use dair_core::exec::{CacheCopy, Logits, Run};
use dair_core::text::{Candidate, Looks, Sampler, Vocabulary};
use guesses::Guesses;
use ration::Ration;
use seats::Seats;
use sequence::Sequence;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tracing::{Span, info_span};
use waiting::Waiting;

/// While nothing is to be done, this often it is looked whether the server is to end, and whether workers live.
const IDLE: Duration = Duration::from_millis(200);

/// Pages of a prompt that are got from disk before a pass beside others: some milliseconds, on a slow card some more.
const PAGES_BESIDE: u32 = 2;

/// At the end, a disk that has enough to do is left alone so long.
const DISK: Duration = Duration::from_millis(5);

/// Computes answers.
pub struct Engine<'e, 'm> {
    root: &'e mut Root<'m>,
    vocab: &'e Vocabulary<'e>,
    figures: Arc<Figures>,
    seats: Seats,
    /// Seats in which something was computed since they were kept on disk.
    unkept: BTreeSet<u32>,
    waiting: Waiting,
    running: Vec<Sequence>,
    /// Answers that were begun.
    begun: u64,
    ration: Ration,
    guesses: Guesses<'e>,
    candidates: Vec<Candidate>,
    /// Of the pass that is computed: its runs, and their tokens.
    runs: Vec<Run>,
    tokens: Vec<u32>,
    /// Whose they are.
    whose: Vec<usize>,
    /// When it was looked last who computes.
    looked: Instant,
    /// The timeline of passes.
    span: Span,
}

/// This often it is looked who computes.
const LOOK: Duration = Duration::from_millis(500);

impl<'e, 'm> Engine<'e, 'm> {
    /// An engine of a root, with as many places as its KV cache has room for.
    ///
    /// # Errors
    /// As [`Root::session`].
    pub fn new(root: &'e mut Root<'m>, vocab: &'e Vocabulary<'e>, figures: Arc<Figures>) -> Result<Self, RootError> {
        let slots = root.slots()?;
        figures.begins(slots, root.cache_bytes()?);
        figures.nodes(root.nodes(), root.reading());
        let recent = root.seq_len().max(Sampler::scratch_len(vocab.vocab_size()) as u32);
        Ok(Self {
            root,
            vocab,
            figures,
            seats: Seats::of(slots),
            unkept: BTreeSet::new(),
            waiting: Waiting::default(),
            running: Vec::new(),
            begun: 0,
            ration: Ration::new(),
            guesses: Guesses::by(Speculation::off()),
            candidates: vec![Candidate::default(); recent as usize],
            runs: Vec::new(),
            tokens: Vec::new(),
            whose: Vec::new(),
            looked: Instant::now(),
            span: info_span!(parent: None, "engine", slots),
        })
    }

    /// With guessed tokens, which make answers faster that are computed alone, and change none.
    #[must_use]
    pub fn with(self, speculation: Speculation<'e>) -> Self {
        Self { guesses: Guesses::by(speculation), ..self }
    }

    /// Answers what comes from `asks`, until nobody can ask any more, or it `is_over`: then those who wait are told so, and answers in
    /// progress are computed to their end.
    pub fn run(&mut self, asks: &Receiver<Ask>, is_over: impl Fn() -> bool) {
        loop {
            if is_over() {
                while let Ok(ask) = asks.try_recv() {
                    self.waiting.push(ask);
                }
                self.turn_away(|_| true, &Failed::Ending);
                if self.running.is_empty() {
                    return self.keep_all();
                }
            } else if !self.hear(asks) {
                return self.keep_all();
            }
            self.dismiss();
            self.seat();
            self.show();
            if !self.running.is_empty() {
                self.step();
            }
        }
    }

    /// Takes in what is asked for, and waits for it where there is nothing else to do; whether anything may still come.
    fn hear(&mut self, asks: &Receiver<Ask>) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            self.show();
            match asks.recv_timeout(IDLE) {
                Ok(ask) => self.waiting.push(ask),
                // Who is lost while nobody asks is left out now, and whoever asks next need not wait for that. What fails then
                // fails for him, too, and he is told.
                Err(RecvTimeoutError::Timeout) if self.root.misses_somebody() => drop(self.root.session()),
                Err(RecvTimeoutError::Timeout) => self.keep(),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        while let Ok(ask) = asks.try_recv() {
            self.waiting.push(ask);
        }
        true
    }

    /// Keeps one of the seats on disk that are not yet, as far as the disk takes it: somebody may ask.
    fn keep(&mut self) {
        if let Some(slot) = self.unkept.pop_first()
            && !self.root.keep(slot)
        {
            self.unkept.insert(slot);
        }
    }

    /// Keeps all seats on disk.
    fn keep_all(&mut self) {
        while !self.unkept.is_empty() {
            self.keep();
            if !self.unkept.is_empty() {
                std::thread::sleep(DISK);
            }
        }
    }

    /// Tells the figures what is going on.
    fn show(&mut self) {
        let cached = (0..self.figures.slots()).map(|slot| self.root.computed(slot).len() as u64).sum();
        let (running, waiting) = (self.running.len() as u32, self.waiting.len() as u32);
        let disk_bytes = self.root.disk_bytes();
        self.figures.now(Now { running, waiting, cached_tokens: cached, disk_bytes });
        if self.looked.elapsed() > LOOK {
            self.looked = Instant::now();
            self.figures.nodes(self.root.nodes(), self.root.reading());
        }
    }

    /// Lets those go whom nobody listens to any more, and those whose time is over.
    fn dismiss(&mut self) {
        let gone = self.waiting.take(|ask| ask.listener.is_closed()).len();
        self.figures.cancelled(gone);
        self.turn_away(|ask| Instant::now() >= ask.deadline, &Failed::Late);
        while let Some(index) = self.running.iter().position(|one| one.is_left() || one.is_late()) {
            let one = self.leave(index);
            if one.is_left() {
                self.figures.cancelled(1);
            } else {
                self.figures.failed(1);
                one.fail(Failed::Late);
            }
        }
    }

    /// Tells those who wait, as far as `is_meant` says, that they will not be answered.
    fn turn_away(&mut self, is_meant: impl Fn(&Ask) -> bool, failed: &Failed) {
        let meant = self.waiting.take(is_meant);
        self.figures.failed(meant.len());
        for ask in meant {
            let _ = ask.listener.send(Event::Failed(failed.clone()));
        }
    }

    /// Gives those who wait free seats.
    fn seat(&mut self) {
        while self.seats.free() > 0 {
            let Some(ask) = self.waiting.pop() else { return };
            // While others are answered their passes find out who is there.
            if self.running.is_empty()
                && let Err(error) = self.root.session()
            {
                self.figures.failed(1);
                let _ = ask.listener.send(Event::Failed(Failed::Broken(error.to_string())));
                continue;
            }
            let root = &*self.root;
            let Some(seat) = self.seats.take(&ask.prompt, |slot| root.computed(slot)) else {
                return self.waiting.push(ask);
            };
            if self.unkept.remove(&seat.slot) {
                self.root.keep(seat.slot);
            }
            if let Some(from) = seat.from {
                self.root.copy(CacheCopy { from, to: seat.slot, positions: seat.reused });
            }
            self.figures.begun(ask.prompt.len() as u32, seat.reused);
            let searches = self.root.options().disk.is_some();
            self.begun += 1;
            self.running.push(Sequence::new(ask, self.begun, (seat, searches), self.vocab));
            let expected = self.running.iter().map(Sequence::expected).max().unwrap_or(0);
            self.root.expect(expected);
        }
    }

    /// Gets what is on disk of prompts; where others wait for tokens, a little at a time.
    fn search(&mut self) {
        let pages = if self.running.len() > 1 { PAGES_BESIDE } else { u32::MAX };
        for one in self.running.iter_mut().filter(|one| one.searches()) {
            self.figures.found(one.search(self.root, pages));
        }
    }

    /// Computes one pass, and draws the tokens that it tells.
    fn step(&mut self) {
        self.search();
        let most = match self.root.batch_max() {
            Ok(most) => most,
            Err(error) => return self.fail_all(&error),
        };
        if let Err(error) = self.compose(most) {
            return self.fail_all(&error);
        }
        if self.runs.is_empty() {
            return;
        }
        let wanted = self.whose.iter().zip(&self.runs).filter(|(_, run)| run.logits != Logits::None);
        let looks = wanted.map(|(index, _)| self.running[*index].choice().looks_at()).reduce(both);
        self.root.want(looks.unwrap_or(Looks::Best(1)), self.vocab.vocab_size());
        let rows = self.rows();
        let Rows { answers, prompts, guessed } = rows;
        let span = info_span!(parent: &self.span, "pass", answers, prompts, guessed).entered();
        let start = Instant::now();
        if let Err(error) = self.root.pass(&self.runs, &self.tokens) {
            return self.fail_all(&error);
        }
        let time = start.elapsed();
        drop(span);
        self.figures.passed(rows, time, self.root.traffic().unwrap_or_default());
        if guessed == 0 {
            self.ration.took(answers as usize, prompts, time);
        }
        if self.is_alone() {
            self.guesses.took(time);
            self.draw_in_order();
        } else {
            self.draw();
        }
    }

    /// Whether an answer in progress is computed by itself, so that tokens may be guessed.
    fn is_alone(&self) -> bool {
        matches!(&self.running[..], [one] if one.left() == 1 && !one.searches())
    }

    /// What the rows of the pass are of.
    fn rows(&self) -> Rows {
        let answers = self.whose.iter().filter(|index| self.running[**index].left() == 1).count() as u32;
        let others = self.tokens.len() as u32 - answers;
        let (prompts, guessed) = if self.is_alone() { (0, others) } else { (others, 0) };
        Rows { answers, prompts, guessed }
    }

    /// Puts a pass together: a row of each answer in progress, and as much of the prompts as goes along, the same of each. Rows whose
    /// logits are asked for stand together at its end. Of an answer that is alone, the rows that are [guessed](Guesses) as well.
    fn compose(&mut self, most: u32) -> Result<(), RootError> {
        self.runs.clear();
        self.tokens.clear();
        if self.is_alone() {
            let (one, seq_len, vocab) = (&self.running[0], self.root.seq_len(), self.vocab);
            let (run, tokens) = self.guesses.rows(one, (most, seq_len), (vocab.vocab_size(), &vocab.header().eos))?;
            self.runs.push(run);
            self.tokens.extend_from_slice(tokens);
            self.whose = vec![0];
            return Ok(());
        }
        let left = |one: &Sequence| if one.searches() { 0 } else { one.left() };
        let lefts: Vec<u32> = self.running.iter().map(left).collect();
        let rows = share_out(&lefts, most, &self.ration);
        let mut order: Vec<usize> = (0..rows.len()).filter(|index| rows[*index] > 0).collect();
        order.sort_by_key(|index| (rows[*index] == lefts[*index], lefts[*index] == 1));
        for index in &order {
            let (run, tokens) = self.running[*index].run(rows[*index]);
            self.runs.push(run);
            self.tokens.extend_from_slice(tokens);
        }
        self.whose = order;
        Ok(())
    }

    fn draw(&mut self) {
        let mut row = 0;
        let mut over = Vec::new();
        for (run, index) in self.runs.iter().zip(&self.whose) {
            row += run.rows;
            let one = &mut self.running[*index];
            let result = one.computed(run.rows, (self.root, row - 1), (self.vocab, &mut self.candidates));
            if run.logits != Logits::None && result.is_ok() {
                self.figures.drawn();
            }
            match result {
                Ok(None) => {}
                Ok(Some(why)) => over.push((*index, Ok(why))),
                Err(error) => over.push((*index, Err(error))),
            }
        }
        // From the last one on, so that the others keep their places.
        over.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, how) in over {
            self.over(index, how);
        }
    }

    /// Draws from the rows of an answer that is alone, as far as what was guessed is what is drawn.
    fn draw_in_order(&mut self) {
        let one = &mut self.running[0];
        for row in 0..self.tokens.len() as u32 {
            let result = one.computed(1, (self.root, row), (self.vocab, &mut self.candidates));
            if result.is_ok() {
                self.figures.drawn();
            }
            if let Some(how) = result.transpose() {
                self.guesses.end();
                return self.over(0, how);
            }
            if !self.guesses.accepts(one.last()) {
                return;
            }
            self.figures.guessed();
        }
    }

    /// An answer has come to its end.
    fn over(&mut self, index: usize, how: Result<Why, GenerateError>) {
        let one = self.leave(index);
        match how {
            Ok(why) => one.end(why, &self.figures),
            Err(error) => {
                self.figures.failed(1);
                one.fail(Failed::Broken(error.to_string()));
            }
        }
    }

    fn leave(&mut self, index: usize) -> Sequence {
        let one = self.running.remove(index);
        self.seats.leave(one.slot);
        self.unkept.insert(one.slot);
        one
    }

    /// A pass has failed for all.
    fn fail_all(&mut self, error: &RootError) {
        self.figures.failed(self.running.len());
        while !self.running.is_empty() {
            self.leave(0).fail(Failed::Broken(error.to_string()));
        }
    }
}

/// What of logits two choices depend on.
fn both(one: Looks, other: Looks) -> Looks {
    match (one, other) {
        (Looks::Best(one), Looks::Best(other)) => Looks::Best(one.max(other)),
        (Looks::Nucleus(one), Looks::Nucleus(other)) if one == other => Looks::Nucleus(one),
        _ => Looks::All,
    }
}

/// How many rows each gets, of whom so many tokens are left: those with one always it, prompts the same share of what `ration` allows; a
/// short one is soon done, and a long one comes on all the same.
fn share_out(lefts: &[u32], most: u32, ration: &Ration) -> Vec<u32> {
    let mut rows: Vec<u32> = lefts.iter().map(|left| u32::from(*left == 1)).collect();
    // More answers than a pass has rows wait for the next one.
    let mut free = most;
    for rows in &mut rows {
        *rows = (*rows).min(free);
        free -= *rows;
    }
    let answers = rows.iter().filter(|rows| **rows > 0).count();
    let mut prompts: Vec<usize> = (0..lefts.len()).filter(|index| lefts[*index] > 1).collect();
    // The shortest first: what it leaves of its share is for the others.
    prompts.sort_by_key(|index| lefts[*index]);
    let mut budget = ration.rows(answers, free);
    for (place, index) in prompts.iter().enumerate() {
        let share = budget.div_ceil((prompts.len() - place) as u32);
        rows[*index] = share.min(lefts[*index]).min(budget);
        budget -= rows[*index];
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_what_answers_leave() {
        let ration = Ration::new();
        assert_eq!(share_out(&[1, 1, 1], 128, &ration), [1, 1, 1]);
        assert_eq!(share_out(&[1000], 128, &ration), [128]);
        assert_eq!(share_out(&[1000, 10, 1000], 128, &ration), [59, 10, 59]);
        assert_eq!(share_out(&[1000, 1, 2], 128, &ration), [6, 1, 2], "beside answers, only a ration");
        assert_eq!(share_out(&[1, 1, 5, 1], 2, &ration), [1, 1, 0, 0], "a pass has no more rows");
        assert_eq!(share_out(&[7, 7, 7, 7, 7], 3, &ration).iter().sum::<u32>(), 3);
    }

    #[test]
    fn what_two_choices_look_at_is_enough_for_both() {
        assert_eq!(both(Looks::Best(3), Looks::Best(40)), Looks::Best(40));
        assert_eq!(both(Looks::Nucleus(1.5), Looks::Nucleus(1.5)), Looks::Nucleus(1.5));
        assert_eq!(both(Looks::Nucleus(1.5), Looks::Best(1)), Looks::All);
        assert_eq!(both(Looks::Nucleus(1.5), Looks::Nucleus(2.0)), Looks::All);
    }
}
