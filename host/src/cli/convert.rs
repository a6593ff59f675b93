//! `dair convert`: arguments, progress bar, summary.

use super::{Failure, interrupt, progress};
use crate::machine::terminal;
use crate::model::convert::{Options, Progress, Summary, convert};
use clap::ValueEnum;
use dair_core::quant::DType;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dair convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2.m     makes smollm2.m and smollm2.t
  dair convert ./Llama-3.2-1B-Instruct llama.m --weights q40";

/// Convert a GGUF file or a Hugging Face folder to a .m model and a .t tokenizer.
///
/// Architectures: llama (Mistral, too), qwen3, qwen3moe. What a .m file can't express is refused by name. Norms, routers of
/// experts and the token embedding are always stored as f32.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// GGUF file (any part of a split one), or folder with config.json, tokenizer.json and *.safetensors
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Model file to be made; written as OUT.part until it is complete
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Type of the matrices [default: q40 if all of them are Q4_0 in IN, else q80; f32 where sizes are no multiples of 32]
    ///
    /// Blocks that have the right type already (Q4_0 for q40, Q8_0 for q80) are copied bit for bit.
    #[arg(long, value_enum)]
    weights: Option<Weights>,
    /// Tokenizer file to be made [default: OUT with the extension .t]
    #[arg(long, value_name = "OUT.t")]
    tokenizer: Option<PathBuf>,
    /// Replace files that are there already; behind a link, the file that it leads to
    #[arg(long)]
    force: bool,
    /// Threads [default: one per processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object instead of text
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Weights {
    /// 32 bits per weight: exact, slow
    F32,
    /// 8.5 bits per weight: hardly any loss
    Q80,
    /// 4.5 bits per weight: smallest and fastest, some loss
    Q40,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let options = Options {
        input: args.input.clone(),
        model: args.output.clone(),
        tokenizer: args.tokenizer.clone(),
        weights: args.weights.map(|weights| match weights {
            Weights::F32 => DType::F32,
            Weights::Q80 => DType::Q80,
            Weights::Q40 => DType::Q40,
        }),
        force: args.force,
        lanes: args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
    };
    let bar = progress::bar(args.quiet || args.json);
    let mut is_first = true;
    let result = convert(&options, &mut |Progress { done_bytes, total_bytes }| {
        if std::mem::take(&mut is_first) {
            // Until here there is nothing to tidy up, and Ctrl-C ends everything at once.
            interrupt::catch();
        }
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
        if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let summary = result?;
    if args.json {
        terminal::print_line(to_json(&summary))?;
    } else if !args.quiet {
        terminal::print(to_text(&summary))?;
    }
    Ok(())
}

fn to_json(summary: &Summary) -> Value {
    json!({
        "model": summary.model,
        "tokenizer": summary.tokenizer,
        "architecture": summary.header.arch.name(),
        "weights": summary.header.weights.name(),
        "model_bytes": summary.model_bytes,
        "copied_bytes": summary.copied_bytes,
        "reordered_vocabulary": summary.is_reordered,
        "seconds": summary.elapsed.as_secs_f64(),
        "notes": summary.notes,
    })
}

fn to_text(summary: &Summary) -> String {
    let header = &summary.header;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let order = if summary.is_reordered { " (new token ids: regular ones first, then BOS)" } else { "" };
    let mut text = format!(
        "{}: {}, {} layers, dim {}, {} tokens, weights {}, {:.1} MB ({:.1} MB copied bit for bit) in {:.1} s\n{}{order}\n",
        summary.model.display(),
        header.arch.name(),
        header.n_layers,
        header.dim,
        header.vocab_size,
        header.weights,
        megabytes(summary.model_bytes),
        megabytes(summary.copied_bytes),
        summary.elapsed.as_secs_f64(),
        summary.tokenizer.display(),
    );
    text.extend(summary.notes.iter().map(|note| format!("note: {note}\n")));
    text
}
