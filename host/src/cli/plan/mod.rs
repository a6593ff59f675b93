//! `dair plan`: which node of a cluster computes what, what a token would take, and why this cut.

mod print;

use super::Failure;
use super::kernel_args::KernelArgs;
use super::model_files::ModelFiles;
use super::worker_args::{WorkerArgs, Workers};
use crate::cluster::kv::{self, Kv};
use crate::cluster::measured::{self, Before};
use crate::cluster::planner::facts::{self, Facts};
use crate::cluster::planner::file::SavedPlan;
use crate::cluster::planner::published::{Board, DLLAMA_0_1, DLLAMA_0_16, FIGURES, Figure};
use crate::cluster::planner::simulation::{Simulation, System};
use crate::cluster::planner::{self, Choice, Proposal, Task};
use crate::cluster::workers;
use crate::machine::pool::{MAX_LANES, Threads};
use crate::machine::{cpu, memory, terminal};
use crate::model::{Model, identity};
use crate::net::native::{self, Called};
use crate::net::{Address, NetError, Timeouts};
use crate::synthetic;
use dair_core::format::Layout;
use dair_core::kernels::KvType;
use dair_core::plan::cost::{Machine, Shape, Software};
use dair_core::plan::{Share, Stage, activations_of};
use dair_core::wire::native::HasModel;
use print::{Cut, View};
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dair plan --model smollm2.m --workers 10.0.0.2:9990 10.0.0.3:9990
  dair plan --model smollm2.m --workers pi-1.local,pi-2.local --save plan.json
  dair plan --simulate cluster.json --cut layers --json
