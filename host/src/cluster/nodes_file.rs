//! A list of workers in a file, one a line, as deployment scripts keep it:
//!
//! ```text
//! # kitchen
//! 10.0.0.2                 a worker on port 9990
//! 10.0.0.3:9991            as --workers takes it; dllama://10.0.0.3:9991, too
//! pi@pi-4.local:2222       a target of ssh: its port is ssh's, the worker is on port 9990
//! ```
//! Empty lines and what follows a `#` do not count.

use crate::machine::file;
use crate::net::{AddressError, DEFAULT_PORT, WorkerAddress};
use dair_core::graph::MAX_NODES;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Most workers of a session.
const MAX_WORKERS: usize = MAX_NODES as usize - 1;

/// Why a file is no list of workers.
#[derive(Debug)]
pub struct NodesFileError {
    path: PathBuf,
    mistake: Mistake,
}

#[derive(Debug)]
enum Mistake {
    Read(io::Error),
    TooLarge,
    Empty,
    /// What is wrong with a line, which counts from 1.
    Line(usize, LineMistake),
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
enum LineMistake {
    NotText,
    Words(String),
    User(String),
    Address(AddressError),
    /// It is on this line already.
    Again(String, usize),
    TooMany,
}

impl fmt::Display for NodesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.mistake {
            Mistake::Read(error) => write!(f, "cannot read the nodes file {path}: {error}"),
            Mistake::TooLarge => {
                write!(f, "the nodes file {path} has more than {MAX_BYTES} bytes; is it another file?")
            }
            Mistake::Empty => write!(f, "the nodes file {path} names no worker; write one HOST:PORT a line"),
            Mistake::Line(line, mistake) => write!(f, "{path}:{line}: {mistake}"),
        }
    }
}

impl fmt::Display for LineMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText => f.write_str("this is no text in UTF-8"),
            Self::Words(line) => write!(f, "{line:?} is more than one word; write one [USER@]HOST[:PORT] a line"),
            Self::User(user) => write!(f, "{user:?} is no name of a user; write [USER@]HOST[:PORT]"),
            Self::Address(error) => error.fmt(f),
            Self::Again(worker, line) => write!(f, "worker {worker} is on line {line} already"),
            Self::TooMany => write!(f, "more than {MAX_WORKERS} workers; a session has no more"),
        }
    }
}

impl std::error::Error for NodesFileError {}

/// Reads a nodes file.
///
/// # Errors
/// Names the file, the line and what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<WorkerAddress>, NodesFileError> {
    let failed = |mistake| NodesFileError { path: path.into(), mistake };
    let mut bytes = Vec::new();
    let file = file::open_regular(path).map_err(|error| failed(Mistake::Read(error)))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(Mistake::Read(error)))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(Mistake::TooLarge));
    }
    parse(&bytes).map_err(failed)
}

