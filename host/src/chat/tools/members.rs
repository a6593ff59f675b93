//! A JSON object as it comes: where its members are, before it is whole.

use std::ops::Range;

/// The beginning of an object, and what of it is known.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// All of it so far.
    text: String,
    scanned: usize,
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    /// Behind the colon of a member.
    in_value: bool,
    key: Range<usize>,
    members: Vec<Member>,
    is_whole: bool,
}

/// A member: its name, and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub key: String,
    start: usize,
    end: Option<usize>,
}

impl Members {
    /// Takes more text, up to the end of the object; what lies behind that is given back.
    pub fn push<'t>(&mut self, text: &'t str) -> &'t str {
        self.text.push_str(text);
        while self.scanned < self.text.len() && !self.is_whole {
            self.step(self.text.as_bytes()[self.scanned]);
            self.scanned += 1;
        }
        let behind = self.text.len() - self.scanned;
        self.text.truncate(self.scanned);
        &text[text.len() - behind..]
    }

    fn step(&mut self, byte: u8) {
        let at = self.scanned;
        if self.in_string {
            match (self.is_escaped, byte) {
                (true, _) => self.is_escaped = false,
                (false, b'\\') => self.is_escaped = true,
                (false, b'"') => {
                    self.in_string = false;
                    if self.depth == 1 && self.in_value {
                        self.close(at + 1);
                    } else if self.depth == 1 {
                        self.key.end = at + 1;
                    }
                }
                _ => {}
            }
            return;
        }
        if self.depth == 1 && self.in_value && !byte.is_ascii_whitespace() && !matches!(byte, b',' | b'}') {
            self.open(at);
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 && !self.in_value {
                    self.key = at..at;
                }
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                if self.depth == 1 {
                    self.close(at);
                }
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 1 {
                    self.close(at + 1);
                }
                self.is_whole = self.depth == 0;
            }
            b':' if self.depth == 1 && !self.in_value => {
                self.in_value = true;
                let key = serde_json::from_str(&self.text[self.key.clone()]).unwrap_or_default();
                self.members.push(Member { key, start: usize::MAX, end: None });
            }
            b',' if self.depth == 1 => {
                self.close(at);
                self.in_value = false;
            }
            _ => {}
        }
    }

    fn open(&mut self, at: usize) {
        if let Some(member) = self.members.last_mut()
            && member.start == usize::MAX
        {
            member.start = at;
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(member) = self.members.last_mut()
            && member.start != usize::MAX
        {
            member.end.get_or_insert(at);
        }
    }

    /// All of it so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether its last brace has come.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The first member, if there is one.
    pub fn first(&self) -> Option<&Member> {
        self.members.first()
    }

    /// A member with one of these names whose value has begun: its text so far, and whether it is whole.
    pub fn value(&self, keys: &[&str]) -> Option<(&str, bool)> {
        let begun = |member: &&Member| member.start < self.text.len() && keys.contains(&&member.key[..]);
        let member = self.members.iter().find(begun)?;
        let text = &self.text[member.start..member.end.unwrap_or(self.text.len())];
        Some((if member.end.is_some() { text.trim_end() } else { text }, member.end.is_some()))
    }

    /// The text of a member that is a string, when it is whole.
    pub fn string(&self, key: &str) -> Option<String> {
        let (text, is_whole) = self.value(&[key])?;
        if is_whole { serde_json::from_str(text).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn of(text: &str, cut: usize) -> (Members, String) {
        let (mut members, mut behind) = (Members::default(), String::new());
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(cut) {
            let piece: String = piece.iter().collect();
            if members.is_whole() { behind.push_str(&piece) } else { behind.push_str(members.push(&piece)) }
        }
        (members, behind)
    }

    #[test]
    fn members_are_found_wherever_the_text_is_cut() {
        let text = r#"{ "name" : "a\"}b", "n": -1.5e3 , "arguments": {"x": [1, {"name": "inner"}], "y": "}"}, "last":null} tail"#;
        for cut in 1..=text.len() {
            let (members, behind) = of(text, cut);
            assert_eq!((members.is_whole(), &behind[..]), (true, " tail"));
            assert_eq!(members.string("name").as_deref(), Some("a\"}b"));
            assert_eq!(members.value(&["n"]), Some(("-1.5e3", true)));
            assert_eq!(
                members.value(&["parameters", "arguments"]),
                Some((r#"{"x": [1, {"name": "inner"}], "y": "}"}"#, true))
            );
            assert_eq!(members.value(&["last"]), Some(("null", true)));
            assert_eq!(members.first().map(|first| &first.key[..]), Some("name"));
        }
    }

    #[test]
    fn a_value_is_told_as_far_as_it_has_come() {
        let (members, _) = of(r#"{"name": "f", "arguments": {"x": "ab"#, 3);
        assert_eq!(members.value(&["arguments"]), Some((r#"{"x": "ab"#, false)));
        assert_eq!((members.is_whole(), members.string("arguments"), members.value(&["y"])), (false, None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in r#"[{}\[\]":,\\ a1é]{0,40}"#, cut in 1usize..9) {
            let (members, behind) = of(&format!("{{{text}"), cut);
            prop_assert_eq!(format!("{}{behind}", members.text()), format!("{{{text}"));
            let _ = (members.value(&["a"]), members.string("a"), members.first());
        }

        #[test]
        fn values_are_those_of_a_parser(value in prop::collection::vec(("[a-c\"\\\\é]{0,4}", -5i32..5), 0..5), cut in 1usize..9) {
            let value = json!({ "name": value.iter().map(|(text, _)| text.as_str()).collect::<String>(), "arguments": value });
            let (members, _) = of(&value.to_string(), cut);
            prop_assert_eq!(members.string("name"), value["name"].as_str().map(str::to_owned));
            let arguments: Value = serde_json::from_str(members.value(&["arguments"]).unwrap().0).unwrap();
            prop_assert_eq!(&arguments, &value["arguments"]);
        }
    }
}
