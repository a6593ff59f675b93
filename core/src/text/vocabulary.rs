//! Lookups in a tokenizer file: bytes and score of an id, ids of bytes.

use crate::format::tokenizer::{TokenizerFile, TokenizerHeader};
use core::cmp::Ordering;

/// The tokens of a file, indexed for lookups in both directions.
///
/// *Regular* tokens are what text is encoded into: single bytes or characters, then merges of them. *Special* tokens
/// (see [`TokenizerHeader::is_special`]) are found whole in a text, or not at all.
#[derive(Clone, Debug)]
pub struct Vocabulary<'a> {
    header: TokenizerHeader<'a>,
    entries: &'a [u8],
    /// Where the entry of each token begins.
    offsets: &'a [u32],
    /// Hash and id of the regular tokens, in the order of hash, bytes, id. A binary search reads neighbouring numbers,
    /// and bytes of the file only at its end: four times faster than in the order of bytes (SmolLM2, x86-64), and in a
    /// file made to collide no slower than that.
    regular: &'a [[u32; 2]],
    /// Ids of the special tokens, in the order of bytes, id.
    special: &'a [u32],
    /// Length of the longest regular token in bytes.
    max_regular_len: usize,
    /// Bit `b` is set if a special token begins with byte `b`.
    special_starts: [u64; 4],
}

impl<'a> Vocabulary<'a> {
    /// Numbers that [`Vocabulary::new`] needs for its index.
    pub const fn index_len(vocab_size: u32) -> usize {
        3 * vocab_size as usize
    }

    /// Indexes a file.
    ///
    /// # Panics
    /// If `index` is shorter than [`Vocabulary::index_len`].
    pub fn new(file: &TokenizerFile<'a>, index: &'a mut [u32]) -> Self {
        let header = file.header().clone();
        let needed = Self::index_len(header.vocab_size);
        assert!(index.len() >= needed, "index of {} numbers, needed are {needed}", index.len());
        let (offsets, rest) = index.split_at_mut(header.vocab_size as usize);
        let mut offset = 0;
        for (start, (_, token)) in offsets.iter_mut().zip(file.tokens()) {
            *start = offset;
            offset += 8 + token.len() as u32;
        }

        let n_special = (0..header.vocab_size).filter(|&id| header.is_special(id)).count();
        let (regular, rest) = rest.split_at_mut(2 * (header.vocab_size as usize - n_special));
        let (regular, special) = (regular.as_chunks_mut().0, &mut rest[..n_special]);
        let (offsets, entries) = (&*offsets, file.entries());
        let bytes = |id: u32| token_bytes(entries, offsets[id as usize]);
        let (mut next_regular, mut next_special) = (regular.iter_mut(), special.iter_mut());
        for id in 0..header.vocab_size {
            if header.is_special(id) {
                next_special.next().into_iter().for_each(|slot| *slot = id);
            } else {
                next_regular.next().into_iter().for_each(|slot| *slot = [hash(bytes(id), &[]), id]);
            }
        }
        regular.sort_unstable_by(|&[a_hash, a], &[b_hash, b]| {
            a_hash.cmp(&b_hash).then_with(|| bytes(a).cmp(bytes(b))).then(a.cmp(&b))
        });
        special.sort_unstable_by(|&a, &b| bytes(a).cmp(bytes(b)).then(a.cmp(&b)));

        let max_regular_len = regular.iter().map(|&[_, id]| bytes(id).len()).max().unwrap_or(0);
        let mut special_starts = [0; 4];
        for &id in &*special {
            let first = bytes(id)[0];
            special_starts[usize::from(first / 64)] |= 1 << (first % 64);
        }
        Self { header, entries, offsets, regular, special, max_regular_len, special_starts }
    }

    /// What the file says besides its tokens: BOS, EOS, chat template.
    pub fn header(&self) -> &TokenizerHeader<'a> {
        &self.header
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> u32 {
        self.header.vocab_size
    }

    /// Number of regular tokens.
    pub fn n_regular(&self) -> usize {
        self.regular.len()
    }

