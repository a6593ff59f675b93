//! Recorded sessions of the C++ system, see `tests/golden/README.md`.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Every recorded session.
pub const CASES: [&str; 5] =
    ["llama_f32_f32_n2", "llama_q40_q80_n2", "llama_q40_q80_n4", "qwen3_q40_q80_n2", "qwen3moe_q40_q80_n2"];

/// One recorded session.
#[derive(Debug)]
pub struct Case {
    /// As in [`CASES`].
    pub name: &'static str,
    /// Nodes, the root included.
    pub nodes: u32,
    /// The workers as the root's user wrote them.
    pub workers: Vec<(String, u16)>,
}

impl Case {
    /// Opens the session `name`.
    ///
    /// # Panics
    /// If it is not there or not as described.
    pub fn open(name: &'static str) -> Self {
        let session = std::fs::read_to_string(folder(name).join("session.json")).unwrap();
        let session: Value = serde_json::from_str(&session).unwrap();
        let root = session["commands"]["root"].as_array().unwrap();
        let workers = root.iter().skip_while(|word| *word != "--workers").skip(1).map(|address| {
            let (host, port) = address.as_str().unwrap().rsplit_once(':').unwrap();
            (host.to_owned(), port.parse().unwrap())
        });
        Self { name, nodes: session["nodes"].as_u64().unwrap() as u32, workers: workers.collect() }
    }

    /// Path of one of its files.
    pub fn path(&self, file: &str) -> PathBuf {
        folder(self.name).join(file)
    }

    /// Content of one of its files.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn bytes(&self, file: &str) -> Vec<u8> {
        let path = self.path(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// All that the root sent to worker `index`.
    pub fn root_bytes(&self, index: u32) -> Vec<u8> {
        self.bytes(&format!("link-root-w{index}.a2b.bin"))
    }

    /// All that worker `index` sent to the root.
    pub fn worker_bytes(&self, index: u32) -> Vec<u8> {
        self.bytes(&format!("link-root-w{index}.b2a.bin"))
    }

    /// The bytes of the root that the C++ system leaves uninitialised: first byte, how many.
    ///
    /// # Panics
    /// If a line of the table is malformed.
    pub fn mask(&self, index: u32) -> Vec<(usize, usize)> {
        let table = String::from_utf8(self.bytes(&format!("mask-link-root-w{index}.a2b.tsv"))).unwrap();
        let number = |field: Option<&str>| field.unwrap().parse().unwrap();
        table
            .lines()
            .skip(1)
            .map(|line| {
                let mut fields = line.split('\t');
                (number(fields.next()), number(fields.next()))
            })
            .collect()
    }
}

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire").join(case)
}
