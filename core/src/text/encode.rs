//! Text to tokens: byte-pair merges by score.
//!
//! The rule is that of Distributed-Llama: first the text becomes the shortest tokens there are, then the adjacent
//! pair whose concatenation is the regular token with the highest score (the leftmost of equals) is merged, again and
//! again. There is no pre-tokenisation and no normalisation, so merges may cross words. The rule as stated is
//! quadratic; here a heap holds one candidate per pair, and a merge touches only its neighbours: O(n log n).

use super::Vocabulary;
use core::fmt;

/// Longest text encoded at once, in bytes. No context holds as many tokens.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Pairs whose token has no higher score than this are never merged.
const MIN_SCORE: f32 = -1e10;

/// Stands for "no node" in lists, "no place" in the heap.
const NONE: u32 = u32::MAX;

/// What [`Vocabulary::encode`] adds to or reads out of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The text begins a conversation: BOS goes first, if the file says that conversations start with it.
    pub start: bool,
    /// Special tokens spelled out in the text become these tokens. Without it they are text like any other.
    pub special: bool,
}

/// Numbers of scratch memory that [`Vocabulary::encode`] needs for a text of this length.
pub const fn encode_scratch_len(text_bytes: usize) -> usize {
    // Every byte may be a token, and BOS is one more.
    Pieces::ARRAYS * (text_bytes + 1)
}

impl Vocabulary<'_> {
    /// Encodes a text; the tokens are returned in `scratch`.
    ///
    /// BOS and special tokens take part in the search for merges like any other token. The bytes before a special
    /// token must be encodable by themselves.
    ///
    /// # Errors
    /// A text that has no tokens in this vocabulary, with the byte where that begins, or one that is too long.
    ///
    /// # Panics
    /// If `scratch` is shorter than [`encode_scratch_len`].
    pub fn encode<'s>(
        &self,
        text: &[u8],
        options: EncodeOptions,
        scratch: &'s mut [u32],
    ) -> Result<&'s [u32], EncodeError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(EncodeError::TextTooLong { bytes: text.len() });
        }
        let mut pieces = Pieces::new(scratch, text.len());
        let bos = self.header().bos.filter(|_| options.start && self.header().add_bos);
        if let Some(bos) = bos {
            pieces.append(bos);
        }
        self.split(text, options.special, &mut pieces)?;
        self.merge(&mut pieces);
        Ok(pieces.into_ids())
    }

    /// Cuts the text into special tokens and the shortest regular ones.
    fn split(&self, text: &[u8], special: bool, pieces: &mut Pieces<'_>) -> Result<(), EncodeError> {
        let (mut start, mut end) = (0, 0);
        while end < text.len() {
            let found = if special { self.find_special(&text[end..]) } else { None };
            if let Some(id) = found {
                // C++ would move the bytes not yet encoded behind the special token.
                if start < end {
                    return Err(EncodeError::NoToken { offset: start });
                }
                pieces.append(id);
                end += self.bytes(id).map_or(1, <[u8]>::len);
                start = end;
                continue;
            }
            end += 1;
            if end - start > self.max_regular_len() {
                return Err(EncodeError::NoToken { offset: start });
            }
            if let Some(id) = self.find_regular(&text[start..end], &[]) {
                pieces.append(id);
                start = end;
            }
        }
        if start < end { Err(EncodeError::NoToken { offset: start }) } else { Ok(()) }
    }

    fn merge(&self, pieces: &mut Pieces<'_>) {
        for node in 0..pieces.len.saturating_sub(1) {
            self.update_candidate(pieces, node as u32);
        }
        while let Some(node) = pieces.pop() {
            let prev = pieces.merge_with_next(node);
            self.update_candidate(pieces, node);
            if prev != NONE {
                self.update_candidate(pieces, prev);
            }
        }
    }

    /// Looks up what the pair beginning at `node` merges into.
    fn update_candidate(&self, pieces: &mut Pieces<'_>, node: u32) {
        let bytes = |node: u32| self.bytes(pieces.ids[node as usize]).unwrap_or_default();
        let next = pieces.next[node as usize];
        let id = if next == NONE { None } else { self.find_regular(bytes(node), bytes(next)) };
        match id.and_then(|id| Some((id, self.score(id)?))) {
            Some((id, score)) if score > MIN_SCORE => pieces.set_candidate(node, id, score),
            _ => pieces.remove_candidate(node),
        }
    }
}

