//! Where a worker listens, as users write it.

use super::NetError;
use dair_core::wire::dllama::HOST_MAX;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Port of workers unless another is given.
pub const DEFAULT_PORT: u16 = 9990;

/// A host and a port: `pi-3.local:9990`, `10.0.0.3:9990`, `[fe80::1]:9990`; the port may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Where a worker listens and, where `dllama://` stands before it, which dialect it is said to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerAddress {
    /// Where it listens.
    pub address: Address,
    /// Whether it is said to speak the dialect of C++ Distributed-Llama.
    pub is_dllama: bool,
}

impl FromStr for WorkerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = text.strip_prefix("dllama://");
        Ok(Self { address: address.unwrap_or(text).parse()?, is_dllama: address.is_some() })
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// No host, or one that no name and no address can be.
    Host(String),
    /// Not a port.
    Port(String),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(text) => write!(
                f,
                "{text:?} is not a host; write HOST:PORT, where HOST is a name, an IPv4 address or a [bracketed] IPv6 address"
            ),
            Self::Port(text) => write!(f, "{text:?} is not a port; allowed: 1 to 65535"),
        }
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':').ok_or(AddressError::Host(text.into()))?)),
            Some(None) => return Err(AddressError::Host(text.into())),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let bracketed = text.starts_with('[');
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"[]/@".contains(&byte);
        let is_host = !host.is_empty() && host.len() <= HOST_MAX && host.bytes().all(plain);
        if !is_host || host.contains(':') != bracketed {
            return Err(AddressError::Host(text.into()));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(AddressError::Port(port.into())),
            },
        };
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Address {
    /// The socket addresses that this one stands for; at least one.
    ///
    /// # Errors
    /// Where the name is not known.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, NetError> {
        let failed = |reason: String| NetError::Resolve { address: self.clone(), reason };
        let found: Vec<_> =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
        if found.is_empty() { Err(failed("the name has no address".into())) } else { Ok(found) }
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_users_know_them() {
        let parts = |text: &str| text.parse::<Address>().map(|address| (address.host, address.port));
        assert_eq!(parts("10.0.0.1:9991"), Ok(("10.0.0.1".into(), 9991)));
        assert_eq!(parts("pi-3.local"), Ok(("pi-3.local".into(), DEFAULT_PORT)));
        assert_eq!(parts("[fe80::1%eth0]:7"), Ok(("fe80::1%eth0".into(), 7)));
        assert_eq!(parts("[::1]"), Ok(("::1".into(), DEFAULT_PORT)));
        for text in ["", ":9990", "::1", "fe80::1:9990", "[::1", "[::1]9990", "[10.0.0.1]:1", "a b:1", "http://a:1"] {
            assert!(matches!(parts(text), Err(AddressError::Host(_))), "{text}");
        }
        for text in ["a:", "a:0", "a:65536", "a:http", "[::1]:-1"] {
            assert!(matches!(parts(text), Err(AddressError::Port(_))), "{text}");
        }
        for text in ["10.0.0.1:9991", "[::1]:80"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn long_hosts_are_refused() {
        assert!("x".repeat(HOST_MAX).parse::<Address>().is_ok());
        assert!("x".repeat(HOST_MAX + 1).parse::<Address>().is_err());
    }
}
