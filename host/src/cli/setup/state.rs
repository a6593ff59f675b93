//! What the guide remembers: one file, renamed into its place whenever something has been done.

use super::config::{self, Config, Field};
use super::step::Step;
use super::world::World;
use crate::machine::file;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Raised when older programs can't read the file any more.
const VERSION: u32 = 1;
/// Largest file that is read, of a state or of a configuration.
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

impl State {
    /// At the beginning.
    pub fn new(world: &World) -> Self {
        Self { current: Step::Nodes, completed: BTreeSet::new(), config: Config::new(world), model_file: None }
    }

    /// Reads a file, if there is one.
    ///
    /// # Errors
    /// A line that names the file, what is wrong with it, and what to do.
    pub fn read(path: &Path, world: &World) -> Result<Option<Self>, String> {
        let hint = "move it away to begin again, or name another file by --state";
        let failed = |what: String| format!("cannot use the state {}: {what}; {hint}", path.display());
        match read_json(path) {
            Ok(object) => Self::parse(object, world).map(Some).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn parse(object: Value, world: &World) -> Result<Self, String> {
        // What a later version has besides is not judged by this one.
        if let Some(version) = object["wizard_version"].as_u64().filter(|version| *version != u64::from(VERSION)) {
            return Err(format!(
                "it is of version {version}, and this dair knows {VERSION}: use the dair that wrote it"
            ));
        }
        let written: Written = serde_json::from_value(object).map_err(|error| error.to_string())?;
        let mut config = Config::new(world);
        for (field, text) in config::fields(&written.config)? {
            config.set(field, text, world)?;
        }
        let Written { current_step: current, completed_steps: completed, model_file, .. } = written;
        Ok(Self { current, completed, config, model_file })
    }

    /// Writes it; whoever is interrupted has the old one or the new one.
    ///
    /// # Errors
    /// A line that names the file.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let written = Written {
            wizard_version: VERSION,
            current_step: self.current,
            completed_steps: self.completed.clone(),
            config: self.config.to_json(),
            model_file: self.model_file.clone(),
        };
        let write = || replace(path, &format!("{:#}\n", serde_json::to_value(&written)?));
        write()
            .map_err(|error| format!("cannot write the state {}: {error}; --state names another file", path.display()))
    }

    /// Takes the values of a configuration.
    ///
    /// # Errors
    /// A line that names the file and what is wrong with it.
    pub fn take_config(&mut self, path: &Path, world: &World) -> Result<(), String> {
        let mut take = || {
            let object = read_json(path).map_err(|error| error.to_string())?;
            let object = object.as_object().ok_or("an object of JSON is needed")?;
            config::fields(object)?.into_iter().try_for_each(|(field, text)| self.set(field, text, world))
        };
        take().map_err(|what: String| format!("cannot use the configuration {}: {what}", path.display()))
    }

    /// Takes what a user wrote; what was done with another value is to be done again.
    ///
    /// # Errors
    /// What is wrong with it; the value stays.
    pub fn set(&mut self, field: Field, text: &str, world: &World) -> Result<(), String> {
        let mut config = self.config.clone();
        config.set(field, text, world)?;
        if let Some(line) = config.missing(field, world) {
            return Err(line);
        }
        if config != self.config {
            self.config = config;
            let step = field.step();
            let depends = |done: Step| done == step || (done >= Step::Deployment && done > step);
            self.completed.retain(|done| !depends(*done));
            self.model_file.take_if(|_| step == Step::Model);
        }
        Ok(())
    }
}

fn read_json(path: &Path) -> io::Result<Value> {
    let mut bytes = Vec::new();
    file::open_regular(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// Writes a file, which has the old text or the new one at any time.
///
/// # Errors
/// Those of the system.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let (folder, world) = (tempfile::tempdir().unwrap(), example());
        let path = folder.path().join("a/b/setup.json");
        assert_eq!(State::read(&path, &world).unwrap(), None);
        let mut state = State::new(&world);
        state.set(Field::Nodes, "a, b", &world).unwrap();
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
            (String::new(), "EOF"),
            (good("1", "key", "")[..30].into(), "EOF"),
            ("[]".into(), "invalid length 0"),
            ("7".into(), "invalid type: integer"),
            (good("1", "keys", ""), "unknown variant `keys`"),
            (good("1", "key", r#""nodez": "a""#), "\"nodez\" is no key"),
            (good("1", "key", r#""deploy": "x""#), "deploy is \"x\""),
            (good("2", "nobody knows", ""), "it is of version 2, and this dair knows 1"),
            (" ".repeat(MAX_BYTES as usize + 1), "has more than 1048576 bytes"),
        ] {
            fs::write(&path, &text).unwrap();
            let line = State::read(&path, &world).unwrap_err();
            assert!(line.contains(want) && line.contains("--state") && !line.contains('\n'), "{line}");
        }
        assert!(State::read(folder.path(), &world).unwrap_err().contains("it is a folder"));
        assert!(State::new(&world).write(&path.join("x")).unwrap_err().contains("--state names another file"));
    }

    #[test]
    fn another_value_makes_what_depends_on_it_undone() {
        let world = example();
        let all = State { completed: Step::ALL.into(), model_file: Some("/m.m".into()), ..State::new(&world) };
        for (field, text, want) in [
            (Field::Nodes, "a", ("model key", true)),
            (Field::Model, "~/there/m.m", ("nodes key", false)),
            (Field::Key, "k", ("nodes model", true)),
            (Field::Deploy, "no", ("nodes model key", true)),
            (Field::Question, "Who?", ("nodes model key deployment", true)),
        ] {
            let mut state = all.clone();
            let same = state.config.value(field).to_owned();
            assert_eq!((state.set(field, &same, &world), &state), (Ok(()), &all));
            state.set(field, text, &world).unwrap();
            let names: Vec<_> = state.completed.iter().map(|step| step.name()).collect();
            assert_eq!((&*names.join(" "), state.model_file.is_some()), want);
        }
    }

    #[test]
    fn what_is_not_there_is_refused_when_it_is_typed_and_not_when_it_is_remembered() {
        let (folder, world) = (tempfile::tempdir().unwrap(), example());
        let mut state = State::new(&world);
        let before = state.clone();
        assert_eq!(state.set(Field::Model, "/gone.m", &world).unwrap_err(), "model: there is no /gone.m");
        assert!(state.set(Field::Model, "smollm", &world).unwrap_err().contains("dair list --catalogue shows"));
        assert_eq!(state, before);
        state.config.set(Field::Model, "/gone.m", &world).unwrap();
        let path = folder.path().join("setup.json");
        state.write(&path).unwrap();
        assert_eq!(State::read(&path, &world), Ok(Some(state)));
    }
}
