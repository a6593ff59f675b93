//! What the guide asks for: the keys of a configuration, what stands in them unless somebody says otherwise, and what may.

use super::step::Step;
use super::world::World;
use crate::cluster::nodes_file;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Longest value in bytes: as many nodes as there may be, with long names.
const MAX_BYTES: usize = 64 << 10;
/// Longest name of a model, as `dair pull` takes it.
const MODEL_NAME_MAX: usize = 100;

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

    /// The key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::NodesFile => "nodes_file",
            Self::Model => "model",
            Self::Key => "key",
            Self::Deploy => "deploy",
            Self::RemoteDir => "remote_dir",
            Self::Bundles => "bundles",
            Self::Question => "question",
        }
    }

    /// What goes there, in 67 columns at most: names stand before it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Nodes => "[USER@]HOST[:PORT], ...: behind USER@ the port is ssh's",
            Self::NodesFile => "where the list goes; one of your own is used if the list is empty",
            Self::Model => "a file, or a name that dair list --catalogue shows",
            Self::Key => "the file with the cluster's key",
            Self::Deploy => "yes or no",
            Self::RemoteDir => "folder on the nodes; without / in front, one in the user's home",
            Self::Bundles => "folder with bundles; empty: where package_worker.sh puts them",
            Self::Question => "one line",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
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
        if text.is_empty() && !matches!(self, Self::Nodes | Self::Bundles) {
            return Err(format!("{} is empty: {}", self.name(), self.hint()));
        }
        let path = |text: &str| world.path(text).to_string_lossy().into_owned();
        let value = match self {
            Self::Nodes => {
                let words: Vec<_> = words(text).collect();
                if let Some(worker) = words.iter().find(|word| word.contains("dllama://")) {
                    return Err(format!("nodes: {worker}: workers of C++ Distributed-Llama can't be set up here"));
                }
                nodes_file::check(&words).map_err(|error| format!("nodes: {error}"))?;
                words.join(", ")
            }
            Self::Bundles if text.is_empty() => String::new(),
            Self::NodesFile | Self::Key | Self::Bundles => path(text),
            Self::Model if is_model_name(text, world) => text.to_owned(),
            Self::Model => path(text),
            Self::Deploy if matches!(text, "yes" | "no") => text.to_owned(),
            Self::Deploy => return Err(format!("deploy is {text:?}; allowed: yes, no")),
            Self::RemoteDir => {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/+@-".contains(c);
                let goes_up = text.split('/').any(|part| part == "..");
                if !text.chars().all(is_plain) || goes_up || text.starts_with('-') || text.chars().all(|c| c == '/') {
                    return Err(format!(
                        "remote_dir is {text:?}; allowed are letters, digits and ._/+@-, no .. and not / itself"
                    ));
                }
                text.to_owned()
            }
            Self::Question => text.to_owned(),
        };
        Ok(value)
    }

    /// What a value names that is not there, and has to be.
    fn missing(self, value: &str, world: &World) -> Option<String> {
        let is_path = match self {
            Self::Model => value.contains('/'),
            Self::Bundles => !value.is_empty(),
            _ => false,
        };
        (is_path && !world.has(value)).then(|| format!("{}: there is no {value}", self.name()))
    }
}

/// The entries of a list of nodes.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

/// Whether a model is one of the catalogue: a file of that name is taken first.
fn is_model_name(text: &str, world: &World) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_file = [".m", ".gguf"].iter().any(|ending| text.ends_with(ending)) || world.has(world.path(text));
    text.chars().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= MODEL_NAME_MAX
        && !is_file
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
pub struct Config {
    values: [String; Field::ALL.len()],
    /// The nodes file of whoever names no other.
    default_nodes_file: String,
}

impl Config {
    /// What stands there unless somebody says otherwise.
    pub fn new(world: &World) -> Self {
        Self {
            values: Field::ALL.map(|field| field.default_value(world)),
            default_nodes_file: Field::NodesFile.default_value(world),
        }
    }

    /// A value; it has been read.
    pub fn value(&self, field: Field) -> &str {
        &self.values[field as usize]
    }

    /// Takes what a user wrote. Returns whether it is another value.
    ///
    /// # Errors
    /// What is wrong with it; the value stays.
    pub fn set(&mut self, field: Field, text: &str, world: &World) -> Result<bool, String> {
        let value = field.read(text, world)?;
        if let Some(line) = field.missing(&value, world) {
            return Err(line);
        }
        let old = std::mem::replace(&mut self.values[field as usize], value);
        Ok(old != self.values[field as usize])
    }

    /// What the values name that is not there, on the page of `step`.
    pub fn missing(&self, step: Step, world: &World) -> Option<String> {
        step.fields().iter().find_map(|field| field.missing(self.value(*field), world))
    }

