//! The calls of Ollama's API, which many clients speak and nothing else.

use super::content::Content;
use super::error::ApiError;
use super::fields::Fields;
use super::frames::{self, Frames, Gone, Shape};
use super::openai::{Words, context};
use super::sampling::{OLLAMA, Sampling};
use super::server::{Answer, Client, Piece, Server};
use super::texts::{Prompt, apart};
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

struct Request {
    call: Call,
    is_stream: bool,
    sampling: Sampling,
    prompt: Prompt,
    max_tokens: u32,
}

impl Request {
    fn parse(server: &Server, call: Call, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::of(body)?;
        check_model(server, &fields)?;
        for name in ["format", "images", "suffix"] {
            let is_asked = fields.get(name).is_some_and(|value| *value != "" && *value != json!([]));
            if is_asked {
                return Err(ApiError::field(name, format!("{name} is not offered here; leave it out")));
            }
        }
        let options = fields.object("options")?.unwrap_or_else(|| Fields::within(Map::new()));
        let sampling = Sampling::of(&options, OLLAMA, server)?;
        let prompt = match call {
            Call::Chat => server.texts.conversation(context(&fields)?)?,
            Call::Generate => generate_prompt(server, &fields)?,
        };
        let field = if call == Call::Chat { "messages" } else { "prompt" };
        let max_tokens = server.room(field, &prompt, sampling.max_tokens)?;
        Ok(Self { call, is_stream: fields.flag("stream")?.unwrap_or(true), sampling, prompt, max_tokens })
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

/// A prompt stands in the template as a question, unless it is `raw`.
fn generate_prompt(server: &Server, fields: &Fields) -> Result<Prompt, ApiError> {
    let text = fields.text("prompt")?.unwrap_or_default();
    if fields.flag("raw")?.unwrap_or(false) {
        return server.texts.text("prompt", text, EncodeOptions { start: true, special: true });
    }
    let mut messages = Vec::new();
    if let Some(system) = fields.text("system")?.filter(|system| !system.is_empty()) {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": text }));
    let mut all = Map::new();
    all.insert("messages".into(), messages.into());
    if let Some(think) = fields.flag("think")? {
        all.insert("think".into(), think.into());
    }
    server.texts.conversation(context(&Fields::within(all))?)
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
    let request = apart(move || Request::parse(&shared, call, &body)).await?;
    let choice = request.sampling.choice(0, None)?;
    let mut answer = server.ask(client, request.prompt.tokens, (&request.sampling, choice, request.max_tokens))?;
    answer.begun().await?;
    let asked = Asked { server, call: request.call, start, prompt: request.prompt.text, answer };
    if !request.is_stream {
        return asked.whole().await;
    }
    Ok(frames::stream(Shape::Lines, |frames| async move { asked.stream(&frames).await }))
}

struct Asked {
    server: Arc<Server>,
    call: Call,
    start: Instant,
    prompt: String,
    answer: Answer,
}

impl Asked {
    /// An object with a part of the answer.
    fn object(&self, text: &str, thinking: Option<&str>, is_done: bool) -> Value {
        let mut object = json!({ "model": self.server.model, "created_at": stamp() });
        match self.call {
            Call::Chat => {
                object["message"] = json!({ "role": "assistant", "content": text });
                if let Some(thinking) = thinking {
                    object["message"]["thinking"] = thinking.into();
                }
            }
            Call::Generate => {
                object["response"] = text.into();
                if let Some(thinking) = thinking {
                    object["thinking"] = thinking.into();
                }
            }
        }
        object["done"] = is_done.into();
        object
    }

    /// The last one, with figures.
    fn last(&self, text: &str, thinking: Option<&str>, ended: &Ended) -> Value {
        let mut object = self.object(text, thinking, true);
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
        let mut words = Words::new(&self.prompt);
        let ended = loop {
            match self.answer.next().await? {
                Piece::Token(token) => words.push(&token.text, &mut |_| ()),
                Piece::Ended(ended) => break ended,
            }
        };
        words.finish(&mut |_| ());
        let (thinking, text) = words.into_parts();
        Ok(Json(self.last(&text, thinking.as_deref(), &ended)).into_response())
    }

    async fn stream(mut self, frames: &Frames) -> Result<(), Gone> {
        let mut words = Words::new(&self.prompt);
        loop {
            let mut deltas = Vec::new();
            let mut say = |delta: Value| deltas.push(delta);
            let ended = match self.answer.next().await {
                Ok(Piece::Token(token)) => {
                    words.push(&token.text, &mut say);
                    None
                }
                Ok(Piece::Ended(ended)) => {
                    words.finish(&mut say);
                    Some(ended)
                }
                Err(error) => return frames.send(&error.ollama()).await,
            };
            for delta in deltas {
                let text = delta["content"].as_str().unwrap_or_default();
                frames.send(&self.object(text, delta["reasoning_content"].as_str(), false)).await?;
            }
            if let Some(ended) = ended {
                return frames.send(&self.last("", None, &ended)).await;
            }
        }
    }
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
        "details": details(&server), "capabilities": ["completion"], "template": "", "parameters": "",
        "model_info": { "general.architecture": arch, format!("{arch}.context_length"): server.seq_len },
    }))
    .into_response()
}
