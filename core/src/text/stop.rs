//! Where an answer ends: at an EOS token, or at the text of one spelled out in other tokens.

use super::Vocabulary;
use crate::format::tokenizer::MAX_EOS;

/// What is known after one more token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The answer goes on: show [`StopDetector::delta`], then [`StopDetector::reset`].
    No,
    /// The text may be the beginning of a stop string: wait for the next token.
    Maybe,
    /// The answer ends: show [`StopDetector::delta`]. What is not in it is not part of the answer.
    Yes,
}

type StopTokens = heapless::Vec<u32, MAX_EOS>;
type StopStrings<'a> = heapless::Vec<&'a [u8], MAX_EOS>;

/// Finds stop tokens, and stop strings that come in pieces.
///
/// Held-back text is compared with every stop string, beginning at one of its first `padding_left + 1` bytes and with at
/// most `padding_right` bytes behind a whole match. A stop string that begins later in a piece goes unnoticed, as in
/// Distributed-Llama, whose rule this is. When the tokens run out while the answer is [`Stop::Maybe`], the held-back
/// text belongs to the answer: [`delta`](Self::delta) has it.
#[derive(Debug)]
pub struct StopDetector<'a> {
    tokens: StopTokens,
    strings: StopStrings<'a>,
    padding_left: usize,
    padding_right: usize,
    buffer: &'a mut [u8],
    len: usize,
    /// Where the answer ends in the buffer, if it does.
    end: Option<usize>,
}

impl<'a> StopDetector<'a> {
    /// Bytes of the buffer for a vocabulary.
    pub fn buffer_len(vocab: &Vocabulary<'_>) -> usize {
        let eos = vocab.header().eos.iter();
        let longest = eos.filter_map(|&id| vocab.bytes(id)).map(<[u8]>::len).max().unwrap_or(0);
        // Text held back is shorter than a stop string and its padding. In the text of a token every second byte can
        // be a bad one, written as three, and a character may have been pending.
        2 * longest + 2 * vocab.header().max_token_len as usize + 8
    }

    /// Stops at the EOS tokens of a vocabulary and at their texts, with padding as long as the longest of them.
    ///
    /// `buffer` holds back text: [`StopDetector::buffer_len`] bytes.
    pub fn new(vocab: &Vocabulary<'a>, buffer: &'a mut [u8]) -> Self {
        let tokens = vocab.header().eos.clone();
        let strings: StopStrings<'a> = tokens.iter().filter_map(|&id| vocab.bytes(id)).collect();
        let padding = strings.iter().map(|string| string.len()).max().unwrap_or(0);
        Self::with_padding(tokens, strings, padding, padding, buffer)
    }

    fn with_padding(
        tokens: StopTokens,
        strings: StopStrings<'a>,
        padding_left: usize,
        padding_right: usize,
        buffer: &'a mut [u8],
    ) -> Self {
        Self { tokens, strings, padding_left, padding_right, buffer, len: 0, end: None }
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

        if self.tokens.contains(&token) {
            self.end = Some(self.len);
            return Stop::Yes;
        }
        self.end = None;
        let text = &self.buffer[..self.len];
        for stop in &self.strings {
            if text.len() > stop.len() + self.padding_left + self.padding_right {
                continue;
            }
            for start in 0..=self.padding_left {
                let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) else { break };
                if rest.len() > stop.len() + self.padding_right {
                    continue;
                }
                if rest.starts_with(stop) {
                    self.end = Some(start);
                    self.len = start;
                    return Stop::Yes;
                }
                if stop.starts_with(rest) {
                    return Stop::Maybe;
                }
            }
        }
        Stop::No
    }

    /// The text of the answer since the last [`reset`](Self::reset).
    pub fn delta(&self) -> &str {
        let text = &self.buffer[..self.end.unwrap_or(self.len)];
        // Pieces are whole characters. Only a stop string that is not UTF-8 could cut one: drop its rest.
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    /// Forgets the text so far, once it has been shown or the next answer begins.
    pub fn reset(&mut self) {
        self.len = 0;
        self.end = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::tests::vocabulary;
    use super::*;

    const EOS: u32 = 10_000;

    /// Appends the pieces, `None` being the EOS token without text, and looks at the delta behind the last.
    fn run(strings: &[&str], padding: usize, pieces: &[(Option<&str>, Stop)], delta: &str) {
        let mut buffer = [0; 64];
        let mut detector = StopDetector::with_padding(
            heapless::Vec::from_slice(&[EOS]).unwrap(),
            strings.iter().map(|string| string.as_bytes()).collect(),
            padding,
            padding,
            &mut buffer,
        );
        for (piece, expected) in pieces {
            let token = if piece.is_none() { EOS } else { 1 };
            assert_eq!(detector.append(token, piece.unwrap_or("")), *expected, "{pieces:?} at {piece:?}");
        }
        assert_eq!(detector.delta(), delta, "{pieces:?}");
        detector.reset();
        assert_eq!(detector.delta(), "");
    }

    #[test]
    fn stop_strings_are_found_across_pieces() {
        use Stop::{Maybe, No, Yes};
        let stops = ["<eos>", "<stop>"];
        run(&stops, 1, &[(Some("<"), Maybe), (Some("eo"), Maybe), (Some("s>"), Yes)], "");
        run(&stops, 1, &[(Some("<"), Maybe), (Some("stop"), Maybe), (Some("> "), Yes)], "");
        run(&stops, 1, &[(Some("!<"), Maybe), (Some("eos"), Maybe), (Some("> "), Yes)], "!");
        run(&stops, 1, &[(Some("<eo"), Maybe), (Some("s>XY"), No)], "<eos>XY");
        run(&stops, 1, &[(Some(" "), No)], " ");
        run(&["|end|"], 5, &[(Some("lorem|"), Maybe), (Some("enQ"), No)], "lorem|enQ");
        run(&["<eos>"], 0, &[(Some("<"), Maybe), (Some("eo"), Maybe), (Some("s>"), Yes)], "");
        run(&["<eos>"], 0, &[(Some(" <"), No)], " <");
        run(&["<eos>"], 0, &[(Some("<eos"), Maybe), (Some("> "), No)], "<eos> ");
    }

    #[test]
    fn a_stop_token_ends_the_answer_and_keeps_the_text_held_back() {
        run(&["<eos>"], 1, &[(Some("<eo"), Stop::Maybe), (None, Stop::Yes)], "<eo");
        run(&["<eos>"], 1, &[(None, Stop::Yes)], "");
        run(&[], 0, &[(Some("anything"), Stop::No), (None, Stop::Yes)], "anything");
    }

    #[test]
    fn tokens_and_strings_come_from_the_vocabulary() {
        let tokens: &[(f32, &[u8])] = &[(0.0, b"a"), (0.0, b"<s>"), (0.0, b"</s>"), (0.0, b"\x80")];
        let vocab = vocabulary(tokens, Some(1), &[2, 3]);
        let mut buffer = [0; 24];
        assert_eq!(StopDetector::buffer_len(&vocab), buffer.len());
        let mut detector = StopDetector::new(&vocab, &mut buffer);
        assert_eq!(detector.append(0, "é</s"), Stop::Maybe);
        assert_eq!(detector.append(0, ">"), Stop::Yes);
        assert_eq!(detector.delta(), "é");
        detector.reset();
        assert_eq!(detector.append(2, ""), Stop::Yes);
        assert_eq!(detector.append(1, "hello"), Stop::No);
        assert_eq!(detector.delta(), "hello");
    }
}
