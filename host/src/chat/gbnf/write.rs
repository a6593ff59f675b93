//! A grammar in Lark, and its pieces as regular expressions.

use super::GbnfError;
use super::places::Pieces;
use super::read::{Grammar, Kind, Part};
use std::collections::HashMap;
use std::fmt::Write;

/// Most rules and groups within each other: whoever reads them goes down as deep.
const DEPTH_MAX: u32 = 200;

/// A part that needs no stack, as a regular expression.
pub fn regex(grammar: &Grammar, part: &Part) -> String {
    let mut text = String::new();
    expression(grammar, part, &mut text);
    text
}

fn expression(grammar: &Grammar, part: &Part, text: &mut String) {
    match &part.kind {
        Kind::One(chars) => chars.regex(text),
        Kind::Rule(rule) => expression(grammar, &grammar.rules[*rule], text),
        Kind::All(parts) => parts.iter().for_each(|part| expression(grammar, part, text)),
        Kind::Any(parts) => {
            for (at, part) in parts.iter().enumerate() {
                text.push_str(if at == 0 { "(?:" } else { "|" });
                expression(grammar, part, text);
            }
            text.push(')');
        }
        Kind::Times(inner, least, most) => {
            text.push_str("(?:");
            expression(grammar, inner, text);
            text.push(')');
            times(*least, *most, text);
        }
    }
}

/// How often, as both regular expressions and Lark have it.
fn times(least: u32, most: Option<u32>, text: &mut String) {
    let _ = match (least, most) {
        (0, None) => write!(text, "*"),
        (1, None) => write!(text, "+"),
        (0, Some(1)) => write!(text, "?"),
        (least, None) => write!(text, "{{{least},}}"),
        (least, Some(most)) => write!(text, "{{{least},{most}}}"),
    };
}

/// The whole grammar.
///
/// # Errors
/// Its rules are too deep within each other.
pub fn lark(pieces: &Pieces<'_>) -> Result<String, GbnfError> {
    let grammar = pieces.grammar;
    let root = &grammar.rules[grammar.root];
    // Without a stack the whole text is one piece.
    if pieces.rules[grammar.root].is_some() {
        return Ok(format!("start: /(?:{})/", regex(grammar, root)));
    }
    let is_written = vec![false; grammar.rules.len()];
    let mut writer = Writer { pieces, terminals: HashMap::new(), is_written, rules: String::new() };
    writer.rule(grammar.root, 0)?;
    let mut text = format!("start: r{}\n{}", grammar.root, writer.rules);
    let mut terminals: Vec<_> = writer.terminals.into_iter().collect();
    terminals.sort_unstable_by_key(|(_, number)| *number);
    for (regex, number) in terminals {
        // A piece is never nothing: rules say where it may be left out.
        let _ = writeln!(text, "T{number}: /(?:{regex})/ & /(?s:.+)/");
    }
    Ok(text)
}

struct Writer<'w> {
    pieces: &'w Pieces<'w>,
    /// Numbers of pieces.
    terminals: HashMap<String, usize>,
    /// Of each rule.
    is_written: Vec<bool>,
    rules: String,
}

impl Writer<'_> {
    fn rule(&mut self, rule: usize, depth: u32) -> Result<(), GbnfError> {
        if std::mem::replace(&mut self.is_written[rule], true) {
            return Ok(());
        }
        let mut body = String::new();
        self.part(&self.pieces.grammar.rules[rule], depth + 1, &mut body)?;
        let _ = writeln!(self.rules, "r{rule}:{body}");
        Ok(())
    }

    fn part(&mut self, part: &Part, depth: u32, text: &mut String) -> Result<(), GbnfError> {
        if depth > DEPTH_MAX {
            let line = format!("rules and groups more than {DEPTH_MAX} deep within each other; make them simpler");
            return Err(GbnfError(line));
        }
        if let Some(facts) = self.pieces.piece(part) {
            let next = self.terminals.len();
            let number = *self.terminals.entry(regex(self.pieces.grammar, part)).or_insert(next);
            let _ = write!(text, " T{number}{}", if facts.is_nullable { "?" } else { "" });
            return Ok(());
        }
        match &part.kind {
            // It is always a piece.
            Kind::One(_) => {}
            Kind::Rule(rule) => {
                let _ = write!(text, " r{rule}");
                self.rule(*rule, depth + 1)?;
            }
            Kind::Times(_, _, Some(0)) => text.push_str(" \"\""),
            Kind::All(parts) if parts.is_empty() => text.push_str(" \"\""),
            Kind::All(parts) => {
                for part in parts {
                    self.part(part, depth + 1, text)?;
                }
            }
            Kind::Any(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    text.push_str(if at == 0 { " (" } else { " |" });
                    self.part(part, depth + 1, text)?;
                }
                text.push_str(" )");
            }
            Kind::Times(inner, least, most) => {
                text.push_str(" (");
                self.part(inner, depth + 1, text)?;
                text.push_str(" )");
                times(*least, *most, text);
            }
        }
        Ok(())
    }
}
