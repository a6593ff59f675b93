//! Encrypted connections, with a certificate that is given. Built with the feature `tls`, which takes a C compiler for the target.

use std::fmt;
use std::path::Path;
use tokio::net::TcpStream;

/// Why there is no encryption: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// Greets clients with a certificate.
#[derive(Clone)]
pub struct Tls {
    #[cfg(feature = "tls")]
    acceptor: tokio_rustls::TlsAcceptor,
    #[cfg(not(feature = "tls"))]
    never: std::convert::Infallible,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[cfg(feature = "tls")]
impl Tls {
    /// With the certificates and the private key of PEM files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn new(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        use rustls::pki_types::PrivateKeyDer;
        use rustls::pki_types::pem::PemObject;
        use std::sync::Arc;
        let of = |path: &Path, error: &dyn fmt::Display| TlsError(format!("{}: {error}", path.display()));
        // The server's own comes first.
        let chain = crate::machine::pem::certificates(certificates).map_err(TlsError)?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret));
        let mut config = config.map_err(|error| of(key, &format_args!("does not go with the certificate: {error}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: Arc::new(config).into() })
    }

    /// The encrypted stream, if the client has spoken in time.
    pub(super) async fn greet(&self, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        tokio::time::timeout(super::door::HEAD, self.acceptor.accept(stream)).await.ok()?.ok()
    }
}

#[cfg(not(feature = "tls"))]
impl Tls {
    /// There is none in this program.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: &Path, _: &Path) -> Result<Self, TlsError> {
        Err(TlsError(
            "this program was built without TLS; build it with the feature `tls`, or put a proxy before it".into(),
        ))
    }

    pub(super) async fn greet(&self, _: TcpStream) -> Option<TcpStream> {
        match self.never {}
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::pki_types::pem::PemObject;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn clients_that_trust_the_certificate_are_heard_and_strangers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        // Of localhost, for a hundred years; nothing trusts it but this test.
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let (chain, secret) = (files.join("certificate.pem"), files.join("key.pem"));
        let tls = Tls::new(&chain, &secret).unwrap();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&chain).unwrap()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                tls.greet(stream).await.unwrap().write_all(b"hello").await.unwrap();
                // Somebody who knows nothing of encryption.
                let (stream, _) = listener.accept().await.unwrap();
                assert!(tls.greet(stream).await.is_none());
            };
            let ask = async {
                let stream = TcpStream::connect(address).await.unwrap();
                let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
                let mut said = [0; 5];
                stream.read_exact(&mut said).await.unwrap();
                assert_eq!(&said, b"hello");
                let mut plain = TcpStream::connect(address).await.unwrap();
                plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            };
            tokio::join!(serve, ask);
        });
        for (chain, secret, word) in [
            (folder.path().join("none.pem"), secret.clone(), "none.pem"),
            (secret.clone(), secret.clone(), "no certificate in it"),
            (chain.clone(), chain.clone(), "certificate.pem"),
        ] {
            let error = Tls::new(&chain, &secret).unwrap_err().to_string();
            assert!(error.contains(word) && error.lines().count() == 1, "{error}");
        }
    }
}
