//! Flags that several commands share: which model, on what, and how tokens are chosen.

use super::cut_args::CutArgs;
use super::model_files::ModelFiles;
use super::progress::{SetUp, Words};
use super::streaming;
use super::worker_args::{WorkerArgs, Workers};
use super::{Failure, KernelArgs, MemoryArgs, interrupt};
use crate::cluster::kv::Kv;
use crate::cluster::measured::{self, Before};
use crate::cluster::newcomers::Newcomers;
use crate::cluster::options::{Options, Repack};
use crate::cluster::root::{self, Root};
use crate::machine::cpu;
use crate::machine::pool::MAX_LANES;
use crate::machine::terminal;
use crate::model::Model;
use crate::model::cache::{Digests, FileState};
use crate::net::listen::Listener;
use crate::net::{Address, Stage, Timeouts, reception};
use dair_core::quant::DType;
use dair_core::wire::native::{Digest, SILENCE_MS};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which model, and what it runs on.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
// Where all of this is optional, it is there if a model is named.
#[group(arg = "model")]
pub struct ModelArgs {
    /// Model: a .m file made by `dair convert`, or the name of one that `dair pull` got; a GGUF file or a Hugging Face folder is
    /// converted, once, into the cache
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Tokenizer file (.t) [default: the model's name with .t, or what was converted with it]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Threads on this machine [default: one per core that may be used; of large and small cores, only the large ones
    /// where the others would hold them up]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_LANES as i64))]
    pub threads: Option<u16>,
    /// Keep each thread on a processor of its own: for machines that do nothing else (Linux)
    #[arg(long)]
    pub pin: bool,
    #[command(flatten)]
    pub kernels: KernelArgs,
    /// Shortens the context, and with it the memory for the KV cache
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_seq_len: Option<u32>,
    /// Inputs of matrix products: q80 is faster with q80 weights and costs quality [default: f32, with q40 weights q80]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub activations: Option<Activations>,
    /// Type in which this machine keeps keys and values: f32 is exact and doubles the memory, q80 nearly halves it at some cost of quality
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    pub kv: Kv,
    /// Repack weights at the start into the form that the processor likes best: takes some tenths of a second per GB, and
    /// memory that the system can't take back, for faster tokens [default: for 32 tokens and more, where half of the memory stays free]
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, hide_default_value = true)]
    pub repack: RepackArg,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub workers: WorkerArgs,
    /// Listen there for workers that are started with --join; they take part from the next answer on, and in the middle of a long one
    /// where that pays
    #[arg(long, value_name = "HOST:PORT", help_heading = "Workers", conflicts_with_all = ["shares", "plan"])]
    pub accept: Option<Address>,
    #[command(flatten)]
    pub cut: CutArgs,
    /// Seconds without a byte, or with hardly any, after which a worker that owes some is given up; where layers are computed in
    /// stages, for each row of a prompt that is on its way
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_s: u64,
    /// Seconds without a sign of life after which a worker is given up, whatever it is doing; the others go on without it
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub heartbeat_s: Duration,
}

/// What `--heartbeat-s` takes.
fn seconds(text: &str) -> Result<Duration, String> {
    let allowed = *SILENCE_MS.start()..=*SILENCE_MS.end();
    let millis = text.parse::<f64>().ok().map(|seconds| seconds * 1000.0);
    let millis = millis.filter(|millis| (f64::from(*allowed.start())..=f64::from(*allowed.end())).contains(millis));
    let (least, most) = (f64::from(*allowed.start()) / 1000.0, allowed.end() / 1000);
    millis.map(|millis| Duration::from_millis(millis as u64)).ok_or_else(|| format!("allowed are {least} to {most}"))
}

/// What `--activations` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Activations {
    /// 32 bits
    F32,
    /// 8 bits and a scale per 32 values
    Q80,
}

/// What `--repack` takes.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum RepackArg {
    /// Where it pays
    #[default]
    Auto,
    /// Wherever the processor has use for it
    Always,
    /// Weights stay in the mapped file
    Never,
}

