//! The `host-worker` command: computes a part of a model for a root.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use dair_core::wire::native::MODELS_MAX;
use dair_host::cli::worker::{Args, Dialect};
use dair_host::cli::worker_log::Log;
use dair_host::cli::{self, interrupt};
use dair_host::cluster::discovery::{Announcement, ClusterName, Discovery};
use dair_host::cluster::key_file::Found;
use dair_host::cluster::measured::{self, Before};
use dair_host::cluster::node::{Event, OwnModel, Summary, Worker};
use dair_host::machine::pool::Threads;
use dair_host::machine::{cores, cpu, memory, service};
use dair_host::model::cache::Digests;
use dair_host::net::door::Access;
use dair_host::net::listen::Listener;
use dair_host::net::{Address, Key, Keys, NetError, Timeouts, native};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Of nobody in particular, so many lines may be printed at once, and then one in this time.
const STRANGERS: u32 = 64;
const STRANGER_EVERY: Duration = Duration::from_secs(5);

/// Lines about strangers, of whom there may be many.
#[derive(Debug)]
struct Strangers {
    left: u32,
    last: Instant,
    /// Of whom nothing was said.
    untold: u64,
}

impl Strangers {
    fn new() -> Self {
        Self { left: STRANGERS, last: Instant::now(), untold: 0 }
    }

    /// The line about one, if there is to be one `now`.
    fn line(&mut self, error: &NetError, now: Instant) -> Option<String> {
        let more = now.saturating_duration_since(self.last).as_nanos() / STRANGER_EVERY.as_nanos();
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)).min(STRANGERS);
            self.last = now;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.untold += 1;
            return None;
        };
        self.left = left;
        Some(match std::mem::take(&mut self.untold) {
            0 => format!("no session: {error}"),
            untold => format!("no session: {error}; and {untold} more like that since the last line"),
        })
    }
}

/// Where to listen, and what there is to be said of that.
fn place(args: &Args, key: Option<&Found>) -> Result<(SocketAddr, Option<String>), String> {
    let is_open = key.is_some() || args.insecure;
    let host = args.host.clone().unwrap_or_else(|| if is_open { "0.0.0.0" } else { "127.0.0.1" }.into());
    let address = Address { host, port: args.port };
    let place = address.resolve().map_err(|error| error.to_string())?[0];
    let is_exposed = !place.ip().is_loopback();
    let is_dllama = args.dialect == Dialect::Dllama;
    let warning = match (key, is_exposed) {
        _ if is_dllama => format!(
            "warning: --dialect dllama: whoever reaches {address} may use this machine; nothing is encrypted in that dialect"
        ),
        (None, true) if args.insecure => {
            format!("warning: --insecure: whoever reaches {address} may use this machine, and nothing is encrypted")
        }
        (None, true) => {
            return Err(format!(
                "without a key a worker listens on loopback only, not on {address}: make one by dair key new and copy it to \
                 all nodes, or say --insecure"
            ));
        }
        (None, false) if args.host.is_none() => {
            "no key: only this machine reaches this worker; dair key new makes one for all nodes".into()
        }
        _ => return Ok((place, None)),
    };
    Ok((place, Some(warning)))
}

fn main() -> ExitCode {
    let args = match cli::parse::<Args>() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let log = Log::of(args.log, args.quiet);
    let Err(error) = run(&args, log);
    log.fail(error);
    ExitCode::FAILURE
}

/// Opens the files of `--model` and of `--model-dir`.
fn open_models(args: &Args) -> Result<Vec<OwnModel>, String> {
    let path_of = |model: &PathBuf| Ok(cli::pulled(model)?.unwrap_or_else(|| model.clone()));
    let mut paths = args.model.iter().map(path_of).collect::<Result<Vec<_>, String>>()?;
    if let Some(folder) = &args.model_dir {
        let failed = |error| format!("cannot read the folder {}: {error}", folder.display());
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
        let files = entries.into_iter().map(|entry| entry.path());
        let mut found: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "m")).collect();
        if found.is_empty() {
            return Err(format!("the folder {} has no file that ends in .m", folder.display()));
        }
        found.sort();
        paths.extend(found);
    }
    if paths.len() > MODELS_MAX {
        return Err(format!("{} model files given; a worker tells of {MODELS_MAX} at most", paths.len()));
    }
    let digests = Digests::of_user();
    let open = |path: &PathBuf| OwnModel::open_with(path, digests.clone()).map_err(|error| error.to_string());
    paths.iter().map(open).collect()
}

