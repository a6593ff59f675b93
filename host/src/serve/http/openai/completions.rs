//! `POST /v1/completions`.

use super::super::content::Content;
use super::super::conversation::constraint;
use super::super::error::ApiError;
use super::super::fields::{Fields, wrong};
use super::super::form;
use super::super::frames::{self, Frames, Gone, Shape};
use super::super::sampling::{OPENAI, Sampling};
use super::super::server::{Answer, Client, Piece, Server, new_id, now};
use super::super::texts::{Prompt, apart};
use super::usage::Usage;
use super::{Streaming, answers, logprobs, signed};
use crate::serve::engine::{Ended, Why};
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use dair_core::text::EncodeOptions;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most prompts of a request, and most probabilities that are told of one token.
const PROMPTS_MAX: usize = 128;
const LOGPROBS_MAX: i64 = 20;

struct Request {
    streaming: Streaming,
    sampling: Sampling,
    /// Each with the most tokens that there is room for.
    prompts: Vec<(Prompt, u32)>,
    answers: u32,
    logprobs: Option<u32>,
    /// The prompts come before their answers.
    has_echo: bool,
}

impl Request {
    fn parse(server: &Server, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::of(body)?;
        let mut sampling = Sampling::of(&fields, OPENAI, server)?;
        // As there, where a chat goes on to the end.
        sampling.max_tokens = sampling.max_tokens.or(Some(16));
        for (name, why) in [("suffix", "filling in"), ("best_of", "choosing the best of several answers")] {
            let is_asked = fields.get(name).is_some_and(|value| value != "" && *value != 1);
            if is_asked {
                return Err(ApiError::field(name, format!("{name}: {why} is not offered here")));
            }
        }
        let mut prompts = Vec::new();
        for prompt in read_prompts(server, &fields)? {
            let room = server.room("prompt", &prompt, sampling.max_tokens)?;
            prompts.push((prompt, room));
        }
        // Texts that go on have no reasoning to wait for.
        let plain = Prompt { text: String::new(), tokens: Vec::new() };
        sampling.constraint = constraint(server, form::of_openai(&fields)?, &plain)?;
        Ok(Self {
            streaming: Streaming::of(&fields)?,
            sampling,
            prompts,
            answers: answers(&fields)?,
            logprobs: fields.integer("logprobs", 0..=LOGPROBS_MAX)?.map(|top| top as u32),
            has_echo: fields.flag("echo")?.unwrap_or(false),
        })
    }
}

/// A text, tokens, or a list of either.
fn read_prompts(server: &Server, fields: &Fields) -> Result<Vec<Prompt>, ApiError> {
    let wanted = "a text, a list of texts, a list of tokens, or a list of lists of tokens";
    let value = fields
        .get("prompt")
        .ok_or_else(|| ApiError::field("prompt", format!("prompt is missing; wanted is {wanted}")))?;
    let options = EncodeOptions { start: true, special: true };
    let text = |text: &str| server.texts.text("prompt", text, options);
    let tokens = |value: &Value| {
        let ids = value.as_array().and_then(|ids| ids.iter().map(|id| id.as_u64()?.try_into().ok()).collect());
        let prompt = server.texts.tokens("prompt", ids.ok_or_else(|| wrong("prompt", value, wanted))?)?;
        let text = server.texts.decode(&prompt.tokens);
        Ok(Prompt { text, ..prompt })
    };
    match value {
        Value::String(one) => Ok(vec![text(one)?]),
        Value::Array(list) if list.len() > PROMPTS_MAX && !list[0].is_u64() => {
            Err(ApiError::field("prompt", format!("prompt has {} texts; at most {PROMPTS_MAX} go", list.len())))
        }
        Value::Array(list) => match list.first() {
            Some(Value::String(_)) => {
                list.iter().map(|one| text(one.as_str().ok_or_else(|| wrong("prompt", one, "a text"))?)).collect()
            }
            Some(Value::Array(_)) => list.iter().map(tokens).collect(),
            _ => Ok(vec![tokens(value)?]),
        },
        other => Err(wrong("prompt", other, wanted)),
    }
}

struct Asked {
    server: Arc<Server>,
    id: String,
    created: u64,
    seed: u64,
    has_logprobs: bool,
    /// Prompt by prompt.
    answers: Vec<OfPrompt>,
    /// Answers to each prompt.
    each: usize,
}

/// An answer to a prompt.
struct OfPrompt {
    answer: Answer,
    /// What is said before it.
    echo: String,
    /// Characters of the prompt.
    chars: usize,
}

