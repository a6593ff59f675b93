//! Graphs may come off the wire: whatever they say, checking them ends in an error or in an engine that stays within
//! its memory. Valid graphs are changed at random; a failure prints the seed that [`one`] runs again.

use dair_core::exec::{Batch, Engine, GraphError, Logits, Place, Program, Rooms, Run, Step};
use dair_core::format::{Header, Layout, RopeKind};
use dair_core::graph::{
    self, Buffer, Collective, Graph, MAX_BATCH, MAX_NODES, Op, OpKind, Operand, Pipe, Segment, Sync, View, Weight,
    pipes,
};
use dair_core::io::{Exchange, Links, Pool, Serial};
use dair_core::kernels::KvType;
use dair_core::plan::{self, Cut, Share, names};
use dair_core::quant::DType;
use dair_host::cluster::tables::GraphTables;
use dair_host::machine::arena::ArenaMemory;
use dair_host::machine::cpu::best_kernels;
use dair_host::machine::pool::Threads;
use dair_host::synthetic::{model_bytes, preset};
use dair_tests::random::Random;
use dair_tests::turns::Turns;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A graph whose tables can be changed.
#[derive(Clone)]
struct Tables {
    node: u32,
    nodes: u32,
    batch_max: u32,
    pipes: Vec<Pipe>,
    buffers: Vec<Buffer>,
    segments: Vec<Segment>,
    ops: Vec<Op>,
    syncs: Vec<Sync>,
    bounds: Vec<u32>,
}

impl Tables {
    fn graph(&self) -> Graph<'_> {
        Graph {
            node: self.node,
            nodes: self.nodes,
            batch_max: self.batch_max,
            pipes: &self.pipes,
            buffers: &self.buffers,
            segments: &self.segments,
            ops: &self.ops,
            syncs: &self.syncs,
            bounds: &self.bounds,
        }
    }
}

/// A model and the graph of one of its nodes.
struct Valid {
    file: Vec<u8>,
    tables: Tables,
}

fn valid() -> Vec<Valid> {
    let small = |header: Header| Header { n_layers: 1, seq_len: 48, ..header };
    let shapes = [
        ("tiny-llama", DType::F32),
        ("tiny-llama", DType::Q40),
        ("tiny-qwen3", DType::Q80),
        ("tiny-qwen3-moe", DType::Q40),
    ];
    let mut valid = Vec::new();
    for (name, weights) in shapes {
        let header = small(Header { weights, ..preset(name).unwrap() });
        let file = model_bytes(&header, 1);
        let layout = Layout::new(&header).unwrap();
        let columns = |nodes| Cut { batch_max: 4, ..Cut::dllama(&header, nodes) };
        let rows = |shares| Cut { batch_max: 4, ..Cut::rows(&header, shares) };
        let uneven = [3, 1, 0].map(|share| Share { layers: share, head: 1 });
        for (cut, node) in [
            (columns(1), 0),
            (columns(2), 0),
            (columns(2), 1),
            (rows(&uneven[..1]), 0),
            (rows(&uneven), 0),
            (rows(&uneven), 1),
        ] {
            let nodes = cut.nodes();
            let mut tables = GraphTables::new(cut.sizes(&header));
            let graph = plan::build(&layout, &cut, node, tables.tables()).unwrap();
            let tables = Tables {
                node,
                nodes,
                batch_max: cut.batch_max,
                pipes: graph.pipes.to_vec(),
                buffers: graph.buffers.to_vec(),
                segments: graph.segments.to_vec(),
                ops: graph.ops.to_vec(),
                syncs: graph.syncs.to_vec(),
                bounds: graph.bounds.to_vec(),
            };
            valid.push(Valid { file: file.clone(), tables });
        }
    }
    valid
}

