//! What all handlers share: the model's texts, the way to the engine, limits.

use super::error::ApiError;
use super::sampling::{Defaults, Sampling};
use super::texts::{Prompt, Texts};
use crate::serve::engine::{Ask, Choice, Ended, Event, Failed, Figures, Ticket, Timeline, Token};
use axum::http::StatusCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Everything that a handler may need.
#[derive(Debug)]
pub struct Server {
    /// What the model is called.
    pub model: String,
    /// Model and settings, as far as answers depend on them.
    pub fingerprint: String,
    /// When the server was started, in seconds since 1970.
    pub created: u64,
    /// Bytes of the model file.
    pub bytes: u64,
    /// Its architecture.
    pub arch: String,
    /// Type of its weights.
    pub weights: String,
    /// Positions of the context.
    pub seq_len: u32,
    /// Messages and texts to tokens.
    pub texts: Texts,
    /// How tokens are chosen where a request says nothing.
    pub defaults: Defaults,
    /// What the engine is doing.
    pub figures: Arc<Figures>,
    /// Most requests that wait.
    pub queue: u32,
    /// How long an answer may take.
    pub patience: Duration,
    /// The way to the engine.
    pub asks: std::sync::Mutex<Option<Sender<Ask>>>,
    /// How many wait.
    pub waiting: Arc<AtomicU32>,
}

/// Who asks, as far as turns go: the name of his key, or his address.
#[derive(Clone, Debug)]
pub struct Client(pub String);

/// An answer that was asked for, as it comes.
#[derive(Debug)]
pub struct Answer {
    events: UnboundedReceiver<Event>,
}

/// What comes of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A token, and its text.
    Token(Token),
    /// The end.
    Ended(Ended),
}

impl Answer {
    /// Waits for its turn.
    ///
    /// # Errors
    /// It does not get one.
    pub async fn begun(&mut self) -> Result<(), ApiError> {
        match self.events.recv().await {
            Some(Event::Begun { .. }) => Ok(()),
            Some(Event::Failed(failed)) => Err(ApiError::of(&failed)),
            // Nothing else comes first.
            _ => Err(ApiError::of(&Failed::Ending)),
        }
    }

    /// The next piece; the last one is the end.
    ///
    /// # Errors
    /// There are no more, because it failed.
    pub async fn next(&mut self) -> Result<Piece, ApiError> {
        match self.events.recv().await {
            Some(Event::Token(token)) => Ok(Piece::Token(token)),
            Some(Event::Ended(ended)) => Ok(Piece::Ended(ended)),
            Some(Event::Failed(failed)) => Err(ApiError::of(&failed)),
            Some(Event::Begun { .. }) | None => Err(ApiError::of(&Failed::Ending)),
        }
    }
}

impl Server {
    /// Demands that a prompt leaves room for a token, and says for how many of those that are asked for.
    ///
    /// # Errors
    /// It does not.
    pub fn room(&self, field: &str, prompt: &Prompt, max_tokens: Option<u32>) -> Result<u32, ApiError> {
        let (tokens, seq_len) = (prompt.tokens.len(), self.seq_len);
        if tokens == 0 {
            return Err(ApiError::field(field, format!("{field} has no tokens; give some text")));
        }
        if tokens as u64 > u64::from(seq_len) {
            let line = format!("{field} has {tokens} tokens; the context holds {seq_len}: shorten it");
            return Err(ApiError::field(field, line).with_code("context_length_exceeded"));
        }
        // The last token that is drawn need not be fed.
        let room = seq_len - tokens as u32 + 1;
        Ok(max_tokens.map_or(room, |most| most.min(room)))
    }

    /// Asks the engine for an answer.
    ///
    /// # Errors
    /// Too many wait, or the server is about to end.
    pub fn ask(
        &self,
        Client(client): &Client,
        prompt: Vec<u32>,
        (sampling, choice, max_tokens): (&Sampling, Choice, u32),
    ) -> Result<Answer, ApiError> {
        let ticket = Ticket::take(&self.waiting, self.queue).ok_or_else(|| self.busy())?;
        let timeline = Timeline::begin(client, prompt.len());
        let (listener, events) = unbounded_channel();
        let ask = Ask {
            prompt,
            max_tokens,
            choice,
            stop: sampling.stop.clone(),
            ignore_eos: sampling.ignore_eos,
            deadline: Instant::now() + self.patience,
            client: client.clone(),
            timeline,
            listener,
            ticket: Some(ticket),
        };
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = asks.as_ref().is_some_and(|asks| asks.send(ask).is_ok());
        if sent { Ok(Answer { events }) } else { Err(ApiError::of(&Failed::Ending)) }
    }

    fn busy(&self) -> ApiError {
        self.figures.refused();
        let waiting = self.waiting.load(Ordering::Relaxed);
        let seconds = self.figures.seconds_until_free(waiting);
        let line = format!("{waiting} requests are waiting already; try again in {seconds} s");
        ApiError { retry_after: Some(seconds), ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, line) }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A name for an answer that nobody else has.
pub fn new_id(prefix: &str) -> String {
    // Without random numbers the time must do.
    let random = getrandom::u64()
        .unwrap_or_else(|_| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64));
    format!("{prefix}{random:016x}")
}
