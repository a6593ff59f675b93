//! A server answers: `dair serve`, or any other that speaks OpenAI's API. The whole conversation is sent with each question.

use super::answerer::{Answerer, Needed, NoAnswer};
use super::tally::Lines;
use crate::chat::conversation::{Messages, Piece, Splitter, Turn};
use crate::chat::generate::{Answer, Finish, Phase};
use crate::chat::speculate::Proposed;
use crate::cli::{Failure, interrupt};
use crate::client::chat::{self, End, Part, Usage};
use crate::client::{ClientError, Server, Why};
use crate::machine::terminal;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Ctrl-C is noticed within so long.
const BLINK: Duration = Duration::from_millis(50);
/// A server that asks for more is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What servers call a conversation that does not fit.
const FULL: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
/// Models that are listed where there are several.
const LISTED: usize = 10;

/// A server.
#[derive(Debug)]
pub struct Remote {
    /// Whom to ask.
    pub server: Server,
    /// Which of its models.
    pub model: Model,
    /// What was said.
    pub messages: Messages,
    /// How tokens are chosen, as far as the user says.
    pub sampling: Map<String, Value>,
    /// Most tokens of an answer, if that was said.
    pub max_tokens: Option<u32>,
    /// Whether to reason, if that was said.
    pub think: Option<bool>,
    /// Say what is waited for.
    pub is_told: bool,
    /// Answers so far: each has a seed of its own.
    pub answers: u64,
    /// Tokens of the last answer.
    pub usage: Option<Usage>,
}

/// A model of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What it is called there.
    pub name: String,
    /// Positions of its context, if the server says so.
    pub seq_len: Option<u32>,
}

impl Model {
    /// The model called `name`, else the only one that there is.
    ///
    /// # Errors
    /// The server does not answer, or it is not clear which model is meant.
    pub fn find(server: &Server, name: Option<&str>) -> Result<Self, Failure> {
        let list = match server.get("/v1/models") {
            Ok(list) => list,
            // Not all servers list their models.
            Err(ClientError { why: Why::Refused { status: 404 | 405, .. }, .. }) if name.is_some() => Value::Null,
            Err(error) => return Err(error.to_string().into()),
        };
        let models: Vec<_> = list["data"].as_array().into_iter().flatten().filter_map(Self::of).collect();
        let url = &server.url;
        match (name, &models[..]) {
            (Some(name), _) => {
                let known = models.iter().find(|model| model.name == name);
                Ok(known.cloned().unwrap_or_else(|| Self { name: name.to_owned(), seq_len: None }))
            }
            (None, [only]) => Ok(only.clone()),
            (None, []) => Err(format!("{url} names no model: name one by --name; is that the right URL?").into()),
            (None, several) => {
                let names: Vec<_> = several.iter().take(LISTED).map(|model| &model.name[..]).collect();
                let more = if several.len() > LISTED { ", …" } else { "" };
                Err(format!("{url} has several models: name one by --name: {}{more}", names.join(", ")).into())
            }
        }
    }

    fn of(entry: &Value) -> Option<Self> {
        let seq_len = ["context_length", "max_model_len"].iter().find_map(|name| entry[name].as_u64());
        let seq_len = seq_len.and_then(|len| u32::try_from(len).ok()).filter(|len| *len > 0);
        Some(Self { name: entry["id"].as_str()?.to_owned(), seq_len })
    }
}

/// An answer on its way.
struct Coming {
    /// Finds the reasoning of servers that leave it in the text.
    splitter: Splitter,
    reasoning: Option<String>,
    first: Option<Instant>,
}

impl Coming {
    fn new() -> Self {
        Self { splitter: Splitter::new(""), reasoning: None, first: None }
    }

    fn push(&mut self, part: &Part, mut on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.first.get_or_insert_with(Instant::now);
        match part {
            Part::Reasoning(text) => {
                self.reasoning.get_or_insert_default().push_str(text);
                on_piece(Piece::Reasoning(text))
            }
            Part::Text(text) => self.splitter.push(text, &mut on_piece),
            Part::End(_) => ControlFlow::Continue(()),
        }
    }
}

impl Remote {
    fn request(&self) -> Value {
        let mut object = self.sampling.clone();
        if let Some(seed) = object.get_mut("seed") {
            // The first answer is that of this seed, and one that is asked for again is another one.
            *seed = seed.as_u64().map(|seed| seed.wrapping_add(self.answers)).into();
        }
        object.insert("model".into(), self.model.name.clone().into());
        object.insert("messages".into(), json!(&self.messages[..]));
        object.insert("stream".into(), true.into());
        object.insert("stream_options".into(), json!({ "include_usage": true }));
        if let Some(most) = self.max_tokens {
            object.insert("max_tokens".into(), most.into());
        }
        if let Some(think) = self.think {
            object.insert("chat_template_kwargs".into(), json!({ "enable_thinking": think }));
        }
        object.into()
    }

    /// Asks, and hears what comes; `None` where the listener has had enough.
    fn hear(
        &self,
        coming: &mut Coming,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Option<End>, NoAnswer> {
        let mut has_waited = false;
        let mut asked = self.ask()?;
        loop {
            match asked.next(BLINK) {
                None if interrupt::is_set() => return Ok(None),
                None => {}
                Some(Ok(Part::End(end))) => return Ok(Some(end)),
                Some(Ok(part)) if coming.push(&part, on_piece).is_break() => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) => match busy(&error) {
                    Some(wait) if !has_waited => {
                        if self.is_told {
                            terminal::note(format_args!("{error}: asking again in {} s", wait.as_secs()));
                        }
                        if !sleep(wait) {
                            return Ok(None);
                        }
                        (has_waited, asked) = (true, self.ask()?);
                    }
                    _ => return Err(no_answer(&error)),
                },
            }
        }
    }

