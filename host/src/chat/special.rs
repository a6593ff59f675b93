//! The texts of a vocabulary's special tokens, and where a text spells one.

use dair_core::text::Vocabulary;
use std::borrow::Cow;

/// Texts of the special tokens, to be looked for at every place of a text.
#[derive(Clone, Debug)]
pub struct SpecialTexts<'v> {
    /// In the order of their bytes; of equal ones only the smallest number.
    texts: Vec<(Cow<'v, [u8]>, u32)>,
    /// Where those begin in `texts` that start with a byte; those of the next byte end them.
    starts: Box<[u32; 257]>,
}

impl<'v> SpecialTexts<'v> {
    /// Those of a vocabulary.
    pub fn new(vocab: &Vocabulary<'v>) -> Self {
        Self::that(vocab, |_| true)
    }

    /// Those that end a turn or a text, or otherwise mean something to the model that is no part of what is said.
    ///
    /// Blanks and single characters that a vocabulary has among its special tokens are ordinary text.
    pub fn control(vocab: &Vocabulary<'v>) -> Self {
        Self::that(vocab, |text| match std::str::from_utf8(text) {
            Ok(text) => text.chars().nth(1).is_some() && !text.trim().is_empty(),
            Err(_) => false,
        })
    }

    fn that(vocab: &Vocabulary<'v>, wanted: impl Fn(&[u8]) -> bool) -> Self {
        let special = (0..vocab.vocab_size()).filter(|id| vocab.header().is_special(*id));
        let texts = special.filter_map(|id| Some((vocab.bytes(id)?, id))).filter(|(text, _)| wanted(text));
        Self::of(texts.map(|(text, id)| (Cow::Borrowed(text), id)).collect())
    }

    /// These texts, each with a number; those that are empty are nowhere.
    pub fn of(mut texts: Vec<(Cow<'v, [u8]>, u32)>) -> Self {
        texts.retain(|(text, _)| !text.is_empty());
        texts.sort_unstable();
        texts.dedup_by(|b, a| a.0 == b.0);
        let mut starts = Box::new([0; 257]);
        for (text, _) in &texts {
            starts[usize::from(text[0]) + 1] += 1;
        }
        for byte in 0..256 {
            starts[byte + 1] += starts[byte];
        }
        Self { texts, starts }
    }

    /// The longest one with which `text` begins: its bytes and its number, which is the token's id unless others were given.
    pub fn at(&self, text: &[u8]) -> Option<(&[u8], u32)> {
        let first = usize::from(*text.first()?);
        let mut agreeing = &self.texts[self.starts[first] as usize..self.starts[first + 1] as usize];
        let mut best = None;
        // Narrows them to those that agree with the text, byte by byte. Those that end here are one and stand first.
        for (i, byte) in text.iter().enumerate() {
            let start = agreeing.partition_point(|(special, _)| special[i] < *byte);
            let end = agreeing.partition_point(|(special, _)| special[i] <= *byte);
            agreeing = &agreeing[start..end];
            if let Some((special, id)) = agreeing.first().filter(|(special, _)| special.len() == i + 1) {
                best = Some((&**special, *id));
                agreeing = &agreeing[1..];
            }
            if agreeing.is_empty() {
                break;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::tests::{Tokens, with_vocabulary};

    #[test]
    fn the_longest_special_text_wins() {
        let tokens =
            Tokens { regular: &["a"], special: &["<s>", "<a", "<ab", "<abc", "<ab", "\n", "x", "<é>"], eos: 1 };
        with_vocabulary(&tokens, |vocab| {
            let all = SpecialTexts::new(vocab);
            let found = |text: &str| all.at(text.as_bytes()).map(|(text, id)| (str::from_utf8(text).unwrap(), id));
            let base = vocab.header().bos.unwrap();
            assert_eq!(found("<abd"), Some(("<ab", base + 2)), "the first of equal ones");
            assert_eq!(found("<abcd"), Some(("<abc", base + 3)));
            assert_eq!(found("<a"), Some(("<a", base + 1)));
            assert_eq!(found("<é>"), Some(("<é>", base + 7)));
            for none in ["", "a", "<", "<b"] {
                assert_eq!(found(none), None);
            }
            let control = SpecialTexts::control(vocab);
            assert!(all.at(b"\n").is_some() && all.at(b"x").is_some());
            assert!(control.at(b"\n").is_none() && control.at(b"x").is_none() && control.at(b"<s>").is_some());
        });
    }
}
