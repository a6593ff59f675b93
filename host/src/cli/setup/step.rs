//! The pages of the guide: what each is about.

use super::config::Field;
use serde::{Deserialize, Serialize};

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Which machines compute.
    Nodes,
    /// What they compute.
    Model,
    /// Who is let in.
    Key,
    /// How workers get there.
    Deployment,
    /// Whether it works.
    Answer,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Nodes, Self::Model, Self::Key, Self::Deployment, Self::Answer];

    /// Its place, from 1 on.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// The one behind it.
    pub fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    /// The one before it.
    pub fn previous(self) -> Option<Self> {
        Self::ALL.get((self as usize).checked_sub(1)?).copied()
    }

    /// What it is called, as in the state file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Model => "model",
            Self::Key => "key",
            Self::Deployment => "deployment",
            Self::Answer => "answer",
        }
    }

    /// What stands above it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Nodes => "Nodes: which machines compute",
            Self::Model => "Model: what they compute",
            Self::Key => "Key: who is let in",
            Self::Deployment => "Deployment: bring workers to the nodes and start them",
            Self::Answer => "First answer: see whether it works",
        }
    }

    /// What one should know. Lines of 78 columns at most.
    pub const fn text(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &[
                "This machine is the root: it takes questions. Other machines may be workers,",
                "which compute a part of every token. Leave the list empty to use this machine",
                "alone; d looks for workers that run in this network already.",
            ],
            Self::Model => &[
                "A name of the catalogue is fetched by dair pull, under the licence that dair",
                "list --catalogue names; nothing else here fetches a model. Or name a file: a .m",
                "model, a GGUF file or a Hugging Face folder, which is converted once.",
            ],
            Self::Key => &[
                "Nodes that have the same key encrypt what they say and let nobody else in. A",
                "key that is there is used as it is. This machine alone needs none.",
            ],
            Self::Deployment => &[
                "Each node gets the worker, the model and the key by ssh, which must let you in",
                "without a question (ssh-copy-id); SSH_OPTS holds options of ssh. Where workers",
                "run already, set deploy to no: then they are only asked what they have.",
            ],
            Self::Answer => {
                &["The model answers one question, with all nodes. It is the same answer on one", "node and on many."]
            }
        }
    }

    /// The same as a drawing, in ASCII.
    pub const fn diagram(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &[
                "                  +--> worker 10.0.0.2:9990",
                "  this machine ---+",
                "     (root)       +--> worker 10.0.0.3:9990",
            ],
            Self::Model => &[
                "  name --- dair pull ---> cache --+",
                "                                  +--> model.m, model.t",
                "  GGUF file, folder, .m file -----+",
            ],
            Self::Key => &[
                "  root [key] <=== encrypted ===> [key] worker",
                "                 ^",
                "                 x--- anybody without the key",
            ],
            Self::Deployment => &[
                "                  +--> 10.0.0.2: host-worker, model.m, key",
                "  this machine ---+ ssh",
                "                  +--> 10.0.0.3: host-worker, model.m, key",
            ],
            Self::Answer => {
                &["  question ---> root <===> workers", "                 |", "                 +---> answer"]
            }
        }
    }

    /// What it asks for.
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::Nodes => &[Field::Nodes, Field::NodesFile],
            Self::Model => &[Field::Model],
            Self::Key => &[Field::Key],
            Self::Deployment => &[Field::Deploy, Field::RemoteDir, Field::Bundles],
            Self::Answer => &[Field::Question],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_on_one_page_and_texts_fit_eighty_columns() {
        let fields: Vec<Field> = Step::ALL.iter().flat_map(|step| step.fields()).copied().collect();
        assert_eq!(fields, Field::ALL);
        for step in Step::ALL {
            let lines = step.text().iter().chain(step.diagram());
            lines.for_each(|line| assert!(line.is_ascii() && line.len() <= 79, "{line}"));
            assert!(step.title().len() < 80);
            assert_eq!(
                (step.next().and_then(Step::previous), step.number()),
                (step.next().map(|_| step), step as usize + 1)
            );
        }
    }
}
