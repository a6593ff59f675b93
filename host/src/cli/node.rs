//! `dair node`: what is to become of a worker.

use super::{Failure, KeyArgs};
use crate::machine::terminal;
use crate::net::{Address, Timeouts, native};
use clap::Subcommand;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dair node drain pi-2.local
  dair node drain 10.0.0.2:9990 10.0.0.3:9990";

/// Tell a worker what to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Drain(Drain),
}

/// Let workers finish what they compute, and end. Their roots go on without them; nobody loses a token.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Drain {
    /// Workers [default port: 9990]
    #[arg(value_name = "HOST:PORT", required = true)]
    workers: Vec<Address>,
    #[command(flatten)]
    key: KeyArgs,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
}

/// Runs the command.
///
/// # Errors
/// One line for the user where a worker can't be told; the others are told all the same.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Command::Drain(args) = &args.command;
    let timeouts = Timeouts::of(Duration::from_secs(args.timeout_s));
    let keys = args.key.find()?.map(|found| found.keys).unwrap_or_default();
    let answers = native::call_each(&args.workers, (&timeouts, &keys), |_| ()).map_err(|error| error.to_string())?;
    let mut untold = Vec::new();
    for (address, answer) in args.workers.iter().zip(answers) {
        let told = match answer {
            Ok(Some(mut worker)) => worker.drain().map_err(|error| error.to_string()),
            Ok(None) => Err(format!("worker {address} does not answer; is it there, and its UDP port open?")),
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok(()) => terminal::print_line(format_args!("worker {address} finishes what it does, and ends"))?,
            Err(reason) => untold.push(reason),
        }
    }
    if untold.is_empty() { Ok(()) } else { Err(untold.join("; ").into()) }
}