/// Answers a request.
///
/// # Errors
/// What is wrong with it, or why there is no answer.
pub async fn completions(
    State(server): State<Arc<Server>>,
    Extension(client): Extension<Client>,
    Content(body): Content,
) -> Result<Response, ApiError> {
    let shared = Arc::clone(&server);
    let request = apart(move || Request::parse(&shared, &body)).await?;
    let mut asked = Asked {
        id: new_id("cmpl-"),
        created: now(),
        seed: request.sampling.seed,
        has_logprobs: request.logprobs.is_some(),
        answers: Vec::new(),
        each: request.answers as usize,
        server,
    };
    for (prompt, max_tokens) in request.prompts {
        let chars = prompt.text.chars().count();
        let echo = if request.has_echo { prompt.text } else { String::new() };
        for index in 0..request.answers {
            let choice = request.sampling.choice(index, request.logprobs)?;
            let answer = asked.server.ask(&client, prompt.tokens.clone(), (&request.sampling, choice, max_tokens))?;
            asked.answers.push(OfPrompt { answer, echo: echo.clone(), chars });
        }
    }
    asked.answers[0].answer.begun().await?;
    if !request.streaming.is_on {
        return asked.whole().await.map(IntoResponse::into_response);
    }
    let has_usage = request.streaming.has_usage;
    Ok(frames::stream(Shape::Events, |frames| async move { asked.stream(&frames, has_usage).await }))
}

impl Asked {
    fn object(&self) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.server.model,
            "system_fingerprint": self.server.fingerprint,
        })
    }

    async fn whole(mut self) -> Result<axum::Json<Value>, ApiError> {
        let mut object = self.object();
        object["seed"] = signed(self.seed).into();
        let mut choices = Vec::new();
        let mut usages = vec![Usage::default(); self.answers.len() / self.each];
        for (index, one) in std::mem::take(&mut self.answers).into_iter().enumerate() {
            let OfPrompt { mut answer, echo: mut text, chars } = one;
            if index > 0 {
                answer.begun().await?;
            }
            let mut logprobs = logprobs::OfCompletion::behind(chars);
            let ended = loop {
                match answer.next().await? {
                    Piece::Token(token) => {
                        text.push_str(&token.text);
                        token.logprob.iter().for_each(|one| logprobs.push(&self.server.texts, one));
                    }
                    Piece::Ended(ended) => break ended,
                }
            };
            usages[index / self.each].add(&ended);
            choices.push(json!({
                "index": index, "text": text, "finish_reason": ended.why.name(),
                "logprobs": self.has_logprobs.then(|| logprobs.take()),
            }));
        }
        object["choices"] = choices.into();
        object["usage"] = sum(&usages).json();
        Ok(axum::Json(object))
    }

    async fn stream(mut self, frames: &Frames, has_usage: bool) -> Result<(), Gone> {
        let answers = std::mem::take(&mut self.answers);
        let mut usages = vec![Usage::default(); answers.len() / self.each];
        let this = &self;
        let one = |(index, answer)| this.stream_one(index, answer, frames);
        let mut all: FuturesUnordered<_> = answers.into_iter().enumerate().map(one).collect();
        while let Some(ended) = all.next().await {
            match ended? {
                Ok((index, ended)) => usages[index / self.each].add(&ended),
                Err(error) => return frames.send(&error.openai()).await,
            }
        }
        drop(all);
        if has_usage {
            let mut object = self.object();
            object["choices"] = json!([]);
            object["usage"] = sum(&usages).json();
            frames.send(&object).await?;
        }
        frames.end().await
    }

    async fn stream_one(
        &self,
        index: usize,
        OfPrompt { mut answer, echo, chars }: OfPrompt,
        frames: &Frames,
    ) -> Result<Result<(usize, Ended), ApiError>, Gone> {
        if index > 0
            && let Err(error) = answer.begun().await
        {
            return Ok(Err(error));
        }
        let chunk = |text: &str, logprobs: Option<Value>, why: Option<Why>| {
            let mut object = self.object();
            object["choices"] = json!([{
                "index": index, "text": text, "logprobs": logprobs, "finish_reason": why.map(Why::name),
            }]);
            object
        };
        if !echo.is_empty() {
            frames.send(&chunk(&echo, None, None)).await?;
        }
        let mut logprobs = logprobs::OfCompletion::behind(chars);
        loop {
            match answer.next().await {
                Ok(Piece::Token(token)) => {
                    token.logprob.iter().for_each(|one| logprobs.push(&self.server.texts, one));
                    let told = self.has_logprobs.then(|| logprobs.take());
                    frames.send(&chunk(&token.text, told, None)).await?;
                }
                Ok(Piece::Ended(ended)) => {
                    frames.send(&chunk("", None, Some(ended.why))).await?;
                    return Ok(Ok((index, ended)));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

fn sum(usages: &[Usage]) -> Usage {
    let mut all = Usage::default();
    usages.iter().for_each(|usage| all.join(*usage));
    all
}
