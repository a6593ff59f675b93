//! Memory for the tables of a graph.

use dair_core::graph::{Buffer, Op, Pipe, Segment, Sizes, Sync, Table, Tables};

/// Slots for every table.
#[derive(Debug)]
pub struct GraphTables {
    pipes: Vec<Pipe>,
    buffers: Vec<Buffer>,
    segments: Vec<Segment>,
    ops: Vec<Op>,
    syncs: Vec<Sync>,
    bounds: Vec<u32>,
}

impl GraphTables {
    /// Slots as `sizes` says.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            pipes: vec![Pipe::default(); sizes.pipes],
            buffers: vec![Buffer::default(); sizes.buffers],
            segments: vec![Segment::default(); sizes.segments],
            ops: vec![Op::default(); sizes.ops],
            syncs: vec![Sync::default(); sizes.syncs],
            bounds: vec![0; sizes.bounds],
        }
    }

    /// Empty tables over the slots.
    pub fn tables(&mut self) -> Tables<'_> {
        Tables {
            pipes: Table::new(&mut self.pipes),
            buffers: Table::new(&mut self.buffers),
            segments: Table::new(&mut self.segments),
            ops: Table::new(&mut self.ops),
            syncs: Table::new(&mut self.syncs),
            bounds: Table::new(&mut self.bounds),
        }
    }
}