/// The digest of a model file, where it was computed before.
fn known_digest(path: &Path) -> Option<Digest> {
    Digests::of_user()?.find(path, &FileState::of(path).ok()?)
}

/// Tokens one by one that win back the time of repacking, for a model of any size: both go by its bytes.
const REPACK_PAYS_TOKENS: u32 = 32;

impl ModelArgs {
    /// The files to be opened.
    ///
    /// # Errors
    /// As [`ModelFiles::of`].
    pub fn files(&self, quiet: bool) -> Result<ModelFiles, Failure> {
        let mut files = ModelFiles::of(&self.model, quiet)?;
        if let Some(tokenizer) = &self.tokenizer {
            files.tokenizer.clone_from(tokenizer);
        }
        Ok(files)
    }

    /// Positions of the context for `model`.
    pub fn seq_len(&self, model: &Model) -> u32 {
        let own = model.header().seq_len;
        self.max_seq_len.map_or(own, |limit| limit.min(own))
    }

    /// Demands that a prompt of as many tokens fits the context: before weights are repacked or sent to workers.
    ///
    /// # Errors
    /// Both numbers, and what helps.
    pub fn check_fits(&self, model: &Model, what: &str, tokens: usize) -> Result<(), Failure> {
        let (seq_len, own) = (self.seq_len(model), model.header().seq_len);
        if tokens as u64 <= u64::from(seq_len) {
            return Ok(());
        }
        let advice = if tokens as u64 <= u64::from(own) {
            format!("shorten it, or raise --max-seq-len: the model's own context has {own}")
        } else if seq_len < own {
            format!("shorten it: even the model's own context has only {own}")
        } else {
            "shorten it: the model has no more".to_owned()
        };
        Err(format!("the {what} needs {tokens} positions; the context holds {seq_len}: {advice}").into())
    }

    /// Says what was asked for and is taken another way, or does no good.
    fn say_what_is_odd(&self, model: &Model) {
        let own = model.header().seq_len;
        if let Some(asked) = self.max_seq_len.filter(|asked| *asked > own) {
            terminal::note(format_args!(
                "--max-seq-len {asked}: the model's context has {own} positions, which are taken"
            ));
        }
        if self.cut.is_by_columns() {
            terminal::note("--cut columns: results depend on the number of nodes");
        }
        if let Some(note) = self.threads.and_then(|threads| cpu::too_many(threads.into())) {
            terminal::note(note);
        }
    }

