//! The caller's memory for a graph: slices that are filled from the front.

use super::{Buffer, Graph, Op, Pipe, Segment, Sync};
use core::fmt;

/// A table has no slot left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Slots there are.
    pub slots: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph table: more than {} entries", self.slots)
    }
}

impl core::error::Error for Full {}

/// A list over borrowed slots.
#[derive(Debug)]
pub struct Table<'t, T> {
    slots: &'t mut [T],
    len: usize,
}

impl<'t, T> Table<'t, T> {
    /// An empty list that may grow to `slots.len()` entries; what the slots hold is overwritten.
    pub fn new(slots: &'t mut [T]) -> Self {
        Self { slots, len: 0 }
    }

    /// Appends and returns the index of the new entry.
    ///
    /// # Errors
    /// [`Full`] where no slot is left.
    pub fn push(&mut self, value: T) -> Result<u32, Full> {
        let slots = self.slots.len();
        *self.slots.get_mut(self.len).ok_or(Full { slots })? = value;
        self.len += 1;
        Ok(self.len as u32 - 1)
    }

    /// Entries so far.
    pub fn len(&self) -> u32 {
        self.len as u32
    }

    /// True before the first entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries so far.
    pub fn as_slice(&self) -> &[T] {
        &self.slots[..self.len]
    }

    /// The entries so far, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.slots[..self.len]
    }

    /// Ends filling.
    pub fn finish(self) -> &'t [T] {
        &self.slots[..self.len]
    }
}

/// How many entries each table of a graph takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // one per table of `Graph`
pub struct Sizes {
    pub pipes: usize,
    pub buffers: usize,
    pub segments: usize,
    pub ops: usize,
    pub syncs: usize,
    pub bounds: usize,
}

impl Sizes {
    /// Room for every graph that a peer may send: the C++ graphs of [`super::MAX_LAYERS`] layers.
    pub const MAX: Sizes = Sizes::of_layers(super::MAX_LAYERS);

    /// Room for the graph of a model with this many layers, of any architecture.
    pub const fn of_layers(layers: u32) -> Sizes {
        let layers = layers as usize;
        Sizes {
            pipes: 5,
            buffers: 23 + 2 * layers,
            segments: 2 + 2 * layers,
            ops: 7 + 35 * layers,
            syncs: 2 + 2 * layers,
            bounds: 0,
        }
    }

    /// Room for the graph of one of `nodes` that share such a model by rows.
    pub const fn of_rows(layers: u32, nodes: u32) -> Sizes {
        let layers = layers as usize;
        Sizes {
            pipes: 7,
            buffers: 17 + 2 * layers,
            segments: 5 + 4 * layers,
            ops: 4 + 36 * layers,
            syncs: 4 + 4 * layers,
            bounds: 8 * (nodes as usize + 1),
        }
    }
}

/// The tables of one graph while it is being filled.
#[derive(Debug)]
#[allow(missing_docs)] // one per table of `Graph`
pub struct Tables<'t> {
    pub pipes: Table<'t, Pipe>,
    pub buffers: Table<'t, Buffer>,
    pub segments: Table<'t, Segment>,
    pub ops: Table<'t, Op>,
    pub syncs: Table<'t, Sync>,
    pub bounds: Table<'t, u32>,
}

impl<'t> Tables<'t> {
    /// Ends filling: the tables become a graph.
    pub fn finish(self, node: u32, nodes: u32, batch_max: u32) -> Graph<'t> {
        Graph {
            node,
            nodes,
            batch_max,
            pipes: self.pipes.finish(),
            buffers: self.buffers.finish(),
            segments: self.segments.finish(),
            ops: self.ops.finish(),
            syncs: self.syncs.finish(),
            bounds: self.bounds.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut slots = [0; 2];
        let mut table = Table::new(&mut slots);
        assert_eq!((table.push(7), table.push(8), table.push(9)), (Ok(0), Ok(1), Err(Full { slots: 2 })));
        assert_eq!(table.finish(), [7, 8]);
    }
}
