//! The text of an answer as the parts of a message: reasoning, text, calls of tools.

use super::conversation::Tools;
use super::server::new_id;
use crate::chat::conversation::{self, Splitter};
use crate::chat::tools::{self, Calls};
use std::ops::ControlFlow;

/// What comes next in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Reasoning.
    Reasoning(String),
    /// Text.
    Text(String),
    /// A call begins: its name among calls, and the tool.
    Call(String, String),
    /// More of the arguments of the last call.
    Arguments(String),
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Its name among calls.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// JSON, as far as the model wrote such.
    pub arguments: String,
}

/// A whole message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Reasoning, if there was any.
    pub reasoning: Option<String>,
    /// The text.
    pub text: String,
    /// Calls of tools.
    pub calls: Vec<Called>,
}

/// Cuts an answer into its parts.
#[derive(Debug)]
pub struct Words {
    splitter: Splitter,
    calls: Option<Calls>,
    id_len: usize,
    message: Message,
}

impl Words {
    /// Of what follows a prompt, and may call tools.
    pub fn new(prompt: &str, tools: Option<&Tools>) -> Self {
        let calls = tools.map(|tools| Calls::new(tools.family, &tools.list, tools.is_forced));
        let id_len = tools.map_or(0, |tools| tools.family.id_len());
        Self { splitter: Splitter::new(prompt), calls, id_len, message: Message::default() }
    }

    /// The next text, and what is sure by now.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let Self { splitter, calls, id_len, .. } = self;
        let _ = splitter.push(text, &mut |piece| apart(piece, calls.as_mut(), *id_len, &mut deltas));
        self.keep(&deltas);
        deltas
    }

    /// The rest: no more text comes.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let Self { splitter, calls, id_len, .. } = self;
        splitter.finish(&mut |piece| apart(piece, calls.as_mut(), *id_len, &mut deltas));
        if let Some(calls) = calls {
            calls.finish(&mut |piece| deltas.push(delta(piece, *id_len)));
        }
        self.keep(&deltas);
        deltas
    }

    /// Whether a tool was called.
    pub fn has_called(&self) -> bool {
        !self.message.calls.is_empty()
    }

    /// All of it.
    pub fn into_message(self) -> Message {
        // Reasoning that was opened and empty is reasoning, too.
        Message { reasoning: self.splitter.into_parts().0, ..self.message }
    }

    fn keep(&mut self, deltas: &[Delta]) {
        for delta in deltas {
            match delta {
                Delta::Reasoning(_) => {}
                Delta::Text(text) => self.message.text.push_str(text),
                Delta::Call(id, tool) => {
                    self.message.calls.push(Called { id: id.clone(), tool: tool.clone(), arguments: String::new() });
                }
                Delta::Arguments(more) => {
                    self.message.calls.last_mut().into_iter().for_each(|call| call.arguments.push_str(more));
                }
            }
        }
    }
}

fn apart(
    piece: conversation::Piece<'_>,
    calls: Option<&mut Calls>,
    id_len: usize,
    deltas: &mut Vec<Delta>,
) -> ControlFlow<()> {
    match (piece, calls) {
        (conversation::Piece::Prompt(..), _) => {}
        (conversation::Piece::Reasoning(text), _) => deltas.push(Delta::Reasoning(text.to_owned())),
        (conversation::Piece::Answer(text), None) => deltas.push(Delta::Text(text.to_owned())),
        (conversation::Piece::Answer(text), Some(calls)) => {
            calls.push(text, &mut |piece| deltas.push(delta(piece, id_len)));
        }
    }
    ControlFlow::Continue(())
}

fn delta(piece: tools::Piece<'_>, id_len: usize) -> Delta {
    match piece {
        tools::Piece::Text(text) => Delta::Text(text.to_owned()),
        tools::Piece::Call(tool) => Delta::Call(call_id(id_len), tool.to_owned()),
        tools::Piece::Arguments(more) => Delta::Arguments(more.to_owned()),
    }
}

/// A name for a call that nobody else has, as long as the model's template wants it.
fn call_id(len: usize) -> String {
    let mut id = new_id(if len < 16 { "" } else { "call_" });
    id.truncate(len);
    id
}
