//! `dair serve`: a server for programs and browsers.

use super::model_args::ModelArgs;
use super::model_files::note_rule;
use super::sample_args::ChoiceArgs;
use super::speculate_args::SpeculateArgs;
use super::template_args::parse_template;
use super::{DiskArgs, Failure, interrupt, progress};
use crate::chat::template::{self, Template};
use crate::chat::tokenizer::{Tokenizer, TokenizerBytes};
use crate::client::ServerUrl;
use crate::cluster::options::{Dialect, Options};
use crate::cluster::room;
use crate::machine::{memory, service, terminal};
use crate::model::{Model, identity};
use crate::net::Stage;
use crate::serve::engine::{Ask, Engine, Figures};
use crate::serve::http::{self, Defaults, Doors, KeyRing, Server, Texts, Tls};
use crate::serve::trace::Trace;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime;
use tokio::sync::watch;

const EXAMPLES: &str = "\
Clients of OpenAI's API take the printed address with /v1 behind it, those of Ollama's the address itself; a browser shows a chat there.

Examples:
  dair serve --model smollm2.m
  dair serve --model smollm2.m --discover --slots 8
  dair serve --model smollm2.m --host 0.0.0.0 --api-keys api-keys
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'";

/// Answer programs and browsers over HTTP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Address of this machine to listen on; others than loopback take --api-keys or --insecure
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", help_heading = "Server")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080, help_heading = "Server")]
    port: u16,
    /// Answers that are computed at a time; each has a KV cache for the whole context [default: 4, or as many as fit the memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Server")]
    slots: Option<u32>,
    /// Requests that wait for a slot; more are told to come back later
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Server")]
    queue: u32,
    /// Seconds that an answer may take, waiting included
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = "Server")]
    request_timeout_s: u64,
    /// A file of API keys, as dair api-key makes them: who has none of them is refused
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    api_keys: Option<PathBuf>,
    /// Encrypt connections with these certificates (PEM, the server's own first)
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Server")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Server")]
    tls_key: Option<PathBuf>,
    /// Listen beyond this machine without API keys
    #[arg(long, conflicts_with = "api_keys", help_heading = "Server")]
    insecure: bool,
    /// Let pages of these origins ask from a browser, such as https://chat.example; * lets all
    #[arg(long, value_name = "ORIGIN", num_args = 1.., value_delimiter = ',', value_parser = origin, help_heading = "Server")]
    cors: Vec<String>,
    /// What the model is called [default: the name of its file]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    name: Option<String>,
    /// Largest body of a request, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Server")]
    max_body_mib: u32,
    /// Most connections at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Server")]
    connections: u32,
    /// How messages are laid out: a built-in template by its name, or a file in Jinja [default: the model's own]
    #[arg(long, value_name = "NAME|FILE", value_parser = parse_template, help_heading = "Template")]
    template: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    disk: DiskArgs,
    #[command(flatten)]
    speculate: SpeculateArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Write a timeline of requests and passes to this file, for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    trace: Option<PathBuf>,
    /// Send the spans of requests and passes to a collector of OpenTelemetry, by OTLP over HTTP, such as http://127.0.0.1:4318
    #[arg(long, value_name = "URL", help_heading = "Server")]
    otlp: Option<ServerUrl>,
    /// Print the address and nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// Contexts are no longer than that unless it is asked for: every slot has one.
const SEQ_LEN: u32 = 8192;

/// Answers that are computed at a time where nobody says how many, and memory allows it.
const SLOTS: u32 = 4;

/// Prompts that are made of texts at a time: more would only take turns.
const TEXTS: usize = 4;

