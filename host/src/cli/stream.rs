//! An answer on its way to standard output.

use super::{Failure, interrupt};
use crate::chat::generate::Event;
use crate::machine::terminal::{self, Unwritten};
use std::ops::ControlFlow;

/// Shows pieces of text as they come, and keeps them.
#[derive(Debug)]
pub struct Stream {
    silent: bool,
    text: String,
    broken: Option<Unwritten>,
}

impl Stream {
    /// A stream; a `silent` one only keeps the text.
    pub fn new(silent: bool) -> Self {
        Self { silent, text: String::new(), broken: None }
    }

    /// Shows what there is to be shown; breaks where nobody can or wants to read on.
    pub fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
        self.show(if let Event::Text(piece) = event { piece } else { "" })
    }

    /// Shows a piece; breaks where nobody can or wants to read on.
    pub fn show(&mut self, piece: &str) -> ControlFlow<()> {
        self.text.push_str(piece);
        if !self.silent
            && !piece.is_empty()
            && let Err(unwritten) = terminal::print(piece)
        {
            self.broken = Some(unwritten);
            return ControlFlow::Break(());
        }
        if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the line and returns the text. An answer that failed before its first piece leaves no empty line.
    ///
    /// # Errors
    /// Where a piece could not be written.
    pub fn finish(self, failed: bool) -> Result<String, Failure> {
        let nothing_shown = failed && self.text.is_empty();
        match self.broken {
            Some(unwritten) => return Err(unwritten.into()),
            None if !self.silent && !nothing_shown => terminal::print("\n")?,
            None => {}
        }
        Ok(self.text)
    }
}
