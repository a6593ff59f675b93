//! What a step does: commands, as they are run and as one would type them.

use super::config::{Config, Field, Workers};
use super::step::Step;
use super::world::{DEPLOY, World};
use std::path::{Path, PathBuf};

/// First line of a nodes file that was written here; others are left alone.
pub const NODES_MARK: &str = "# Written by dair setup.";
/// The script that makes bundles, and what it makes.
const PACKAGE: &str = "package_worker.sh";
const BUNDLES: [&str; 3] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl", "armv7-unknown-linux-gnueabihf"];
/// The script that asks whether workers answer.
const TEST: &str = "test_connection.sh";
/// Stands for a model file that nobody knows yet.
const UNKNOWN_MODEL: &str = "MODEL.m";

/// One of the things that a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a nodes file.
    WriteNodes(PathBuf, Vec<String>),
    /// Looks at one that is there.
    ReadNodes(PathBuf),
    /// Runs a program.
    Call(Call),
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub program: Program,
    /// As they are given.
    pub args: Vec<String>,
    /// Whether it prints an object with the model's file, instead of something for people.
    pub tells_model: bool,
}

/// What can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This one.
    Dair,
    /// A script.
    Script(PathBuf),
}

impl Action {
    /// What one would type.
    pub fn shown(&self, world: &World) -> String {
        let path = |path: &Path| quoted(&path.to_string_lossy(), world);
        match self {
            Self::WriteNodes(file, nodes) => {
                let lines = [NODES_MARK].into_iter().chain(nodes.iter().map(String::as_str));
                let lines: Vec<_> = lines.map(|line| quoted(line, world)).collect();
                let folder = file.parent().map(path).unwrap_or_default();
                format!("mkdir -p {folder} && printf '%s\\n' {} > {}", lines.join(" "), path(file))
            }
            Self::ReadNodes(file) => format!("cat {}", path(file)),
            Self::Call(Call { program, args, .. }) => {
                let program = match program {
                    Program::Dair => "dair".into(),
                    Program::Script(script) => path(script),
                };
                let args = args.iter().map(|arg| quoted(arg, world));
                [program].into_iter().chain(args).collect::<Vec<_>>().join(" ")
            }
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

fn dair(args: &[&str]) -> Action {
    call(Program::Dair, args)
}

fn call(program: Program, args: &[&str]) -> Action {
    Action::Call(Call { program, args: args.iter().map(|&arg| arg.to_owned()).collect(), tells_model: false })
}

fn script(world: &World, name: &str, args: &[&str]) -> Action {
    let script = world.scripts.as_ref().map_or_else(|| name.into(), |folder| folder.join(name));
    call(Program::Script(script), args)
}

/// What `step` does; nothing where there is nothing to do. `model` is the `.m` file, where it is known.
pub fn actions(step: Step, config: &Config, model: Option<&Path>, world: &World) -> Vec<Action> {
    let value = |field| config.value(field);
    let workers = config.workers();
    let nodes_file = value(Field::NodesFile);
    let is_alone = workers == Workers::None;
    match step {
        Step::Nodes => match workers {
            Workers::None => vec![],
            Workers::Listed(nodes) => {
                vec![Action::WriteNodes(nodes_file.into(), nodes.into_iter().map(str::to_owned).collect())]
            }
            Workers::InFile => vec![Action::ReadNodes(nodes_file.into())],
        },
        Step::Model => {
            let model = value(Field::Model);
            let mut inspect = dair(&["inspect", "--model", model, "--json"]);
            if let Action::Call(call) = &mut inspect {
                call.tells_model = true;
            }
            let pull = config.model_path().is_none().then(|| dair(&["pull", model]));
            pull.into_iter().chain([inspect]).collect()
        }
        Step::Key if is_alone => vec![],
        Step::Key if world.has(value(Field::Key)) => vec![dair(&["key", "show", "--key", value(Field::Key)])],
        Step::Key => vec![dair(&["key", "new", value(Field::Key)])],
        Step::Deployment if is_alone => vec![],
        Step::Deployment if value(Field::Deploy) == "no" => {
            vec![dair(&["nodes", "--nodes-file", nodes_file, "--key", value(Field::Key)])]
        }
        Step::Deployment => deployment(config, model, world),
        Step::Answer => {
            let (model, question) = (value(Field::Model), value(Field::Question));
            // Without a die, so that the answer is the same wherever it is asked.
            let mut args = vec!["generate", "--model", model, "--chat", "--prompt", question, "--temperature", "0"];
            if !is_alone {
                args.extend(["--nodes-file", nodes_file, "--key", value(Field::Key)]);
            }
            vec![dair(&args)]
        }
    }
}

fn deployment(config: &Config, model: Option<&Path>, world: &World) -> Vec<Action> {
    let value = |field| config.value(field);
    let (bundles, key, nodes) = (value(Field::Bundles), value(Field::Key), value(Field::NodesFile));
    let model = model.map_or(UNKNOWN_MODEL.into(), Path::to_string_lossy);
    let mut actions = Vec::new();
    if bundles.is_empty() && lacks_bundles(world) {
        actions.push(script(world, PACKAGE, &[]));
    }
    let mut args = vec!["--model", &*model, "--key", key];
    if !bundles.is_empty() {
        args.extend(["--bundles", bundles]);
    }
    args.extend([nodes, value(Field::RemoteDir)]);
    actions.push(script(world, DEPLOY, &args));
    actions.push(script(world, TEST, &["--key", key, nodes]));
    actions
}

/// Whether bundles have to be made, and can be: in the sources.
fn lacks_bundles(world: &World) -> bool {
    let Some(repository) = world.scripts.as_deref().and_then(Path::parent) else { return false };
    let bundle = |triple: &str| repository.join(format!("dist/dist-worker-bundle-{triple}.tar.gz"));
    world.has(repository.join("Cargo.toml")) && !BUNDLES.into_iter().any(|triple| world.has(bundle(triple)))
}

/// Why `step` can't be run as it is, though the steps before it are done.
pub fn obstacle(step: Step, config: &Config, model: Option<&Path>, world: &World) -> Option<String> {
    if let Some(line) = config.missing(step, world) {
        return Some(line);
    }
    if step != Step::Deployment || config.workers() == Workers::None || config.value(Field::Deploy) == "no" {
        return None;
    }
    if world.scripts.is_none() {
        return Some(format!(
            "there is no {DEPLOY} beside this program; dair setup --scripts FOLDER names where it is"
        ));
    }
    let gone =
        |model: &Path| format!("there is no {} any more; run the step {} again", model.display(), Step::Model.name());
    match model {
        None => Some(format!("no model file is known; run the step {} again", Step::Model.name())),
        Some(model) => (!world.has(model)).then(|| gone(model)),
    }
}

/// What to do when everything works, as one would type it.
pub fn next_commands(config: &Config, world: &World) -> [String; 3] {
    let mut flags = vec!["--model", config.value(Field::Model)];
    if config.workers() != Workers::None {
        flags.extend(["--nodes-file", config.value(Field::NodesFile), "--key", config.value(Field::Key)]);
    }
    let flags: Vec<_> = flags.into_iter().map(|flag| quoted(flag, world)).collect();
    let flags = flags.join(" ");
    [format!("dair chat {flags}"), format!("dair serve {flags}"), "dair top".into()]
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;

    fn config(values: &[(Field, &str)]) -> Config {
        let world = example();
        let mut config = Config::new(&world);
        for (field, text) in values {
            config.set(*field, text, &world).expect(text);
        }
        config
    }

    fn shown(step: Step, config: &Config, world: &World) -> Vec<String> {
        let model = Some(Path::new("/home/ann/there/m.m"));
        actions(step, config, model, world).iter().map(|action| action.shown(world)).collect()
    }

    #[test]
    fn alone_there_is_a_model_and_a_question() {
        let (world, config) = (example(), config(&[(Field::Question, "What's up?")]));
        let all: Vec<_> = Step::ALL.iter().flat_map(|step| shown(*step, &config, &world)).collect();
        assert_eq!(
            all,
            [
                "dair pull smollm2_135m_instruct",
                "dair inspect --model smollm2_135m_instruct --json",
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
        let config = config(&values);
        let all: Vec<_> = Step::ALL.iter().flat_map(|step| shown(*step, &config, &world)).collect();
        assert_eq!(
            all,
            [
                "mkdir -p ~/.config/dair && printf '%s\\n' '# Written by dair setup.' pi@10.0.0.2:2222 10.0.0.3 > ~/.config/dair/nodes",
                "dair inspect --model '/home/ann/there/my model.m' --json",
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
        let config = config(&values);
        let steps = [Step::Nodes, Step::Key, Step::Deployment];
        let all: Vec<_> = steps.iter().flat_map(|step| shown(*step, &config, &world)).collect();
        let nodes = "dair nodes --nodes-file ~/there/nodes --key ~/there/key";
        assert_eq!(all, ["cat ~/there/nodes", "dair key show --key ~/there/key", nodes]);
    }

    #[test]
    fn bundles_are_made_in_the_sources_where_there_are_none() {
        let mut world = example();
        let config = config(&[(Field::Nodes, "a")]);
        let calls = |world: &World| shown(Step::Deployment, &config, world).len();
        assert_eq!(calls(&world), 2);
        world.scripts = Some("/src/install".into());
        world.exists = |path| path == Path::new("/src/Cargo.toml");
        assert_eq!(calls(&world), 3);
        assert_eq!(shown(Step::Deployment, &config, &world)[0], "/src/install/package_worker.sh");
        world.exists = |path| path.starts_with("/src");
        assert_eq!(calls(&world), 2);
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let mut world = example();
        let config = config(&[(Field::Nodes, "a")]);
        let obstacle = |step, model, world: &World| obstacle(step, &config, model, world).unwrap_or_default();
        assert_eq!(obstacle(Step::Deployment, Some(Path::new("/home/ann/there/m.m")), &world), "");
        assert!(obstacle(Step::Deployment, None, &world).contains("run the step model again"));
        assert!(obstacle(Step::Deployment, Some(Path::new("/gone.m")), &world).contains("no /gone.m any more"));
        world.scripts = None;
        assert!(obstacle(Step::Deployment, None, &world).contains("--scripts FOLDER"));
        assert_eq!(obstacle(Step::Answer, None, &world), "");
    }
}
