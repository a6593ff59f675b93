//! A vocabulary of any size: the 256 bytes, strings of letters and blanks that merge from shorter ones, special tokens.

use dair_core::format::tokenizer::{
    Added, Flags, Id, Kind, Merge, Method, Pipeline, Steps, TokenizerHeader, TokenizerWriter,
};
use std::path::Path;
use std::{fs, io};

/// Single bytes: any text can be encoded.
const BYTES: u32 = 256;
/// Tokens that are never merged into: BOS and the two that enclose a turn of a chat. They are the last ids.
const SPECIAL: [&str; 3] = ["<s>", "<|im_start|>", "<|im_end|>"];
/// ChatML behind BOS.
const TEMPLATE: &str = "{{ bos_token }}\
    {% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}<|im_start|>assistant{{ '\\n' }}";
/// What longer tokens are made of.
const LETTERS: &[u8] = b" abcdefghijklmnopqrstuvwxyz";

/// Smallest vocabulary: bytes and special tokens.
pub const MIN_VOCAB_SIZE: u32 = BYTES + SPECIAL.len() as u32;

/// A tokenizer file for a model of `vocab_size` tokens: ids 0 to 255 are bytes, the last three BOS, start and end of a
/// chat turn (which ends a text), those between are strings of letters, shorter ones first.
///
/// # Panics
/// If `vocab_size` is below [`MIN_VOCAB_SIZE`] or above what a tokenizer file may hold.
pub fn tokenizer_bytes(vocab_size: u32) -> Vec<u8> {
    assert!(vocab_size >= MIN_VOCAB_SIZE, "vocabulary of {vocab_size}; at least {MIN_VOCAB_SIZE}");
    let bos = vocab_size - SPECIAL.len() as u32;
    let longest_merge = if bos > BYTES { string_of_letters(bos - 1 - BYTES).len() } else { 1 };
    let longest = SPECIAL.iter().map(|token| token.len()).fold(longest_merge, usize::max);
    let header = TokenizerHeader {
        vocab_size,
        max_token_len: longest as u32,
        bos: Some(bos),
        eos: [vocab_size - 1].into_iter().collect(),
        add_bos: true,
        chat_template: Some(TEMPLATE),
    };
    // A string grows by its last letter.
    let merges: Vec<Merge> = (BYTES..bos)
        .map(|id| {
            let text = string_of_letters(id - BYTES);
            let (last, rest) = text.split_last().expect("two letters or more");
            let left = if let [byte] = rest { u32::from(*byte) } else { BYTES + index_of_letters(rest) };
            Merge { left: Id::new(left), right: Id::new(u32::from(*last)), merged: Id::new(id) }
        })
        .collect();
    let kind = |id| Added::default().bits(if id < bos { Kind::Normal } else { Kind::Control });
    let kinds: Vec<u8> = (0..vocab_size).map(kind).collect();
    let pipeline = Pipeline {
        method: Method::Merges,
        flags: Flags { byte_level: true, ..Flags::default() },
        bos: Some(bos),
        eos: Some(vocab_size - 1),
        unknown: None,
        kinds: &kinds,
        merges: &merges,
        steps: Steps::default(),
        before: &[Id::new(bos)],
        after: &[],
    };
    let write = || {
        let mut writer = TokenizerWriter::new(Vec::new(), &header)?;
        // A lower score merges later, so shorter strings come first.
        for id in 0..BYTES {
            writer.push(-(id as f32), &[id as u8])?;
        }
        for id in BYTES..bos {
            writer.push(-(id as f32), &string_of_letters(id - BYTES))?;
        }
        for (id, token) in (bos..).zip(SPECIAL) {
            writer.push(-(id as f32), token.as_bytes())?;
        }
        writer.pipeline(&pipeline)?;
        writer.finish()
    };
    write().unwrap_or_else(|error| panic!("{error}"))
}

/// Writes [`tokenizer_bytes`] to a file.
///
/// # Errors
/// What the file system says.
///
/// # Panics
/// As [`tokenizer_bytes`].
pub fn write_tokenizer(path: &Path, vocab_size: u32) -> io::Result<()> {
    fs::write(path, tokenizer_bytes(vocab_size))
}

/// String `index` of those of two letters or more, shorter ones first, then in the order of the letters. All but its
/// last letter is a string of an earlier index or a single byte, so a merge leads to it.
fn string_of_letters(index: u32) -> Vec<u8> {
    let base = LETTERS.len() as u32;
    let (mut rest, mut len, mut count) = (index, 2, base * base);
    while rest >= count {
        rest -= count;
        (len, count) = (len + 1, count * base);
    }
    let mut text = vec![0; len];
    for letter in text.iter_mut().rev() {
        *letter = LETTERS[(rest % base) as usize];
        rest /= base;
    }
    text
}

/// The index of a string of two letters or more: the inverse of [`string_of_letters`].
fn index_of_letters(text: &[u8]) -> u32 {
    let base = LETTERS.len() as u32;
    let place = |letter: &u8| LETTERS.iter().position(|other| other == letter).unwrap_or(0) as u32;
    let shorter: u32 = (2..text.len() as u32).map(|len| base.pow(len)).sum();
    shorter + text.iter().fold(0, |index, letter| index * base + place(letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::template;
    use crate::chat::tokenizer::Tokenizer;
    use dair_core::format::tokenizer::TokenizerFile;
    use dair_core::text::{EncodeOptions, Vocabulary};
    use std::collections::HashSet;

    #[test]
    fn strings_are_all_different_and_grow() {
        let strings: Vec<_> = (0..25_000).map(string_of_letters).collect();
        assert_eq!((&strings[0][..], &strings[728][..], &strings[729][..]), (&b"  "[..], &b"zz"[..], &b"   "[..]));
        assert!(strings.windows(2).all(|pair| pair[0].len() <= pair[1].len()));
        assert_eq!(strings.iter().collect::<HashSet<_>>().len(), strings.len());
        assert!(strings.iter().zip(0..).all(|(text, index)| index_of_letters(text) == index));
    }

    #[test]
    fn any_text_survives_encoding_and_merges_are_used() {
        for vocab_size in [MIN_VOCAB_SIZE, 288, 1500, 151_936] {
            let bytes = tokenizer_bytes(vocab_size);
            let file = TokenizerFile::parse(&bytes).unwrap();
            let mut index = vec![0; Vocabulary::index_len(vocab_size)];
            let tokenizer = Tokenizer::new(&file, &mut index).unwrap();
            let vocab = tokenizer.vocabulary();
            assert_eq!(vocab.vocab_size(), vocab_size);
            assert!(template::choose(None, vocab).unwrap().note.is_none());
            let text = "  zz a cat, naïve\u{1F600}<|im_end|>";
            let options = EncodeOptions { start: true, special: true };
            let tokens = tokenizer.encode(text.as_bytes(), options).unwrap();
            assert_eq!((tokens[0], tokens.last().copied()), (vocab_size - 3, Some(vocab_size - 1)));
            let back: Vec<u8> = tokens[1..].iter().flat_map(|id| vocab.bytes(*id).unwrap()).copied().collect();
            assert_eq!(back, text.as_bytes());
            assert_eq!(tokens.iter().any(|id| (BYTES..vocab_size - 3).contains(id)), vocab_size > MIN_VOCAB_SIZE);
        }
    }
}
