//! `dair rm`: removes models that were pulled.

use super::{Failure, list, pull};
use crate::machine::terminal;
use crate::model::store::Store;
use std::io::{self, IsTerminal};

const EXAMPLES: &str = "\
Examples:
  dair rm qwen3_8b_q40
  dair rm --yes llama3_2_1b_instruct_q40 qwen3_0.6b_q40
  dair list                                               what there is to be removed";

/// Remove models that were pulled, and downloads that were not finished.
///
/// What a model was converted to goes, too. Asks before, on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Names as `dair list` shows them
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user: a name that is none, or of nothing here, before anything is removed; one that can't be removed, when the
/// others are.
pub fn run(args: &Args) -> Result<(), Failure> {
    let store = Store::of_user()?;
    let mut names = args.names.iter().map(|text| pull::name(text)).collect::<Result<Vec<_>, _>>()?;
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    let mut found = Vec::new();
    for name in &names {
        let pulled = store.find(name);
        found.push(pulled.ok_or_else(|| format!("there is no model {name} here; dair list shows those that are"))?);
    }
    if !args.yes && io::stdin().is_terminal() && terminal::is_watched() {
        let bytes = found.iter().map(|pulled| pulled.disk_bytes).sum();
        let list: Vec<_> = names.iter().map(ToString::to_string).collect();
        terminal::note_text(format_args!("remove {} ({})? [y/N] ", list.join(", "), list::size(bytes)));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(|error| format!("cannot read the answer: {error}"))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            terminal::note("nothing was removed");
            return Ok(());
        }
    }
    let mut failed = None;
    for name in &names {
        match store.remove(name) {
            Ok(bytes) => terminal::print_line(format_args!("removed {name}: {}", list::size(bytes)))?,
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    terminal::note(format_args!("error: {earlier}"));
                }
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
