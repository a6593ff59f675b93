//! `dair key`: the key by which the nodes of a cluster know each other.

use super::{Failure, KeyArgs};
use crate::cluster::key_file;
use crate::machine::terminal;
use clap::Subcommand;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dair key new                                    ~/.config/dair/key, where dair and host-worker look
  dair key new cluster.key
  dair key show                                   which key is in use here, and where it is

A new key goes to the other nodes by a way that is safe already: ssh pi-1 'umask 077; mkdir -p ~/.config/dair; cat > ~/.config/dair/key' \
< ~/.config/dair/key

To replace a key while nodes work: write the new one below the old one in the file of every node and start its worker again; then
move it above the old one; then delete the old one.";

/// Make the key of a cluster, or say which one is in use: links between nodes that have one are encrypted, and nobody else is let in.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new key, in a new file that nobody else may read
    New {
        /// The file [default: ~/.config/dair/key]
        file: Option<PathBuf>,
    },
    /// Say where this machine has its keys, and their fingerprints; the keys themselves are not shown
    Show {
        #[command(flatten)]
        key: KeyArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// One line for the user: a file that can't be made or used, no key.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::New { file } => {
            let path = file.clone().map_or_else(key_file::of_user, Ok)?;
            let key = key_file::create(&path)?;
            Ok(terminal::print_line(format_args!("{}  {}", key.fingerprint(), path.display()))?)
        }
        Action::Show { key } => {
            let found = key.find()?;
            let found = found.ok_or_else(|| "there is no key here; dair key new makes one".to_owned())?;
            for (key, role) in found.keys.iter().zip(["calls and is accepted", "is accepted"]) {
                terminal::print_line(format_args!("{}  {}  {role}", key.fingerprint(), found.place))?;
            }
            Ok(())
        }
    }
}
