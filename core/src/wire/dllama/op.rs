//! Ops as records: code, layer, weight size, name, operands, config.

use crate::format::{RopeKind, RopeScaling};
use crate::graph::{Attention, Buffer, MAX_LAYERS, Op, OpKind, Operand, Pipe, Place, Rope, View, Weight};
use crate::quant::{DType, Order};
use crate::wire::bytes::{Reader, Shape, put_shape, put_text, put_u32};
use crate::wire::{Fault, ReadError};
use embedded_io::{Read, Write};

/// What operands and configs point into.
pub(super) struct Room<'a> {
    pub(super) nodes: u32,
    pub(super) batch_max: u32,
    pub(super) pipes: &'a [Pipe],
    pub(super) buffers: &'a [Buffer],
}

const CODES: u32 = 17;
/// Config of an op that has none: the C++ system sends the one byte of an empty struct.
const EMPTY_BYTES: u32 = 1;
const ROPE_BYTES: u32 = 120;

fn code(kind: &OpKind) -> u32 {
    match kind {
        OpKind::MergeAdd => 0,
        OpKind::MergeSum => 1,
        OpKind::Embedding => 2,
        OpKind::InvRms { .. } => 3,
        OpKind::RmsNorm { .. } => 4,
        OpKind::Matmul { .. } => 5,
        OpKind::Rope(_) => 6,
        OpKind::Attention(_) => 7,
        OpKind::Gelu => 8,
        OpKind::Silu => 9,
        OpKind::Mul { .. } => 10,
        OpKind::Scale { .. } => 11,
        OpKind::Cast => 12,
        OpKind::RepeatZ => 13,
        OpKind::Shift { .. } => 14,
        OpKind::Softmax => 15,
        OpKind::MoeGate { .. } => 16,
        OpKind::NormBlocks | OpKind::NormFinish { .. } | OpKind::Stack | OpKind::Unstack => {
            unreachable!("a graph that is cut by rows does not cross the dllama wire")
        }
    }
}

/// Bytes of the config that belongs to an op code.
fn config_bytes(code: u32) -> u32 {
    match code {
        3 | 4 => 8,
        5 | 16 => 12,
        6 => ROPE_BYTES,
        7 => 48,
        10 | 11 | 14 => 4,
        _ => EMPTY_BYTES,
    }
}

/// The size record of a weight: a product's matrix is sent as `mats × inputs × outputs`.
fn weight_shape(kind: &OpKind, weight: &Weight) -> Shape {
    let (rows, width) = match kind {
        OpKind::Matmul { .. } => (weight.cols, weight.rows),
        _ => (weight.rows, weight.cols),
    };
    Shape { dtype: weight.dtype, planes: weight.mats, rows, width }
}

/// Writes an op; `empty` is the byte of a config that has nothing to say.
pub(super) fn write_op<W: Write>(writer: &mut W, op: &Op, empty: &mut impl FnMut() -> u8) -> Result<(), W::Error> {
    let code = code(&op.kind);
    put_u32(writer, code)?;
    put_u32(writer, op.layer)?;
    put_shape(writer, op.weight.as_ref().map(|weight| weight_shape(&op.kind, weight)))?;
    put_u32(writer, config_bytes(code))?;
    put_text(writer, &op.name)?;
    for Operand { place, view } in [op.input, op.output] {
        let (source, index) = match place {
            Place::Pipe(index) => (0, index),
            Place::Buffer(index) => (1, index),
        };
        let view = match view {
            View::Raw => 0,
            View::Rows => 1,
            View::Slice => 2,
        };
        for word in [source, index, view] {
            put_u32(writer, word)?;
        }
    }
    write_config(writer, &op.kind, empty)
}

fn write_config<W: Write>(writer: &mut W, kind: &OpKind, empty: &mut impl FnMut() -> u8) -> Result<(), W::Error> {
    let mut put = |words: &[u32]| words.iter().try_for_each(|word| put_u32(writer, *word));
    match *kind {
        OpKind::InvRms { epsilon, columns } => put(&[epsilon.to_bits(), columns]),
        OpKind::RmsNorm { inv_rms, columns } => put(&[inv_rms, columns]),
        OpKind::Matmul { experts, active, indexes } => put(&[experts, active, indexes]),
        OpKind::Mul { by } | OpKind::Scale { by } => put(&[by]),
        OpKind::Shift { positions } => put(&[positions]),
        OpKind::MoeGate { k, renormalise, indexes } => put(&[k, renormalise.into(), indexes]),
        OpKind::Attention(Attention {
            n_heads,
            n_heads0,
            n_kv_heads,
            head_dim,
            seq_len,
            q_dim0,
            kv_dim0,
            positions,
            query,
            key_cache,
            value_cache,
            scores,
            first_head: _,
            first_kv_head: _,
        }) => put(&[
            n_heads,
            n_heads0,
            n_kv_heads,
            head_dim,
            seq_len,
            q_dim0,
            kv_dim0,
            positions,
            query,
            key_cache,
            value_cache,
            scores,
        ]),
        OpKind::Rope(rope) => write_rope(writer, &rope),
        OpKind::MergeAdd
        | OpKind::MergeSum
        | OpKind::Embedding
        | OpKind::Gelu
        | OpKind::Silu
        | OpKind::Cast
        | OpKind::RepeatZ
        | OpKind::NormBlocks
        | OpKind::NormFinish { .. }
        | OpKind::Stack
        | OpKind::Unstack
        | OpKind::Softmax => writer.write_all(&[empty(); EMPTY_BYTES as usize]),
    }
}

