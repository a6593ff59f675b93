//! Tokens that a text may spell as a whole: where they stand in it.

use crate::chat::special::SpecialTexts;
use dair_core::format::tokenizer::{Added, Kind};
use std::borrow::Cow;
use std::ops::Range;

/// A control or user-defined token and how it is found.
#[derive(Clone, Copy, Debug)]
pub struct AddedToken {
    /// Its id.
    pub id: u32,
    /// Whether it steers the model.
    pub is_control: bool,
    /// How it is found.
    pub added: Added,
}

/// Finds such tokens in a text: the leftmost, of several at one place the longest.
#[derive(Debug)]
pub struct Finder<'v> {
    /// With the places of their tokens.
    texts: SpecialTexts<'v>,
    tokens: Vec<AddedToken>,
}

impl<'v> Finder<'v> {
    /// A finder of these spellings.
    pub fn new(tokens: Vec<(AddedToken, Cow<'v, str>)>) -> Self {
        let (tokens, texts): (Vec<_>, Vec<_>) = tokens.into_iter().unzip();
        let bytes = |text: Cow<'v, str>| match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { texts: SpecialTexts::of(texts.into_iter().map(bytes).zip(0..).collect()), tokens }
    }

    /// Cuts a text into what stands between tokens (without an id) and tokens, in order. Control tokens are passed over unless
    /// they are wanted.
    pub fn cut(&self, text: &str, controls: bool) -> Vec<(Option<u32>, Range<usize>)> {
        let mut parts = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            // Spellings are whole characters, so what begins with one does, too.
            let Some((found, place)) = self.texts.at(&text.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            let token = self.tokens[place as usize];
            let (mut start, mut end) = (at, at + found.len());
            at = end;
            let inside_word = text[..start].ends_with(is_word) || text[end..].starts_with(is_word);
            if (token.is_control && !controls) || (token.added.single_word && inside_word) || start < done {
                continue;
            }
            if token.added.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.added.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            parts.push((None, done..start));
            parts.push((Some(token.id), start..end));
            done = end;
        }
        parts.push((None, done..text.len()));
        parts.retain(|(_, range)| !range.is_empty());
        parts
    }
}

impl AddedToken {
    /// The token with these bits in a `.t` file, if it is one that a text may spell.
    pub fn of(id: u32, bits: u8) -> Option<Self> {
        let kind = Kind::of(bits).filter(|kind| kind.is_added())?;
        Some(Self { id, is_control: kind == Kind::Control, added: Added::of(bits) })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder<'v>(tokens: &[(&'v str, bool, Added)]) -> Finder<'v> {
        let token = |(id, &(text, is_control, added)): (usize, &(&'v str, bool, Added))| {
            (AddedToken { id: id as u32, is_control, added }, Cow::Borrowed(text))
        };
        Finder::new(tokens.iter().enumerate().map(token).collect())
    }

    fn cut<'t>(finder: &Finder<'_>, text: &'t str, controls: bool) -> Vec<(Option<u32>, &'t str)> {
        finder.cut(text, controls).into_iter().map(|(id, range)| (id, &text[range])).collect()
    }

    #[test]
    fn the_longest_of_the_leftmost_is_found() {
        let plain = Added::default();
        let finder = finder(&[("<a", true, plain), ("<a>", true, plain), ("a>b", false, plain)]);
        assert_eq!(cut(&finder, "x<a>b<a", true), [(None, "x"), (Some(1), "<a>"), (None, "b"), (Some(0), "<a")]);
        assert_eq!(cut(&finder, "", true), []);
        assert_eq!(cut(&finder, "a>b<a>", false), [(Some(2), "a>b"), (None, "<a>")]);
    }

    #[test]
    fn white_space_around_belongs_to_a_token_that_says_so() {
        let both = Added { lstrip: true, rstrip: true, ..Added::default() };
        let finder = finder(&[("<m>", true, both)]);
        assert_eq!(cut(&finder, "a \n<m>  b", true), [(None, "a"), (Some(0), " \n<m>  "), (None, "b")]);
        assert_eq!(cut(&finder, "<m> <m>", true), [(Some(0), "<m> "), (Some(0), "<m>")]);
    }

    #[test]
    fn a_single_word_is_not_part_of_another() {
        let finder = finder(&[("ab", true, Added { single_word: true, ..Added::default() })]);
        assert_eq!(
            cut(&finder, "ab cab ab1 (ab)", true),
            [(Some(0), "ab"), (None, " cab ab1 ("), (Some(0), "ab"), (None, ")")]
        );
    }

    #[test]
    fn nothing_is_found_without_tokens() {
        assert_eq!(cut(&finder(&[]), "text", true), [(None, "text")]);
    }
}
