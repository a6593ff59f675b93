//! Markdown on a terminal, while it comes: styles are put around the characters of an answer, and no character is added, moved or
//! lost. What is copied from the screen is the answer.
//!
//! A character waits only for those that tell what it is: `*` for the next one, a line that begins as a fence for its end. Spans end
//! with their line, so that a lone star styles no more than that.

use console::Style;

/// A line that begins as a fence and is longer is text.
const FENCE_LINE_MAX: usize = 200;

/// Styles an answer.
#[derive(Debug)]
pub struct Styler {
    /// What is not told apart yet.
    held: String,
    line: Line,
    spans: Spans,
    /// The block of code that is open: the character of its fence, and how many of them.
    fence: Option<(char, usize)>,
    /// The last character that was not held.
    before: char,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing but blanks and markers so far.
    Start,
    Text,
    Heading,
    Code,
}

/// Spans that are open, by what opened them.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    bold: Option<char>,
    italic: Option<char>,
    code: Option<usize>,
}

/// What the beginning of a line is.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// More of it must come.
    Unknown,
    /// So many bytes of blanks and marker, after which another marker may stand.
    Quote(usize),
    /// So many bytes of blanks and marker.
    Item(usize),
    Heading(usize),
    /// A whole line, without its end.
    Fence(usize, char, usize),
    Text,
}

impl Styler {
    /// A styler for an answer.
    pub fn new() -> Self {
        Self { held: String::new(), line: Line::Start, spans: Spans::default(), fence: None, before: '\n' }
    }

