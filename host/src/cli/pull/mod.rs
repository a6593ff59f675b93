//! `dair pull`: gets a model by its name or address into the cache, and looks at it.

mod files;
mod what;

use super::{Failure, table};
use crate::client::download::{Client, MAX_CONNECTIONS, Patience, Place};
use crate::client::{ApiKey, Trust};
use crate::machine::terminal;
use crate::model::catalogue;
use crate::model::store::{Held, Name, Record, Store, StoreError};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use what::What;

const EXAMPLES: &str = "\
Examples:
  dair list --catalogue                                  what there is, how large, on which terms
  dair pull smollm2_135m_instruct                        then: dair chat -m smollm2_135m_instruct
  dair pull llama3_1_8b_instruct_q40 --connections 8
  dair pull qwen3_8b_q40 --base http://10.0.0.2:8000     from a mirror with the same paths
  dair pull qwen3_8b_q40 --base file:///media/usb/models
  dair pull https://example.org/models/my.gguf           or a .m file, with its .t file beside it
  dair pull https://example.org/my.m --tokenizer https://example.org/tokens.t --name mine

A model that was not fetched to its end goes on where it was: the same command again. One that is here already is read and compared
with the checksums of its first download; nothing is asked of anybody then, unless a file of it is damaged.";

/// The environment variable with the token of Hugging Face.
const TOKEN: &str = "HF_TOKEN";
/// So often a piece is asked for in a row, and so long after the first failure.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// Get a model into the cache, by its name in the catalogue or its URL: over several connections, from where it was interrupted.
///
/// Nothing else of dair fetches a model.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A name of the catalogue (dair list --catalogue), or the URL of a .m or .gguf file
    #[arg(value_name = "NAME|URL")]
    what: String,
    /// Where the paths of the catalogue are looked for: http://, https:// or file:///FOLDER [default: https://huggingface.co]
    #[arg(long, value_name = "URL")]
    base: Option<Place>,
    /// What a model of a URL is called here [default: the name of its file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// URL of the tokenizer of a .m file [default: the model's, with .t]
    #[arg(long, value_name = "URL")]
    tokenizer: Option<Place>,
    /// Pieces that are fetched at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_CONNECTIONS)))]
    connections: u16,
    /// Seconds without a byte, or with hardly any, after which a piece is asked for again; after 8 times in a row it is given up
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_s: u64,
    /// File with a token, for models that are not given to everybody; sent by https:// and to the host of --base or the URL alone
    /// [default: environment variable HF_TOKEN, which only huggingface.co is shown]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Believe an https:// server with this certificate, or one of this authority (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object instead of text
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let what = What::of(args)?;
    let client = client(args, what.origin())?;
    let store = Store::of_user()?;
    let held = store.lock(&what.name)?;
    let before = held.record();
    if let Some(other) = before.as_ref().filter(|before| what.is_url() && before.source != what.source) {
        return Err(format!(
            "{} is here already, from {}; name this one by --name, or remove that one by dair rm {}",
            what.name, other.source, what.name
        )
        .into());
    }
    let work = Work { args, what: &what, client: &client, held: &held };
    let Done { record, is_new, model } = match work.run(before) {
        Ok(done) => done,
        Err(failure) => {
            if matches!(failure, Failure::Interrupted) && !held.is_empty() && !args.quiet {
                terminal::note(format_args!(
                    "what has come is kept: the same command goes on, dair rm {} removes it",
                    what.name
                ));
            }
            held.abandon();
            return Err(failure);
        }
    };
    if args.json {
        terminal::print_line(to_json(&record, &model, is_new, start.elapsed()))?;
    } else if !args.quiet {
        terminal::print(to_text(&record, is_new, start.elapsed()))?;
    }
    Ok(())
}

/// A pull in progress.
struct Work<'w> {
    args: &'w Args,
    what: &'w What,
    client: &'w Client,
    held: &'w Held,
}

/// What has become of it.
struct Done {
    record: Record,
    /// Whether anything was fetched.
    is_new: bool,
    model: PathBuf,
}

/// How files are asked for.
fn client(args: &Args, origin: &Place) -> Result<Client, Failure> {
    let patience = Patience { silence: Duration::from_secs(args.timeout_s), attempts: ATTEMPTS, pause: PAUSE };
    let trust = Trust::of(&origin.to_string(), origin.is_encrypted(), args.ca.as_deref());
    let trust = trust.map_err(|error| Failure::Usage(error.to_string()))?;
    let token = match &args.token_file {
        Some(_) if !origin.is_encrypted() => {
            return Err(Failure::Usage(format!("--token-file goes with https://, and {origin} is not encrypted")));
        }
        Some(file) => Some(ApiKey::read(file).map_err(|error| error.to_string())?),
        // It was made for one host.
        None if catalogue::BASE.strip_prefix("https://") == origin.host() => {
            ApiKey::of_variable(TOKEN).map_err(|error| error.to_string())?
        }
        None => None,
    };
    Ok(Client { patience, trust, token: token.zip(origin.host().map(str::to_owned)) })
}

fn to_json(record: &Record, model: &Path, is_new: bool, elapsed: Duration) -> Value {
    let files: Vec<_> = record
        .files
        .iter()
        .map(|file| json!({"name": file.name, "bytes": file.bytes, "blake3": file.blake3, "parts": file.parts.len()}))
        .collect();
    json!({
        "name": record.name, "model": model, "source": record.source, "licence": record.licence, "files": files,
        "fetched": is_new, "seconds": elapsed.as_secs_f64(),
    })
}

fn to_text(record: &Record, is_new: bool, elapsed: Duration) -> String {
    let mut rows = Vec::new();
    for file in &record.files {
        rows.push(vec![file.name.clone(), super::list::size(file.bytes), format!("BLAKE3 {}", file.blake3)]);
    }
    let bytes = record.files.iter().map(|file| file.bytes).sum();
    let (name, what) = (&record.name, if is_new { "complete" } else { "was here already, and is whole" });
    let (size, seconds) = (super::list::size(bytes), elapsed.as_secs_f64());
    format!("{}{name}: {what}; {size} in {seconds:.1} s. Next: dair chat -m {name}\n", table::aligned(&rows))
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Name(_) => Self::Usage(error.to_string()),
            error => Self::Line(error.to_string()),
        }
    }
}

/// A name as the user gives it.
///
/// # Errors
/// Where it is none: wrong usage.
pub fn name(text: &str) -> Result<Name, Failure> {
    // The catalogue's names are written with either.
    let text = catalogue::find(text).map_or(text, |entry| entry.name);
    Ok(Name::new(text)?)
}
