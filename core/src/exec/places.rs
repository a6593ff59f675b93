//! Where pipes and buffers lie in the arena.

use super::arena::{ARENA_ALIGN, aligned};
use super::error::GraphError;
use crate::graph::{self, Graph, Op, OpKind};
use crate::kernels::{KvLayout, KvPart, KvType, activation_row_bytes};
use crate::quant::DType;

/// Where a pipe or buffer lies; 0 bytes where nothing reads or writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub(super) offset: usize,
    pub(super) bytes: usize,
    pub(super) row_bytes: usize,
    /// What attention keeps here; its memory has no rows then.
    pub(super) cache: Option<(KvPart, KvLayout)>,
}

/// The places of a graph, pipes first.
#[derive(Clone, Copy)]
pub(super) struct Places<'p> {
    places: &'p [Place],
    n_pipes: usize,
}

impl<'p> Places<'p> {
    pub fn new(graph: &Graph<'_>, places: &'p [Place]) -> Self {
        Self { places, n_pipes: graph.pipes.len() }
    }

    /// The place of a pipe or buffer that exists.
    pub fn of(&self, place: graph::Place) -> Place {
        self.places[slot(place, self.n_pipes)]
    }
}

fn slot(place: graph::Place, n_pipes: usize) -> usize {
    match place {
        graph::Place::Pipe(index) => index as usize,
        graph::Place::Buffer(index) => n_pipes + index as usize,
    }
}

/// Gives every pipe and every buffer that an op touches its place; returns the bytes of all.
///
/// The C++ system declares more than it uses, and two buffers that are used there are not here: the RoPE cache
/// (a row of angles per token is enough) and the attention scores (each lane has scratch for a chunk of positions).
/// What attention uses as a cache is laid out as its kernels want it, in type `kv`.
pub(super) fn lay_out(graph: &Graph<'_>, kv: KvType, places: &mut [Place]) -> Result<u64, GraphError> {
    let n_pipes = graph.pipes.len();
    places.fill(Place::default());
    for op in graph.ops {
        let OpKind::Attention(a) = op.kind else { continue };
        let layout = cache_layout(op, kv, a.head_dim)?;
        for (index, part) in [(a.key_cache, KvPart::Keys), (a.value_cache, KvPart::Values)] {
            let Some(place) = places.get_mut(slot(graph::Place::Buffer(index), n_pipes)) else { continue };
            if place.cache.is_some_and(|known| known != (part, layout)) {
                return Err(GraphError::of(op, "number of layouts of one KV cache", 2, "must be", 1));
            }
            place.cache = Some((part, layout));
        }
    }
    let mut touch = |place: graph::Place| {
        // An index that does not exist is refused, with its op's name, when operands are resolved.
        if let Some(place) = places.get_mut(slot(place, n_pipes)) {
            place.bytes = 1;
        }
    };
    for op in graph.ops {
        touch(op.input.place);
        touch(op.output.place);
        match op.kind {
            OpKind::RmsNorm { inv_rms: buffer, .. }
            | OpKind::Mul { by: buffer }
            | OpKind::Scale { by: buffer }
            | OpKind::Matmul { active: 1.., indexes: buffer, .. }
            | OpKind::MoeGate { indexes: buffer, .. } => touch(graph::Place::Buffer(buffer)),
            OpKind::Attention(a) => {
                for buffer in [a.query, a.key_cache, a.value_cache] {
                    touch(graph::Place::Buffer(buffer));
                }
            }
            _ => {}
        }
    }
    for index in 0..n_pipes {
        touch(graph::Place::Pipe(index as u32));
    }
    let mut end = 0u64;
    let pipes = graph.pipes.iter().map(|p| (p.dtype, p.width, 1, p.rows, pipe_row_bytes as RowBytes));
    let buffers = graph.buffers.iter().map(|b| (b.dtype, b.width, b.planes, b.rows, buffer_row_bytes as RowBytes));
    for ((dtype, width, planes, rows, row_bytes), place) in pipes.chain(buffers).zip(places) {
        if place.bytes == 0 {
            continue;
        }
        if !u64::from(width).is_multiple_of(dtype.block_len()) {
            return Err(GraphError::broken_blocks(width, dtype));
        }
        let row_bytes = if place.cache.is_some() { Some(0) } else { row_bytes(dtype, width) };
        let plane = match place.cache {
            // That the heads fill the width is checked with their op.
            Some((part, layout)) => layout
                .head_bytes(part, u64::from(rows))
                .and_then(|bytes| bytes.checked_mul(u64::from(width) / layout.head_dim() as u64)),
            None => row_bytes.and_then(|bytes| bytes.checked_mul(u64::from(rows))),
        };
        let bytes = plane.and_then(|bytes| bytes.checked_mul(u64::from(planes)));
        let next = bytes.and_then(|bytes| aligned(end.checked_add(bytes)?)).filter(|end| usize::try_from(*end).is_ok());
        let (Some(row_bytes), Some(bytes), Some(next)) = (row_bytes, bytes, next) else {
            return Err(GraphError::too_large(u64::MAX));
        };
        *place = Place { offset: end as usize, bytes: bytes as usize, row_bytes: row_bytes as usize, ..*place };
        end = next;
    }
    Ok(end)
}

fn cache_layout(op: &Op, kv: KvType, head_dim: u32) -> Result<KvLayout, GraphError> {
    let what = match kv {
        KvType::F16 => "head_dim of an f16 KV cache",
        KvType::F32 => "head_dim of an f32 KV cache",
        KvType::Q80 => "head_dim of a q80 KV cache",
    };
    let (found, block_len) = (u64::from(head_dim), kv.block_len() as u64);
    let layout = KvLayout::new(kv, head_dim as usize);
    layout.ok_or_else(|| GraphError::of(op, what, found, "must be a positive multiple of", block_len))
}

/// Bytes from row to row; `None` where they exceed memory.
type RowBytes = fn(DType, u32) -> Option<u64>;

fn pipe_row_bytes(dtype: DType, width: u32) -> Option<u64> {
    dtype.bytes(u64::from(width))
}

/// Quantised rows as [`crate::kernels`] want them. Long rows of F32 take an odd number of cache lines, so that rows of a
/// batch whose width is a power of two do not meet in one set of a cache: products of F32 lose a quarter of their speed
/// where rows of weights meet there, too.
fn buffer_row_bytes(dtype: DType, width: u32) -> Option<u64> {
    const LONG: u64 = 4096;
    const LINE: u64 = 64;
    let bytes = dtype.bytes(u64::from(width))?;
    if dtype != DType::Q80 {
        return Some(if bytes < LONG { bytes } else { bytes.next_multiple_of(LINE) | LINE });
    }
    // An activation row takes less than twice its blocks and the padding.
    usize::try_from(2 * bytes + ARENA_ALIGN as u64).ok()?;
    Some(activation_row_bytes(width as usize) as u64)
}
