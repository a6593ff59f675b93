//! The dialect of the C++ Distributed-Llama 0.16, byte for byte, root and worker.
//!
//! ```text
//! root -> worker                                          worker -> root
//! handshake   workers, index, (host, port) of the others  ACK
//! [all workers] ACK
//! network     ACK, pipes                                  ACK
//! node        ACK, buffers, segments of syncs and ops     ACK
//! weights     (name, layer, offset, bytes, data)*, 0      ACK
//! control     position, batch; batch 0 ends the session   activations, see `crate::io::Links`
//! ```
//! Little-endian; sizes are 64 bits; strings carry their length, NUL included. There is no version, no checksum and
//! no authentication. Bytes that the C++ system leaves uninitialised are written as zeros and ignored when read, but for
//! those by which our programs know each other (`kin.rs`).

mod config;
mod handshake;
mod kin;
mod op;
mod pack;
mod weights;

pub use config::{Network, Node, read_network, read_node, write_network, write_node, write_node_as_kin};
pub use handshake::{HOST_MAX, Hello, Peer, read_hello, read_peer, write_hello};
pub(in crate::wire) use kin::Letters;
pub use kin::{Answer, REASON_MAX, Unsupported, read_answer, unsupported, write_kin, write_refusal};
pub use pack::{WEIGHT_ALIGN, pack, repacked};
pub use weights::{Record, SendError, finish_weights, read_weights, records, weight_bytes, write_record};

use super::bytes::{Reader, put_u32};
use super::{At, Fault, Invalid, Part, ReadError, Spot};
use embedded_io::{Read, Write};

/// What both sides answer when a step is complete.
pub const ACK: u32 = 23_571_114;

/// Writes an [`ACK`].
///
/// # Errors
/// Those of the writer.
pub fn write_ack<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    put_u32(writer, ACK)
}

/// Reads an [`ACK`] that ends or starts `part`.
///
/// # Errors
/// Any other number.
pub fn read_ack<R: Read>(reader: &mut R, part: Part) -> Result<(), ReadError<R::Error>> {
    Reader::new(reader, part).exactly("ACK", ACK)
}

/// What precedes each forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Position of the first row.
    pub position: u32,
    /// Rows; 0 ends the session.
    pub batch: u32,
}

impl Control {
    /// Bytes of a packet.
    pub const BYTES: usize = 8;
    /// Ends the session.
    pub const STOP: Control = Control { position: 0, batch: 0 };

    /// As it crosses the wire.
    pub fn emit(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.position.to_le_bytes());
        bytes[4..].copy_from_slice(&self.batch.to_le_bytes());
        bytes
    }

    /// Reads a packet for a graph of `batch_max` rows and `seq_len` positions; `None` ends the session.
    ///
    /// # Errors
    /// Rows or positions that the graph does not have.
    pub fn parse(bytes: [u8; Self::BYTES], batch_max: u32, seq_len: u32) -> Result<Option<Self>, Invalid> {
        let [position, batch] = [0, 4].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte])));
        let range = |field, found: u32, max: u32| {
            let spot = Spot { part: Part::Control, at: At::Top, field };
            Invalid { spot, fault: Fault::Range { found: found.into(), min: 0, max: max.into() } }
        };
        if batch == 0 {
            return Ok(None);
        }
        if batch > batch_max {
            return Err(range("batch size", batch, batch_max));
        }
        match seq_len.checked_sub(batch) {
            Some(last) if position <= last => Ok(Some(Self { position, batch })),
            Some(last) => Err(range("position", position, last)),
            None => Err(range("batch size", batch, seq_len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn control_packets_stay_inside_the_graph() {
        let parse = |position, batch| Control::parse(Control { position, batch }.emit(), 32, 64);
        assert_eq!(parse(32, 32), Ok(Some(Control { position: 32, batch: 32 })));
        assert_eq!(parse(u32::MAX, 0), Ok(None), "the position of a stop packet is stale");
        let message = |position, batch| format!("{}", parse(position, batch).unwrap_err());
        assert_eq!(message(0, 1000), "control packet: batch size is 1000; allowed: 0 to 32");
        assert_eq!(message(100_000, 1), "control packet: position is 100000; allowed: 0 to 63");
        assert_eq!(message(u32::MAX, 2), "control packet: position is 4294967295; allowed: 0 to 62");
        assert!(Control::parse(Control { position: 0, batch: 3 }.emit(), 32, 2).is_err());
    }

    #[test]
    fn an_ack_is_the_recorded_bytes() {
        let mut out = [0; 4];
        write_ack(&mut &mut out[..]).unwrap();
        assert_eq!(out, [0xAA, 0xAA, 0x67, 0x01]);
        assert_eq!(read_ack(&mut &out[..], Part::Network), Ok(()));
        let error = read_ack(&mut &[1u8, 0, 0, 0][..], Part::Network).unwrap_err();
        assert_eq!(format!("{error}"), "network config: ACK is 1; it must be 23571114");
        let error = read_ack(&mut &out[..3], Part::Weights).unwrap_err();
        assert_eq!(format!("{error}"), "weights: ACK: the connection was closed before it was complete");
    }
}
