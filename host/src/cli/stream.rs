//! An answer on its way to standard output.

use super::{Failure, interrupt};
use crate::chat::generate::Event;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Shows pieces of text as they come, and keeps them.
#[derive(Debug)]
pub struct Stream {
    silent: bool,
    text: String,
    broken: Option<io::Error>,
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
        if !self.silent && !piece.is_empty() {
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
                self.broken = Some(error);
                return ControlFlow::Break(());
            }
        }
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
