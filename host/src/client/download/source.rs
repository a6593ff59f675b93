//! What is asked of the place where a file lies: what it is, and a range of its bytes.

use super::Patience;
use super::error::{DownloadError, Fault};
use super::place::Place;
use crate::client::agent::{self, downloading};
use crate::client::error::{Why, one_line};
use crate::client::key::ApiKey;
use crate::client::trust::Trust;
use crate::machine::file;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderName, Response, StatusCode, header};
use ureq::{Agent, Body, Error};

/// Longest name of a version that is kept, in bytes.
const VERSION_BYTES_MAX: usize = 1024;
/// Longest time that a server may ask for before it is asked again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// How files are asked for.
#[derive(Clone, Debug)]
pub struct Client {
    /// What is endured.
    pub patience: Patience,
    /// Who may say that a server is the one, if it encrypts.
    pub trust: Trust,
    /// What is shown to this host alone, in lower case, and only where that encrypts.
    pub token: Option<(ApiKey, String)>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its size.
    pub bytes: u64,
    /// Its version, where the place tells versions apart: an entity tag, or a date.
    pub version: Option<String>,
    /// Whether parts of it can be had.
    pub has_ranges: bool,
}

/// Where a file comes from.
pub enum Source {
    Web { url: String, agent: Agent, token: Option<ApiKey> },
    Disk { url: String, path: std::path::PathBuf },
}

/// A reader of a range, and how many bytes it will give.
pub type Opened = (Box<dyn Read>, u64);

impl Source {
    /// What lies at `place`.
    pub fn new(place: &Place, client: &Client) -> Self {
        let url = place.to_string();
        if let Some(path) = place.path() {
            return Self::Disk { url, path: path.into() };
        }
        let shown = |(_, host): &&(ApiKey, String)| place.is_encrypted() && place.host() == Some(host);
        let token = client.token.as_ref().filter(shown).map(|(token, _)| token.clone());
        let patience = agent::Patience::Piece(client.patience.silence);
        let agent = downloading(patience, place.is_local(), place.is_encrypted(), &client.trust);
        Self::Web { url, agent, token }
    }

    /// How it is called.
    pub fn url(&self) -> &str {
        let (Self::Web { url, .. } | Self::Disk { url, .. }) = self;
        url
    }

    /// Ends whatever is waited for.
    pub fn shut_down(&self) {
        if let Self::Web { agent, .. } = self {
            agent.clone().shutdown();
        }
    }

    /// What it is.
    pub fn facts(&self) -> Result<Facts, Fault> {
        match self {
            Self::Web { .. } => self.facts_of_web(),
            Self::Disk { url, path } => {
                let metadata = open(url, path)?.metadata().map_err(DownloadError::io("read", path))?;
                let (time, nanos, inode) = (metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
                let version = Some(format!("file {time}.{nanos:09} {inode}"));
                Ok(Facts { bytes: metadata.len(), version, has_ranges: true })
            }
        }
    }

    fn facts_of_web(&self) -> Result<Facts, Fault> {
        let unfit = |why| Err(DownloadError::Unfit(self.url().to_owned(), why).into());
        let response = self.get(Some(&(0..1)), None).map_err(|fault| match fault {
            // Whoever was never there need not be asked again.
            Unanswered::Why(why @ (Why::Unreachable(_) | Why::NotHttp)) => {
                DownloadError::Client(self.url().to_owned(), why).into()
            }
            other => self.fault(other),
        })?;
        let version = version(&response);
        match response.status() {
            StatusCode::PARTIAL_CONTENT => match text(&response, header::CONTENT_RANGE).and_then(ContentRange::read) {
                Some(ContentRange { total: Some(bytes), .. }) => Ok(Facts { bytes, version, has_ranges: true }),
                Some(_) => unfit("the server does not say how large the file is"),
                None => unfit("the server sends a part without saying which one"),
            },
            StatusCode::OK => match length(&response) {
                Some(bytes) => Ok(Facts { bytes, version, has_ranges: false }),
                None => unfit("the server does not say how large the file is"),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => unfit("an empty file"),
            _ => Err(self.refusal(&response)),
        }
    }

    /// A reader of a range, of the file that `facts` are about; of all of it where it has no ranges.
    pub fn open(&self, facts: &Facts, range: &Range<u64>) -> Result<Opened, Fault> {
        match self {
            Self::Web { .. } => self.open_web(facts, range),
            Self::Disk { url, path } => {
                let mut file = open(url, path)?;
                if self.facts()? != *facts {
                    return Err(DownloadError::Changed(url.clone()).into());
                }
                file.seek(SeekFrom::Start(range.start)).map_err(DownloadError::io("read", path))?;
                Ok((Box::new(file), range.end - range.start))
            }
        }
    }

    fn open_web(&self, facts: &Facts, range: &Range<u64>) -> Result<Opened, Fault> {
        let changed = || Err(DownloadError::Changed(self.url().to_owned()).into());
        let asked = facts.has_ranges.then_some(range);
        let response =
            self.get(asked, facts.version.as_deref().and_then(if_range)).map_err(|fault| self.fault(fault))?;
        let found = version(&response);
        let is_other = found.is_some() && found != facts.version;
        let bytes = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let Some(sent) = text(&response, header::CONTENT_RANGE).and_then(ContentRange::read) else {
                    return Err(Fault::again("sends a part without saying which one"));
                };
                if is_other || sent.total.is_some_and(|total| total != facts.bytes) {
                    return changed();
                }
                if sent.start != range.start || sent.end > range.end {
                    return Err(Fault::again("sends another part than it was asked for"));
                }
                sent.end - sent.start
            }
            StatusCode::OK => {
                let is_other = is_other || length(&response).is_some_and(|bytes| bytes != facts.bytes);
                if is_other {
                    return changed();
                }
                if facts.has_ranges {
                    return Err(Fault::again("sends all of it where a part was asked for"));
                }
                facts.bytes
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return changed(),
            _ => return Err(self.refusal(&response)),
        };
        Ok((Box::new(response.into_body().into_reader()), bytes))
    }

    /// Asks for it, or for a range of it if that is still of the version `if_range`.
    fn get(&self, range: Option<&Range<u64>>, if_range: Option<&str>) -> Result<Response<Body>, Unanswered> {
        let Self::Web { url, agent, token } = self else { unreachable!("files are not asked for by HTTP") };
        // What is compressed on the way has other sizes.
        let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1));
            if let Some(version) = if_range {
                request = request.header(header::IF_RANGE, version);
            }
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        let response = request.call().map_err(|error| match error {
            Error::RequireHttpsOnly(to) => {
                Unanswered::Astray(format!("it leads to {}, where nothing is encrypted", one_line(&to)))
            }
            Error::TooManyRedirects => Unanswered::Astray("it leads from one address to the next, without end".into()),
            Error::RedirectFailed => Unanswered::Astray("it leads nowhere".into()),
            error => Unanswered::Why(Why::of_call(error)),
        })?;
        let encoding = text(&response, header::CONTENT_ENCODING).unwrap_or("identity");
        if response.status().is_success() && !encoding.eq_ignore_ascii_case("identity") {
            return Err(Unanswered::Astray("it comes compressed, though it was not asked for like that".into()));
        }
        Ok(response)
    }

    fn fault(&self, unanswered: Unanswered) -> Fault {
        let url = self.url().to_owned();
        match unanswered {
            Unanswered::Astray(why) => DownloadError::Astray(url, why).into(),
            Unanswered::Why(why @ (Why::NotTls(_) | Why::Untrusted(_))) => DownloadError::Client(url, why).into(),
            Unanswered::Why(Why::Silent) => Fault::again("does not answer in time"),
            Unanswered::Why(Why::Unreachable(why)) => Fault::again(format!("cannot be reached ({why})")),
            Unanswered::Why(Why::NotHttp) => Fault::again("does not speak HTTP"),
            Unanswered::Why(_) => Fault::again("ends before it answers"),
        }
    }

    fn refusal(&self, response: &Response<Body>) -> Fault {
        let (url, status) = (self.url().to_owned(), response.status().as_u16());
        match status {
            404 | 410 => DownloadError::Missing(url).into(),
            401 | 403 => {
                let has_token = matches!(self, Self::Web { token: Some(_), .. });
                DownloadError::Denied { url, status, has_token }.into()
            }
            408 | 425 | 429 | 500.. => {
                let seconds = text(response, header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
                let pause = Duration::from_secs(seconds.unwrap_or(0)).min(RETRY_AFTER_MAX);
                Fault::Again(format!("HTTP status {status}"), pause)
            }
            _ => DownloadError::Status(url, status).into(),
        }
    }
}

