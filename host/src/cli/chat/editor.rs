//! Questions from a terminal, by the line editor.

use super::command;
use super::input::Line;
use super::keys::{Helper, PROMPT, SHOWN_BYTES, State, Typed};
use super::paste::Pastes;
use super::tty::Tty;
use rustyline::config::{Behavior, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Event, EventHandler};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

/// Lines that the history keeps.
const HISTORY_LINES: usize = 1000;
/// A longer text is pasted from where it is kept already.
const HISTORY_LINE_BYTES: usize = 16 << 10;
/// A file that is larger was not written by this.
const HISTORY_BYTES: u64 = ((HISTORY_LINE_BYTES + 1) * HISTORY_LINES) as u64;

/// Terminals whose cursor can't be moved; the editor falls back to plain lines there, but would lose broken ones.
const WITHOUT_CURSOR: [&str; 3] = ["dumb", "cons25", "emacs"];

/// The line editor, its history, and what it has read but not handed over.
pub struct Editor {
    lines: rustyline::Editor<Helper, DefaultHistory>,
    typed: Typed,
    tty: Tty,
    history: Option<PathBuf>,
    /// Of what came at once, what was not asked for yet.
    waiting: VecDeque<String>,
    /// What stays of a line that broke.
    draft: String,
    pastes: Pastes,
    ended: bool,
}

impl Editor {
    /// An editor on standard input, if that is a terminal which can be edited on; lines are kept in the file `history`.
    pub fn new(history: Option<PathBuf>) -> Option<Self> {
        if !io::stdin().is_terminal() || std::env::var("TERM").is_ok_and(|term| WITHOUT_CURSOR.contains(&&term[..])) {
            return None;
        }
        // An answer that goes to a file or a pipe leaves the screen to the editor.
        let behavior = match io::stdout().is_terminal() {
            true => Behavior::Stdio,
            false if File::open("/dev/tty").is_ok() => Behavior::PreferTerm,
            false => return None,
        };
        let config = Config::builder()
            .behavior(behavior)
            .max_history_size(HISTORY_LINES)
            .ok()?
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .build();
        let mut lines = rustyline::Editor::with_config(config).ok()?;
        let typed = Typed::default();
        lines.set_helper(Some(Helper::new(typed.clone())));
        lines.bind_sequence(Event::Any, EventHandler::Conditional(Box::new(typed.clone())));
        if let Some(path) = history.as_deref().filter(|path| is_history(path)) {
            // One that can't be read is no reason to refuse a chat.
            let _ = lines.load_history(path);
        }
        let tty = Tty::take()?;
        Some(Self {
            lines,
            typed,
            tty,
            history,
            waiting: VecDeque::new(),
            draft: String::new(),
            pastes: Pastes::default(),
            ended: false,
        })
    }

    /// The next question, or what came instead.
    ///
    /// # Errors
    /// Where the terminal has gone.
    pub fn read(&mut self) -> io::Result<Line> {
        let line = self.read_after(PROMPT)?;
        if let Line::Text(text) = &line {
            self.keep(text);
        }
        Ok(line)
    }

    /// The next line, after another prompt; it does not enter the history.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_after(&mut self, prompt: &str) -> io::Result<Line> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(Line::Text(line));
        }
        if self.ended {
            return Ok(Line::End);
        }
        *self.typed.lock() = State::new(std::mem::take(&mut self.pastes));
        // The editor begins and ends with a hushed terminal: in between there is no moment that cuts lines.
        let draft = std::mem::take(&mut self.draft);
        let result = self.lines.readline_with_initial(prompt, (&draft, ""));
        let mut state = std::mem::take(&mut *self.typed.lock());
        self.ended = state.ended;
        match result {
            Ok(line) => {
                state.line = line;
                Ok(self.finish(state))
            }
            Err(ReadlineError::Eof) if state.complete => Ok(self.finish(state)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) if state.too_long => {
                self.tty.drain();
                Ok(Line::Broken(format!("more than {SHOWN_BYTES} bytes typed: left out; send the text through a pipe")))
            }
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted { typed: !state.line.is_empty() }),
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                // The editor has dropped an unknown part of what came in one piece: the rest would be torn, too.
                self.tty.drain();
                (self.draft, self.pastes) = (state.line, state.pastes.without_the_coming());
                Ok(Line::Broken("not UTF-8: left out, with what came in one piece with it".into()))
            }
            Err(ReadlineError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Hands over the first part of a complete input.
    fn finish(&mut self, typed: State) -> Line {
        let text = if typed.continued { typed.line.replace("\\\n", "\n") } else { typed.line };
        let text = typed.pastes.expand(&text);
        self.waiting = if typed.burst { parts(&text) } else { [text].into() };
        Line::Text(self.waiting.pop_front().unwrap_or_default())
    }

    fn keep(&mut self, text: &str) {
        let Some(path) = &self.history else { return };
        let line = text.trim_end();
        if line.is_empty() || line.len() > HISTORY_LINE_BYTES {
            return;
        }
        // Written at once, so that a crash loses nothing; a history that can't be kept is no reason to end a chat.
        let _ = self.lines.add_history_entry(line);
        let _ = path.parent().map(super::folder::create);
        let _ = self.lines.append_history(path);
    }
}

fn is_history(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= HISTORY_BYTES)
}

/// What came at once, cut where a line is a command: a pasted text is one question, but a script that writes several
/// lines means its commands.
fn parts(text: &str) -> VecDeque<String> {
    let mut parts = VecDeque::new();
    let mut question = String::new();
    for line in text.split('\n') {
        if command::is_command(line) {
            parts.extend([std::mem::take(&mut question), line.into()]);
        } else {
            question.push_str(line);
            question.push('\n');
        }
    }
    parts.push_back(question);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_once_is_one_question_but_for_its_commands() {
        assert_eq!(parts("one\n\n  two\nthree"), ["one\n\n  two\nthree\n"]);
        assert_eq!(parts("/clear\none\n/stats\n/exit"), ["/clear", "one\n", "/stats", "/exit"]);
        assert_eq!(parts("// a\n/usr/bin\n /help"), ["// a\n/usr/bin\n /help\n"]);
    }
}
