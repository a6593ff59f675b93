//! What the guide asks for: the keys of a configuration, what stands in them unless somebody says otherwise, and what may.

use super::step::Step;
use super::world::World;
use crate::cluster::nodes_file;
use crate::model::catalogue;
use crate::model::store::{Name, Store};
use serde_json::{Map, Value};

/// Longest value in bytes: as many nodes as there may be, with long names.
const MAX_BYTES: usize = 64 << 10;

/// A key of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Targets of ssh, or addresses of workers.
    Nodes,
    /// Where that list is.
    NodesFile,
    /// A file, or a name of the catalogue.
    Model,
    /// The file with the cluster's key.
    Key,
    /// Whether workers are brought to the nodes.
    Deploy,
    /// Where they go there.
    RemoteDir,
    /// Where they come from.
    Bundles,
    /// The first question.
    Question,
}

impl Field {
    /// All of them, in the order of the pages.
    pub const ALL: [Self; 8] = [
        Self::Nodes,
        Self::NodesFile,
        Self::Model,
        Self::Key,
        Self::Deploy,
        Self::RemoteDir,
        Self::Bundles,
        Self::Question,
    ];

    /// The key, and what goes there.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Nodes => ("nodes", "[USER@]HOST[:PORT], ...: behind USER@ the port is ssh's"),
            Self::NodesFile => ("nodes_file", "where the list goes; one of your own is used if the list is empty"),
            Self::Model => ("model", "a file, or a name that dair list --catalogue shows"),
            Self::Key => ("key", "the file with the cluster's key"),
            Self::Deploy => ("deploy", "yes, or no where host-worker runs already"),
            Self::RemoteDir => ("remote_dir", "folder on the nodes; without / in front, one in the user's home"),
            Self::Bundles => ("bundles", "folder with bundles; empty: where package_worker.sh puts them"),
            Self::Question => ("question", "one line"),
        }
    }

    /// The key.
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// What goes there.
    pub const fn hint(self) -> &'static str {
        self.words().1
    }

    /// The page that asks for it.
    pub fn step(self) -> Step {
        let asks = |step: &Step| step.page().fields.contains(&self);
        Step::ALL.into_iter().find(asks).unwrap_or(Step::Nodes)
    }

    fn default_value(self, world: &World) -> String {
        let path = |name| world.config.join(name).to_string_lossy().into_owned();
        match self {
            Self::Nodes | Self::Bundles => String::new(),
            Self::NodesFile => path("nodes"),
            Self::Model => "smollm2_135m_instruct".into(),
            Self::Key => path("key"),
            Self::Deploy => "yes".into(),
            Self::RemoteDir => "/opt/dair".into(),
            Self::Question => "What is the capital of France?".into(),
        }
    }

    /// The value that `text` stands for.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub fn read(self, text: &str, world: &World) -> Result<String, String> {
        let text = text.trim();
        if text.len() > MAX_BYTES {
            return Err(format!("{}: more than {MAX_BYTES} bytes", self.name()));
        }
        if text.contains(|c: char| c.is_control() && !(self == Self::Nodes && c.is_whitespace())) {
            return Err(format!("{}: a line of plain text is needed", self.name()));
        }
        if text.is_empty() {
            return match self {
                Self::Nodes | Self::Bundles => Ok(String::new()),
                _ => Err(format!("{} is empty: {}", self.name(), self.hint())),
            };
        }
        match self {
            Self::Nodes => read_nodes(text),
            Self::Model => read_model(text, world),
            Self::NodesFile | Self::Key | Self::Bundles => Ok(world.path(text)),
            Self::Deploy if !matches!(text, "yes" | "no") => Err(format!("deploy is {text:?}; allowed: yes, no")),
            Self::RemoteDir if !is_remote_folder(text) => {
                Err(format!("remote_dir is {text:?}; allowed are letters, digits and ._/+@-, no .. and not / itself"))
            }
            Self::Deploy | Self::RemoteDir | Self::Question => Ok(text.to_owned()),
        }
    }
}

/// The entries of a list of nodes.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

fn read_nodes(text: &str) -> Result<String, String> {
    let words: Vec<_> = words(text).collect();
    if let Some(worker) = words.iter().find(|word| word.contains("dllama://")) {
        return Err(format!("nodes: {worker}: workers of C++ Distributed-Llama can't be set up here"));
    }
    nodes_file::check(&words).map_err(|error| format!("nodes: {error}"))?;
    Ok(words.join(", "))
}

