//! Asks a server.

use super::agent::{Patience, agent};
use super::error::{ClientError, Why, one_line};
use super::key::ApiKey;
use super::trust::Trust;
use super::url::ServerUrl;
use serde_json::Value;
use std::io::Read;
use std::time::Duration;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

/// Largest object that is read whole, in bytes.
const OBJECT_BYTES_MAX: u64 = 16 << 20;
/// An object is there within so long.
const OBJECT: Duration = Duration::from_secs(10);

/// A server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub url: ServerUrl,
    /// What it is shown, if it wants a key.
    pub key: Option<ApiKey>,
    /// Who may say that it is the one, if it encrypts.
    pub trust: Trust,
}

impl Server {
    /// The object at a path.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        let agent = agent(Patience::Whole(OBJECT), self.url.is_local(), &self.trust);
        let mut request = agent.get(self.at(path));
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key.bearer());
        }
        let response = request.call().map_err(|error| self.error(path, Why::of_call(error)))?;
        let response = self.check(path, response)?;
        self.object(path, response.into_body())
    }

    /// An agent for answers that come in pieces, of which the next comes within so long.
    pub(super) fn agent(&self, patience: Duration) -> Agent {
        agent(Patience::Piece(patience), self.url.is_local(), &self.trust)
    }

    /// Sends an object to a path.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn post(&self, agent: &Agent, path: &str, object: &Value) -> Result<Response<Body>, ClientError> {
        let mut request = agent.post(self.at(path)).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key.bearer());
        }
        let sent = request.send(object.to_string());
        self.check(path, sent.map_err(|error| self.error(path, Why::of_call(error)))?)
    }

    /// About what was asked at a path; where nobody is there, about the server.
    pub(super) fn error(&self, path: &str, why: Why) -> ClientError {
        let url = match why {
            Why::Foreign(_) | Why::Moved(_) | Why::Refused { message: None, .. } => self.at(path),
            _ => self.url.to_string(),
        };
        ClientError { url, why }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn check(&self, path: &str, response: Response<Body>) -> Result<Response<Body>, ClientError> {
        let status = response.status();
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if status.is_success() {
            return Ok(response);
        }
        if let Some(to) = text(header::LOCATION).filter(|_| status.is_redirection()) {
            return Err(self.error(path, Why::Moved(one_line(to))));
        }
        let retry_after =
            text(header::RETRY_AFTER).and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let object = self.object(path, response.into_body()).unwrap_or_default();
        Err(self.error(path, Why::of_object(status.as_u16(), &object, retry_after)))
    }

    fn object(&self, path: &str, body: Body) -> Result<Value, ClientError> {
        let mut bytes = Vec::new();
        let read = body.into_reader().take(OBJECT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.error(path, Why::of_body(error)))?;
        if bytes.len() as u64 > OBJECT_BYTES_MAX {
            return Err(self.error(path, Why::TooLong));
        }
        serde_json::from_slice(&bytes).map_err(|_| self.error(path, Why::Foreign("what comes is no JSON")))
    }
}
