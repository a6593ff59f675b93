//! Who answers in a chat: a model on this machine, or a server. The chat itself is the same.

use super::tally::Lines;
use crate::chat::conversation::{Messages, Piece, Turn};
use crate::cli::Failure;
use serde_json::Value;
use std::ops::ControlFlow;

/// Who answers.
pub trait Answerer {
    /// What was said.
    fn messages(&self) -> &Messages;

    /// What was said, to be changed.
    fn messages_mut(&mut self) -> &mut Messages;

    /// Answers the messages so far, and adds the answer to them; `on_piece` gets it in pieces and may end it.
    ///
    /// # Errors
    /// Why there is no answer; the messages are as before then.
    fn answer(&mut self, on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>) -> Result<Turn, NoAnswer>;

    /// What the messages so far need of the context; `None` where nobody knows.
    ///
    /// # Errors
    /// Why they can't be laid out.
    fn needed(&self) -> Result<Option<Needed>, NoAnswer>;

    /// What a person is told at the start.
    fn greeting(&self) -> String;

    /// What the model is called.
    fn model(&self) -> String;

    /// How tokens are chosen, for files.
    fn sampling(&self) -> Value;

    /// Whether the same question always gets the same answer.
    fn is_greedy(&self) -> bool;

    /// The figures of an answer, for people.
    fn summary(&self, turn: &Turn) -> String;

    /// An answer and its figures, for scripts.
    fn json(&self, turn: &Turn) -> Value;

    /// Figures that `/stats` shows besides those of the chat.
    fn figures(&self) -> Lines;
}

/// Positions of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// What the messages take, before the answer.
    pub positions: usize,
    /// What there is.
    pub seq_len: u32,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The conversation does not fit the context.
    Full,
    /// Only this question has to do with it: one line.
    Refused(String),
    /// What answers is lost, and may be back: one line. The question may be asked again.
    Lost(String),
    /// There is nothing to be done in this chat.
    Failed(Failure),
}
