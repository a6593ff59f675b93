//! Where questions come from: a terminal with the line editor, or lines of anything else.

use super::editor::Editor;
use super::folder;
use crate::machine::terminal;
use console::style;
use dair_core::text::MAX_TEXT_BYTES;
use std::io::{self, BufRead, IsTerminal, Read};

/// A kernel hands over no longer line of a terminal that is not edited on, and cuts it without a word.
const TERMINAL_LINE_BYTES: usize = 4095;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Something for the model or the chat.
    Text(String),
    /// Ctrl-C, and whether it threw anything away.
    Interrupted {
        /// Something had been typed.
        typed: bool,
    },
    /// Something that can't be used: what to tell the user.
    Broken(String),
    /// No more.
    End,
}

/// Where questions come from.
pub enum Source {
    /// A person at a terminal.
    Editor(Box<Editor>),
    /// Anything else on standard input.
    Lines(Lines<io::StdinLock<'static>>),
}

impl Source {
    /// Standard input; a terminal is edited on unless it must stay `plain`, its lines are kept unless they are not to be.
    pub fn new(plain: bool, keep_history: bool) -> Self {
        let history = || keep_history.then(folder::history).flatten();
        let editor = if plain { None } else { Editor::new(history()) };
        editor.map_or_else(
            || Self::Lines(Lines::new(io::stdin().lock(), io::stdin().is_terminal(), !plain)),
            |editor| Self::Editor(Box::new(editor)),
        )
    }

    /// Whether a person is at the other end, who sees what is said and can answer.
    pub fn is_person(&self) -> bool {
        match self {
            Self::Editor(_) => true,
            Self::Lines(lines) => lines.prompt && lines.terminal,
        }
    }

    /// Asks a person; `None` where no answer comes.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn confirm(&mut self, question: &str) -> io::Result<Option<bool>> {
        let line = match self {
            Self::Editor(editor) => editor.read_after(question)?,
            Self::Lines(lines) => lines.read_after(question)?,
        };
        let Line::Text(answer) = line else { return Ok(None) };
        Ok(Some(answer.trim().to_lowercase().starts_with('y')))
    }

    /// What comes next.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read(&mut self) -> io::Result<Line> {
        match self {
            Self::Editor(editor) => editor.read(),
            Self::Lines(lines) => lines.read(),
        }
    }
}

/// Lines of a file, a pipe, or a terminal that can't be edited on.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    terminal: bool,
    prompt: bool,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `from`, which may be a `terminal`; that may get a `prompt`.
    pub fn new(from: R, terminal: bool, prompt: bool) -> Self {
        Self { from, terminal, prompt, number: 0 }
    }

    fn read(&mut self) -> io::Result<Line> {
        self.read_after(&format!("{} ", style(">").for_stderr().cyan().bold()))
    }

    fn read_after(&mut self, prompt: &str) -> io::Result<Line> {
        if self.terminal && self.prompt {
            terminal::note_text(prompt);
        }
        let mut bytes = Vec::new();
        // One byte more than a text may have, and the two that end a line.
        let limit = MAX_TEXT_BYTES as u64 + 3;
        if self.from.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        let ended = bytes.ends_with(b"\n");
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.len() > MAX_TEXT_BYTES {
            if !ended {
                self.from.skip_until(b'\n')?;
            }
            return Ok(Line::Broken(format!("line {}: more than {MAX_TEXT_BYTES} bytes: left out", self.number)));
        }
        if self.terminal && bytes.len() >= TERMINAL_LINE_BYTES {
            return Ok(Line::Broken(format!(
                "the terminal cuts lines at {TERMINAL_LINE_BYTES} bytes: left out; send the text through a pipe"
            )));
        }
        Ok(String::from_utf8(bytes).map_or_else(
            |error| {
                let byte = error.utf8_error().valid_up_to() + 1;
                Line::Broken(format!("line {}: not UTF-8 at byte {byte}: left out", self.number))
            },
            Line::Text,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(bytes, false, false);
        std::iter::from_fn(|| Some(lines.read().expect("memory can be read")).filter(|line| *line != Line::End))
            .collect()
    }

    #[test]
    fn a_line_that_is_not_utf8_is_left_out_by_its_number_and_the_others_stay() {
        let broken = Line::Broken("line 2: not UTF-8 at byte 4: left out".into());
        assert_eq!(lines(b"one\r\ncaf\xe9\n\ntwo"), [text("one"), broken, text(""), text("two")]);
    }

    #[test]
    fn a_line_longer_than_any_text_is_left_out_whole() {
        let longest = vec![b'a'; MAX_TEXT_BYTES];
        let input = [&longest[..], b"\r\n", &longest, b"a\n", &longest, &longest, &longest, b"\nlast\n"].concat();
        let broken = |number| Line::Broken(format!("line {number}: more than {MAX_TEXT_BYTES} bytes: left out"));
        let read = lines(&input);
        assert!(matches!(&read[0], Line::Text(text) if text.len() == MAX_TEXT_BYTES));
        assert_eq!(read[1..], [broken(2), broken(3), text("last")]);
    }

    #[test]
    fn a_terminal_that_cuts_lines_is_not_believed() {
        let mut lines = Lines::new(&[b'a'; TERMINAL_LINE_BYTES][..], true, false);
        assert!(matches!(lines.read().unwrap(), Line::Broken(why) if why.contains("pipe")));
    }

    fn text(text: &str) -> Line {
        Line::Text(text.into())
    }
}
