//! The model's own tokenizer, from the description that stands behind the tokens of a `.t` file.
//!
//! ```text
//! text --added tokens--> normalize --added tokens--> pieces --merges--> ids
//! ```
//! The order, and what each stage sees of the others' work, is that of Hugging Face's `tokenizers`; pairs by score are merged
//! as sentencepiece does it.

use super::added::{AddedToken, Finder};
use super::merge::Merger;
use super::normalize::Normalize;
use super::split::{Pattern, Split, TooHard};
use crate::model::alphabet;
use dair_core::format::tokenizer::{Id, Kind, Method, Pipeline, Step};
use dair_core::text::Vocabulary;
use fancy_regex::Regex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::borrow::Cow;
use std::ops::Range;

/// Longest piece whose tokens are remembered, in bytes, and how many are.
const CACHED_BYTES: usize = 40;
const CACHED_PIECES: usize = 1 << 16;
/// The sign that stands for a blank where the alphabet is characters.
const BLANK: char = '\u{2581}';

/// A vocabulary with all tables that encoding needs.
#[derive(Debug)]
pub struct Exact<'a> {
    pipeline: Pipeline<'a>,
    raw: Finder<'a>,
    normalized: Finder<'a>,
    normalizers: Vec<Normalize>,
    cuts: Vec<Cut>,
    /// The token of each byte: of the alphabet, or of the fallback.
    bytes: [Option<u32>; 256],
    /// Normal tokens by their bytes, where whole pieces or characters are looked up.
    normal: FxHashMap<&'a [u8], u32>,
    rule: Rule,
    /// Neighbouring characters that stand so in some token. A text can be cut between all others.
    neighbours: FxHashSet<(char, char)>,
}

/// A step of pre-tokenisation.
#[derive(Debug)]
enum Cut {
    /// Goes before a piece that does not begin with it.
    Prefix(String),
    /// Goes before the first piece of a text.
    FirstPrefix(String),
    /// Cuts pieces.
    Split(Split),
    /// Spells pieces in the alphabet of bytes.
    ByteAlphabet,
}

/// What two neighbours become.
#[derive(Debug)]
enum Rule {
    /// By the ids of both: rank and merged token.
    Merges(FxHashMap<(u32, u32), (u32, u32)>),
    /// By what they spell together: the rank of each token's score.
    Scores(Vec<u32>),
}

/// A part of a piece that may be merged: the bytes that it covers, and its token.
#[derive(Clone, Copy, Debug, Default)]
struct Symbol {
    start: u32,
    end: u32,
    /// [`NO_TOKEN`] where there is none.
    id: u32,
}

const NO_TOKEN: u32 = u32::MAX;

/// Why a description can't be used, or a text has no tokens under it.
#[derive(Debug, PartialEq, Eq)]
pub enum ExactError {
    /// A pattern does not compile: the pattern, and why.
    Pattern(String, String),
    /// A byte has no token, nor is there one for what is unknown.
    NoToken(u8),
    /// A pattern takes too many steps on a text.
    TooHard,
}

impl From<TooHard> for ExactError {
    fn from(_: TooHard) -> Self {
        Self::TooHard
    }
}

/// How a text is read.
#[derive(Clone, Copy)]
struct Options {
    /// Nothing stands before it.
    is_first: bool,
    /// Control tokens that it spells become these tokens.
    controls: bool,
    /// A character that is no part of the text.
    guard: Option<char>,
}

/// What encoding keeps from piece to piece.
#[derive(Default)]
struct Work {
    ids: Vec<u32>,
    known: FxHashMap<Box<[u8]>, Range<u32>>,
    remembered: Vec<u32>,
    by_id: Merger<u32>,
    by_text: Merger<Symbol>,
}

