//! Sets of characters.

use std::fmt::Write;

/// The last character that there is.
const LAST: u32 = char::MAX as u32;
/// Numbers that are no characters.
const NONE: (u32, u32) = (0xd800, 0xdfff);

/// A set of characters, as ranges in order that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chars(Vec<(u32, u32)>);

impl Chars {
    /// Of ranges in any order, from the first character to the last one of each.
    pub fn of(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut all: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match all.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => all.push((first, last)),
            }
        }
        Self(all)
    }

    /// One character.
    pub fn one(c: char) -> Self {
        Self(vec![(c.into(), c.into())])
    }

    /// All characters that are not in it.
    pub fn others(&self) -> Self {
        let mut all = Vec::new();
        let mut next = 0;
        let mut ranges = self.0.clone();
        ranges.push(NONE);
        for (first, last) in Self::of(ranges).0 {
            if next < first {
                all.push((next, first - 1));
            }
            next = last + 1;
        }
        if next <= LAST {
            all.push((next, LAST));
        }
        Self(all)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes those of another set, too.
    pub fn add(&mut self, other: &Self) {
        if !other.is_empty() {
            *self = Self::of([&self.0[..], &other.0].concat());
        }
    }

    /// Whether a character is in both.
    pub fn meets(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(one), Some(two)) = (ours.peek(), theirs.peek()) {
            if one.1 < two.0 {
                ours.next();
            } else if two.1 < one.0 {
                theirs.next();
            } else {
                return true;
            }
        }
        false
    }

    /// As a regular expression has it.
    pub fn regex(&self, text: &mut String) {
        match &self.0[..] {
            [(first, last)] if first == last => symbol(*first, text),
            ranges => {
                text.push('[');
                for (first, last) in ranges {
                    symbol(*first, text);
                    if first < last {
                        text.push('-');
                        symbol(*last, text);
                    }
                }
                text.push(']');
            }
        }
    }
}

/// A character that means nothing else.
fn symbol(c: u32, text: &mut String) {
    match char::from_u32(c).filter(char::is_ascii_alphanumeric) {
        Some(c) => text.push(c),
        None => {
            let _ = write!(text, "\\x{{{c:x}}}");
        }
    }
}
