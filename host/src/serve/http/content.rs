//! The body of a request, whole.

use super::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;

/// All bytes of a body.
#[derive(Clone, Debug)]
pub struct Content(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let line = "the body is larger than the server's --max-body-mib allows; send less";
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, line)
            }
            status => ApiError::new(status, format!("the body did not come whole: {}", rejection.body_text())),
        })
    }
}
