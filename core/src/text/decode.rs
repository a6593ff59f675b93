//! Tokens to text, as they come: bytes are held back until they make whole characters.

use super::Vocabulary;
use core::fmt::{self, Write};

/// Turns the bytes of tokens into characters, across token borders.
///
/// Bytes that are not UTF-8 become U+FFFD, one for a run of them. As in Distributed-Llama, it is written together with
/// the next whole character, or by [`flush`](Decoder::flush). Other than there, output is always valid UTF-8 (overlong
/// forms, surrogates and numbers beyond U+10FFFF are bad bytes too), and a zero byte is a character like any other.
///
/// ```
/// # use dair_core::text::Decoder;
/// let (mut decoder, mut text) = (Decoder::new(), String::new());
/// decoder.push_bytes(&[0xF0, 0x9F, 0x98], &mut text)?;
/// assert_eq!(text, "");
/// decoder.push_bytes(&[0x83], &mut text)?;
/// assert_eq!(text, "😃");
/// # Ok::<(), core::fmt::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoder {
    /// The beginning of a character: `partial[..len]`, of which `need` more bytes are to come.
    partial: [u8; 4],
    len: usize,
    need: usize,
    /// Bad bytes have been dropped since the last whole character.
    bad: bool,
}

impl Decoder {
    /// A decoder at the beginning of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the characters that a token completes; BOS and EOS tokens write nothing.
    ///
    /// An id outside the vocabulary counts as a bad byte.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn push<W: Write>(&mut self, vocab: &Vocabulary<'_>, id: u32, out: &mut W) -> fmt::Result {
        if vocab.header().bos == Some(id) || vocab.header().is_eos(id) {
            return Ok(());
        }
        self.push_bytes(vocab.bytes(id).unwrap_or(&[0xFF]), out)
    }

    /// Writes the characters that these bytes complete.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn push_bytes<W: Write>(&mut self, bytes: &[u8], out: &mut W) -> fmt::Result {
        bytes.iter().try_for_each(|&byte| self.push_byte(byte, out))
    }

    /// Ends the text: bytes still held back can no longer become a character, so they become U+FFFD.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn flush<W: Write>(&mut self, out: &mut W) -> fmt::Result {
        let held_back = self.bad || self.len > 0;
        *self = Self::default();
        if held_back { out.write_char(char::REPLACEMENT_CHARACTER) } else { Ok(()) }
    }

    fn push_byte<W: Write>(&mut self, byte: u8, out: &mut W) -> fmt::Result {
        let continues = byte & 0xC0 == 0x80;
        if self.need > 0 && !continues {
            // The character breaks off here; this byte may begin another.
            self.drop_partial();
        }
        match (self.need, byte) {
            (1.., _) => self.need -= 1,
            (0, 0x00..=0x7F) => {}
            (0, 0xC0..=0xDF) => self.need = 1,
            (0, 0xE0..=0xEF) => self.need = 2,
            (0, 0xF0..=0xF7) => self.need = 3,
            (0, _) => {
                self.bad = true;
                return Ok(());
            }
        }
        self.partial[self.len] = byte;
        self.len += 1;
        if self.need > 0 {
            return Ok(());
        }
        let (partial, len) = (self.partial, self.len);
        match core::str::from_utf8(&partial[..len]) {
            Ok(character) => {
                self.len = 0;
                if core::mem::take(&mut self.bad) {
                    out.write_char(char::REPLACEMENT_CHARACTER)?;
                }
                out.write_str(character)
            }
            Err(_) => {
                self.drop_partial();
                Ok(())
            }
        }
    }

    fn drop_partial(&mut self) {
        self.len = 0;
        self.need = 0;
        self.bad = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::tests::vocabulary;
    use super::*;
    use proptest::prelude::*;
    use std::{string::String, vec::Vec};

    fn decode(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let mut decoder = Decoder::new();
        let mut texts = Vec::new();
        for piece in pieces {
            let mut text = String::new();
            decoder.push_bytes(piece, &mut text).unwrap();
            texts.push(text);
        }
        let mut rest = String::new();
        decoder.flush(&mut rest).unwrap();
        assert_eq!(decoder, Decoder::new());
        (texts, rest)
    }

    #[test]
    fn characters_cross_token_borders() {
        let (texts, rest) = decode(&[b"\xF0\x9F\x98", b"\x83", b"!\xC3", b"\xA9\0e"]);
        assert_eq!((texts.join("|").as_str(), rest.as_str()), ("|😃|!|é\0e", ""));
    }

    #[test]
    fn bad_bytes_collapse_and_show_with_the_next_character() {
        let (texts, rest) = decode(&[b"\xF0\x9F\x98", b"\xF0\x9F\x98", b"\x83", b"\xFF\x80\xC3", b"a\xFF", b"\xE2"]);
        assert_eq!(texts.join("|"), "||\u{FFFD}😃||\u{FFFD}a|");
        assert_eq!(rest, "\u{FFFD}");
    }

    #[test]
    fn overlong_forms_and_surrogates_are_bad_bytes() {
        let (texts, _) = decode(&[b"\xC0\x80a", b"\xED\xA0\x80b", b"\xF7\xBF\xBF\xBFc"]);
        assert_eq!(texts.join("|"), "\u{FFFD}a|\u{FFFD}b|\u{FFFD}c");
    }

    #[test]
    fn bos_and_eos_write_nothing_and_keep_what_is_held_back() {
        let vocab = vocabulary(&[(0.0, b"\xC3"), (0.0, b"\xA9"), (0.0, b"<s>"), (0.0, b"</s>")], Some(2), &[3]);
        let (mut decoder, mut text) = (Decoder::new(), String::new());
        for id in [2, 0, 2, 3, 1, 9] {
            decoder.push(&vocab, id, &mut text).unwrap();
        }
        decoder.flush(&mut text).unwrap();
        assert_eq!(text, "é\u{FFFD}");
    }

    /// The rule of Distributed-Llama word for word: all bytes since the last checkpoint are kept and scanned again.
    #[derive(Default)]
    struct Rescan(Vec<u8>);

    impl Rescan {
        fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
            self.0.extend(bytes);
            let (mut out, mut need, mut i) = (Vec::new(), 0, 0);
            let mut checkpoint = (0, 0);
            while i < self.0.len() {
                let byte = self.0[i];
                let (good, starts) = match byte {
                    _ if need > 0 => (byte & 0xC0 == 0x80, need - 1),
                    0x00..=0x7F => (true, 0),
                    0xC0..=0xDF => (true, 1),
                    0xE0..=0xEF => (true, 2),
                    0xF0..=0xF7 => (true, 3),
                    _ => (false, 0),
                };
                if good {
                    out.push(byte);
                    i += 1;
                    need = starts;
                    if need == 0 {
                        checkpoint = (out.len(), i);
                    }
                } else {
                    if need == 0 {
                        i += 1;
                    }
                    need = 0;
                    out.truncate(checkpoint.0);
                    out.extend("\u{FFFD}".bytes());
                }
            }
            self.0.drain(..checkpoint.1);
            out.truncate(checkpoint.0);
            out
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn equals_the_rescanning_rule(pieces in prop::collection::vec(prop::collection::vec(
            // No byte that could make an overlong form, a surrogate or too large a number.
            prop_oneof![Just(b'a'), Just(0xC3), Just(0xE1), Just(0xF1), 0x80u8..=0xBF, Just(0xFF)], 0..6), 0..8)) {
            let (mut decoder, mut rescan) = (Decoder::new(), Rescan::default());
            for piece in &pieces {
                let mut text = String::new();
                decoder.push_bytes(piece, &mut text).unwrap();
                prop_assert_eq!(text.into_bytes(), rescan.push(piece));
            }
        }

        #[test]
        fn valid_text_passes_through_whatever_the_cuts(text: String, cut in 1usize..5) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let (texts, rest) = decode(&pieces);
            prop_assert_eq!(texts.concat() + &rest, text);
        }
    }
}
