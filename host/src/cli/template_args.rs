//! Flags about the template of a chat, for every command that has one.

use super::Failure;
use crate::chat::conversation::Conversation;
use crate::chat::template;
use crate::machine::terminal;
use dair_core::text::Vocabulary;
use minijinja::Value;
use minijinja::value::ValueKind;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file of messages or tools, in bytes. What they say must fit into one text in the end.
const MAX_JSON_BYTES: u64 = 2 * dair_core::text::MAX_TEXT_BYTES as u64;

/// How messages are laid out.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Template")]
pub struct TemplateArgs {
    /// How messages are laid out: a built-in template by its name (llama2, llama3, chatml, deepseek3, mistral, mistral-v3,
    /// mistral-tekken, mistral-v7, zephyr, vicuna, alpaca, gemma, phi3) or a file in Jinja [default: the model's own]
    #[arg(long, value_name = "NAME|FILE", value_parser = parse_template)]
    pub template: Option<String>,
    /// Ask for reasoning before the answer or for none, where the template knows `enable_thinking`
    #[arg(long, value_enum, value_name = "WHETHER")]
    pub think: Option<Switch>,
    /// JSON list of tools for the template, as in the OpenAI API
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl TemplateArgs {
    /// Whether to reason, if that was said.
    pub fn think(&self) -> Option<bool> {
        self.think.map(|think| think == Switch::On)
    }

    /// The tools, if there are any.
    ///
    /// # Errors
    /// As [`read_list`].
    pub fn tools(&self) -> Result<Option<Value>, String> {
        self.tools.as_deref().map(|path| read_list(path, "tools")).transpose()
    }

    /// A conversation with a model of this vocabulary, as the flags say. Which template stands in for the model's own is
    /// said unless the command is `quiet`.
    ///
    /// # Errors
    /// No template, or one that is of no use; else as [`Self::tools`].
    pub fn conversation(
        &self,
        vocab: &Vocabulary<'_>,
        system: Option<String>,
        quiet: bool,
    ) -> Result<Conversation, Failure> {
        let choice = template::choose(self.template.as_deref(), vocab)?;
        if let Some(note) = choice.note.filter(|_| !quiet) {
            terminal::note(format_args!("note: {note}"));
        }
        let mut conversation = Conversation::new(choice.template, system);
        conversation.set_thinking(self.think());
        conversation.set_tools(self.tools()?);
        Ok(conversation)
    }

    /// Refuses flags where there is no chat.
    ///
    /// # Errors
    /// One of them was given.
    pub fn refuse(&self) -> Result<(), String> {
        let given =
            [("template", self.template.is_some()), ("think", self.think.is_some()), ("tools", self.tools.is_some())];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(format!("--{flag} is about a chat: add --chat, or leave it out")),
            None => Ok(()),
        }
    }
}

/// A name that is known or a file that is there.
///
/// # Errors
/// It is neither.
pub fn parse_template(text: &str) -> Result<String, String> {
    template::check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Reads a JSON list; `-` is standard input. Keys keep their order.
///
/// # Errors
/// Names the file and what is wrong.
pub fn read_list(path: &Path, what: &str) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes))
    };
    let path = path.display();
    read.map_err(|error| format!("cannot read the {what} {path}: {error}"))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(format!("{path}: more than the {MAX_JSON_BYTES} bytes that {what} may have"));
    }
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {what} are no JSON: {error}"))?;
    if value.kind() != ValueKind::Seq {
        return Err(format!("{path}: {what} are a {}; a list is wanted", value.kind()));
    }
    Ok(value)
}