    /// The bytes that a token stands for, not always whole UTF-8 characters.
    pub fn bytes(&self, id: u32) -> Option<&'a [u8]> {
        self.offsets.get(id as usize).map(|&offset| token_bytes(self.entries, offset))
    }

    /// Score of a token: the higher, the earlier it is merged.
    pub fn score(&self, id: u32) -> Option<f32> {
        let offset = *self.offsets.get(id as usize)? as usize;
        self.entries[offset..].first_chunk().map(|score| f32::from_le_bytes(*score))
    }

    /// The regular token with exactly the bytes of `left` and `right`, one after the other.
    ///
    /// Where several tokens have the same bytes, the one with the largest id. It matters in vocabularies with byte
    /// fallback, where the byte `a` comes first and the character `a`, with which the model was trained, later.
    pub fn find_regular(&self, left: &[u8], right: &[u8]) -> Option<u32> {
        if left.len() + right.len() > self.max_regular_len {
            return None;
        }
        let key = hash(left, right);
        let order = |&[hash, id]: &[u32; 2]| {
            hash.cmp(&key).then_with(|| {
                let token = token_bytes(self.entries, self.offsets[id as usize]);
                let (head, tail) = token.split_at(token.len().min(left.len()));
                head.cmp(left).then_with(|| tail.cmp(right))
            })
        };
        let end = self.regular.partition_point(|entry| order(entry) != Ordering::Greater);
        let entry = self.regular[..end].last()?;
        (order(entry) == Ordering::Equal).then_some(entry[1])
    }

    /// The special token with which `text` begins: of several, the one with the smallest id, not the longest.
    pub fn find_special(&self, text: &[u8]) -> Option<u32> {
        let first = *text.first()?;
        if self.special_starts[usize::from(first / 64)] & (1 << (first % 64)) == 0 {
            return None;
        }
        // Narrows the tokens to those that agree with the text, byte by byte.
        // Of these, the ones that end here are equal, and stand first.
        let bytes = |id: u32| token_bytes(self.entries, self.offsets[id as usize]);
        let mut best: Option<u32> = None;
        let mut agreeing = self.special;
        for (i, &byte) in text.iter().enumerate() {
            let start = agreeing.partition_point(|&id| bytes(id)[i] < byte);
            let end = agreeing.partition_point(|&id| bytes(id)[i] <= byte);
            agreeing = &agreeing[start..end];
            let n_ended = agreeing.partition_point(|&id| bytes(id).len() == i + 1);
            if n_ended > 0 {
                best = Some(best.map_or(agreeing[0], |id| id.min(agreeing[0])));
            }
            agreeing = &agreeing[n_ended..];
            if agreeing.is_empty() {
                break;
            }
        }
        best
    }

    pub(super) fn max_regular_len(&self) -> usize {
        self.max_regular_len
    }
}

/// The bytes of the entry at `offset` of a checked file.
fn token_bytes(entries: &[u8], offset: u32) -> &[u8] {
    let entry = &entries[offset as usize + 4..];
    let length = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
    &entry[4..4 + length as usize]
}