    /// Takes the next piece, and gives what can be shown.
    pub fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        self.advance(false)
    }

    /// Gives what was held back: no more comes.
    pub fn finish(&mut self) -> String {
        self.advance(true)
    }

    fn advance(&mut self, is_last: bool) -> String {
        let mut out = String::new();
        while !self.held.is_empty() && self.step(&mut out, is_last) {}
        out
    }

    /// Shows some of what is held; says whether there was anything to show.
    fn step(&mut self, out: &mut String, is_last: bool) -> bool {
        match self.line {
            Line::Start if self.fence.is_some() => self.begin_code(out, is_last),
            Line::Start => self.begin(out, is_last),
            Line::Code => {
                self.code(out);
                true
            }
            Line::Text | Line::Heading => self.span(out, is_last),
        }
    }

    fn begin(&mut self, out: &mut String, is_last: bool) -> bool {
        match begin_of(&self.held, is_last) {
            Begin::Unknown => return false,
            Begin::Quote(len) => self.show(out, len, &Style::new().dim()),
            Begin::Item(len) => {
                self.show(out, len, &Style::new().cyan());
                self.line = Line::Text;
            }
            Begin::Heading(len) => {
                self.show(out, len, &Style::new().bold().dim());
                self.line = Line::Heading;
            }
            Begin::Fence(len, fence, count) => {
                self.show(out, len, &Style::new().dim());
                self.fence = Some((fence, count));
                self.line = Line::Code;
            }
            Begin::Text => self.line = Line::Text,
        }
        true
    }

    /// The beginning of a line inside a block of code, which may be its last.
    fn begin_code(&mut self, out: &mut String, is_last: bool) -> bool {
        let end = self.held.find('\n');
        let line = &self.held[..end.unwrap_or(self.held.len())];
        let (fence, least) = self.fence.unwrap_or(('`', 3));
        let marks = line.trim();
        let may_close = marks.chars().all(|c| c == fence) && line.len() <= FENCE_LINE_MAX;
        if may_close && end.is_none() && !is_last {
            return false;
        }
        if may_close && marks.chars().count() >= least {
            self.show(out, line.len(), &Style::new().dim());
            self.fence = None;
            self.line = Line::Text;
        } else {
            self.line = Line::Code;
        }
        true
    }

    fn code(&mut self, out: &mut String) {
        match self.held.find('\n') {
            Some(0) => self.end_line(out),
            end => self.show(out, end.unwrap_or(self.held.len()), &Style::new().cyan()),
        }
    }

    /// Shows text up to the next marker, or a marker.
    fn span(&mut self, out: &mut String, is_last: bool) -> bool {
        let Some(first) = self.held.chars().next() else { return false };
        let run = self.held.len() - self.held.trim_start_matches(first).len();
        let next = self.held[run..].chars().next();
        match first {
            '\n' => self.end_line(out),
            // Who knows how many follow.
            '`' | '*' | '_' if next.is_none() && !is_last => return false,
            '`' => self.code_marker(out, run),
            '*' | '_' if self.spans.code.is_none() => self.emphasis_marker(out, first, run, next.unwrap_or('\n')),
            '\\' if self.spans.code.is_none() => {
                let Some(escaped) = self.held[1..].chars().next() else {
                    if is_last {
                        self.show(out, 1, &self.style());
                    }
                    return is_last;
                };
                // A line ends whatever stands before its end.
                let len = if escaped == '\n' { 1 } else { 1 + escaped.len_utf8() };
                self.show(out, len, &self.style());
            }
            _ => {
                let len = first.len_utf8();
                let marks: &[char] =
                    if self.spans.code.is_some() { &['\n', '`'] } else { &['\n', '`', '*', '_', '\\'] };
                let more = self.held[len..].find(marks).unwrap_or(self.held.len() - len);
                self.show(out, len + more, &self.style());
            }
        }
        true
    }

    fn code_marker(&mut self, out: &mut String, run: usize) {
        match self.spans.code {
            Some(open) if open != run => return self.show(out, run, &self.style()),
            Some(_) => self.spans.code = None,
            None => self.spans.code = Some(run),
        }
        self.show(out, run, &Style::new().dim());
    }

    /// Stars and underscores open a span before a word, and close it behind one; underscores inside a word are part of it.
    fn emphasis_marker(&mut self, out: &mut String, marker: char, run: usize, next: char) {
        let before = self.before;
        let within = marker == '_' && before.is_alphanumeric() && next.is_alphanumeric();
        let (opens, closes) = (!next.is_whitespace() && !within, !before.is_whitespace() && !within);
        let spans = self.spans;
        let mut left = run;
        if closes && left >= 2 && self.spans.bold == Some(marker) {
            (self.spans.bold, left) = (None, left - 2);
        }
        if closes && left % 2 == 1 && self.spans.italic == Some(marker) {
            (self.spans.italic, left) = (None, left - 1);
        }
        if opens && left == run && run <= 3 {
            if run >= 2 && spans.bold.is_none() {
                (self.spans.bold, left) = (Some(marker), left - 2);
            }
            if run != 2 && spans.italic.is_none() {
                (self.spans.italic, left) = (Some(marker), left - 1);
            }
        }
        let style = if left == run { self.style() } else { Style::new().dim() };
        self.show(out, run, &style);
    }

    fn style(&self) -> Style {
        let Spans { bold, italic, code } = self.spans;
        let mut style = Style::new();
        if bold.is_some() || self.line == Line::Heading {
            style = style.bold();
        }
        if italic.is_some() {
            style = style.italic();
        }
        if code.is_some() { style.cyan() } else { style }
    }

    fn end_line(&mut self, out: &mut String) {
        self.show(out, 1, &Style::new());
        (self.line, self.spans) = (Line::Start, Spans::default());
    }

    /// Shows the first `len` bytes of what is held.
    fn show(&mut self, out: &mut String, len: usize, style: &Style) {
        let rest = self.held.split_off(len);
        let text = std::mem::replace(&mut self.held, rest);
        self.before = text.chars().next_back().unwrap_or(self.before);
        // Whether there are to be styles was settled before.
        out.push_str(&style.clone().force_styling(true).apply_to(text).to_string());
    }
}

