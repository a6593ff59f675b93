//! Pasted text: gathered key by key without being shown, then shown whole, or by a note where it would flood the screen.
//!
//! The line editor lays out everything that it shows anew at every change, and counts rows in 16 bits.

use dair_core::text::MAX_TEXT_BYTES;
use rustyline::{KeyCode, KeyEvent, Modifiers};
use std::fmt::Write;

/// Longest paste that is shown.
const SHOWN_BYTES: usize = 8 << 10;

/// Pastes of one input.
#[derive(Clone, Debug, Default)]
pub struct Pastes {
    /// What comes now, if something does.
    coming: Option<String>,
    /// Notes that stand in the line, and what they stand for.
    noted: Vec<(String, String)>,
}

impl Pastes {
    /// A paste begins.
    pub fn begin(&mut self) {
        self.coming = Some(String::new());
    }

    /// Whether keys are part of a paste.
    pub fn is_coming(&self) -> bool {
        self.coming.is_some()
    }

    /// A key of the paste. Keys that are no text do nothing there.
    pub fn add(&mut self, key: KeyEvent) {
        let c = match key {
            KeyEvent(KeyCode::Char(c), Modifiers::NONE) => c,
            KeyEvent(KeyCode::Enter, Modifiers::NONE) => '\r',
            KeyEvent(KeyCode::Char('J'), Modifiers::CTRL) => '\n',
            KeyEvent(KeyCode::Tab, Modifiers::NONE) => '\t',
            _ => return,
        };
        // One byte too many is kept, so that the encoder refuses it.
        if let Some(text) = self.coming.as_mut().filter(|text| text.len() <= MAX_TEXT_BYTES) {
            text.push(c);
        }
    }

    /// The paste has ended: what to put into the line.
    pub fn end(&mut self) -> String {
        let text = self.coming.take().unwrap_or_default().replace("\r\n", "\n").replace('\r', "\n");
        if text.len() <= SHOWN_BYTES {
            return text;
        }
        let mut note = String::new();
        let (number, lines) = (self.noted.len() + 1, text.lines().count());
        // Writing to a String does not fail.
        let _ = write!(note, "[paste {number}: {lines} lines, {} bytes]", text.len());
        self.noted.push((note.clone(), text));
        note
    }

    /// Those that have come whole.
    pub fn without_the_coming(self) -> Self {
        Self { coming: None, ..self }
    }

    /// The line with the texts in place of their notes.
    pub fn expand(&self, line: &str) -> String {
        let replace = |line: String, (note, text): &(String, String)| line.replacen(note, text, 1);
        // The last one first: what a text says is not searched for notes of later ones.
        self.noted.iter().rev().fold(line.into(), replace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paste(pastes: &mut Pastes, text: &str) -> String {
        pastes.begin();
        text.chars().for_each(|c| pastes.add(KeyEvent::from(c)));
        pastes.end()
    }

    #[test]
    fn a_short_paste_is_shown_with_its_lines_and_without_its_control_characters() {
        let mut pastes = Pastes::default();
        assert_eq!(paste(&mut pastes, "a\r\n\tb\rc\nd\u{7}\u{7f}é"), "a\n\tb\nc\ndé");
        assert!(!pastes.is_coming());
        assert_eq!(pastes.expand("x a"), "x a");
    }

    #[test]
    fn a_long_paste_is_noted_and_comes_whole() {
        let mut pastes = Pastes::default();
        let (one, two) = ("line\r".repeat(5000), "é".repeat(5000));
        let line = format!("Sum up {} and {}", paste(&mut pastes, &one), paste(&mut pastes, &two));
        assert_eq!(line, "Sum up [paste 1: 5000 lines, 25000 bytes] and [paste 2: 1 lines, 10000 bytes]");
        assert_eq!(pastes.expand(&line), format!("Sum up {} and {two}", one.replace('\r', "\n")));
    }
}
