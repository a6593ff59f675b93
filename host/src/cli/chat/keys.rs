//! What keys mean while a question is typed, beyond what the line editor makes of them.
//!
//! The Enter key is the hard one. Terminals that do not mark pasted text send it like typed lines, and scripts write
//! whole lines at once; neither must become several questions, or half of one. So Enter does not end the question yet:
//! it asks the terminal to report an end of input where nothing more has come, and only then is the question complete. What comes
//! instead belongs to it.

use super::command;
use super::paste::Pastes;
use super::tty::{end_where_nothing_comes, wait_for_keys};
use console::style;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ConditionalEventHandler, Context, Event, EventContext, KeyCode, KeyEvent, Modifiers, Movement, RepeatCount,
};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What stands before a question.
pub const PROMPT: &str = "> ";

/// No hand presses two keys in this time.
const BURST: Duration = Duration::from_millis(40);
/// Longest line that the editor can show, whatever is in it: it counts rows in 16 bits.
pub const SHOWN_BYTES: usize = 50_000;
/// Tenths of a second within which the next piece of a burst arrives.
const BURST_GAP_DS: u8 = 1;

/// What the handler of keys leaves for the editor; both hold it.
#[derive(Clone, Debug, Default)]
pub struct Typed(Arc<Mutex<State>>);

/// The line as the editor's own error values lose it.
#[derive(Debug, Default)]
pub struct State {
    /// The line as it stands.
    pub line: String,
    /// Enter was pressed on it, and nothing has come since.
    pub complete: bool,
    /// It came at once with what stood before a line end: pasted, or written by a script.
    pub burst: bool,
    /// A backslash before a line end was typed, and means no more than that the line goes on.
    pub continued: bool,
    /// End of input was typed right after it.
    pub ended: bool,
    /// More was typed at once than can be shown.
    pub too_long: bool,
    /// Pastes that stand in the line.
    pub pastes: Pastes,
    last_key: Option<Instant>,
}

impl State {
    /// An empty line, or one in which these pastes stand.
    pub fn new(pastes: Pastes) -> Self {
        Self { pastes, ..Self::default() }
    }
}

impl Typed {
    /// The state, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConditionalEventHandler for Typed {
    fn handle(&self, event: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let key = *event.get(0)?;
        let mut state = self.lock();
        let in_burst = state.last_key.is_some_and(|last| last.elapsed() < BURST);
        let follows_enter = std::mem::take(&mut state.complete);
        if follows_enter {
            wait_for_keys();
        }
        let command = if state.pastes.is_coming() {
            while_pasting(key, &mut state)
        } else if follows_enter {
            after_enter(key, &mut state)
        } else {
            before_enter(key, in_burst, context.line(), context.pos(), &mut state)
        };
        state.last_key = Some(Instant::now());
        command
    }
}

/// A key of a pasted text, or its end. Ctrl-C ends one whose end has got lost.
fn while_pasting(key: KeyEvent, state: &mut State) -> Option<Cmd> {
    match key {
        KeyEvent(KeyCode::BracketedPasteEnd, _) => Some(Cmd::Insert(1, state.pastes.end())),
        KeyEvent(KeyCode::Char('C'), Modifiers::CTRL) => None,
        key => {
            state.pastes.add(key);
            Some(Cmd::Noop)
        }
    }
}

/// A key on a line that Enter has not ended.
fn before_enter(key: KeyEvent, in_burst: bool, line: &str, pos: usize, state: &mut State) -> Option<Cmd> {
    match key {
        KeyEvent(KeyCode::Enter, Modifiers::ALT) | KeyEvent(KeyCode::Char('J' | 'M'), Modifiers::CTRL_ALT) => {
            Some(Cmd::Newline)
        }
        KeyEvent(KeyCode::Enter, Modifiers::NONE) | KeyEvent(KeyCode::Char('J' | 'M'), Modifiers::CTRL) => {
            if command::is_open(line) {
                return Some(Cmd::Newline);
            }
            if !in_burst && pos == line.len() && line.ends_with('\\') {
                state.continued = true;
                return Some(Cmd::Newline);
            }
            line.clone_into(&mut state.line);
            state.complete = true;
            end_where_nothing_comes(if in_burst { BURST_GAP_DS } else { 0 });
            Some(Cmd::Move(Movement::EndOfBuffer))
        }
        _ if line.len() > SHOWN_BYTES => {
            state.too_long = true;
            Some(Cmd::Interrupt)
        }
        KeyEvent(KeyCode::BracketedPasteStart, _) => {
            state.pastes.begin();
            Some(Cmd::Noop)
        }
        // Only commands are completed; elsewhere it is a part of pasted code.
        KeyEvent(KeyCode::Tab, Modifiers::NONE) if !line.starts_with('/') => Some(Cmd::Insert(1, "\t".into())),
        _ => None,
    }
}

/// A key that came right after Enter: the line goes on.
fn after_enter(key: KeyEvent, state: &mut State) -> Option<Cmd> {
    state.burst = true;
    match key {
        KeyEvent(KeyCode::Char(c), Modifiers::NONE) => Some(Cmd::Insert(1, format!("\n{c}"))),
        KeyEvent(KeyCode::Tab, Modifiers::NONE) => Some(Cmd::Insert(1, "\n\t".into())),
        KeyEvent(KeyCode::Enter, _) | KeyEvent(KeyCode::Char('J' | 'M'), Modifiers::CTRL) => {
            state.line.push('\n');
            state.complete = true;
            end_where_nothing_comes(BURST_GAP_DS);
            Some(Cmd::Newline)
        }
        KeyEvent(KeyCode::Char('D'), Modifiers::CTRL) => {
            state.ended = true;
            Some(Cmd::AcceptLine)
        }
        KeyEvent(KeyCode::BracketedPasteStart, _) => {
            state.pastes.begin();
            Some(Cmd::Newline)
        }
        _ => None,
    }
}

/// Completes commands, colours the prompt, and watches the line.
#[derive(Debug)]
pub struct Helper {
    typed: Typed,
    coloured: String,
}

impl Helper {
    /// A helper that keeps `typed` as it goes.
    pub fn new(typed: Typed) -> Self {
        Self { typed, coloured: style(PROMPT).cyan().bold().to_string() }
    }
}

impl rustyline::Helper for Helper {}
impl Validator for Helper {}

impl Completer for Helper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..pos];
        Ok((0, command::names().filter(|name| begun.starts_with('/') && name.starts_with(begun)).collect()))
    }
}

impl Hinter for Helper {
    type Hint = String;

    /// Hints at nothing: the editor asks after every change, so this is where the line can be kept.
    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        let mut state = self.typed.lock();
        if !state.complete {
            line.clone_into(&mut state.line);
        }
        None
    }
}

impl Highlighter for Helper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, default: bool) -> Cow<'b, str> {
        // The editor's own prompts and questions stay as they are.
        if default && prompt == PROMPT { Cow::Borrowed(&self.coloured) } else { Cow::Borrowed(prompt) }
    }
}
