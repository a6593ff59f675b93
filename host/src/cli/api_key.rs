//! `dair api-key`: makes a key for clients of a server.

use super::Failure;
use crate::machine::{file, terminal};
use crate::serve::http::new_key;
use std::path::PathBuf;

const EXAMPLES: &str = "\
The key is printed once; the file gets its hash.

Examples:
  dair api-key ann --file api-keys
  dair serve --model smollm2.m --api-keys api-keys";

/// Make a key for a client of `dair serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Whose it is: what the server calls the client
    name: String,
    /// The file to which the name and the key's hash are added
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (key, line) = new_key(&args.name)?;
    file::append_private(&args.file, &format!("{line}\n"))
        .map_err(|error| format!("cannot write to {}: {error}", args.file.display()))?;
    Ok(terminal::print_line(key)?)
}
