//! Answers that come in pieces: server-sent events, or a JSON object a line.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;
use std::convert::Infallible;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

/// Pieces that a slow client may be behind.
const BEHIND: usize = 32;

/// The shape of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `data: …`, as OpenAI does.
    Events,
    /// Lines, as Ollama does.
    Lines,
}

/// Where pieces go.
#[derive(Clone, Debug)]
pub struct Frames {
    shape: Shape,
    sender: Sender<Result<Bytes, Infallible>>,
}

/// The client has gone away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A response whose body `write` writes, as long as the client is there.
pub fn stream<F>(shape: Shape, write: impl FnOnce(Frames) -> F) -> Response
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, receiver) = channel(BEHIND);
    let written = write(Frames { shape, sender: sender.clone() });
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            _ = written => {}
        }
    });
    respond(shape, receiver)
}

impl Frames {
    /// Sends an object.
    ///
    /// # Errors
    /// Nobody is there to get it.
    pub async fn send(&self, object: &Value) -> Result<(), Gone> {
        self.write(match self.shape {
            Shape::Events => format!("data: {object}\n\n"),
            Shape::Lines => format!("{object}\n"),
        })
        .await
    }

    /// Says that there are no more, where the shape has a word for it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn end(&self) -> Result<(), Gone> {
        match self.shape {
            Shape::Events => self.write("data: [DONE]\n\n".to_owned()).await,
            Shape::Lines => Ok(()),
        }
    }

    async fn write(&self, text: String) -> Result<(), Gone> {
        self.sender.send(Ok(text.into())).await.map_err(|_| Gone)
    }
}

fn respond(shape: Shape, receiver: Receiver<Result<Bytes, Infallible>>) -> Response {
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    let headers = response.headers_mut();
    let kind = match shape {
        Shape::Events => "text/event-stream; charset=utf-8",
        Shape::Lines => "application/x-ndjson",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that gather answers would undo the streaming.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
