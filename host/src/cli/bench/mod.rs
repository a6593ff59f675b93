//! `dair bench`: arguments, and the order of measuring.

mod json;
mod table;

use super::{Failure, KernelArgs, interrupt, progress};
use crate::bench::kernels::{self, Figures};
use crate::bench::machine::Machine;
use crate::bench::model::{self, ModelFigures, Shape};
use crate::bench::{BenchError, buffer, plot};
use crate::machine::cpu;
use crate::machine::pool::{MAX_LANES, Threads};
use crate::machine::terminal;
use crate::synthetic::{PRESETS, Preset};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dair_core::kernels::{Isa, Kernels};
use dair_core::quant::DType;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  dair bench
  dair bench --shape llama3.2-1b --weights q80 --threads 4
  dair bench --shape llama3-8b --layers 4                  the rate of all 32 layers is projected
  dair bench --shape none --all-isas --plot roofline.svg
  dair bench --json | jq .model.decode.tokens_per_second";

/// Part of the time that a model gets; the kernels get the rest.
const MODEL_SHARE: f64 = 0.4;

/// Measure this machine: memory, kernels, and a whole model of a published shape with random weights.
///
/// Kernels are products of a matrix with 1 token (decode), with 256 tokens (prefill), and with data that stays in the
/// caches. Half of all runs were faster than the speed that is shown, unless it says best.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shape of the model; none leaves it out
    #[arg(long, value_name = "NAME", default_value = "smollm2-135m", value_parser = shapes())]
    shape: ShapeName,
    /// Type of the model's matrices
    #[arg(long, value_enum, default_value_t = Weights::Q40)]
    weights: Weights,
    /// Measure the model with its first N layers and project the whole of it: for shapes larger than the memory
    #[arg(long, value_name = "N")]
    layers: Option<u32>,
    /// Folder for the model, which is removed when it is open [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Threads; kernels are measured with 1, too [default: one per core that may be used]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_LANES as i64))]
    threads: Option<u16>,
    /// Time for measuring in seconds; making the model comes on top, and everything is measured once at least
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    #[command(flatten)]
    kernels: KernelArgs,
    /// Measure the kernels of every instruction set of this processor
    #[arg(long, conflicts_with = "isa")]
    all_isas: bool,
    /// Draw the kernels under the roofs of memory and processor, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--shape` takes.
#[derive(Clone, Copy, Debug)]
enum ShapeName {
    None,
    Known(Preset),
}

/// All shapes, and none.
fn shapes() -> impl TypedValueParser<Value = ShapeName> {
    let names = PRESETS.into_iter().map(|preset| preset.name).chain(["none"]);
    PossibleValuesParser::new(names).map(|name| {
        let known = PRESETS.into_iter().find(|preset| preset.name == name);
        known.map_or(ShapeName::None, ShapeName::Known)
    })
}

/// What `--weights` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Weights {
    /// 4.5 bits per weight
    Q40,
    /// 8.5 bits per weight
    Q80,
    /// 16 bits per weight
    F16,
    /// 32 bits per weight
    F32,
}

impl Weights {
    const fn dtype(self) -> DType {
        match self {
            Self::Q40 => DType::Q40,
            Self::Q80 => DType::Q80,
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }
}

/// Everything that was found.
struct Report {
    machine: Machine,
    /// The instruction set that is used.
    isa: Isa,
    /// Whether prompts are computed in BF16 where that is faster.
    relaxed: bool,
    figures: Figures,
    model: Option<ModelFigures>,
    elapsed: Duration,
}

impl Report {
    /// How much of the bandwidth the weights of a model's tokens take, in percent.
    fn percent_of_bandwidth(&self, model: &ModelFigures) -> f64 {
        100.0 * model.decode_gb_per_s() / self.figures.bandwidth(model.threads).median
    }
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let kernels = args.kernels.kernels()?;
    let relaxed = args.kernels.is_relaxed();
    // Instruction sets without relaxed kernels are measured as they are.
    let of = |kernels: Kernels| if relaxed { cpu::relaxed(kernels).unwrap_or(kernels) } else { kernels };
    let measured: Vec<Kernels> =
        if args.all_isas { cpu::isas().filter_map(cpu::kernels).map(of).collect() } else { vec![kernels] };
    if let Some(path) = &args.plot {
        check_folder_of(path)?;
    }
    let machine = Machine::detect();
    let threads = args.threads.map_or_else(cpu::threads, usize::from);
    let budget = Duration::from_secs(args.seconds.into());
    if let Some(note) = cpu::too_many(threads).filter(|_| !args.json) {
        terminal::note(note);
    }

    // The model comes first, so that the peak of memory is its own.
    let shape = shape(args)?;
    let model_budget = if shape.is_some() { budget.mul_f64(MODEL_SHARE) } else { Duration::ZERO };
    let model = shape.map(|shape| measure_model(args, &shape, (threads, kernels), model_budget)).transpose()?;

    let spinner = progress::spinner(args.json, "measuring memory and kernels");
    let pool = Threads::new(threads).map_err(|error| format!("cannot start {threads} threads: {error}"))?;
    let buffer_bytes = buffer::wanted_bytes(machine.last_level_bytes(), machine.spare_bytes());
    let figures = kernels::measure(&measured, &pool, buffer_bytes, budget - model_budget)?;
    spinner.finish_and_clear();

    if let Some(path) = &args.plot {
        let prefill = if relaxed { ", prefill relaxed" } else { "" };
        let svg = plot::svg(&format!("{}{prefill}", machine.name), &figures)?;
        std::fs::write(path, svg).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let report = Report { machine, isa: kernels.isa(), relaxed, figures, model, elapsed: start.elapsed() };
    let printed = if args.json { terminal::print_line(json::of(&report)) } else { terminal::print(table::of(&report)) };
    Ok(printed?)
}

/// The model to be measured, if there is to be one.
fn shape(args: &Args) -> Result<Option<Shape>, String> {
    match args.shape {
        ShapeName::None if args.layers.is_some() => Err("--layers: there is no --shape to take them from".into()),
        ShapeName::None => Ok(None),
        ShapeName::Known(Preset { name, header }) => {
            let header = dair_core::format::Header { weights: args.weights.dtype(), ..header };
            Ok(Some(Shape { name, header, layers: args.layers }))
        }
    }
}

fn measure_model(
    args: &Args,
    shape: &Shape,
    lanes: (usize, Kernels),
    budget: Duration,
) -> Result<ModelFigures, BenchError> {
    let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let bar = progress::bar(args.json);
    interrupt::catch();
    let result = model::measure(shape, &folder, lanes, budget, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if interrupt::is_set() {
            return ControlFlow::Break(());
        }
        if done == total {
            interrupt::release();
            bar.finish_and_clear();
        }
        ControlFlow::Continue(())
    });
    interrupt::release();
    bar.finish_and_clear();
    result
}

/// Demands that a file can be made, before time is spent on what goes into it.
fn check_folder_of(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || path.file_name().is_none() {
        return Err(format!("--plot {}: a folder; name a file", path.display()));
    }
    if !folder.is_dir() {
        return Err(format!("--plot {}: there is no folder {}", path.display(), folder.display()));
    }
    Ok(())
}
