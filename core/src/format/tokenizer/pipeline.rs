//! What stands behind the last token of a `.t` file: how the model's own tokenizer cuts text.
//!
//! C++ programs never read that far, so the file stays theirs, too. All integers are little-endian.
//!
//! ```text
//! u32 0x72696164 ("dair")   u32 version, 1   u32 bytes of the sections that follow, to the end of the file
//! then sections in any order: u32 tag, u32 bytes, content. Tags that are not known are passed over.
//!
//! tag 1  settings   u32 method (0 merges, 1 scores), u32 flags, i32 BOS, i32 EOS, i32 unknown token (-1: none)
//! tag 2  kinds      a byte per token: bits 0 to 2 its kind, 3 lstrip, 4 rstrip, 5 single word, 6 normalized,
//!                   7 blanks are spelled U+2581
//! tag 3  merges     u32 left, u32 right, u32 merged; the first is done first
//! tag 4  steps      u32 kind, u32 bytes, text, u32 bytes, text: what happens to a text before tokens are merged
//! tag 5  before     u32 ids put before a text;   tag 6  after   u32 ids put behind it
//! ```
//!
//! The terms are those of Hugging Face's `tokenizers`, whose files say the same in JSON: normalizer and pre-tokenizer are
//! steps, the model is method and merges, the post-processor is before and after.

use super::{MAX_VOCAB_SIZE, TokenizerError};
use bytemuck::{Pod, Zeroable};

/// First four bytes behind the last token.
pub const PIPELINE_MAGIC: u32 = u32::from_le_bytes(*b"dair");
/// The version that is read and written.
pub const PIPELINE_VERSION: u32 = 1;
/// Longest text of a step, in bytes. The longest pattern in use has some 5,000.
pub const MAX_STEP_BYTES: u32 = 1 << 16;
/// Most steps.
pub const MAX_STEPS: usize = 64;
/// Most ids before or behind a text.
pub const MAX_AROUND: usize = 8;

pub(super) mod tag {
    pub const SETTINGS: u32 = 1;
    pub const KINDS: u32 = 2;
    pub const MERGES: u32 = 3;
    pub const STEPS: u32 = 4;
    pub const BEFORE: u32 = 5;
    pub const AFTER: u32 = 6;
}

/// How the model's own tokenizer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipeline<'a> {
    /// What is merged.
    pub method: Method,
    /// Its variants.
    pub flags: Flags,
    /// Token that a text begins with. The header's BOS may be a stand-in, which only marks where special tokens begin.
    pub bos: Option<u32>,
    /// The tokenizer's own EOS token, which chat templates know by this name.
    pub eos: Option<u32>,
    /// Stands for what has no token.
    pub unknown: Option<u32>,
    /// A byte per token: see [`Kind`] and [`Added`].
    pub kinds: &'a [u8],
    /// In the order of their ranks.
    pub merges: &'a [Merge],
    /// Normalizer and pre-tokenizer.
    pub steps: Steps<'a>,
    /// Put before a text.
    pub before: &'a [Id],
    /// Put behind a text.
    pub after: &'a [Id],
}

/// What decides which pieces become one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Method {
    /// A list of pairs: the pair that stands first in it is merged first.
    Merges = 0,
    /// The scores of tokens: the pair that makes the token with the highest score is merged first (sentencepiece).
    Scores = 1,
}

/// Variants of a method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A piece that is a token as a whole is taken whole, whatever merges say.
    pub ignore_merges: bool,
    /// A character without a token becomes the tokens of its bytes.
    pub byte_fallback: bool,
    /// Several unknown characters in a row become one unknown token.
    pub fuse_unknown: bool,
    /// The alphabet is bytes; without it characters, and U+2581 in them stands for the blank of tokens.
    pub byte_level: bool,
    /// The blank at the very beginning of a decoded text was put there by a step.
    pub strip_blank: bool,
}

impl Flags {
    fn bits(self) -> u32 {
        let Self { ignore_merges, byte_fallback, fuse_unknown, byte_level, strip_blank } = self;
        let flags = [ignore_merges, byte_fallback, fuse_unknown, byte_level, strip_blank];
        flags.into_iter().enumerate().fold(0, |bits, (i, flag)| bits | u32::from(flag) << i)
    }

