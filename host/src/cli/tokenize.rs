//! `dair tokenize` and `dair detokenize`: what a text is to a model, and what tokens mean.

use super::Failure;
use super::model_files::ModelFiles;
use crate::chat::tokenizer::{Tokenizer, TokenizerBytes};
use crate::machine::terminal;
use dair_core::format::tokenizer::Kind;
use dair_core::text::EncodeOptions;
use serde_json::json;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

const TOKENIZE_EXAMPLES: &str = "\
Examples:
  dair tokenize --model smollm2.m 'Hello, world'
  dair tokenize --model smollm2.m --file story.txt --count
  dair tokenize --tokenizer smollm2.t --json 'Hello' | jq .ids";

const DETOKENIZE_EXAMPLES: &str = "\
Examples:
  dair detokenize --model smollm2.m 19556 28 905
  dair tokenize --model smollm2.m --json 'Hello' | jq '.ids[]' | dair detokenize --model smollm2.m";

/// Which tokenizer.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct TokenizerArgs {
    /// Model file (.m), whose tokenizer stands beside it with .t; or the name of one that dair pull got, a GGUF file or a Hugging Face
    /// folder
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Tokenizer file (.t)
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl TokenizerArgs {
    fn open(&self, quiet: bool) -> Result<TokenizerBytes, Failure> {
        let files = match (&self.tokenizer, &self.model) {
            (None, Some(model)) => Some(ModelFiles::of(model, quiet)?),
            _ => None,
        };
        let beside = files.as_ref().map(|files| files.tokenizer.clone());
        let path = self.tokenizer.clone().or(beside).unwrap_or_default();
        Ok(TokenizerBytes::open(&path)?)
    }
}

/// Show the tokens of a text: ids, pieces, how many.
#[derive(Debug, clap::Args)]
#[command(after_help = TOKENIZE_EXAMPLES)]
pub struct TokenizeArgs {
    /// The text; without it, and without --file, standard input
    #[arg(value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    text: Option<String>,
    /// File with the text, - for standard input; need not be UTF-8
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// Leave out what begins and ends a text, such as BOS
    #[arg(long)]
    bare: bool,
    /// Take control tokens that the text spells for text, as in the messages of a chat
    #[arg(long)]
    literal: bool,
    /// The input is several texts with zero bytes between them; each gets an object, a number or a list of its own
    #[arg(short = '0', long)]
    null: bool,
    /// Print the number of tokens and nothing else
    #[arg(long, conflicts_with = "json")]
    count: bool,
    /// Print one JSON object: ids, pieces as text and as hexadecimal bytes, count
    #[arg(long)]
    json: bool,
}

/// Show the text of tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = DETOKENIZE_EXAMPLES)]
pub struct DetokenizeArgs {
    /// Ids, also with commas between them; without any, standard input
    #[arg(value_name = "ID", value_delimiter = ',')]
    ids: Vec<u32>,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// Print one JSON object: ids, pieces as text and as hexadecimal bytes, count, text
    #[arg(long)]
    json: bool,
}

/// Runs `dair tokenize`.
///
/// # Errors
/// One line for the user.
pub fn tokenize(args: &TokenizeArgs) -> Result<(), Failure> {
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => read(path)?,
        (None, None) => read(Path::new("-"))?,
    };
    let mut bytes = args.tokenizer.open(args.json)?;
    let tokenizer = bytes.tokenizer(None)?;
    let mut out = String::new();
    let texts: Vec<&[u8]> = if args.null { text.split(|byte| *byte == 0).collect() } else { vec![&text] };
    for (index, text) in texts.into_iter().enumerate() {
        let ids = tokenizer.encode(text, EncodeOptions { start: !args.bare, special: !args.literal })?;
        if index > 0 && !args.json && !args.count {
            out.push('\n');
        }
        // Writing to a String does not fail.
        let _ = print(args, &tokenizer, &ids, &mut out);
        if out.len() > 1 << 20 {
            terminal::print(std::mem::take(&mut out))?;
        }
    }
    Ok(terminal::print(out)?)
}

fn print(args: &TokenizeArgs, tokenizer: &Tokenizer<'_>, ids: &[u32], out: &mut String) -> std::fmt::Result {
    if args.count {
        writeln!(out, "{}", ids.len())?;
    } else if args.json {
        writeln!(out, "{}", to_json(tokenizer, ids))?;
    } else {
        for id in ids {
            writeln!(out, "{id:>7}  {}", shown(tokenizer, *id))?;
        }
    }
    Ok(())
}

/// Runs `dair detokenize`.
///
/// # Errors
/// One line for the user.
pub fn detokenize(args: &DetokenizeArgs) -> Result<(), Failure> {
    let ids = if args.ids.is_empty() { parse_ids(&read(Path::new("-"))?)? } else { args.ids.clone() };
    let mut bytes = args.tokenizer.open(args.json)?;
    let tokenizer = bytes.tokenizer(None)?;
    let vocab_size = tokenizer.vocabulary().vocab_size();
    if let Some(id) = ids.iter().find(|id| **id >= vocab_size) {
        return Err(format!("token {id}: the vocabulary has ids from 0 to {}", vocab_size - 1).into());
    }
    if args.json {
        let mut object = to_json(&tokenizer, &ids);
        object["text"] = tokenizer.decode_text(&ids).into();
        Ok(terminal::print_line(object)?)
    } else {
        Ok(terminal::write(&tokenizer.decode(&ids))?)
    }
}

fn to_json(tokenizer: &Tokenizer<'_>, ids: &[u32]) -> serde_json::Value {
    let bytes = |id: &u32| tokenizer.vocabulary().bytes(*id).unwrap_or_default();
    let pieces: Vec<_> = ids.iter().map(|id| String::from_utf8_lossy(bytes(id))).collect();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let hex: Vec<_> = ids.iter().map(|id| hex(bytes(id))).collect();
    json!({ "ids": ids, "pieces": pieces, "bytes": hex, "count": ids.len() })
}

/// A piece in quotes, so that blanks are seen; with its kind, where it is not part of a text.
fn shown(tokenizer: &Tokenizer<'_>, id: u32) -> String {
    let bytes = tokenizer.vocabulary().bytes(id).unwrap_or_default();
    let piece = match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => bytes.iter().map(|byte| format!("<{byte:02x}>")).collect(),
    };
    let kind = tokenizer.pipeline().and_then(|pipeline| Kind::of(pipeline.kinds[id as usize]));
    let note = match kind {
        Some(Kind::Control) => "  control",
        Some(Kind::Unknown) => "  unknown",
        _ => "",
    };
    piece + note
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // One byte more than can be encoded, so that the encoder says what is wrong.
    let limit = dair_core::text::MAX_TEXT_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    result.map(|_| bytes).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Numbers with blanks, line ends, commas or brackets between them.
fn parse_ids(text: &[u8]) -> Result<Vec<u32>, String> {
    let text = String::from_utf8_lossy(text);
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']')).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| format!("{word:?} is no token id; allowed are whole numbers"))).collect()
}