/// What `--cors` takes.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = text
        .split_once("://")
        .is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains('/') && host.is_ascii());
    if text == "*" || is_origin {
        Ok(text.to_owned())
    } else {
        Err("allowed are origins such as https://chat.example, and *".into())
    }
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (listener, doors) = args.doors()?;
    let _trace = args.trace()?;
    let files = args.model.files(args.quiet)?;
    let model = Model::open(&files.model)?;
    let tokenizer = tokenizer(&files.tokenizer, &model)?;
    note_rule(tokenizer, &files.tokenizer, args.quiet);
    let template = args.template(tokenizer)?;
    let speculator = args.speculate.open(&args.model, &model, tokenizer.vocabulary(), u32::MAX, args.quiet)?;
    let disk = args.disk.open()?;
    let tune = |options: &mut Options| {
        options.stop = None;
        options.disk = disk;
        options.max_seq_len.get_or_insert(SEQ_LEN);
        // Others are taken to have as much as this machine; why a model can't be run at all, preparing it says.
        let memory_bytes = memory::session_bytes(options.memory).saturating_mul(options.workers.len() as u64 + 1);
        let fitting = || room::slots_within(&model, options, (memory_bytes, SLOTS)).unwrap_or(SLOTS);
        options.slots = args.slots.unwrap_or_else(fitting);
    };
    let figures = Arc::new(Figures::new());
    let hear = |stage: &Stage<'_>| match stage {
        Stage::Lost(why) => figures.happened(format!("left out: {why}")),
        Stage::Back(names) => figures.happened(format!("takes part from now on: {names}")),
        Stage::Replay(tokens) => figures.happened(format!("computing {tokens} tokens again")),
        Stage::Idle(names) => figures.happened(format!("not used, since tokens would take longer with it: {names}")),
        _ => {}
    };
    let words = progress::Words::of(args.quiet, false);
    args.model.with_tuned_root(&model, (u32::MAX, words), (tune, &hear), |root| {
        let (asks, heard) = channel();
        let planned = root.options().slots;
        let fingerprint = args.fingerprint(&model, root.options(), template.as_ref())?;
        let texts = Texts::new(tokenizer, template);
        let server = Arc::new(Server {
            model: args.name.clone().unwrap_or_else(|| name_of(&files.model)),
            fingerprint,
            created: http::now(),
            bytes: model.file.len() as u64,
            arch: model.header().arch.name().to_owned(),
            weights: model.header().weights.name().to_owned(),
            seq_len: root.seq_len(),
            texts,
            defaults: args.defaults(),
            figures: Arc::clone(&figures),
            queue: args.queue,
            patience: Duration::from_secs(args.request_timeout_s),
            asks: Mutex::new(Some(asks)),
            waiting: Arc::new(AtomicU32::new(0)),
        });
        speculator.with(root.pool(), |speculation| {
            let engine = Engine::new(root, tokenizer.vocabulary(), Arc::clone(&figures))?.with(speculation);
            if !args.quiet {
                args.say_slots((figures.slots(), planned));
            }
            args.serve((listener, doors), server, engine, &heard)
        })
    })
}

impl Args {
    /// Says why answers are computed in fewer slots than one may expect.
    fn say_slots(&self, (slots, planned): (u32, u32)) {
        if slots < planned {
            terminal::note(
                "workers of C++ Distributed-Llama know one sequence: answers are computed one after the other",
            );
        } else if self.slots.is_none() && slots < SLOTS {
            terminal::note(format_args!(
                "answers: {slots} at a time, since the memory holds no more KV caches; a smaller --max-seq-len and --kv q80 make them \
                 smaller, --slots asks for more"
            ));
        }
    }

    /// Whoever takes spans, if they are to go anywhere.
    fn trace(&self) -> Result<Option<Trace>, Failure> {
        let (file, collector) = (self.trace.as_deref(), self.otlp.as_ref());
        if file.is_none() && collector.is_none() {
            return Ok(None);
        }
        let place = file.map_or_else(|| "--otlp".to_owned(), |path| format!("--trace {}", path.display()));
        let trace = Trace::begin(file, collector).map_err(|error| format!("{place}: {error}"))?;
        Ok(Some(trace))
    }

