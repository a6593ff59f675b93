//! HTTP: the calls of OpenAI's and Ollama's APIs, figures, and the web page.
//!
//! Handlers turn requests into prompts and prompts into [`Ask`](super::engine::Ask)s, and what comes back into objects. They know
//! nothing of models, sessions and passes.

mod calling;
mod content;
mod conversation;
mod door;
mod error;
mod fields;
mod form;
mod frames;
mod keep_alive;
mod keys;
mod messages;
mod ollama;
mod openai;
mod page;
mod sampling;
mod server;
#[cfg(test)]
mod tests;
mod texts;
mod tls;
mod tokens;
mod words;

pub use door::{Doors, serve};
pub use error::ApiError;
pub use keys::{KeyRing, KeysError, new_key};
pub use sampling::Defaults;
pub use server::{Client, Server, now};
pub use texts::Texts;
pub use tls::{Tls, TlsError};

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;

/// All calls, by their paths; openapi.json describes them.
fn calls() -> [(&'static str, MethodRouter<Arc<Server>>); 17] {
    [
        ("/v1/chat/completions", post(openai::chat)),
        ("/v1/completions", post(openai::completions)),
        ("/v1/embeddings", post(openai::embeddings)),
        ("/v1/models", get(openai::models)),
        ("/v1/models/{*name}", get(openai::model)),
        ("/api/chat", post(ollama::chat)),
        ("/api/generate", post(ollama::generate)),
        ("/api/tags", get(ollama::tags)),
        ("/api/ps", get(ollama::running)),
        ("/api/show", post(ollama::show)),
        ("/api/version", get(ollama::version)),
        ("/tokenize", post(tokens::tokenize)),
        ("/detokenize", post(tokens::detokenize)),
        ("/health", get(health)),
        ("/metrics", get(metrics)),
        ("/cluster", get(cluster)),
        ("/openapi.json", get(document)),
    ]
}

/// The calls, the page, and what is said where there is nothing.
fn routes(server: Arc<Server>) -> Router {
    calls()
        .into_iter()
        .fold(Router::new(), |router, (path, call)| router.route(path, call))
        .merge(page::routes())
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .with_state(server)
}

/// `GET /openapi.json`: all calls, for programs.
async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

/// `GET /health`: whether questions are answered.
async fn health(State(server): State<Arc<Server>>) -> Json<Value> {
    let (running, waiting) = server.figures.load();
    Json(json!({ "status": "ok", "model": server.model, "running": running, "waiting": waiting }))
}

/// `GET /metrics`: figures for Prometheus.
async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let text = server.figures.prometheus();
    let text = text.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `GET /cluster`: the same, for the page about the cluster.
async fn cluster(State(server): State<Arc<Server>>) -> Json<Value> {
    let mut object = server.figures.json();
    object["model"] = server.model.clone().into();
    object["fingerprint"] = server.fingerprint.clone().into();
    object["kv"]["slot_positions"] = server.seq_len.into();
    Json(object)
}

async fn nothing(uri: Uri) -> Response {
    let line = format!(
        "there is nothing at {}; the calls are those of OpenAI's API below /v1, and of Ollama's below /api",
        uri.path()
    );
    ApiError::new(StatusCode::NOT_FOUND, line).respond_at(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let line = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, line).respond_at(uri.path())
}