    fn ask(&self) -> Result<chat::Asked, NoAnswer> {
        chat::ask(&self.server, self.request()).map_err(|error| NoAnswer::Failed(error.into()))
    }

    fn finish(&self, end: Option<&End>) -> Finish {
        let Some(end) = end else { return Finish::Interrupted };
        let used = end.usage.map(|usage| u64::from(usage.prompt) + u64::from(usage.completion));
        let is_full = used.zip(self.model.seq_len).is_some_and(|(used, seq_len)| used >= seq_len.into());
        match (end.is_cut, is_full) {
            (false, _) => Finish::Stop,
            (true, true) => Finish::Context,
            (true, false) => Finish::MaxTokens,
        }
    }

    /// Positions of the context that are in use, of those there are.
    fn positions(&self) -> Option<String> {
        let usage = self.usage?;
        let used = usage.prompt.saturating_add(usage.completion);
        Some(match self.model.seq_len {
            Some(seq_len) => format!("{} of {seq_len} positions", used.min(seq_len)),
            None => format!("{used} positions"),
        })
    }
}

impl Answerer for Remote {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn messages_mut(&mut self) -> &mut Messages {
        &mut self.messages
    }

    fn answer(&mut self, mut on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>) -> Result<Turn, NoAnswer> {
        let start = Instant::now();
        let mut coming = Coming::new();
        let end = self.hear(&mut coming, on_piece)?;
        let now = Instant::now();
        coming.splitter.finish(&mut on_piece);
        let (within, text) = coming.splitter.into_parts();
        let first = coming.first.unwrap_or(now);
        self.usage = end.as_ref().and_then(|end| end.usage);
        let Usage { prompt, cached, completion } = self.usage.unwrap_or_default();
        let answer = Answer {
            finish: self.finish(end.as_ref()),
            tokens: completion,
            prefill: Phase { tokens: prompt - cached, time: first - start },
            decode: Phase { tokens: completion.saturating_sub(1), time: now - first },
            proposed: Proposed::default(),
            position: prompt.saturating_add(completion),
            pending: None,
        };
        let turn = Turn { answer, text, reasoning: coming.reasoning.or(within) };
        turn.keep(&mut self.messages);
        self.answers += 1;
        Ok(turn)
    }

    fn needed(&self) -> Result<Option<Needed>, NoAnswer> {
        Ok(None)
    }

    fn greeting(&self) -> String {
        let Model { name, seq_len } = &self.model;
        let context = seq_len.map(|seq_len| format!(", {seq_len} positions of context")).unwrap_or_default();
        format!("{name} at {}{context}", self.server.url)
    }

    fn model(&self) -> String {
        self.model.name.clone()
    }

    fn sampling(&self) -> Value {
        self.sampling.clone().into()
    }

    fn is_greedy(&self) -> bool {
        self.sampling.get("temperature").and_then(Value::as_f64) == Some(0.0)
    }

    fn summary(&self, turn: &Turn) -> String {
        let Answer { prefill, decode, .. } = &turn.answer;
        let mut text = format!("first words after {:.2} s", prefill.time.as_secs_f64());
        if decode.tokens > 0 {
            text += &format!(", decode {:.1} tokens/s", decode.rate());
        }
        if let Some(positions) = self.positions() {
            text += &format!("; {positions}");
        }
        text
    }

    fn json(&self, turn: &Turn) -> Value {
        let Answer { finish, prefill, decode, .. } = &turn.answer;
        let phase = |phase: &Phase| {
            let is_known = self.usage.is_some();
            json!({
                "tokens": is_known.then_some(phase.tokens), "seconds": phase.time.as_secs_f64(),
                "tokens_per_second": is_known.then(|| phase.rate()),
            })
        };
        let seed = self.sampling.get("seed").and_then(Value::as_u64);
        let mut object = json!({
            "text": turn.text, "finish_reason": finish.name(),
            "seed": seed.map(|seed| seed.wrapping_add(self.answers - 1)),
            "generated_tokens": self.usage.map(|usage| usage.completion),
            "prefill": phase(prefill), "decode": phase(decode),
            "cached_tokens": self.usage.map(|usage| usage.cached),
            "model": self.model.name, "server": self.server.url.to_string(),
        });
        if let Some(reasoning) = &turn.reasoning {
            object["reasoning"] = json!(reasoning);
        }
        object
    }

    fn figures(&self) -> Lines {
        let mut lines = vec![("model", self.model.name.clone()), ("server", self.server.url.to_string())];
        lines.extend(self.positions().map(|positions| ("context", positions)));
        lines
    }
}

/// After how long a server that has too much to do may be asked again, if it says so.
fn busy(error: &ClientError) -> Option<Duration> {
    match error.why {
        Why::Refused { status: 429 | 503, retry_after, .. } => retry_after.filter(|wait| *wait <= WAIT_MAX),
        _ => None,
    }
}

/// Waits, and says whether nobody minded.
fn sleep(wait: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < wait && !interrupt::is_set() {
        std::thread::sleep(BLINK);
    }
    !interrupt::is_set()
}

fn no_answer(error: &ClientError) -> NoAnswer {
    let line = error.to_string();
    match &error.why {
        Why::Refused { code: Some(code), .. } if FULL.contains(&&code[..]) => NoAnswer::Full,
        // It may be said again to another server, with a key, or later.
        Why::Refused { status: 401 | 403 | 408 | 409 | 429, .. } => NoAnswer::Lost(line),
        Why::Refused { status: 400..=499, .. } => NoAnswer::Refused(line),
        _ => NoAnswer::Lost(line),
    }
}
