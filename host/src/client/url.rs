//! Where a server is, as users write it.

use super::agent::SCHEMES;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use ureq::http::Uri;
use ureq::http::uri::Authority;

/// Where a server is: `http://HOST:PORT` or `https://HOST:PORT`, without the `/v1` of OpenAI's API. `http://` may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    text: String,
    is_local: bool,
    is_encrypted: bool,
}

/// Why a text is no [`ServerUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It is no URL.
    Url(String),
    /// Nobody here speaks that protocol.
    Scheme(String),
    /// It has a name or a password in it.
    User,
    /// It has more behind its path.
    Query,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(text) => write!(f, "{text:?} is no URL; write http://HOST:PORT"),
            // Built with TLS, it is spoken.
            Self::Scheme(scheme) if scheme == "https" => {
                f.write_str("this program was built without TLS, so https:// goes only through a tunnel; or build it with the feature `tls`")
            }
            Self::Scheme(scheme) => write!(f, "{scheme}:// is not spoken here; allowed: {}", SCHEMES.join(", ")),
            Self::User => f.write_str("a URL with a name or password would be seen by all; keys are read from files"),
            Self::Query => f.write_str("a server's URL ends with its path; leave out what begins with ?"),
        }
    }
}

impl std::error::Error for UrlError {}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let Web { uri, is_local, is_encrypted } = Web::read(&whole).map_err(|error| match error {
            UrlError::Url(_) => UrlError::Url(text.to_owned()),
            other => other,
        })?;
        if uri.query().is_some() {
            return Err(UrlError::Query);
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/');
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", Authority::as_str));
        Ok(Self { text: format!("{scheme}://{authority}{path}"), is_local, is_encrypted })
    }
}

/// A whole URL of something that is asked for by HTTP.
pub(super) struct Web {
    pub uri: Uri,
    pub is_local: bool,
    pub is_encrypted: bool,
}

impl Web {
    pub fn read(text: &str) -> Result<Self, UrlError> {
        let refused = || UrlError::Url(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let scheme = uri.scheme_str().filter(|scheme| !scheme.is_empty());
        let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else { return Err(refused()) };
        if !SCHEMES.contains(&scheme) {
            return Err(UrlError::Scheme(scheme.to_owned()));
        }
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let host = authority.host();
        let has_port = authority.as_str() != host;
        if host.is_empty() || has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(refused());
        }
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_local = host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback());
        Ok(Self { is_local, is_encrypted: scheme == "https", uri })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ServerUrl {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether it encrypts.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, UrlError> {
        text.parse().map(|url: ServerUrl| url.to_string())
    }

    #[test]
    fn what_people_write_and_copy_leads_to_the_same_server() {
        for text in
            ["127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/"]
        {
            assert_eq!(read(text).unwrap(), "http://127.0.0.1:8080", "{text}");
        }
        assert_eq!(read("http://box/openai/v1").unwrap(), "http://box/openai");
        assert_eq!(read("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        let is_local = |text: &str| text.parse::<ServerUrl>().unwrap().is_local();
        assert!(is_local("localhost:1") && is_local("[::1]:1") && is_local("127.3.2.1") && !is_local("10.0.0.1:1"));
    }

    #[test]
    fn an_encrypted_server_goes_where_this_program_can() {
        let got = "https://box:8443/v1/".parse::<ServerUrl>();
        if cfg!(feature = "tls") {
            let url = got.unwrap();
            assert_eq!((url.to_string(), url.is_encrypted()), ("https://box:8443".into(), true));
        } else {
            let line = got.unwrap_err().to_string();
            assert!(line.contains("built without TLS") && line.lines().count() == 1, "{line}");
        }
        assert!(!"http://box".parse::<ServerUrl>().unwrap().is_encrypted());
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in ["", "http://", "a b", "http://box:99999", "http://box:0", "http://box:", "://box"] {
            assert!(matches!(read(text), Err(UrlError::Url(_))), "{text}: {:?}", read(text));
        }
        assert_eq!(read("ftp://box"), Err(UrlError::Scheme("ftp".into())));
        assert_eq!(read("http://ann:secret@box"), Err(UrlError::User));
        assert_eq!(read("http://box/?key=1"), Err(UrlError::Query));
    }
}