/// The text so far: a linked list of tokens, and a heap of the merges that are possible between neighbours.
///
/// A merge belongs to its left node. Nodes keep their order, so the smaller node is the one further left.
struct Pieces<'s> {
    len: usize,
    heap_len: usize,
    ids: &'s mut [u32],
    prev: &'s mut [u32],
    next: &'s mut [u32],
    /// Token that node and next would become.
    merged: &'s mut [u32],
    /// Where the node stands in the heap.
    place: &'s mut [u32],
    heap_nodes: &'s mut [u32],
    /// Score as a number that grows with it.
    heap_keys: &'s mut [u32],
}

impl<'s> Pieces<'s> {
    const ARRAYS: usize = 7;

    fn new(scratch: &'s mut [u32], text_bytes: usize) -> Self {
        let needed = encode_scratch_len(text_bytes);
        assert!(scratch.len() >= needed, "scratch memory of {} numbers, needed are {needed}", scratch.len());
        let mut arrays = scratch.chunks_exact_mut(text_bytes + 1);
        let mut array = || arrays.next().unwrap_or_default();
        Self {
            len: 0,
            heap_len: 0,
            ids: array(),
            prev: array(),
            next: array(),
            merged: array(),
            place: array(),
            heap_nodes: array(),
            heap_keys: array(),
        }
    }

    fn append(&mut self, id: u32) {
        let node = self.len;
        self.ids[node] = id;
        self.prev[node] = NONE;
        self.next[node] = NONE;
        self.place[node] = NONE;
        if node > 0 {
            self.prev[node] = node as u32 - 1;
            self.next[node - 1] = node as u32;
        }
        self.len += 1;
    }

    /// Replaces `node` and its neighbour by their merge; says which node stands before it.
    fn merge_with_next(&mut self, node: u32) -> u32 {
        let gone = self.next[node as usize];
        self.remove_candidate(gone);
        let after = self.next[gone as usize];
        self.ids[node as usize] = self.merged[node as usize];
        self.next[node as usize] = after;
        if after != NONE {
            self.prev[after as usize] = node;
        }
        self.prev[node as usize]
    }

    fn into_ids(self) -> &'s [u32] {
        let (mut len, mut node) = (0, if self.len > 0 { 0 } else { NONE });
        while node != NONE {
            self.ids[len] = self.ids[node as usize];
            len += 1;
            node = self.next[node as usize];
        }
        &self.ids[..len]
    }

    fn set_candidate(&mut self, node: u32, id: u32, score: f32) {
        self.merged[node as usize] = id;
        if self.place[node as usize] == NONE {
            self.place[node as usize] = self.heap_len as u32;
            self.heap_len += 1;
        }
        self.sift(self.place[node as usize] as usize, node, sortable(score));
    }

    fn remove_candidate(&mut self, node: u32) {
        let place = core::mem::replace(&mut self.place[node as usize], NONE);
        if place == NONE {
            return;
        }
        self.heap_len -= 1;
        let (last_node, last_key) = (self.heap_nodes[self.heap_len], self.heap_keys[self.heap_len]);
        if last_node != node {
            self.sift(place as usize, last_node, last_key);
        }
    }

    fn pop(&mut self) -> Option<u32> {
        if self.heap_len == 0 {
            return None;
        }
        let node = self.heap_nodes[0];
        self.remove_candidate(node);
        Some(node)
    }

    /// Puts a candidate into the hole at `place`, or where it belongs above or below.
    fn sift(&mut self, mut place: usize, node: u32, key: u32) {
        let before = |a: (u32, u32), b: (u32, u32)| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
        while place > 0 {
            let parent = (place - 1) / 2;
            if !before((key, node), self.at(parent)) {
                break;
            }
            self.put(place, self.at(parent));
            place = parent;
        }
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut child = left;
            if right < self.heap_len && before(self.at(right), self.at(left)) {
                child = right;
            }
            if child >= self.heap_len || !before(self.at(child), (key, node)) {
                break;
            }
            self.put(place, self.at(child));
            place = child;
        }
        self.put(place, (key, node));
    }

    fn at(&self, place: usize) -> (u32, u32) {
        (self.heap_keys[place], self.heap_nodes[place])
    }

    fn put(&mut self, place: usize, (key, node): (u32, u32)) {
        self.heap_keys[place] = key;
        self.heap_nodes[place] = node;
        self.place[node as usize] = place as u32;
    }
}

