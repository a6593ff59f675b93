//! Weight records: from a root's Storage, strided as they lie there, into a worker's memory, packed.

use crate::graph::{Graph, NAME_MAX, Op, Weight};
use crate::io::{Span, Storage};
use crate::plan::names::{FINAL_WEIGHTS, LAYER_WEIGHTS};
use crate::wire::bytes::{Reader, put_text, put_u32, put_u64};
use crate::wire::{At, Fault, Part, ReadError};
use core::fmt;
use embedded_io::{Read, Write};

/// Bytes of a lease while weights are sent, and between two calls of `progress`; one row where that is more.
const CHUNK_BYTES: u64 = 1 << 20;

/// One weight record: a matrix of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index into [`Graph::ops`].
    pub op: u32,
    /// Matrix: expert, or 0.
    pub mat: u32,
}

/// All records of a graph in the order in which a root sends them: layer by layer, experts one after the other.
pub fn records<'g>(graph: &'g Graph<'_>) -> impl Iterator<Item = Record> + 'g {
    let layers = graph.ops.iter().map(|op| op.layer + 1).max().unwrap_or(0);
    let in_layers = (0..layers).flat_map(move |layer| LAYER_WEIGHTS.iter().map(move |group| (layer, *group)));
    in_layers.chain([(0, &FINAL_WEIGHTS[..1]), (0, &FINAL_WEIGHTS[1..])]).flat_map(move |(layer, group)| {
        let find = move |name: &&str| {
            let op = graph.op(name, layer)?;
            Some((op as u32, graph.ops[op].weight?.mats))
        };
        let mats = group.iter().filter_map(find).map(|(_, mats)| mats).max().unwrap_or(0);
        (0..mats).flat_map(move |mat| {
            let of_mat = group.iter().filter_map(find).filter(move |(_, mats)| mat < *mats);
            of_mat.map(move |(op, _)| Record { op, mat })
        })
    })
}

/// Bytes of all weights that [`records`] names, without what surrounds them.
pub fn weight_bytes(graph: &Graph<'_>) -> u64 {
    records(graph).filter_map(|record| graph.ops[record.op as usize].weight?.mat_bytes()).sum()
}

/// Why weights could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError<S, W> {
    /// The weights could not be had.
    Storage(S),
    /// They could not be written.
    Writer(W),
}

impl<S: fmt::Display, W: fmt::Display> fmt::Display for SendError<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => write!(f, "{error}"),
            Self::Writer(error) => write!(f, "{error}"),
        }
    }
}

impl<S: core::error::Error, W: core::error::Error> core::error::Error for SendError<S, W> {}

/// Writes one record of `graph`, whose weights lie in `storage`; `progress` is told about bytes as they are written.
///
/// # Errors
/// Those of the storage and of the writer.
///
/// # Panics
/// If the record is none of [`records`].
pub fn write_record<W: Write, S: Storage + ?Sized>(
    writer: &mut W,
    graph: &Graph<'_>,
    record: Record,
    storage: &S,
    mut progress: impl FnMut(u64),
) -> Result<(), SendError<S::Error, W::Error>> {
    let Op { name, layer, weight, .. } = &graph.ops[record.op as usize];
    let weight = weight.expect("records name ops with weights");
    let (row_bytes, mat_bytes) = (weight.row_bytes().zip(weight.mat_bytes())).expect("a graph's weights are checked");
    let head = |writer: &mut W| {
        put_text(writer, name)?;
        put_u32(writer, *layer)?;
        put_u64(writer, u64::from(record.mat) * mat_bytes)?;
        put_u64(writer, mat_bytes)
    };
    head(writer).map_err(SendError::Writer)?;
    let chunk_rows = (CHUNK_BYTES / weight.row_stride.max(1)).clamp(1, weight.rows.into()) as u32;
    let mut next = Some(row_span(&weight, record.mat, 0, chunk_rows, row_bytes));
    let mut row = 0;
    while let Some((span, rows)) = next {
        row += rows;
        next = (row < weight.rows).then(|| row_span(&weight, record.mat, row, chunk_rows, row_bytes));
        if let Some((span, _)) = next {
            storage.prefetch(span);
        }
        let lease = storage.lease(span).map_err(SendError::Storage)?;
        if weight.row_stride == row_bytes {
            writer.write_all(&lease).map_err(SendError::Writer)?;
        } else {
            for row in lease.chunks(weight.row_stride as usize) {
                writer.write_all(&row[..row_bytes as usize]).map_err(SendError::Writer)?;
            }
        }
        progress(u64::from(rows) * row_bytes);
    }
    Ok(())
}

