//! Which of the workers that were called compute what: as the user says, else as the planner finds best.

use crate::cluster::kv;
use crate::cluster::measured::{self, Before};
use crate::cluster::planner::facts::{self, Facts};
use crate::cluster::planner::{self, Choice, Proposal, Task};
use crate::cluster::root::{Options, RootError};
use crate::machine::memory;
use crate::machine::pool::Threads;
use crate::model::Model;
use crate::net::native::Called;
use dair_core::format::Header;
use dair_core::kernels::KvType;
use dair_core::plan::cost::Software;
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Places of the workers in the list of those that were called, in the order of nodes; others have nothing to do.
    pub workers: Vec<usize>,
    /// A share for each node, the root's first.
    pub shares: Vec<Share>,
    /// Which of them compute which layers; none where all compute all.
    pub stages: Vec<Stage>,
    /// By columns: the type of the partial sums.
    pub columns: Option<DType>,
    /// What the planner predicts, if it was asked.
    pub proposal: Option<Proposal>,
}

impl Decision {
    /// Everything on the root.
    pub fn alone() -> Self {
        Self::of_all(0, vec![Share::EQUAL], Vec::new())
    }

    /// The same for everybody.
    fn of_all(workers: usize, shares: Vec<Share>, stages: Vec<Stage>) -> Self {
        Self { workers: (0..workers).collect(), shares, stages, columns: None, proposal: None }
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

/// Decides for a root that has called these workers.
///
/// # Errors
/// Shares that are not one for each node, and a model that fits no plan.
pub fn decide(
    (model, options, pool): (&Model, &Options, &Threads),
    called: &[Called],
    paces: &Paces,
) -> Result<Decision, RootError> {
    let nodes = called.len() + 1;
    let equal = || Decision::of_all(called.len(), vec![Share::EQUAL; nodes], Vec::new());
    match &options.wish {
        Wish::Given(shares, _) if shares.len() != nodes => Err(RootError::Shares { shares: shares.len(), nodes }),
        Wish::Given(shares, stages) => Ok(Decision::of_all(called.len(), shares.clone(), stages.clone())),
        Wish::Columns => {
            let exchange = Cut::columns_exchange(model.header());
            Ok(Decision { columns: Some(exchange), ..equal() })
        }
        _ if called.is_empty() => Ok(equal()),
        wish => propose((model, options, pool), called, paces).and_then(|choice| pick(wish, choice)).map(decision),
    }
}

/// The plans that the planner finds.
fn propose(
    (model, options, pool): (&Model, &Options, &Threads),
    called: &[Called],
    paces: &Paces,
) -> Result<Choice, RootError> {
    let header = model.header();
    let system = |what: &str, error| RootError::System(what.into(), error);
    let root = Facts {
        bytes_per_s: measured::speed(pool, options.kernels, Before::Counts)
            .map_err(|error| system("memory to measure its speed", error))?,
        memory_bytes: memory::usable_bytes(),
        disk_bytes_per_s: measured::disk_bytes_per_s(&model.path, Before::Counts)
            .map_err(|error| system("a look at the model file", error))?,
        ..Facts::default()
    };
    let workers: Vec<_> = called.iter().map(Facts::of).collect();
    let mut machines = facts::machines(&root, &workers);
    for (machine, pace) in machines.iter_mut().zip(paces) {
        machine.bytes_per_s *= pace;
    }
    let layout = kv::layout(KvType::from(options.kv), header).map_err(RootError::Kv)?;
    let activation = options.activations.unwrap_or(activations_of(header.weights)[0]);
    let shape = planner::shape(&model.layout, activation, &layout, options.seq_len(header));
    let task = Task { shape: &shape, software: &Software::DAIR, machines: &machines };
    task.choose().map_err(RootError::NoPlan)
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

fn decision(proposal: Proposal) -> Decision {
    let Proposal { nodes, shares, stages, .. } = &proposal;
    let stages = if stages.len() > 1 { stages.clone() } else { Vec::new() };
    let workers = nodes[1..].iter().map(|node| node - 1).collect();
    Decision { workers, shares: shares.clone(), stages, columns: None, proposal: Some(proposal) }
}
