//! What a step does: commands, as they are run and as one would type them.

use super::config::{Field, Workers};
use super::state::State;
use super::step::Step;
use super::world::{DEPLOY, World};
use std::path::{Path, PathBuf};

/// First line of a nodes file that was written here; others are left alone.
pub const NODES_MARK: &str = "# Written by dair setup.";
/// This program, where one is named.
pub const DAIR: &str = "dair";
/// The script that makes bundles, in the folder `dist` of the sources.
const PACKAGE: &str = "package_worker.sh";
/// The script that asks whether workers answer.
const TEST: &str = "test_connection.sh";
/// Stands for a model file that nobody knows yet.
const UNKNOWN_MODEL: &str = "MODEL.m";

/// One of the things that a step does. Programs are words: which one, [`DAIR`] or the path of a script, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a nodes file.
    WriteNodes(PathBuf, Vec<String>),
    /// Looks at one that is there.
    ReadNodes(PathBuf),
    /// Runs a program.
    Run(Vec<String>),
}

impl Action {
    /// What one would type.
    pub fn shown(&self, world: &World) -> String {
        let path = |path: &Path| quoted(&path.to_string_lossy(), world);
        let words = |words: &[String]| words.iter().map(|word| quoted(word, world)).collect::<Vec<_>>().join(" ");
        match self {
            Self::WriteNodes(file, nodes) => {
                let folder = file.parent().map(path).unwrap_or_default();
                let lines = format!("{} {}", quoted(NODES_MARK, world), words(nodes));
                format!("mkdir -p {folder} && printf '%s\\n' {lines} > {}", path(file))
            }
            Self::ReadNodes(file) => format!("cat {}", path(file)),
            Self::Run(command) => words(command),
        }
    }
}

/// A word as a POSIX shell takes it. The user's folder is `~`.
fn quoted(word: &str, world: &World) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    let home = world.home.to_string_lossy();
    if word.is_empty() || !word.chars().all(is_plain) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    match word.strip_prefix(&*home).filter(|rest| home.len() > 1 && rest.starts_with('/')) {
        Some(rest) => format!("~{rest}"),
        None => word.into(),
    }
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn dair(args: &[&str]) -> Action {
    Action::Run(command(&[&[DAIR], args].concat()))
}

fn script(world: &World, name: &str, args: &[&str]) -> Action {
    let path = world.scripts.as_ref().map_or_else(|| name.into(), |folder| folder.join(name));
    Action::Run(command(&[&[&*path.to_string_lossy()], args].concat()))
}

/// What `step` does; nothing where there is nothing to do.
pub fn actions(step: Step, state: &State, world: &World) -> Vec<Action> {
    let value = |field| state.config.value(field);
    let workers = state.config.workers(world);
    let (model, nodes_file, key) = (value(Field::Model), value(Field::NodesFile), value(Field::Key));
    match (step, workers) {
        (Step::Model, _) => {
            // What was pulled from elsewhere has a name, too, but the catalogue does not know where from.
            let pull = state.config.is_in_catalogue().then(|| dair(&["pull", model]));
            pull.into_iter().chain([dair(&["inspect", "--model", model])]).collect()
        }
        (Step::Answer, workers) => {
            // Without a die, so that the answer is the same wherever it is asked.
            let question = value(Field::Question);
            let mut args = vec!["generate", "--model", model, "--chat", "--prompt", question, "--temperature", "0"];
            if workers != Workers::None {
                args.extend(["--nodes-file", nodes_file, "--key", key]);
            }
            vec![dair(&args)]
        }
        (_, Workers::None) => vec![],
        (Step::Nodes, Workers::Listed(nodes)) => vec![Action::WriteNodes(nodes_file.into(), command(&nodes))],
        (Step::Nodes, Workers::InFile) => vec![Action::ReadNodes(nodes_file.into())],
        (Step::Key, _) if world.has(key) => vec![dair(&["key", "show", "--key", key])],
        (Step::Key, _) => vec![dair(&["key", "new", key])],
        (Step::Deployment, _) if value(Field::Deploy) == "no" => {
            vec![dair(&["nodes", "--nodes-file", nodes_file, "--key", key])]
        }
        (Step::Deployment, _) => {
            let model = state.model_file.as_ref().map_or(UNKNOWN_MODEL.into(), |model| model.to_string_lossy());
            let bundles = value(Field::Bundles);
            let package = (bundles.is_empty() && lacks_bundles(world)).then(|| script(world, PACKAGE, &[]));
            let mut args = vec!["--model", &*model, "--key", key];
            if !bundles.is_empty() {
                args.extend(["--bundles", bundles]);
            }
            args.extend([nodes_file, value(Field::RemoteDir)]);
            let deploy = script(world, DEPLOY, &args);
            package.into_iter().chain([deploy, script(world, TEST, &["--key", key, nodes_file])]).collect()
        }
    }
}

/// Whether bundles have to be made, and can be: in the sources. Which ones nodes need, the script that brings them knows.
fn lacks_bundles(world: &World) -> bool {
    let sources = world.scripts.as_deref().and_then(Path::parent).filter(|folder| world.has(folder.join("Cargo.toml")));
    sources.is_some_and(|folder| !world.has(folder.join("dist")))
}