impl<'a> Exact<'a> {
    /// Prepares the tables.
    ///
    /// # Errors
    /// Patterns that do not compile.
    pub fn new(vocab: &Vocabulary<'a>, pipeline: &Pipeline<'a>) -> Result<Self, ExactError> {
        let tokens = || pipeline.kinds.iter().zip(0..).filter_map(|(bits, id)| Some((*bits, id, vocab.bytes(id)?)));
        let flags = pipeline.flags;
        let mut bytes = [None; 256];
        let mut normal = FxHashMap::default();
        let whole_pieces = !flags.byte_level || flags.ignore_merges;
        for (bits, id, token) in tokens() {
            let kind = Kind::of(bits);
            // Of sentencepiece's own tokens, those that a user defined are parts of a text, too.
            let is_part =
                kind == Some(Kind::Normal) || (pipeline.method == Method::Scores && kind == Some(Kind::UserDefined));
            match token {
                [byte] if kind == Some(if flags.byte_level { Kind::Normal } else { Kind::Byte }) => {
                    bytes[usize::from(*byte)] = Some(id);
                }
                _ => {}
            }
            if is_part && whole_pieces {
                normal.insert(token, id);
            }
        }
        let neighbours = if flags.byte_level { FxHashSet::default() } else { neighbours(vocab, pipeline, &normal) };
        let (normalizers, cuts) = compile(pipeline)?;
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        let signs = |text: &str| Cow::Owned(text.replace(' ', "\u{2581}"));
        for (bits, id, token) in tokens() {
            let (Some(token_kind), Ok(text)) = (AddedToken::of(id, bits), std::str::from_utf8(token)) else { continue };
            match (token_kind.added.normalized, pipeline.method) {
                (false, _) if token_kind.added.blank_sign => raw.push((token_kind, signs(text))),
                (false, _) => raw.push((token_kind, Cow::Borrowed(text))),
                (true, Method::Scores) => normalized.push((token_kind, signs(text))),
                (true, Method::Merges) => normalized.push((token_kind, normalize(&normalizers, text, true))),
            }
        }
        let rule = match pipeline.method {
            Method::Merges => {
                let entries = pipeline.merges.iter().zip(0..);
                let mut merges = FxHashMap::with_capacity_and_hasher(pipeline.merges.len(), Default::default());
                for (merge, rank) in entries {
                    merges.insert((merge.left.get(), merge.right.get()), (rank, merge.merged.get()));
                }
                Rule::Merges(merges)
            }
            Method::Scores => Rule::Scores(ranks(vocab, &normal)),
        };
        let (raw, normalized) = (Finder::new(raw), Finder::new(normalized));
        Ok(Self { pipeline: *pipeline, raw, normalized, normalizers, cuts, bytes, normal, rule, neighbours })
    }