/// A number at or beyond the edge of what is allowed somewhere, or one near `now`.
fn number(random: &mut Random, now: u32) -> u32 {
    const EDGES: [u32; 20] =
        [0, 1, 2, 3, 4, 5, 8, 16, 31, 32, 33, 48, 64, 96, 128, 256, 1 << 16, 1 << 24, 1 << 31, u32::MAX];
    match random.below(4) {
        0 => now.wrapping_add(1),
        1 => now.wrapping_sub(1),
        2 => now.wrapping_mul(2),
        _ => random.pick(&EDGES),
    }
}

fn long_number(random: &mut Random, now: u64) -> u64 {
    match random.below(5) {
        0 => u64::MAX - u64::from(number(random, 0)),
        1 => now.wrapping_add(u64::from(number(random, 0))),
        2 => now.wrapping_sub(u64::from(number(random, 0))),
        3 => now.wrapping_mul(2),
        _ => u64::from(number(random, now as u32)),
    }
}

/// Another place: most often one that exists.
fn place(random: &mut Random, tables: &Tables) -> graph::Place {
    let index = |random: &mut Random, len: usize| match random.below(8) {
        0 => number(random, len as u32),
        _ => random.below(len) as u32,
    };
    if random.once_in(4) {
        graph::Place::Pipe(index(random, tables.pipes.len()))
    } else {
        graph::Place::Buffer(index(random, tables.buffers.len()))
    }
}

fn change_operand(random: &mut Random, tables: &Tables, operand: &mut Operand) {
    if random.once_in(3) {
        operand.view = random.pick(&[View::Raw, View::Rows, View::Slice]);
    } else {
        operand.place = place(random, tables);
    }
}

fn change_weight(random: &mut Random, weight: &mut Weight) {
    match random.below(7) {
        0 => weight.dtype = random.pick(&DType::ALL),
        1 => weight.offset = long_number(random, weight.offset),
        2 => weight.rows = number(random, weight.rows),
        3 => weight.cols = number(random, weight.cols),
        4 => weight.row_stride = long_number(random, weight.row_stride),
        5 => weight.mats = number(random, weight.mats),
        _ => weight.mat_stride = long_number(random, weight.mat_stride),
    }
}

/// One of a kind's numbers; indexes most often become those of buffers that exist.
fn change_kind(random: &mut Random, tables: &Tables, kind: &mut OpKind) {
    let buffer = |random: &mut Random| random.below(tables.buffers.len() + 1) as u32;
    let pipe = |random: &mut Random| random.below(tables.pipes.len() + 1) as u32;
    match kind {
        OpKind::InvRms { epsilon, columns } => {
            *epsilon = random.pick(&[0.0, -1.0, f32::NAN, f32::INFINITY]);
            *columns = number(random, *columns);
        }
        OpKind::RmsNorm { inv_rms, .. } if random.once_in(2) => *inv_rms = buffer(random),
        OpKind::RmsNorm { columns, .. } => *columns = number(random, *columns),
        OpKind::Matmul { experts, active, indexes } => match random.below(3) {
            0 => *experts = number(random, *experts),
            1 => *active = number(random, *active),
            _ => *indexes = buffer(random),
        },
        OpKind::Rope(rope) => match random.below(5) {
            0 => rope.kind = random.pick(&[RopeKind::Llama, RopeKind::Falcon, RopeKind::Llama31]),
            1 => rope.positions = pipe(random),
            2 => rope.head_dim = number(random, rope.head_dim),
            3 => rope.theta = random.pick(&[0.0, -1.0, f32::NAN, f32::INFINITY]),
            _ => rope.scaling.factor = random.pick(&[0.0, f32::NAN, 8.0]),
        },
        OpKind::NormFinish { epsilon } => *epsilon = random.pick(&[0.0, -1.0, f32::NAN, f32::INFINITY]),
        OpKind::Attention(attention) => match random.below(10) {
            8 => attention.first_head = number(random, attention.first_head),
            9 => attention.first_kv_head = number(random, attention.first_kv_head),
            0 => attention.n_heads = number(random, attention.n_heads),
            1 => attention.n_heads0 = number(random, attention.n_heads0),
            2 => attention.n_kv_heads = number(random, attention.n_kv_heads),
            3 => attention.head_dim = number(random, attention.head_dim),
            4 => attention.kv_dim0 = number(random, attention.kv_dim0),
            5 => attention.query = buffer(random),
            6 => attention.key_cache = buffer(random),
            _ => attention.value_cache = buffer(random),
        },
        OpKind::Mul { by } | OpKind::Scale { by } => *by = buffer(random),
        OpKind::Shift { positions } => *positions = pipe(random),
        OpKind::MoeGate { k, renormalise, indexes } => match random.below(3) {
            0 => *k = number(random, *k),
            1 => *renormalise ^= true,
            _ => *indexes = buffer(random),
        },
        _ => *kind = tables.ops[random.below(tables.ops.len())].kind.clone(),
    }
}