/// Finite numbers as integers in the same order; both zeros are one.
fn sortable(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Why a text can't be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// No token of the vocabulary stands for the text from here on.
    NoToken {
        /// Byte of the text.
        offset: usize,
    },
    /// More than [`MAX_TEXT_BYTES`].
    TextTooLong {
        /// Length of the text.
        bytes: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken { offset } => {
                write!(f, "the tokenizer's vocabulary has no token for the text from byte {offset} on")
            }
            Self::TextTooLong { bytes } => {
                write!(f, "the text has {bytes} bytes, allowed are at most {MAX_TEXT_BYTES}")
            }
        }
    }
}

impl core::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::tests::vocabulary;
    use super::*;
    use proptest::prelude::*;
    use std::{string::ToString, vec, vec::Vec};

    const PLAIN: EncodeOptions = EncodeOptions { start: false, special: true };

    fn encode(vocab: &Vocabulary<'_>, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>, EncodeError> {
        let mut scratch = vec![0xAAAA_AAAA; encode_scratch_len(text.len())];
        vocab.encode(text, options, &mut scratch).map(<[u32]>::to_vec)
    }

    /// The rule word for word: full rescan of all pairs per merge, linear search for tokens.
    fn encode_slowly(vocab: &Vocabulary<'_>, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>, EncodeError> {
        let ids = || 0..vocab.vocab_size();
        let bytes = |id: u32| vocab.bytes(id).unwrap();
        let special = |id: &u32| vocab.header().is_special(*id);
        let find = |text: &[u8]| ids().rfind(|id| !special(id) && bytes(*id) == text);
        let mut tokens: Vec<u32> = vocab.header().bos.filter(|_| options.start).into_iter().collect();
        let mut pending = Vec::new();
        let mut i = 0;
        while i < text.len() {
            let here = ids().find(|id| options.special && special(id) && text[i..].starts_with(bytes(*id)));
            if let Some(id) = here {
                if !pending.is_empty() {
                    break;
                }
                tokens.push(id);
                i += bytes(id).len();
            } else {
                pending.push(text[i]);
                i += 1;
                if let Some(id) = find(&pending) {
                    tokens.push(id);
                    pending.clear();
                }
            }
        }
        if !pending.is_empty() {
            return Err(EncodeError::NoToken { offset: i - pending.len() });
        }
        loop {
            let mut best: Option<(usize, u32)> = None;
            let mut best_score = -1e10;
            for i in 1..tokens.len() {
                let Some(id) = find(&[bytes(tokens[i - 1]), bytes(tokens[i])].concat()) else { continue };
                if vocab.score(id).unwrap() > best_score {
                    (best, best_score) = (Some((i - 1, id)), vocab.score(id).unwrap());
                }
            }
            let Some((i, id)) = best else { return Ok(tokens) };
            tokens[i] = id;
            tokens.remove(i + 1);
        }
    }

    fn tokens() -> impl Strategy<Value = Vec<(f32, Vec<u8>)>> {
        // Few letters and few scores: many merges, many ties, tokens that are equal.
        let score = prop_oneof![(-4i8..4).prop_map(f32::from), Just(-1e10), Just(-1e11), Just(-0.0)];
        let token = prop::collection::vec(b'a'..b'd', 1..6);
        prop::collection::vec((score, token), 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn equals_the_quadratic_rule(
            tokens in tokens(),
            with_letters in prop::bool::weighted(0.8),
            bos in any::<Option<prop::sample::Index>>(),
            eos in any::<prop::sample::Index>(),
            text in prop::collection::vec(b'a'..b'd', 0..60),
            start: bool,
            special: bool,
        ) {
            let letters: [(f32, &[u8]); 3] = [(0.0, b"a"), (0.0, b"b"), (0.0, b"c")];
            let mut all: Vec<(f32, &[u8])> = if with_letters { letters.to_vec() } else { Vec::new() };
            all.extend(tokens.iter().map(|(score, token)| (*score, token.as_slice())));
            let bos = bos.map(|bos| bos.index(all.len()) as u32);
            let vocab = vocabulary(&all, bos, &[eos.index(all.len()) as u32]);
            let options = EncodeOptions { start, special };
            prop_assert_eq!(encode(&vocab, &text, options), encode_slowly(&vocab, &text, options));
        }
    }

    #[test]
    fn the_highest_score_is_merged_first_and_the_leftmost_of_equals() {
        let tokens: &[(f32, &[u8])] =
            &[(0.0, b"a"), (0.0, b"b"), (0.0, b"c"), (1.0, b"ab"), (2.0, b"bc"), (1.0, b"aa"), (0.0, b"<s>")];
        let vocab = vocabulary(tokens, Some(6), &[]);
        assert_eq!(encode(&vocab, b"abc", PLAIN).unwrap(), [0, 4]);
        assert_eq!(encode(&vocab, b"aaa", PLAIN).unwrap(), [5, 0]);
        assert_eq!(encode(&vocab, b"aaab", PLAIN).unwrap(), [5, 3]);
        assert_eq!(encode(&vocab, b"", PLAIN).unwrap(), []);
        let start = EncodeOptions { start: true, special: true };
        assert_eq!(encode(&vocab, b"", start).unwrap(), [6]);
        assert_eq!(encode(&vocab, b"a<s>a", start).unwrap(), [6, 0, 6, 0]);
        let plain = EncodeOptions { start: false, special: false };
        assert_eq!(encode(&vocab, b"a<s>a", plain), Err(EncodeError::NoToken { offset: 1 }));
    }

    #[test]
    fn bytes_without_a_token_are_named_by_their_offset() {
        let vocab = vocabulary(&[(0.0, b"a"), (0.0, "é".as_bytes()), (0.0, b"<s>")], Some(2), &[]);
        assert_eq!(encode(&vocab, "aéa".as_bytes(), PLAIN).unwrap(), [0, 1, 0]);
        for (text, offset) in [("aab", 2), ("ba", 0), ("aè", 1), ("ax<s>", 1), ("<s>x", 3)] {
            assert_eq!(encode(&vocab, text.as_bytes(), PLAIN), Err(EncodeError::NoToken { offset }), "{text}");
        }
        assert_eq!(encode(&vocab, b"a\xC3<s>", PLAIN), Err(EncodeError::NoToken { offset: 1 }));
        let message = EncodeError::NoToken { offset: 7 }.to_string();
        assert!(message.contains("from byte 7 on"), "{message}");
    }

    #[test]
    fn long_texts_take_no_quadratic_time() {
        // 2^20 equal bytes merge into runs of up to 1024: a million merges, at once in a heap.
        let runs: Vec<Vec<u8>> = (0..=10).map(|i| vec![b'a'; 1 << i]).collect();
        let tokens: Vec<(f32, &[u8])> = runs.iter().map(|run| (-(run.len() as f32), run.as_slice())).collect();
        let vocab = vocabulary(&tokens, None, &[]);
        assert_eq!(encode(&vocab, &vec![b'a'; 1 << 20], PLAIN).unwrap(), vec![10; 1 << 10]);
        let error = vocab.encode(&vec![b'a'; MAX_TEXT_BYTES + 1], PLAIN, &mut []).unwrap_err();
        assert_eq!(error, EncodeError::TextTooLong { bytes: MAX_TEXT_BYTES + 1 });
    }
}
