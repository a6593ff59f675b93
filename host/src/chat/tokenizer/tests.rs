//! Small vocabularies, each of which shows one rule.

use super::split::Pattern;
use super::*;
use crate::model::convert::pipeline::PUNCTUATION;
use dair_core::format::tokenizer::{
    Added, Behavior, Flags, Id, Kind, Merge, Method, Step, Steps, TokenizerHeader, TokenizerWriter,
};

/// A vocabulary in the making: tokens with score and kind, and the description of how text is cut.
struct Made {
    tokens: Vec<(f32, Vec<u8>, u8)>,
    merges: Vec<[u32; 3]>,
    steps: Vec<u8>,
    method: Method,
    flags: Flags,
    before: Vec<u32>,
    after: Vec<u32>,
    unknown: Option<u32>,
}

impl Made {
    /// The 256 bytes.
    fn bytes() -> Self {
        let tokens = (0..=255).map(|byte| (0.0, vec![byte], Added::default().bits(Kind::Normal))).collect();
        let flags = Flags { byte_level: true, ..Flags::default() };
        Self {
            tokens,
            merges: Vec::new(),
            steps: Vec::new(),
            method: Method::Merges,
            flags,
            before: Vec::new(),
            after: Vec::new(),
            unknown: None,
        }
    }

    /// The 256 bytes as what characters fall back to, and a blank goes before a text.
    fn characters(method: Method) -> Self {
        let mut made = Self::bytes();
        made.tokens.iter_mut().for_each(|token| token.2 = Added::default().bits(Kind::Byte));
        made.flags = Flags { byte_fallback: true, strip_blank: true, ..Flags::default() };
        made.method = method;
        made.step(Step::Prepend("\u{2581}"));
        made.step(Step::Replace(" ", "\u{2581}"));
        made
    }

    fn step(&mut self, step: Step<'_>) -> &mut Self {
        let (kind, texts) = step.parts();
        self.steps.extend(kind.to_le_bytes());
        for text in texts {
            self.steps.extend((text.len() as u32).to_le_bytes());
            self.steps.extend(text.as_bytes());
        }
        self
    }

    fn token(&mut self, text: &str, score: f32, kind: Kind, added: Added) -> u32 {
        self.tokens.push((score, text.into(), added.bits(kind)));
        self.tokens.len() as u32 - 1
    }

    fn normal(&mut self, text: &str, score: f32) -> u32 {
        self.token(text, score, Kind::Normal, Added::default())
    }

    fn control(&mut self, text: &str) -> u32 {
        self.token(text, 0.0, Kind::Control, Added::default())
    }

    /// Merges in the order of their ranks, each into a token that is there or made.
    fn merge(&mut self, left: &str, right: &str) -> &mut Self {
        let find = |made: &Self, text: &str| made.tokens.iter().position(|token| token.1 == text.as_bytes());
        let (left_id, right_id) = (find(self, left).unwrap() as u32, find(self, right).unwrap() as u32);
        let whole = [left, right].concat();
        let merged = find(self, &whole).map_or_else(|| self.normal(&whole, 0.0), |id| id as u32);
        self.merges.push([left_id, right_id, merged]);
        self
    }