fn change_op(random: &mut Random, tables: &mut Tables) {
    let before = tables.clone();
    let other = before.ops[random.below(before.ops.len())].clone();
    let index = random.below(tables.ops.len());
    let op = &mut tables.ops[index];
    match random.below(12) {
        0 | 1 => change_operand(random, &before, &mut op.input),
        2 | 3 => change_operand(random, &before, &mut op.output),
        4 => op.input = op.output,
        5 => op.output = op.input,
        6 => op.kind = other.kind,
        7 => op.weight = other.weight,
        8 => *op = other,
        9 => tables.ops.swap(index, random.below(before.ops.len())),
        _ => match &mut op.weight {
            Some(weight) if random.once_in(2) => change_weight(random, weight),
            _ => change_kind(random, &before, &mut op.kind),
        },
    }
}

fn change(random: &mut Random, tables: &mut Tables) {
    let dtypes = [DType::F32, DType::F16, DType::Q40, DType::Q80];
    match random.below(20) {
        0 if !tables.bounds.is_empty() && random.once_in(2) => {
            let index = random.below(tables.bounds.len());
            tables.bounds[index] = number(random, tables.bounds[index]);
        }
        0 => {
            let index = random.below(tables.pipes.len());
            let other = tables.pipes[random.below(tables.pipes.len())].name.clone();
            let pipe = &mut tables.pipes[index];
            match random.below(5) {
                0 => pipe.dtype = random.pick(&dtypes),
                4 => pipe.bounds = random.pick(&[None, Some(0), Some(1), Some(4), Some(u32::MAX)]),
                1 => pipe.rows = number(random, pipe.rows),
                2 => pipe.width = number(random, pipe.width),
                _ => pipe.name = other,
            }
        }
        1..=3 => {
            let index = random.below(tables.buffers.len());
            let buffer = &mut tables.buffers[index];
            match random.below(4) {
                0 => buffer.dtype = random.pick(&dtypes),
                1 => buffer.planes = number(random, buffer.planes),
                2 => buffer.rows = number(random, buffer.rows),
                _ => buffer.width = number(random, buffer.width),
            }
        }
        4 => {
            let index = random.below(tables.segments.len());
            let segment = &mut tables.segments[index];
            match random.below(5) {
                0 => segment.ops.start = number(random, segment.ops.start),
                1 => segment.ops.end = number(random, segment.ops.end),
                2 => segment.syncs.start = number(random, segment.syncs.start),
                3 => segment.syncs.end = number(random, segment.syncs.end),
                _ => segment.head ^= true,
            }
        }
        5 if !tables.syncs.is_empty() => {
            let index = random.below(tables.syncs.len());
            let sync = &mut tables.syncs[index];
            if random.once_in(2) {
                sync.pipe = random.below(tables.pipes.len() + 1) as u32;
            } else {
                sync.collective = random.pick(&[Collective::Broadcast, Collective::AllGather, Collective::Gather]);
            }
        }
        6 => match random.below(4) {
            0 => tables.node = number(random, tables.node),
            1 => tables.nodes = number(random, tables.nodes),
            // All rows that depend on the batch change with it, or the graph would only be refused.
            2 => {
                let (before, after) = (tables.batch_max, number(random, tables.batch_max));
                tables.batch_max = after;
                let rows = tables.pipes.iter_mut().map(|pipe| &mut pipe.rows);
                let rows = rows.chain(tables.buffers.iter_mut().map(|buffer| &mut buffer.rows));
                rows.filter(|rows| **rows == before).for_each(|rows| *rows = after);
            }
            _ => tables.batch_max = number(random, tables.batch_max),
        },
        _ => change_op(random, tables),
    }
}

