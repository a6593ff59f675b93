//! The shortest way to answers for a program that embeds this crate: load a model, ask, read the answer as it comes.
//!
//! ```no_run
//! use dair_host::chat::conversation::{Message, Role};
//! use dair_host::cluster::options::Options;
//! use dair_host::llm::{Llm, Wish};
//!
//! let llm = Llm::load("smollm2.m".as_ref(), &Options::alone(4))?;
//! for piece in llm.chat(&[Message::new(Role::User, "What is the capital of France?")], Wish::default())? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), dair_host::llm::LlmError>(())
//! ```
//!
//! Behind it is the [engine](crate::serve::engine) of the server, on a thread of its own: answers that are asked for from several threads
//! are computed together, as many as [`Options::slots`] says, prompts that begin alike are computed once, and whoever drops an [`Answer`]
//! ends it. With [`Options::workers`] the model runs on a cluster.

use crate::chat::conversation::Message;
use crate::chat::grammar::{Form, Forms};
use crate::chat::template::{self, Context, Template};
use crate::chat::tokenizer::{Tokenizer, TokenizerBytes};
use crate::cluster::error::RootError;
use crate::cluster::options::Options;
use crate::cluster::root;
use crate::model::Model;
use crate::serve::engine::{Ask, Choice, Engine, Event, Figures, Timeline};
use dair_core::text::{EncodeOptions, Filters, Sampler};
use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Why there is no answer: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlmError(String);

impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LlmError {}

impl LlmError {
    fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A model that runs.
#[derive(Debug)]
pub struct Llm {
    tokenizer: &'static Tokenizer<'static>,
    /// How messages are laid out, or why they can't be.
    template: Result<Template, LlmError>,
    forms: OnceLock<Forms>,
    seq_len: u32,
    asks: Option<Mutex<Sender<Ask>>>,
    thread: Option<JoinHandle<()>>,
}

/// How an answer is to be.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How far from the most probable tokens it may go; 0 never does.
    pub temperature: f32,
    /// The most probable tokens that together exceed this are chosen among.
    pub top_p: f32,
    /// Penalties and the like.
    pub filters: Filters,
    /// Answers with the same seed are the same.
    pub seed: u64,
    /// Most tokens of it.
    pub max_tokens: u32,
    /// Texts at which it ends before they begin.
    pub stop: Vec<String>,
    /// What it must look like.
    pub form: Option<Form>,
}

impl Default for Wish {
    fn default() -> Self {
        let (filters, stop) = (Filters::OFF, Vec::new());
        Self { temperature: 0.8, top_p: 0.9, filters, seed: 1, max_tokens: u32::MAX, stop, form: None }
    }
}

/// An answer as it comes: pieces of its text.
#[derive(Debug)]
pub struct Answer(UnboundedReceiver<Event>);

impl Iterator for Answer {
    type Item = Result<String, LlmError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.blocking_recv()? {
                Event::Token(token) if token.text.is_empty() => {}
                Event::Token(token) => return Some(Ok(token.text)),
                Event::Begun { .. } => {}
                Event::Ended(_) => return None,
                Event::Failed(failed) => return Some(Err(LlmError::of(failed))),
            }
        }
    }
}

/// Longer than anybody waits.
const PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);

impl Llm {
    /// Loads a `.m` file and the tokenizer beside it, which has the ending `.t`, and connects the workers. The tables of the tokenizer
    /// stay in memory as long as the process lives.
    ///
    /// # Errors
    /// What is wrong with the files, what this machine can't do, or which worker can't be had.
    pub fn load(path: &Path, options: &Options) -> Result<Self, LlmError> {
        let model = Model::open(path).map_err(LlmError::of)?;
        let bytes = TokenizerBytes::open(&path.with_extension("t")).map_err(LlmError::of)?;
        let tokenizer = Box::leak(Box::new(bytes)).tokenizer(Some(model.header().vocab_size)).map_err(LlmError::of)?;
        let tokenizer: &'static Tokenizer<'static> = Box::leak(Box::new(tokenizer));
        let template = template::choose(None, tokenizer.vocabulary());
        let template = template.map(|choice| choice.template).map_err(LlmError::of);
        let (asks, heard) = channel::<Ask>();
        let (ready, is_ready) = channel();
        let (options, seq_len) = (options.clone(), options.seq_len(model.header()));
        let compute = move || {
            let result = root::with_root(&model, &options, &|_| (), |root| {
                let mut engine = Engine::new(root, tokenizer.vocabulary(), Arc::new(Figures::new()))?;
                // Whoever loads it has not gone away yet.
                let _ = ready.send(Ok(()));
                engine.run(&heard, || false);
                Ok::<_, RootError>(())
            });
            if let Err(error) = result {
                let _ = ready.send(Err(LlmError::of(error)));
            }
        };
        let thread = thread::Builder::new().name("engine".into()).spawn(compute).map_err(LlmError::of)?;
        is_ready.recv().map_err(LlmError::of)??;
        let (asks, thread) = (Some(Mutex::new(asks)), Some(thread));
        Ok(Self { tokenizer, template, forms: OnceLock::new(), seq_len, asks, thread })
    }