    /// What the description says.
    pub fn pipeline(&self) -> &Pipeline<'a> {
        &self.pipeline
    }

    /// Encodes a text. Control tokens that it spells become these tokens if `controls`; `guard` is a character that is not part
    /// of the text, but keeps spellings apart in which it stands. `around`: what begins and ends a text is added.
    ///
    /// Bytes that are no characters are encoded one by one.
    ///
    /// # Errors
    /// A text without tokens.
    pub fn encode(
        &self,
        text: &[u8],
        controls: bool,
        guard: Option<char>,
        around: bool,
    ) -> Result<Vec<u32>, ExactError> {
        let mut work = Work::default();
        if around {
            work.ids.extend(self.pipeline.before.iter().map(|id: &Id| id.get()));
        }
        let mut options = Options { is_first: true, controls, guard };
        for chunk in text.utf8_chunks() {
            self.text(chunk.valid(), options, &mut work)?;
            options.is_first = false;
            for byte in chunk.invalid() {
                self.unknown_byte(*byte, &mut work.ids)?;
            }
        }
        if around {
            work.ids.extend(self.pipeline.after.iter().map(|id: &Id| id.get()));
        }
        Ok(work.ids)
    }

    fn text(&self, text: &str, options: Options, work: &mut Work) -> Result<(), ExactError> {
        let Options { is_first, controls, guard } = options;
        for (id, part) in self.raw.cut(text, controls) {
            if let Some(id) = id {
                work.ids.push(id);
                continue;
            }
            // What goes before a text does not go behind a byte that is no character.
            let (begins, is_first) = (is_first || part.start > 0, is_first && part.start == 0);
            let part = normalize(&self.normalizers, &text[part], begins);
            for (id, range) in self.normalized.cut(&part, controls) {
                if let Some(id) = id {
                    work.ids.push(id);
                    continue;
                }
                let is_first = is_first && range.start == 0;
                let plain = match guard.filter(|guard| part[range.clone()].contains(*guard)) {
                    Some(guard) => Cow::Owned(part[range].replace(guard, "")),
                    None => Cow::Borrowed(&part[range]),
                };
                self.pieces(&plain, is_first, 0, work)?;
            }
        }
        Ok(())
    }

    /// Does the steps from `step` on to a piece, then merges what is left of it.
    fn pieces(&self, piece: &str, is_first: bool, step: usize, work: &mut Work) -> Result<(), ExactError> {
        match self.cuts.get(step) {
            None if self.cuts.iter().any(|cut| matches!(cut, Cut::ByteAlphabet)) => {
                self.known_or(&alphabet::spelled(piece), work, Self::merge_bytes)
            }
            None => self.piece(piece, work),
            Some(Cut::ByteAlphabet) => self.pieces(&alphabet::spell(piece.as_bytes()), is_first, step + 1, work),
            Some(Cut::Prefix(prefix)) => self.prefixed(prefix, piece, is_first, step, work),
            Some(Cut::FirstPrefix(prefix)) if is_first => self.prefixed(prefix, piece, is_first, step, work),
            Some(Cut::FirstPrefix(_)) => self.pieces(piece, is_first, step + 1, work),
            Some(Cut::Split(split)) => {
                let mut parts = Vec::new();
                split.cut(piece, &mut parts)?;
                parts
                    .into_iter()
                    .try_for_each(|part| self.pieces(&piece[part.clone()], is_first && part.start == 0, step + 1, work))
            }
        }
    }

    fn prefixed(
        &self,
        prefix: &str,
        piece: &str,
        is_first: bool,
        step: usize,
        work: &mut Work,
    ) -> Result<(), ExactError> {
        if piece.starts_with(prefix) {
            self.pieces(piece, is_first, step + 1, work)
        } else {
            self.pieces(&[prefix, piece].concat(), is_first, step + 1, work)
        }
    }

    fn piece(&self, piece: &str, work: &mut Work) -> Result<(), ExactError> {
        if self.pipeline.flags.byte_level {
            return self.known_or(piece.as_bytes(), work, Self::merge_bytes);
        }
        let piece = if piece.contains(BLANK) { Cow::Owned(piece.replace(BLANK, " ")) } else { Cow::Borrowed(piece) };
        // Unknown characters in a row may become one token.
        if !self.knows_bytes() {
            return self.merge_characters(piece.as_bytes(), work);
        }
        // No token covers two neighbours that stand together in none, so merges on both sides do not know of each other.
        let mut start = 0;
        let mut before = None;
        for (at, c) in piece.char_indices() {
            if before.is_some_and(|before| !self.neighbours.contains(&(before, c))) {
                self.known_or(&piece.as_bytes()[start..at], work, Self::merge_characters)?;
                start = at;
            }
            before = Some(c);
        }
        self.known_or(&piece.as_bytes()[start..], work, Self::merge_characters)
    }

    /// The tokens of a piece that was seen before, or those that `merge` finds.
    fn known_or(
        &self,
        piece: &[u8],
        work: &mut Work,
        merge: impl Fn(&Self, &[u8], &mut Work) -> Result<(), ExactError>,
    ) -> Result<(), ExactError> {
        if let Some(known) = work.known.get(piece) {
            let known = known.start as usize..known.end as usize;
            work.ids.extend_from_slice(&work.remembered[known]);
            return Ok(());
        }
        let start = work.ids.len();
        merge(self, piece, work)?;
        if piece.len() <= CACHED_BYTES && work.known.len() < CACHED_PIECES {
            let from = work.remembered.len() as u32;
            work.remembered.extend_from_slice(&work.ids[start..]);
            work.known.insert(piece.into(), from..work.remembered.len() as u32);
        }
        Ok(())
    }

    fn merge_bytes(&self, piece: &[u8], work: &mut Work) -> Result<(), ExactError> {
        if let Some(id) = self.whole(piece) {
            work.ids.push(id);
            return Ok(());
        }
        let Rule::Merges(merges) = &self.rule else { return self.merge_text(piece, work) };
        work.by_id.symbols.clear();
        for byte in piece {
            match self.bytes[usize::from(*byte)].or(self.pipeline.unknown) {
                Some(id) => work.by_id.symbols.push(id),
                None => return Err(ExactError::NoToken(*byte)),
            }
        }
        work.by_id.run(|left, right| merges.get(&(left, right)).copied());
        work.ids.extend_from_slice(&work.by_id.symbols);
        Ok(())
    }

    fn merge_characters(&self, piece: &[u8], work: &mut Work) -> Result<(), ExactError> {
        if let Some(id) = self.whole(piece) {
            work.ids.push(id);
            return Ok(());
        }
        let Rule::Merges(merges) = &self.rule else { return self.merge_text(piece, work) };
        let mut symbols = std::mem::take(&mut work.by_id.symbols);
        symbols.clear();
        let mut was_unknown = false;
        for c in std::str::from_utf8(piece).unwrap_or_default().chars() {
            let mut buffer = [0; 4];
            let character = c.encode_utf8(&mut buffer).as_bytes();
            was_unknown = match self.normal.get(character) {
                Some(id) => {
                    symbols.push(*id);
                    false
                }
                None => self.fall_back(character, was_unknown, &mut symbols)?,
            };
        }
        work.by_id.symbols = symbols;
        work.by_id.run(|left, right| merges.get(&(left, right)).copied());
        work.ids.extend_from_slice(&work.by_id.symbols);
        Ok(())
    }

    /// Merges by what neighbours spell together, as sentencepiece does: characters that are no token may become part of one.
    fn merge_text(&self, piece: &[u8], work: &mut Work) -> Result<(), ExactError> {
        let Rule::Scores(ranks) = &self.rule else { unreachable!("merges by id were done by their callers") };
        let find = |start: u32, end: u32| self.normal.get(&piece[start as usize..end as usize]).copied();
        let text = std::str::from_utf8(piece).unwrap_or_default();
        work.by_text.symbols.clear();
        work.by_text.symbols.extend(text.char_indices().map(|(at, c)| {
            let (start, end) = (at as u32, (at + c.len_utf8()) as u32);
            Symbol { start, end, id: find(start, end).unwrap_or(NO_TOKEN) }
        }));
        work.by_text.run(|left, right| {
            let id = find(left.start, right.end)?;
            Some((ranks[id as usize], Symbol { start: left.start, end: right.end, id }))
        });
        let mut was_unknown = false;
        for symbol in &work.by_text.symbols {
            was_unknown = if symbol.id == NO_TOKEN {
                let text = &piece[symbol.start as usize..symbol.end as usize];
                self.fall_back(text, was_unknown, &mut work.ids)?
            } else {
                work.ids.push(symbol.id);
                false
            };
        }
        Ok(())
    }

    /// The token that is the whole piece, where that goes before merges.
    fn whole(&self, piece: &[u8]) -> Option<u32> {
        self.normal.get(piece).copied().filter(|_| self.pipeline.flags.ignore_merges)
    }

    /// The tokens of a character that is none: of its bytes, or the unknown one. Says whether it was that.
    fn fall_back(&self, character: &[u8], was_unknown: bool, ids: &mut Vec<u32>) -> Result<bool, ExactError> {
        let byte = |byte: &u8| self.bytes[usize::from(*byte)];
        if self.pipeline.flags.byte_fallback && character.iter().all(|b| byte(b).is_some()) {
            ids.extend(character.iter().filter_map(byte));
            return Ok(false);
        }
        let fuses = self.pipeline.flags.fuse_unknown || self.pipeline.method == Method::Scores;
        match self.pipeline.unknown {
            Some(_) if was_unknown && fuses => {}
            Some(id) => ids.push(id),
            None => return Err(ExactError::NoToken(character[0])),
        }
        Ok(true)
    }

    /// Whether every character has tokens, those of its bytes at least.
    fn knows_bytes(&self) -> bool {
        self.pipeline.flags.byte_fallback && self.bytes.iter().all(Option::is_some)
    }

    fn unknown_byte(&self, byte: u8, ids: &mut Vec<u32>) -> Result<(), ExactError> {
        let id = self.bytes[usize::from(byte)].or(self.pipeline.unknown).ok_or(ExactError::NoToken(byte))?;
        ids.push(id);
        Ok(())
    }
}