/// Looks at words that are to be the lines of a nodes file.
///
/// # Errors
/// What is wrong with one of them.
pub fn check(words: &[&str]) -> Result<(), String> {
    if let Some(word) = words.iter().find(|word| word.contains('#')) {
        return Err(format!("{word:?} has a #, behind which a line does not count"));
    }
    match parse(words.join("\n").as_bytes()) {
        Ok(_) | Err(Mistake::Empty) => Ok(()),
        Err(Mistake::Line(_, LineMistake::Again(worker, _))) => Err(format!("worker {worker} is on the list twice")),
        Err(Mistake::Line(_, mistake)) => Err(mistake.to_string()),
        // These are of files.
        Err(Mistake::Read(_) | Mistake::TooLarge) => Err("no list of workers".into()),
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<WorkerAddress>, Mistake> {
    let mut workers: Vec<(usize, WorkerAddress)> = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let failed = |mistake| Mistake::Line(number, mistake);
        let Some(worker) = parse_line(line).map_err(failed)? else { continue };
        if let Some((line, _)) = workers.iter().find(|(_, other)| other.address == worker.address) {
            return Err(failed(LineMistake::Again(worker.address.to_string(), *line)));
        }
        if workers.len() == MAX_WORKERS {
            return Err(failed(LineMistake::TooMany));
        }
        workers.push((number, worker));
    }
    if workers.is_empty() { Err(Mistake::Empty) } else { Ok(workers.into_iter().map(|(_, worker)| worker).collect()) }
}

/// The worker of a line, if it names one.
fn parse_line(line: &[u8]) -> Result<Option<WorkerAddress>, LineMistake> {
    let line = str::from_utf8(line).map_err(|_| LineMistake::NotText)?;
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    if line.contains(char::is_whitespace) {
        return Err(LineMistake::Words(line.into()));
    }
    let Some((user, target)) = line.split_once('@') else {
        return line.parse().map(Some).map_err(LineMistake::Address);
    };
    let is_user = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if user.is_empty() || !user.chars().all(is_user) {
        return Err(LineMistake::User(user.into()));
    }
    let mut worker: WorkerAddress = target.parse().map_err(LineMistake::Address)?;
    worker.address.port = DEFAULT_PORT;
    Ok(Some(worker))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        NodesFileError { path: "nodes".into(), mistake: parse(bytes).unwrap_err() }.to_string()
    }

    #[test]
    fn workers_stand_one_on_a_line() {
        let text = "# kitchen\n\n10.0.0.2\r\n 10.0.0.3:9991 # the old one\npi@pi-4.local:2222\nroot@[fe80::1]\ndllama://10.0.0.5:1\n";
        let workers: Vec<_> = parse(text.as_bytes()).unwrap();
        let addresses: Vec<_> = workers.iter().map(|worker| worker.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.2:9990", "10.0.0.3:9991", "pi-4.local:9990", "[fe80::1]:9990", "10.0.0.5:1"]);
        assert_eq!(
            workers.iter().map(|worker| worker.is_dllama).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, want) in [
            ("", "the nodes file nodes names no worker; write one HOST:PORT a line"),
            ("# only\n\n", "the nodes file nodes names no worker; write one HOST:PORT a line"),
            ("a\n\nb c", "nodes:3: \"b c\" is more than one word; write one [USER@]HOST[:PORT] a line"),
            ("a:70000", "nodes:1: \"70000\" is not a port; allowed: 1 to 65535"),
            (
                "pi@",
                "nodes:1: \"\" is not a host; write HOST:PORT, where HOST is a name, an IPv4 address or a [bracketed] IPv6 address",
            ),
            ("@a", "nodes:1: \"\" is no name of a user; write [USER@]HOST[:PORT]"),
            ("x;y@a", "nodes:1: \"x;y\" is no name of a user; write [USER@]HOST[:PORT]"),
            ("pi@a:x", "nodes:1: \"x\" is not a port; allowed: 1 to 65535"),
            ("a\nb\npi@a:22", "nodes:3: worker a:9990 is on line 1 already"),
        ] {
            assert_eq!(message(text.as_bytes()), want);
        }
        assert_eq!(message(b"a\n\xff"), "nodes:2: this is no text in UTF-8");
        let many: String = (0..=MAX_WORKERS).map(|host| format!("h{host}\n")).collect();
        assert_eq!(message(many.as_bytes()), "nodes:256: more than 255 workers; a session has no more");
    }

    #[test]
    fn what_is_no_such_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes");
        let message = |path: &Path| read(path).unwrap_err().to_string();
        assert!(message(&path).starts_with("cannot read the nodes file "), "{}", message(&path));
        assert!(message(folder.path()).ends_with("it is a folder; a regular file is needed"));
        std::fs::write(&path, vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
        assert!(message(&path).ends_with("more than 1048576 bytes; is it another file?"), "{}", message(&path));
        std::fs::write(&path, "a").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
    }
}
