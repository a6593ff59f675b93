//! Prompt in, text out: prefill, then sample and feed token by token until something ends the answer.

use super::template::TemplateError;
use crate::cluster::root::{Root, RootError};
use dair_core::exec::Logits;
use dair_core::text::{Candidate, Decoder, EncodeError, SampleError, Sampler, Stop, StopDetector, Vocabulary};
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What to continue, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Tokens to be fed first; not empty.
    pub prompt: &'r [u32],
    /// Position of the first of them; what stands before is in the KV cache.
    pub position: u32,
    /// Most tokens to be generated.
    pub max_tokens: u32,
    /// Go on after an EOS token.
    pub ignore_eos: bool,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    Stop,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The context is full.
    Context,
    /// The listener has had enough.
    Interrupted,
}

impl Finish {
    /// Name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::MaxTokens => "length",
            Self::Context => "context",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Tokens computed in some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phase {
    /// How many.
    pub tokens: u32,
    /// How long.
    pub time: Duration,
}

impl Phase {
    /// Tokens per second, 0 where nothing was computed.
    pub fn rate(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { f64::from(self.tokens) / self.time.as_secs_f64() }
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens sampled, the one that ended it included.
    pub tokens: u32,
    /// The prompt's tokens, fed in batches.
    pub prefill: Phase,
    /// Sampled tokens, fed one by one.
    pub decode: Phase,
    /// First position that is not in the KV cache.
    pub position: u32,
    /// The last sampled token where it belongs to the answer but has not been fed.
    pub pending: Option<u32>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum GenerateError {
    /// The prompt has no tokens.
    EmptyPrompt,
    /// The prompt does not fit the context.
    PromptTooLong {
        /// Positions that it would take, those before it included.
        positions: u64,
        /// Positions there are.
        seq_len: u32,
    },
    /// The vocabulary is smaller than the model's logits.
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: u32,
        /// Tokens of the model.
        model: u32,
    },
    /// The messages can't be laid out.
    Template(TemplateError),
    /// The text has no tokens.
    Encode(EncodeError),
    /// A forward pass failed.
    Root(RootError),
    /// The logits are broken.
    Sample(SampleError),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPrompt => f.write_str("the prompt has no tokens; give some text"),
            Self::PromptTooLong { positions, seq_len } => {
                write!(
                    f,
                    "the prompt needs {positions} positions; the context holds {seq_len}: shorten it or raise --max-seq-len"
                )
            }
            Self::Vocabulary { tokenizer, model } => write!(
                f,
                "the tokenizer has {tokenizer} tokens, the model {model}; they do not belong together, name the right --tokenizer"
            ),
            Self::Template(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::Root(error) => error.fmt(f),
            Self::Sample(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GenerateError {}

impl From<TemplateError> for GenerateError {
    fn from(error: TemplateError) -> Self {
        Self::Template(error)
    }
}

impl From<EncodeError> for GenerateError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<RootError> for GenerateError {
    fn from(error: RootError) -> Self {
        Self::Root(error)
    }
}

impl From<SampleError> for GenerateError {
    fn from(error: SampleError) -> Self {
        Self::Sample(error)
    }
}

/// Generates answers of one model: its vocabulary, a sampler, and their scratch memory.
#[derive(Debug)]
pub struct Generator<'v> {
    vocab: &'v Vocabulary<'v>,
    sampler: Sampler,
    candidates: Vec<Candidate>,
    held_back: Vec<u8>,
    sampled: Vec<u32>,
}

impl<'v> Generator<'v> {
    /// A generator that draws from `sampler`.
    pub fn new(vocab: &'v Vocabulary<'v>, sampler: Sampler) -> Self {
        let candidates = vec![Candidate::default(); Sampler::scratch_len(vocab.vocab_size())];
        Self { vocab, sampler, candidates, held_back: vec![0; StopDetector::buffer_len(vocab)], sampled: Vec::new() }
    }

    /// The tokens of the last answer in order, the one that ended it included.
    pub fn sampled(&self) -> &[u32] {
        &self.sampled
    }

    /// Feeds the prompt, then generates; `on_text` gets the answer in pieces of whole characters and may end it.
    ///
    /// # Errors
    /// A prompt that is empty or too long is refused before anything is computed; else as [`Root::forward`] and
    /// [`Sampler::sample`].
    pub fn run(
        &mut self,
        root: &mut Root<'_>,
        request: Request<'_>,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, GenerateError> {
        let Request { prompt, position, max_tokens, ignore_eos } = request;
        self.sampled.clear();
        let seq_len = root.seq_len();
        let positions = u64::from(position) + prompt.len() as u64;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if positions > u64::from(seq_len) {
            return Err(GenerateError::PromptTooLong { positions, seq_len });
        }
        let start = Instant::now();
        root.forward(prompt, position, Logits::Last)?;
        let prefill = Phase { tokens: prompt.len() as u32, time: start.elapsed() };

        let start = Instant::now();
        let mut stops = StopDetector::new(self.vocab, &mut self.held_back);
        let mut decoder = Decoder::new();
        let mut piece = String::new();
        let mut answer = Answer {
            finish: Finish::MaxTokens,
            tokens: 0,
            prefill,
            decode: Phase::default(),
            position: positions as u32,
            pending: None,
        };
        while answer.tokens < max_tokens {
            let token = sample(self.vocab, &mut self.sampler, &mut self.candidates, root.logits())?;
            answer.tokens += 1;
            self.sampled.push(token);
            piece.clear();
            // Writing to a String does not fail.
            let _ = decoder.push(self.vocab, token, &mut piece);
            let flow = if ignore_eos {
                on_text(&piece)
            } else {
                match stops.append(token, &piece) {
                    Stop::Maybe => ControlFlow::Continue(()),
                    Stop::No => {
                        let flow = on_text(stops.delta());
                        stops.reset();
                        flow
                    }
                    Stop::Yes => {
                        answer.finish = Finish::Stop;
                        break;
                    }
                }
            };
            answer.pending = Some(token);
            if flow.is_break() {
                answer.finish = Finish::Interrupted;
                break;
            }
            if answer.position == seq_len {
                answer.finish = Finish::Context;
                break;
            }
            if answer.tokens == max_tokens {
                break;
            }
            root.forward(&[token], answer.position, Logits::Last)?;
            answer.position += 1;
            answer.decode.tokens += 1;
            answer.pending = None;
        }
        answer.decode.time = start.elapsed();
        if answer.finish != Finish::Interrupted {
            // What was held back belongs to the answer unless it began a stop string that is now complete.
            piece.clear();
            piece.push_str(stops.delta());
            let _ = decoder.flush(&mut piece);
            let _ = on_text(&piece);
        }
        Ok(answer)
    }
}

/// Draws from the logits of the tokens that have a text; the rest of a padded output matrix is left out.
fn sample(
    vocab: &Vocabulary<'_>,
    sampler: &mut Sampler,
    candidates: &mut [Candidate],
    logits: &mut [f32],
) -> Result<u32, GenerateError> {
    let (tokenizer, model) = (vocab.vocab_size(), logits.len() as u32);
    let logits = logits.get_mut(..tokenizer as usize).ok_or(GenerateError::Vocabulary { tokenizer, model })?;
    Ok(sampler.sample(logits, candidates)?)
}
