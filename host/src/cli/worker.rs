//! The arguments of `host-worker`: here, so that `dair` can write its man page and completions.

use super::worker_log::LogFormat;
use super::{DiskArgs, KernelArgs, KeyArgs, MemoryArgs};
use crate::cluster::discovery::ClusterName;
use crate::cluster::kv::Kv;
use crate::machine::pool::MAX_LANES;
use crate::net::{Address, DEFAULT_PORT};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  host-worker --model MODEL.m                  all cores, port 9990, on every interface if there is a key
  host-worker --model-dir /models --port 9991 --threads 4 --key cluster.key
  host-worker --host 127.0.0.1 --memory 2GB
  host-worker --dialect dllama --host 0.0.0.0  for a root that is C++ Distributed-Llama
Then, on the root:
  dair chat --model MODEL.m --discover
  dair generate --model MODEL.m --prompt 'Hello' --workers 10.0.0.2:9990 10.0.0.3:9990

With a key (dair key new, copied to all nodes) conversations are encrypted, and only those who have it are let in. Without one, a
worker listens on loopback only.";

/// Computes a part of a model for a root. With a copy of the root's model file, no weight crosses the network; without one, and
/// for C++ Distributed-Llama 0.16, weights come from the root (`--dialect dllama`).
#[derive(Debug, Parser)]
#[command(name = "host-worker", version, after_help = EXAMPLES)]
pub struct Args {
    /// A copy of the root's model file (.m), or the name of one that dair pull got; may be given several times
    #[arg(short, long, value_name = "FILE")]
    pub model: Vec<PathBuf>,
    /// A folder of which all files that end in .m are such copies
    #[arg(long, value_name = "FOLDER")]
    pub model_dir: Option<PathBuf>,
    /// Address of this machine to listen on [default: 0.0.0.0 with a key or --insecure, else 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes one that is free, and prints it
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub port: u16,
    /// Threads [default: one per core that may be used; of large and small cores, only the large ones where the others
    /// would hold them up]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_LANES as i64))]
    pub threads: Option<u16>,
    /// Keep each thread on a processor of its own: for machines that do nothing else (Linux)
    #[arg(long)]
    pub pin: bool,
    /// The cluster's key
    #[command(flatten)]
    pub key: KeyArgs,
    /// Listen on other addresses than loopback even without a key: whoever reaches the port may use this machine, and see what
    /// is computed
    #[arg(long)]
    pub insecure: bool,
    /// Whose roots to take: those of dair alone, or also those of C++ Distributed-Llama 0.16, whose words nobody encrypts and
    /// who need no key
    #[arg(long, value_enum, value_name = "DIALECT", default_value_t)]
    pub dialect: Dialect,
    /// How numbers are computed
    #[command(flatten)]
    pub kernels: KernelArgs,
    /// Seconds without a byte, or with hardly any, after which a peer that owes some is given up; where layers are computed in
    /// stages, for each row of a prompt that is on its way
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_s: u64,
    /// How much memory may be taken
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Type in which keys and values are kept: f32 is exact and doubles the memory, q80 nearly halves it at some cost of quality
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    pub kv: Kv,
    /// What is kept on disk
    #[command(flatten)]
    pub disk: DiskArgs,
    /// Measure how fast this machine computes, even if that was done before: where it was busy then, or has changed
    #[arg(long)]
    pub measure_again: bool,
    /// Name of the cluster under which this worker announces itself on the local network, for `dair chat --discover`. One that
    /// only this machine reaches (--host 127.0.0.1) does so if a name is given [default: dair]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// Do not announce this worker: it is there for those who know its address
    #[arg(long, conflicts_with = "cluster")]
    pub no_announce: bool,
    /// A root that was started with --accept and is to know of this worker, again and again until it does
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Vec<Address>,
    /// In which form to tell what happens
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log: LogFormat,
    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// In which ways roots may talk to this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    #[default]
    /// That of dair alone
    Native,
    /// That of C++ Distributed-Llama 0.16, too
    Dllama,
}