/// The span of up to `chunk_rows` rows from `row` on, from the first byte of the first to the last of the last.
fn row_span(weight: &Weight, mat: u32, row: u32, chunk_rows: u32, row_bytes: u64) -> (Span, u32) {
    let rows = chunk_rows.min(weight.rows - row);
    let offset = weight.offset + u64::from(mat) * weight.mat_stride + u64::from(row) * weight.row_stride;
    (Span { offset, bytes: u64::from(rows - 1) * weight.row_stride + row_bytes }, rows)
}

/// Writes that there are no more records.
///
/// # Errors
/// Those of the writer.
pub fn finish_weights<W: Write>(writer: &mut W) -> Result<(), W::Error> {
    put_u32(writer, 0)
}

/// Reads all records of `graph`, as [`super::read_node`] returned it, into `memory`, until the root says that there
/// are no more. Every byte of every weight must have come, those of one op in rising order.
///
/// `received` has a slot for each op, whatever it holds; `progress` is told about bytes as they arrive.
///
/// # Errors
/// A record that no op waits for, that goes beyond its op's weights or leaves a gap; weights that are missing.
///
/// # Panics
/// If `received` or `memory` are smaller than the graph demands.
pub fn read_weights<R: Read>(
    reader: &mut R,
    graph: &Graph<'_>,
    memory: &mut [u8],
    received: &mut [u64],
    mut progress: impl FnMut(u64),
) -> Result<(), ReadError<R::Error>> {
    assert_eq!(received.len(), graph.ops.len(), "a counter for each op");
    received.fill(0);
    let mut reader = Reader::new(reader, Part::Weights);
    let total = |weight: &Weight| u64::from(weight.mats) * weight.mat_stride;
    loop {
        reader.at = At::Top;
        let length = reader.within("name length", 0..=NAME_MAX as u32 + 1)?;
        if length == 0 {
            break;
        }
        let name = reader.text_of::<NAME_MAX>("name", length as usize)?;
        let layer = reader.u32("layer")?;
        reader.at = At::Weight { name: name.clone(), layer };
        let found = graph.op(&name, layer).and_then(|op| Some((op, graph.ops[op].weight?)));
        let Some((op, weight)) = found else {
            return Err(reader.invalid("weight record", Fault::NoSuchWeight).into());
        };
        let (offset, bytes) = (reader.u64("offset")?, reader.u64("bytes")?);
        let (before, total) = (received[op], total(&weight));
        if before == total {
            return Err(reader.invalid("weight record", Fault::Complete).into());
        }
        reader.same("offset", offset, before)?;
        if bytes == 0 || bytes > total - before {
            let fault = Fault::Range { found: bytes, min: 1, max: total - before };
            return Err(reader.invalid("number of bytes", fault).into());
        }
        received[op] += bytes;
        // Packed weights end where `memory` ends at the latest: a 64-bit offset is an index.
        let start = (weight.offset + offset) as usize;
        for chunk in memory[start..start + bytes as usize].chunks_mut(CHUNK_BYTES as usize) {
            reader.fill("data", chunk)?;
            progress(chunk.len() as u64);
        }
    }
    for (op, received) in graph.ops.iter().zip(received) {
        let expected = op.weight.as_ref().map_or(0, total);
        reader.at = At::Weight { name: op.name.clone(), layer: op.layer };
        reader.same("number of bytes received", *received, expected)?;
    }
    Ok(())
}
