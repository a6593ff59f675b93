//! The `dllama` dialect: a graph as a root sends it, checked as the engine checks it, and computed where it is small.
//! The first byte says how many nodes there are.

#![no_main]

use dair_core::exec::{Batch, Engine, Logits, Place, Program, Rooms, Run, Step};
use dair_core::graph::{Graph, Sizes};
use dair_core::io::{Alone, Serial};
use dair_core::kernels::KvType;
use dair_core::wire::dllama::{Node, read_network, read_node, records, write_network, write_node};
use dair_host::cluster::tables::GraphTables;
use dair_host::machine::arena::ArenaMemory;
use dair_host::machine::cpu::best_kernels;
use std::cell::RefCell;

/// Larger graphs are not computed.
const MAX_BYTES: u64 = 1 << 20;

thread_local! {
    static TABLES: RefCell<[GraphTables; 2]> = RefCell::new([(); 2].map(|()| GraphTables::new(Sizes::of_layers(2))));
}

dair_fuzz::target!(8 << 20, 64, |bytes| {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let nodes = 2 + u32::from(first % 3);
    TABLES.with_borrow_mut(|[first, second]| {
        let Some(node) = read(&mut rest, nodes, first) else { return };
        let ends = node.graph.ops.iter().filter_map(|op| op.weight?.mat_end(op.weight?.mats - 1));
        assert!(ends.max().unwrap_or(0) <= node.weight_bytes);
        assert!(records(&node.graph).all(|record| (record.op as usize) < node.graph.ops.len()));
        // What is written of it is read and written the same.
        let written = write(&node.graph);
        let again = read(&mut &written[..], nodes, second).expect("a graph that was written");
        assert_eq!(again.weight_bytes, node.weight_bytes);
        assert_eq!(write(&again.graph), written);
        run(&node);
    });
});

fn read<'t>(bytes: &mut &[u8], nodes: u32, tables: &'t mut GraphTables) -> Option<Node<'t>> {
    let mut tables = tables.tables();
    let network = read_network(bytes, nodes, &mut tables.pipes).map_err(check).ok()?;
    read_node(bytes, 1, network, tables).map_err(check).ok()
}

fn check(error: impl std::fmt::Display) {
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 300, "{line}");
}

fn write(graph: &Graph<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_network(&mut bytes, graph).expect("memory");
    write_node(&mut bytes, graph).expect("memory");
    bytes
}

fn run(node: &Node<'_>) {
    let Node { graph, weight_bytes, .. } = node;
    let mut places = vec![Place::default(); Program::places_len(graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let program = match Program::new(graph, *weight_bytes, KvType::default(), 1, rooms) {
        Ok(program) => program,
        Err(error) => return check(error),
    };
    if program.arena_bytes() as u64 > MAX_BYTES || *weight_bytes > MAX_BYTES {
        return;
    }
    let weights = vec![0x3C; *weight_bytes as usize];
    let mut arena = ArenaMemory::new(program.arena_bytes()).expect("a megabyte");
    let mut engine = Engine::new(&program, &weights[..], &Serial, best_kernels(), &mut arena);
    for (position, rows) in [(0, graph.batch_max.min(2)), (program.seq_len().saturating_sub(1), 1)] {
        let _ = engine.forward(&mut Alone, Batch { runs: &[Run::new(position, rows, Logits::All)], tokens: &[] });
    }
}
