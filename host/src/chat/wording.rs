//! Sampled tokens as the text of an answer, and where that ends.

use dair_core::text::{Decoder, Stop, StopDetector, Vocabulary, held_back_len};

/// The text of one answer, as it comes.
#[derive(Debug)]
pub struct Wording {
    decoder: Decoder,
    stops: StopDetector<Vec<u32>, Vec<String>, Vec<u8>>,
    piece: String,
}

impl Wording {
    /// Of an answer that ends at one of these tokens, or where one of `strings` would begin.
    pub fn new(vocab: &Vocabulary<'_>, ends: &[u32], strings: &[String]) -> Self {
        // Every second byte of a token can be a bad one, written as three, and a character may have been pending.
        let piece_bytes = 2 * vocab.header().max_token_len as usize + 8;
        let held_back = vec![0; held_back_len(strings, piece_bytes)];
        let stops = StopDetector::new(ends.to_vec(), strings.to_vec(), held_back);
        Self { decoder: Decoder::new(), stops, piece: String::new() }
    }

    /// Takes the next token: whether it ends the answer, and the text that is sure by now.
    pub fn push(&mut self, vocab: &Vocabulary<'_>, token: u32) -> (Stop, &str) {
        self.stops.reset();
        self.piece.clear();
        // Writing to a String does not fail.
        let _ = self.decoder.push(vocab, token, &mut self.piece);
        (self.stops.append(token, &self.piece), self.stops.delta())
    }

    /// What was held back, where no more tokens come: it belongs to the answer then.
    pub fn rest(&mut self) -> &str {
        self.stops.reset();
        self.piece.clear();
        self.piece.push_str(self.stops.rest());
        let _ = self.decoder.flush(&mut self.piece);
        &self.piece
    }
}
