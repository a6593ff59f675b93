//! Handshake: a root tells a worker which worker it is and where the others listen.

use crate::graph::MAX_NODES;
use crate::wire::bytes::{Reader, put_text, put_u32};
use crate::wire::{At, Part, ReadError};
use embedded_io::{Read, Write};

/// Longest host in bytes: that of a DNS name.
pub const HOST_MAX: usize = 253;

/// The root's first words. [`Hello::workers`] − 1 peers follow, see [`read_peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Workers of the network; it has one node more.
    pub workers: u32,
    /// Which of the workers is addressed; as a node it is `index + 1`.
    pub index: u32,
}

/// Where another worker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address or name, as the root's user wrote it.
    pub host: heapless::String<HOST_MAX>,
    /// TCP port.
    pub port: u16,
}

/// Writes the words for the worker `hello.index`; `others` are the other workers in rising order.
///
/// # Errors
/// Those of the writer.
///
/// # Panics
/// If `others` are not as many as the network demands.
pub fn write_hello<'a, W: Write>(
    writer: &mut W,
    hello: Hello,
    others: impl ExactSizeIterator<Item = (&'a str, u16)>,
) -> Result<(), W::Error> {
    assert_eq!(others.len() + 1, hello.workers as usize, "every other worker is announced");
    put_u32(writer, hello.workers)?;
    put_u32(writer, hello.index)?;
    for (host, port) in others {
        put_text(writer, host)?;
        put_u32(writer, port.into())?;
    }
    Ok(())
}

/// Reads who this worker is.
///
/// # Errors
/// Counts that no network has.
pub fn read_hello<R: Read>(reader: &mut R) -> Result<Hello, ReadError<R::Error>> {
    let mut reader = Reader::new(reader, Part::Handshake);
    let workers = reader.within("number of workers", 1..=MAX_NODES - 1)?;
    let index = reader.index("worker index", workers)?;
    Ok(Hello { workers, index })
}

/// Reads where the `index`th of the other workers listens.
///
/// # Errors
/// Texts and ports that are no address.
pub fn read_peer<R: Read>(reader: &mut R, index: u32) -> Result<Peer, ReadError<R::Error>> {
    let mut reader = Reader::new(reader, Part::Handshake);
    reader.at = At::Peer(index);
    let host = reader.text(["host length", "host"], 1)?;
    let port = reader.within("port", 1..=u16::MAX.into())? as u16;
    Ok(Peer { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, vec::Vec};

    #[test]
    fn what_a_root_says_is_what_a_worker_hears() {
        let others = [("10.0.0.1", 9990), ("pi-3.local", 9991)];
        let hello = Hello { workers: 3, index: 1 };
        let mut bytes = [0; 64];
        let mut rest = &mut bytes[..];
        write_hello(&mut rest, hello, others.into_iter()).unwrap();
        let written = 64 - rest.len();
        assert_eq!(written, 8 + (4 + 9 + 4) + (4 + 11 + 4));
        let mut reader = &bytes[..written];
        assert_eq!(read_hello(&mut reader), Ok(hello));
        for (index, (host, port)) in others.into_iter().enumerate() {
            let peer = read_peer(&mut reader, index as u32).unwrap();
            assert_eq!((peer.host.as_str(), peer.port), (host, port));
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn strangers_are_told_what_is_wrong_with_their_first_word() {
        let hello = |bytes: &[u8]| format!("{}", read_hello(&mut &bytes[..]).unwrap_err());
        assert_eq!(
            hello(b"GET / HTTP/1.1\r\n"),
            "handshake: number of workers is 542393671; allowed: 1 to 255",
            "a browser"
        );
        assert_eq!(hello(&[0; 8]), "handshake: number of workers is 0; allowed: 1 to 255");
        assert_eq!(hello(&[2, 0, 0, 0, 2, 0, 0, 0]), "handshake: worker index is 2; allowed: 0 to 1");
        assert_eq!(
            hello(&[]),
            "handshake: number of workers: the connection was closed before it was complete",
            "connect and close"
        );
        let peer = |bytes: &[u8]| format!("{}", read_peer(&mut &bytes[..], 4).unwrap_err());
        assert_eq!(peer(&[0xFF; 64]), "handshake: peer 4: host length is 4294967295; allowed: 2 to 254");
        assert_eq!(peer(&[1, 0, 0, 0, 0]), "handshake: peer 4: host length is 1; allowed: 2 to 254");
        let text = "handshake: peer 4: host is not UTF-8 text closed by a NUL";
        assert_eq!(peer(&[2, 0, 0, 0, b'a', b'b']), text);
        assert_eq!(peer(&[3, 0, 0, 0, 0, 0, 0]), text, "a NUL inside");
        let mut bytes = Vec::from([2, 0, 0, 0, b'a', 0]);
        bytes.extend(65_536u32.to_le_bytes());
        assert_eq!(peer(&bytes), "handshake: peer 4: port is 65536; allowed: 1 to 65535");
    }
}
