//! Stages of a cut by layers: which nodes compute which layers.

use core::ops::Range;

/// Consecutive nodes that compute consecutive layers together, each its part of every matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// How many nodes.
    pub nodes: u16,
    /// How many layers.
    pub layers: u16,
}

/// All stages, in the order in which a token goes through them.
#[derive(Clone, Copy, Debug)]
pub struct Stages<'s> {
    list: &'s [Stage],
    nodes: u32,
    layers: u32,
}

impl<'s> Stages<'s> {
    /// Of so many nodes and layers; no stage in the list stands for one that has them all.
    pub const fn new(list: &'s [Stage], nodes: u32, layers: u32) -> Self {
        Self { list, nodes, layers }
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        if self.list.is_empty() { 1 } else { self.list.len() }
    }

    /// Whether nodes and layers are all of them, no more and no fewer, and no stage is without either.
    pub fn are_whole(&self) -> bool {
        let sum = |of: fn(&Stage) -> u16| self.list.iter().map(of).map(u32::from).sum::<u32>();
        let has_both = |stage: &Stage| stage.nodes > 0 && stage.layers > 0;
        let sums = (sum(|stage| stage.nodes), sum(|stage| stage.layers));
        self.list.is_empty() || sums == (self.nodes, self.layers) && self.list.iter().all(has_both)
    }

    /// The nodes of a stage.
    pub fn nodes(&self, stage: usize) -> Range<u32> {
        self.range(stage, self.nodes, |stage| stage.nodes)
    }

    /// The layers of a stage.
    pub fn layers(&self, stage: usize) -> Range<u32> {
        self.range(stage, self.layers, |stage| stage.layers)
    }

    /// The stage that a node belongs to.
    pub fn of(&self, node: u32) -> usize {
        (0..self.count()).find(|stage| self.nodes(*stage).contains(&node)).unwrap_or(0)
    }

    fn range(&self, stage: usize, all: u32, of: fn(&Stage) -> u16) -> Range<u32> {
        let Some((last, before)) = self.list.get(..=stage).and_then(<[_]>::split_last) else { return 0..all };
        let start = before.iter().map(of).map(u32::from).sum();
        start..start + u32::from(of(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other() {
        let list = [Stage { nodes: 1, layers: 3 }, Stage { nodes: 4, layers: 2 }, Stage { nodes: 2, layers: 1 }];
        let stages = Stages::new(&list, 7, 6);
        assert!(stages.are_whole());
        assert_eq!((stages.nodes(1), stages.layers(1)), (1..5, 3..5));
        assert_eq!((stages.nodes(2), stages.layers(2)), (5..7, 5..6));
        assert_eq!([0, 1, 4, 5, 6].map(|node| stages.of(node)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn no_list_is_one_stage() {
        let stages = Stages::new(&[], 7, 6);
        assert_eq!((stages.count(), stages.nodes(0), stages.layers(0), stages.of(6)), (1, 0..7, 0..6, 0));
        assert!(stages.are_whole());
    }

    #[test]
    fn stages_that_are_too_short_too_long_or_empty_are_not_whole() {
        let stage = |nodes, layers| Stage { nodes, layers };
        let lists = [
            [stage(1, 3), stage(5, 3)],
            [stage(1, 3), stage(7, 3)],
            [stage(4, 3), stage(3, 4)],
            [stage(7, 0), stage(0, 6)],
            [stage(7, 6), stage(0, 0)],
        ];
        assert!(lists.iter().all(|list| !Stages::new(list, 7, 6).are_whole()));
    }
}
