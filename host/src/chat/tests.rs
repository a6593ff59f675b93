//! Small vocabularies and a small model for the tests of this floor.

use super::tokenizer::Tokenizer;
use crate::cluster::error::RootError;
use crate::cluster::options::Options;
use crate::cluster::root::{self, Root};
use crate::model::Model;
use crate::synthetic;
use dair_core::exec::Logits;
use dair_core::format::Header;
use dair_core::format::tokenizer::{TokenizerFile, TokenizerHeader, TokenizerWriter};
use dair_core::text::Vocabulary;
use std::sync::atomic::AtomicBool;

/// Tokens of a vocabulary besides the 256 bytes, whose ids are the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'t> {
    /// Texts that may be merged, ids from 256 on.
    pub regular: &'t [&'t str],
    /// BOS and the other special ones, after them.
    pub special: &'t [&'t str],
    /// Which of the special ones ends a text.
    pub eos: u32,
}

/// A tokenizer of these tokens that is never given back; conversations start with its BOS.
pub fn lasting(tokens: &Tokens<'_>) -> &'static Tokenizer<'static> {
    let bytes = Box::leak(file(tokens, None, true).into_boxed_slice());
    let file = TokenizerFile::parse(bytes).unwrap();
    let index = Box::leak(vec![0; Vocabulary::index_len(file.header().vocab_size)].into_boxed_slice());
    Box::leak(Box::new(Tokenizer::new(&file, index).unwrap()))
}

/// Hands a vocabulary of these tokens to `body`; conversations start with its BOS.
pub fn with_vocabulary<R>(tokens: &Tokens<'_>, body: impl FnOnce(&Vocabulary<'_>) -> R) -> R {
    with_file(tokens, None, true, body)
}

/// The same with a chat template, and with or without BOS at the start of conversations.
pub fn with_file<R>(
    tokens: &Tokens<'_>,
    chat_template: Option<&str>,
    add_bos: bool,
    body: impl FnOnce(&Vocabulary<'_>) -> R,
) -> R {
    let bytes = file(tokens, chat_template, add_bos);
    let file = TokenizerFile::parse(&bytes).unwrap();
    let mut index = vec![0; Vocabulary::index_len(file.header().vocab_size)];
    body(&Vocabulary::new(&file, &mut index))
}

/// The bytes of such a file.
fn file(tokens: &Tokens<'_>, chat_template: Option<&str>, add_bos: bool) -> Vec<u8> {
    let bos = 256 + tokens.regular.len() as u32;
    let texts = tokens.regular.iter().chain(tokens.special);
    let header = TokenizerHeader {
        vocab_size: bos + tokens.special.len() as u32,
        max_token_len: texts.clone().map(|text| text.len()).max().unwrap_or(1) as u32,
        bos: Some(bos),
        eos: [bos + tokens.eos].into_iter().collect(),
        add_bos,
        chat_template,
    };
    let mut writer = TokenizerWriter::new(Vec::new(), &header).unwrap();
    (0..=255u8).for_each(|byte| writer.push(0.0, &[byte]).unwrap());
    texts.for_each(|text| writer.push(0.0, text.as_bytes()).unwrap());
    writer.finish().unwrap()
}

/// Hands a root of two threads, which `stop` ends, and a tokenizer to `body`. Nobody trained the model: what it says is
/// nonsense, but always the same nonsense.
pub fn with_model(seq_len: u32, stop: Option<&'static AtomicBool>, body: impl FnOnce(&mut Root<'_>, &Tokenizer<'_>)) {
    with_preset("tiny-llama", seq_len, stop, body);
}

/// The same with another shape.
pub fn with_preset(
    name: &str,
    seq_len: u32,
    stop: Option<&'static AtomicBool>,
    body: impl FnOnce(&mut Root<'_>, &Tokenizer<'_>),
) {
    let header = Header { seq_len, ..synthetic::preset(name).unwrap() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.m");
    synthetic::write_model(&path, &header, 3).unwrap();
    let model = Model::open(&path).unwrap();
    let bytes = synthetic::tokenizer_bytes(header.vocab_size);
    let mut index = vec![0; Vocabulary::index_len(header.vocab_size)];
    let tokenizer = Tokenizer::new(&TokenizerFile::parse(&bytes).unwrap(), &mut index).unwrap();
    let run = |root: &mut Root<'_>| -> Result<(), RootError> {
        body(root, &tokenizer);
        Ok(())
    };
    root::with_root(&model, &Options { stop, ..Options::alone(2) }, &|_| (), run).unwrap();
}

/// What a root has in its KV cache is of no use for what comes.
pub fn forget(root: &mut Root<'_>) {
    root.forward(&[255], 0, Logits::None).unwrap();
}
