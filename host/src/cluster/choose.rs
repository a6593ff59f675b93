//! Which of the workers that were called compute what: as the user says, else as the planner finds best.

use crate::cluster::error::RootError;
use crate::cluster::kv;
use crate::cluster::measured::{self, Before};
use crate::cluster::options::Options;
use crate::cluster::planner::facts::{self, Facts};
use crate::cluster::planner::{self, Choice, Proposal, Task};
use crate::machine::memory;
use crate::machine::pool::Threads;
use crate::model::Model;
use crate::net::native::Called;
use dair_core::format::Header;
use dair_core::plan::cost::{Machine, Shape, Software};
use dair_core::plan::{Cut, Share, Stage, activations_of};
use dair_core::quant::DType;

/// In which way a model is to be cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// As the planner predicts the fastest tokens; workers that would not help have nothing to do.
    #[default]
    Best,
    /// By rows, over two nodes and more.
    Rows,
    /// By layers, in two stages and more.
    Layers,
    /// By columns, in equal parts over all nodes: results depend on their number.
    Columns,
    /// A share for each node, the root's first, and which of them compute which layers; no stage where all compute all.
    Given(Vec<Share>, Vec<Stage>),
}

/// Who computes what.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Places of the workers in the list of those that were called, in the order of nodes; others have nothing to do.
    pub workers: Vec<usize>,
    /// A share for each node, the root's first.
    pub shares: Vec<Share>,
    /// Which of them compute which layers; none where all compute all.
    pub stages: Vec<Stage>,
    /// By columns: the type of the partial sums.
    pub columns: Option<DType>,
    /// What the planner knew and predicts, if it was asked.
    pub planned: Option<Planned>,
}

/// A plan, and what it follows from.
#[derive(Clone, Debug)]
pub struct Planned {
    shape: Shape,
    /// The root, then the workers that were called.
    machines: Vec<Machine>,
    /// What was chosen.
    pub proposal: Proposal,
}

/// A node that computes a token so many times faster or slower than planned calls for another plan, if that is better by as much.
const OFF: f64 = 1.25;

impl Planned {
    /// The speeds of machines beside those that were planned with, as `actual` seconds of computing a token show them, by node; where
    /// there is a plan that is clearly faster then. Nothing where too little is known.
    pub fn off(&self, actual: &[Option<f64>]) -> Option<Vec<f64>> {
        let mut paces = vec![1.0; self.machines.len()];
        for ((machine, cost), actual) in self.proposal.nodes.iter().zip(&self.proposal.costs).zip(actual) {
            let planned = cost.compute_s + cost.disk_s;
            if planned > 0.0 {
                paces[*machine] = planned / (*actual)?;
            }
        }
        let [least, most] = [f64::min, f64::max].map(|pick| paces.iter().copied().reduce(pick).unwrap_or(1.0));
        if most < OFF * least {
            return None;
        }
        let mut machines = self.machines.clone();
        machines.iter_mut().zip(&paces).for_each(|(machine, pace)| machine.bytes_per_s *= pace);
        let task = Task { shape: &self.shape, software: &Software::DAIR, machines: &machines };
        let Proposal { nodes, stages, shares, .. } = self.proposal.clone();
        let now = task.predict(nodes, stages, shares).seconds;
        let best = task.choose().ok()?.best.seconds;
        (best * OFF < now).then_some(paces)
    }
}

impl Decision {
    /// Everything on the root.
    pub fn alone() -> Self {
        Self::of_all(0, vec![Share::EQUAL], Vec::new())
    }

    /// The same for everybody.
    fn of_all(workers: usize, shares: Vec<Share>, stages: Vec<Stage>) -> Self {
        Self { workers: (0..workers).collect(), shares, stages, columns: None, planned: None }
    }

    /// The cut of a model with this header.
    pub fn cut(&self, header: &Header) -> Cut<'_> {
        match self.columns {
            None => Cut::stages(header, &self.shares, &self.stages),
            Some(exchange) => Cut::columns(header, self.shares.len() as u32, exchange),
        }
    }
}

/// How fast nodes turned out to be, beside what was predicted: 1 where nothing is known. The root's first.
pub type Paces = [f64];

/// Decides for a root that has called these workers, and wishes to cut the model in some way.
///
/// # Errors
/// Shares that are not one for each node, and a model that fits no plan.
pub fn decide(
    (model, options, pool): (&Model, &Options, &Threads),
    wish: &Wish,
    called: &[Called],
    paces: &Paces,
) -> Result<Decision, RootError> {
    let nodes = called.len() + 1;
    let equal = || Decision::of_all(called.len(), vec![Share::EQUAL; nodes], Vec::new());
    match wish {
        Wish::Given(shares, _) if shares.len() != nodes => Err(RootError::Shares { shares: shares.len(), nodes }),
        Wish::Given(shares, stages) => Ok(Decision::of_all(called.len(), shares.clone(), stages.clone())),
        Wish::Columns => {
            let exchange = Cut::columns_exchange(model.header());
            Ok(Decision { columns: Some(exchange), ..equal() })
        }
        _ if called.is_empty() => Ok(equal()),
        wish => {
            let workers: Vec<_> = called.iter().map(Facts::of).collect();
            plan((model, options, pool), &workers, paces, wish).map(decision)
        }
    }
}

