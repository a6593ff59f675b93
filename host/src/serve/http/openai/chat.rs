//! `POST /v1/chat/completions`.

use super::super::content::Content;
use super::super::conversation::{Conversation, Tools};
use super::super::error::ApiError;
use super::super::fields::Fields;
use super::super::form;
use super::super::frames::{self, Frames, Gone, Shape};
use super::super::sampling::{OPENAI, Sampling, TOP_LOGPROBS_MAX};
use super::super::server::{Answer, Client, Piece, Server, new_id, now};
use super::super::texts::{Prompt, apart};
use super::super::words::{Called, Delta, Message, Words};
use super::usage::Usage;
use super::{Streaming, answers, logprobs, signed};
use crate::serve::engine::{Ended, Logprobs, Why};
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;

/// A request that was read.
struct Request {
    streaming: Streaming,
    sampling: Sampling,
    prompt: Prompt,
    tools: Option<Tools>,
    max_tokens: u32,
    answers: u32,
    logprobs: Option<u32>,
}

impl Request {
    fn parse(server: &Server, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::of(body)?;
        let streaming = Streaming::of(&fields)?;
        let mut sampling = Sampling::of(&fields, OPENAI, server)?;
        let Conversation { prompt, tools, constraint } = Conversation::of(server, &fields, form::of_openai(&fields)?)?;
        sampling.constraint = constraint;
        let max_tokens = server.room("messages", &prompt, sampling.max_tokens)?;
        let logprobs = match (fields.flag("logprobs")?, fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?) {
            (Some(true), top) => Some(top.unwrap_or(0) as u32),
            (_, Some(1..)) => return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true")),
            _ => None,
        };
        Ok(Self { streaming, prompt, tools, max_tokens, answers: answers(&fields)?, logprobs, sampling })
    }
}

/// The answers to a request, and what all of their objects have in common.
struct Asked {
    server: Arc<Server>,
    id: String,
    created: u64,
    seed: u64,
    prompt: String,
    tools: Option<Tools>,
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
        tools: request.tools,
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
        object["seed"] = signed(self.seed).into();
        let (mut choices, mut usage) = (Vec::new(), Usage::default());
        for (index, mut answer) in std::mem::take(&mut self.answers).into_iter().enumerate() {
            if index > 0 {
                answer.begun().await?;
            }
            let mut words = Words::new(&self.prompt, self.tools.as_ref());
            let mut logprobs = Vec::new();
            let ended = loop {
                match answer.next().await? {
                    Piece::Token(token) => {
                        words.push(&token.text);
                        logprobs.extend(token.logprob.map(|one| logprobs::of_chat(&self.server.texts, &one)));
                    }
                    Piece::Ended(ended) => break ended,
                }
            };
            words.finish();
            usage.add(&ended);
            choices.push(json!({
                "index": index, "finish_reason": reason(ended.why, words.has_called()), "message": message(words.into_message()),
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
        let chunk = |delta: Value, logprobs: Option<&Logprobs>, why: Option<&str>| {
            let mut object = self.object("chat.completion.chunk");
            let logprobs = logprobs.map(|one| json!({ "content": [logprobs::of_chat(&self.server.texts, one)] }));
            object["choices"] = json!([{
                "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": why,
            }]);
            if has_usage {
                // It comes with the last chunk, and is nothing in all others.
                object["usage"] = Value::Null;
            }
            object
        };
        frames.send(&chunk(json!({ "role": "assistant", "content": "", "refusal": null }), None, None)).await?;
        let (mut words, mut calls) = (Words::new(&self.prompt, self.tools.as_ref()), 0);
        loop {
            let piece = match answer.next().await {
                Ok(piece) => piece,
                Err(error) => return Ok(Err(error)),
            };
            match piece {
                Piece::Token(token) => {
                    let mut deltas = deltas(words.push(&token.text), &mut calls);
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
                    for delta in deltas(words.finish(), &mut calls) {
                        frames.send(&chunk(delta, None, None)).await?;
                    }
                    frames.send(&chunk(json!({}), None, Some(reason(ended.why, words.has_called())))).await?;
                    return Ok(Ok(ended));
                }
            }
        }
    }
}

/// Why an answer ended, for clients: what they are to do next.
fn reason(why: Why, has_called: bool) -> &'static str {
    match why {
        Why::Stop if has_called => "tool_calls",
        why => why.name(),
    }
}

/// A whole message.
fn message(Message { reasoning, text, calls }: Message) -> Value {
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if let Some(reasoning) = reasoning {
        message["reasoning_content"] = reasoning.into();
    }
    if !calls.is_empty() {
        let call = |Called { id, tool, arguments }: Called| json!({ "id": id, "type": "function", "function": { "name": tool, "arguments": arguments } });
        message["tool_calls"] = calls.into_iter().map(call).collect();
    }
    message
}

/// Parts of a message; `calls` counts the calls in it.
fn deltas(deltas: Vec<Delta>, calls: &mut u32) -> Vec<Value> {
    let one = |delta| match delta {
        Delta::Reasoning(text) => json!({ "reasoning_content": text }),
        Delta::Text(text) => json!({ "content": text }),
        Delta::Call(id, tool) => {
            *calls += 1;
            let function = json!({ "name": tool, "arguments": "" });
            json!({ "tool_calls": [{ "index": *calls - 1, "id": id, "type": "function", "function": function }] })
        }
        Delta::Arguments(more) => {
            json!({ "tool_calls": [{ "index": calls.saturating_sub(1), "function": { "arguments": more } }] })
        }
    };
    deltas.into_iter().map(one).collect()
}