    /// Opens the root for at most `decode_tokens` one by one and hands it to `body`. Where all is to be said, a
    /// line on a terminal shows what is waited for.
    ///
    /// # Errors
    /// As [`root::with_root`]; and where the kernels that were asked for are not here.
    pub fn with_root<R>(
        &self,
        model: &Model,
        decode_tokens: u32,
        words: Words,
        body: impl FnOnce(&mut Root<'_>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        self.with_tuned_root(model, (decode_tokens, words), (|_| (), &|_| ()), body)
    }

    /// As [`Self::with_root`]; `tune` may change what follows from the flags, and `hear` hears what becomes of workers.
    ///
    /// # Errors
    /// As [`Self::with_root`].
    pub fn with_tuned_root<R>(
        &self,
        model: &Model,
        (decode_tokens, words): (u32, Words),
        (tune, hear): (impl FnOnce(&mut Options), &(dyn Fn(&Stage<'_>) + Sync)),
        body: impl FnOnce(&mut Root<'_>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let quiet = words != Words::All;
        if !quiet {
            self.say_what_is_odd(model);
        }
        let set_up = SetUp::new(words);
        let mut options = self.options(model, decode_tokens, quiet)?;
        let newcomers = Newcomers::default();
        let watch = self.workers.watch(&newcomers)?;
        if self.accept.is_some() {
            options.keys = self.workers.keys()?;
            self.receive(&options, &newcomers, quiet)?;
        }
        options.newcomers = Some(newcomers).filter(|_| self.accept.is_some() || watch.is_some());
        tune(&mut options);
        let progress = |stage: Stage<'_>| {
            hear(&stage);
            set_up.show(stage);
        };
        root::with_root(model, &options, &progress, |root| {
            set_up.clear();
            if let (Some(figures), false) = (root.streaming(), quiet) {
                let chosen = streaming::chosen(model.header());
                terminal::note(streaming::plan(
                    figures,
                    chosen,
                    measured::disk_bytes_per_s(&model.path, Before::Counts).ok(),
                ));
            }
            body(root)
        })
    }

    /// Listens for workers that say they are there.
    fn receive(&self, options: &Options, newcomers: &Newcomers, quiet: bool) -> Result<(), Failure> {
        let Some(address) = &self.accept else { return Ok(()) };
        let place = address.resolve().map_err(|error| error.to_string())?[0];
        if options.keys.are_none() && !place.ip().is_loopback() {
            return Err(Failure::Usage(format!(
                "--accept {address}: without a key workers are let in from this machine only; make one by dair key new and \
                 copy it to all nodes"
            )));
        }
        let listen = |error| format!("--accept {address}: {error}; name another address or port of this machine");
        let listener = Listener::bind_to(place, options.timeouts).map_err(listen)?;
        if !quiet {
            let local = listener.local_addr().map_err(listen)?;
            terminal::note(format_args!("workers may join: host-worker --join {local}"));
        }
        let newcomers = newcomers.clone();
        let joins = move |address| newcomers.announce(address);
        let failed = |error| terminal::note(format_args!("no more workers can join: {error}"));
        Ok(reception::open(listener, options.keys.clone(), joins, failed).map_err(|error| error.to_string())?)
    }

    /// What the root needs to know.
    fn options(&self, model: &Model, decode_tokens: u32, quiet: bool) -> Result<Options, Failure> {
        let kernels = self.kernels.kernels()?;
        let timeouts = Timeouts { silence: self.heartbeat_s, ..Timeouts::of(Duration::from_secs(self.timeout_s)) };
        let digest = if self.workers.are_given() || self.cut.plan.is_some() { known_digest(&model.path) } else { None };
        let plan = self.cut.plan(model)?;
        let Workers { addresses, dialect, keys } = match &plan {
            Some(plan) => self.workers.these(plan.workers.clone())?,
            None => self.workers.workers_for((model, digest), &timeouts, quiet)?,
        };
        Ok(Options {
            threads: self.threads.map_or_else(cpu::threads, usize::from),
            pin: self.pin,
            kernels,
            kv: self.kv.into(),
            max_seq_len: self.max_seq_len,
            activations: self.activations.map(|activations| match activations {
                Activations::F32 => DType::F32,
                Activations::Q80 => DType::Q80,
            }),
            repack: self.repack(decode_tokens),
            memory: self.memory.memory,
            storage: self.memory.storage.into(),
            workers: addresses,
            newcomers: None,
            dialect,
            keys,
            digest,
            wish: self.cut.wish(plan),
            lossy: self.cut.is_lossy(),
            slots: 1,
            disk: None,
            timeouts,
            stop: Some(interrupt::flag()),
        })
    }

    fn repack(&self, decode_tokens: u32) -> Repack {
        match self.repack {
            RepackArg::Auto if decode_tokens < REPACK_PAYS_TOKENS => Repack::Never,
            RepackArg::Auto => Repack::Auto,
            RepackArg::Always => Repack::Always,
            RepackArg::Never => Repack::Never,
        }
    }

    /// What the root of a draft model for `model` needs to know: it works alone, with the threads of the other one.
    ///
    /// # Errors
    /// Where the kernels that were asked for are not here.
    pub fn draft_options(&self, model: &Model, decode_tokens: u32) -> Result<Options, Failure> {
        Ok(Options {
            kernels: self.kernels.kernels()?,
            kv: self.kv.into(),
            max_seq_len: Some(self.seq_len(model)),
            repack: self.repack(decode_tokens),
            stop: Some(interrupt::flag()),
            ..Options::alone(self.threads.map_or_else(cpu::threads, usize::from))
        })
    }
}
