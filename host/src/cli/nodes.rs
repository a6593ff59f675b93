//! `dair nodes`: who the workers are, and what they have.

use super::worker_args::{WorkerArgs, Workers};
use super::{Failure, table};
use crate::machine::terminal;
use crate::net::native::{self, Called};
use crate::net::{Address, NetError, Timeouts, printable};
use dair_core::wire::native::{HasModel, Have, VERSION};
use serde_json::{Value, json};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dair nodes                                      those that announce themselves on this network
  dair nodes --workers 10.0.0.2:9990 10.0.0.3:9990
  dair nodes --nodes-file nodes.txt
  dair nodes --workers pi-1.local,pi-2.local --json";

/// Ask workers what they have: cores, speed, memory, models; without a list, those that announce themselves.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    workers: WorkerArgs,
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
    let timeouts = Timeouts::of(Duration::from_secs(args.timeout_s));
    let Workers { addresses, keys, .. } = args.workers.or_discovered().workers(args.json)?;
    let answers = native::call_each(&addresses, (&timeouts, &keys), |_| ()).map_err(|error| error.to_string())?;
    let missing = answers.iter().filter(|answer| !matches!(answer, Ok(Some(_)))).count();
    let nodes = addresses.iter().zip(&answers);
    if args.json {
        let nodes: Vec<_> = nodes.map(|(address, answer)| to_json(address, answer)).collect();
        terminal::print_line(json!({ "nodes": nodes }))?;
    } else {
        terminal::print(to_text(nodes))?;
    }
    if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} workers can't be asked", answers.len()).into()) }
}

type Answer = Result<Option<Called>, NetError>;

/// Why there is nothing to be told of a worker.
enum Silence<'a> {
    Unanswered,
    Version(u32),
    Failed(&'a NetError),
}

fn heard(answer: &Answer) -> Result<&Have, Silence<'_>> {
    match answer {
        Ok(Some(Called { have, .. })) if have.version == VERSION => Ok(have),
        Ok(Some(Called { have, .. })) => Err(Silence::Version(have.version)),
        Ok(None) => Err(Silence::Unanswered),
        Err(error) => Err(Silence::Failed(error)),
    }
}

/// What a worker is doing.
fn state(have: &Have) -> String {
    if have.busy.is_empty() { "free".into() } else { printable(&have.busy) }
}

fn to_text<'a>(nodes: impl Iterator<Item = (&'a Address, &'a Answer)>) -> String {
    let mut rows =
        vec![["ADDRESS", "CORES", "ISA", "SPEED", "DISK", "MEMORY", "STATE", "MODELS"].map(String::from).to_vec()];
    for (address, answer) in nodes {
        let mut row = vec![address.to_string()];
        match heard(answer) {
            Ok(have) => row.extend(cells(have)),
            Err(Silence::Unanswered) => {
                row.push("no answer: not there, C++ Distributed-Llama, or UDP is filtered on the way".into());
            }
            Err(Silence::Version(version)) => row.push(format!("another version of dair: {version}, here {VERSION}")),
            Err(Silence::Failed(error)) => row.push(error.to_string()),
        }
        rows.push(row);
    }
    table::aligned(&rows)
}

/// What stands behind the address of a worker that has answered.
fn cells(have: &Have) -> [String; 7] {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let speed = |bytes: u64| if bytes == 0 { "-".into() } else { format!("{:.1} GB/s", gb(bytes)) };
    let model = |model: &HasModel| format!("{} ({:.2} GB)", printable(&model.name), gb(model.bytes));
    let mut models = have.models.iter().map(model).collect::<Vec<_>>().join(", ");
    if models.is_empty() {
        models = "no model file: takes weights".into();
    }
    [
        have.threads.to_string(),
        printable(&have.isa),
        speed(have.speed),
        speed(have.disk_speed),
        format!("{:.1} GB", gb(have.memory)),
        state(have),
        models,
    ]
}

fn to_json(address: &Address, answer: &Answer) -> Value {
    let address = address.to_string();
    let model = |model: &HasModel| {
        json!({
            "name": model.name.as_str(), "bytes": model.bytes, "fingerprint": table::hex(&model.fingerprint),
            "blake3": model.digest.map(|digest| table::hex(&digest)),
        })
    };
    match heard(answer) {
        Ok(have) => json!({
            "address": address, "dialect": "native", "version": have.version, "threads": have.threads,
            "isa": have.isa.as_str(), "bytes_per_second": have.speed, "disk_bytes_per_second": have.disk_speed,
            "memory_bytes": have.memory, "state": state(have), "models": have.models.iter().map(model).collect::<Vec<_>>(),
        }),
        Err(Silence::Unanswered) => json!({ "address": address, "error": "no answer" }),
        Err(Silence::Version(version)) => json!({ "address": address, "version": version, "error": "another version" }),
        Err(Silence::Failed(error)) => json!({ "address": address, "error": error.to_string() }),
    }
}