/// Fills memory with anything at all.
type Fill = fn(&mut Random, &mut [u8]);

fn noise(random: &mut Random, bytes: &mut [u8]) {
    bytes.fill_with(|| random.next_u64() as u8);
}

/// Small numbers, whether it is read as F32, as F16 or as codes.
fn numbers(random: &mut Random, bytes: &mut [u8]) {
    bytes.chunks_mut(4).for_each(|word| {
        let value = [0, 0, random.next_u64() as u8, 0x3C];
        word.copy_from_slice(&value[..word.len()]);
    });
}

/// Peers that send what they like.
struct Peers(Random, Fill);

impl Links for Peers {
    type Error = Infallible;

    fn exchange(&mut self, exchange: Exchange<'_>, pipe: &mut [u8]) -> Result<(), Infallible> {
        for node in 0..exchange.nodes {
            assert!(exchange.part(node).end <= exchange.row_bytes);
        }
        self.1(&mut self.0, pipe);
        Ok(())
    }
}

/// Most memory that a changed graph gets; one that wants more is not run.
const ARENA_BYTES: usize = 8 << 20;

/// Checks a graph and, where it passes and is not too large, runs it on memory that `fill` has filled: what all places
/// hold in the end.
fn run(
    valid: &Valid,
    tables: &Tables,
    kv: KvType,
    pool: &impl Pool,
    (seed, fill): (u64, Fill),
) -> Result<Option<Vec<u8>>, GraphError> {
    let graph = tables.graph();
    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let mut program = |lanes| {
        let rooms = Rooms { places: &mut places, steps: &mut steps };
        Program::new(&graph, valid.file.len() as u64, kv, lanes, rooms).map(|program| program.arena_bytes())
    };
    // Without lanes there is no scratch, which may hold anything in the end.
    let places_bytes = program(0)?;
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let program = Program::new(&graph, valid.file.len() as u64, kv, pool.lanes(), rooms)?;
    if program.arena_bytes() > ARENA_BYTES {
        return Ok(None);
    }
    let mut arena = ArenaMemory::new(program.arena_bytes()).unwrap();
    let mut peers = Peers(Random::new(seed), fill);
    fill(&mut peers.0, &mut arena[..places_bytes]);
    let mut engine = Engine::new(&program, &valid.file[..], pool, best_kernels(), &mut arena);
    let seq_len = program.seq_len();
    let batches =
        [(0, 3), (3, 1), (seq_len.saturating_sub(2), 2), (seq_len.saturating_sub(1), 2), (7, graph.batch_max)];
    for ((position, rows), index) in batches.into_iter().zip(0..) {
        let tokens = vec![5; rows.min(1 << 10) as usize];
        let logits = [Logits::All, Logits::Last, Logits::None][index % 3];
        let batch = Batch { runs: &[Run::new(position, rows, logits)], tokens: &tokens };
        // Refused batches are fine.
        if engine.forward(&mut peers, batch).is_ok() && graph.pipe(pipes::LOGITS).is_some() {
            engine.last_logits();
        }
    }
    Ok(Some(arena[..places_bytes].to_vec()))
}

/// What became of a changed graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    TooLarge,
    Ran,
}

/// A graph that was changed up to three times.
fn changed<'v>(valid: &'v [Valid], random: &mut Random) -> (&'v Valid, Tables) {
    let valid = &valid[random.below(valid.len())];
    let mut tables = valid.tables.clone();
    for _ in 0..1 + random.below(3) {
        change(random, &mut tables);
    }
    (valid, tables)
}