    fn from_bits(bits: u32) -> Option<Self> {
        let flag = |i: u32| bits >> i & 1 == 1;
        (bits >> 5 == 0).then(|| Self {
            ignore_merges: flag(0),
            byte_fallback: flag(1),
            fuse_unknown: flag(2),
            byte_level: flag(3),
            strip_blank: flag(4),
        })
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Part of a text.
    Normal = 0,
    /// Stands for what has no token.
    Unknown = 1,
    /// Steers the model; a text that spells it means it only where that is asked for.
    Control = 2,
    /// Always found whole in a text that spells it.
    UserDefined = 3,
    /// Nothing is encoded to it.
    Unused = 4,
    /// A byte of a character that has no token.
    Byte = 5,
}

impl Kind {
    /// The kind in a byte of [`Pipeline::kinds`].
    pub fn of(bits: u8) -> Option<Self> {
        [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte]
            .into_iter()
            .find(|kind| *kind as u8 == bits & 7)
    }

    /// Whether text that spells such a token may become it as a whole.
    pub fn is_added(self) -> bool {
        matches!(self, Self::Control | Self::UserDefined)
    }
}

/// How a control or user-defined token is found in a text: the other bits of a byte of [`Pipeline::kinds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// White space before it belongs to it.
    pub lstrip: bool,
    /// White space behind it belongs to it.
    pub rstrip: bool,
    /// Not inside a word.
    pub single_word: bool,
    /// Looked for in the normalized text.
    pub normalized: bool,
    /// A text that means the token has U+2581 where the token has blanks.
    pub blank_sign: bool,
}

impl Added {
    /// The rules in a byte of [`Pipeline::kinds`].
    pub fn of(bits: u8) -> Self {
        let flag = |i: u8| bits >> i & 1 == 1;
        Self { lstrip: flag(3), rstrip: flag(4), single_word: flag(5), normalized: flag(6), blank_sign: flag(7) }
    }

    /// The byte of a token of this kind that is found so.
    pub fn bits(self, kind: Kind) -> u8 {
        let Self { lstrip, rstrip, single_word, normalized, blank_sign } = self;
        let flags = [lstrip, rstrip, single_word, normalized, blank_sign];
        flags.into_iter().zip(3..).fold(kind as u8, |bits, (flag, i)| bits | u8::from(flag) << i)
    }
}

/// An id as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Id([u8; 4]);

impl Id {
    /// This id.
    pub const fn new(id: u32) -> Self {
        Self(id.to_le_bytes())
    }

    /// As a number.
    pub const fn get(self) -> u32 {
        u32::from_le_bytes(self.0)
    }
}

/// A pair of tokens that become one, as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Merge {
    /// The first of the pair.
    pub left: Id,
    /// The second.
    pub right: Id,
    /// What they become.
    pub merged: Id,
}

const _: () = assert!(size_of::<Merge>() == 12 && align_of::<Merge>() == 1);

/// Something that is done to a text before tokens are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
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
    /// White space goes from the beginning of the text.
    StripLeft,
    /// White space goes from the end of the text.
    StripRight,
    /// The text goes first, unless there is nothing.
    Prepend(&'a str),
    /// Every place where the text stands becomes the other.
    Replace(&'a str, &'a str),
    /// Every place that matches the pattern becomes the text.
    ReplacePattern(&'a str, &'a str),
    /// The text goes before a piece that does not begin with it.
    BlankPrefix(&'a str),
    /// The text goes before the first piece of a text unless that begins with it.
    FirstPrefix(&'a str),
    /// Cuts where a pattern matches.
    Split(Behavior, &'a str),
    /// Cuts at what a pattern does not match.
    SplitInverted(Behavior, &'a str),
    /// The steps that follow see every byte as a character of the alphabet of byte-level vocabularies.
    ByteAlphabet,
}

/// What becomes of the places at which a text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Each is a piece.
    Isolated,
    /// They go away.
    Removed,
    /// Each ends the piece before it.
    MergedWithPrevious,
    /// Each begins the piece behind it.
    MergedWithNext,
    /// Neighbours are one piece.
    Contiguous,
}

impl Behavior {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Isolated, "Isolated"),
        (Self::Removed, "Removed"),
        (Self::MergedWithPrevious, "MergedWithPrevious"),
        (Self::MergedWithNext, "MergedWithNext"),
        (Self::Contiguous, "Contiguous"),
    ];

    /// Its name in tokenizer.json and in the file.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(behavior, _)| *behavior == self).map_or("", |(_, name)| name)
    }

    /// The behavior of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(behavior, _)| *behavior)
    }
}

