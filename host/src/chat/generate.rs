//! Prompt in, text out: prefill, then sample and feed token by token, or several of them where they can be [guessed](super::speculate),
//! until something ends the answer.

use super::grammar::FormError;
use super::speculate::{Proposed, Room, Speculation};
use super::template::TemplateError;
use super::tokenizer::TextError;
use super::wording::Wording;
use crate::cluster::error::RootError;
use crate::cluster::root::Root;
use dair_core::exec::{Logits, Run};
use dair_core::text::{Candidate, SampleError, Sampler, Stop, Vocabulary};
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What to continue, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// All tokens before the answer, from position 0 on: penalties look at them, wherever they come from.
    pub prompt: &'r [u32],
    /// How many of them are in the KV cache. The others, at least one, are fed.
    pub position: u32,
    /// Most tokens to be generated.
    pub max_tokens: u32,
    /// Go on after an EOS token.
    pub ignore_eos: bool,
}

/// What happens on the way to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// So many tokens of the prompt have been computed, of so many.
    Prompt(u32, u32),
    /// The next piece of the answer, whole characters.
    Text(&'e str),
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
    /// The prompt's tokens, fed in batches; fewer than there are, if it was interrupted.
    pub prefill: Phase,
    /// Sampled tokens that were fed, one by one or after they had been proposed.
    pub decode: Phase,
    /// What became of proposed tokens.
    pub proposed: Proposed,
    /// First position that is not in the KV cache.
    pub position: u32,
    /// The last sampled token where it belongs to the answer but has not been fed.
    pub pending: Option<u32>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum GenerateError {
    /// The prompt has no tokens that are to be fed.
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
    Encode(TextError),
    /// A forward pass failed.
    Root(RootError),
    /// The logits are broken.
    Sample(SampleError),
    /// The answer can't go on in its form.
    Form(FormError),
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
            Self::Form(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GenerateError {}

impl From<TemplateError> for GenerateError {
    fn from(error: TemplateError) -> Self {
        Self::Template(error)
    }
}

impl From<TextError> for GenerateError {
    fn from(error: TextError) -> Self {
        Self::Encode(error)
    }
}

impl From<RootError> for GenerateError {
    fn from(error: RootError) -> Self {
        Self::Root(error)
    }
}

impl From<FormError> for GenerateError {
    fn from(error: FormError) -> Self {
        Self::Form(error)
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
    stop_strings: Vec<String>,
    candidates: Vec<Candidate>,
    recent: Vec<u32>,
    /// How many of them were sampled.
    sampled: usize,
    speculation: Speculation<'v>,
}

impl<'v> Generator<'v> {
    /// A generator that draws from `sampler` and ends answers where one of `stop_strings` would begin.
    pub fn new(vocab: &'v Vocabulary<'v>, sampler: Sampler, stop_strings: Vec<String>) -> Self {
        let candidates = vec![Candidate::default(); Sampler::scratch_len(vocab.vocab_size())];
        let (recent, speculation) = (Vec::new(), Speculation::off());
        Self { vocab, sampler, stop_strings, candidates, recent, sampled: 0, speculation }
    }

    /// With proposed tokens, which make it faster and change no answer.
    #[must_use]
    pub fn with(self, speculation: Speculation<'v>) -> Self {
        Self { speculation, ..self }
    }

    /// The tokens of the last answer in order, the one that ended it included.
    pub fn sampled(&self) -> &[u32] {
        &self.recent[self.recent.len() - self.sampled..]
    }

    /// Feeds the prompt, then generates; `on_event` hears of the prompt and gets the answer in pieces, and may end both.
    ///
    /// # Errors
    /// A prompt that has no tokens to feed or is too long is refused before anything is computed; else as [`Root::forward`] and
    /// [`Sampler::sample`].
    pub fn run(
        &mut self,
        root: &mut Root<'_>,
        request: Request<'_>,
        mut on_event: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Answer, GenerateError> {
        let Request { prompt, position, max_tokens, ignore_eos } = request;
        let seq_len = root.seq_len();
        let lately = seq_len.min(self.sampler.last_n()) as usize;
        self.candidates.resize(self.candidates.len().max(lately), Candidate::default());
        let positions = prompt.len() as u64;
        let new = prompt.get(position as usize..).unwrap_or_default();
        if new.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if positions > u64::from(seq_len) {
            return Err(GenerateError::PromptTooLong { positions, seq_len });
        }
        let mut answer = Answer {
            finish: Finish::MaxTokens,
            tokens: 0,
            prefill: Phase { tokens: new.len() as u32, time: Duration::ZERO },
            decode: Phase::default(),
            proposed: Proposed::default(),
            position: positions as u32,
            pending: None,
        };
        self.recent.clear();
        self.sampled = 0;
        self.recent.extend_from_slice(prompt);

        root.want(self.sampler.looks_at(), self.vocab.vocab_size());
        root.expect(max_tokens);
        let start = Instant::now();
        let total = new.len() as u32;
        match root.feed(new, position, Logits::Last, |done| on_event(Event::Prompt(done, total))) {
            Ok(()) => answer.prefill.time = start.elapsed(),
            Err(RootError::Stopped { done }) => {
                let prefill = Phase { tokens: done, time: start.elapsed() };
                return Ok(Answer { finish: Finish::Interrupted, prefill, position: position + done, ..answer });
            }
            Err(error) => return Err(error.into()),
        }
        let start = Instant::now();
        self.speculation.begin();
        self.decode(root, max_tokens, ignore_eos, &mut answer, on_event)?;
        answer.proposed = self.speculation.end();
        answer.decode.time = start.elapsed();
        Ok(answer)
    }

    fn decode(
        &mut self,
        root: &mut Root<'_>,
        max_tokens: u32,
        ignore_eos: bool,
        answer: &mut Answer,
        mut on_event: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(), GenerateError> {
        let (seq_len, batch_max) = (root.seq_len(), root.batch_max()?);
        let ends: &[u32] = if ignore_eos { &[] } else { &self.vocab.header().eos };
        let mut wording = Wording::new(self.vocab, ends, &self.stop_strings);
        // The row of the last pass that tells the next token.
        let mut row = root.asked().end.saturating_sub(1);
        while answer.tokens < max_tokens {
            let token = sample(self.vocab, &mut self.sampler, &self.recent, &mut self.candidates, (root, row))?;
            answer.tokens += 1;
            self.recent.push(token);
            self.sampled += 1;
            let (stop, text) = wording.push(self.vocab, token);
            let flow = on_event(Event::Text(text));
            if stop == Stop::Yes {
                answer.finish = Finish::Stop;
                return Ok(());
            }
            answer.pending = Some(token);
            if flow.is_break() {
                answer.finish = Finish::Interrupted;
                return Ok(());
            }
            if answer.position == seq_len {
                answer.finish = Finish::Context;
                break;
            }
            if answer.tokens == max_tokens {
                break;
            }
            if self.speculation.accepts(token) {
                row += 1;
            } else {
                let tokens = (max_tokens - answer.tokens).min(seq_len - answer.position).min(batch_max) - 1;
                let room = Room { tokens, vocab_size: self.vocab.vocab_size(), ends };
                let tokens = self.speculation.next(&self.recent, room)?;
                let run = Run::new(answer.position, tokens.len() as u32, Logits::All);
                let start = Instant::now();
                match root.pass(&[run], tokens) {
                    Ok(()) => self.speculation.took(start.elapsed()),
                    Err(RootError::Stopped { .. }) => {
                        answer.finish = Finish::Interrupted;
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
                row = 0;
            }
            answer.position += 1;
            answer.decode.tokens += 1;
            answer.pending = None;
        }
        let _ = on_event(Event::Text(wording.rest()));
        Ok(())
    }
}

/// Draws the token behind a row of the last pass; gets logits from other nodes where those that are here do not tell.
pub(crate) fn sample(
    vocab: &Vocabulary<'_>,
    sampler: &mut Sampler,
    recent: &[u32],
    candidates: &mut [Candidate],
    (root, row): (&mut Root<'_>, u32),
) -> Result<u32, GenerateError> {
    if let Some(partial) = root.partial_of(row) {
        let logits = with_text(vocab, root.logits_of(row))?;
        if let Ok(token) = sampler.sample_partial(logits, &partial, candidates)? {
            return Ok(token);
        }
        root.rest()?;
    }
    Ok(sampler.sample(with_text(vocab, root.logits_of(row))?, recent, candidates)?)
}

/// The logits of the tokens that have a text; the rest of a padded output matrix is left out.
pub(crate) fn with_text<'l>(vocab: &Vocabulary<'_>, logits: &'l mut [f32]) -> Result<&'l mut [f32], GenerateError> {
    let (tokenizer, model) = (vocab.vocab_size(), logits.len() as u32);
    logits.get_mut(..tokenizer as usize).ok_or(GenerateError::Vocabulary { tokenizer, model })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::tests::with_model;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// Tokens of several batches, other ones for another seed.
    fn prompt(seed: u32) -> Vec<u32> {
        (0..700).map(|i: u32| (i * 37 + i * i * 11 + seed * 53) % 256).collect()
    }

    fn generator<'v>(vocab: &'v Vocabulary<'v>) -> Generator<'v> {
        Generator::new(vocab, Sampler::new(0.0, 1.0, 1).unwrap(), Vec::new())
    }

    fn request(prompt: &[u32], position: u32) -> Request<'_> {
        Request { prompt, position, max_tokens: 12, ignore_eos: true }
    }

    /// The tokens of an answer that nobody interrupts.
    fn answer(vocab: &Vocabulary<'_>, root: &mut Root<'_>, prompt: &[u32], position: u32) -> Vec<u32> {
        let mut generator = generator(vocab);
        let answer = generator.run(root, request(prompt, position), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((answer.finish, answer.prefill.tokens), (Finish::MaxTokens, prompt.len() as u32 - position));
        generator.sampled().to_vec()
    }

    #[test]
    fn a_prompt_can_be_interrupted_between_batches_and_gone_on_with() {
        with_model(1024, None, |root, tokenizer| {
            let (vocab, prompt) = (tokenizer.vocabulary(), prompt(0));
            let whole = answer(vocab, root, &prompt, 0);
            answer(vocab, root, &self::prompt(1), 0);
            let mut heard = Vec::new();
            let on_event = |event: Event<'_>| match event {
                Event::Prompt(done, total) => {
                    heard.push((done, total));
                    if done > 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                }
                Event::Text(text) => panic!("{text:?} after an interruption"),
            };
            let cut = generator(vocab).run(root, request(&prompt, 0), on_event).unwrap();
            let done = cut.prefill.tokens;
            assert_eq!((cut.finish, cut.tokens, cut.position), (Finish::Interrupted, 0, done));
            assert!(heard.len() > 2 && heard.is_sorted() && heard.iter().all(|(_, total)| *total == 700), "{heard:?}");
            assert_eq!(heard.last(), Some(&(done, 700)));
            assert_eq!(answer(vocab, root, &prompt, done), whole);
        });
    }

    /// Wherever in a pass the flag is set, and whichever thread sees it first: what counts as computed is computed.
    #[test]
    fn a_flag_ends_a_pass_and_what_is_in_the_cache_stays_right() {
        static STOP: AtomicBool = AtomicBool::new(false);
        with_model(1024, Some(&STOP), |root, tokenizer| {
            let (vocab, prompt) = (tokenizer.vocabulary(), prompt(0));
            let whole = answer(vocab, root, &prompt, 0);
            let mut interrupted = 0;
            for round in 0..40u32 {
                answer(vocab, root, &self::prompt(round + 1), 0);
                let mut generator = generator(vocab);
                let cut = thread::scope(|scope| {
                    let mut timer = None;
                    generator.run(root, request(&prompt, 0), |event| {
                        if let Event::Prompt(done, _) = event
                            && done > 128 * (round % 4)
                            && timer.is_none()
                        {
                            timer = Some(scope.spawn(move || {
                                thread::sleep(Duration::from_micros(u64::from(round) * 23));
                                STOP.store(true, Ordering::Relaxed);
                            }));
                        }
                        ControlFlow::Continue(())
                    })
                });
                STOP.store(false, Ordering::Relaxed);
                let cut = cut.unwrap();
                if cut.prefill.tokens < 700 {
                    interrupted += 1;
                    assert_eq!((cut.finish, cut.tokens, cut.position), (Finish::Interrupted, 0, cut.prefill.tokens));
                    assert_eq!(answer(vocab, root, &prompt, cut.position), whole, "round {round}");
                } else {
                    assert!(whole.starts_with(generator.sampled()), "round {round}");
                }
            }
            assert!(interrupted > 0, "no prompt was interrupted");
        });
    }

    #[test]
    fn a_prompt_that_is_in_the_cache_as_a_whole_has_nothing_to_begin_with() {
        with_model(64, None, |root, tokenizer| {
            for (prompt, position) in [(&[][..], 0), (&[1, 2][..], 2), (&[1, 2][..], 3)] {
                let refused = generator(tokenizer.vocabulary())
                    .run(root, request(prompt, position), |_| ControlFlow::Continue(()))
                    .unwrap_err();
                assert!(matches!(refused, GenerateError::EmptyPrompt), "{refused}");
            }
        });
    }
}
