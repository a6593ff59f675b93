//! `dair nodes`: who the workers are, and what they have.

use super::Failure;
use super::model_args::WorkerArg;
use crate::machine::terminal;
use crate::net::native::{self, Called};
use crate::net::{Address, NetError, Timeouts, printable};
use serde_json::{Value, json};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dair nodes --workers 10.0.0.2:9990 10.0.0.3:9990
  dair nodes --workers pi-1.local,pi-2.local --json";

/// Ask workers what they have: threads, speed, memory, models.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Workers, with blanks or commas between them [default port: 9990]
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_delimiter = ',', required = true)]
    workers: Vec<WorkerArg>,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user where a worker can't be asked; the others are listed all the same.
pub fn run(args: &Args) -> Result<(), Failure> {
    let addresses: Vec<Address> = args.workers.iter().map(|worker| worker.address.clone()).collect();
    let timeouts = Timeouts::of(Duration::from_secs(args.timeout_s));
    let answers = native::call_each(&addresses, &timeouts, |_| ()).map_err(|error| error.to_string())?;
    let missing = answers.iter().filter(|answer| !matches!(answer, Ok(Some(_)))).count();
    let nodes = addresses.iter().zip(&answers);
    if args.json {
        let nodes: Vec<_> = nodes.map(|(address, answer)| to_json(address, answer)).collect();
        terminal::print_line(json!({ "nodes": nodes }))?;
    } else {
        for (address, answer) in nodes {
            terminal::print_line(to_text(address, answer))?;
        }
    }
    if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} workers can't be asked", answers.len()).into()) }
}

type Answer = Result<Option<Called>, NetError>;

fn fingerprint(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_text(address: &Address, answer: &Answer) -> String {
    let have = match answer {
        Ok(Some(called)) => &called.have,
        Ok(None) => {
            return format!("{address}: no answer: not there, C++ Distributed-Llama, or UDP is filtered on the way");
        }
        Err(error) => return error.to_string(),
    };
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let speed = if have.speed == 0 { "speed unknown".into() } else { format!("{:.1} GB/s", gb(have.speed)) };
    let mut text = format!("{address}: {} threads, {speed}, {:.1} GB of memory", have.threads, gb(have.memory));
    if have.models.is_empty() {
        text += "; no model file: takes weights";
    }
    for model in &have.models {
        let (name, print) = (printable(&model.name), fingerprint(&model.fingerprint[..8]));
        text += &format!("\n  {name}, {:.2} GB, fingerprint {print}", gb(model.bytes));
    }
    text
}

fn to_json(address: &Address, answer: &Answer) -> Value {
    let address = address.to_string();
    match answer {
        Ok(Some(Called { have, .. })) => {
            let model = |model: &dair_core::wire::native::HasModel| json!({ "name": model.name.as_str(), "bytes": model.bytes, "fingerprint": fingerprint(&model.fingerprint) });
            let models: Vec<_> = have.models.iter().map(model).collect();
            json!({
                "address": address, "dialect": "native", "version": have.version, "threads": have.threads,
                "bytes_per_second": have.speed, "memory_bytes": have.memory, "models": models,
            })
        }
        Ok(None) => json!({ "address": address, "error": "no answer" }),
        Err(error) => json!({ "address": address, "error": error.to_string() }),
    }
}
