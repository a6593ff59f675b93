//! GBNF, read.

use super::GbnfError;
use super::chars::Chars;
use std::collections::HashMap;

/// Longest grammar, in bytes.
const BYTES_MAX: usize = 1 << 18;
/// Most parts of all rules: characters, classes, references, groups.
const PARTS_MAX: usize = 1 << 14;
/// Most groups within each other.
const DEPTH_MAX: u32 = 64;
/// Most repetitions that are counted.
const TIMES_MAX: u32 = 2000;

/// The rules of a grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// What each consists of.
    pub rules: Vec<Part>,
    /// Where to begin.
    pub root: usize,
    /// How many parts there are.
    pub parts: usize,
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number among all.
    pub id: usize,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A character of these.
    One(Chars),
    /// What a rule consists of.
    Rule(usize),
    /// These, in order.
    All(Vec<Part>),
    /// One of these.
    Any(Vec<Part>),
    /// That, so many times at least, and so many at most.
    Times(Box<Part>, u32, Option<u32>),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
    parts: usize,
    /// Rules by their names, with the place where each was named first.
    names: HashMap<&'t str, (usize, usize)>,
    rules: Vec<Option<Part>>,
}

/// Reads a grammar.
///
/// # Errors
/// What is wrong, and where.
pub fn read(text: &str) -> Result<Grammar, GbnfError> {
    let mut reader = Reader { text, at: 0, depth: 0, parts: 0, names: HashMap::new(), rules: Vec::new() };
    if text.len() > BYTES_MAX {
        return Err(GbnfError(format!("a grammar of {} bytes; at most {BYTES_MAX} go", text.len())));
    }
    reader.blanks(true);
    while reader.peek().is_some() {
        reader.rule()?;
    }
    reader.grammar()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Whether that comes next, which is passed then.
    fn takes(&mut self, text: &str) -> bool {
        let is_there = self.text[self.at..].starts_with(text);
        self.at += if is_there { text.len() } else { 0 };
        is_there
    }

    /// Passes blanks and comments, and where `lines` says so the ends of lines.
    fn blanks(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => {}
                '\n' | '\r' if lines => {}
                '#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
    }

    fn error<T>(&self, at: usize, what: impl std::fmt::Display) -> Result<T, GbnfError> {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Err(GbnfError(format!("line {line}, column {column}: {what}")))
    }

    /// What is there instead of what is wanted.
    fn wanted<T>(&self, wanted: &str) -> Result<T, GbnfError> {
        match self.peek() {
            None => self.error(self.at, format_args!("the grammar ends here; wanted is {wanted}")),
            Some(c) => self.error(self.at, format_args!("{c:?} is there; wanted is {wanted}")),
        }
    }

    fn part(&mut self, kind: Kind) -> Result<Part, GbnfError> {
        let id = self.parts;
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return self
                .error(self.at, format_args!("more than {PARTS_MAX} characters, classes and names; make it smaller"));
        }
        Ok(Part { id, kind })
    }

    fn name(&mut self) -> Result<&'t str, GbnfError> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if len == 0 {
            return self.wanted("the name of a rule");
        }
        self.at += len;
        Ok(&rest[..len])
    }

    /// The number of a rule, which may come later.
    fn number(&mut self, name: &'t str) -> usize {
        let next = self.rules.len();
        let (number, _) = *self.names.entry(name).or_insert((next, self.at - name.len()));
        if number == next {
            self.rules.push(None);
        }
        number
    }

    fn rule(&mut self) -> Result<(), GbnfError> {
        let start = self.at;
        let name = self.name()?;
        let number = self.number(name);
        if self.rules[number].is_some() {
            return self.error(start, format_args!("the rule {name} is there twice"));
        }
        self.blanks(false);
        if !self.takes("::=") {
            return self.wanted("::=");
        }
        self.blanks(true);
        let body = self.alternatives()?;
        if !matches!(self.peek(), None | Some('\n' | '\r')) {
            return self.wanted("the end of the line, or another part of the rule");
        }
        self.blanks(true);
        self.rules[number] = Some(body);
        Ok(())
    }

    fn alternatives(&mut self) -> Result<Part, GbnfError> {
        let mut all = vec![self.sequence()?];
        loop {
            // Another one may stand on the next line.
            let end = self.at;
            self.blanks(true);
            if !self.takes("|") {
                self.at = if self.depth > 0 { self.at } else { end };
                break;
            }
            self.blanks(true);
            all.push(self.sequence()?);
        }
        match all.len() {
            1 => Ok(all.remove(0)),
            _ => self.part(Kind::Any(all)),
        }
    }

    fn sequence(&mut self) -> Result<Part, GbnfError> {
        let mut all = Vec::new();
        loop {
            let part = match self.peek() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('(') => self.group()?,
                Some('.') => {
                    self.at += 1;
                    self.part(Kind::One(Chars::default().others()))?
                }
                Some(c) if is_name(c) => {
                    let name = self.name()?;
                    let number = self.number(name);
                    self.part(Kind::Rule(number))?
                }
                Some('<' | '!') => return self.error(self.at, "tokens are not told here; write their characters"),
                _ => break,
            };
            let part = self.repeated(part)?;
            all.push(part);
            self.blanks(self.depth > 0);
        }
        match all.len() {
            1 => Ok(all.remove(0)),
            _ => self.part(Kind::All(all)),
        }
    }

    fn group(&mut self) -> Result<Part, GbnfError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error(self.at, format_args!("more than {DEPTH_MAX} groups within each other"));
        }
        self.at += 1;
        self.blanks(true);
        let inner = self.alternatives()?;
        if !self.takes(")") {
            return self.wanted(")");
        }
        self.depth -= 1;
        Ok(inner)
    }

    fn literal(&mut self) -> Result<Part, GbnfError> {
        self.at += 1;
        let mut all = Vec::new();
        while !self.takes("\"") {
            let c = self.character("\"")?;
            all.push(self.part(Kind::One(Chars::one(c)))?);
        }
        match all.len() {
            1 => Ok(all.remove(0)),
            _ => self.part(Kind::All(all)),
        }
    }

    fn class(&mut self) -> Result<Part, GbnfError> {
        let start = self.at;
        self.at += 1;
        let is_negated = self.takes("^");
        let mut ranges = Vec::new();
        while !self.takes("]") {
            let first = self.character("]")?;
            let mut last = first;
            // A minus at the end is one.
            if self.peek() == Some('-') && !self.text[self.at..].starts_with("-]") {
                self.at += 1;
                last = self.character("]")?;
            }
            if last < first {
                return self.error(start, format_args!("the range from {first:?} to {last:?} goes backwards"));
            }
            ranges.push((first.into(), last.into()));
        }
        let chars = Chars::of(ranges);
        let chars = if is_negated { chars.others() } else { chars };
        if chars.is_empty() {
            return self.error(start, "no character is of this class");
        }
        self.part(Kind::One(chars))
    }

    /// A character of a literal or a class, which ends with `end`.
    fn character(&mut self, end: &str) -> Result<char, GbnfError> {
        let start = self.at;
        let hex = match (self.next(), self.peek()) {
            (None, _) | (Some('\\'), None) => return self.wanted(end),
            (Some('\\'), Some(c)) => {
                self.at += c.len_utf8();
                match c {
                    'n' => return Ok('\n'),
                    'r' => return Ok('\r'),
                    't' => return Ok('\t'),
                    '"' | '\\' | '[' | ']' | '-' | '^' => return Ok(c),
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => return self.error(start, format_args!("\\{} is no escape", c.escape_debug())),
                }
            }
            (Some(c), _) => return Ok(c),
        };
        let digits =
            self.text[self.at..].get(..hex).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let c = digits.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?));
        self.at += if c.is_some() { hex } else { 0 };
        match c {
            Some(c) => Ok(c),
            None => self.error(start, format_args!("wanted are {hex} hexadecimal digits of a character")),
        }
    }

    fn repeated(&mut self, part: Part) -> Result<Part, GbnfError> {
        let (least, most) = if self.takes("*") {
            (0, None)
        } else if self.takes("+") {
            (1, None)
        } else if self.takes("?") {
            (0, Some(1))
        } else if self.peek() == Some('{') {
            self.times()?
        } else {
            return Ok(part);
        };
        if matches!(self.peek(), Some('*' | '+' | '?' | '{')) {
            return self.error(self.at, "what is repeated is repeated again; put it between ( and )");
        }
        self.part(Kind::Times(Box::new(part), least, most))
    }

    /// `{3}`, `{3,}`, `{3,5}` or `{,5}`.
    fn times(&mut self) -> Result<(u32, Option<u32>), GbnfError> {
        let start = self.at;
        self.at += 1;
        let least = self.count()?;
        self.blanks(false);
        let most = if self.takes(",") {
            self.blanks(false);
            self.count()?
        } else if least.is_some() {
            least
        } else {
            return self.wanted("a number");
        };
        self.blanks(false);
        if !self.takes("}") {
            return self.wanted("}");
        }
        let least = least.unwrap_or(0);
        if most.is_some_and(|most| most < least) {
            return self.error(start, "the most is less than the least");
        }
        Ok((least, most))
    }

    fn count(&mut self) -> Result<Option<u32>, GbnfError> {
        self.blanks(false);
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if len == 0 {
            return Ok(None);
        }
        let count = rest[..len].parse().ok().filter(|count| *count <= TIMES_MAX);
        if count.is_none() {
            return self.error(self.at, format_args!("at most {TIMES_MAX} repetitions are counted"));
        }
        self.at += len;
        Ok(count)
    }

    fn grammar(self) -> Result<Grammar, GbnfError> {
        let missing = self.names.iter().filter(|(_, (number, _))| self.rules[*number].is_none());
        if let Some((name, (_, at))) = missing.min_by_key(|(_, (_, at))| *at) {
            return self.error(*at, format_args!("there is no rule {name}"));
        }
        let Some((root, _)) = self.names.get("root").copied() else {
            return Err(GbnfError("there is no rule root, with which texts begin".into()));
        };
        Ok(Grammar { root, parts: self.parts, rules: self.rules.into_iter().flatten().collect() })
    }
}
