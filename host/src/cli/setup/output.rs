//! What commands print, as lines that a page can show: kept within limits, and without what steers terminals.

use std::collections::VecDeque;

/// Most lines that are kept, the newest, and most bytes of each.
const LINES_MAX: usize = 2000;
const LINE_MAX: usize = 8 << 10;

/// Text that grows.
#[derive(Clone, Debug, Default)]
pub struct Output {
    lines: VecDeque<String>,
    /// Bytes of a character that has not come whole.
    rest: Vec<u8>,
    /// Whether the next character begins a line, or the same one again.
    next: Next,
    escape: Escape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    NewLine,
    /// After a carriage return.
    SameLine,
    Character,
}

/// How much of an escape sequence has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    /// Until its letter.
    Control,
    /// Until it is ended, by BEL or by another escape.
    Text,
}

impl Output {
    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Adds a line of its own.
    pub fn add_line(&mut self, line: &str) {
        if self.next != Next::NewLine {
            self.push(b"\n");
        }
        self.push(line.as_bytes());
        self.push(b"\n");
    }

    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut bytes = [&std::mem::take(&mut self.rest), bytes].concat();
        // What may become a character waits for its end.
        if let Err(error) = str::from_utf8(&bytes).map_err(|_| last_part(&bytes)) {
            self.rest = bytes.split_off(error);
        }
        String::from_utf8_lossy(&bytes).chars().for_each(|c| self.push_char(c));
    }

    fn push_char(&mut self, c: char) {
        match (self.escape, c) {
            (Escape::None, '\x1b') | (Escape::Text, '\x1b') => self.escape = Escape::Begun,
            (Escape::None, _) => self.push_visible(c),
            (Escape::Begun, '[') => self.escape = Escape::Control,
            (Escape::Begun, ']') => self.escape = Escape::Text,
            (Escape::Begun, _) | (Escape::Control, '@'..='~') | (Escape::Text, '\x07') => self.escape = Escape::None,
            (Escape::Control | Escape::Text, _) => {}
        }
    }

    fn push_visible(&mut self, c: char) {
        match c {
            '\n' => {
                if self.next == Next::NewLine {
                    self.begin_line();
                }
                self.next = Next::NewLine;
            }
            '\r' if self.next == Next::Character => self.next = Next::SameLine,
            '\t' => (0..4).for_each(|_| self.push_visible(' ')),
            c if c.is_control() => {}
            c => {
                match self.next {
                    Next::NewLine => self.begin_line(),
                    Next::SameLine => self.lines.back_mut().into_iter().for_each(String::clear),
                    Next::Character => {}
                }
                self.next = Next::Character;
                if let Some(line) = self.lines.back_mut().filter(|line| line.len() < LINE_MAX) {
                    line.push(c);
                }
            }
        }
    }

    fn begin_line(&mut self) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(String::new());
    }
}

/// Where a character begins at the end of `bytes` that may be one when more has come; their end, if none does.
fn last_part(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    let begins = |&at: &usize| {
        str::from_utf8(&bytes[at..]).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (from..bytes.len()).find(begins).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut output = Output::default();
        parts.iter().for_each(|part| output.push(part));
        output.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_those_that_a_terminal_shows() {
        assert_eq!(lines(&[b"a\nb\r\n\nc"]), ["a", "b", "", "c"]);
        assert_eq!(lines(&[b" 1 %\r 2 %", b"\r", b"done\n"]), ["done"]);
        assert_eq!(lines(&[b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b(B\x1b]2;t\x1b\\y\x00\tz"]), ["red xBy    z"]);
    }

    #[test]
    fn characters_may_come_in_parts_and_need_not_be_any() {
        assert_eq!(lines(&[b"caf\xc3", b"\xa9 \xf0\x9f", b"\x98", b"\x80"]), ["caf\u{e9} \u{1f600}"]);
        assert_eq!(lines(&[b"\xff\xfea\xc3", b"b"]), ["\u{fffd}\u{fffd}a\u{fffd}b"]);
    }

    #[test]
    fn there_is_a_limit_to_lines_and_their_length() {
        let mut output = Output::default();
        output.push(&vec![b'x'; 2 * LINE_MAX]);
        assert_eq!(output.lines().map(str::len).collect::<Vec<_>>(), [LINE_MAX]);
        (0..2 * LINES_MAX).for_each(|_| output.push(b"\n."));
        assert_eq!(output.lines().count(), LINES_MAX);
    }

    #[test]
    fn a_line_of_ones_own_stands_alone() {
        let mut output = Output::default();
        output.push(b"answer");
        output.add_line("next");
        output.push(b"x");
        assert_eq!(output.lines().collect::<Vec<_>>(), ["answer", "next", "x"]);
    }
}