    /// Who computes.
    pub fn workers(&self) -> Workers<'_> {
        match (words(self.value(Field::Nodes)).collect::<Vec<_>>(), self.value(Field::NodesFile)) {
            (list, _) if !list.is_empty() => Workers::Listed(list),
            (_, file) if file != self.default_nodes_file => Workers::InFile,
            _ => Workers::None,
        }
    }

    /// The model, where it is a file.
    pub fn model_path(&self) -> Option<PathBuf> {
        let model = self.value(Field::Model);
        model.contains('/').then(|| model.into())
    }

    /// All values, as in files.
    pub fn to_json(&self) -> Map<String, Value> {
        Field::ALL.into_iter().map(|field| (field.name().to_owned(), self.value(field).into())).collect()
    }

    /// Takes values out of a file, each by `take`.
    ///
    /// # Errors
    /// Names a key that is none, or whose value is none.
    pub fn each(
        object: &Map<String, Value>,
        mut take: impl FnMut(Field, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        object.iter().try_for_each(|(name, value)| {
            let known = || Field::ALL.map(Field::name).join(", ");
            let field = Field::of_name(name).ok_or_else(|| format!("{name:?} is no key; keys: {}", known()))?;
            let value = value.as_str().ok_or_else(|| format!("{name} is {value}; a text in quotes is needed"))?;
            take(field, value)
        })
    }

    /// As [`Self::set`], of a file that was written here before: what has gone away since is noticed when it is needed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(&mut self, field: Field, text: &str, world: &World) -> Result<(), String> {
        self.values[field as usize] = field.read(text, world)?;
        Ok(())
    }
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
            assert!(field.hint().is_ascii() && field.hint().len() <= 67, "{field:?}");
        }
        assert_eq!(config.workers(), Workers::None);
    }

    #[test]
    fn what_is_no_value_is_said_and_what_is_allowed() {
        let world = example();
        for (field, text, want) in [
            (Field::Nodes, "pi@", "nodes: \"\" is not a host"),
            (Field::Nodes, "a b:0", "nodes: \"0\" is not a port; allowed: 1 to 65535"),
            (Field::Nodes, "a, x;y@b", "nodes: \"x;y\" is no name of a user"),
            (Field::Nodes, "a, pi@a:22", "nodes: worker a:9990 is"),
            (Field::Nodes, "a#b", "nodes: \"a#b\" has a #"),
            (Field::Nodes, "dllama://a", "nodes: dllama://a: workers of C++ Distributed-Llama"),
            (Field::Model, "", "model is empty: a file, or a name"),
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
            (Field::Model, "qwen3_0.6b_q40", "qwen3_0.6b_q40"),
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
    fn a_model_that_is_not_there_is_refused_when_it_is_typed_and_not_when_it_is_remembered() {
        let world = example();
        let mut config = Config::new(&world);
        let error = config.set(Field::Model, "/gone.m", &world).unwrap_err();
        assert_eq!(
            (error.as_str(), config.value(Field::Model)),
            ("model: there is no /gone.m", "smollm2_135m_instruct")
        );
        config.restore(Field::Model, "/gone.m", &world).unwrap();
        assert_eq!(config.missing(Step::Model, &world).as_deref(), Some("model: there is no /gone.m"));
        assert_eq!(config.set(Field::Model, "~/there/m.m", &world), Ok(true));
        assert_eq!(config.set(Field::Model, "/home/ann/there/m.m", &world), Ok(false));
        assert_eq!(
            (config.missing(Step::Model, &world), config.model_path()),
            (None, Some("/home/ann/there/m.m".into()))
        );
    }

    #[test]
    fn a_list_counts_before_a_file_and_a_file_of_ones_own_before_nothing() {
        let world = example();
        let mut config = Config::new(&world);
        config.set(Field::NodesFile, "~/cluster", &world).unwrap();
        assert_eq!(config.workers(), Workers::InFile);
        config.set(Field::Nodes, "a,b", &world).unwrap();
        assert_eq!(config.workers(), Workers::Listed(vec!["a", "b"]));
    }

    #[test]
    fn files_have_these_keys_and_no_others() {
        let world = example();
        let read = |value: Value| {
            let mut config = Config::new(&world);
            let object = value.as_object().cloned().unwrap();
            Config::each(&object, |field, text| config.set(field, text, &world).map(drop)).map(|()| config)
        };
        let mut config = Config::new(&world);
        config.set(Field::Nodes, "a, b", &world).unwrap();
        assert_eq!(read(Value::Object(config.to_json())), Ok(config));
        assert!(
            read(json!({"modle": "x"})).unwrap_err().starts_with("\"modle\" is no key; keys: nodes, nodes_file, model")
        );
        assert_eq!(read(json!({"nodes": ["a"]})).unwrap_err(), "nodes is [\"a\"]; a text in quotes is needed");
        assert_eq!(read(json!({"deploy": "x"})).unwrap_err(), "deploy is \"x\"; allowed: yes, no");
    }
}
