//! Network and node configs: the graph of a worker as its root describes it.

use super::kin::Letters;
use super::op::{Room, read_op, write_op};
use super::{pack, read_ack, write_ack};
use crate::graph::{Buffer, Collective, Full, Graph, MAX_BATCH, Pipe, Segment, Sizes, Sync, Table, Tables, pipes};
use crate::wire::bytes::{Reader, Shape, put_shape, put_text, put_u32};
use crate::wire::{At, Fault, Invalid, Part, ReadError};
use embedded_io::{Read, Write};

/// What all nodes share, their pipes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// All nodes, the root included.
    pub nodes: u32,
    /// Most rows of a batch.
    pub batch_max: u32,
}

/// What a root wants of a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node<'t> {
    /// What it is to compute.
    pub graph: Graph<'t>,
    /// Bytes that its weights take, each at the offset that [`pack`] gives it.
    pub weight_bytes: u64,
    /// Whether the root is ours.
    pub from_kin: bool,
}

/// Writes what all nodes share.
///
/// # Errors
/// Those of the writer.
pub fn write_network<W: Write>(writer: &mut W, graph: &Graph<'_>) -> Result<(), W::Error> {
    write_ack(writer)?;
    put_u32(writer, graph.batch_max)?;
    put_u32(writer, graph.nodes)?;
    put_u32(writer, graph.pipes.len() as u32)?;
    for Pipe { name, dtype, rows, width, bounds: _ } in graph.pipes {
        put_shape(writer, Some(Shape { dtype: *dtype, planes: 1, rows: *rows, width: *width }))?;
        put_text(writer, name)?;
    }
    // The list of pipes that a GPU must be given before each pass: the positions.
    put_u32(writer, 1)?;
    put_u32(writer, graph.pipe(pipes::POSITIONS).unwrap_or(0) as u32)
}

/// Reads what all of `nodes` share; pipes go to `table`.
///
/// # Errors
/// A field with a value that is not allowed or differs from the handshake.
pub fn read_network<R: Read>(
    reader: &mut R,
    nodes: u32,
    table: &mut Table<'_, Pipe>,
) -> Result<Network, ReadError<R::Error>> {
    read_ack(reader, Part::Network)?;
    let mut reader = Reader::new(reader, Part::Network);
    let batch_max = reader.within("batch size", 1..=MAX_BATCH)?;
    reader.exactly("number of nodes", nodes)?;
    let count = reader.within("number of pipes", 1..=Sizes::MAX.pipes as u32)?;
    for index in 0..count {
        reader.at = At::Pipe(index);
        let shape = reader.solid("size")?;
        reader.same("planes", shape.planes.into(), 1)?;
        reader.same("rows", shape.rows.into(), batch_max.into())?;
        whole_rows(&reader, shape)?;
        let name = reader.name()?;
        let pipe = Pipe { name, dtype: shape.dtype, rows: shape.rows, width: shape.width, bounds: None };
        table.push(pipe).map_err(|full| no_slot(&reader, "number of pipes", full))?;
    }
    reader.at = At::Top;
    let listed = reader.within("number of pre-syncs", 0..=count)?;
    for _ in 0..listed {
        reader.index("pipe of a pre-sync", count)?;
    }
    Ok(Network { nodes, batch_max })
}

/// Writes the graph of a worker.
///
/// # Errors
/// Those of the writer.
pub fn write_node<W: Write>(writer: &mut W, graph: &Graph<'_>) -> Result<(), W::Error> {
    write_node_with(writer, graph, || 0)
}

/// Writes the graph of a worker; one of ours can tell that a root of ours did. It answers what
/// [`read_answer`](super::read_answer) reads.
///
/// # Errors
/// Those of the writer.
pub fn write_node_as_kin<W: Write>(writer: &mut W, graph: &Graph<'_>) -> Result<(), W::Error> {
    let mut letters = Letters::default();
    write_node_with(writer, graph, || letters.next())
}

fn write_node_with<W: Write>(writer: &mut W, graph: &Graph<'_>, mut empty: impl FnMut() -> u8) -> Result<(), W::Error> {
    write_ack(writer)?;
    for count in [graph.node, graph.buffers.len() as u32, graph.segments.len() as u32] {
        put_u32(writer, count)?;
    }
    for Buffer { name, dtype, planes, rows, width } in graph.buffers {
        put_shape(writer, Some(Shape { dtype: *dtype, planes: *planes, rows: *rows, width: *width }))?;
        put_text(writer, name)?;
    }
    for segment in graph.segments {
        let (ops, syncs) = (graph.ops_of(segment), graph.syncs_of(segment));
        put_u32(writer, syncs.len() as u32)?;
        put_u32(writer, ops.len() as u32)?;
        for sync in syncs {
            put_u32(writer, sync.pipe)?;
            put_u32(writer, sync_type(sync.collective))?;
        }
        for op in ops {
            write_op(writer, op, &mut empty)?;
        }
    }
    Ok(())
}

