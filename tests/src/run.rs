//! The engine over a model in memory: one node, or the root or a worker of several.

use dair_core::exec::{Batch, Engine, Logits, Place, Program, Rooms, Run, Step};
use dair_core::format::{Header, Layout};
use dair_core::graph::OpKind;
use dair_core::io::{Alone, Links, Pool, Storage};
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{self, Cut};
use dair_host::cluster::tables::GraphTables;
use dair_host::machine::arena::ArenaMemory;

/// Builds the engine of `node`, which keeps keys and values as `kv`, and hands it to `body`. Its memory starts out as
/// `garbage` bytes.
pub fn with_engine<P: Pool, R>(
    file: &[u8],
    (cut, kv, node): (&Cut, KvType, u32),
    (pool, kernels): (&P, Kernels),
    garbage: u8,
    body: impl FnOnce(&mut Engine<'_, [u8], P>) -> R,
) -> R {
    with_program(file, (cut, kv, node), pool, |program| {
        let mut arena = ArenaMemory::new(program.arena_bytes()).unwrap();
        arena.fill(garbage);
        body(&mut Engine::new(program, file, pool, kernels, &mut arena))
    })
}

/// Builds and checks the program of `node`, which keeps keys and values as `kv`, and hands it to `body`.
pub fn with_program<P: Pool, R>(
    file: &[u8],
    (cut, kv, node): (&Cut, KvType, u32),
    pool: &P,
    body: impl FnOnce(&Program<'_>) -> R,
) -> R {
    let header = Header::parse(file).unwrap();
    let layout = Layout::new(&header).unwrap();
    layout.check_file(file.len() as u64).unwrap();
    let mut tables = GraphTables::new(cut.sizes(&header));
    let graph = plan::build(&layout, cut, node, tables.tables()).unwrap();
    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let program = Program::new(&graph, file.len() as u64, kv, pool.lanes(), rooms).unwrap();
    body(&program)
}

/// Feeds `tokens` from `position` on in batches whose sizes repeat `batches`; the logits of every token.
pub fn feed<S: Storage + ?Sized, P: Pool>(
    engine: &mut Engine<'_, S, P>,
    links: &mut impl Links,
    tokens: &[u32],
    position: u32,
    batches: &[usize],
) -> Vec<Vec<f32>> {
    let is_root = engine.program().graph().node == 0;
    let reads_tokens = engine.program().graph().ops.iter().any(|op| matches!(op.kind, OpKind::Embedding));
    let (mut rest, mut position, mut logits) = (tokens, position, Vec::new());
    for size in batches.iter().cycle() {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        if now.is_empty() {
            break;
        }
        let rows = now.len() as u32;
        let run = Run::new(position, rows, Logits::All);
        let batch = Batch { runs: &[run], tokens: if reads_tokens { now } else { &[] } };
        engine.forward(links, batch).unwrap_or_else(|failure| panic!("position {position}: {failure}"));
        if is_root {
            logits.extend((0..rows).map(|row| engine.logits(row).to_vec()));
        }
        (rest, position) = (later, position + rows);
    }
    logits
}

/// Logits of every token of a sequence on one node.
pub fn logits<P: Pool>(
    file: &[u8],
    (cut, kv): (&Cut, KvType),
    (pool, kernels): (&P, Kernels),
    tokens: &[u32],
    batches: &[usize],
) -> Vec<Vec<f32>> {
    with_engine(file, (cut, kv, 0), (pool, kernels), 0xFF, |engine| feed(engine, &mut Alone, tokens, 0, batches))
}

/// Fails unless two runs agree in every bit; `what` names them.
#[track_caller]
pub fn assert_same_bits(got: &[Vec<f32>], want: &[Vec<f32>], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: tokens");
    for (token, (got, want)) in got.iter().zip(want).enumerate() {
        let differs = got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits());
        if let Some(index) = differs {
            panic!("{what}: token {token}, logit {index}: {:e} is not {:e}", got[index], want[index]);
        }
        assert_eq!(got.len(), want.len(), "{what}: logits");
    }
}
