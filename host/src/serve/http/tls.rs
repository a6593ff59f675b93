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
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        use std::sync::Arc;
        let of = |path: &Path, error: &dyn fmt::Display| TlsError(format!("{}: {error}", path.display()));
        let chain = CertificateDer::pem_file_iter(certificates).map_err(|error| of(certificates, &error))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| of(certificates, &error))?;
        if chain.is_empty() {
            return Err(of(certificates, &"no certificate in it; wanted is PEM, the server's own first"));
        }
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