fn write_rope<W: Write>(writer: &mut W, rope: &Rope) -> Result<(), W::Error> {
    let scaling = &rope.scaling;
    for word in [
        rope.kind.code(),
        rope.is_query.into(),
        rope.positions,
        rope.cache,
        scaling.factor.to_bits(),
        scaling.low_freq_factor.to_bits(),
        scaling.high_freq_factor.to_bits(),
        scaling.orig_seq_len,
        rope.q_dim0,
        rope.q_dim_start,
        rope.q_dim_end,
        rope.q_shift,
        rope.kv_dim,
        rope.kv_dim0,
        rope.kv_dim_start,
        rope.slice_dim,
        rope.seq_len,
        rope.head_dim,
        rope.n_kv_heads,
        rope.theta.to_bits(),
    ] {
        put_u32(writer, word)?;
    }
    let [rows, width] = rope.cache_shape;
    put_shape(writer, Some(Shape { dtype: DType::F32, planes: 1, rows, width }))
}

/// Reads an op. Its weight, if any, starts at 0 until all weights are packed.
pub(super) fn read_op<R: Read>(reader: &mut Reader<'_, R>, room: &Room<'_>) -> Result<Op, ReadError<R::Error>> {
    let code = reader.index("op code", CODES)?;
    let layer = reader.index("layer", MAX_LAYERS)?;
    let shape = reader.shape("weight size")?;
    let config = config_bytes(code);
    reader.exactly("config size", config)?;
    let name = reader.name()?;
    let input = read_operand(reader, room, ["input source", "input index", "input view"])?;
    let output = read_operand(reader, room, ["output source", "output index", "output view"])?;
    let kind = read_config(reader, room, code)?;
    let weight = shape.map(|shape| weight_of(reader, &kind, shape)).transpose()?;
    if kind.has_weight() != weight.is_some() {
        let found = if weight.is_some() { 1 } else { 0 };
        return Err(reader.invalid("number of weights", Fault::Differs { found, expected: 1 - found }).into());
    }
    Ok(Op { name, layer, kind, input, output, weight })
}

fn weight_of<R: Read>(reader: &Reader<'_, R>, kind: &OpKind, shape: Shape) -> Result<Weight, ReadError<R::Error>> {
    let Shape { dtype, planes, rows, width } = shape;
    let (rows, cols) = match kind {
        OpKind::Matmul { .. } => (width, rows),
        _ => (rows, width),
    };
    let mats = match *kind {
        OpKind::Matmul { experts, .. } => experts.max(1),
        _ => 1,
    };
    reader.same("planes of the weight", planes.into(), mats.into())?;
    let Some(row_bytes) = dtype.bytes(cols.into()) else {
        let fault = Fault::Indivisible { found: cols.into(), by: dtype.block_len() };
        return Err(reader.invalid("values per weight row", fault).into());
    };
    // The size record was checked: the product of all three extents is in range.
    let mat_stride = u64::from(rows) * row_bytes;
    Ok(Weight { dtype, order: Order::Rows, offset: 0, rows, cols, row_stride: row_bytes, mats, mat_stride })
}

