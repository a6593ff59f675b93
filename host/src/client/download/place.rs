//! Where a file is, as users write it.

use crate::client::url::{UrlError, Web};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a file or a folder of files is: `http://`, `https://`, or `file://` with a path as it is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Web { host: String, is_local: bool, is_encrypted: bool },
    Disk(PathBuf),
}

/// Why a text is no [`Place`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceError {
    /// It is no URL.
    Url(String),
    /// A path on a disk that is not whole.
    Path(String),
    /// As of servers.
    Web(UrlError),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(text) => write!(f, "{text:?} is no URL; write https://HOST/PATH or file:///PATH"),
            Self::Path(text) => write!(f, "{text:?}: behind file:// stands a whole path, as in file:///srv/models"),
            Self::Web(UrlError::Scheme(scheme)) if scheme != "https" => {
                write!(f, "{scheme}:// is not spoken here; allowed: http, https, file")
            }
            Self::Web(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PlaceError {}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if let Some(rest) = text.strip_prefix("file://") {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(PlaceError::Path(text.to_owned()));
            }
            return Ok(Self { text: format!("file://{path}"), kind: Kind::Disk(path.into()) });
        }
        if !text.contains("://") {
            return Err(PlaceError::Url(text.to_owned()));
        }
        let web = Web::read(text).map_err(|error| match error {
            UrlError::Url(text) => PlaceError::Url(text),
            other => PlaceError::Web(other),
        })?;
        let host = web.uri.host().unwrap_or_default().to_ascii_lowercase();
        let kind = Kind::Web { host, is_local: web.is_local, is_encrypted: web.is_encrypted };
        Ok(Self { text: text.split('#').next().unwrap_or_default().to_owned(), kind })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Place {
    /// What lies below this folder at a relative path.
    ///
    /// # Errors
    /// Where this is no folder: it ends with a query.
    pub fn join(&self, relative: &str) -> Result<Self, PlaceError> {
        if self.is_web() && self.text.contains('?') {
            return Err(PlaceError::Web(UrlError::Query));
        }
        format!("{}/{relative}", self.text.trim_end_matches('/')).parse()
    }

    /// The last part of the path.
    pub fn file_name(&self) -> &str {
        let path = if self.is_web() { self.text.split('?').next().unwrap_or_default() } else { &self.text };
        path.rsplit('/').next().unwrap_or_default()
    }

    /// The same with another last part of the path; a query stays.
    ///
    /// # Errors
    /// Where that is no URL.
    pub fn with_file_name(&self, name: &str) -> Result<Self, PlaceError> {
        let (path, query) = match self.text.split_once('?') {
            Some((path, query)) if self.is_web() => (path, format!("?{query}")),
            _ => (&self.text[..], String::new()),
        };
        let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
        format!("{folder}/{name}{query}").parse()
    }

    /// Its host, in lower case; none of a file.
    pub fn host(&self) -> Option<&str> {
        if let Kind::Web { host, .. } = &self.kind { Some(host) } else { None }
    }

    /// Whether HTTP leads there.
    pub fn is_web(&self) -> bool {
        matches!(self.kind, Kind::Web { .. })
    }

    /// Whether it is a server on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, Kind::Web { is_local: true, .. })
    }

    /// Whether it encrypts.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.kind, Kind::Web { is_encrypted: true, .. })
    }

    /// Its path, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        if let Kind::Disk(path) = &self.kind { Some(path) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn names_are_below_a_base_and_beside_a_file() {
        for base in ["http://box/models", "http://box/models/"] {
            let file = place(base).join("a/b.m").unwrap();
            assert_eq!((file.to_string(), file.file_name()), ("http://box/models/a/b.m".into(), "b.m"));
        }
        let file = place("http://box/a/b.m?download=true#top");
        assert_eq!(file.file_name(), "b.m");
        assert_eq!(file.with_file_name("b.t").unwrap().to_string(), "http://box/a/b.t?download=true");
        assert_eq!(file.join("x").unwrap_err(), PlaceError::Web(UrlError::Query));
        let file = place("file://localhost/srv/a ?.m");
        assert_eq!(file.path(), Some(Path::new("/srv/a ?.m")));
        assert_eq!(file.with_file_name("a.t").unwrap().path(), Some(Path::new("/srv/a.t")));
        assert!(place("http://127.0.0.1:1/").is_local() && !place("http://box/").is_local());
    }

    #[test]
    fn what_is_no_place_is_one_line() {
        for (text, why) in [
            ("models", "no URL"),
            ("/srv/models", "file:///PATH"),
            ("file://srv/models", "whole path"),
            ("ftp://box/x", "ftp:// is not spoken here"),
            ("http://ann:secret@box/x", "seen by all"),
            ("http://", "no URL"),
            ("http://b x/", "no URL"),
        ] {
            let line = text.parse::<Place>().unwrap_err().to_string();
            assert!(line.contains(why) && line.lines().count() == 1, "{text}: {line}");
        }
    }
}
