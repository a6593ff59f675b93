//! What is known of the parts of rules that need no stack: those could be regular expressions.

use super::chars::Chars;
use super::read::{Grammar, Kind, Part};

/// Most parts of a regular expression; those of rules in it count each time.
const SIZE_MAX: usize = 1024;

/// How texts of a part begin and go on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// It may be nothing.
    pub is_nullable: bool,
    /// First characters.
    pub first: Chars,
    /// Characters that go on with a text that could have ended.
    pub more: Chars,
    /// The next character always says where in the part a text is: then `more` is all that there is to know.
    pub is_clear: bool,
    /// Parts, those of rules in it, too.
    size: usize,
}

impl Facts {
    fn nothing() -> Self {
        Self { is_nullable: true, is_clear: true, size: 1, ..Self::default() }
    }

    fn one(chars: &Chars) -> Self {
        Self { first: chars.clone(), is_clear: true, size: 1, ..Self::default() }
    }

    /// It, and that behind it.
    fn then(mut self, next: &Self) -> Self {
        let meets = self.more.meets(&next.first) || self.is_nullable && self.first.meets(&next.first);
        let mut more = next.more.clone();
        if next.is_nullable {
            more.add(&self.more);
            more.add(&next.first);
        }
        if self.is_nullable {
            self.first.add(&next.first);
        }
        Self {
            is_nullable: self.is_nullable && next.is_nullable,
            first: self.first,
            more,
            is_clear: self.is_clear && next.is_clear && !meets,
            size: self.size.saturating_add(next.size),
        }
    }

    /// It, or that.
    fn or(mut self, other: &Self) -> Self {
        let meets = self.first.meets(&other.first);
        self.more.add(&other.more);
        self.first.add(&other.first);
        Self {
            is_nullable: self.is_nullable || other.is_nullable,
            is_clear: self.is_clear && other.is_clear && !meets,
            size: self.size.saturating_add(other.size),
            ..self
        }
    }

    fn times(mut self, least: u32, most: Option<u32>) -> Self {
        if most == Some(0) {
            return Self { size: self.size, ..Self::nothing() };
        }
        self.is_nullable |= least == 0;
        if most != Some(1) {
            self.is_clear &= !self.more.meets(&self.first);
        }
        // Where it is there so many times and no others, nothing follows the last time.
        let is_fixed = most == Some(1) || most == Some(least) && !self.is_nullable;
        if !is_fixed {
            let first = self.first.clone();
            self.more.add(&first);
        }
        self
    }
}

/// The facts of each rule that needs no stack.
pub fn of_rules(grammar: &Grammar) -> Vec<Option<Facts>> {
    let mut known = Known { grammar, rules: vec![State::New; grammar.rules.len()] };
    for rule in 0..grammar.rules.len() {
        known.rule(rule, 0);
    }
    let facts = |state| if let State::Facts(facts) = state { Some(facts) } else { None };
    known.rules.into_iter().map(facts).collect()
}

/// The facts of a part, if it needs no stack.
pub fn of_part(part: &Part, rules: &[Option<Facts>]) -> Option<Facts> {
    fold(part, 0, &mut |rule, _| rules[rule].clone())
}

#[derive(Clone)]
enum State {
    New,
    /// Being looked at, or known to need a stack.
    None,
    Facts(Facts),
}

struct Known<'g> {
    grammar: &'g Grammar,
    rules: Vec<State>,
}

/// Most rules and groups within each other that are looked at; a rule that is deeper counts as one that needs a stack.
const DEPTH_MAX: u32 = 250;

impl Known<'_> {
    fn rule(&mut self, rule: usize, depth: u32) -> Option<Facts> {
        match &self.rules[rule] {
            State::Facts(facts) => return Some(facts.clone()),
            State::None => return None,
            State::New => {}
        }
        // Whoever leads here again meets this: a rule within itself needs a stack.
        self.rules[rule] = State::None;
        let grammar = self.grammar;
        let mut facts = fold(&grammar.rules[rule], depth, &mut |inner, depth| self.rule(inner, depth))?;
        facts.size = facts.size.saturating_add(1);
        if facts.size > SIZE_MAX {
            return None;
        }
        self.rules[rule] = State::Facts(facts.clone());
        Some(facts)
    }
}

fn fold(part: &Part, depth: u32, rule: &mut dyn FnMut(usize, u32) -> Option<Facts>) -> Option<Facts> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut each = |part: &Part| fold(part, depth + 1, rule);
    match &part.kind {
        Kind::One(chars) => Some(Facts::one(chars)),
        Kind::Rule(number) => rule(*number, depth + 1),
        Kind::All(parts) => {
            // From behind, so that each step is about one part and all of the rest.
            let all: Option<Vec<Facts>> = parts.iter().map(each).collect();
            Some(all?.into_iter().rev().reduce(|rest, one| one.then(&rest)).unwrap_or_else(Facts::nothing))
        }
        Kind::Any(parts) => {
            let all: Option<Vec<Facts>> = parts.iter().map(each).collect();
            all?.into_iter().reduce(|all, one| all.or(&one))
        }
        Kind::Times(inner, least, most) => Some(each(inner)?.times(*least, *most)),
    }
}