/// Seconds that a token takes by the best plan for these workers; nothing where the planner is not asked.
pub fn seconds(of: (&Model, &Options, &Threads), wish: &Wish, workers: &[Facts], paces: &Paces) -> Option<f64> {
    match wish {
        Wish::Given(..) | Wish::Columns => None,
        wish => plan(of, workers, paces, wish).ok().map(|planned| planned.proposal.seconds),
    }
}

/// The plan that the planner finds.
fn plan(
    (model, options, pool): (&Model, &Options, &Threads),
    workers: &[Facts],
    paces: &Paces,
    wish: &Wish,
) -> Result<Planned, RootError> {
    let header = model.header();
    let system = |what: &str, error| RootError::System(what.into(), error);
    let root = Facts {
        bytes_per_s: measured::speed(pool, options.kernels, Before::Counts)
            .map_err(|error| system("memory to measure its speed", error))?,
        memory_bytes: memory::session_bytes(options.memory),
        disk_bytes_per_s: measured::disk_bytes_per_s(&model.path, Before::Counts)
            .map_err(|error| system("a look at the model file", error))?,
        ..Facts::default()
    };
    let mut machines = facts::machines(&root, workers);
    for (machine, pace) in machines.iter_mut().zip(paces) {
        machine.bytes_per_s *= pace;
    }
    let layout = kv::layout(options.kv, header).map_err(RootError::Kv)?;
    let activation = options.activations.unwrap_or(activations_of(header.weights)[0]);
    let shape = planner::shape(&model.layout, activation, &layout, options.seq_len(header));
    let task = Task { shape: &shape, software: &Software::DAIR, machines: &machines };
    let proposal = pick(wish, task.choose().map_err(RootError::NoPlan)?)?;
    Ok(Planned { shape, machines, proposal })
}

/// The one that is wished for. Where no plan of its kind fits, the best.
fn pick(wish: &Wish, choice: Choice) -> Result<Proposal, RootError> {
    let Choice { best, rows, layers, .. } = choice;
    match wish {
        Wish::Rows => rows.ok_or(RootError::NoSuchPlan("rows")),
        Wish::Layers => layers.ok_or(RootError::NoSuchPlan("layers")),
        _ => Ok(best),
    }
}

fn decision(planned: Planned) -> Decision {
    let Proposal { nodes, shares, stages, .. } = &planned.proposal;
    let stages = if stages.len() > 1 { stages.clone() } else { Vec::new() };
    let workers = nodes[1..].iter().map(|node| node - 1).collect();
    Decision { workers, shares: shares.clone(), stages, columns: None, planned: Some(planned) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;
    use crate::synthetic::preset;
    use dair_core::format::Layout;
    use dair_core::kernels::KvLayout;
    use dair_core::kernels::KvType;

    fn planned() -> Planned {
        let layout = Layout::new(&preset("llama3.2-1b").unwrap()).unwrap();
        let kv = KvLayout::new(KvType::F16, 64).unwrap();
        let shape = planner::shape(&layout, DType::Q80, &kv, 4096);
        let fact = Facts { bytes_per_s: 1e10, memory_bytes: 64 << 30, round_trip_s: Some(1e-4), ..Facts::default() };
        let machines = facts::machines(&fact, &[fact, fact]);
        let task = Task { shape: &shape, software: &Software::DAIR, machines: &machines };
        let proposal = task.choose().unwrap().best;
        assert_eq!(proposal.nodes.len(), 3, "{}", memory::usable_bytes());
        Planned { shape, machines, proposal }
    }

    fn as_planned(planned: &Planned) -> Vec<f64> {
        planned.proposal.costs.iter().map(|cost| cost.compute_s + cost.disk_s).collect()
    }

    #[test]
    fn a_node_that_is_much_slower_than_planned_calls_for_another_plan() {
        let planned = planned();
        let mut actual = as_planned(&planned);
        actual[1] *= 3.0;
        let paces = planned.off(&actual.into_iter().map(Some).collect::<Vec<_>>()).unwrap();
        let slow = planned.proposal.nodes[1];
        assert!((paces[slow] - 1.0 / 3.0).abs() < 1e-9 && paces.iter().filter(|pace| **pace == 1.0).count() == 2);
    }

    #[test]
    fn nodes_that_are_all_as_slow_or_little_known_do_not() {
        let planned = planned();
        let actual = as_planned(&planned);
        let all = |factor: f64| actual.iter().map(|time| Some(time * factor)).collect::<Vec<_>>();
        assert_eq!(planned.off(&all(1.0)), None);
        assert_eq!(planned.off(&all(2.0)), None);
        let mut unknown = all(1.0);
        unknown[0] = unknown[0].map(|time| 5.0 * time);
        unknown[2] = None;
        assert_eq!(planned.off(&unknown), None);
    }
}