/// The text after all steps; what goes before a text, only if it `begins` one.
fn normalize<'t>(steps: &[Normalize], text: &'t str, begins: bool) -> Cow<'t, str> {
    let steps = steps.iter().filter(|step| begins || !matches!(step, Normalize::Prepend(_)));
    steps.fold(Cow::Borrowed(text), |text, step| step.apply(text))
}

/// Steps ready to be done.
fn compile(pipeline: &Pipeline<'_>) -> Result<(Vec<Normalize>, Vec<Cut>), ExactError> {
    let (mut normalizers, mut cuts) = (Vec::new(), Vec::new());
    let split = |behavior, pattern: &str, invert| {
        let compiled = Pattern::new(pattern).map_err(|error| ExactError::Pattern(pattern.into(), error.to_string()))?;
        Ok::<_, ExactError>(Cut::Split(Split { pattern: compiled, invert, behavior }))
    };
    for step in pipeline.steps.iter() {
        match step {
            Step::Nfc => normalizers.push(Normalize::Nfc),
            Step::Nfd => normalizers.push(Normalize::Nfd),
            Step::Nfkc => normalizers.push(Normalize::Nfkc),
            Step::Nfkd => normalizers.push(Normalize::Nfkd),
            Step::Lowercase => normalizers.push(Normalize::Lowercase),
            Step::StripLeft => normalizers.push(Normalize::StripLeft),
            Step::StripRight => normalizers.push(Normalize::StripRight),
            Step::Prepend(text) => normalizers.push(Normalize::Prepend(text.into())),
            Step::Replace(from, to) => normalizers.push(Normalize::Replace(from.into(), to.into())),
            Step::ReplacePattern(pattern, to) => {
                let compiled =
                    Regex::new(pattern).map_err(|error| ExactError::Pattern(pattern.into(), error.to_string()))?;
                normalizers.push(Normalize::ReplacePattern(Box::new(compiled), to.into()));
            }
            Step::BlankPrefix(text) => cuts.push(Cut::Prefix(text.into())),
            Step::FirstPrefix(text) => cuts.push(Cut::FirstPrefix(text.into())),
            Step::Split(behavior, pattern) => cuts.push(split(behavior, pattern, false)?),
            Step::SplitInverted(behavior, pattern) => cuts.push(split(behavior, pattern, true)?),
            Step::ByteAlphabet => cuts.push(Cut::ByteAlphabet),
        }
    }
    Ok((normalizers, cuts))
}