fn begin_of(held: &str, is_last: bool) -> Begin {
    let text = held.trim_start_matches([' ', '\t']);
    let blanks = held.len() - text.len();
    // Whether all there is may be the beginning of a marker.
    let unknown = |is_marker_so_far: bool| if is_marker_so_far && !is_last { Begin::Unknown } else { Begin::Text };
    let Some(first) = text.chars().next() else { return unknown(true) };
    let run = text.len() - text.trim_start_matches(first).len();
    let rest = text.get(run..).unwrap_or_default();
    match first {
        '>' => Begin::Quote(blanks + 1),
        '`' | '~' if run < 3 => unknown(rest.is_empty()),
        '`' | '~' => match rest.find('\n') {
            None if !is_last => unknown(held.len() <= FENCE_LINE_MAX),
            end => {
                let info = &rest[..end.unwrap_or(rest.len())];
                let is_fence = first == '~' || !info.contains('`');
                if is_fence { Begin::Fence(blanks + run + info.len(), first, run) } else { Begin::Text }
            }
        },
        '#' if run <= 6 && rest.starts_with(' ') => Begin::Heading(blanks + run + 1),
        '#' => unknown(rest.is_empty() && run <= 6),
        '-' | '*' | '+' if run == 1 && rest.starts_with(' ') => Begin::Item(blanks + 2),
        '-' | '*' | '+' => unknown(rest.is_empty() && run == 1),
        '0'..='9' => {
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            match &text.as_bytes()[digits..] {
                _ if digits > 9 => Begin::Text,
                [b'.' | b')', b' ', ..] => Begin::Item(blanks + digits + 2),
                [] | [b'.' | b')'] => unknown(true),
                _ => Begin::Text,
            }
        }
        _ => Begin::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Styled text with names for its sequences, and short ones for its ends.
    fn named(text: &str) -> String {
        let names = [("\x1b[0m", "}"), ("\x1b[1m", "{b"), ("\x1b[2m", "{d"), ("\x1b[3m", "{i"), ("\x1b[36m", "{c")];
        names.iter().fold(text.to_owned(), |text, (code, name)| text.replace(code, name))
    }

    fn whole(text: &str) -> String {
        let mut styler = Styler::new();
        let shown = styler.push(text);
        named(&(shown + &styler.finish()))
    }

    #[test]
    fn spans_are_styled_and_their_markers_are_dim() {
        assert_eq!(whole("a **b** c"), "a {d**}{bb}{d**} c");
        assert_eq!(whole("_a_ b"), "{d_}{ia}{d_} b");
        assert_eq!(whole("***a***"), "{d***}{b{ia}{d***}");
        assert_eq!(whole("`a*b` *c*"), "{d`}{ca*b}{d`} {d*}{ic}{d*}");
        assert_eq!(whole("``a`b``"), "{d``}{ca}{c`}{cb}{d``}");
    }

    #[test]
    fn what_only_looks_like_a_span_stays_as_it_is() {
        for text in ["2 * 3 * 4", "snake_case_name", "a \\*b\\* c", "****", "* ", "a ** b", "x*"] {
            let plain = whole(text);
            assert!(!plain.contains("{b") && !plain.contains("{i"), "{text}: {plain}");
        }
        // A span that is not closed ends with its line.
        assert_eq!(whole("**a\nb"), "{d**}{ba}\nb");
    }

    #[test]
    fn lines_are_known_by_their_beginning() {
        assert_eq!(whole("## A b\nc"), "{b{d## }{bA b}\nc");
        assert_eq!(whole("- a\n  12. b\n* c"), "{c- }a\n{c  12. }b\n{c* }c");
        assert_eq!(whole("> - a"), "{d>}{c - }a");
        for text in ["#hash", "-5 degrees", "---", "12.5", "3 apples", "#######  x"] {
            assert_eq!(whole(text), text);
        }
    }

    #[test]
    fn blocks_of_code_have_no_spans() {
        assert_eq!(
            whole("```rust\nlet *a = **b;\n\n``\n```\n*c*"),
            "{d```rust}\n{clet *a = **b;}\n\n{c``}\n{d```}\n{d*}{ic}{d*}"
        );
        assert_eq!(whole("~~~~\n```\n~~~~\na"), "{d~~~~}\n{c```}\n{d~~~~}\na");
        assert_eq!(whole("  ```\n  a\n  ```"), "{d  ```}\n{c  a}\n{d  ```}");
        assert!(whole("```a``` b").starts_with("{d```}{ca}"));
    }

    #[test]
    fn text_is_shown_as_it_comes() {
        let mut styler = Styler::new();
        let pieces = ["Hel", "lo *", "wor", "ld*", ", 1", "\n", "-", " x", "\n``", "`\n", "a", " b"];
        let shown = pieces.map(|piece| named(&styler.push(piece)));
        let want =
            ["Hel", "lo ", "{d*}{iwor}", "{ild}", "{d*}, 1", "\n", "", "{c- }x", "\n", "{d```}\n", "{ca}", "{c b}"];
        assert_eq!(shown, want);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_character_is_lost_and_pieces_do_not_matter(
            pieces in prop::collection::vec("[ab1.é \n\t*_`~#>+\\\\-]{0,6}", 0..24)
        ) {
            let text = pieces.concat();
            let mut styler = Styler::new();
            let mut shown: String = pieces.iter().map(|piece| styler.push(piece)).collect();
            shown.push_str(&styler.finish());
            prop_assert_eq!(console::strip_ansi_codes(&shown), &text[..]);
            let mut letters = Styler::new();
            let mut slow: String = text.chars().map(|c| letters.push(&c.to_string())).collect();
            slow.push_str(&letters.finish());
            prop_assert_eq!(console::strip_ansi_codes(&slow), &text[..]);
        }
    }
}
