//! A cluster that is only described, to see what a plan for it would take.
//!
//! ```json
//! { "model": "llama3.1-405b", "positions": 8192, "system": "dair",
//!   "nodes": [{ "name": "server", "speed_gb_per_s": 60, "memory_gb": 128, "disk_gb_per_s": 3, "round_trip_ms": 0.1, "mbit_per_s": 10000 },
//!             { "count": 40, "board": "pi5" }] }
//! ```
//! The first node is the root. A board gives all numbers of a machine whose figures were published; others may stand beside it.
//! Without a disk, weights must fit the memory; links are gigabit Ethernet unless they are something else.

use super::published::{Board, GIGABIT};
use crate::machine::file;
use dair_core::plan::cost::{Link, Machine};
use serde::Deserialize;
use std::io::Read;
use std::path::Path;

/// Most nodes of a simulation.
pub const MAX_MACHINES: usize = 1000;
/// Far more than a description takes.
const MAX_BYTES: u64 = 1 << 20;

/// A described cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// A name of [`PRESETS`](crate::synthetic::PRESETS), or a `.m` file.
    pub model: String,
    /// Positions of the context, where it is not the model's own.
    pub positions: Option<u32>,
    /// What computes.
    pub system: System,
    /// The root and its workers.
    pub machines: Vec<Machine>,
    /// What each is called.
    pub names: Vec<String>,
    /// Boards among them whose figures were published.
    pub boards: Vec<Board>,
}

/// A program whose predictions are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum System {
    /// This one.
    #[default]
    #[serde(rename = "dair")]
    Dair,
    /// Distributed-Llama 0.16.
    #[serde(rename = "dllama-0.16")]
    Dllama016,
    /// Distributed-Llama 0.1.
    #[serde(rename = "dllama-0.1")]
    Dllama01,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: String,
    positions: Option<u32>,
    #[serde(default)]
    system: System,
    nodes: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default = "one")]
    count: usize,
    name: Option<String>,
    board: Option<String>,
    speed_gb_per_s: Option<f64>,
    memory_gb: Option<f64>,
    disk_gb_per_s: Option<f64>,
    round_trip_ms: Option<f64>,
    mbit_per_s: Option<f64>,
}

const fn one() -> usize {
    1
}

impl Simulation {
    /// Reads a description.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let mut text = Vec::new();
        file::open_regular(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text))
            .map_err(|error| format!("simulation {name}: {error}"))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("simulation {name}: it has more than {MAX_BYTES} bytes"));
        }
        let file: File = serde_json::from_slice(&text).map_err(|error| format!("simulation {name}: {error}"))?;
        file.check().map_err(|what| format!("simulation {name}: {what}"))
    }
}

impl File {
    fn check(self) -> Result<Simulation, String> {
        let count = self.nodes.iter().fold(0, |sum: usize, group| sum.saturating_add(group.count));
        if !(1..=MAX_MACHINES).contains(&count) {
            return Err(format!("{count} nodes; allowed: 1 to {MAX_MACHINES}"));
        }
        if self.positions == Some(0) {
            return Err("0 positions; allowed: 1 and more".into());
        }
        let (mut machines, mut names, mut boards) = (Vec::new(), Vec::new(), Vec::new());
        for (index, group) in self.nodes.into_iter().enumerate() {
            let (machine, board) = group.machine().map_err(|what| format!("nodes[{index}]: {what}"))?;
            let name = group.name.or(group.board).unwrap_or_else(|| format!("nodes[{index}]"));
            machines.extend(std::iter::repeat_n(machine, group.count));
            names.extend(std::iter::repeat_n(name, group.count));
            boards.extend(board.filter(|board| !boards.contains(board)));
        }
        let Self { model, positions, system, .. } = self;
        Ok(Simulation { model, positions, system, machines, names, boards })
    }
}

