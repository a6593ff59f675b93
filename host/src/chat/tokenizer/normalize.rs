//! Normalisation: what is done to a text before it is cut into pieces.

use fancy_regex::{NoExpand, Regex};
use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization};

/// A step that works on the whole text.
#[derive(Debug)]
pub enum Normalize {
    /// Unicode's normal form C.
    Nfc,
    /// Unicode's normal form D.
    Nfd,
    /// Unicode's normal form KC.
    Nfkc,
    /// Unicode's normal form KD.
    Nfkd,
    /// Lower case.
    Lowercase,
    /// White space goes from the beginning.
    StripLeft,
    /// White space goes from the end.
    StripRight,
    /// Goes before a text that is not empty.
    Prepend(String),
    /// Becomes the other wherever it stands.
    Replace(String, String),
    /// Where it matches stands the text then.
    ReplacePattern(Box<Regex>, String),
}

impl Normalize {
    /// The text after this step.
    pub fn apply<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        match self {
            Self::Nfc if unicode_normalization::is_nfc_quick(text.chars()) == IsNormalized::Yes => text,
            Self::Nfc => Cow::Owned(text.nfc().collect()),
            Self::Nfd => Cow::Owned(text.nfd().collect()),
            Self::Nfkc => Cow::Owned(text.nfkc().collect()),
            Self::Nfkd => Cow::Owned(text.nfkd().collect()),
            // Character by character, as the models' tokenizers do it: a final sigma is no different from others.
            Self::Lowercase => Cow::Owned(text.chars().flat_map(char::to_lowercase).collect()),
            Self::StripLeft => Cow::Owned(text.trim_start().to_owned()),
            Self::StripRight => Cow::Owned(text.trim_end().to_owned()),
            Self::Prepend(_) if text.is_empty() => text,
            Self::Prepend(prefix) => Cow::Owned([prefix, &*text].concat()),
            Self::Replace(from, _) if !text.contains(from.as_str()) => text,
            Self::Replace(from, to) => Cow::Owned(text.replace(from.as_str(), to)),
            Self::ReplacePattern(pattern, to) => Cow::Owned(pattern.replace_all(&text, NoExpand(to)).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_do_what_they_say() {
        let apply = |step: Normalize, text: &'static str| step.apply(text.into()).into_owned();
        assert_eq!(apply(Normalize::Nfc, "e\u{301}\u{1100}\u{1161}"), "é가");
        assert_eq!(apply(Normalize::Nfd, "é"), "e\u{301}");
        assert_eq!(apply(Normalize::Nfkc, "ﬁ\u{3000}"), "fi ");
        assert_eq!(apply(Normalize::Nfkd, "ﬁé"), "fie\u{301}");
        assert_eq!(apply(Normalize::Lowercase, "ΑΣ İ"), "ας i\u{307}".replace('ς', "σ"));
        assert_eq!(apply(Normalize::StripLeft, " \na "), "a ");
        assert_eq!(apply(Normalize::StripRight, " a \t"), " a");
        assert_eq!(apply(Normalize::Prepend("▁".into()), " a"), "▁ a");
        assert_eq!(apply(Normalize::Prepend("▁".into()), ""), "");
        assert_eq!(apply(Normalize::Replace(" ".into(), "▁".into()), " a  b"), "▁a▁▁b");
        let digits = Regex::new("[0-9]+").unwrap();
        assert_eq!(apply(Normalize::ReplacePattern(Box::new(digits), "$0".into()), "a1b22"), "a$0b$0");
    }

    #[test]
    fn a_text_that_need_not_change_is_not_copied() {
        for step in [Normalize::Nfc, Normalize::Prepend("x".into()), Normalize::Replace("q".into(), "x".into())] {
            let text = if matches!(step, Normalize::Prepend(_)) { "" } else { "plain text" };
            assert!(matches!(step.apply(text.into()), Cow::Borrowed(_)), "{step:?}");
        }
    }
}
