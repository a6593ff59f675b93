//! A plan that is kept: `dair plan --save FILE` writes it, `--plan FILE` takes it.
//!
//! ```json
//! { "version": 1,
//!   "nodes": [{ "address": "root", "layers": 10000, "head": 10000 }, { "address": "10.0.0.2:9990", "layers": 5000, "head": 5000 }],
//!   "stages": [{ "nodes": 2, "layers": 32 }] }
//! ```
//! `layers` and `head` of a node are its shares; nodes and layers of the stages add up to those of the plan and of the model.

use super::Proposal;
use crate::machine::file;
use crate::net::{Address, printable};
use dair_core::format::Header;
use dair_core::graph::MAX_NODES;
use dair_core::plan::{Share, Stage};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// What the root is called, which nobody calls.
pub const ROOT: &str = "root";
/// The form of the file.
const VERSION: u32 = 1;
/// Far more than a plan of all nodes takes.
const MAX_BYTES: u64 = 1 << 20;

/// A plan: who computes what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPlan {
    /// Workers in the order of nodes; worker `index` is node `index + 1`.
    pub workers: Vec<Address>,
    /// A share for each node, the root's first.
    pub shares: Vec<Share>,
    /// Stages of consecutive nodes.
    pub stages: Vec<Stage>,
}

/// What is wrong with the file of a plan.
#[derive(Debug)]
pub enum PlanFileError {
    /// The system refuses.
    Io(PathBuf, io::Error),
    /// It is not what a plan is written as, or makes no sense.
    Invalid(PathBuf, String),
}

impl fmt::Display for PlanFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "plan {}: {error}", path.display()),
            Self::Invalid(path, what) => {
                // What is wrong may be quoted from the file.
                let what = printable(what);
                write!(f, "plan {}: {what}; write a new one with `dair plan --save`", path.display())
            }
        }
    }
}

impl std::error::Error for PlanFileError {}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    nodes: Vec<FileNode>,
    stages: Vec<FileStage>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    address: String,
    layers: u16,
    head: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStage {
    nodes: u16,
    layers: u16,
}

impl SavedPlan {
    /// What was proposed for a root with `workers`, which are machines 1, 2, …
    pub fn of(proposal: &Proposal, workers: &[Address]) -> Self {
        let workers = proposal.nodes[1..].iter().map(|node| workers[node - 1].clone()).collect();
        Self { workers, shares: proposal.shares.clone(), stages: proposal.stages.clone() }
    }

    /// Reads a plan for the model of `header`.
    ///
    /// # Errors
    /// Names the file, and the first thing that is wrong with it.
    pub fn read(path: &Path, header: &Header) -> Result<Self, PlanFileError> {
        let failed = |error| PlanFileError::Io(path.into(), error);
        let mut text = Vec::new();
        file::open_regular(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        let invalid = |what| PlanFileError::Invalid(path.into(), what);
        if text.len() as u64 > MAX_BYTES {
            return Err(invalid(format!("it has more than {MAX_BYTES} bytes")));
        }
        let file: File = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        file.check(header).map_err(invalid)
    }

    /// Writes the plan, under its name when it is complete.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), PlanFileError> {
        let addresses = [ROOT.to_owned()].into_iter().chain(self.workers.iter().map(Address::to_string));
        let node = |(address, share): (String, &Share)| FileNode { address, layers: share.layers, head: share.head };
        let file = File {
            version: VERSION,
            nodes: addresses.zip(&self.shares).map(node).collect(),
            stages: self.stages.iter().map(|stage| FileStage { nodes: stage.nodes, layers: stage.layers }).collect(),
        };
        let write = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut part = tempfile::Builder::new().permissions(permissions()).tempfile_in(folder)?;
            part.write_all(&serde_json::to_vec_pretty(&file)?)?;
            part.write_all(b"\n")?;
            part.persist(path)?;
            Ok(())
        };
        write().map_err(|error| PlanFileError::Io(path.into(), error))
    }
}

/// A plan is no secret; the user's mask takes from it what it takes from other files.
fn permissions() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o666)
}

