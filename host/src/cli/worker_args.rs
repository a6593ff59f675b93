//! The flags that say which workers there are, for every command that needs some.

use super::{Failure, KeyArgs, progress};
use crate::cluster::discovery::{ClusterName, Discovery, Watch};
use crate::cluster::newcomers::Newcomers;
use crate::cluster::nodes_file;
use crate::cluster::options::Dialect;
use crate::cluster::workers;
use crate::machine::terminal;
use crate::model::{Model, identity};
use crate::net::native::{self, Called};
use crate::net::{Address, Keys, NetError, Timeouts, WorkerAddress};
use dair_core::graph::MAX_NODES;
use dair_core::wire::native::{Digest, HasModel};
use std::path::PathBuf;

/// Who the workers are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Workers")]
pub struct WorkerArgs {
    /// Workers that share the model, with blanks or commas between them: each `host-worker --model FILE` computes its part
    /// of its own copy; to one without a file, or to C++ Distributed-Llama 0.16, weights are sent unless there is a key, and
    /// always where `dllama://` stands before all addresses; host-worker takes them with `--dialect dllama` [default port: 9990]
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_delimiter = ',')]
    workers: Vec<WorkerAddress>,
    /// A file that names workers, one [USER@]HOST[:PORT] a line; behind USER@ the port is ssh's
    #[arg(long, value_name = "FILE", conflicts_with = "workers")]
    nodes_file: Option<PathBuf>,
    /// Find the workers that announce themselves on this network; those without this model are left out
    #[arg(long, conflicts_with_all = ["workers", "nodes_file"])]
    discover: bool,
    /// Find those of the cluster with this name [default: dair]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["workers", "nodes_file"])]
    cluster: Option<ClusterName>,
    #[command(flatten)]
    key: KeyArgs,
}

/// Workers, and in which way to talk to them.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    /// Where they listen.
    pub addresses: Vec<Address>,
    /// What they are said to speak.
    pub dialect: Dialect,
    /// What they must know.
    pub keys: Keys,
}

impl WorkerArgs {
    /// Whether any were asked for.
    pub fn are_given(&self) -> bool {
        self.discovers() || self.nodes_file.is_some() || !self.workers.is_empty()
    }

    fn discovers(&self) -> bool {
        self.discover || self.cluster.is_some()
    }

    /// These, or all that are found where none were asked for.
    pub fn or_discovered(&self) -> Self {
        Self { discover: self.discovers() || !self.are_given(), ..self.clone() }
    }

    /// The workers that were asked for; none where none were. Of those that are found, all are.
    ///
    /// # Errors
    /// A list that can't be read, one of workers that do not go together, and where nobody is found.
    pub fn workers(&self, quiet: bool) -> Result<Workers, Failure> {
        let list = match &self.nodes_file {
            Some(path) => nodes_file::read(path).map_err(|error| error.to_string())?,
            None if self.discovers() => return self.these(self.found(quiet)?),
            None => self.workers.clone(),
        };
        let said = list.iter().find(|worker| worker.is_dllama);
        if let (Some(said), Some(other)) = (said, list.iter().find(|worker| !worker.is_dllama)) {
            let (said, other) = (&said.address, &other.address);
            return Err(Failure::Usage(format!(
                "dllama:// stands before {said}, but not before {other}: a session speaks one dialect, write it before all or none"
            )));
        }
        let dialect = if said.is_some() { Dialect::Dllama } else { Dialect::Ask };
        let workers = self.these(list.into_iter().map(|worker| worker.address).collect())?;
        Ok(Workers { dialect, ..workers })
    }

    /// The workers at `addresses`, with the keys of this machine. Whoever works alone needs none.
    ///
    /// # Errors
    /// Names a place whose keys can't be used.
    pub fn these(&self, addresses: Vec<Address>) -> Result<Workers, Failure> {
        let keys = if addresses.is_empty() { Keys::default() } else { self.keys()? };
        Ok(Workers { addresses, dialect: Dialect::Ask, keys })
    }

    /// As [`Self::workers`], but of those that are found only the ones that have `model`, whose digest may be known; a line says
    /// of each of the others why it is left out.
    ///
    /// # Errors
    /// As [`Self::workers`], and where nobody who is found has the model, or its file can't be read.
    pub fn workers_for(
        &self,
        (model, digest): (&Model, Option<Digest>),
        timeouts: &Timeouts,
        quiet: bool,
    ) -> Result<Workers, Failure> {
        let workers = self.workers(quiet)?;
        if !self.discovers() {
            return Ok(workers);
        }
        let wanted = identity::identity(model, digest)?;
        let answers = native::call_each(&workers.addresses, (timeouts, &workers.keys), |_| ())
            .map_err(|error| error.to_string())?;
        let mut addresses = Vec::new();
        for (address, answer) in workers.addresses.into_iter().zip(answers) {
            match fits(answer, &address, &wanted) {
                Ok(()) => addresses.push(address),
                Err(reason) if !quiet => terminal::note(format_args!("left out: {reason}")),
                Err(_) => {}
            }
        }
        if addresses.is_empty() {
            return Err(format!(
                "no worker of the cluster {} has this model; start some by host-worker --model",
                self.name()
            )
            .into());
        }
        Ok(Workers { addresses, ..workers })
    }

    /// Announces those that come later to `newcomers`, as long as what is returned lives; nothing where none are looked for.
    ///
    /// # Errors
    /// Where the system lets nobody listen.
    pub fn watch(&self, newcomers: &Newcomers) -> Result<Option<Watch>, Failure> {
        let watch = self.discovers().then(|| Discovery::default().watch(&self.name(), newcomers));
        Ok(watch.transpose().map_err(|error| error.to_string())?)
    }

    /// The keys of this machine.
    ///
    /// # Errors
    /// Names a place whose keys can't be used.
    pub fn keys(&self) -> Result<Keys, Failure> {
        Ok(self.key.find()?.map(|found| found.keys).unwrap_or_default())
    }

    /// Those that are there, at least one.
    fn found(&self, quiet: bool) -> Result<Vec<Address>, Failure> {
        let cluster = self.name();
        let line = progress::spinner(quiet, "looking for workers");
        let found = Discovery::default().find(&cluster);
        line.finish_and_clear();
        let found = found.map_err(|error| format!("cannot look for workers: {error}; name them by --workers"))?;
        if found.is_empty() {
            return Err(format!(
                "no worker of the cluster {cluster} was found; is host-worker started in the same network, with the same \
                 --cluster, and does no firewall stop UDP port 5353? --workers HOST:PORT needs no search"
            )
            .into());
        }
        let most = MAX_NODES as usize - 1;
        if found.len() > most {
            return Err(format!(
                "{} workers of the cluster {cluster} were found; allowed: {most}; name some by --workers",
                found.len()
            )
            .into());
        }
        Ok(found)
    }

    fn name(&self) -> ClusterName {
        self.cluster.clone().unwrap_or_default()
    }
}

/// Whether a worker that was found can take part.
fn fits(answer: Result<Option<Called>, NetError>, address: &Address, wanted: &HasModel) -> Result<(), String> {
    let called = answer.map_err(|error| error.to_string())?;
    let called = called.ok_or_else(|| format!("worker {address} does not answer; is its UDP port open?"))?;
    workers::check_version(&called)
        .and_then(|()| workers::check_model(&called, wanted))
        .map_err(|error| error.to_string())
}
