//! The commands of the `dair` binary, one file each: arguments, what is printed, exit codes.

mod api_key;
mod args;
mod bench;
mod chat;
mod completions;
mod convert;
mod cut_args;
mod disk_args;
mod failure;
mod generate;
mod inspect;
pub mod interrupt;
mod kernel_args;
mod key;
mod key_args;
mod list;
mod man;
mod memory_args;
mod model_args;
mod model_files;
mod node;
mod nodes;
mod perplexity;
mod piped;
mod plan;
mod progress;
mod pull;
mod render;
mod report;
mod rm;
mod sample_args;
mod serve;
mod setup;
mod speculate_args;
mod stream;
mod streaming;
mod table;
mod template_args;
mod text_args;
mod tokenize;
mod top;
mod verify;
pub mod worker;
mod worker_args;
pub mod worker_log;

pub use args::parse;
use clap::{Parser, Subcommand};
pub use disk_args::DiskArgs;
pub use failure::Failure;
pub use kernel_args::KernelArgs;
pub use key_args::KeyArgs;
pub use memory_args::MemoryArgs;
pub use model_files::pulled;
use std::ffi::OsString;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  dair pull smollm2_135m_instruct
  dair chat --model smollm2_135m_instruct
  dair convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2.m
  dair generate --model smollm2.m --chat --prompt 'What is the capital of France?'
  dair serve --model smollm2.m
  dair inspect --model smollm2.m --nodes 3";

/// Large language models on the machines you already have.
#[derive(Debug, Parser)]
#[command(name = "dair", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    Pull(pull::Args),
    List(list::Args),
    Rm(rm::Args),
    Convert(convert::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Serve(serve::Args),
    Top(top::Args),
    Perplexity(perplexity::Args),
    Render(render::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Key(key::Args),
    ApiKey(api_key::Args),
    Nodes(nodes::Args),
    Node(node::Args),
    Plan(plan::Args),
    Verify(verify::Args),
    Tokenize(tokenize::TokenizeArgs),
    Detokenize(tokenize::DetokenizeArgs),
    Completions(completions::Args),
    Man(man::Args),
}

/// Checks a command line and does nothing else.
///
/// # Errors
/// What [`run`] prints of one that is wrong, and of one that asks for help.
pub fn check(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<(), String> {
    Cli::try_parse_from(words).map(drop).map_err(|error| error.to_string())
}

/// Runs the command line. Exit codes: 0 done, or nobody reads on; 1 failed, 2 wrong usage, 130 interrupted.
pub fn run() -> ExitCode {
    interrupt::install();
    let command = match parse::<Cli>() {
        Ok(Cli { command }) => command,
        Err(code) => return code,
    };
    let result = match command {
        Command::Setup(args) => setup::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::List(args) => list::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Key(args) => key::run(&args),
        Command::ApiKey(args) => api_key::run(&args),
        Command::Nodes(args) => nodes::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::Detokenize(args) => tokenize::detokenize(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