/// A name stays one, where no file is called so; paths begin at the root.
fn read_model(text: &str, world: &World) -> Result<String, String> {
    if text.contains("://") {
        return Err(format!("model: dair pull {text} gets it; then its name goes here"));
    }
    let path = world.path(text);
    let is_file = [".m", ".gguf"].iter().any(|ending| text.ends_with(ending)) || world.has(&path);
    let name = catalogue::find(text).map_or(text, |entry| entry.name);
    Ok(if !is_file && Name::new(name).is_ok() { name.to_owned() } else { path })
}

fn is_path(model: &str) -> bool {
    model.contains('/')
}

/// Whether something is here under this name, from wherever it was pulled.
fn is_pulled(name: &str) -> bool {
    Store::of_user().ok().zip(Name::new(name).ok()).is_some_and(|(store, name)| store.find(&name).is_some())
}

fn is_remote_folder(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/+@-".contains(c);
    text.chars().all(is_plain)
        && !text.split('/').any(|part| part == "..")
        && !text.starts_with('-')
        && !text.chars().all(|c| c == '/')
}

/// Who computes.
#[derive(Debug, PartialEq, Eq)]
pub enum Workers<'a> {
    /// Nobody but this machine.
    None,
    /// Those of a list, which the file is to hold.
    Listed(Vec<&'a str>),
    /// Those of a file that is there.
    InFile,
}

/// A value for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config([String; Field::ALL.len()]);

impl Config {
    /// What stands there unless somebody says otherwise.
    pub fn new(world: &World) -> Self {
        Self(Field::ALL.map(|field| field.default_value(world)))
    }

    /// A value; it has been read.
    pub fn value(&self, field: Field) -> &str {
        &self.0[field as usize]
    }

    /// Takes what somebody wrote, here or into a file.
    ///
    /// # Errors
    /// What is wrong with it; the value stays. What is not there is no mistake: see [`Self::missing`].
    pub fn set(&mut self, field: Field, text: &str, world: &World) -> Result<(), String> {
        self.0[field as usize] = field.read(text, world)?;
        Ok(())
    }

    /// A line about what a value names that is not there, and has to be.
    pub fn missing(&self, field: Field, world: &World) -> Option<String> {
        let value = self.value(field);
        let is_there = match field {
            Field::Model if is_path(value) => world.has(value),
            Field::Model if catalogue::find(value).is_none() && !is_pulled(value) => {
                return Some(format!(
                    "model: there is no file {value} in {}, and no model of that name: dair list --catalogue shows them",
                    world.folder.display()
                ));
            }
            Field::Bundles => value.is_empty() || world.has(value),
            _ => true,
        };
        (!is_there).then(|| format!("{}: there is no {value}", field.name()))
    }

    /// Who computes: those of the list before those of a file, which is no other than the user's own.
    pub fn workers(&self, world: &World) -> Workers<'_> {
        let list: Vec<_> = words(self.value(Field::Nodes)).collect();
        if !list.is_empty() {
            Workers::Listed(list)
        } else if self.value(Field::NodesFile) != Field::NodesFile.default_value(world) {
            Workers::InFile
        } else {
            Workers::None
        }
    }

    /// Whether the model is one that `dair pull` knows by its name.
    pub fn is_in_catalogue(&self) -> bool {
        let model = self.value(Field::Model);
        !is_path(model) && catalogue::find(model).is_some()
    }

    /// All values, as in files.
    pub fn to_json(&self) -> Map<String, Value> {
        Field::ALL.into_iter().map(|field| (field.name().to_owned(), self.value(field).into())).collect()
    }
}

/// The values of a file.
///
/// # Errors
/// Names a key that is none, or whose value is no text.
pub fn fields(object: &Map<String, Value>) -> Result<Vec<(Field, &str)>, String> {
    object.iter().map(|(name, value)| entry(name, value)).collect()
}

