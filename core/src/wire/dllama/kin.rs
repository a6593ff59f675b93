//! How our root and our worker know each other, unnoticed by C++ peers; and what C++ workers can't compute.
//!
//! The dialect has no version. But the config of an op that has none is one byte that the C++ system leaves
//! uninitialised and never reads: our root writes there, op by op, the letters of [`NAME`], over and over. A worker of
//! ours that finds them has a root of ours, and answers the node config with [`KIN`] where a C++ worker has only
//! [`ACK`](super::ACK), or with [`REFUSED`] and its reason. To every other root it says what a C++ worker says.

use super::ACK;
use crate::graph::{Graph, OpKind};
use crate::quant::DType;
use crate::wire::bytes::{Reader, cut, put_text, put_u32};
use crate::wire::{Fault, Part, ReadError};
use core::fmt;
use embedded_io::{Read, Write};

const NAME: [u8; 4] = *b"dair";
/// Letters that are too many for chance.
const ENOUGH: usize = 4;
/// The ACK of a worker of ours to a root of ours.
const KIN: u32 = u32::from_le_bytes(*b"dair");
/// Its refusal; the reason follows, as a string.
const REFUSED: u32 = u32::from_le_bytes(*b"nope");

/// Longest reason in bytes.
pub const REASON_MAX: usize = 500;

/// Bytes of empty configs, as they are written or were read, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::wire) struct Letters {
    seen: usize,
    right: usize,
}

impl Letters {
    /// The next byte to be written.
    pub(in crate::wire) fn next(&mut self) -> u8 {
        self.seen += 1;
        NAME[(self.seen - 1) % NAME.len()]
    }

    /// Takes the next byte that was read.
    pub(in crate::wire) fn take(&mut self, byte: u8) {
        self.right += usize::from(self.next() == byte);
    }

    /// Whether a root of ours wrote them.
    pub(in crate::wire) fn are_ours(&self) -> bool {
        self.right == self.seen && self.seen >= ENOUGH
    }
}

/// What a worker answers to its node config.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // there is no heap here, and one answer per worker
pub enum Answer {
    /// It takes the graph, and says no more: a C++ worker.
    Stranger,
    /// It takes the graph, and is ours.
    Kin,
    /// It is ours, and says why it can't compute the graph.
    Refused(heapless::String<REASON_MAX>),
}

/// Writes that a worker of ours takes a graph that came from a root of ours.
///
/// # Errors
/// Those of the writer.
pub fn write_kin<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    put_u32(writer, KIN)
}

/// Writes why a worker of ours does not take a graph that came from a root of ours; what exceeds [`REASON_MAX`] is cut.
///
/// # Errors
/// Those of the writer.
pub fn write_refusal<W: Write>(writer: &mut W, reason: &str) -> Result<(), W::Error> {
    put_u32(writer, REFUSED)?;
    put_text(writer, cut(reason, REASON_MAX))
}

/// Reads what a worker answers to its node config.
///
/// # Errors
/// Something that is no answer.
pub fn read_answer<R: Read>(reader: &mut R) -> Result<Answer, ReadError<R::Error>> {
    let mut reader = Reader::new(reader, Part::Node);
    match reader.u32("ACK")? {
        ACK => Ok(Answer::Stranger),
        KIN => Ok(Answer::Kin),
        REFUSED => Ok(Answer::Refused(reader.text(["length of the refusal", "refusal"], 0)?)),
        found => Err(reader.invalid("ACK", Fault::Differs { found: found.into(), expected: ACK.into() }).into()),
    }
}

/// An op that C++ Distributed-Llama 0.16 has no kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// A product of these types.
    Product {
        /// Of the matrix.
        weights: DType,
        /// Of what it is multiplied with.
        inputs: DType,
    },
    /// The input of experts that is not quantised.
    Experts,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product { weights, inputs } => write!(f, "products of {weights} weights and {inputs} inputs"),
            Self::Experts => f.write_str("experts with f32 inputs"),
        }
    }
}

impl core::error::Error for Unsupported {}

/// The first op of `graph` that a C++ worker ends at, if there is one: it multiplies F32 with F32 and Q40 with Q80, and
/// hands experts nothing but Q80.
pub fn unsupported(graph: &Graph<'_>) -> Option<Unsupported> {
    graph.ops.iter().find_map(|op| match (&op.kind, op.weight.as_ref()) {
        (OpKind::Matmul { .. }, Some(weight)) => {
            let (weights, inputs) = (weight.dtype, graph.dtype(op.input.place)?);
            let is_known = matches!((weights, inputs), (DType::F32, DType::F32) | (DType::Q40, DType::Q80));
            (!is_known).then_some(Unsupported::Product { weights, inputs })
        }
        (OpKind::RepeatZ, _) => (graph.dtype(op.output.place)? != DType::Q80).then_some(Unsupported::Experts),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn what_stands_in_memory_by_chance_is_nobodys_name() {
        let read = |bytes: &[u8]| {
            let mut letters = Letters::default();
            bytes.iter().for_each(|byte| letters.take(*byte));
            letters.are_ours()
        };
        assert!(read(b"dair") && read(b"dairdai"));
        for bytes in [&b""[..], b"dai", b"dddd", b"dairx", &[0; 40], b"airdair"] {
            assert!(!read(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        let mut out = [0; 600];
        let mut answer = |write: &dyn Fn(&mut &mut [u8])| {
            let mut rest = &mut out[..];
            write(&mut rest);
            read_answer(&mut &out[..])
        };
        assert_eq!(answer(&|out| super::super::write_ack(out).unwrap()), Ok(Answer::Stranger));
        assert_eq!(answer(&|out| write_kin(out).unwrap()), Ok(Answer::Kin));
        let refusal = |reason: &str| Ok(Answer::Refused(reason.try_into().unwrap()));
        assert_eq!(answer(&|out| write_refusal(out, "no memory").unwrap()), refusal("no memory"));
        assert_eq!(answer(&|out| write_refusal(out, "a\0b").unwrap()), refusal("a"));
        let long = "é".repeat(400);
        assert_eq!(answer(&|out| write_refusal(out, &long).unwrap()), refusal(&long[..500]));
        let nonsense = answer(&|out| put_u32(out, 7).unwrap()).unwrap_err();
        assert_eq!(format!("{nonsense}"), "node config: ACK is 7; it must be 23571114");
    }
}
