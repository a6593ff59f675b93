//! The calls of Ollama's API, which many clients speak and nothing else.

use super::content::Content;
use super::conversation::{Conversation, Tools, constraint};
use super::error::ApiError;
use super::fields::Fields;
use super::form;
use super::frames::{self, Frames, Gone, Shape};
use super::keep_alive::ends_at_once;
use super::messages::no_images;
use super::sampling::{OLLAMA, Sampling};
use super::server::{Answer, Client, Piece, Server};
use super::texts::{Prompt, apart};
use super::words::{Called, Delta, Message, Words};
use crate::serve::engine::Ended;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dair_core::text::EncodeOptions;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What of an answer goes where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Chat,
    Generate,
}

/// What a request wants.
enum Wanted {
    Answer(Box<Request>),
    /// Nothing but that the model is there, or no longer: it is all the same here, where there is one, and it stays.
    Presence(&'static str),
}

impl Wanted {
    fn parse(server: &Server, call: Call, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::of(body)?;
        check_model(server, &fields)?;
        check_offer(&fields)?;
        let is_to_go = ends_at_once(&fields)?;
        let is_empty = match call {
            Call::Chat => fields.list("messages")?.is_none_or(Vec::is_empty),
            Call::Generate => fields.text("prompt")?.is_none_or(str::is_empty),
        };
        if is_empty {
            return Ok(Self::Presence(if is_to_go { "unload" } else { "load" }));
        }
        Request::parse(server, call, &fields).map(|request| Self::Answer(Box::new(request)))
    }
}

struct Request {
    call: Call,
    is_stream: bool,
    sampling: Sampling,
    prompt: Prompt,
    tools: Option<Tools>,
    max_tokens: u32,
}

impl Request {
    fn parse(server: &Server, call: Call, fields: &Fields) -> Result<Self, ApiError> {
        let options = fields.object("options")?.unwrap_or_else(|| Fields::within(Map::new()));
        let mut sampling = Sampling::of(&options, OLLAMA, server)?;
        let form = form::of_ollama(fields)?;
        let Conversation { prompt, tools, constraint } = match call {
            Call::Chat => Conversation::of(server, fields, form)?,
            Call::Generate => generate_prompt(server, fields, form)?,
        };
        sampling.constraint = constraint;
        let field = if call == Call::Chat { "messages" } else { "prompt" };
        let max_tokens = server.room(field, &prompt, sampling.max_tokens)?;
        Ok(Self { call, is_stream: fields.flag("stream")?.unwrap_or(true), sampling, prompt, tools, max_tokens })
    }
}

/// There, a model that is not there is an error; a tag says nothing here.
fn check_model(server: &Server, fields: &Fields) -> Result<(), ApiError> {
    let asked = fields.text("model")?.or(fields.text("name")?).unwrap_or_default();
    let name = asked.strip_suffix(":latest").unwrap_or(asked);
    if asked.is_empty() || name == server.model {
        return Ok(());
    }
    let line = format!("model {asked:?} not found; this server has {:?}", server.model);
    Err(ApiError::new(StatusCode::NOT_FOUND, line))
}

/// What Ollama does, and this server does not, is refused.
fn check_offer(fields: &Fields) -> Result<(), ApiError> {
    no_images("images", fields.get("images"))?;
    match fields.text("suffix")? {
        None | Some("") => Ok(()),
        Some(_) => Err(ApiError::field("suffix", "suffix: filling in is not offered here; leave it out")),
    }
}

/// A prompt stands in the template as a question, unless it is `raw`.
fn generate_prompt(server: &Server, fields: &Fields, form: form::Asked) -> Result<Conversation, ApiError> {
    let text = fields.text("prompt")?.unwrap_or_default();
    if fields.flag("raw")?.unwrap_or(false) {
        let prompt = server.texts.text("prompt", text, EncodeOptions { start: true, special: true })?;
        let constraint = constraint(server, form, &prompt)?;
        return Ok(Conversation { prompt, tools: None, constraint });
    }
    let mut messages = Vec::new();
    if let Some(system) = fields.text("system")?.filter(|system| !system.is_empty()) {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": text }));
    let mut all = Map::new();
    all.insert("messages".into(), messages.into());
    if let Some(think) = fields.get("think") {
        all.insert("think".into(), think.clone());
    }
    Conversation::of(server, &Fields::within(all), form)
}

/// A body, or why it did not come.
type Body = Result<Content, ApiError>;

/// Now, as RFC 3339 has it.
fn stamp() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}

/// `POST /api/chat`.
pub async fn chat(server: State<Arc<Server>>, client: Extension<Client>, body: Body) -> Response {
    answer(Call::Chat, server, client, body).await
}

/// `POST /api/generate`.
pub async fn generate(server: State<Arc<Server>>, client: Extension<Client>, body: Body) -> Response {
    answer(Call::Generate, server, client, body).await
}

async fn answer(
    call: Call,
    State(server): State<Arc<Server>>,
    Extension(client): Extension<Client>,
    body: Body,
) -> Response {
    let answer = match body {
        Ok(Content(body)) => begin(call, server, &client, body).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| error.respond(error.ollama()))
}

async fn begin(call: Call, server: Arc<Server>, client: &Client, body: Bytes) -> Result<Response, ApiError> {
    let start = Instant::now();
    let shared = Arc::clone(&server);
    let request = match apart(move || Wanted::parse(&shared, call, &body)).await? {
        Wanted::Answer(request) => *request,
        Wanted::Presence(reason) => return Ok(Json(presence(&server, call, reason)).into_response()),
    };
    let choice = request.sampling.choice(0, None)?;
    let mut answer = server.ask(client, request.prompt.tokens, (&request.sampling, choice, request.max_tokens))?;
    answer.begun().await?;
    let (prompt, tools) = (request.prompt.text, request.tools);
    let asked = Asked { server, call: request.call, start, prompt, tools, answer };
    if !request.is_stream {
        return asked.whole().await;
    }
    Ok(frames::stream(Shape::Lines, |frames| async move { asked.stream(&frames).await }))
}

/// The one object that answers where nothing was asked.
fn presence(server: &Server, call: Call, reason: &str) -> Value {
    let mut object = part(server, call, Message::default(), true);
    object["done_reason"] = reason.into();
    object
}

/// An object with a part of an answer.
fn part(server: &Server, call: Call, part: Message, is_done: bool) -> Value {
    let mut object = json!({ "model": server.model, "created_at": stamp() });
    match call {
        Call::Chat => {
            object["message"] = json!({ "role": "assistant", "content": part.text });
            if let Some(thinking) = part.reasoning {
                object["message"]["thinking"] = thinking.into();
            }
            if !part.calls.is_empty() {
                object["message"]["tool_calls"] = part.calls.iter().map(called).collect();
            }
        }
        Call::Generate => {
            object["response"] = part.text.into();
            if let Some(thinking) = part.reasoning {
                object["thinking"] = thinking.into();
            }
        }
    }
    object["done"] = is_done.into();
    object
}

struct Asked {
    server: Arc<Server>,
    call: Call,
    start: Instant,
    prompt: String,
    tools: Option<Tools>,
    answer: Answer,
}

impl Asked {
    fn object(&self, message: Message, is_done: bool) -> Value {
        part(&self.server, self.call, message, is_done)
    }

