//! Which nodes compute what: the cut with the least predicted time per token ([`dair_core::plan::cost`]) that fits everybody's
//! memory.
//!
//! Given the nodes of each stage, layers go to the stages with the fastest layers, as many as fit, and within a stage shares are such
//! that all finish at the same time (`shares.rs`). Which nodes take part, and how they fall into stages, is tried out: all
//! ways with up to [`EXHAUSTIVE`] nodes, with more those that `ways.rs` lists. One node alone and equal parts are always among
//! them: no plan is slower than these. Of plans that take about as long, the one with the fewest nodes is best.

pub mod facts;
pub mod file;
pub mod published;
mod shares;
pub mod simulation;
#[cfg(test)]
mod tests;
mod ways;

use crate::cluster::kv;
use dair_core::format::Layout;
use dair_core::graph::MAX_NODES;
use dair_core::kernels::KvLayout;
use dair_core::plan::cost::{self, Division, Machine, NodeCost, Shape, Software};
use dair_core::plan::{BATCH, Cut, PlanError, Share, Stage, Way as CutWay};
use dair_core::quant::DType;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use ways::Way;

/// Nodes up to which every choice of nodes and every grouping of them into stages is tried.
pub const EXHAUSTIVE: usize = 7;

/// What is to be planned.
#[derive(Clone, Copy, Debug)]
pub struct Task<'t> {
    /// The model.
    pub shape: &'t Shape,
    /// What computes it.
    pub software: &'t Software,
    /// The root, then its workers.
    pub machines: &'t [Machine],
}

/// Who computes what, and what a token then takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The machine of each node, the root's first. Those that are missing here have nothing to do.
    pub nodes: Vec<usize>,
    /// Stages of consecutive nodes.
    pub stages: Vec<Stage>,
    /// A share for each node.
    pub shares: Vec<Share>,
    /// Seconds per token; infinite where it does not fit.
    pub seconds: f64,
    /// What a token costs each node.
    pub costs: Vec<NodeCost>,
}

/// The fastest plan for each number of nodes.
#[derive(Default)]
struct Fastest(BTreeMap<usize, Proposal>);

impl Fastest {
    fn consider(&mut self, proposal: Proposal) {
        if !proposal.seconds.is_finite() {
            return;
        }
        match self.0.entry(proposal.nodes.len()) {
            Entry::Occupied(mut best) if proposal.seconds < best.get().seconds => drop(best.insert(proposal)),
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => drop(place.insert(proposal)),
        }
    }

    /// The plan of the fewest nodes that is no slower than `limit_s` and hardly slower than the fastest: each node more is one
    /// more that may fail.
    fn best(&self, limit_s: f64) -> Option<&Proposal> {
        const HARDLY: f64 = 1.005;
        let least = self.0.values().map(|plan| plan.seconds).reduce(f64::min)?;
        let enough = least.max(limit_s.min(HARDLY * least));
        self.0.values().find(|plan| plan.seconds <= enough)
    }
}

/// The best plan, and the best of each kind: what the choice was between.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Least time.
    pub best: Proposal,
    /// By rows alone, over two nodes and more.
    pub rows: Option<Proposal>,
    /// In two stages and more.
    pub layers: Option<Proposal>,
    /// Everything on the root.
    pub alone: Option<Proposal>,
    /// Equal parts for everybody.
    pub equal: Option<Proposal>,
}

/// The model fits no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlan {
    /// Bytes of weights, cache and activations of one node that has everything.
    pub wanted_bytes: u64,
    /// Bytes of memory of all nodes.
    pub memory_bytes: u64,
}

impl fmt::Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [wanted, memory] = [self.wanted_bytes, self.memory_bytes].map(|bytes| bytes as f64 / 1e9);
        write!(
            f,
            "the model wants {wanted:.1} GB of memory in all and more where parts overlap; the nodes may take {memory:.1} GB: add \
             nodes, or shorten the context with --max-seq-len"
        )
    }
}

impl std::error::Error for NoPlan {}

/// The model that `layout` describes, computed with inputs of products in `activation`, with room for `positions` of keys and values
/// as `kv` lays them out.
pub fn shape(layout: &Layout, activation: DType, kv: &KvLayout, positions: u32) -> Shape {
    Shape::new(layout, activation, BATCH, kv::cache_bytes(kv, 1, positions))
}