impl File {
    /// The plan, or what is wrong with it.
    fn check(&self, header: &Header) -> Result<SavedPlan, String> {
        let Self { version, nodes, stages } = self;
        if *version != VERSION {
            return Err(format!("version {version}; this program knows {VERSION}"));
        }
        if nodes.is_empty() || nodes.len() > MAX_NODES as usize {
            return Err(format!("{} nodes; allowed: 1 to {MAX_NODES}", nodes.len()));
        }
        if nodes[0].address != ROOT {
            return Err(format!("the first node is {:?}; it must be {ROOT:?}", nodes[0].address));
        }
        let mut workers: Vec<Address> = Vec::with_capacity(nodes.len());
        for node in &nodes[1..] {
            let address = node.address.parse().map_err(|error| format!("{error}"))?;
            if workers.contains(&address) {
                return Err(format!("{address} is there twice"));
            }
            workers.push(address);
        }
        let sum = |of: fn(&FileStage) -> u16| stages.iter().map(|stage| u32::from(of(stage))).sum::<u32>();
        for (what, found, wanted) in [
            ("nodes", sum(|stage| stage.nodes), nodes.len() as u32),
            ("layers", sum(|stage| stage.layers), header.n_layers),
        ] {
            if found != wanted {
                return Err(format!("its stages have {found} {what}, there are {wanted}"));
            }
        }
        let mut rest = &nodes[..];
        for (index, stage) in stages.iter().enumerate() {
            let (own, behind) = rest.split_at(stage.nodes.into());
            if stage.layers == 0 || own.iter().all(|node| node.layers == 0) {
                return Err(format!("stage {index} has no layer, or no node with a share of its layers"));
            }
            rest = behind;
        }
        if nodes.iter().all(|node| node.head == 0) {
            return Err("no node has a share of the head".into());
        }
        Ok(SavedPlan {
            workers,
            shares: nodes.iter().map(|node| Share { layers: node.layers, head: node.head }).collect(),
            stages: stages.iter().map(|stage| Stage { nodes: stage.nodes, layers: stage.layers }).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::preset;
    use serde_json::{Value, json};

    fn plan() -> SavedPlan {
        let share = |layers, head| Share { layers, head };
        SavedPlan {
            workers: vec!["10.0.0.2".parse().unwrap(), "[::1]:7".parse().unwrap()],
            shares: vec![share(0, 1), share(10_000, 0), share(5, 7)],
            stages: vec![Stage { nodes: 2, layers: 30 }, Stage { nodes: 1, layers: 2 }],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        plan().write(&path).unwrap();
        assert_eq!(SavedPlan::read(&path, &preset("llama3-8b").unwrap()).unwrap(), plan());
        let other = SavedPlan::read(&path, &preset("llama3.2-1b").unwrap()).unwrap_err().to_string();
        assert!(other.contains("its stages have 32 layers, there are 16"), "{other}");
        assert!(plan().write(&folder.path().join("no/such/folder")).is_err());
        assert!(SavedPlan::read(folder.path(), &preset("llama3-8b").unwrap()).is_err());
    }

    #[test]
    fn every_mistake_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        plan().write(&path).unwrap();
        let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (place, value, said) in [
            ("/version", json!(2), "version 2"),
            ("/version", json!("x"), "invalid type"),
            ("/nodes", json!([]), "0 nodes"),
            ("/nodes/0/address", json!("10.0.0.1"), "the first node"),
            ("/nodes/1/address", json!("a b"), "not a host"),
            ("/nodes/2/address", json!("10.0.0.2:9990"), "twice"),
            ("/nodes/0/head", json!(0), "share of the head"),
            ("/nodes/0/head", json!(-1), "invalid value"),
            ("/nodes/1/layers", json!(0), "stage 0"),
            ("/stages/0/nodes", json!(3), "4 nodes, there are 3"),
            ("/stages/1/layers", json!(3), "33 layers, there are 32"),
            ("/stages", json!([{ "nodes": 3, "layers": 32 }, { "nodes": 0, "layers": 0 }]), "stage 1"),
            ("/stages/0", json!({ "nodes": 2, "layers": 30, "x": 1 }), "unknown field"),
            ("/stages/0", json!({ "nodes": 2, "layers": 30, "x\n\u{1b}[2J": 1 }), "`x\u{fffd}\u{fffd}[2J`"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(place).unwrap() = value;
            if place == "/nodes/0/head" {
                bad["nodes"][2]["head"] = json!(0);
            }
            fs::write(&path, bad.to_string()).unwrap();
            let error = SavedPlan::read(&path, &preset("llama3-8b").unwrap()).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("plan.json"), "{place}: {error}");
            assert!(!error.contains(char::is_control), "{place}: {error:?}");
        }
        fs::write(&path, " ".repeat(MAX_BYTES as usize + 1)).unwrap();
        let error = SavedPlan::read(&path, &preset("llama3-8b").unwrap()).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }
}
