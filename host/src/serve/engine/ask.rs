//! What the engine is asked for, and what it answers with.

use crate::chat::grammar::Constraint;
use dair_core::text::{Looks, Sampler};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// One answer that is asked for.
#[derive(Debug)]
pub struct Ask {
    /// All tokens before the answer, at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to be generated; the context may hold fewer.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub choice: Choice,
    /// Texts at which the answer ends before they begin.
    pub stop: Vec<String>,
    /// Go on after an EOS token.
    pub ignore_eos: bool,
    /// When the answer is given up.
    pub deadline: Instant,
    /// Who asks: those who wait are served in turn, one answer each.
    pub client: String,
    /// Where the answer goes. Who no longer listens is not computed for.
    pub listener: UnboundedSender<Event>,
    /// It counts among those who wait as long as it has this.
    pub ticket: Option<Ticket>,
    /// Its timeline.
    pub timeline: Timeline,
}

impl Ask {
    /// Tokens that end the answer, of those that end answers of the model.
    pub(super) fn ends<'t>(&self, eos: &'t [u32]) -> &'t [u32] {
        if self.ignore_eos { &[] } else { eos }
    }
}

/// The time of a request in spans, for whoever listens to [`tracing`].
#[derive(Debug)]
pub struct Timeline {
    request: Span,
    /// What it is at now: it waits, its prompt is computed, or its answer.
    phase: Span,
}

impl Timeline {
    /// A request has come, with so many tokens.
    pub fn begin(client: &str, prompt: usize) -> Self {
        let request = info_span!(parent: None, "request", client, prompt, cached = Empty, drawn = Empty, ended = Empty);
        let phase = info_span!(parent: &request, "waits");
        Self { request, phase }
    }

    /// It has got its place; so many tokens need not be computed.
    pub(super) fn seated(&mut self, cached: u32) {
        self.request.record("cached", cached);
        self.phase = info_span!(parent: &self.request, "prompt");
    }

    /// The first token is there.
    pub(super) fn first_token(&mut self) {
        self.phase = info_span!(parent: &self.request, "answer");
    }

    /// It is over, after so many tokens.
    pub(super) fn over(&self, drawn: u32, how: &str) {
        self.request.record("drawn", drawn);
        self.request.record("ended", how);
    }
}

/// A place in the queue.
#[derive(Debug)]
pub struct Ticket(Arc<AtomicU32>);

impl Ticket {
    /// A place, unless `most` of them are taken; `taken` counts them.
    pub fn take(taken: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        let more = |taken| (taken < most).then_some(taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How tokens are chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Draws them.
    pub sampler: Sampler,
    /// Added to the logits of tokens.
    pub bias: Vec<(u32, f32)>,
    /// The probabilities of drawn tokens are told, and of so many others.
    pub logprobs: Option<u32>,
    /// The form that the answer must have.
    pub constraint: Option<Constraint>,
}

impl Choice {
    /// What of logits it depends on.
    pub fn looks_at(&self) -> Looks {
        if self.is_plain() { self.sampler.looks_at() } else { Looks::All }
    }

    /// Whether the sampler does all of it.
    pub fn is_plain(&self) -> bool {
        self.bias.is_empty() && self.logprobs.is_none() && self.constraint.is_none()
    }
}

/// What happens on the way to an answer; the last one is an end or a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is its turn; so many tokens of the prompt need not be computed, because they were before.
    Begun {
        /// They are at its beginning.
        cached: u32,
    },
    /// The next token.
    Token(Token),
    /// There are no more.
    Ended(Ended),
    /// There is no answer, or no rest of it.
    Failed(Failed),
}

/// A token of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token {
    /// Text that is sure by now: whole characters, and nothing that may begin a stop string.
    pub text: String,
    /// How probable it was, if that was asked for.
    pub logprob: Option<Logprobs>,
}

/// Natural logarithms of probabilities, before temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was drawn.
    pub drawn: Logprob,
    /// Of the most probable ones, the most probable first.
    pub top: Vec<Logprob>,
}

/// How probable a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logprob {
    /// Which.
    pub id: u32,
    /// Logarithm of its probability.
    pub logprob: f32,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub why: Why,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Of these, those that were computed before.
    pub cached: u32,
    /// Tokens that were drawn.
    pub drawn: u32,
    /// From its turn to the first token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The model said so, or a stop string came up.
    Stop,
    /// As many tokens as were asked for, or as the context holds.
    Length,
}

impl Why {
    /// As in the OpenAI API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It took longer than was allowed.
    Late,
    /// The server is about to end.
    Ending,
    /// A pass or a choice failed: one line.
    Broken(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("the answer took longer than the server's --request-timeout-s allows"),
            Self::Ending => f.write_str("the server is about to end; ask again when it is back"),
            Self::Broken(line) => f.write_str(line),
        }
    }
}
