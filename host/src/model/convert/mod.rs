//! Makes `.m` and `.t` files from models as they are published: GGUF files and Hugging Face folders.
//!
//! ```text
//! GGUF file            --gguf----------+
//!                                      +--> Source: header, tensors, vocabulary --> pieces --write--> OUT.m
//! Hugging Face folder  --hugging_face--+                          |
//!                                                                 +--emit--> OUT.t
//! ```
//! Values that need no change are copied bit for bit; all others are widened to F32 and stored as the output's type.
//! What a `.m` file can't express is refused by name, because leaving it out would silently change the answers.

mod error;
pub mod ggml;
pub mod gguf;
mod hugging_face;
mod inputs;
mod output;
pub mod pipeline;
mod rope;
mod sentencepiece;
mod source;
mod vocabulary;
mod write;

pub use error::ConvertError;
pub use inputs::{files_of, first_of};

use crate::machine::file;
use dair_core::format::model::EMITTED_BYTES;
use dair_core::format::{Header, HeaderError, Layout};
use dair_core::quant::DType;
use output::{Output, check_space, destination, part_of};
use source::Source;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use write::{Target, Work, carry_over};

/// Version of what conversions write: raised whenever the same source and options give other bytes than before, so that
/// models in the [`cache`](super::cache) are converted again.
pub const CONVERSION: u32 = 3;

/// What to convert, and to what.
#[derive(Clone, Debug)]
pub struct Options {
    /// A GGUF file or a Hugging Face folder.
    pub input: PathBuf,
    /// The `.m` file to be made.
    pub model: PathBuf,
    /// The `.t` file to be made; without it, `model` with the extension `.t`.
    pub tokenizer: Option<PathBuf>,
    /// Type of the matrices; without it, Q40 where the source is Q4_0 throughout, else Q80, and F32 where rows are no whole
    /// blocks of these.
    pub weights: Option<DType>,
    /// Whether existing files are replaced: regular ones, or those that a link leads to.
    pub force: bool,
    /// Threads that convert, at least 1.
    pub lanes: usize,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the model written so far.
    pub done_bytes: u64,
    /// Bytes of the whole model.
    pub total_bytes: u64,
}

/// What a conversion did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The `.m` file.
    pub model: PathBuf,
    /// The `.t` file.
    pub tokenizer: PathBuf,
    /// The header of the `.m` file.
    pub header: Header,
    /// Size of the `.m` file.
    pub model_bytes: u64,
    /// Bytes of tensors that were copied as they were.
    pub copied_bytes: u64,
    /// Whether tokens have other ids than in the source.
    pub is_reordered: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