/// Why `step` can't be run as it is, though the steps before it are done.
pub fn obstacle(step: Step, state: &State, world: &World) -> Option<String> {
    let config = &state.config;
    let missing = step.page().fields.iter().find_map(|field| config.missing(*field, world));
    if missing.is_some() || step != Step::Deployment || config.value(Field::Deploy) == "no" {
        return missing;
    }
    if world.scripts.is_none() {
        return Some(format!(
            "there is no {DEPLOY} beside this program; dair setup --scripts FOLDER names where it is"
        ));
    }
    let model = state.model_file.as_ref().filter(|model| world.has(model));
    model.is_none().then(|| "the model is not here any more: run the step model again".into())
}

/// What to do when everything works, as one would type it.
pub fn next_commands(state: &State, world: &World) -> [String; 3] {
    let value = |field| state.config.value(field);
    let mut flags = vec!["--model", value(Field::Model)];
    if state.config.workers(world) != Workers::None {
        flags.extend(["--nodes-file", value(Field::NodesFile), "--key", value(Field::Key)]);
    }
    let shown = |name| dair(&[&[name], &flags[..]].concat()).shown(world);
    [shown("chat"), shown("serve"), "dair top".into()]
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;

    /// With these values, and a model that is there.
    fn state(values: &[(Field, &str)]) -> State {
        let world = example();
        let mut state = State::new(&world);
        for (field, text) in values {
            state.set(*field, text, &world).expect(text);
        }
        state.model_file = Some("/home/ann/there/m.m".into());
        state
    }

    fn shown(steps: &[Step], state: &State, world: &World) -> Vec<String> {
        let actions = steps.iter().flat_map(|step| actions(*step, state, world));
        actions.map(|action| action.shown(world)).collect()
    }

    #[test]
    fn alone_there_is_a_model_and_a_question() {
        let (world, state) = (example(), state(&[(Field::Question, "What's up?")]));
        assert_eq!(
            shown(&Step::ALL, &state, &world),
            [
                "dair pull smollm2_135m_instruct",
                "dair inspect --model smollm2_135m_instruct",
                r"dair generate --model smollm2_135m_instruct --chat --prompt 'What'\''s up?' --temperature 0",
            ]
        );
    }

    #[test]
    fn with_nodes_there_are_all_steps() {
        let world = example();
        let values = [
            (Field::Nodes, "pi@10.0.0.2:2222, 10.0.0.3"),
            (Field::Model, "~/there/my model.m"),
            (Field::Question, "-1?"),
        ];
        let state = state(&values);
        assert_eq!(
            shown(&Step::ALL, &state, &world),
            [
                "mkdir -p ~/.config/dair && printf '%s\\n' '# Written by dair setup.' pi@10.0.0.2:2222 10.0.0.3 > ~/.config/dair/nodes",
                "dair inspect --model '/home/ann/there/my model.m'",
                "dair key new ~/.config/dair/key",
                "/opt/share/dair/install/deploy_workers.sh --model ~/there/m.m --key ~/.config/dair/key ~/.config/dair/nodes /opt/dair",
                "/opt/share/dair/install/test_connection.sh --key ~/.config/dair/key ~/.config/dair/nodes",
                "dair generate --model '/home/ann/there/my model.m' --chat --prompt '-1?' --temperature 0 --nodes-file ~/.config/dair/nodes --key ~/.config/dair/key",
            ]
        );
    }

    #[test]
    fn what_is_there_is_used() {
        let world = example();
        let values = [(Field::NodesFile, "~/there/nodes"), (Field::Key, "~/there/key"), (Field::Deploy, "no")];
        let state = state(&values);
        let all = shown(&[Step::Nodes, Step::Key, Step::Deployment], &state, &world);
        let nodes = "dair nodes --nodes-file ~/there/nodes --key ~/there/key";
        assert_eq!(all, ["cat ~/there/nodes", "dair key show --key ~/there/key", nodes]);
    }

    #[test]
    fn bundles_are_made_in_the_sources_where_there_are_none() {
        let (mut world, state) = (example(), state(&[(Field::Nodes, "a")]));
        let calls = |world: &World| shown(&[Step::Deployment], &state, world).len();
        assert_eq!(calls(&world), 2);
        world.scripts = Some("/src/install".into());
        world.exists = |path| path == Path::new("/src/Cargo.toml");
        assert_eq!(calls(&world), 3);
        assert_eq!(shown(&[Step::Deployment], &state, &world)[0], "/src/install/package_worker.sh");
        world.exists = |path| path.starts_with("/src");
        assert_eq!(calls(&world), 2);
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let (mut world, mut state) = (example(), state(&[(Field::Nodes, "a")]));
        assert_eq!(obstacle(Step::Deployment, &state, &world), None);
        for model in [None, Some("/gone.m".into())] {
            state.model_file = model;
            assert!(obstacle(Step::Deployment, &state, &world).unwrap().contains("run the step model again"));
        }
        world.scripts = None;
        assert!(obstacle(Step::Deployment, &state, &world).unwrap().contains("--scripts FOLDER"));
        assert_eq!(obstacle(Step::Answer, &state, &world), None);
        state.config.set(Field::Model, "/gone.m", &world).unwrap();
        assert_eq!(obstacle(Step::Model, &state, &world).unwrap(), "model: there is no /gone.m");
    }

    #[test]
    fn what_was_pulled_from_elsewhere_is_not_pulled_by_its_name() {
        let (world, mut state) = (example(), state(&[]));
        state.config.set(Field::Model, "mine", &world).unwrap();
        assert_eq!(shown(&[Step::Model], &state, &world), ["dair inspect --model mine"]);
    }
}
