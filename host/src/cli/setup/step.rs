//! The pages of the guide: what each is about, and what it asks for.

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

/// What stands on a page, in ASCII.
#[derive(Debug)]
pub struct Page {
    /// What it is called, as in the state file.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub title: &'static str,
    /// What one should know.
    pub text: &'static str,
    /// The same as a drawing, of 60 columns at most.
    pub diagram: &'static [&'static str],
    /// What it asks for.
    pub fields: &'static [Field],
}

const PAGES: [Page; Step::ALL.len()] = [
    Page {
        name: "nodes",
        title: "which machines compute",
        text: "This machine is the root: it takes questions. Other machines may be workers, which compute a part of \
            every token. Leave the list empty to use this machine alone; d looks for workers that run in this network \
            already.",
        diagram: &[
            "                  +--> worker 10.0.0.2:9990",
            "  this machine ---+",
            "     (root)       +--> worker 10.0.0.3:9990",
        ],
        fields: &[Field::Nodes, Field::NodesFile],
    },
    Page {
        name: "model",
        title: "what they compute",
        text: "A name of the catalogue is fetched by dair pull, on the terms that dair list --catalogue names; nothing \
            else here fetches a model. Or name a file: a .m model, a GGUF file or a Hugging Face folder, which is \
            converted once.",
        diagram: &[
            "  name --- dair pull ---> cache --+",
            "                                  +--> model.m, model.t",
            "  GGUF file, folder, .m file -----+",
        ],
        fields: &[Field::Model],
    },
    Page {
        name: "key",
        title: "who is let in",
        text: "Nodes that have the same key encrypt what they say and let nobody else in. A key that is there is used \
            as it is. This machine alone needs none.",
        diagram: &[
            "  root [key] <=== encrypted ===> [key] worker",
            "                 ^",
            "                 x--- anybody without the key",
        ],
        fields: &[Field::Key],
    },
    Page {
        name: "deployment",
        title: "bring workers to the nodes and start them",
        text: "Each node gets the worker, the model and the key by ssh, which must let you in without a question \
            (ssh-copy-id); SSH_OPTS holds options of ssh. Where you start host-worker by yourself, with model and key, \
            set deploy to no: then workers are only asked what they have.",
        diagram: &[
            "                  +--> 10.0.0.2: host-worker, model.m, key",
            "  this machine ---+ ssh",
            "                  +--> 10.0.0.3: host-worker, model.m, key",
        ],
        fields: &[Field::Deploy, Field::RemoteDir, Field::Bundles],
    },
    Page {
        name: "answer",
        title: "see whether it works",
        text: "The model answers one question, with all nodes. It is the same answer on one node and on many.",
        diagram: &["  question ---> root <===> workers", "                 |", "                 +---> answer"],
        fields: &[Field::Question],
    },
];

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Nodes, Self::Model, Self::Key, Self::Deployment, Self::Answer];

    /// What stands there.
    pub fn page(self) -> &'static Page {
        &PAGES[self as usize]
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        self.page().name
    }

    /// Name and purpose.
    pub fn title(self) -> String {
        format!("{}: {}", self.page().name, self.page().title)
    }

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_on_one_page_and_pages_have_the_names_of_steps() {
        let fields: Vec<Field> = Step::ALL.iter().flat_map(|step| step.page().fields).copied().collect();
        assert_eq!(fields, Field::ALL);
        for step in Step::ALL {
            assert_eq!(serde_json::to_value(step).unwrap(), step.name());
            let lines = step.page().diagram.iter().chain([&step.page().text, &step.page().title]);
            lines.for_each(|line| assert!(line.is_ascii(), "{line}"));
            assert!(step.page().diagram.iter().all(|line| line.len() <= 60));
        }
    }
}