/// Converts a model. `progress` is called after every few megabytes and may end the conversion.
///
/// # Errors
/// One that says what, where, what was found, and what is allowed. No output exists under its final name then.
pub fn convert(
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Summary, ConvertError> {
    let start = Instant::now();
    let tokenizer_path = options.tokenizer.clone().unwrap_or_else(|| options.model.with_extension("t"));
    let (model_output, tokenizer_output) = destinations(options, &tokenizer_path)?;
    let mut source = open(&options.input)?;
    check_not_input(&source, &[&model_output, &tokenizer_output])?;

    let header = header(&mut source, options.weights)?;
    let layout = Layout::new(&header).map_err(ConvertError::layout(source.path()))?;
    let pieces = source.pieces(&layout)?;
    check_vocabulary(&source)?;
    let path = source.path().to_owned();
    let old_ids = source.vocabulary.reorder(&path)?;
    let tokenizer_bytes = source.vocabulary.emit(&path)?;
    check_space(&model_output, layout.file_bytes() + tokenizer_bytes.len() as u64)?;

    let model = Output::create(&model_output)?;
    let tokenizer = Output::create(&tokenizer_output)?;
    let io = |action, output: &Output| ConvertError::io(action, output.part());
    tokenizer.file().write_all_at(&tokenizer_bytes, 0).map_err(io("write", &tokenizer))?;
    model.file().set_len(layout.file_bytes()).map_err(io("write", &model))?;
    model.file().write_all_at(&header.emit(), 0).map_err(io("write", &model))?;
    let total_bytes = layout.file_bytes();
    let mut done_bytes = u64::from(header.header_bytes);
    let work = Work { files: &source.files, pieces: &pieces, old_ids: old_ids.as_deref() };
    let target = Target { file: model.file(), path: model.part() };
    carry_over(&work, &target, options.lanes.max(1), &mut |bytes| {
        done_bytes += bytes;
        progress(Progress { done_bytes, total_bytes })
    })?;
    // The model comes last: whoever sees it sees a complete pair.
    tokenizer.finish()?;
    model.finish()?;

    let copied = pieces.iter().filter(|piece| piece.is_copied()).map(|piece| piece.target.bytes());
    Ok(Summary {
        model: options.model.clone(),
        tokenizer: tokenizer_path,
        header,
        model_bytes: layout.file_bytes(),
        copied_bytes: copied.sum(),
        is_reordered: old_ids.is_some(),
        elapsed: start.elapsed(),
        notes: source.notes,
    })
}

/// Whether `input` can be converted with the default weights, as far as that shows without reading them: the header that
/// the model would have.
///
/// # Errors
/// As [`convert`].
pub fn check(input: &Path) -> Result<Header, ConvertError> {
    let mut source = open(input)?;
    let header = header(&mut source, None)?;
    let layout = Layout::new(&header).map_err(ConvertError::layout(source.path()))?;
    source.pieces(&layout)?;
    check_vocabulary(&source)?;
    Ok(header)
}

fn open(input: &Path) -> Result<Source, ConvertError> {
    if input.is_dir() { hugging_face::open(input) } else { gguf::open(input) }
}

/// The header of the output: the source's with a weight type, checked by the rules of `.m` files.
fn header(source: &mut Source, weights: Option<DType>) -> Result<Header, ConvertError> {
    let checked = |weights| {
        let header = Header { weights, header_bytes: EMITTED_BYTES as u32, ..source.header };
        Header::parse(&header.emit())
    };
    // The header's own limits come first: they keep the layout's arithmetic in range.
    let exact = checked(DType::F32).map_err(ConvertError::header(source.path()))?;
    let chosen = match weights {
        Some(weights) => weights,
        None => source.natural_weights()?,
    };
    // What F32 allows and another type does not is rows that are no whole blocks.
    match (checked(chosen), weights) {
        (Ok(header), _) => Ok(header),
        (Err(HeaderError::Mismatch { key, found, other, .. }), Some(_)) => {
            let allowed = format!("{chosen} weights need multiples of {other}, --weights f32 takes any size");
            Err(ConvertError::refused(source.path(), key.to_string(), found, allowed))
        }
        (Err(HeaderError::Mismatch { key, found, other, .. }), None) => {
            let note = format!(
                "weights are f32, as with --weights f32: {key} is {found}, {chosen} weights need multiples of {other}"
            );
            source.notes.push(note);
            Ok(exact)
        }
        (Err(error), _) => Err(ConvertError::header(source.path())(error)),
    }
}

/// Where model and tokenizer go: neither name is taken, and they don't share it.
fn destinations(options: &Options, tokenizer: &Path) -> Result<(PathBuf, PathBuf), ConvertError> {
    let model = destination(&options.model, options.force)?;
    let tokenizer = destination(tokenizer, options.force)?;
    if model == tokenizer {
        return Err(ConvertError::SameNames(model));
    }
    Ok((model, tokenizer))
}

/// Refuses outputs that would replace what is read.
fn check_not_input(source: &Source, outputs: &[&Path]) -> Result<(), ConvertError> {
    for output in outputs {
        for path in [output.to_path_buf(), part_of(output)] {
            if source.files.iter().any(|input| file::is_same(&input.file, &path).unwrap_or(false)) {
                return Err(ConvertError::SameFile(path));
            }
        }
    }
    Ok(())
}

/// Every token has a row in the embedding, and every row a token.
fn check_vocabulary(source: &Source) -> Result<(), ConvertError> {
    let (tokens, rows) = (source.vocabulary.tokens.len(), source.header.vocab_size);
    if tokens as u64 != u64::from(rows) {
        let allowed = format!("the embedding has {rows} rows; there must be as many");
        return Err(ConvertError::refused(source.path(), "number of tokens", tokens, allowed));
    }
    Ok(())
}
