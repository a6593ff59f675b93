//! What the guide remembers: one file, renamed into its place whenever something has been done.

use super::config::Config;
use super::step::Step;
use super::world::World;
use crate::machine::file;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Raised when older programs can't read the file any more.
const VERSION: u32 = 1;
/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// How far somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The page.
    pub current: Step,
    /// What was done, with the values that stand there now.
    pub completed: BTreeSet<Step>,
    /// What was asked for.
    pub config: Config,
    /// The `.m` file of the model, once it is here.
    pub model_file: Option<PathBuf>,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    wizard_version: u32,
    current_step: Step,
    completed_steps: BTreeSet<Step>,
    config: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_file: Option<PathBuf>,
}

/// Why a state can't be used or kept.
#[derive(Debug)]
pub struct StateError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Read(io::Error),
    Write(io::Error),
    TooLarge,
    Newer(u64),
    Damaged(String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let hint = "move it away to begin again, or name another file by --state";
        match &self.why {
            Why::Read(error) => write!(f, "cannot read the state {path}: {error}"),
            Why::Write(error) => write!(f, "cannot write the state {path}: {error}; --state names another file"),
            Why::TooLarge => write!(f, "the state {path} has more than {MAX_BYTES} bytes; {hint}"),
            Why::Newer(version) => write!(
                f,
                "the state {path} is of version {version}, and this dair knows {VERSION}: use the newer dair that wrote it, or {hint}"
            ),
            Why::Damaged(what) => write!(f, "the state {path} is damaged ({what}); {hint}"),
        }
    }
}

impl std::error::Error for StateError {}

impl State {
    /// At the beginning.
    pub fn new(world: &World) -> Self {
        Self { current: Step::Nodes, completed: BTreeSet::new(), config: Config::new(world), model_file: None }
    }

    /// Reads a file, if there is one.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(path: &Path, world: &World) -> Result<Option<Self>, StateError> {
        let failed = |why| StateError { path: path.into(), why };
        let mut bytes = Vec::new();
        let file = match file::open_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| failed(Why::Read(error)))?,
        };
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(Why::Read(error)))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(failed(Why::TooLarge));
        }
        Self::parse(&bytes, world).map(Some).map_err(failed)
    }

    fn parse(bytes: &[u8], world: &World) -> Result<Self, Why> {
        let damaged = |error: serde_json::Error| Why::Damaged(error.to_string());
        let object: Value = serde_json::from_slice(bytes).map_err(damaged)?;
        // What a later version has besides is not judged by this one.
        if let Some(version) = object["wizard_version"].as_u64().filter(|version| *version > u64::from(VERSION)) {
            return Err(Why::Newer(version));
        }
        let written: Written = serde_json::from_value(object).map_err(damaged)?;
        if written.wizard_version != VERSION {
            return Err(Why::Damaged(format!("there is no version {}", written.wizard_version)));
        }
        let mut config = Config::new(world);
        Config::each(&written.config, |field, text| config.restore(field, text, world)).map_err(Why::Damaged)?;
        let Written { current_step: current, completed_steps: completed, model_file, .. } = written;
        Ok(Self { current, completed, config, model_file })
    }

    /// Writes it; whoever is interrupted has the old one or the new one.
    ///
    /// # Errors
    /// Names the file.
    pub fn write(&self, path: &Path) -> Result<(), StateError> {
        let written = Written {
            wizard_version: VERSION,
            current_step: self.current,
            completed_steps: self.completed.clone(),
            config: self.config.to_json(),
            model_file: self.model_file.clone(),
        };
        let write = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut file = NamedTempFile::new_in(folder)?;
            file.write_all(format!("{:#}\n", serde_json::to_value(&written)?).as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| StateError { path: path.into(), why: Why::Write(error) })
    }

    /// A value was changed on the page of `step`: what was done with the old one is to be done again.
    pub fn forget(&mut self, step: Step) {
        let depends = |done: Step| done == step || (done >= Step::Deployment && done > step);
        self.completed.retain(|done| !depends(*done));
        if step == Step::Model {
            self.model_file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Field;
    use super::super::world::example;
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nobody_else_reads_it() {
        let (folder, world) = (tempfile::tempdir().unwrap(), example());
        let path = folder.path().join("a/b/setup.json");
        assert_eq!(State::read(&path, &world).unwrap(), None);
        let mut state = State::new(&world);
        state.config.set(Field::Nodes, "a, b", &world).unwrap();
        state.current = Step::Key;
        state.completed.extend([Step::Nodes, Step::Model]);
        state.model_file = Some("/m.m".into());
        for _ in 0..2 {
            state.write(&path).unwrap();
            assert_eq!(State::read(&path, &world).unwrap().as_ref(), Some(&state));
        }
        let text = fs::read_to_string(&path).unwrap();
        for part in ["\"wizard_version\": 1", "\"current_step\": \"key\"", "\"completed_steps\"", "\"nodes\": \"a, b\""]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_state_is_one_line_that_says_what_to_do() {
        let (folder, world) = (tempfile::tempdir().unwrap(), example());
        let path = folder.path().join("setup.json");
        let good = |version: &str, step: &str, config: &str| {
            format!(
                r#"{{"wizard_version":{version},"current_step":"{step}","completed_steps":[],"config":{{{config}}}}}"#
            )
        };
        for (text, want) in [
            (String::new(), "is damaged (EOF"),
            (good("1", "key", "")[..30].into(), "is damaged (EOF"),
            ("[]".into(), "is damaged ("),
            (good("1", "keys", ""), "is damaged (unknown variant `keys`"),
            (good("1", "key", r#""nodez": "a""#), "is damaged (\"nodez\" is no key"),
            (good("1", "key", r#""deploy": "x""#), "is damaged (deploy is \"x\""),
            (good("0", "key", ""), "is damaged (there is no version 0)"),
            (good("2", "nobody knows", ""), "is of version 2, and this dair knows 1"),
            (" ".repeat(MAX_BYTES as usize + 1), "has more than 1048576 bytes"),
        ] {
            fs::write(&path, &text).unwrap();
            let line = State::read(&path, &world).unwrap_err().to_string();
            assert!(line.contains(want) && line.contains("--state") && !line.contains('\n'), "{line}");
        }
        assert!(State::read(folder.path(), &world).unwrap_err().to_string().contains("it is a folder"));
        assert!(
            State::new(&world).write(&path.join("x")).unwrap_err().to_string().contains("--state names another file")
        );
    }

    #[test]
    fn another_value_makes_what_depends_on_it_undone() {
        let world = example();
        let all = State { completed: Step::ALL.into(), model_file: Some("/m.m".into()), ..State::new(&world) };
        let after = |step| {
            let mut state = all.clone();
            state.forget(step);
            (state.completed.into_iter().map(Step::name).collect::<Vec<_>>().join(" "), state.model_file.is_some())
        };
        assert_eq!(after(Step::Nodes), ("model key".into(), true));
        assert_eq!(after(Step::Model), ("nodes key".into(), false));
        assert_eq!(after(Step::Key), ("nodes model".into(), true));
        assert_eq!(after(Step::Deployment), ("nodes model key".into(), true));
        assert_eq!(after(Step::Answer), ("nodes model key deployment".into(), true));
    }
}