/// FNV-1a of `left` and `right`, one after the other.
fn hash(left: &[u8], right: &[u8]) -> u32 {
    left.iter().chain(right).fold(0x811C_9DC5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::tokenizer::TokenizerWriter;
    use std::{boxed::Box, vec, vec::Vec};

    /// A vocabulary of these tokens; the memory is never freed, tests are short.
    pub fn vocabulary(tokens: &[(f32, &[u8])], bos: Option<u32>, eos: &[u32]) -> Vocabulary<'static> {
        let header = TokenizerHeader {
            vocab_size: tokens.len() as u32,
            max_token_len: tokens.iter().map(|(_, token)| token.len()).max().unwrap() as u32,
            bos,
            eos: heapless::Vec::from_slice(eos).unwrap(),
            add_bos: true,
            chat_template: None,
        };
        let bytes = 1024 + tokens.iter().map(|(_, token)| 8 + token.len()).sum::<usize>();
        let buffer = Box::leak(vec![0; bytes].into_boxed_slice());
        let mut writer = TokenizerWriter::new(&mut *buffer, &header).unwrap();
        for (score, token) in tokens {
            writer.push(*score, token).unwrap();
        }
        let left = writer.finish().unwrap().len();
        let file = TokenizerFile::parse(&buffer[..bytes - left]).unwrap();
        let index = vec![0; Vocabulary::index_len(header.vocab_size)].into_boxed_slice();
        Vocabulary::new(&file, Box::leak(index))
    }

    #[test]
    fn tokens_are_found_by_id_and_by_bytes() {
        let vocab = vocabulary(&[(1.0, b"b"), (2.0, b"ab"), (3.0, b"\0"), (4.0, b"b"), (5.0, b"<s>")], Some(4), &[4]);
        assert_eq!(vocab.bytes(1), Some(b"ab".as_slice()));
        assert_eq!((vocab.score(1), vocab.score(5), vocab.bytes(5)), (Some(2.0), None, None));
        assert_eq!(vocab.find_regular(b"a", b"b"), Some(1));
        assert_eq!(vocab.find_regular(b"", b"ab"), Some(1));
        assert_eq!(vocab.find_regular(b"b", b""), Some(3), "the last of equal tokens");
        assert_eq!(vocab.find_regular(b"\0", b""), Some(2));
        for missing in [b"".as_slice(), b"a", b"abc", b"ba", b"<s>"] {
            assert_eq!(vocab.find_regular(missing, b""), None);
        }
    }

    #[test]
    fn tokens_of_equal_hash_are_told_apart() {
        assert_eq!(hash(b"costarring", b""), hash(b"liquid", b""));
        let vocab = vocabulary(&[(0.0, b"liquid"), (0.0, b"costarring"), (0.0, b"liquid")], None, &[]);
        assert_eq!(vocab.find_regular(b"costar", b"ring"), Some(1));
        assert_eq!(vocab.find_regular(b"liqui", b"d"), Some(2));
        let vocab = vocabulary(&[(0.0, b"costarring")], None, &[]);
        assert_eq!(vocab.find_regular(b"liquid", b""), None);
    }

    #[test]
    fn the_special_token_with_the_smallest_id_wins() {
        let tokens: &[(f32, &[u8])] =
            &[(0.0, b"x"), (0.0, b"<s>"), (0.0, b"<ab"), (0.0, b"<a"), (0.0, b"<abc"), (0.0, b"<a"), (0.0, b"<b>")];
        let vocab = vocabulary(tokens, Some(1), &[]);
        assert_eq!(vocab.find_special(b"<s> and more"), Some(1));
        assert_eq!(vocab.find_special(b"<abcd"), Some(2));
        assert_eq!(vocab.find_special(b"<ac"), Some(3));
        assert_eq!(vocab.find_special(b"<b>"), Some(6));
        for missing in [b"".as_slice(), b"x", b"<", b"<b", b" <a"] {
            assert_eq!(vocab.find_special(missing), None);
        }
    }

    #[test]
    fn vocabularies_without_regular_or_without_special_tokens_work() {
        let vocab = vocabulary(&[(0.0, b"a"), (0.0, b"b")], Some(0), &[]);
        assert_eq!((vocab.n_regular(), vocab.find_regular(b"a", b""), vocab.find_special(b"b")), (0, None, Some(1)));
        let vocab = vocabulary(&[(0.0, b"a"), (0.0, b"b")], None, &[]);
        assert_eq!((vocab.n_regular(), vocab.find_regular(b"a", b""), vocab.find_special(b"b")), (2, Some(0), None));
        let vocab = vocabulary(&[(0.0, b"a"), (0.0, b"b"), (0.0, b"c")], None, &[1]);
        assert_eq!((vocab.find_special(b"b"), vocab.find_regular(b"b", b"")), (Some(1), None));
        assert_eq!(Vec::from([vocab.find_regular(b"a", b""), vocab.find_regular(b"c", b"")]), [Some(0), Some(2)]);
    }
}
