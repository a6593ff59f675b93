//! The `dllama` dialect: weights for a graph that was accepted.

#![no_main]

use dair_core::format::Layout;
use dair_core::graph::Sizes;
use dair_core::plan::{Cut, build};
use dair_core::wire::dllama::{read_weights, repacked};
use dair_host::cluster::tables::GraphTables;
use dair_tests::published;
use std::cell::RefCell;

struct Room {
    planned: GraphTables,
    packed: GraphTables,
    memory: Vec<u8>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room {
        planned: GraphTables::new(Sizes::of_layers(1)),
        packed: GraphTables::new(Sizes::of_layers(1)),
        memory: Vec::new(),
    });
}

dair_fuzz::target!(1 << 20, 64, |bytes| {
    ROOM.with_borrow_mut(|Room { planned, packed, memory }| {
        let header = published::small_for_two();
        let layout = Layout::new(&header).expect("a small model");
        let graph = build(&layout, &Cut::dllama(&header, 2), 1, planned.tables()).expect("a graph of it");
        let (graph, weight_bytes) = repacked(&graph, packed.tables()).expect("room for the graph");
        memory.resize(weight_bytes as usize, 0);
        let mut received = vec![0; graph.ops.len()];
        let mut seen = 0;
        let done = read_weights(&mut &bytes[..], &graph, memory, &mut received, |bytes| seen += bytes);
        assert!(seen <= bytes.len() as u64 && seen <= weight_bytes);
        match done {
            Ok(()) => assert_eq!(seen, received.iter().sum::<u64>()),
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    });
});
