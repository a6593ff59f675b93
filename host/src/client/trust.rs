//! Whose certificates are believed: those that public authorities have signed, or those of a file.

use super::url::ServerUrl;
use std::fmt;
use std::path::Path;

#[cfg(feature = "tls")]
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Who may say that a server is the one it claims to be.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Nobody else; the public authorities where this is nothing.
    #[cfg(feature = "tls")]
    roots: Option<RootCerts>,
}

/// Why a file of certificates is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// That server shows none.
    Plain(String),
    /// Names the file and what is wrong with it.
    File(String),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(url) => write!(f, "--ca goes with https://, and {url} is not encrypted"),
            Self::File(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for TrustError {}

impl Trust {
    /// Of a file of PEM, where there is one, for this server.
    ///
    /// # Errors
    /// What is wrong with the file, or that it is of no use there.
    pub fn find(url: &ServerUrl, file: Option<&Path>) -> Result<Self, TrustError> {
        Self::of(&url.to_string(), url.is_encrypted(), file)
    }

    /// As [`Self::find`], for what is not a server of dair's.
    ///
    /// # Errors
    /// As there.
    pub fn of(url: &str, is_encrypted: bool, file: Option<&Path>) -> Result<Self, TrustError> {
        match file {
            None => Ok(Self::default()),
            // Whoever names a file counts on encryption.
            Some(_) if !is_encrypted => Err(TrustError::Plain(url.to_owned())),
            Some(path) => Self::read(path).map_err(TrustError::File),
        }
    }
}

#[cfg(feature = "tls")]
impl Trust {
    fn read(path: &Path) -> Result<Self, String> {
        let all = crate::machine::pem::certificates(path)?;
        let mut store = rustls::RootCertStore::empty();
        for one in &all {
            store.add(one.clone()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let roots = all.iter().map(|one| Certificate::from_der(one).to_owned()).into();
        Ok(Self { roots: Some(roots) })
    }

    /// What an agent is to do about encryption.
    pub(super) fn config(&self) -> TlsConfig {
        let roots = self.roots.clone().unwrap_or(RootCerts::WebPki);
        TlsConfig::builder().root_certs(roots).build()
    }
}

#[cfg(not(feature = "tls"))]
impl Trust {
    /// Without encryption no URL gets so far.
    fn read(_: &Path) -> Result<Self, String> {
        Ok(Self::default())
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::super::{Server, chat};
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::{Value, json};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    /// Of localhost and 127.0.0.1; nobody else has signed it.
    fn certificate() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/certificate.pem")
    }

    /// A server that shows that certificate and gives each of so many clients one response.
    fn shows(clients: usize, response: String) -> SocketAddr {
        let chain = crate::machine::pem::certificates(&certificate()).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificate().with_file_name("key.pem")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for _ in 0..clients {
                let (stream, _) = listener.accept().unwrap();
                let greeting = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(greeting, stream);
                // Clients who believe nothing say nothing.
                if stream.read(&mut [0; 4096]).is_ok() {
                    let _ = stream.write_all(response.as_bytes());
                }
            }
        });
        address
    }

    fn server(host: &str, address: SocketAddr, ca: Option<&Path>) -> Server {
        let url: ServerUrl = format!("https://{host}:{}", address.port()).parse().unwrap();
        Server { key: None, trust: Trust::find(&url, ca).unwrap(), url }
    }

    #[test]
    fn only_a_certificate_that_is_trusted_is_believed() {
        let body = json!({ "a": 1 }).to_string();
        let address = shows(4, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let get = |host, ca| server(host, address, ca).get("/x").map_err(|error| error.to_string());
        let file = certificate();
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(get(host, Some(&file)), Ok(json!({ "a": 1 })), "{host}");
        }
        let stranger = get("localhost", None).unwrap_err();
        assert!(stranger.contains("UnknownIssuer") && stranger.contains("--ca"), "{stranger}");
        let other = get("127.0.0.2", Some(&file)).unwrap_err();
        assert!(other.contains("not valid for name") && other.lines().count() == 1, "{other}");
    }

    #[test]
    fn an_answer_comes_in_pieces_and_encrypted() {
        let body =
            "data: {\"choices\":[{\"delta\":{\"content\":\"42\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
        let address = shows(1, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        let asked = chat::ask(&server("localhost", address, Some(&certificate())), Value::Null).unwrap();
        let next = || asked.next(Duration::from_secs(20)).expect("it comes").map_err(|error| error.to_string());
        assert_eq!(next(), Ok(chat::Part::Text("42".into())));
        assert_eq!(next(), Ok(chat::Part::End(chat::End::default())));
    }

    #[test]
    fn who_does_not_encrypt_is_told_from_who_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        });
        let error = server("127.0.0.1", address, None).get("/x").unwrap_err().to_string();
        assert!(error.contains("does not speak TLS") && error.contains("http://"), "{error}");
    }

    #[test]
    fn a_file_that_is_of_no_use_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let (none, text, broken) =
            (folder.path().join("none"), folder.path().join("text"), folder.path().join("broken"));
        std::fs::write(&text, "no PEM").unwrap();
        std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let find = |url: &str, path: &Path| Trust::find(&url.parse().unwrap(), Some(path)).unwrap_err().to_string();
        for (path, word) in [(&none, "none: "), (&text, "no certificate in it"), (&broken, "broken: ")] {
            let error = find("https://box", path);
            assert!(error.contains(word) && error.lines().count() == 1, "{error}");
        }
        assert_eq!(find("http://box", &certificate()), "--ca goes with https://, and http://box is not encrypted");
    }
}