fn one(valid: &[Valid], pools: (&Serial, &Threads), seed: u64) -> Outcome {
    let random = &mut Random::new(seed);
    let (valid, tables) = changed(valid, random);
    let fill = (seed, noise as Fill);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let kv = random.pick(&KvType::ALL);
        if random.once_in(8) { run(valid, &tables, kv, pools.1, fill) } else { run(valid, &tables, kv, pools.0, fill) }
    }));
    match result {
        Ok(Ok(Some(_))) => Outcome::Ran,
        Ok(Ok(None)) => Outcome::TooLarge,
        Ok(Err(error)) => {
            assert!(error.to_string().len() < 200, "{error}");
            Outcome::Refused
        }
        Err(panic) => {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_changed_graph_is_refused_or_runs_within_its_memory() {
    const SEEDS: u64 = 30_000;
    let (valid, threads) = (valid(), Threads::new(2).unwrap());
    let mut counts = [0; 3];
    for seed in 0..SEEDS {
        counts[one(&valid, (&Serial, &threads), seed) as usize] += 1;
    }
    let [refused, too_large, ran] = counts;
    println!("{refused} refused, {too_large} too large to run here, {ran} ran");
    assert!(refused > 1000 && ran > 1000, "{refused} refused, {ran} ran: changes that show nothing");
}

#[test]
fn in_a_changed_graph_the_order_of_lanes_between_barriers_does_not_matter() {
    const SEEDS: u64 = 3000;
    let (valid, mut ran) = (valid(), 0);
    for seed in 0..SEEDS {
        let (valid, tables) = changed(&valid, &mut Random::new(seed));
        // All of the memory is words of F32 then, for which it is known what a NaN is.
        let kv = KvType::F32;
        let Ok(Some(want)) = run(valid, &tables, kv, &Serial, (seed, numbers)) else { continue };
        let got = run(valid, &tables, kv, &Turns::new(3, seed), (seed, numbers)).unwrap().unwrap();
        // Which NaN it is may depend on where a vector starts.
        let same = |(got, want): (&[u8; 4], &[u8; 4])| {
            got == want || f32::from_le_bytes(*got).is_nan() && f32::from_le_bytes(*want).is_nan()
        };
        let differs = got.as_chunks().0.iter().zip(want.as_chunks().0).position(|pair| !same(pair));
        assert_eq!(differs, None, "seed {seed}: word of the arena");
        ran += 1;
    }
    println!("{ran} ran");
    assert!(ran > SEEDS / 20, "{ran} ran: changes that show nothing");
}

#[test]
fn graphs_that_were_not_changed_run() {
    for valid in valid() {
        for kv in [KvType::F16, KvType::F32] {
            assert!(run(&valid, &valid.tables, kv, &Serial, (1, noise)).unwrap().is_some());
        }
    }
}

#[test]
fn what_would_leave_its_memory_or_race_is_refused_by_name() {
    const SHARED: &str = "number of places of what is read and what is written";
    let valid = &valid()[6];
    let check = |name: &str, what: &str, change: &dyn Fn(&mut Tables)| {
        let mut tables = valid.tables.clone();
        change(&mut tables);
        let error = run(valid, &tables, KvType::F16, &Serial, (1, noise)).unwrap_err();
        assert_eq!((&*error.op, error.what), (name, what), "{error}");
    };
    check("", "number of nodes", &|t| t.nodes = MAX_NODES + 1);
    check("", "batch size", &|t| t.batch_max = MAX_BATCH + 1);
    check("", "type code of positions, tokens or logits", &|t| t.pipes[0].dtype = DType::F16);
    check("", "width of positions or tokens", &|t| t.pipes[1].width = 2);
    check("", "width of a quantised row", &|t| t.buffers[2].width += 1);
    check("", "start of a segment", &|t| t.segments[2].ops = t.segments[1].ops.clone());
    check(names::CAST_X, "planes of an operand", &|t| t.buffers[0].planes = 0);

    let check = |name: &str, what: &str, change: &dyn Fn(&mut Op)| {
        let index = valid.tables.graph().op(name, 0).unwrap();
        check(name, what, &|t| change(&mut t.ops[index]));
    };
    check(names::CAST_D, SHARED, &|op| op.output = op.input);
    check(names::MATMUL_W1, SHARED, &|op| op.input = op.output);
    check(names::ATTENTION, SHARED, &|op| match op.kind {
        OpKind::Attention(attention) => op.output.place = graph::Place::Buffer(attention.query),
        _ => panic!("not attention"),
    });
    check(names::MATMUL_Q, "end of a weight in bytes", &|op| {
        op.weight.as_mut().unwrap().offset = valid.file.len() as u64 - 100;
    });
    check(names::MATMUL_Q, "end of a weight in bytes", &|op| op.weight.as_mut().unwrap().row_stride = u64::MAX);
}

#[test]
fn a_kv_cache_is_for_shifts_and_attention_alone() {
    const OTHER: &str = "number of operands in a KV cache, other than of shift and attention";
    let valid = &valid()[0];
    let cache = |tables: &Tables, key: bool| match tables.ops[tables.graph().op(names::ATTENTION, 0).unwrap()].kind {
        OpKind::Attention(a) => {
            if key {
                a.key_cache
            } else {
                a.value_cache
            }
        }
        _ => panic!("not attention"),
    };
    let refused = |kv: KvType, change: &dyn Fn(&mut Tables)| {
        let mut tables = valid.tables.clone();
        change(&mut tables);
        run(valid, &tables, kv, &Serial, (1, noise)).unwrap_err()
    };
    for kv in [KvType::F16, KvType::F32] {
        // Whatever else would touch a cache as rows: read it, write it, or use it by the way.
        let buffer = |t: &mut Tables, key| graph::Place::Buffer(cache(t, key));
        let op = |t: &Tables, name| t.graph().op(name, 0).unwrap();
        let as_rows = |t: &mut Tables, key| {
            let index = cache(t, key) as usize;
            t.buffers[index].rows = t.batch_max;
        };
        let error = refused(kv, &|t| {
            as_rows(t, true);
            let (index, place) = (op(t, names::CAST_D), buffer(t, true));
            t.ops[index].input = Operand::rows(place);
        });
        assert_eq!((&*error.op, error.what), (names::CAST_D, OTHER));
        let error = refused(kv, &|t| {
            as_rows(t, false);
            let (index, place) = (op(t, names::MATMUL_V), buffer(t, false));
            t.ops[index].output = Operand::rows(place);
        });
        assert_eq!((&*error.op, error.what), (names::MATMUL_V, OTHER));
        let error = refused(kv, &|t| {
            as_rows(t, true);
            let (index, by) = (op(t, names::MUL), cache(t, true));
            t.ops[index].kind = OpKind::Mul { by };
        });
        assert_eq!((&*error.op, error.what), (names::MUL, OTHER));
        // One cache for both.
        let error = refused(kv, &|t| {
            let (index, keys) = (op(t, names::ATTENTION), cache(t, true));
            let OpKind::Attention(a) = &mut t.ops[index].kind else { panic!("not attention") };
            a.value_cache = keys;
        });
        assert_eq!((&*error.op, error.what), (names::ATTENTION, "number of layouts of one KV cache"));
        // A shift to what no attention reads.
        let error = refused(kv, &|t| {
            let (index, place) = (op(t, names::SHIFT_K), buffer(t, true));
            t.buffers.push(t.buffers[cache(t, true) as usize].clone());
            assert_eq!(t.ops[index].output.place, place);
            t.ops[index].output.place = graph::Place::Buffer(t.buffers.len() as u32 - 1);
        });
        assert_eq!((&*error.op, error.what), (names::SHIFT_K, "number of attention ops that read a cache"));
    }
    let line = run(valid, &valid.tables, KvType::Q80, &Serial, (1, noise)).unwrap_err().to_string();
    let want = "head_dim of a q80 KV cache is 16; it must be a positive multiple of 32";
    assert_eq!(line, format!("graph: op {} of layer 0: {want}", names::ATTENTION));
}
