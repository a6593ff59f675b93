//! An answer on its way to standard output: what the model thinks, dimmed and apart, then what it says.

use crate::chat::conversation::Piece;
use crate::cli::{Failure, interrupt};
use crate::machine::terminal::{self, Unwritten};
use console::style;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

/// Shows the pieces of one answer.
#[derive(Debug)]
pub struct AnswerStream {
    silent: bool,
    /// Reasoning is for people who watch; what reads a pipe gets the answer, or both as JSON.
    watched: bool,
    in_reasoning: bool,
    shown: bool,
    broken: Option<Unwritten>,
}

impl AnswerStream {
    /// A stream; a `silent` one shows nothing.
    pub fn new(silent: bool) -> Self {
        let watched = io::stdout().is_terminal();
        Self { silent, watched, in_reasoning: false, shown: false, broken: None }
    }

    /// Shows a piece; breaks where nobody can or wants to read on.
    pub fn show(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        let text = match piece {
            Piece::Prompt(..) => String::new(),
            Piece::Reasoning(_) if !self.watched => String::new(),
            Piece::Reasoning(text) => {
                self.in_reasoning = true;
                style(text).dim().to_string()
            }
            Piece::Answer(text) if std::mem::take(&mut self.in_reasoning) => format!("\n\n{text}"),
            Piece::Answer(text) => text.into(),
        };
        if !self.silent && !text.is_empty() {
            self.shown = true;
            if let Err(unwritten) = terminal::print(text) {
                self.broken = Some(unwritten);
                return ControlFlow::Break(());
            }
        }
        if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the line. An answer that failed before its first piece leaves no empty line.
    ///
    /// # Errors
    /// Where a piece could not be written.
    pub fn finish(self, failed: bool) -> Result<(), Failure> {
        match self.broken {
            Some(unwritten) => Err(unwritten.into()),
            None if self.silent || failed && !self.shown => Ok(()),
            None => Ok(terminal::print("\n")?),
        }
    }
}
