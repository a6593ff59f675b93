//! `POST /v1/chat/completions`.

use super::super::content::Content;
use super::super::error::ApiError;
use super::super::fields::Fields;
use super::super::frames::{self, Frames, Gone, Shape};
use super::super::messages::{messages, tools};
use super::super::sampling::{OPENAI, Sampling, TOP_LOGPROBS_MAX};
use super::super::server::{Answer, Client, Piece, Server, new_id, now};
use super::super::texts::{Prompt, apart};
use super::usage::Usage;
use super::{Streaming, answers, check_offered, logprobs};
use crate::chat::conversation::{self, Splitter};
use crate::chat::template::Context;
use crate::serve::engine::{Ended, Logprobs, Why};
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{FuturesUnordered, StreamExt};
use minijinja::value::{Serde, Value as TemplateValue};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A request that was read.
struct Request {
    streaming: Streaming,
    sampling: Sampling,
    prompt: Prompt,
    max_tokens: u32,
    answers: u32,
    logprobs: Option<u32>,
}

impl Request {
    fn parse(server: &Server, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::of(body)?;
        check_offered(&fields)?;
        let streaming = Streaming::of(&fields)?;
        let sampling = Sampling::of(&fields, OPENAI, server)?;
        let prompt = server.texts.conversation(context(&fields)?)?;
        let max_tokens = server.room("messages", &prompt, sampling.max_tokens)?;
        let logprobs = match (fields.flag("logprobs")?, fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?) {
            (Some(true), top) => Some(top.unwrap_or(0) as u32),
            (_, Some(1..)) => return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true")),
            _ => None,
        };
        Ok(Self { streaming, prompt, max_tokens, answers: answers(&fields)?, logprobs, sampling })
    }
}

/// What the template is given.
pub fn context(fields: &Fields) -> Result<Context, ApiError> {
    let is_none = fields.get("tool_choice").is_some_and(|choice| choice == "none");
    let extra = fields.object("chat_template_kwargs")?;
    let mut think = match &extra {
        Some(extra) => extra.flag("enable_thinking")?,
        None => None,
    };
    // Ollama's name for it.
    if fields.get("think").is_some_and(Value::is_boolean) {
        think = fields.flag("think")?;
    }
    Ok(Context {
        messages: TemplateValue::from(Serde(messages(fields)?)),
        tools: tools(fields)?.filter(|_| !is_none).map(|tools| TemplateValue::from(Serde(tools))),
        think,
        add_generation_prompt: true,
    })
}

/// The answers to a request, and what all of their objects have in common.
struct Asked {
    server: Arc<Server>,
    id: String,
    created: u64,
    seed: u64,
    prompt: String,
    answers: Vec<Answer>,
    has_logprobs: bool,
}

/// Answers a request.
///
/// # Errors
/// What is wrong with it, or why there is no answer.
pub async fn chat(
    State(server): State<Arc<Server>>,
    Extension(client): Extension<Client>,
    Content(body): Content,
) -> Result<Response, ApiError> {
    let shared = Arc::clone(&server);
    let request = apart(move || Request::parse(&shared, &body)).await?;
    let mut asked = Asked {
        id: new_id("chatcmpl-"),
        created: now(),
        seed: request.sampling.seed,
        answers: Vec::new(),
        has_logprobs: request.logprobs.is_some(),
        prompt: request.prompt.text,
        server,
    };
    for index in 0..request.answers {
        let choice = request.sampling.choice(index, request.logprobs)?;
        let how = (&request.sampling, choice, request.max_tokens);
        asked.answers.push(asked.server.ask(&client, request.prompt.tokens.clone(), how)?);
    }
    // A failure before anything was said has a status of its own.
    asked.answers[0].begun().await?;
    if !request.streaming.is_on {
        return asked.whole().await.map(IntoResponse::into_response);
    }
    let has_usage = request.streaming.has_usage;
    Ok(frames::stream(Shape::Events, |frames| async move { asked.stream(&frames, has_usage).await }))
}