fn read_operand<R: Read>(
    reader: &mut Reader<'_, R>,
    room: &Room<'_>,
    [source, index, view]: [&'static str; 3],
) -> Result<Operand, ReadError<R::Error>> {
    let is_pipe = reader.index(source, 2)? == 0;
    let count = if is_pipe { room.pipes.len() } else { room.buffers.len() };
    let at = reader.index(index, count as u32)?;
    let code = reader.index(view, 3)?;
    let (place, dtype, rows, width) = if is_pipe {
        let pipe = &room.pipes[at as usize];
        (Place::Pipe(at), pipe.dtype, pipe.rows, pipe.width)
    } else {
        let buffer = &room.buffers[at as usize];
        (Place::Buffer(at), buffer.dtype, buffer.rows, buffer.width)
    };
    if code == 0 {
        return Ok(Operand::raw(place));
    }
    reader.same("rows of an operand", rows.into(), room.batch_max.into())?;
    if code == 1 {
        return Ok(Operand::rows(place));
    }
    let parts = u64::from(room.nodes) * dtype.block_len();
    if !u64::from(width).is_multiple_of(parts) {
        let fault = Fault::Indivisible { found: width.into(), by: parts };
        return Err(reader.invalid("width of a sliced operand", fault).into());
    }
    Ok(Operand::slice(place))
}

fn read_config<R: Read>(reader: &mut Reader<'_, R>, room: &Room<'_>, code: u32) -> Result<OpKind, ReadError<R::Error>> {
    let buffers = room.buffers.len() as u32;
    let pipes = room.pipes.len() as u32;
    let kind = match code {
        0 => OpKind::MergeAdd,
        1 => OpKind::MergeSum,
        2 => OpKind::Embedding,
        3 => OpKind::InvRms { epsilon: reader.f32("epsilon")?, columns: reader.u32("columns")? },
        4 => OpKind::RmsNorm { inv_rms: reader.index("inv_rms buffer", buffers)?, columns: reader.u32("columns")? },
        5 => {
            let (experts, active) = (reader.u32("experts")?, reader.u32("active experts")?);
            // Without experts the index means nothing; the C++ system sends different ones.
            let indexes =
                if active == 0 { reader.u32("indexes buffer")? } else { reader.index("indexes buffer", buffers)? };
            OpKind::Matmul { experts, active, indexes }
        }
        6 => OpKind::Rope(read_rope(reader, room)?),
        7 => OpKind::Attention(Attention {
            n_heads: reader.u32("n_heads")?,
            n_heads0: reader.u32("n_heads0")?,
            n_kv_heads: reader.u32("n_kv_heads")?,
            head_dim: reader.u32("head_dim")?,
            seq_len: reader.u32("seq_len")?,
            q_dim0: reader.u32("q_dim0")?,
            kv_dim0: reader.u32("kv_dim0")?,
            positions: reader.index("position pipe", pipes)?,
            query: reader.index("query buffer", buffers)?,
            key_cache: reader.index("key cache buffer", buffers)?,
            value_cache: reader.index("value cache buffer", buffers)?,
            scores: reader.index("attention buffer", buffers)?,
            first_head: 0,
            first_kv_head: 0,
        }),
        8 => OpKind::Gelu,
        9 => OpKind::Silu,
        10 => OpKind::Mul { by: reader.index("multiplier buffer", buffers)? },
        11 => OpKind::Scale { by: reader.index("scale buffer", buffers)? },
        12 => OpKind::Cast,
        13 => OpKind::RepeatZ,
        14 => OpKind::Shift { positions: reader.index("position pipe", pipes)? },
        15 => OpKind::Softmax,
        _ => OpKind::MoeGate {
            k: reader.u32("active experts")?,
            renormalise: reader.within("renormalisation", 0..=1)? == 1,
            indexes: reader.index("indexes buffer", buffers)?,
        },
    };
    if config_bytes(code) == EMPTY_BYTES {
        let [byte] = reader.array::<{ EMPTY_BYTES as usize }>("empty config")?;
        reader.letters.take(byte);
    }
    Ok(kind)
}

fn read_rope<R: Read>(reader: &mut Reader<'_, R>, room: &Room<'_>) -> Result<Rope, ReadError<R::Error>> {
    let kind = reader.u32("rope type")?;
    let kind = RopeKind::from_code(kind)
        .ok_or_else(|| reader.invalid("rope type", Fault::Range { found: kind.into(), min: 0, max: 2 }))?;
    let is_query = reader.within("query flag", 0..=1)? == 1;
    let positions = reader.index("position pipe", room.pipes.len() as u32)?;
    let cache = reader.index("rope cache buffer", room.buffers.len() as u32)?;
    let scaling = RopeScaling {
        factor: reader.f32("rope scaling factor")?,
        low_freq_factor: reader.f32("low frequency factor")?,
        high_freq_factor: reader.f32("high frequency factor")?,
        orig_seq_len: reader.u32("original seq_len")?,
    };
    let bytes: [u8; 44] = reader.array("rope slice")?;
    let word = |index: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[4 * index + byte]));
    // The C++ system leaves five of them uninitialised for the half-split kind.
    let sliced = |index| if kind == RopeKind::Falcon { 0 } else { word(index) };
    let theta = reader.f32("rope theta")?;
    let shape = reader.solid("rope cache size")?;
    let cache_buffer = &room.buffers[cache as usize];
    for (field, found, expected) in [
        ("float type of the rope cache", shape.dtype.code(), DType::F32.code()),
        ("planes of the rope cache", shape.planes, cache_buffer.planes),
        ("rows of the rope cache", shape.rows, cache_buffer.rows),
        ("width of the rope cache", shape.width, cache_buffer.width),
    ] {
        reader.same(field, found.into(), expected.into())?;
    }
    Ok(Rope {
        kind,
        is_query,
        positions,
        cache,
        scaling,
        q_dim0: word(0),
        q_dim_start: sliced(1),
        q_dim_end: sliced(2),
        q_shift: sliced(3),
        kv_dim: word(4),
        kv_dim0: word(5),
        kv_dim_start: sliced(6),
        slice_dim: sliced(7),
        seq_len: word(8),
        head_dim: word(9),
        n_kv_heads: word(10),
        theta,
        cache_shape: [shape.rows, shape.width],
    })
}
