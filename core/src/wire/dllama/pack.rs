//! Where received weights lie: one op after the other, without gaps between rows.

use crate::graph::{Full, Graph, Op, Segment, Tables};
use crate::wire::{At, Fault, Invalid, Part, Spot};

/// What the weights of an op start at a multiple of: a cache line, the widest vector.
pub const WEIGHT_ALIGN: u64 = 64;

/// Gives every weight a place of its own in a memory that starts empty, in the order of the ops, matrices one after
/// the other; returns the bytes of that memory.
///
/// # Errors
/// Names the op whose weight does not fit 63 bits.
pub fn pack(ops: &mut [Op]) -> Result<u64, Invalid> {
    let mut end = 0u64;
    for op in ops {
        let Some(weight) = &mut op.weight else { continue };
        let place = || {
            let (row_bytes, mat_bytes) = (weight.row_bytes()?, weight.mat_bytes()?);
            let offset = end.checked_next_multiple_of(WEIGHT_ALIGN)?;
            let end = mat_bytes.checked_mul(weight.mats.into())?.checked_add(offset)?;
            (end <= i64::MAX as u64).then_some((row_bytes, mat_bytes, offset, end))
        };
        let Some((row_bytes, mat_bytes, offset, next)) = place() else {
            let at = At::Weight { name: op.name.clone(), layer: op.layer };
            let spot = Spot { part: Part::Node, at, field: "end of the weight" };
            return Err(Invalid { spot, fault: Fault::TooLarge });
        };
        (weight.row_stride, weight.mat_stride, weight.offset, end) = (row_bytes, mat_bytes, offset, next);
    }
    Ok(end)
}

/// The graph that a worker reads when `graph` is sent to it, and the bytes of its weights.
///
/// # Errors
/// [`Full`] where `tables` are smaller than those of `graph`.
///
/// # Panics
/// If the weights of `graph` exceed 63 bits.
pub fn repacked<'t>(graph: &Graph<'_>, mut tables: Tables<'t>) -> Result<(Graph<'t>, u64), Full> {
    for pipe in graph.pipes {
        tables.pipes.push(pipe.clone())?;
    }
    for buffer in graph.buffers {
        tables.buffers.push(buffer.clone())?;
    }
    for segment in graph.segments {
        // The wire does not carry `head`: a worker computes every row.
        tables.segments.push(Segment { head: false, ..segment.clone() })?;
    }
    for op in graph.ops {
        tables.ops.push(op.clone())?;
    }
    for sync in graph.syncs {
        tables.syncs.push(*sync)?;
    }
    let bytes = pack(tables.ops.as_mut_slice()).unwrap_or_else(|invalid| panic!("{invalid}"));
    Ok((tables.finish(graph.node, graph.nodes, graph.batch_max), bytes))
}
