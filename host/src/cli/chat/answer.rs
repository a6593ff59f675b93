//! An answer on its way to standard output: what the model thinks, dimmed and apart, then what it says. A pipe gets the answer,
//! byte for byte; a terminal gets it in style, and no character that would do something to it.

use super::markdown::Styler;
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
    styler: Option<Styler>,
    in_reasoning: bool,
    shown: bool,
    broken: Option<Unwritten>,
}

impl AnswerStream {
    /// A stream; a `silent` one shows nothing.
    pub fn new(silent: bool) -> Self {
        let watched = io::stdout().is_terminal();
        Self { silent, watched, styler: None, in_reasoning: false, shown: false, broken: None }
    }

    /// Styles Markdown, where a terminal shows styles.
    #[must_use]
    pub fn with_markdown(self, is_wanted: bool) -> Self {
        let has_styles = is_wanted && self.watched && console::colors_enabled();
        Self { styler: has_styles.then(Styler::new), ..self }
    }

    /// Shows a piece; breaks where nobody can or wants to read on.
    pub fn show(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        let text = match piece {
            Piece::Prompt(..) => String::new(),
            Piece::Reasoning(_) if !self.watched => String::new(),
            Piece::Reasoning(text) => {
                self.in_reasoning = true;
                style(harmless(text)).dim().to_string()
            }
            Piece::Answer(text) => {
                let gap = if std::mem::take(&mut self.in_reasoning) { "\n\n" } else { "" };
                gap.to_owned() + &self.shaped(text)
            }
        };
        if self.print(&text).is_break() {
            return ControlFlow::Break(());
        }
        if interrupt::is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the line. An answer that failed before its first piece leaves no empty line.
    ///
    /// # Errors
    /// Where a piece could not be written.
    pub fn finish(mut self, failed: bool) -> Result<(), Failure> {
        let rest = self.styler.as_mut().map(Styler::finish).unwrap_or_default();
        if self.broken.is_none() {
            let _ = self.print(&rest);
        }
        match self.broken {
            Some(unwritten) => Err(unwritten.into()),
            None if self.silent || failed && !self.shown => Ok(()),
            None => Ok(terminal::print("\n")?),
        }
    }

    /// Part of the answer, as it is shown.
    fn shaped(&mut self, text: &str) -> String {
        match &mut self.styler {
            Some(styler) => styler.push(&harmless(text)),
            None if self.watched => harmless(text),
            None => text.into(),
        }
    }

    fn print(&mut self, text: &str) -> ControlFlow<()> {
        if self.silent || text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.shown = true;
        if let Err(unwritten) = terminal::print(text) {
            self.broken = Some(unwritten);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// A text whose control characters are pictures of them: what a model or a server writes moves no cursor.
fn harmless(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(c),
        '\x7f' => '\u{2421}',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_is_shown_instead() {
        assert_eq!(harmless("a\tb\nc\x1b[2J\r\x7f\u{9b}é"), "a\tb\nc\u{241b}[2J\u{240d}\u{2421}\u{fffd}é");
    }
}
