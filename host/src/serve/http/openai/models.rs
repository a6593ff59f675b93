//! Which models there are.

use super::super::error::ApiError;
use super::super::server::Server;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

fn entry(server: &Server) -> Value {
    json!({
        "id": server.model, "object": "model", "created": server.created, "owned_by": "dair",
        "context_length": server.seq_len, "system_fingerprint": server.fingerprint,
    })
}

/// `GET /v1/models`.
pub async fn models(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [entry(&server)] }))
}

/// `GET /v1/models/NAME`.
///
/// # Errors
/// There is none of that name.
pub async fn model(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    if name == server.model {
        return Ok(Json(entry(&server)));
    }
    let line = format!("there is no model {name:?} here; this server has {:?}", server.model);
    Err(ApiError { param: Some("model".into()), ..ApiError::new(StatusCode::NOT_FOUND, line) }
        .with_code("model_not_found"))
}

/// `POST /v1/embeddings`: this model has none.
pub async fn embeddings(State(server): State<Arc<Server>>) -> ApiError {
    let line = format!(
        "{:?} is no embedding model: what it makes of a text is of no use as an embedding; ask a server that has one",
        server.model
    );
    ApiError { param: Some("model".into()), ..ApiError::new(StatusCode::NOT_FOUND, line) }.with_code("model_not_found")
}
