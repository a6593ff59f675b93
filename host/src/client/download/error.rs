//! Why a file could not be fetched, as one line.

use crate::client::error::Why;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

/// Why a file could not be fetched.
#[derive(Debug)]
pub enum DownloadError {
    /// There is no such file.
    Missing(String),
    /// The server lets nobody have it, or not this user.
    Denied {
        /// What was asked for.
        url: String,
        /// Of HTTP.
        status: u16,
        /// Whether a token was shown.
        has_token: bool,
    },
    /// The server says something else.
    Status(String, u16),
    /// There is no server, or it is another one.
    Client(String, Why),
    /// It was asked for again and again.
    GivenUp {
        /// What was asked for.
        url: String,
        /// So often in a row.
        attempts: u32,
        /// What went wrong the last time.
        why: String,
    },
    /// It is not what can be fetched.
    Unfit(String, &'static str),
    /// It is larger than any model.
    TooLarge(String),
    /// It leads to where nothing is encrypted, or on and on.
    Astray(String, String),
    /// It is not what it was; another attempt begins anew.
    Changed(String),
    /// It changed in every attempt.
    Restless(String),
    /// It does not fit the disk.
    Room {
        /// Where it was to be.
        folder: PathBuf,
        /// Bytes that are still to come.
        needs: u64,
        /// Bytes that the disk has.
        free: u64,
    },
    /// The system refuses.
    Io {
        /// What was attempted, as "create".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Whoever waits has ended it.
    Interrupted,
}

impl DownloadError {
    /// Wraps an error of the operating system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        match self {
            Self::Missing(url) => write!(f, "{url}: there is no such file"),
            Self::Denied { url, status, has_token: false } => write!(
                f,
                "{url}: not without a token (HTTP status {status}): agree to the model's licence where it is published, then name \
                 the file of your token by --token-file, or set HF_TOKEN"
            ),
            Self::Denied { url, status, has_token: true } => {
                write!(f, "{url}: the token does not open it (HTTP status {status}): does its owner have access?")
            }
            Self::Status(url, status) => write!(f, "{url}: HTTP status {status}; is that the right URL?"),
            Self::Client(url, Why::Silent) => write!(f, "{url} does not answer in time"),
            Self::Client(url, Why::NotHttp) => write!(f, "{url}: what answers there does not speak HTTP"),
            Self::Client(url, Why::NotTls(why)) => {
                write!(f, "{url}: what answers there does not speak TLS ({why}); is it http://?")
            }
            Self::Client(url, Why::Untrusted(why)) => {
                write!(f, "{url} is not trusted: {why} (name the file of its certificate, or its authority's, by --ca)")
            }
            Self::Client(url, Why::Unreachable(why)) => {
                write!(f, "cannot reach {url}: {why}; is this machine online, and the server there?")
            }
            Self::Client(url, _) => write!(f, "{url} ends before it answers"),
            Self::GivenUp { url, attempts, why } => {
                write!(
                    f,
                    "{url}: {why}, {attempts} times in a row; what has come is kept, and the same command goes on"
                )
            }
            Self::Unfit(url, why) => write!(f, "{url}: {why}"),
            Self::TooLarge(url) => write!(f, "{url}: larger than any model; is that the right URL?"),
            Self::Astray(url, why) => write!(f, "{url}: {why}"),
            Self::Changed(url) => write!(f, "{url} was changed while it was fetched"),
            Self::Restless(url) => {
                write!(f, "{url} was changed again and again while it was fetched; try again when it is complete there")
            }
            Self::Room { folder, needs, free } => write!(
                f,
                "{} more are needed in {}, and the disk has {}: remove something (dair rm, dair list), or name another folder by \
                 DAIR_CACHE",
                mb(*needs),
                folder.display(),
                mb(*free)
            ),
            Self::Io { action, path, source } => {
                write!(f, "can't {action} {}: {source}", path.display())?;
                if source.kind() == io::ErrorKind::StorageFull {
                    f.write_str("; remove something (dair rm, dair list), and the same command goes on")?;
                }
                Ok(())
            }
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for DownloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io { source, .. } = self { Some(source) } else { None }
    }
}

/// What went wrong with one piece.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may go well the next time, though not before this has passed.
    Again(String, Duration),
    /// It will not.
    Final(DownloadError),
}

impl Fault {
    /// Worth another try at once.
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self::Again(why.into(), Duration::ZERO)
    }
}

impl From<DownloadError> for Fault {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}
