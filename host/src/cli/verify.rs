//! `dair verify`: whether all nodes have the same model, byte by byte.

use super::model_files::ModelFiles;
use super::worker_args::{WorkerArgs, Workers};
use super::{Failure, progress, table};
use crate::cluster::workers;
use crate::machine::{cpu, terminal};
use crate::model::cache::{Digests, FileState};
use crate::model::identity::{self, Difference};
use crate::model::{Model, digest};
use crate::net::native::{self, Called};
use crate::net::{Address, NetError, Timeouts, printable};
use dair_core::wire::native::{Digest, HasModel};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  dair verify --model smollm2.m
  dair verify --model smollm2.m --workers 10.0.0.2:9990 10.0.0.3:9990
  dair verify --model smollm2.m --discover
  dair verify --model smollm2.m --nodes-file nodes.txt --json";

/// Compare a model file with the copies of workers, byte by byte.
///
/// Every node reads its own file, and the BLAKE3 of all of it crosses the network. It is kept in the cache until the file
/// changes; workers compute it after they were started, when they have nothing else to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Model: a .m file, or the name of one that dair pull got; a GGUF file or a Hugging Face folder is converted, once, into the cache
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
    #[command(flatten)]
    workers: WorkerArgs,
    /// Seconds without an answer, or without progress, after which a worker is given up
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user where a file differs or can't be compared; all are listed all the same.
pub fn run(args: &Args) -> Result<(), Failure> {
    let files = ModelFiles::of(&args.model, args.json)?;
    let Workers { addresses, keys, .. } = args.workers.workers(args.json)?;
    let unread = |error: std::io::Error| format!("cannot read {}: {error}", files.model.display());
    // The state first: a change from here on shows.
    let state = FileState::of(&files.model).map_err(unread)?;
    let model = Model::open(&files.model)?;
    let wanted = identity::identity(&model, None).map_err(unread)?;
    let timeouts = Timeouts::of(Duration::from_secs(args.timeout_s));
    let called = match &addresses[..] {
        [] => Vec::new(),
        some => native::call_each(some, (&timeouts, &keys), |_| ()).map_err(|error| error.to_string())?,
    };
    let bar = progress::bar(args.json);
    let (own, answers) = thread::scope(|scope| {
        let ask = |called| scope.spawn(|| ask(called, &wanted, &timeouts, &bar));
        let asked: Vec<_> = called.into_iter().map(ask).collect();
        let own = own_digest(&files.model, &state, &bar);
        (own, asked.into_iter().map(|asked| asked.join().expect("asking does not panic")).collect::<Vec<_>>())
    });
    bar.finish_and_clear();
    let own = own.map_err(unread)?;
    let nodes: Vec<_> = addresses.iter().zip(answers.into_iter().map(|answer| Verdict::of(answer, &own))).collect();
    if args.json {
        let nodes: Vec<_> = nodes.iter().map(|(address, verdict)| verdict.to_json(address)).collect();
        let (path, blake3) = (files.model.display().to_string(), table::hex(&own));
        terminal::print_line(json!({"model": path, "bytes": wanted.bytes, "blake3": blake3, "nodes": nodes}))?;
    } else {
        terminal::print(to_text(&wanted, &own, &nodes))?;
    }
    conclude(&nodes)
}

/// The digest of this machine's file.
fn own_digest(path: &Path, state: &FileState, bar: &ProgressBar) -> std::io::Result<Digest> {
    bar.inc_length(state.bytes);
    digest::digest_of(path, state, Digests::of_user().as_ref(), cpu::threads(), &|bytes| bar.inc(bytes))
}

/// What a worker answers: the name of its file and its digest.
type Answer = Result<(String, Digest), Unlike>;

/// Why there is nothing to compare.
enum Unlike {
    Unanswered,
    Net(NetError),
    /// It shows without reading all of the file.
    Differs(Difference),
}

fn ask(called: Result<Option<Called>, NetError>, wanted: &HasModel, timeouts: &Timeouts, bar: &ProgressBar) -> Answer {
    let mut worker = called.map_err(Unlike::Net)?.ok_or(Unlike::Unanswered)?;
    workers::check_version(&worker).map_err(Unlike::Net)?;
    let found = identity::find(wanted, &worker.have.models).map_err(Unlike::Differs)?;
    let (name, mut told) = (printable(&found.name), 0);
    bar.inc_length(wanted.bytes);
    let tell = |bytes: u64| {
        bar.inc(bytes - told);
        told = bytes;
    };
    let digest = worker.digest((&wanted.fingerprint, wanted.bytes), timeouts, tell).map_err(Unlike::Net)?;
    Ok((name, digest))
}

/// What is to be said of a worker.
enum Verdict {
    Same(String, Digest),
    /// Its digest, where only that tells.
    Differs(Difference, Option<Digest>),
    Unknown(String),
}

impl Verdict {
    fn of(answer: Answer, own: &Digest) -> Self {
        match answer {
            Ok((name, digest)) if digest == *own => Self::Same(name, digest),
            Ok((name, digest)) => Self::Differs(Difference::Content(name), Some(digest)),
            Err(Unlike::Differs(difference)) => Self::Differs(difference, None),
            Err(Unlike::Net(error)) => Self::Unknown(error.to_string()),
            Err(Unlike::Unanswered) => {
                Self::Unknown("no answer: not there, C++ Distributed-Llama, or UDP is filtered on the way".into())
            }
        }
    }

    fn to_row(&self, address: &Address) -> Vec<String> {
        let address = address.to_string();
        match self {
            Self::Same(name, digest) => vec![address, name.clone(), table::hex(digest), "same".into()],
            Self::Differs(difference, digest) => {
                let (name, digest) =
                    (difference.name().unwrap_or("-").to_owned(), digest.map(|digest| table::hex(&digest)));
                vec![address, name, digest.unwrap_or("-".into()), format!("DIFFERENT: {difference}")]
            }
            Self::Unknown(reason) => vec![address, reason.clone()],
        }
    }

    fn to_json(&self, address: &Address) -> Value {
        let address = address.to_string();
        match self {
            Self::Same(name, digest) => {
                json!({"address": address, "file": name, "blake3": table::hex(digest), "same": true})
            }
            Self::Differs(difference, digest) => json!({
                "address": address, "file": difference.name(), "blake3": digest.map(|digest| table::hex(&digest)),
                "same": false, "differs": difference.word(), "reason": difference.to_string(),
            }),
            Self::Unknown(reason) => json!({"address": address, "error": reason}),
        }
    }
}

fn to_text(wanted: &HasModel, own: &Digest, nodes: &[(&Address, Verdict)]) -> String {
    let mut rows = vec![["NODE", "FILE", "BLAKE3", "RESULT"].map(String::from).to_vec()];
    rows.push(vec!["here".into(), printable(&wanted.name), table::hex(own), format!("{} bytes", wanted.bytes)]);
    rows.extend(nodes.iter().map(|(address, verdict)| verdict.to_row(address)));
    table::aligned(&rows)
}

fn conclude(nodes: &[(&Address, Verdict)]) -> Result<(), Failure> {
    let different = nodes.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Differs(..))).count();
    let unknown = nodes.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Unknown(_))).count();
    let count = nodes.len();
    match (different, unknown) {
        (0, 0) => Ok(()),
        (0, unknown) => Err(format!("{unknown} of {count} workers can't be compared").into()),
        (different, 0) => Err(format!("{different} of {count} workers do not have this file").into()),
        (different, unknown) => {
            Err(format!("{different} of {count} workers do not have this file, {unknown} can't be compared").into())
        }
    }
}