A cluster for --simulate, the root first (boards whose figures were published: pi4, pi5; systems: dair, dllama-0.16, dllama-0.1):
  { \"model\": \"llama3.1-405b\", \"positions\": 8192, \"system\": \"dair\", \"nodes\": [
    { \"speed_gb_per_s\": 60, \"memory_gb\": 128, \"disk_gb_per_s\": 3, \"round_trip_ms\": 0.1, \"mbit_per_s\": 10000 },
    { \"count\": 40, \"board\": \"pi5\" } ] }";

/// Predict which cut of a model between nodes gives the fastest tokens, and what each node would do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Model: a .m file, or the name of one that dair pull got; a GGUF file or a Hugging Face folder is converted, once, into the cache
    #[arg(short, long, value_name = "FILE", required_unless_present = "simulate")]
    model: Option<PathBuf>,
    #[command(flatten)]
    workers: WorkerArgs,
    /// Describes a cluster that need not be there, and a model
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "workers", "nodes_file", "discover", "cluster"])]
    simulate: Option<PathBuf>,
    /// Way of cutting: the best plan of this kind, or for columns equal parts as C++ Distributed-Llama has them [default: whatever is best]
    #[arg(long, value_enum, value_name = "WAY")]
    cut: Option<CutArg>,
    /// What these sizes of parts by rows would take, this machine's first, such as 2,1,1
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',', conflicts_with = "cut")]
    shares: Vec<u16>,
    /// What a saved plan would take; its workers are called
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workers", "nodes_file", "discover", "cluster", "simulate", "cut", "shares"])]
    plan: Option<PathBuf>,
    /// Keep the plan
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    save: Option<PathBuf>,
    /// Most memory of this machine's process, such as 2GiB or 50% [default: nine tenths of what is free]
    #[arg(long, value_name = "BYTES")]
    memory: Option<memory::Budget>,
    /// Shortens the context, and with it the memory for the KV cache
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_seq_len: Option<u32>,
    /// Type in which keys and values would be kept
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    kv: Kv,
    /// Threads on this machine [default: as for `dair generate`]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_LANES as i64))]
    threads: Option<u16>,
    #[command(flatten)]
    kernels: KernelArgs,
    /// Measure how fast this machine computes, even if that was done before
    #[arg(long)]
    measure_again: bool,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--cut` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CutArg {
    /// Every node a part of each matrix; results are those of one node
    Rows,
    /// Equal parts; results depend on the number of nodes
    Columns,
    /// Stages of layers one after the other; results are those of one node
    Layers,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.simulate {
        Some(path) => simulate(args, path),
        None => plan(args),
    }
}

/// A cluster that is there, or only described.
struct Cluster {
    machines: Vec<Machine>,
    names: Vec<String>,
}

fn simulate(args: &Args, path: &Path) -> Result<(), Failure> {
    let Simulation { model, positions, system, machines, names, boards } = Simulation::read(path)?;
    let layout = layout_of(&model)?;
    let positions = positions.into_iter().chain(args.max_seq_len).min();
    let shape = shape_of(args, &layout, positions)?;
    let (software, is_star) = match system {
        System::Dair => (Software::DAIR, false),
        System::Dllama016 => (DLLAMA_0_16, false),
        System::Dllama01 => (DLLAMA_0_1, true),
    };
    let task = Task { shape: &shape, software: &software, machines: &machines };
    let decision = if system == System::Dair { decide(args, &task)? } else { dllama(&task, is_star)? };
    let figures: Vec<_> = FIGURES.into_iter().filter(|figure| boards.contains(&figure.board)).collect();
    let is_far_off = |figure: &&Figure| (figure.predicted_ms() / figure.ms - 1.0).abs() > 0.1;
    if let Some(Figure { board, model, .. }) = figures.iter().find(is_far_off) {
        return Err(format!("the cost model does not meet the published figure of {model} on {}", board.name()).into());
    }
    let cluster = Cluster { machines, names };
    show(args, &View { model: &model, is_simulated: true, figures: &figures, cluster: &cluster, decision: &decision })
}

/// The tensors of a preset, or of a file.
fn layout_of(model: &str) -> Result<Layout, Failure> {
    match synthetic::preset(model) {
        Some(header) => Layout::new(&header).map_err(|error| format!("{model}: {error}").into()),
        None => match Model::open(Path::new(model)) {
            Ok(model) => Ok(model.layout),
            Err(error) => {
                let names: Vec<_> = synthetic::PRESETS.iter().map(|preset| preset.name).collect();
                Err(format!("{error}; a model is a .m file or one of {}", names.join(", ")).into())
            }
        },
    }
}

fn shape_of(args: &Args, layout: &Layout, positions: Option<u32>) -> Result<Shape, Failure> {
    let header = layout.header();
    let kv = kv::layout(KvType::from(args.kv), header).map_err(|error| error.to_string())?;
    let positions = positions.map_or(header.seq_len, |limit| limit.min(header.seq_len));
    Ok(planner::shape(layout, activations_of(header.weights)[0], &kv, positions))
}

fn plan(args: &Args) -> Result<(), Failure> {
    let path = args.model.as_deref().unwrap_or(Path::new(""));
    let files = ModelFiles::of(path, args.json)?;
    let model = Model::open(&files.model)?;
    let saved = args.plan.as_deref().map(|path| SavedPlan::read(path, model.header())).transpose();
    let saved = saved.map_err(|error| error.to_string())?;
    let workers = match &saved {
        Some(saved) => args.workers.these(saved.workers.clone())?,
        None => args.workers.workers_for((&model, None), &timeouts(args), args.json)?,
    };
    let cluster = live(args, &model, &workers)?;
    let shape = shape_of(args, &model.layout, args.max_seq_len)?;
    let task = Task { shape: &shape, software: &Software::DAIR, machines: &cluster.machines };
    let decision = match saved {
        Some(SavedPlan { shares, stages, .. }) => fixed(&task, stages, shares)?,
        None => decide(args, &task)?,
    };
    if let Some(path) = &args.save {
        if decision.cut == Cut::Columns {
            return Err(Failure::Usage("a plan by columns can't be saved: its parts are equal".into()));
        }
        SavedPlan::of(&decision.proposal, &workers.addresses).write(path).map_err(|error| error.to_string())?;
    }
    let name = model.path.display().to_string();
    show(args, &View { model: &name, is_simulated: false, figures: &[], cluster: &cluster, decision: &decision })
}

/// Asks the workers and this machine what they are capable of.
fn live(args: &Args, model: &Model, Workers { addresses: workers, keys, .. }: &Workers) -> Result<Cluster, Failure> {
    let before = if args.measure_again { Before::Forgotten } else { Before::Counts };
    let threads = args.threads.map_or_else(cpu::threads, usize::from);
    let pool = Threads::new(threads).map_err(|error| format!("cannot start {threads} threads: {error}"))?;
    let speed = measured::speed(&pool, args.kernels.kernels()?, before)
        .map_err(|error| format!("cannot measure the speed: {error}"))?;
    let disk = measured::disk_bytes_per_s(&model.path, before)
        .map_err(|error| format!("cannot read {}: {error}", model.path.display()))?;
    let root = Facts {
        bytes_per_s: speed,
        memory_bytes: memory::session_bytes(args.memory),
        disk_bytes_per_s: disk,
        ..Facts::default()
    };
    let mut others = Vec::with_capacity(workers.len());
    if !workers.is_empty() {
        let wanted = identity::identity(model, None)?;
        let answers = native::call(workers, (&timeouts(args), keys), |_| ()).map_err(|error| error.to_string())?;
        for (address, answer) in workers.iter().zip(answers) {
            let Some(called) = answer else {
                return Err(format!(
                    "worker {address}: no answer: not there, C++ Distributed-Llama, or UDP is filtered on the way"
                )
                .into());
            };
            others.push(facts_of(&called, &wanted).map_err(|error| error.to_string())?);
        }
    }
    let names = ["this machine".to_owned()].into_iter().chain(workers.iter().map(Address::to_string)).collect();
    Ok(Cluster { machines: facts::machines(&root, &others), names })
}

/// What a worker says of itself, if it has the model.
fn facts_of(called: &Called, wanted: &HasModel) -> Result<Facts, NetError> {
    workers::check_version(called)?;
    workers::check_model(called, wanted)?;
    Ok(Facts::of(called))
}

fn timeouts(args: &Args) -> Timeouts {
    Timeouts::of(Duration::from_secs(args.timeout_s))
}

/// What is shown: a plan, and what it was chosen from.
struct Decision {
    cut: Cut,
    proposal: Proposal,
    choice: Option<Choice>,
}

/// The best plan of all, or of those that were asked for.
fn decide(args: &Args, task: &Task<'_>) -> Result<Decision, Failure> {
    let nodes = task.machines.len();
    if !args.shares.is_empty() {
        if args.shares.len() != nodes {
            let shares = args.shares.len();
            return Err(Failure::Usage(format!(
                "{shares} shares given for {nodes} nodes; --shares takes one for each, the root's first"
            )));
        }
        let stage = Stage { nodes: nodes as u16, layers: task.shape.header().n_layers as u16 };
        let shares = args.shares.iter().map(|share| Share { layers: *share, head: *share }).collect();
        return fixed(task, vec![stage], shares);
    }
    if args.cut == Some(CutArg::Columns) {
        return dllama(task, false);
    }
    let choice = task.choose().map_err(|error| error.to_string())?;
    let proposal = match args.cut {
        Some(CutArg::Rows) => choice.rows.as_ref().or(choice.alone.as_ref()),
        Some(CutArg::Layers) => choice.layers.as_ref(),
        Some(CutArg::Columns) | None => Some(&choice.best),
    };
    let proposal =
        proposal.ok_or("no plan of this kind fits these nodes; see the best one without --cut".to_owned())?.clone();
    Ok(Decision { cut: Cut::of(&proposal), proposal, choice: Some(choice) })
}

/// A plan that was given for all nodes in their order.
fn fixed(task: &Task<'_>, stages: Vec<Stage>, shares: Vec<Share>) -> Result<Decision, Failure> {
    let nodes = task.machines.len();
    if nodes > dair_core::graph::MAX_NODES as usize {
        return Err(format!("{nodes} nodes; a plan has up to {}", dair_core::graph::MAX_NODES).into());
    }
    for (what, has) in
        [("layers", (|share| share.layers > 0) as fn(&Share) -> bool), ("the head", |share| share.head > 0)]
    {
        if !shares.iter().any(has) {
            return Err(format!("all shares of {what} are 0").into());
        }
    }
    let proposal = task.predict((0..nodes).collect(), stages, shares);
    Ok(Decision { cut: Cut::of(&proposal), proposal, choice: None })
}

fn dllama(task: &Task<'_>, is_star: bool) -> Result<Decision, Failure> {
    let proposal = task.predict_dllama(is_star)?;
    Ok(Decision { cut: if is_star { Cut::Star } else { Cut::Columns }, proposal, choice: None })
}

fn show(args: &Args, view: &View<'_>) -> Result<(), Failure> {
    let printed = if args.json { terminal::print_line(view.json()) } else { terminal::print(view.text()) };
    Ok(printed?)
}