/// The pairs of characters at which merges join tokens, and those inside of tokens that are found whole.
fn neighbours(
    vocab: &Vocabulary<'_>,
    pipeline: &Pipeline<'_>,
    normal: &FxHashMap<&[u8], u32>,
) -> FxHashSet<(char, char)> {
    let mut pairs = FxHashSet::default();
    let text = |id: Id| vocab.bytes(id.get()).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let plain = |c: char| if c == BLANK { ' ' } else { c };
    for merge in pipeline.merges {
        let ends = || Some((text(merge.left)?.chars().next_back()?, text(merge.right)?.chars().next()?));
        pairs.extend(ends().map(|(left, right)| (plain(left), plain(right))));
    }
    if pipeline.method == Method::Scores || pipeline.flags.ignore_merges {
        for text in normal.keys().filter_map(|token| std::str::from_utf8(token).ok()) {
            pairs.extend(text.chars().zip(text.chars().skip(1)));
        }
    }
    pairs
}

/// For each token, how many scores are higher: equal scores have equal ranks.
fn ranks(vocab: &Vocabulary<'_>, normal: &FxHashMap<&[u8], u32>) -> Vec<u32> {
    let mut scores: Vec<(f32, u32)> = normal.values().filter_map(|id| Some((vocab.score(*id)?, *id))).collect();
    scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut ranks = vec![0; vocab.vocab_size() as usize];
    let (mut rank, mut last) = (0, f32::INFINITY);
    for (at, (score, id)) in scores.into_iter().enumerate() {
        if score != last {
            (rank, last) = (at as u32, score);
        }
        ranks[id as usize] = rank;
    }
    ranks
}
