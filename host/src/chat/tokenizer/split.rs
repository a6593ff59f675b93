//! Pre-tokenisation: patterns that cut a text into the pieces inside which tokens are merged.

use dair_core::format::tokenizer::Behavior;
use fancy_regex::Regex;
use std::ops::Range;

/// How most patterns end: runs of white space, all but the last sign of a run that a word follows.
const BLANKS: &str = r"|\s+(?!\S)|\s+";

/// A pattern, compiled.
///
/// Looking ahead takes a machine that goes back and forth. The only place where patterns in use look ahead is the end above,
/// which is simple enough to be done by hand; what stands before it then runs on an automaton that reads each byte once.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    /// The pattern ends in [`BLANKS`], which `regex` lacks.
    blanks: bool,
}

/// Why a text can't be cut: the pattern takes too many steps on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooHard;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, Box<fancy_regex::Error>> {
        let (pattern, blanks) = pattern.strip_suffix(BLANKS).map_or((pattern, false), |rest| (rest, true));
        Ok(Self { regex: Regex::new(pattern)?, blanks })
    }

    /// Calls `each` with every match, from left to right.
    ///
    /// # Errors
    /// [`TooHard`].
    pub fn for_each(&self, text: &str, mut each: impl FnMut(Range<usize>)) -> Result<(), TooHard> {
        if !self.blanks {
            for found in self.regex.find_iter(text) {
                each(found.map_err(|_| TooHard)?.range());
            }
            return Ok(());
        }
        let find = |from: usize| -> Result<Option<Range<usize>>, TooHard> {
            Ok(self.regex.find_from_pos(text, from).map_err(|_| TooHard)?.map(|found| found.range()))
        };
        let mut next = find(0)?;
        let mut done = 0;
        loop {
            // White space that stands before the next match is the other alternative's.
            let end = next.as_ref().map_or(text.len(), |next| next.start);
            while let Some(start) = text[done..end].find(char::is_whitespace).map(|at| done + at) {
                let run = start..start + blanks_len(&text[start..]);
                done = run.end;
                each(run);
                if done > end {
                    break;
                }
            }
            if done > end {
                next = find(done)?;
                continue;
            }
            let Some(found) = next else { return Ok(()) };
            done = found.end;
            let empty = found.is_empty();
            each(found);
            if empty {
                // A match of nothing: the search goes on behind the next character.
                let Some(c) = text[done..].chars().next() else { return Ok(()) };
                next = find(done + c.len_utf8())?;
            } else {
                next = find(done)?;
            }
        }
    }
}

/// Length of the match of `\s+(?!\S)|\s+` at the beginning of a text that begins with white space.
fn blanks_len(text: &str) -> usize {
    let run = text.len() - text.trim_start().len();
    if run == text.len() {
        return run;
    }
    let last = text[..run].chars().next_back().map_or(0, char::len_utf8);
    if run == last { run } else { run - last }
}

/// A step that cuts pieces.
#[derive(Debug)]
pub struct Split {
    /// Where.
    pub pattern: Pattern,
    /// Whether it is what does not match that counts as a match.
    pub invert: bool,
    /// What becomes of matches.
    pub behavior: Behavior,
}

impl Split {
    /// Cuts a piece; the parts are not empty.
    ///
    /// # Errors
    /// [`TooHard`].
    pub fn cut(&self, text: &str, parts: &mut Vec<Range<usize>>) -> Result<(), TooHard> {
        // The last part, and whether it was a match.
        let mut last: Option<(Range<usize>, bool)> = None;
        let mut done = 0;
        let mut add = |range: Range<usize>, is_match: bool| {
            let is_match = is_match != self.invert;
            if range.is_empty() {
                return;
            }
            if self.behavior == Behavior::Removed && is_match {
                parts.extend(last.take().map(|(range, _)| range));
                return;
            }
            let joins = last.as_ref().is_some_and(|(_, was_match)| match self.behavior {
                Behavior::Isolated | Behavior::Removed => false,
                Behavior::Contiguous => *was_match == is_match,
                Behavior::MergedWithPrevious => is_match && !was_match,
                Behavior::MergedWithNext => *was_match && !is_match,
            });
            last = Some(match last.take() {
                Some((before, _)) if joins => (before.start..range.end, is_match),
                before => {
                    parts.extend(before.map(|(range, _)| range));
                    (range, is_match)
                }
            });
        };
        self.pattern.for_each(text, |found| {
            add(done..found.start, false);
            done = found.end;
            add(found, true);
        })?;
        add(done..text.len(), false);
        parts.extend(last.map(|(range, _)| range));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = r" ?\p{L}+| ?\p{N}+|\s*[\r\n]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    fn cut<'t>(pattern: &str, behavior: Behavior, invert: bool, text: &'t str) -> Vec<&'t str> {
        let split = Split { pattern: Pattern::new(pattern).unwrap(), invert, behavior };
        let mut parts = Vec::new();
        split.cut(text, &mut parts).unwrap();
        parts.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn the_last_blank_of_a_run_belongs_to_the_word_behind_it() {
        let words = |text| cut(WORDS, Behavior::Isolated, false, text);
        assert_eq!(words("a   bc  "), ["a", "  ", " bc", "  "]);
        assert_eq!(words("  \n\n\tx"), ["  \n\n", "\t", "x"]);
        assert_eq!(words("\u{3000}\u{3000}日本"), ["\u{3000}", "\u{3000}", "日本"]);
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words(" "), [" "]);
    }

    #[test]
    fn looking_ahead_by_hand_finds_what_the_pattern_finds() {
        let by_hand = Pattern::new(WORDS).unwrap();
        assert!(by_hand.blanks);
        let by_regex = Pattern { regex: Regex::new(WORDS).unwrap(), blanks: false };
        let signs = [' ', ' ', '\n', '\t', 'a', 'é', '1', '.', '\u{3000}', '\u{85}', '日', '\r'];
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let text: String = (0..12)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    signs[(state >> 33) as usize % signs.len()]
                })
                .collect();
            let matches = |pattern: &Pattern| {
                let mut found = Vec::new();
                pattern.for_each(&text, |range| found.push(range)).unwrap();
                found
            };
            assert_eq!(matches(&by_hand), matches(&by_regex), "{text:?}");
        }
    }

    #[test]
    fn matches_join_their_neighbours_as_the_behavior_says() {
        let of = |behavior, text| cut("-", behavior, false, text);
        assert_eq!(of(Behavior::Isolated, "a--b"), ["a", "-", "-", "b"]);
        assert_eq!(of(Behavior::Removed, "-a--b"), ["a", "b"]);
        assert_eq!(of(Behavior::Contiguous, "a--b"), ["a", "--", "b"]);
        assert_eq!(of(Behavior::MergedWithPrevious, "-a--b-"), ["-", "a-", "-", "b-"]);
        assert_eq!(of(Behavior::MergedWithNext, "-a--b-"), ["-a", "-", "-b", "-"]);
        assert_eq!(cut("[a-z]+", Behavior::Removed, true, "ab, cd"), ["ab", "cd"]);
        assert_eq!(cut("x", Behavior::Isolated, false, "abc"), ["abc"]);
    }
}
