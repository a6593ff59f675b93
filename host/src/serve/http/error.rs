//! What a client is told where it gets no answer, in the shape of the API that it speaks.

use crate::serve::engine::Failed;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Of HTTP.
    pub status: StatusCode,
    /// One line: what is wrong, and what to do.
    pub message: String,
    /// The field that it is about.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// Seconds after which it is worth another try.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// One with nothing but a status and a line.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// A field is wrong.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// With a word for programs.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Of an answer that failed.
    pub fn of(failed: &Failed) -> Self {
        let status = match failed {
            Failed::Late => StatusCode::GATEWAY_TIMEOUT,
            Failed::Ending => StatusCode::SERVICE_UNAVAILABLE,
            Failed::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let retry_after = matches!(failed, Failed::Ending).then_some(5);
        Self { retry_after, ..Self::new(status, failed.to_string()) }
    }

    /// The word that OpenAI's clients know the kind of an error by.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// In OpenAI's shape.
    pub fn openai(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        }})
    }

    /// In Ollama's shape.
    pub fn ollama(&self) -> Value {
        json!({ "error": self.message })
    }

    /// In the shape of the API that a path belongs to.
    pub fn respond_at(&self, path: &str) -> Response {
        self.respond(if path.starts_with("/api/") { self.ollama() } else { self.openai() })
    }

    /// With the body that the client's API has for it.
    pub fn respond(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond(self.openai())
    }
}