impl<'a> Step<'a> {
    /// Whether it works on pieces; the others work on the text before it is cut.
    pub fn is_pre_tokenizer(&self) -> bool {
        matches!(
            self,
            Self::BlankPrefix(_)
                | Self::FirstPrefix(_)
                | Self::Split(..)
                | Self::SplitInverted(..)
                | Self::ByteAlphabet
        )
    }

    /// Kind and texts, as they lie in the file.
    pub fn parts(&self) -> (u32, [&'a str; 2]) {
        match *self {
            Self::Nfc => (1, ["", ""]),
            Self::Nfd => (2, ["", ""]),
            Self::Nfkc => (3, ["", ""]),
            Self::Nfkd => (4, ["", ""]),
            Self::Lowercase => (5, ["", ""]),
            Self::StripLeft => (6, ["", ""]),
            Self::StripRight => (7, ["", ""]),
            Self::Prepend(text) => (8, [text, ""]),
            Self::Replace(from, to) => (9, [from, to]),
            Self::ReplacePattern(pattern, to) => (10, [pattern, to]),
            Self::BlankPrefix(text) => (32, [text, ""]),
            Self::FirstPrefix(text) => (33, [text, ""]),
            Self::Split(behavior, pattern) => (34, [behavior.name(), pattern]),
            Self::SplitInverted(behavior, pattern) => (35, [behavior.name(), pattern]),
            Self::ByteAlphabet => (36, ["", ""]),
        }
    }

    fn from_parts(kind: u32, [a, b]: [&'a str; 2]) -> Option<Self> {
        Some(match kind {
            1 => Self::Nfc,
            2 => Self::Nfd,
            3 => Self::Nfkc,
            4 => Self::Nfkd,
            5 => Self::Lowercase,
            6 => Self::StripLeft,
            7 => Self::StripRight,
            8 => Self::Prepend(a),
            9 => Self::Replace(a, b),
            10 => Self::ReplacePattern(a, b),
            32 => Self::BlankPrefix(a),
            33 => Self::FirstPrefix(a),
            34 => Self::Split(Behavior::from_name(a)?, b),
            35 => Self::SplitInverted(Behavior::from_name(a)?, b),
            36 => Self::ByteAlphabet,
            _ => return None,
        })
    }
}

/// Steps in the order in which they are done, as they lie in the file, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps<'a> {
    bytes: &'a [u8],
}

impl<'a> Steps<'a> {
    /// Checks the bytes of all steps.
    ///
    /// # Errors
    /// The first byte of what is no step, or stands in a place where it can't.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, usize> {
        let (mut rest, mut count, mut cuts) = (bytes, 0, false);
        while !rest.is_empty() {
            let place = bytes.len() - rest.len();
            let (step, behind) = split_step(rest).ok_or(place)?;
            count += 1;
            if count > MAX_STEPS || (cuts && !step.is_pre_tokenizer()) {
                return Err(place);
            }
            cuts |= step.is_pre_tokenizer();
            rest = behind;
        }
        Ok(Self { bytes })
    }

    /// The steps.
    pub fn iter(&self) -> impl Iterator<Item = Step<'a>> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (step, behind) = split_step(rest)?;
            rest = behind;
            Some(step)
        })
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn split_step(bytes: &[u8]) -> Option<(Step<'_>, &[u8])> {
    let (kind, rest) = split_u32(bytes)?;
    let (a, rest) = split_text(rest)?;
    let (b, rest) = split_text(rest)?;
    Some((Step::from_parts(kind, [a, b])?, rest))
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn split_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = split_u32(bytes)?;
    let (text, rest) = rest.split_at_checked(len as usize).filter(|_| len <= MAX_STEP_BYTES)?;
    Some((core::str::from_utf8(text).ok()?, rest))
}

