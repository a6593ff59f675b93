//! Why a server did not answer, as one line.

use std::fmt;
use std::io;
use std::time::Duration;
use ureq::Error;

/// Longest message of a server that is shown, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Why there is no answer, and from whom.
#[derive(Debug)]
pub struct ClientError {
    /// Where the server is, or what was asked of it.
    pub url: String,
    /// Why.
    pub why: Why,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Why {
    /// There is no connection.
    Unreachable(String),
    /// Nothing came for so long.
    Silent,
    /// What is there speaks another protocol.
    NotHttp,
    /// What is there does not encrypt, or in no way that is known here.
    NotTls(String),
    /// Nobody who is trusted says that it is the server.
    Untrusted(String),
    /// The server says no.
    Refused {
        /// Of HTTP; 200 where the answer had begun.
        status: u16,
        /// What it says.
        message: Option<String>,
        /// Its word for programs.
        code: Option<String>,
        /// After how long it is worth another try.
        retry_after: Option<Duration>,
    },
    /// It is somewhere else.
    Moved(String),
    /// What comes is not what such a server sends.
    Foreign(&'static str),
    /// It ended in the middle.
    Ended,
    /// It sends more than anybody wants.
    TooLong,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.url;
        match &self.why {
            Why::Unreachable(why) => write!(f, "cannot reach {url}: {why}; is the server running there?"),
            Why::Silent => write!(f, "{url} does not answer in time"),
            Why::NotHttp => write!(f, "{url}: what answers there does not speak HTTP"),
            Why::NotTls(why) => write!(f, "{url}: what answers there does not speak TLS ({why}); is it http://?"),
            Why::Untrusted(why) => {
                write!(f, "{url} is not trusted: {why} (name the file of its certificate, or its authority's, by --ca)")
            }
            Why::Refused { status: 401 | 403, message, .. } => {
                let message = message.as_deref().unwrap_or("not allowed");
                write!(f, "{url}: {message} (name the file of your key by --api-key-file, or set DAIR_API_KEY)")
            }
            Why::Refused { message: Some(message), .. } => write!(f, "{url}: {message}"),
            Why::Refused { status, .. } => write!(f, "{url}: HTTP status {status}; is that the right URL?"),
            Why::Moved(to) => write!(f, "{url} has moved to {to}: name that"),
            Why::Foreign(what) => write!(f, "{url}: {what}; is that the right URL?"),
            Why::Ended => write!(f, "{url} ended in the middle"),
            Why::TooLong => write!(f, "{url} sends more than anybody would read"),
        }
    }
}

impl std::error::Error for ClientError {}

impl Why {
    /// Before anything came.
    pub(super) fn of_call(error: Error) -> Self {
        match error {
            Error::Io(error) if is_end(&error) => Self::Ended,
            #[cfg(feature = "tls")]
            Error::Rustls(error) => Self::of_tls(&error),
            Error::Io(error) => Self::of_io(&error),
            Error::Timeout(ureq::Timeout::Connect) => Self::Unreachable("it does not answer".into()),
            Error::Timeout(_) => Self::Silent,
            Error::HostNotFound => Self::Unreachable("nobody has that name".into()),
            Error::Protocol(_) | Error::LargeResponseHeader(..) => Self::NotHttp,
            error => Self::Unreachable(error.to_string()),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        #[cfg(feature = "tls")]
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Self::of_tls(error);
        }
        Self::Unreachable(error.to_string())
    }

    /// Before the server could be asked.
    #[cfg(feature = "tls")]
    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            // So are those that `openssl req -x509` makes where nothing else is asked for.
            rustls::Error::InvalidCertificate(why) if why.to_string().contains("CaUsedAsEndEntity") => {
                Self::Untrusted("its certificate is an authority's (CA:TRUE), and none of a server".into())
            }
            rustls::Error::InvalidCertificate(why) => Self::Untrusted(one_line(&why.to_string())),
            other => Self::NotTls(one_line(&other.to_string())),
        }
    }

    /// In the middle of a body.
    pub(super) fn of_body(error: io::Error) -> Self {
        match Error::from(error) {
            Error::Timeout(_) => Self::Silent,
            _ => Self::Ended,
        }
    }

    /// The server says so, in an object as those of OpenAI's API, or in one of other shapes that are in use.
    pub(super) fn of_object(status: u16, object: &serde_json::Value, retry_after: Option<Duration>) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str);
        let message = ["/error/message", "/error", "/message", "/detail"].into_iter().find_map(text);
        let code = text("/error/code").or_else(|| text("/error/type")).map(str::to_owned);
        Self::Refused { status, message: message.map(one_line).filter(|text| !text.is_empty()), code, retry_after }
    }
}

/// A text of a server on one line that moves no cursor.
pub fn one_line(text: &str) -> String {
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_server_says_is_one_line_whatever_its_shape() {
        let line =
            |object| ClientError { url: "http://box".into(), why: Why::of_object(400, &object, None) }.to_string();
        assert_eq!(line(json!({"error": {"message": "no\n\u{1b}[2Jchat", "code": "x"}})), "http://box: no [2Jchat");
        assert_eq!(line(json!({"error": "no model"})), "http://box: no model");
        assert_eq!(line(json!({"detail": "Not Found"})), "http://box: Not Found");
        assert_eq!(line(json!([])), "http://box: HTTP status 400; is that the right URL?");
        assert!(line(json!({"error": "a".repeat(10_000)})).len() < 600);
    }
}
