//! Where an answer ends: at an EOS token, or at a text that the user asked to stop at.

use core::ops::{Deref, DerefMut};

/// What is known after one more token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The answer goes on: show [`StopDetector::delta`], then [`StopDetector::reset`].
    No,
    /// The answer ends: show [`StopDetector::delta`]. What is not in it is not part of the answer.
    Yes,
}

/// Finds stop tokens, and stop strings that come in pieces.
///
/// Text that may be the beginning of a stop string is held back until more of it is known. The letters of an EOS token, written
/// in ordinary tokens, are text like any other.
#[derive(Debug)]
pub struct StopDetector<T, S, B> {
    tokens: T,
    strings: S,
    buffer: B,
    len: usize,
    /// Bytes of the buffer that are surely part of the answer.
    sure: usize,
}

/// Bytes of a [`StopDetector`]'s buffer for these stop strings and pieces of at most `piece_bytes`.
pub fn held_back_len<A: AsRef<str>>(strings: &[A], piece_bytes: usize) -> usize {
    strings.iter().map(|string| string.as_ref().len()).max().unwrap_or(0) + piece_bytes
}

impl<T, S, B, A> StopDetector<T, S, B>
where
    T: Deref<Target = [u32]>,
    S: Deref<Target = [A]>,
    B: DerefMut<Target = [u8]>,
    A: AsRef<str>,
{
    /// Stops at these tokens and strings; empty strings stop at nothing.
    ///
    /// `buffer` holds back text: [`held_back_len`] bytes.
    pub fn new(tokens: T, strings: S, buffer: B) -> Self {
        Self { tokens, strings, buffer, len: 0, sure: 0 }
    }

    /// Takes the next token and its text, which may be empty.
    ///
    /// # Panics
    /// If the buffer is too short.
    pub fn append(&mut self, token: u32, piece: &str) -> Stop {
        let (piece, free) = (piece.as_bytes(), self.buffer.len() - self.len);
        assert!(piece.len() <= free, "{} bytes of text, but {free} bytes of buffer are free", piece.len());
        self.buffer[self.len..self.len + piece.len()].copy_from_slice(piece);
        self.len += piece.len();
        let text = &self.buffer[..self.len];
        let strings =
            || self.strings.iter().map(|string| string.as_ref().as_bytes()).filter(|string| !string.is_empty());
        let ends = strings().filter_map(|string| text.windows(string.len()).position(|window| window == string));
        if let Some(end) = ends.min() {
            self.sure = end;
            return Stop::Yes;
        }
        if self.tokens.contains(&token) {
            self.sure = self.len;
            return Stop::Yes;
        }
        let may_begin = |start: &usize| strings().any(|string| string.starts_with(&text[*start..]));
        self.sure = (0..self.len).find(may_begin).unwrap_or(self.len);
        Stop::No
    }

    /// The text of the answer since the last [`reset`](Self::reset).
    pub fn delta(&self) -> &str {
        text_of(&self.buffer[..self.sure])
    }

    /// What has been shown goes; what is held back stays.
    pub fn reset(&mut self) {
        self.buffer.copy_within(self.sure..self.len, 0);
        self.len -= self.sure;
        self.sure = 0;
    }

    /// The text since the last [`reset`](Self::reset), where no more tokens come: what was held back belongs to the answer
    /// then.
    pub fn rest(&self) -> &str {
        text_of(&self.buffer[..self.len])
    }
}

/// Pieces and stop strings are whole characters, so that cuts between them are between characters.
fn text_of(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{string::String, vec, vec::Vec};

    /// What is shown of these pieces, token after token, and whether they end the answer.
    fn run(strings: &[&str], eos: &[u32], pieces: &[(u32, &str)]) -> (Vec<String>, Stop) {
        let longest = pieces.iter().map(|(_, piece)| piece.len()).max().unwrap_or(0);
        let mut buffer = vec![0; held_back_len(strings, longest)];
        let mut detector = StopDetector::new(eos, strings, &mut buffer[..]);
        let mut shown = Vec::new();
        for (token, piece) in pieces {
            let stop = detector.append(*token, piece);
            shown.push(detector.delta().into());
            if stop == Stop::Yes {
                return (shown, stop);
            }
            detector.reset();
        }
        shown.push(detector.rest().into());
        (shown, Stop::No)
    }

    #[test]
    fn only_tokens_end_an_answer_unless_strings_were_asked_for() {
        let none: [&str; 0] = [];
        let pieces = [(1, "a"), (2, "</s>"), (3, "b"), (9, "</s>")];
        assert_eq!(run(&none, &[8, 9], &pieces).0, ["a", "</s>", "b", "</s>"]);
        assert_eq!(run(&none, &[8, 9], &pieces).1, Stop::Yes);
        assert_eq!(run(&none, &[2], &pieces).0.len(), 2);
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back() {
        let pieces = [(1, "one ##"), (2, "#"), (3, "x ##"), (4, "## end")];
        let (shown, stop) = run(&["####", "\n\n"], &[], &pieces);
        assert_eq!((shown.join("|").as_str(), stop), ("one ||###x |", Stop::Yes));
    }

    #[test]
    fn text_held_back_belongs_to_an_answer_that_ends_otherwise() {
        assert_eq!(run(&["END"], &[7], &[(1, "the EN"), (7, "")]).0, ["the ", "EN"]);
        assert_eq!(run(&["END"], &[], &[(1, "the EN")]).0, ["the ", "EN"]);
    }

    #[test]
    fn the_first_of_several_stop_strings_counts() {
        let (shown, stop) = run(&["c", "b", ""], &[], &[(1, "abc")]);
        assert_eq!((shown.concat().as_str(), stop), ("a", Stop::Yes));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            text in "[abé]{0,30}",
            strings in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(1usize..5, 1..30),
        ) {
            let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
            let chars: Vec<char> = text.chars().collect();
            let (mut pieces, mut rest) = (Vec::new(), &chars[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece.iter().collect::<String>());
                rest = behind;
            }
            let pieces: Vec<(u32, &str)> = pieces.iter().map(|piece| (0, piece.as_str())).collect();
            let (shown, stop) = run(&strings, &[], &pieces);
            // A string may be complete before an earlier, longer one is: then the answer ends with what is known.
            let first = strings.iter().filter_map(|string| text.find(string)).min();
            prop_assert_eq!(stop == Stop::Yes, first.is_some());
            match first {
                Some(_) => prop_assert!(strings.iter().any(|string| text[shown.concat().len()..].starts_with(string))),
                None => prop_assert_eq!(shown.concat(), text),
            }
        }
    }
}