/// Announces a worker that listens on `local`, as long as what is returned lives. One that can't be announced works all the same.
fn announce(args: &Args, log: Log, local: SocketAddr, threads: usize) -> Option<(ClusterName, Announcement)> {
    // Nobody else sees loopback.
    let is_wanted = !args.no_announce && (args.cluster.is_some() || !local.ip().is_loopback());
    let cluster = is_wanted.then(|| args.cluster.clone().unwrap_or_default())?;
    match Discovery::default().announce(&cluster, local, threads) {
        Ok(announcement) => Some((cluster, announcement)),
        Err(error) => {
            let message = format_args!("not announced: {error}; roots have to name this worker by --workers");
            log.warn("not_announced", message, json!({ "error": error.to_string() }));
            None
        }
    }
}

/// Between two calls of a root that knows this worker, and of one that does not.
const KNOWN: Duration = Duration::from_secs(15);
const UNKNOWN: Duration = Duration::from_secs(2);

/// Lets `root` know of the worker on `port`, as long as it lives: a root may come later, or end and be started again. One that is served
/// knows enough.
fn join(root: &Address, port: u16, (timeouts, keys): (&Timeouts, &Keys), (log, is_busy): (Log, &AtomicBool)) {
    let (mut wait, mut last) = (UNKNOWN, None);
    loop {
        if !is_busy.load(Ordering::Relaxed) {
            let told = native::join(root, port, (timeouts, keys)).map_err(|error| error.to_string());
            wait = if told.is_ok() { KNOWN } else { UNKNOWN.max(2 * wait).min(2 * KNOWN) };
            // Only what is new is said.
            if last.as_ref() != Some(&told) {
                match &told {
                    Ok(()) => log.say(
                        "joined",
                        format_args!("root {root} knows of this worker"),
                        json!({ "root": root.to_string() }),
                    ),
                    Err(error) => {
                        let fields = json!({ "root": root.to_string(), "error": error });
                        log.warn("not_joined", format_args!("not joined, and tried again: {error}"), fields);
                    }
                }
                last = Some(told);
            }
        }
        thread::sleep(wait);
    }
}

