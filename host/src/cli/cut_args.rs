//! The flags that say how nodes share a model.

use super::Failure;
use crate::cluster::choose::Wish;
use crate::cluster::planner::file::SavedPlan;
use crate::model::Model;
use dair_core::plan::Share;
use std::path::PathBuf;

/// How nodes share a model of which each has a copy.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Workers")]
pub struct CutArgs {
    /// How nodes share the model: rows and layers have the results of one node, with columns they depend on the number of nodes
    /// [default: whatever `dair plan` finds fastest]
    #[arg(long, value_enum, value_name = "WAY")]
    cut: Option<CutArg>,
    /// Sizes of the parts that nodes compute, this machine's first, such as 2,1,1; 0 leaves a node without
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',', conflicts_with = "cut")]
    shares: Vec<u16>,
    /// Type in which activations cross the network: q40 halves most of the bytes, for slow links, and costs quality [default: as they
    /// are multiplied]
    #[arg(long, value_enum, value_name = "TYPE")]
    exchange: Option<ExchangeArg>,
    /// A plan that `dair plan --save` wrote, with its workers
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workers", "nodes_file", "discover", "cluster", "cut", "shares"])]
    pub plan: Option<PathBuf>,
}

/// What `--cut` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CutArg {
    /// Whatever the planner finds fastest
    Best,
    /// Every node a part of each matrix; results are those of one node
    Rows,
    /// Equal parts; results depend on the number of nodes
    Columns,
    /// Stages of layers one after the other; results are those of one node
    Layers,
}

/// What `--exchange` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExchangeArg {
    /// 4 bits and a scale per 32 values
    Q40,
}

impl CutArgs {
    /// Whether results are to depend on the number of nodes.
    pub fn is_by_columns(&self) -> bool {
        self.cut == Some(CutArg::Columns)
    }

    /// Whether nodes are to exchange less than they compute.
    pub fn is_lossy(&self) -> bool {
        self.exchange == Some(ExchangeArg::Q40)
    }

    /// The plan that was given for `model`, if any.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn plan(&self, model: &Model) -> Result<Option<SavedPlan>, Failure> {
        let read = |path| SavedPlan::read(path, model.header()).map_err(|error| error.to_string());
        Ok(self.plan.as_deref().map(read).transpose()?)
    }

    /// What is wished for, by a plan if there is one.
    pub fn wish(&self, plan: Option<SavedPlan>) -> Wish {
        if let Some(SavedPlan { shares, stages, .. }) = plan {
            return Wish::Given(shares, stages);
        }
        if !self.shares.is_empty() {
            let shares = self.shares.iter().map(|share| Share { layers: *share, head: *share });
            return Wish::Given(shares.collect(), Vec::new());
        }
        match self.cut {
            None | Some(CutArg::Best) => Wish::Best,
            Some(CutArg::Rows) => Wish::Rows,
            Some(CutArg::Layers) => Wish::Layers,
            Some(CutArg::Columns) => Wish::Columns,
        }
    }
}