impl Group {
    fn machine(&self) -> Result<(Machine, Option<Board>), String> {
        let board = self.board.as_deref().map(|name| {
            let known = Board::ALL.map(Board::name).join(", ");
            Board::ALL
                .into_iter()
                .find(|board| board.name() == name)
                .ok_or(format!("no board {name:?}; known: {known}"))
        });
        let board = board.transpose()?;
        let from = board.map(Board::machine);
        let number = |what: &str, given: Option<f64>, unit: f64, otherwise: Option<f64>, least: f64| {
            let value = given.map(|given| given * unit).or(otherwise).ok_or(format!("{what} is missing"))?;
            let allowed = value.is_finite() && value >= least;
            if allowed {
                Ok(value)
            } else {
                Err(format!("{what} is {}; it must be {}", given.unwrap_or(value), need(least)))
            }
        };
        let link = from.map_or(GIGABIT, |machine| machine.link);
        let memory = number("memory_gb", self.memory_gb, 1e9, from.map(|from| from.memory_bytes as f64), 1.0)?;
        let machine = Machine {
            bytes_per_s: number("speed_gb_per_s", self.speed_gb_per_s, 1e9, from.map(|from| from.bytes_per_s), 1.0)?,
            memory_bytes: memory as u64,
            disk_bytes_per_s: number(
                "disk_gb_per_s",
                self.disk_gb_per_s,
                1e9,
                from.map(|from| from.disk_bytes_per_s).or(Some(0.0)),
                0.0,
            )?,
            link: Link {
                round_trip_s: number("round_trip_ms", self.round_trip_ms, 1e-3, Some(link.round_trip_s), 0.0)?,
                bytes_per_s: number("mbit_per_s", self.mbit_per_s, 1e6 / 8.0, Some(link.bytes_per_s), 1.0)?,
            },
        };
        // A published figure is that of the board as it is.
        let as_it_is = from.is_some_and(|from| from.bytes_per_s == machine.bytes_per_s && from.link == machine.link);
        Ok((machine, board.filter(|_| as_it_is)))
    }
}

fn need(least: f64) -> &'static str {
    if least > 0.0 { "positive" } else { "0 or positive" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Simulation, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Simulation::read(file.path())
    }

    #[test]
    fn groups_become_machines() {
        let text = r#"{ "model": "llama3-8b", "nodes": [
            { "name": "server", "speed_gb_per_s": 60, "memory_gb": 128, "disk_gb_per_s": 3, "mbit_per_s": 10000 },
            { "count": 40, "board": "pi5" }, { "board": "pi4", "memory_gb": 3, "round_trip_ms": 5 }] }"#;
        let found = read(text).unwrap();
        assert_eq!((found.machines.len(), found.system, found.positions), (42, System::Dair, None));
        assert_eq!(found.machines[0].link, Link { bytes_per_s: 1.25e9, ..GIGABIT });
        assert_eq!(found.machines[40], Board::Pi5.machine());
        assert_eq!((found.machines[41].memory_bytes, found.machines[41].link.round_trip_s), (3_000_000_000, 5e-3));
        assert_eq!((&found.names[0][..], &found.names[7][..], found.boards), ("server", "pi5", vec![Board::Pi5]));
    }

    #[test]
    fn every_mistake_is_named() {
        let nodes = |nodes: &str| format!(r#"{{ "model": "llama3-8b", "nodes": [{nodes}] }}"#);
        for (text, said) in [
            (nodes(""), "0 nodes"),
            (nodes(r#"{ "count": 1001, "board": "pi5" }"#), "1001 nodes"),
            (nodes(r#"{ "count": 18446744073709551615, "board": "pi5" }, { "board": "pi5" }"#), "allowed: 1 to 1000"),
            (nodes(r#"{ "board": "pi6" }"#), "nodes[0]: no board \"pi6\"; known: pi4, pi5"),
            (nodes(r#"{ "board": "pi5" }, { "memory_gb": 1 }"#), "nodes[1]: speed_gb_per_s is missing"),
            (nodes(r#"{ "board": "pi5", "memory_gb": 0 }"#), "memory_gb is 0; it must be positive"),
            (nodes(r#"{ "board": "pi5", "disk_gb_per_s": -1 }"#), "disk_gb_per_s is -1; it must be 0 or positive"),
            (nodes(r#"{ "board": "pi5", "mbit_per_s": 1e300000 }"#), "number out of range"),
            (nodes(r#"{ "board": "pi5", "speed": 1 }"#), "unknown field `speed`"),
            ("{".into(), "EOF"),
            (r#"{ "model": "x", "system": "exo", "nodes": [] }"#.into(), "unknown variant"),
            (r#"{ "model": "x", "positions": 0, "nodes": [{ "board": "pi5" }] }"#.into(), "0 positions"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(said) && error.starts_with("simulation "), "{text}: {error}");
        }
    }
}
