//! An answer on its way to standard output.

use super::{Failure, interrupt};
use crate::chat::conversation::Piece;
use console::style;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

/// Shows pieces of text as they come, and keeps them.
#[derive(Debug)]
pub struct Stream {
    silent: bool,
    /// Reasoning is for people: it is shown on a terminal, and nowhere else.
    shows_reasoning: bool,
    /// What is on the screen last is reasoning.
    in_reasoning: bool,
    text: String,
    broken: Option<io::Error>,
}

impl Stream {
    /// A stream; a `silent` one only keeps the text.
    pub fn new(silent: bool) -> Self {
        Self { silent, shows_reasoning: false, in_reasoning: false, text: String::new(), broken: None }
    }

    /// A stream for an answer with reasoning, which is shown dimmed where people see it, unless `plain` text is wanted.
    pub fn of_answer(silent: bool, plain: bool) -> Self {
        let shows_reasoning = !silent && !plain && io::stdout().is_terminal();
        Self { shows_reasoning, ..Self::new(silent) }
    }

    /// Shows a piece of an answer; keeps only what is no reasoning.
    pub fn show_piece(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        match piece {
            Piece::Reasoning(text) if self.shows_reasoning => {
                self.in_reasoning = true;
                self.write(&style(text).dim().to_string())
            }
            Piece::Reasoning(_) => self.flow(),
            Piece::Answer(text) if std::mem::take(&mut self.in_reasoning) => {
                self.text.push_str(text);
                self.write(&format!("\n\n{text}"))
            }
            Piece::Answer(text) => self.show(text),
        }
    }

    /// Shows a piece; breaks where nobody can or wants to read on.
    pub fn show(&mut self, piece: &str) -> ControlFlow<()> {
        self.text.push_str(piece);
        self.write(piece)
    }

    fn write(&mut self, text: &str) -> ControlFlow<()> {
        if !self.silent {
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                self.broken = Some(error);
                return ControlFlow::Break(());
            }
        }
        self.flow()
    }

    fn flow(&self) -> ControlFlow<()> {
        if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the line and returns the text. An answer that failed before its first piece leaves no empty line.
    ///
    /// # Errors
    /// Where a piece could not be written.
    pub fn finish(self, failed: bool) -> Result<String, Failure> {
        let mut result = self.broken.map_or(Ok(()), Err);
        let nothing_shown = failed && self.text.is_empty();
        if !self.silent && !nothing_shown {
            result = result.and_then(|()| writeln!(io::stdout().lock()));
        }
        match result {
            Ok(()) => Ok(self.text),
            Err(error) => Err(format!("cannot write the answer: {error}").into()),
        }
    }
}
