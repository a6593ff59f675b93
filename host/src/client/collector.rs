//! Sends spans to a collector of OpenTelemetry, by its protocol over HTTP (OTLP, protobuf).

use super::agent::{Patience, agent};
use super::error::one_line;
use super::trust::Trust;
use super::url::ServerUrl;
use crate::machine::terminal;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where collectors take spans, behind their URL.
pub const PATH: &str = "/v1/traces";

/// A collector has taken what it is sent within so long.
const SENT: Duration = Duration::from_secs(10);
/// Longest answer of a collector, in bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// What is on its way.
type Sending<'f> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>;

/// A collector.
#[derive(Debug)]
pub struct Collector {
    url: ServerUrl,
    /// A line has said that it does not take spans.
    has_failed: AtomicBool,
}

impl Collector {
    /// The one at this URL.
    pub fn at(url: ServerUrl) -> Self {
        Self { url, has_failed: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let agent = agent(Patience::Whole(SENT), self.url.is_local(), &Trust::default());
        let response = agent.run(request.map(|body| body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        let answer = body.with_config().limit(ANSWER_MAX).read_to_vec()?;
        if !parts.status.is_success() {
            return Err(io::Error::other(format!("it answers {}", parts.status)).into());
        }
        Ok(Response::from_parts(parts, answer.into()))
    }
}

impl HttpClient for Collector {
    // As the crate async-trait, with which the trait is written, has it.
    fn send_bytes<'c, 'f>(&'c self, request: Request<Bytes>) -> Sending<'f>
    where
        'c: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            // Who waits is the thread that collects spans, and nobody else.
            let sent = self.send(request);
            match &sent {
                Ok(_) => self.has_failed.store(false, Ordering::Relaxed),
                Err(error) if !self.has_failed.swap(true, Ordering::Relaxed) => {
                    terminal::note(format_args!(
                        "--otlp {}: spans are lost: {}",
                        self.url,
                        one_line(&error.to_string())
                    ));
                }
                Err(_) => {}
            }
            sent
        })
    }
}