/// Why there is no response.
enum Unanswered {
    Why(Why),
    Astray(String),
}

/// What a failed read of a body means.
pub fn fault_of_read(error: io::Error) -> Fault {
    Fault::again(match Why::of_body(error) {
        Why::Silent => "nothing more comes",
        _ => "it ends in the middle",
    })
}

fn open(url: &str, path: &Path) -> Result<File, Fault> {
    file::open_regular(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DownloadError::Missing(url.to_owned()).into(),
        _ => DownloadError::io("open", path)(error).into(),
    })
}

fn text(response: &Response<Body>, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// How large the body says it is, even if it says that there is none.
fn length(response: &Response<Body>) -> Option<u64> {
    text(response, header::CONTENT_LENGTH)?.trim().parse().ok()
}

/// The version of what a response is about.
fn version(response: &Response<Body>) -> Option<String> {
    let tag = text(response, header::ETAG).map(|tag| format!("etag {}", tag.trim()));
    let version = tag.or_else(|| Some(format!("date {}", text(response, header::LAST_MODIFIED)?.trim())));
    version.filter(|version| version.len() <= VERSION_BYTES_MAX)
}

/// What goes into the header `If-Range`: a weak tag may not.
fn if_range(version: &str) -> Option<&str> {
    let (kind, value) = version.split_once(' ')?;
    (kind != "etag" || !value.starts_with("W/")).then_some(value)
}

/// What a header `Content-Range` says: `bytes 0-99/1000`, or `bytes 0-99/*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentRange {
    start: u64,
    /// Behind the last byte.
    end: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn read(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (start, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
        let end = last.checked_add(1)?;
        (start < end && total.is_none_or(|total| end <= total)).then_some(Self { start, end, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_says_which_bytes_and_of_how_many() {
        let read = ContentRange::read;
        assert_eq!(read("bytes 2-9/10"), Some(ContentRange { start: 2, end: 10, total: Some(10) }));
        assert_eq!(read("bytes 0-0/*"), Some(ContentRange { start: 0, end: 1, total: None }));
        for wrong in [
            "",
            "bytes",
            "bytes */10",
            "bytes 3-2/10",
            "bytes 0-10/10",
            "bytes -1-2/3",
            "bytes 0-18446744073709551615/*",
            "lines 0-1/2",
            "bytes 0-1",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_is_surely_the_same_is_asked_for_by_its_version() {
        assert_eq!(if_range("etag \"a b\""), Some("\"a b\""));
        assert_eq!(if_range("etag W/\"a\""), None);
        assert_eq!(if_range("date Sun, 01 Mar 2026 10:00:00 GMT"), Some("Sun, 01 Mar 2026 10:00:00 GMT"));
    }
}