fn entry<'v>(name: &str, value: &'v Value) -> Result<(Field, &'v str), String> {
    let keys = || Field::ALL.map(Field::name).join(", ");
    let field = Field::ALL.into_iter().find(|field| field.name() == name);
    let field = field.ok_or_else(|| format!("{name:?} is no key; keys: {}", keys()))?;
    let text = value.as_str().ok_or_else(|| format!("{name} is {value}; a text in quotes is needed"))?;
    Ok((field, text))
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_defaults_are_values() {
        let world = example();
        let config = Config::new(&world);
        for field in Field::ALL {
            assert_eq!(field.read(config.value(field), &world).as_deref(), Ok(config.value(field)), "{field:?}");
            assert!(field.hint().is_ascii() && field.step().page().fields.contains(&field), "{field:?}");
        }
        assert_eq!(config.workers(&world), Workers::None);
        assert!(config.is_in_catalogue());
    }

    #[test]
    fn what_is_no_value_is_said_and_what_is_allowed() {
        let world = example();
        for (field, text, want) in [
            (Field::Nodes, "pi@", "nodes: \"\" is not a host"),
            (Field::Nodes, "a b:0", "nodes: \"0\" is not a port; allowed: 1 to 65535"),
            (Field::Nodes, "a, x;y@b", "nodes: \"x;y\" is no name of a user"),
            (Field::Nodes, "a, pi@a:22", "nodes: worker a:9990 is on the list twice"),
            (Field::Nodes, "a#b", "nodes: \"a#b\" has a #"),
            (Field::Nodes, "dllama://a", "nodes: dllama://a: workers of C++ Distributed-Llama"),
            (Field::Model, "", "model is empty: a file, or a name"),
            (Field::Model, "https://a/m.m", "model: dair pull https://a/m.m gets it"),
            (Field::Deploy, "maybe", "deploy is \"maybe\"; allowed: yes, no"),
            (Field::RemoteDir, "/opt/../etc", "remote_dir is \"/opt/../etc\"; allowed are letters"),
            (Field::RemoteDir, "/", "remote_dir is \"/\""),
            (Field::RemoteDir, "-x", "remote_dir is \"-x\""),
            (Field::RemoteDir, "a;b", "remote_dir is \"a;b\""),
            (Field::Question, "a\nb", "question: a line of plain text is needed"),
            (Field::Key, " ", "key is empty"),
        ] {
            let error = field.read(text, &world).expect_err(text);
            assert!(error.starts_with(want), "{error:?} is not {want:?}");
        }
        let long = "a".repeat(MAX_BYTES + 1);
        assert!(Field::Question.read(&long, &world).unwrap_err().contains("65536 bytes"));
    }

    #[test]
    fn values_are_brought_into_one_form() {
        let world = example();
        for (field, text, want) in [
            (Field::Nodes, " pi@10.0.0.2:2222,10.0.0.3 \n10.0.0.4:9991,", "pi@10.0.0.2:2222, 10.0.0.3, 10.0.0.4:9991"),
            (Field::Nodes, " ", ""),
            (Field::Model, "qwen3-0.6b-q40", "qwen3_0.6b_q40"),
            (Field::Model, "mine", "mine"),
            (Field::Model, "m.m", "/home/ann/work/m.m"),
            (Field::Model, "~/there/m.m", "/home/ann/there/m.m"),
            (Field::Bundles, "", ""),
            (Field::Bundles, "dist", "/home/ann/work/dist"),
            (Field::RemoteDir, "dair", "dair"),
        ] {
            assert_eq!(field.read(text, &world).as_deref(), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn a_list_counts_before_a_file_and_a_file_of_ones_own_before_nothing() {
        let world = example();
        let mut config = Config::new(&world);
        config.set(Field::NodesFile, "~/cluster", &world).unwrap();
        assert_eq!(config.workers(&world), Workers::InFile);
        config.set(Field::Nodes, "a,b", &world).unwrap();
        assert_eq!(config.workers(&world), Workers::Listed(vec!["a", "b"]));
    }

    #[test]
    fn files_have_these_keys_and_no_others() {
        let world = example();
        let mut config = Config::new(&world);
        config.set(Field::Nodes, "a, b", &world).unwrap();
        let mut again = Config::new(&world);
        for (field, text) in fields(&config.to_json()).unwrap() {
            again.set(field, text, &world).unwrap();
        }
        assert_eq!(again, config);
        let error = |value: Value| fields(value.as_object().unwrap()).unwrap_err();
        assert!(error(json!({"modle": "x"})).starts_with("\"modle\" is no key; keys: nodes, nodes_file, model"));
        assert_eq!(error(json!({"nodes": ["a"]})), "nodes is [\"a\"]; a text in quotes is needed");
    }
}