/// Reads the graph of this worker, `node` by the handshake; `tables` hold the pipes of [`read_network`].
///
/// Every index, count and size is in range afterwards. Whether the shapes of an op's operands fit one another is for
/// the engine to say.
///
/// # Errors
/// A field with a value that is not allowed.
pub fn read_node<'t, R: Read>(
    reader: &mut R,
    node: u32,
    network: Network,
    mut tables: Tables<'t>,
) -> Result<Node<'t>, ReadError<R::Error>> {
    read_ack(reader, Part::Node)?;
    let mut reader = Reader::new(reader, Part::Node);
    reader.exactly("node index", node)?;
    let buffers = reader.within("number of buffers", 1..=Sizes::MAX.buffers as u32)?;
    let segments = reader.within("number of segments", 1..=Sizes::MAX.segments as u32)?;
    for index in 0..buffers {
        reader.at = At::Buffer(index);
        let shape = reader.solid("size")?;
        whole_rows(&reader, shape)?;
        let Shape { dtype, planes, rows, width } = shape;
        let name = reader.name()?;
        let buffer = Buffer { name, dtype, planes, rows, width };
        tables.buffers.push(buffer).map_err(|full| no_slot(&reader, "number of buffers", full))?;
    }
    for index in 0..segments {
        read_segment(&mut reader, index, network, &mut tables)?;
    }
    let weight_bytes = pack(tables.ops.as_mut_slice())?;
    let graph = tables.finish(node, network.nodes, network.batch_max);
    Ok(Node { graph, weight_bytes, from_kin: reader.letters.are_ours() })
}

fn read_segment<R: Read>(
    reader: &mut Reader<'_, R>,
    index: u32,
    network: Network,
    tables: &mut Tables<'_>,
) -> Result<(), ReadError<R::Error>> {
    let (first_op, first_sync) = (tables.ops.len(), tables.syncs.len());
    reader.at = At::Segment(index);
    let syncs = reader.within("number of syncs", 0..=Sizes::MAX.syncs as u32 - first_sync)?;
    let ops = reader.within("number of ops", 0..=Sizes::MAX.ops as u32 - first_op)?;
    for _ in 0..syncs {
        let pipe = reader.index("pipe of a sync", tables.pipes.len())?;
        let collective = match reader.index("sync type", 3)? {
            0 => Collective::Broadcast,
            1 => Collective::AllGather,
            _ => Collective::Gather,
        };
        if collective != Collective::Broadcast {
            let Pipe { dtype, width, .. } = tables.pipes.as_slice()[pipe as usize];
            let parts = u64::from(network.nodes) * dtype.block_len();
            if !u64::from(width).is_multiple_of(parts) {
                let fault = Fault::Indivisible { found: width.into(), by: parts };
                return Err(reader.invalid("width of a shared pipe", fault).into());
            }
        }
        tables
            .syncs
            .push(Sync { pipe, collective, bounds: None })
            .map_err(|full| no_slot(reader, "number of syncs", full))?;
    }
    for op in 0..ops {
        reader.at = At::Op { segment: index, op };
        let room = Room {
            nodes: network.nodes,
            batch_max: network.batch_max,
            pipes: tables.pipes.as_slice(),
            buffers: tables.buffers.as_slice(),
        };
        let op = read_op(reader, &room)?;
        tables.ops.push(op).map_err(|full| no_slot(reader, "number of ops", full))?;
    }
    let segment = Segment { ops: first_op..first_op + ops, syncs: first_sync..first_sync + syncs, head: false };
    tables.segments.push(segment).map_err(|full| no_slot(reader, "number of segments", full))?;
    Ok(())
}

fn sync_type(collective: Collective) -> u32 {
    match collective {
        Collective::Broadcast => 0,
        Collective::AllGather => 1,
        Collective::Gather => 2,
        Collective::To(..) => unreachable!("a graph that is cut by rows does not cross the dllama wire"),
    }
}

/// Rows are addressed one by one: each must be whole blocks.
fn whole_rows<R: Read>(reader: &Reader<'_, R>, shape: Shape) -> Result<(), ReadError<R::Error>> {
    let (width, block) = (u64::from(shape.width), shape.dtype.block_len());
    if width.is_multiple_of(block) {
        return Ok(());
    }
    Err(reader.invalid("width", Fault::Indivisible { found: width, by: block }).into())
}

/// The caller's tables are smaller than what the wire allows.
fn no_slot<R: Read>(reader: &Reader<'_, R>, field: &'static str, full: Full) -> Invalid {
    let slots = full.slots as u64;
    reader.invalid(field, Fault::Range { found: slots + 1, min: 0, max: slots })
}