fn run(args: &Args, log: Log) -> Result<std::convert::Infallible, String> {
    interrupt::install();
    interrupt::catch();
    let key = args.key.find()?;
    let (place, warning) = place(args, key.as_ref())?;
    let threads = args.threads.map_or_else(cpu::threads, usize::from);
    let kernels = args.kernels.kernels().map_err(|error| error.to_string())?;
    let pool = Threads::new(threads).map_err(|error| format!("cannot start {threads} threads: {error}"))?;
    if args.pin {
        cores::pin(&pool).map_err(|error| format!("cannot get a processor for each thread (--pin): {error}"))?;
    }
    let models = open_models(args)?;
    // Roots that send weights cut them into equal parts.
    let (mut speed, mut disk_speed) = (0, 0);
    if let Some(model) = models.first() {
        let before = if args.measure_again { Before::Forgotten } else { Before::Counts };
        speed = measured::speed(&pool, kernels, before).map_err(|error| format!("cannot measure the speed: {error}"))?
            as u64;
        disk_speed = measured::disk_bytes_per_s(model.path(), before)
            .map_err(|error| format!("cannot read {}: {error}", model.path().display()))? as u64;
    }
    let timeouts = Timeouts::of(Duration::from_secs(args.timeout_s));
    let listener = Listener::bind_to(place, timeouts).map_err(|error| {
        let address = Address { host: place.ip().to_string(), port: place.port() };
        NetError::Listen { address, error }.to_string()
    })?;
    let local = listener.local_addr().map_err(|error| error.to_string())?;
    if let Some(warning) = warning {
        log.warn("exposed", &warning, json!({}));
    }
    let announced = announce(args, log, local, threads);
    if let Some(note) = cpu::too_many(threads).filter(|_| !args.quiet) {
        log.warn("too_many_threads", note, json!({ "threads": threads }));
    }
    let isa = kernels.isa().to_string();
    let message = format_args!("listening on {local}, {threads} threads, {isa}");
    log.say("listening", message, json!({ "address": local.to_string(), "threads": threads, "isa": isa }));
    if let Some(Found { keys, place }) = &key {
        let fingerprints: Vec<_> = keys.iter().map(Key::fingerprint).collect();
        let message = format_args!("key {} of {place}", fingerprints.join(", "));
        log.say("key", message, json!({ "fingerprints": fingerprints, "place": place.to_string() }));
    }
    for model in &models {
        log.say("model", model, json!({ "path": model.path().display().to_string() }));
    }
    if let Some((cluster, _)) = &announced {
        let message = format_args!("announced on the local network as a worker of the cluster {cluster}");
        log.say("announced", message, json!({ "cluster": cluster.to_string() }));
    }
    let max_memory = || memory::session_bytes(args.memory.memory);
    let keys = key.map(|found| found.keys).unwrap_or_default();
    let disk = args.disk.open().map_err(|error| error.to_string())?;
    let worker = Worker::new(&pool, kernels, args.kv.into(), (speed, disk_speed), models)
        .with_storage(args.memory.storage.into())
        .with_disk(disk.clone())
        .with_access(Access { keys: keys.clone(), dllama: args.dialect == Dialect::Dllama, is_root: false });
    let is_busy = Arc::new(AtomicBool::new(false));
    for root in &args.join {
        let (root, keys, is_busy) = (root.clone(), keys.clone(), Arc::clone(&is_busy));
        thread::spawn(move || join(&root, local.port(), (&timeouts.brief(), &keys), (log, &is_busy)));
    }
    let mut strangers = Strangers::new();
    worker.hash_in_background()?;
    let mut announced = announced;
    let mut has_said = false;
    let is_over = || {
        let is_over = interrupt::is_set();
        if is_over && !std::mem::replace(&mut has_said, true) {
            service::is_stopping();
            log.say("leaving", "about to end, when this is done; a second signal does not wait", json!({}));
        }
        is_over
    };
    service::is_ready();
    let served = worker.serve(&listener, max_memory, is_over, |event| match event {
        Event::Over => {
            // Roots that search do not find it any more.
            drop(announced.take());
            if let Some(disk) = &disk {
                disk.finish();
            }
            log.say("over", "ended: nobody is served any more", json!({}));
            std::process::exit(0);
        }
        Event::Joined(root, node, nodes, warnings) => {
            is_busy.store(true, Ordering::Relaxed);
            let fields = json!({ "root": root, "node": node, "nodes": nodes });
            log.say("session_began", format_args!("{root}: node {node} of {nodes}"), fields);
            for warning in warnings {
                log.say("link", format_args!("{root}: {warning}"), json!({ "root": root }));
            }
        }
        Event::Ended(root, result) => {
            is_busy.store(false, Ordering::Relaxed);
            let address = root.to_string();
            match result {
                Ok(summary) => {
                    let message = format_args!("root {root}: session over: {summary}");
                    log.say("session_over", message, session_fields(&address, summary));
                }
                Err(error) => {
                    let (error, root) = (error.to_string(), format!("root {root}"));
                    // Most errors name a peer, and often it is the root.
                    let rest = error.strip_prefix(&root).map(|rest| rest.trim_start_matches(':').trim_start());
                    let error = rest.unwrap_or(&error);
                    let message = format_args!("{root}: session failed: {error}");
                    log.warn("session_failed", message, json!({ "root": address, "error": error }));
                }
            }
        }
        Event::Stranger(from, error) => {
            if let Some(line) = strangers.line(error, Instant::now()) {
                log.warn("stranger", line, json!({ "from": from.to_string(), "error": error.to_string() }));
            }
        }
    });
    served.map_err(|error| error.to_string())
}

/// What a session was like, for programs.
fn session_fields(root: &str, summary: &Summary) -> Value {
    let Summary { node, nodes, weight_bytes, passes, tokens, streamed_bytes, sent_bytes, received_bytes } = summary;
    json!({
        "root": root,
        "node": node,
        "nodes": nodes,
        "passes": passes,
        "tokens": tokens,
        "weight_bytes": weight_bytes,
        "streamed_bytes": streamed_bytes,
        "sent_bytes": sent_bytes,
        "received_bytes": received_bytes,
    })
}
