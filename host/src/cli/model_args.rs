//! Flags that several commands share: which model, on what, and how tokens are chosen.

use super::model_files::ModelFiles;
use super::{Failure, KernelArgs, interrupt, progress};
use crate::cluster::kv::Kv;
use crate::cluster::root::{self, Options, Repack, Root};
use crate::machine::cpu::{self, KernelError};
use crate::machine::pool::MAX_LANES;
use crate::model::Model;
use crate::net::{Address, Timeouts};
use dair_core::quant::DType;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which model, and what it runs on.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Model: a .m file made by `dair convert`; a GGUF file or a Hugging Face folder is converted, once, into the cache
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Tokenizer file (.t) [default: the model's name with .t, or what was converted with it]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Threads on this machine [default: one per core that may be used; of large and small cores, only the large ones
    /// where the others would hold them up]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_LANES as i64))]
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
    /// Workers that share the model: `host-worker` or C++ Distributed-Llama 0.16 [default port: 9990]
    #[arg(long, value_name = "HOST:PORT", num_args = 1..)]
    pub workers: Vec<Address>,
    /// Seconds without a byte after which a worker that owes one is given up
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_s: u64,
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

    /// Opens the root for at most `decode_tokens` one by one and hands it to `body`; a bar on the terminal shows weights on their way to workers.
    ///
    /// # Errors
    /// As [`root::with_root`]; and where the kernels that were asked for are not here.
    pub fn with_root<R>(
        &self,
        model: &Model,
        decode_tokens: u32,
        body: impl FnOnce(&mut Root<'_>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let bar = progress::bar(self.workers.is_empty());
        let progress = |bytes, total| {
            bar.set_length(total);
            bar.inc(bytes);
        };
        root::with_root(model, &self.options(decode_tokens)?, &progress, |root| {
            bar.finish_and_clear();
            body(root)
        })
    }

    /// What the root needs to know.
    fn options(&self, decode_tokens: u32) -> Result<Options, KernelError> {
        let kernels = self.kernels.kernels()?;
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
            repack: match self.repack {
                RepackArg::Auto if decode_tokens < REPACK_PAYS_TOKENS => Repack::Never,
                RepackArg::Auto => Repack::Auto,
                RepackArg::Always => Repack::Always,
                RepackArg::Never => Repack::Never,
            },
            workers: self.workers.clone(),
            timeouts: Timeouts { progress: Duration::from_secs(self.timeout_s), ..Timeouts::default() },
            stop: Some(interrupt::flag()),
        })
    }
}

/// Text from a flag or a file.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct TextArgs {
    /// The text
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// File with the text, - for standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl TextArgs {
    /// The text.
    ///
    /// # Errors
    /// Where the file can't be read, or is no UTF-8.
    pub fn read(&self) -> Result<String, String> {
        if let Some(text) = &self.prompt {
            return Ok(text.clone());
        }
        let path = self.file.as_deref().unwrap_or(Path::new("-"));
        let mut bytes = Vec::new();
        // One byte more than can be encoded, so that the encoder says what is wrong.
        let limit = dair_core::text::MAX_TEXT_BYTES as u64 + 1;
        let read = if path == Path::new("-") {
            std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        };
        read.map_err(|error| format!("cannot read the text {}: {error}", path.display()))?;
        String::from_utf8(bytes)
            .map_err(|error| format!("{}: not UTF-8 at byte {}", path.display(), error.utf8_error().valid_up_to()))
    }
}