    /// Where to listen, and who is let in.
    fn doors(&self) -> Result<(TcpListener, Doors), Failure> {
        let keys = self.api_keys.as_deref().map(KeyRing::read).transpose().map_err(|error| error.to_string())?;
        let keys = keys.unwrap_or_default();
        let tls = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let tls =
            tls.map(|(certificate, key)| Tls::new(certificate, key)).transpose().map_err(|error| error.to_string())?;
        let refused = |error: &dyn std::fmt::Display| {
            let (host, port) = (&self.host, self.port);
            format!("cannot listen on {host}:{port}: {error}; name another --host or --port of this machine")
        };
        let places = (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| refused(&error))?;
        let places: Vec<SocketAddr> = places.collect();
        let is_local = places.iter().all(|place| place.ip().is_loopback());
        if !is_local && keys.is_empty() && !self.insecure {
            return Err(Failure::Usage(format!(
                "--host {}: whoever reaches it could use this machine; make keys by dair api-key and name them with --api-keys, \
                 or say --insecure",
                self.host
            )));
        }
        if !is_local && self.insecure {
            terminal::note("warning: --insecure: whoever reaches the server may use it");
        }
        let listener = TcpListener::bind(&places[..]).map_err(|error| refused(&error))?;
        listener.set_nonblocking(true)?;
        let doors = Doors {
            keys,
            origins: self.cors.clone(),
            is_local,
            body_bytes: (self.max_body_mib as usize) << 20,
            connections: self.connections as usize,
            tls,
        };
        Ok((listener, doors))
    }

    /// The template of conversations; a model without one still completes texts.
    fn template(&self, tokenizer: &Tokenizer<'_>) -> Result<Option<Template>, Failure> {
        let choice = match template::choose(self.template.as_deref(), tokenizer.vocabulary()) {
            Ok(choice) => choice,
            Err(error) if self.template.is_none() => {
                if !self.quiet {
                    terminal::note(format_args!("no chats, only completions: {error}"));
                }
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(note) = choice.note.filter(|_| !self.quiet) {
            terminal::note(format_args!("note: {note}"));
        }
        Ok(Some(choice.template))
    }

    fn defaults(&self) -> Defaults {
        Defaults { temperature: self.choice.temperature(), top_p: self.choice.top_p(), filters: self.choice.filters() }
    }

    /// A word for all that an answer depends on besides the request: two servers with the same one give the same answers.
    fn fingerprint(&self, model: &Model, options: &Options, template: Option<&Template>) -> std::io::Result<String> {
        let identity = identity::identity(model, options.digest)?;
        // Cuts by rows and layers give the bits of one node, those by columns bits of their own for each number of nodes.
        let columns = self.model.cut.is_by_columns() || options.dialect == Dialect::Dllama;
        let settings = format!(
            "{:?} {:?} {} {} {:?} {:?} {} {:?}",
            options.kv,
            options.activations,
            self.model.kernels.is_relaxed(),
            options.lossy,
            columns.then_some(options.workers.len()),
            template.map(Template::name),
            env!("CARGO_PKG_VERSION"),
            options.max_seq_len,
        );
        let mut hasher = blake3::Hasher::new();
        hasher.update(&identity.fingerprint);
        hasher.update(&identity.header);
        hasher.update(settings.as_bytes());
        Ok(format!("fp_{}", &hasher.finalize().to_hex()[..16]))
    }

    /// Answers until it is asked to end.
    fn serve(
        &self,
        (listener, doors): (TcpListener, Doors),
        server: Arc<Server>,
        mut engine: Engine<'_, '_>,
        heard: &Receiver<Ask>,
    ) -> Result<(), Failure> {
        let address = listener.local_addr()?;
        let (end, is_over) = watch::channel(false);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(TEXTS)
            .thread_name("texts")
            .build()?;
        let scheme = if doors.tls.is_some() { "https" } else { "http" };
        let http = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(async move {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => http::serve(listener, server, doors, is_over).await,
                    Err(error) => terminal::note(format_args!("error: {error}")),
                }
            });
        })?;
        interrupt::catch();
        terminal::print_line(format_args!("{scheme}://{address}"))?;
        service::is_ready();
        engine.run(heard, interrupt::is_set);
        service::is_stopping();
        // Nobody listens where the thread has gone.
        let _ = end.send(true);
        let _ = http.join();
        Ok(())
    }
}

/// The tokenizer of the model; handlers of requests share it as long as the process lives.
fn tokenizer(path: &Path, model: &Model) -> Result<&'static Tokenizer<'static>, Failure> {
    let bytes = Box::leak(Box::new(TokenizerBytes::open(path)?));
    Ok(Box::leak(Box::new(bytes.tokenizer(Some(model.header().vocab_size))?)))
}

/// The name of a model file, without what says of which kind it is.
fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