impl Task<'_> {
    /// The best plan.
    ///
    /// # Errors
    /// Where none fits the memory.
    ///
    /// # Panics
    /// Without a machine.
    pub fn choose(&self) -> Result<Choice, NoPlan> {
        let (mut rows, mut layers) = (Fastest::default(), Fastest::default());
        let (alone, equal) = (self.alone(), self.equal());
        let plain: Vec<_> = alone.iter().chain(&equal).cloned().chain(self.single_workers()).collect();
        let limit_s = plain.iter().map(|plan| plan.seconds).fold(f64::INFINITY, f64::min);
        let mut consider = |proposal: Proposal| match (proposal.nodes.len(), proposal.stages.len()) {
            (1, _) => {}
            (_, 1) => rows.consider(proposal),
            _ => layers.consider(proposal),
        };
        plain.into_iter().for_each(&mut consider);
        ways::each(self, |way| self.propose(&way).into_iter().for_each(&mut consider));
        let of_kind = |plans: &Fastest| plans.best(f64::INFINITY).cloned();
        let (best_rows, best_layers) = (of_kind(&rows), of_kind(&layers));
        let mut all = rows;
        layers.0.into_values().chain(alone.clone()).for_each(|plan| all.consider(plan));
        let best = all.best(limit_s).cloned().ok_or_else(|| self.no_plan())?;
        Ok(Choice { best, rows: best_rows, layers: best_layers, alone, equal })
    }

    /// What `stages` and `shares` over these machines would take.
    pub fn predict(&self, nodes: Vec<usize>, stages: Vec<Stage>, shares: Vec<Share>) -> Proposal {
        let machines: Vec<_> = nodes.iter().map(|node| self.machines[*node]).collect();
        let mut costs = vec![NodeCost::default(); machines.len()];
        let division = Division::Stages { stages: &stages, shares: &shares };
        let seconds = cost::predict(self.shape, self.software, &machines, division, &mut costs);
        Proposal { nodes, stages, shares, seconds, costs }
    }

    /// What equal parts by columns would take, or everything by way of the root, as Distributed-Llama did at first.
    ///
    /// # Errors
    /// Where this model does not fall into so many.
    pub fn predict_dllama(&self, is_star: bool) -> Result<Proposal, PlanError> {
        let (header, count) = (self.shape.header(), self.machines.len());
        let cut = Cut::dllama(header, u32::try_from(count).unwrap_or(u32::MAX));
        cut.check(header)?;
        let CutWay::Columns { exchange, .. } = cut.way else { unreachable!("the cut of that dialect is by columns") };
        let division = if is_star { Division::Star { exchange } } else { Division::Columns { exchange } };
        let mut costs = vec![NodeCost::default(); count];
        let seconds = cost::predict(self.shape, self.software, self.machines, division, &mut costs);
        let stages = vec![Stage { nodes: count as u16, layers: self.n_layers() }];
        Ok(Proposal { nodes: (0..count).collect(), stages, shares: vec![Share::EQUAL; count], seconds, costs })
    }

    /// Nodes that a plan can have.
    fn most_nodes(&self) -> usize {
        self.machines.len().min(MAX_NODES as usize)
    }

    fn one_stage(&self, nodes: Vec<usize>, shares: Vec<Share>) -> Proposal {
        let stage = Stage { nodes: nodes.len() as u16, layers: self.n_layers() };
        self.predict(nodes, vec![stage], shares)
    }

    fn n_layers(&self) -> u16 {
        self.shape.header().n_layers as u16
    }

    fn alone(&self) -> Option<Proposal> {
        Some(self.one_stage(vec![0], vec![Share::EQUAL])).filter(|alone| alone.seconds.is_finite())
    }

    fn equal(&self) -> Option<Proposal> {
        let nodes = self.most_nodes();
        let equal = self.one_stage((0..nodes).collect(), vec![Share::EQUAL; nodes]);
        Some(equal).filter(|equal| equal.seconds.is_finite())
    }

    /// Everything on one worker, while the root only samples.
    fn single_workers(&self) -> impl Iterator<Item = Proposal> {
        let shares = vec![Share::default(), Share::EQUAL];
        (1..self.machines.len()).map(move |worker| self.one_stage(vec![0, worker], shares.clone()))
    }

    /// The best division of work for a choice of nodes and stages.
    fn propose(&self, way: &Way) -> Option<Proposal> {
        // Parts are whole heads and blocks, so that a plan that fills memory to the last byte may miss it.
        [1.0, 0.97, 0.93].into_iter().find_map(|room| {
            let proposals = shares::variants(self, way, room)
                .into_iter()
                .map(|(stages, shares)| self.predict(way.nodes.clone(), stages, shares));
            proposals.filter(|proposal| proposal.seconds.is_finite()).min_by(|a, b| a.seconds.total_cmp(&b.seconds))
        })
    }

    fn no_plan(&self) -> NoPlan {
        let (weights, rest) = self.shape.wanted(self.n_layers().into(), 1.0);
        NoPlan {
            wanted_bytes: weights.saturating_add(rest).saturating_add(self.shape.head_bytes()),
            memory_bytes: self.machines.iter().fold(0, |sum, machine| machine.memory_bytes.saturating_add(sum)),
        }
    }
}
