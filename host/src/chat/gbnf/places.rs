//! Which parts of a grammar are read as one piece.
//!
//! llguidance cuts a text into pieces first, always the longest that there is, and looks at what they may be followed by then. GBNF knows
//! no pieces. So a part is one where the next character always says whether it goes on; all others are opened, down to single
//! characters, where there is nothing to choose.

use super::chars::Chars;
use super::facts::{self, Facts};
use super::read::{Grammar, Kind, Part};
use super::{GbnfError, write};
use std::rc::Rc;

/// Most places where pieces can stand.
const PLACES_MAX: usize = 2048;
/// How often parts are opened.
const ROUNDS_MAX: u32 = 64;

/// A grammar, and which of its parts are pieces.
#[derive(Debug)]
pub struct Pieces<'g> {
    /// The grammar.
    pub grammar: &'g Grammar,
    /// The facts of rules that need no stack.
    pub rules: Vec<Option<Facts>>,
    /// Parts that are none, though they could be.
    opened: Vec<bool>,
}

impl<'g> Pieces<'g> {
    /// Finds them.
    ///
    /// # Errors
    /// The grammar is too large for that.
    pub fn find(grammar: &'g Grammar) -> Result<Self, GbnfError> {
        let mut pieces = Self { grammar, rules: facts::of_rules(grammar), opened: vec![false; grammar.parts] };
        for _ in 0..ROUNDS_MAX {
            let open = Places::find(&pieces)?.unclear();
            if open.is_empty() {
                return Ok(pieces);
            }
            open.into_iter().for_each(|id| pieces.opened[id] = true);
        }
        Err(GbnfError("rules too deep within each other to be told apart; make them simpler".into()))
    }

    /// The facts of a part that is a piece.
    pub fn piece(&self, part: &Part) -> Option<Facts> {
        let may_be = match &part.kind {
            Kind::One(_) | Kind::Rule(_) | Kind::Any(_) | Kind::Times(..) => !self.opened[part.id],
            Kind::All(_) => is_literal(part) && !self.opened[part.id],
        };
        facts::of_part(part, &self.rules).filter(|facts| may_be && facts.is_clear)
    }
}

/// Whether it is some characters, each one that is known.
fn is_literal(part: &Part) -> bool {
    matches!(&part.kind, Kind::All(parts) if !parts.is_empty() && parts.iter().all(|part| matches!(part.kind, Kind::One(_))))
}

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Takes another one; whether it is new.
    fn put(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Takes all of another set; whether any is new.
    fn add(&mut self, other: &Self) -> bool {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut is_new = false;
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            is_new |= *other & !*word != 0;
            *word |= other;
        }
        is_new
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let bits = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

/// A place where a piece stands.
#[derive(Debug)]
struct Place {
    id: usize,
    facts: Facts,
    /// As a regular expression: the same text, the same piece.
    text: Rc<str>,
    is_one: bool,
    /// Its only text, if it has no others.
    literal: Option<Vec<Chars>>,
}

/// How a part begins.
#[derive(Clone, Debug, Default)]
struct Begin {
    places: Numbers,
    is_nullable: bool,
}

/// Places, two at a time.
type Pairs = Vec<(usize, usize)>;

/// All places, and which may follow which.
struct Places<'p> {
    pieces: &'p Pieces<'p>,
    /// The number of the place that a part is.
    numbers: Vec<Option<usize>>,
    all: Vec<Place>,
    /// How rules begin that are no pieces everywhere.
    begins: Vec<Begin>,
    follows: Vec<Numbers>,
}

impl<'p> Places<'p> {
    fn find(pieces: &'p Pieces<'p>) -> Result<Self, GbnfError> {
        let grammar = pieces.grammar;
        let mut this = Self {
            pieces,
            numbers: vec![None; grammar.parts],
            all: Vec::new(),
            begins: vec![Begin::default(); grammar.rules.len()],
            follows: Vec::new(),
        };
        for body in &grammar.rules {
            this.collect(body);
        }
        if this.all.len() > PLACES_MAX {
            let line = format!("a grammar of {} pieces; at most {PLACES_MAX} go", this.all.len());
            return Err(GbnfError(line));
        }
        this.begin();
        this.follow();
        Ok(this)
    }

    fn collect(&mut self, part: &Part) {
        if let Some(facts) = self.pieces.piece(part) {
            let literal = is_literal(part).then(|| characters(part));
            let is_one = matches!(part.kind, Kind::One(_));
            let text = write::regex(self.pieces.grammar, part).into();
            self.numbers[part.id] = Some(self.all.len());
            self.all.push(Place { id: part.id, facts, text, is_one, literal });
            return;
        }
        match &part.kind {
            Kind::One(_) | Kind::Rule(_) => {}
            Kind::All(parts) | Kind::Any(parts) => parts.iter().for_each(|part| self.collect(part)),
            Kind::Times(inner, ..) => self.collect(inner),
        }
    }

    fn begin_of(&self, part: &Part) -> Begin {
        if let Some(number) = self.numbers[part.id] {
            let mut places = Numbers::default();
            places.put(number);
            return Begin { places, is_nullable: self.all[number].facts.is_nullable };
        }
        match &part.kind {
            Kind::One(_) => Begin::default(),
            Kind::Rule(rule) => self.begins[*rule].clone(),
            Kind::All(parts) => self.begin_of_all(parts),
            Kind::Any(parts) => parts.iter().fold(Begin::default(), |mut all, part| {
                let one = self.begin_of(part);
                all.places.add(&one.places);
                Begin { is_nullable: all.is_nullable || one.is_nullable, ..all }
            }),
            Kind::Times(inner, least, _) => {
                let inner = self.begin_of(inner);
                Begin { is_nullable: inner.is_nullable || *least == 0, ..inner }
            }
        }
    }