impl<'a> Pipeline<'a> {
    /// Checks what stands behind the last token of a file: `bytes` are all of it, the first at `offset` of the file.
    pub(super) fn parse(bytes: &'a [u8], offset: usize, vocab_size: u32) -> Result<Self, TokenizerError> {
        let wrong = |field: &'static str, place: &[u8]| TokenizerError::Pipeline {
            field,
            offset: offset + (place.as_ptr() as usize - bytes.as_ptr() as usize),
        };
        let (version, rest) = split_u32(&bytes[4..]).ok_or_else(|| wrong("version", &bytes[4..]))?;
        if version != PIPELINE_VERSION {
            return Err(TokenizerError::PipelineVersion { found: version });
        }
        let (size, mut rest) = split_u32(rest).ok_or_else(|| wrong("size", rest))?;
        if rest.len() != size as usize {
            return Err(wrong("size", rest));
        }
        let mut settings = None;
        let (mut kinds, mut merges, mut steps): (&[u8], &[Merge], _) = (&[], &[], Steps::default());
        let (mut before, mut after): (&[Id], &[Id]) = (&[], &[]);
        while !rest.is_empty() {
            let head = rest;
            let section = split_u32(head).and_then(|(tag, rest)| {
                let (len, rest) = split_u32(rest)?;
                let (content, rest) = rest.split_at_checked(len as usize)?;
                Some((tag, content, rest))
            });
            let (tag, content, behind) = section.ok_or_else(|| wrong("section", head))?;
            rest = behind;
            match tag {
                tag::SETTINGS => {
                    settings = Some(Settings::parse(content, vocab_size).ok_or_else(|| wrong("settings", content))?);
                }
                tag::KINDS => {
                    let known = content.iter().all(|kind| Kind::of(*kind).is_some());
                    if content.len() != vocab_size as usize || !known {
                        return Err(wrong("kinds of tokens", content));
                    }
                    kinds = content;
                }
                tag::MERGES => {
                    merges = bytemuck::try_cast_slice(content).map_err(|_| wrong("merges", content))?;
                    let mut ids = merges.iter().flat_map(|merge| [merge.left, merge.right, merge.merged]);
                    // More merges than two for each byte of the longest tokens are in no file; ranks fit 32 bits by far.
                    if merges.len() > 64 * MAX_VOCAB_SIZE as usize || ids.any(|id| id.get() >= vocab_size) {
                        return Err(wrong("merges", content));
                    }
                }
                tag::STEPS => steps = Steps::parse(content).map_err(|at| wrong("step", &content[at..]))?,
                tag::BEFORE => before = around(content, vocab_size).ok_or_else(|| wrong("ids before", content))?,
                tag::AFTER => after = around(content, vocab_size).ok_or_else(|| wrong("ids behind", content))?,
                _ => {}
            }
        }
        let Settings { method, flags, bos, eos, unknown } = settings.ok_or_else(|| wrong("settings", rest))?;
        if kinds.len() != vocab_size as usize {
            return Err(wrong("kinds of tokens", rest));
        }
        Ok(Self { method, flags, bos, eos, unknown, kinds, merges, steps, before, after })
    }

    /// The numbers of the settings section.
    pub(super) fn settings(&self) -> [u32; 5] {
        let optional = |id: Option<u32>| id.unwrap_or(u32::MAX);
        [self.method as u32, self.flags.bits(), optional(self.bos), optional(self.eos), optional(self.unknown)]
    }
}

fn around(content: &[u8], vocab_size: u32) -> Option<&[Id]> {
    let ids: &[Id] = bytemuck::try_cast_slice(content).ok()?;
    (ids.len() <= MAX_AROUND && ids.iter().all(|id| id.get() < vocab_size)).then_some(ids)
}

struct Settings {
    method: Method,
    flags: Flags,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
}

impl Settings {
    fn parse(content: &[u8], vocab_size: u32) -> Option<Self> {
        // Later versions may say more.
        let words: &[Id] = bytemuck::try_cast_slice(content.get(..20)?).ok()?;
        let word = |i: usize| words[i].get();
        let id = |i: usize| match word(i) {
            u32::MAX => Some(None),
            id => (id < vocab_size).then_some(Some(id)),
        };
        Some(Self {
            method: [Method::Merges, Method::Scores].into_iter().find(|method| *method as u32 == word(0))?,
            flags: Flags::from_bits(word(1))?,
            bos: id(2)?,
            eos: id(3)?,
            unknown: id(4)?,
        })
    }
}