impl Asked {
    fn object(&self, kind: &str) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.server.model,
            "system_fingerprint": self.server.fingerprint,
        })
    }

    /// All answers, when they are all there.
    async fn whole(mut self) -> Result<axum::Json<Value>, ApiError> {
        let mut object = self.object("chat.completion");
        object["seed"] = self.seed.into();
        let (mut choices, mut usage) = (Vec::new(), Usage::default());
        for (index, mut answer) in std::mem::take(&mut self.answers).into_iter().enumerate() {
            if index > 0 {
                answer.begun().await?;
            }
            let mut words = Words::new(&self.prompt);
            let mut logprobs = Vec::new();
            let ended = loop {
                match answer.next().await? {
                    Piece::Token(token) => {
                        words.push(&token.text, &mut |_| ());
                        logprobs.extend(token.logprob.map(|one| logprobs::of_chat(&self.server.texts, &one)));
                    }
                    Piece::Ended(ended) => break ended,
                }
            };
            words.finish(&mut |_| ());
            usage.add(&ended);
            let (reasoning, content) = words.into_parts();
            let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
            if let Some(reasoning) = reasoning {
                message["reasoning_content"] = reasoning.into();
            }
            choices.push(json!({
                "index": index, "message": message, "finish_reason": ended.why.name(),
                "logprobs": self.has_logprobs.then(|| json!({ "content": logprobs })),
            }));
        }
        object["choices"] = choices.into();
        object["usage"] = usage.json();
        Ok(axum::Json(object))
    }

    /// All answers, as they come.
    async fn stream(mut self, frames: &Frames, has_usage: bool) -> Result<(), Gone> {
        let answers = std::mem::take(&mut self.answers);
        let this = &self;
        let mut all: FuturesUnordered<_> = answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| this.stream_one(index, answer, (frames, has_usage)))
            .collect();
        let mut usage = Usage::default();
        while let Some(ended) = all.next().await {
            match ended? {
                Ok(ended) => usage.add(&ended),
                Err(error) => return frames.send(&error.openai()).await,
            }
        }
        drop(all);
        if has_usage {
            let mut object = self.object("chat.completion.chunk");
            object["choices"] = json!([]);
            object["usage"] = usage.json();
            frames.send(&object).await?;
        }
        frames.end().await
    }

    async fn stream_one(
        &self,
        index: usize,
        mut answer: Answer,
        (frames, has_usage): (&Frames, bool),
    ) -> Result<Result<Ended, ApiError>, Gone> {
        if index > 0
            && let Err(error) = answer.begun().await
        {
            return Ok(Err(error));
        }
        let chunk = |delta: Value, logprobs: Option<&Logprobs>, why: Option<Why>| {
            let mut object = self.object("chat.completion.chunk");
            let logprobs = logprobs.map(|one| json!({ "content": [logprobs::of_chat(&self.server.texts, one)] }));
            object["choices"] = json!([{
                "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": why.map(Why::name),
            }]);
            if has_usage {
                // It comes with the last chunk, and is nothing in all others.
                object["usage"] = Value::Null;
            }
            object
        };
        frames.send(&chunk(json!({ "role": "assistant", "content": "", "refusal": null }), None, None)).await?;
        let mut words = Words::new(&self.prompt);
        loop {
            let mut deltas = Vec::new();
            let piece = match answer.next().await {
                Ok(piece) => piece,
                Err(error) => return Ok(Err(error)),
            };
            match piece {
                Piece::Token(token) => {
                    words.push(&token.text, &mut |delta| deltas.push(delta));
                    if token.logprob.is_some() && deltas.is_empty() {
                        deltas.push(json!({}));
                    }
                    // Those of a token go along with its first text.
                    let mut logprob = token.logprob;
                    for delta in deltas {
                        frames.send(&chunk(delta, logprob.take().as_ref(), None)).await?;
                    }
                }
                Piece::Ended(ended) => {
                    words.finish(&mut |delta| deltas.push(delta));
                    for delta in deltas {
                        frames.send(&chunk(delta, None, None)).await?;
                    }
                    frames.send(&chunk(json!({}), None, Some(ended.why))).await?;
                    return Ok(Ok(ended));
                }
            }
        }
    }
}

/// The text of an answer as deltas of a message: reasoning apart from the rest.
pub struct Words(Splitter);

impl Words {
    /// Of what follows a prompt.
    pub fn new(prompt: &str) -> Self {
        Self(Splitter::new(prompt))
    }

    /// The next text.
    pub fn push(&mut self, text: &str, say: &mut impl FnMut(Value)) {
        let _ = self.0.push(text, &mut |piece| said(piece, say));
    }

    /// No more comes.
    pub fn finish(&mut self, say: &mut impl FnMut(Value)) {
        self.0.finish(&mut |piece| said(piece, say));
    }

    /// Reasoning, if there is any, and the answer.
    pub fn into_parts(self) -> (Option<String>, String) {
        self.0.into_parts()
    }
}

fn said(piece: conversation::Piece<'_>, say: &mut impl FnMut(Value)) -> ControlFlow<()> {
    match piece {
        conversation::Piece::Prompt(..) => {}
        conversation::Piece::Reasoning(text) => say(json!({ "reasoning_content": text })),
        conversation::Piece::Answer(text) => say(json!({ "content": text })),
    }
    ControlFlow::Continue(())
}