    /// Answers the last of these messages.
    ///
    /// # Errors
    /// The model has no template for conversations, or the messages do not fit; else as [`Self::complete`].
    pub fn chat(&self, messages: &[Message], wish: Wish) -> Result<Answer, LlmError> {
        let template = self.template.as_ref().map_err(Clone::clone)?;
        let messages = template.messages(messages);
        let context = Context { messages, tools: None, think: None, add_generation_prompt: true };
        let rendered = template.render(context, Some(self.tokenizer.vocabulary())).map_err(LlmError::of)?;
        self.ask(self.tokenizer.encode_rendered(&rendered).map_err(LlmError::of)?, wish)
    }

    /// Goes on with a text.
    ///
    /// # Errors
    /// The text does not fit the context, or what is wished for can't be.
    pub fn complete(&self, text: &str, wish: Wish) -> Result<Answer, LlmError> {
        let options = EncodeOptions { start: true, special: true };
        self.ask(self.tokenizer.encode(text.as_bytes(), options).map_err(LlmError::of)?, wish)
    }

    fn ask(&self, prompt: Vec<u32>, wish: Wish) -> Result<Answer, LlmError> {
        if prompt.is_empty() || prompt.len() as u64 > u64::from(self.seq_len) {
            let (tokens, seq_len) = (prompt.len(), self.seq_len);
            return Err(LlmError(format!("the prompt has {tokens} tokens; the context holds 1 to {seq_len}")));
        }
        let sampler = Sampler::new(wish.temperature, wish.top_p, wish.seed).map_err(LlmError::of)?;
        let constraint = match &wish.form {
            None => None,
            Some(form) => Some(self.forms()?.read(form, None).map_err(LlmError::of)?),
        };
        let (listener, answer) = unbounded_channel();
        let ask = Ask {
            max_tokens: wish.max_tokens.min(self.seq_len + 1 - prompt.len() as u32),
            timeline: Timeline::begin("program", prompt.len()),
            prompt,
            choice: Choice { sampler: sampler.with(wish.filters), bias: Vec::new(), logprobs: None, constraint },
            stop: wish.stop,
            ignore_eos: false,
            deadline: Instant::now() + PATIENCE,
            client: format!("{:?}", thread::current().id()),
            listener,
            ticket: None,
        };
        let asks = self.asks.as_ref().map(|asks| asks.lock().unwrap_or_else(PoisonError::into_inner));
        // It listens as long as this lives, unless it panicked.
        let sent = asks.is_some_and(|asks| asks.send(ask).is_ok());
        if sent { Ok(Answer(answer)) } else { Err(LlmError("the engine has ended".into())) }
    }

    fn forms(&self) -> Result<&Forms, LlmError> {
        if let Some(forms) = self.forms.get() {
            return Ok(forms);
        }
        let forms = Forms::new(self.tokenizer).map_err(LlmError::of)?;
        Ok(self.forms.get_or_init(|| forms))
    }
}

impl Drop for Llm {
    /// Ends the engine, when answers in progress are there.
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Role;
    use crate::synthetic;
    use dair_core::format::Header;
    use serde_json::json;

    #[test]
    fn answers_come_in_pieces_are_the_same_from_all_threads_and_have_their_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.m");
        let header = Header { seq_len: 512, ..synthetic::preset("tiny-llama").unwrap() };
        synthetic::write_model(&path, &header, 3).unwrap();
        std::fs::write(path.with_extension("t"), synthetic::tokenizer_bytes(header.vocab_size)).unwrap();
        let llm = Llm::load(&path, &Options { slots: 4, ..Options::alone(2) }).unwrap();
        let say = |seed| {
            let wish = Wish { seed, max_tokens: 20, ..Wish::default() };
            llm.complete("Once", wish).unwrap().collect::<Result<String, _>>().unwrap()
        };
        let alone: Vec<String> = (0..4).map(say).collect();
        let together = thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|seed| scope.spawn(move || say(seed))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(together, alone);
        let form = Some(Form::Schema(json!({ "type": "integer", "minimum": 0, "maximum": 99 })));
        let number: String =
            llm.complete("n = ", Wish { form, ..Wish::default() }).unwrap().map(Result::unwrap).collect();
        assert!(number.parse::<u32>().unwrap() < 100, "{number}");
        let wish = Wish { max_tokens: 9, ..Wish::default() };
        let chat = llm.chat(&[Message::new(Role::User, "Hi")], wish).unwrap().collect::<Result<String, _>>();
        assert!(!chat.unwrap().is_empty());
        // Whoever goes away is not computed for.
        drop(llm.complete("Once", Wish::default()).unwrap());
        let error = llm.complete(&"a b ".repeat(1000), Wish::default()).unwrap_err().to_string();
        assert!(error.contains("the context holds 1 to 512"), "{error}");
        assert!(Llm::load(&folder.path().join("none.m"), &Options::alone(1)).is_err());
    }
}