    /// The last one, with figures.
    fn last(&self, part: Message, ended: &Ended) -> Value {
        let mut object = self.object(part, true);
        let nanos = |time: Duration| time.as_nanos() as u64;
        object["done_reason"] = ended.why.name().into();
        object["total_duration"] = nanos(self.start.elapsed()).into();
        object["load_duration"] = 0.into();
        object["prompt_eval_count"] = ended.prompt.into();
        object["prompt_eval_duration"] = nanos(ended.prefill).into();
        object["eval_count"] = ended.drawn.into();
        object["eval_duration"] = nanos(ended.decode).into();
        object
    }

    async fn whole(mut self) -> Result<Response, ApiError> {
        let mut words = Words::new(&self.prompt, self.tools.as_ref());
        let ended = loop {
            match self.answer.next().await? {
                Piece::Token(token) => drop(words.push(&token.text)),
                Piece::Ended(ended) => break ended,
            }
        };
        words.finish();
        Ok(Json(self.last(words.into_message(), &ended)).into_response())
    }

    async fn stream(mut self, frames: &Frames) -> Result<(), Gone> {
        let mut words = Words::new(&self.prompt, self.tools.as_ref());
        loop {
            let (deltas, ended) = match self.answer.next().await {
                Ok(Piece::Token(token)) => (words.push(&token.text), None),
                Ok(Piece::Ended(ended)) => (words.finish(), Some(ended)),
                Err(error) => return frames.send(&error.ollama()).await,
            };
            for delta in deltas {
                let part = match delta {
                    Delta::Reasoning(text) => Message { reasoning: Some(text), ..Message::default() },
                    Delta::Text(text) => Message { text, ..Message::default() },
                    // They come whole, with the last object.
                    Delta::Call(..) | Delta::Arguments(_) => continue,
                };
                frames.send(&self.object(part, false)).await?;
            }
            if let Some(ended) = ended {
                let calls = words.into_message().calls;
                return frames.send(&self.last(Message { calls, ..Message::default() }, &ended)).await;
            }
        }
    }
}

/// A call as Ollama has it: the arguments are an object.
fn called(call: &Called) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.clone().into());
    json!({ "id": call.id, "function": { "name": call.tool, "arguments": arguments } })
}

fn details(server: &Server) -> Value {
    json!({
        "format": "m", "family": server.arch, "families": [server.arch], "parameter_size": "",
        "quantization_level": server.weights,
    })
}

fn listed(server: &Server) -> Value {
    json!({
        "name": server.model, "model": server.model, "size": server.bytes, "digest": server.fingerprint,
        "modified_at": humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(server.created)).to_string(),
        "details": details(server),
    })
}

/// `GET /api/tags`.
pub async fn tags(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({ "models": [listed(&server)] }))
}

/// `GET /api/ps`.
pub async fn running(State(server): State<Arc<Server>>) -> Json<Value> {
    let mut model = listed(&server);
    model["context_length"] = server.seq_len.into();
    Json(json!({ "models": [model] }))
}

/// `GET /api/version`.
pub async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `POST /api/show`.
pub async fn show(State(server): State<Arc<Server>>, body: Body) -> Response {
    let fields = body.and_then(|Content(body)| Fields::of(&body));
    let checked = fields.and_then(|fields| check_model(&server, &fields));
    if let Err(error) = checked {
        return error.respond(error.ollama());
    }
    let arch = &server.arch;
    Json(json!({
        "details": details(&server), "capabilities": ["completion", "tools"], "template": "", "parameters": "",
        "model_info": { "general.architecture": arch, format!("{arch}.context_length"): server.seq_len },
    }))
    .into_response()
}