    /// What `work` says of it, as the tokenizer of a file.
    fn with<R>(&self, work: impl FnOnce(&Tokenizer<'_>) -> R) -> R {
        self.try_with(work).unwrap()
    }

    fn try_with<R>(&self, work: impl FnOnce(&Tokenizer<'_>) -> R) -> Result<R, ExactError> {
        let header = TokenizerHeader {
            vocab_size: self.tokens.len() as u32,
            max_token_len: self.tokens.iter().map(|token| token.1.len() as u32).max().unwrap(),
            bos: None,
            eos: heapless::Vec::new(),
            add_bos: false,
            chat_template: None,
        };
        let mut writer = TokenizerWriter::new(Vec::new(), &header).unwrap();
        for (score, bytes, _) in &self.tokens {
            writer.push(*score, bytes).unwrap();
        }
        let kinds: Vec<u8> = self.tokens.iter().map(|token| token.2).collect();
        let merge = |&[left, right, merged]: &[u32; 3]| Merge {
            left: Id::new(left),
            right: Id::new(right),
            merged: Id::new(merged),
        };
        let merges: Vec<Merge> = self.merges.iter().map(merge).collect();
        let [before, after] =
            [&self.before, &self.after].map(|ids| ids.iter().map(|id| Id::new(*id)).collect::<Vec<_>>());
        let pipeline = Pipeline {
            method: self.method,
            flags: self.flags,
            bos: None,
            eos: None,
            unknown: self.unknown,
            kinds: &kinds,
            merges: &merges,
            steps: Steps::parse(&self.steps).unwrap(),
            before: &before,
            after: &after,
        };
        writer.pipeline(&pipeline).unwrap();
        let bytes = writer.finish().unwrap();
        let file = TokenizerFile::parse(&bytes).unwrap();
        assert_eq!(file.pipeline(), Some(&pipeline));
        let mut index = vec![0; Vocabulary::index_len(header.vocab_size)];
        Ok(work(&Tokenizer::new(&file, &mut index)?))
    }

    /// The pieces of a text.
    fn pieces(&self, text: &str, options: EncodeOptions) -> Vec<String> {
        self.with(|tokenizer| {
            let ids = tokenizer.encode(text.as_bytes(), options).unwrap();
            assert_eq!(tokenizer.decode(&ids), text.as_bytes(), "{ids:?}");
            ids.iter().map(|id| String::from_utf8_lossy(tokenizer.vocabulary().bytes(*id).unwrap()).into()).collect()
        })
    }
}

const PLAIN: EncodeOptions = EncodeOptions { start: false, special: true };
const LITERAL: EncodeOptions = EncodeOptions { start: false, special: false };

#[test]
fn merges_go_by_their_rank_and_not_by_ids_or_spelling() {
    let mut made = Made::bytes();
    for text in ["ab", "bc", "bcd"] {
        made.normal(text, 0.0);
    }
    made.merge("b", "c").merge("bc", "d").merge("a", "b");
    assert_eq!(made.pieces("abcd", PLAIN), ["a", "bcd"]);
    // A pair that spells a token, but is no merge.
    let mut made = Made::bytes();
    made.merge("a", "b").merge("b", "c").merge("a", "bc");
    assert_eq!(made.pieces("abc", PLAIN), ["ab", "c"]);
}

#[test]
fn a_piece_that_is_a_token_is_taken_whole_where_merges_are_ignored() {
    let mut made = Made::bytes();
    made.merge("a", "b");
    made.normal("abcd", 0.0);
    assert_eq!(made.pieces("abcd", PLAIN), ["ab", "c", "d"]);
    made.flags.ignore_merges = true;
    assert_eq!(made.pieces("abcd", PLAIN), ["abcd"]);
}

#[test]
fn merges_do_not_cross_the_pieces_that_a_pattern_cuts() {
    let mut made = Made::bytes();
    made.merge("\n", "\n").merge(" ", " ").merge(" ", "r");
    assert_eq!(made.pieces("a\n\nb  r", PLAIN), ["a", "\n\n", "b", "  ", "r"]);
    made.step(Step::Split(Behavior::Isolated, r" ?\p{L}+|\p{N}|\s+(?!\S)|\s+"));
    assert_eq!(made.pieces("a\n\nb  r", PLAIN), ["a", "\n", "\n", "b", " ", " r"]);
}

#[test]
fn sentencepiece_begins_with_whole_characters_and_a_blank() {
    let mut made = Made::characters(Method::Scores);
    for (rank, text) in [" ", " a", "a", "’", "你", "好", "你好", " —", "—"].into_iter().enumerate() {
        made.normal(text, -(rank as f32));
    }
    for (text, pieces) in [
        ("a’a", &[" a", "’", "a"][..]),
        ("你好", &[" ", "你好"]),
        ("a —", &[" a", " —"]),
        ("aé", &[" a", "\u{fffd}", "\u{fffd}"]),
        ("", &[]),
    ] {
        assert_eq!(made.pieces(text, PLAIN), pieces, "{text}");
    }
}

#[test]
fn equal_scores_are_merged_from_the_left_and_unknown_characters_may_become_part_of_a_token() {
    let mut made = Made::characters(Method::Scores);
    for (text, score) in [(" ", -9.0), ("a", -9.0), ("aa", -1.0), ("xy", -2.0)] {
        made.normal(text, score);
    }
    assert_eq!(made.pieces("aaa", PLAIN), [" ", "aa", "a"]);
    assert_eq!(made.pieces("xy", PLAIN), [" ", "xy"], "neither x nor y is a token");
    assert_eq!(made.pieces("yx", PLAIN), [" ", "y", "x"], "bytes");
}

#[test]
fn without_bytes_to_fall_back_to_there_is_the_unknown_token_or_an_error() {
    let mut made = Made::characters(Method::Merges);
    made.normal(" ", 0.0);
    made.flags = Flags { byte_fallback: false, ..made.flags };
    made.with(|tokenizer| {
        let error = tokenizer.encode("é".as_bytes(), PLAIN).unwrap_err();
        assert_eq!(error, TextError::Exact(ExactError::NoToken(0xc3)));
        assert!(error.to_string().contains("0xc3"), "{error}");
    });
    made.unknown = Some(made.token("<unk>", 0.0, Kind::Unknown, Added::default()));
    let ids = |made: &Made| made.with(|tokenizer| tokenizer.encode("éé".as_bytes(), PLAIN).unwrap());
    assert_eq!(ids(&made), [256, 257, 257]);
    made.flags.fuse_unknown = true;
    assert_eq!(ids(&made), [256, 257]);
}

#[test]
fn control_tokens_are_what_is_asked_for_and_never_what_a_guard_keeps_apart() {
    let mut made = Made::bytes();
    let end = made.control("<|end|>");
    (made.before, made.after) = (vec![end], vec![end, end]);
    assert_eq!(made.pieces("a<|end|>", PLAIN), ["a", "<|end|>"]);
    assert_eq!(made.pieces("<|end|>", LITERAL).len(), 7);
    made.with(|tokenizer| {
        let start = EncodeOptions { start: true, special: true };
        assert_eq!(tokenizer.encode(b"a", start).unwrap(), [end, 97, end, end]);
        assert_eq!(tokenizer.decode(&[end, 97, end, end]), b"a");
        assert_eq!(tokenizer.decode(&[end, 97, end]), b"a<|end|>");
        let guarded = "<|end|><\u{fdd0}|end|>";
        let ids = tokenizer.encode_guarded(guarded.as_bytes(), Some('\u{fdd0}'), PLAIN).unwrap();
        assert_eq!(ids[0], end);
        assert_eq!(tokenizer.decode(&ids[1..]), b"<|end|>");
        assert!(!ids[1..].contains(&end));
    });
}

#[test]
fn added_tokens_are_found_before_or_after_normalisation() {
    let mut made = Made::bytes();
    made.step(Step::Lowercase);
    made.token("ABC", 0.0, Kind::UserDefined, Added::default());
    made.token("xyz", 0.0, Kind::UserDefined, Added { normalized: true, ..Added::default() });
    made.with(|tokenizer| {
        let ids = |text: &str| tokenizer.encode(text.as_bytes(), LITERAL).unwrap();
        assert_eq!(ids("ABCabcXYZ"), [256, 97, 98, 99, 257]);
    });
}

#[test]
fn a_token_spelled_with_signs_for_blanks_prints_blanks() {
    let mut made = Made::characters(Method::Merges);
    made.flags.strip_blank = false;
    made.steps.clear();
    made.step(Step::Replace(" ", "\u{2581}"));
    made.normal(" ", 0.0);
    made.normal("a", 0.0);
    let two = made.token("  ", 0.0, Kind::UserDefined, Added { blank_sign: true, ..Added::default() });
    made.with(|tokenizer| {
        let ids = |text: &str| tokenizer.encode(text.as_bytes(), LITERAL).unwrap();
        assert_eq!(ids("a\u{2581}\u{2581}a"), [257, two, 257]);
        assert_eq!(ids("a  a"), [257, 256, 256, 257], "blanks are merged, if at all");
        assert_eq!(tokenizer.decode(&[257, two, 257]), b"a  a");
    });
}

#[test]
fn digits_that_are_bytes_of_other_characters_are_cut_out_where_steps_see_the_alphabet() {
    let mut made = Made::bytes();
    made.merge("1", "2").merge("x", "12");
    made.step(Step::ByteAlphabet).step(Step::Split(Behavior::Isolated, r"\p{N}+"));
    assert_eq!(made.pieces("x12", PLAIN), ["x", "12"]);
    // The last byte of U+00BD is spelled by the character that Unicode calls one half.
    let (half, last) = (made.tokens.len() as u32, 0xBD);
    made.tokens.push((0.0, "½".into(), Added::default().bits(Kind::Normal)));
    made.merges.push([0xC2, last, half]);
    made.with(|tokenizer| assert_eq!(tokenizer.encode("½".as_bytes(), PLAIN).unwrap(), [0xC2, last]));
}

#[test]
fn punctuation_is_what_it_was_in_unicode_8() {
    let signs = Pattern::new(PUNCTUATION).unwrap();
    let mut found = Vec::new();
    signs.for_each("a!$~ ¿„。\u{166D}\u{111C9}\u{2E42}\u{2E43}\u{A76}€", |range| found.push(range)).unwrap();
    let lens: usize = found.iter().map(ExactSizeIterator::len).sum();
    assert_eq!((found.len(), lens), (9, 3 + 2 + 3 + 3 + 3 + 4 + 3));
}

#[test]
fn bytes_that_are_no_characters_come_back() {
    let mut made = Made::characters(Method::Scores);
    made.normal(" ", 0.0);
    made.normal("a", 0.0);
    for made in [made, Made::bytes()] {
        made.with(|tokenizer| {
            for bytes in [&b"\xff"[..], b"a\xe4\xbda \xf0\x9f\x98", b"\xc3(\xa0\xa1", b" a\xff "] {
                let ids = tokenizer.encode(bytes, PLAIN).unwrap();
                assert_eq!(tokenizer.decode(&ids), bytes);
            }
        });
    }
}

#[test]
fn a_file_without_a_description_keeps_the_rule_of_distributed_llama() {
    let tokens: &[&[u8]] = &[b"a", b"\n", b"\n\n", b"<s>"];
    let header = TokenizerHeader {
        vocab_size: 4,
        max_token_len: 3,
        bos: Some(3),
        eos: heapless::Vec::new(),
        add_bos: true,
        chat_template: None,
    };
    let mut writer = TokenizerWriter::new(Vec::new(), &header).unwrap();
    tokens.iter().for_each(|token| writer.push(0.0, token).unwrap());
    let bytes = writer.finish().unwrap();
    let file = TokenizerFile::parse(&bytes).unwrap();
    let mut index = vec![0; Vocabulary::index_len(4)];
    let tokenizer = Tokenizer::new(&file, &mut index).unwrap();
    assert!(tokenizer.pipeline().is_none());
    let ids = tokenizer.encode(b"a\n\na", EncodeOptions { start: true, special: true }).unwrap();
    assert_eq!(ids, [3, 0, 2, 0]);
    assert_eq!(tokenizer.decode(&ids), b"a\n\na");
    let guarded = tokenizer.encode_guarded("<\u{fdd0}s>".as_bytes(), Some('\u{fdd0}'), PLAIN);
    assert!(matches!(guarded, Err(TextError::Rule(EncodeError::NoToken { .. }))), "{guarded:?}");
}

#[test]
fn a_pattern_that_is_broken_is_named() {
    let mut made = Made::bytes();
    made.step(Step::Split(Behavior::Isolated, "a("));
    let message = made.try_with(|_| ()).unwrap_err().to_string();
    assert!(message.starts_with("the pattern \"a(\", by which text is cut, is broken: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
}