    fn begin_of_all(&self, parts: &[Part]) -> Begin {
        let mut all = Begin { is_nullable: true, ..Begin::default() };
        for part in parts {
            let one = self.begin_of(part);
            all.places.add(&one.places);
            if !one.is_nullable {
                return Begin { is_nullable: false, ..all };
            }
        }
        all
    }

    /// Rules begin as others do: again, until nothing is new.
    fn begin(&mut self) {
        let mut is_new = true;
        while is_new {
            is_new = false;
            for (rule, body) in self.pieces.grammar.rules.iter().enumerate() {
                let begin = self.begin_of(body);
                is_new |=
                    self.begins[rule].places.add(&begin.places) | (begin.is_nullable && !self.begins[rule].is_nullable);
                self.begins[rule].is_nullable |= begin.is_nullable;
            }
        }
    }

    fn follow(&mut self) {
        self.follows = vec![Numbers::default(); self.all.len()];
        let rules = &self.pieces.grammar.rules;
        let mut behind = vec![Numbers::default(); rules.len()];
        let mut is_new = true;
        while is_new {
            is_new = false;
            for (rule, body) in rules.iter().enumerate() {
                let after = behind[rule].clone();
                is_new |= self.follow_in(body, &after, &mut behind);
            }
        }
    }

    /// What follows a part follows what ends it.
    fn follow_in(&mut self, part: &Part, after: &Numbers, behind: &mut [Numbers]) -> bool {
        if let Some(number) = self.numbers[part.id] {
            return self.follows[number].add(after);
        }
        match &part.kind {
            Kind::One(_) => false,
            Kind::Rule(rule) => behind[*rule].add(after),
            Kind::All(parts) => {
                let (mut is_new, mut after) = (false, after.clone());
                for part in parts.iter().rev() {
                    is_new |= self.follow_in(part, &after, behind);
                    let begin = self.begin_of(part);
                    if begin.is_nullable {
                        after.add(&begin.places);
                    } else {
                        after = begin.places;
                    }
                }
                is_new
            }
            Kind::Any(parts) => parts.iter().fold(false, |is_new, part| self.follow_in(part, after, behind) | is_new),
            Kind::Times(inner, _, most) => {
                let mut after = after.clone();
                if *most != Some(1) {
                    after.add(&self.begin_of(inner).places);
                }
                self.follow_in(inner, &after, behind)
            }
        }
    }

    /// The parts that must be opened.
    fn unclear(mut self) -> Vec<usize> {
        let mut open = Vec::new();
        loop {
            let (pairs, alike) = self.pairs();
            for (one, two) in pairs {
                open.extend([one, two].into_iter().filter(|number| !self.all[*number].is_one));
            }
            if !open.is_empty() || !self.join(&alike) {
                break;
            }
        }
        for (number, place) in self.all.iter().enumerate() {
            let goes_on = |next: usize| place.facts.more.meets(&self.all[next].facts.first);
            if !place.is_one && self.follows[number].iter().any(goes_on) {
                open.push(number);
            }
        }
        open.sort_unstable();
        open.dedup();
        open.into_iter().map(|number| self.all[number].id).collect()
    }

    /// Places that may be next at the same point and begin alike: first those that can't be told apart, then those that are alike.
    fn pairs(&self) -> (Pairs, Pairs) {
        let mut together = vec![Numbers::default(); self.all.len()];
        let mut choices: Vec<&Numbers> = self.follows.iter().collect();
        let root = &self.begins[self.pieces.grammar.root].places;
        choices.push(root);
        choices.sort_unstable_by(|one, two| one.0.cmp(&two.0));
        choices.dedup();
        for choice in choices {
            for number in choice.iter() {
                together[number].add(choice);
            }
        }
        let (mut unclear, mut alike) = (Pairs::new(), Pairs::new());
        for (one, others) in together.iter().enumerate() {
            for two in others.iter().filter(|two| *two > one) {
                let (first, second) = (&self.all[one], &self.all[two]);
                if first.text == second.text {
                    alike.push((one, two));
                } else if first.facts.first.meets(&second.facts.first) {
                    match (first.is_one && second.is_one, &first.literal, &second.literal) {
                        (true, ..) => alike.push((one, two)),
                        (_, Some(first), Some(second)) if are_apart(first, second) => {}
                        _ => unclear.push((one, two)),
                    }
                }
            }
        }
        (unclear, alike)
    }

    /// What follows one of two that are alike may be next behind the other one, too. Whether anything is new.
    fn join(&mut self, alike: &[(usize, usize)]) -> bool {
        let mut is_new = false;
        for (one, two) in alike {
            let mut both = self.follows[*one].clone();
            both.add(&self.follows[*two]);
            is_new |= self.follows[*one].add(&both) | self.follows[*two].add(&both);
        }
        is_new
    }
}

fn characters(part: &Part) -> Vec<Chars> {
    let one = |part: &Part| if let Kind::One(chars) = &part.kind { Some(chars.clone()) } else { None };
    if let Kind::All(parts) = &part.kind { parts.iter().filter_map(one).collect() } else { Vec::new() }
}

/// Whether no text of one is the beginning of one of the other.
fn are_apart(one: &[Chars], two: &[Chars]) -> bool {
    one.iter().zip(two).any(|(one, two)| !one.meets(two))
}
