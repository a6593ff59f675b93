//! `dair setup`: a guide from nothing to a first answer, on a terminal or without one.
//!
//! | file | holds |
//! |---|---|
//! | [`step`], [`config`] | the pages, and what they ask for |
//! | [`state`] | what is remembered |
//! | [`action`], [`work`] | what a page does, as one would type it; doing it |
//! | [`guide`] | the pages as keys change them; no terminal, no program is run |
//! | [`view`] | the pages as they are drawn |
//! | [`live`], [`plain`] | all of that together, with a terminal and without one |
//! | [`world`] | what of the machine the others look at |

mod action;
mod config;
mod guide;
mod live;
mod plain;
mod state;
mod step;
mod view;
mod work;
mod world;

use super::Failure;
use crate::cluster::key_file;
use guide::Guide;
use state::State;
use std::env;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use world::{DEPLOY, World};

const EXAMPLES: &str = "\
The guide shows each command that it runs; what was done is kept, and the next start goes on there.

Keys of a configuration, all with texts as values: nodes, nodes_file, model, key, deploy, remote_dir, bundles, question.

Examples:
  dair setup
  dair setup --dry-run                            print the commands and run none
  dair setup --yes --config cluster.json          without a terminal: all steps that are left
  dair setup --yes --config cluster.json --again";

/// Set up nodes, model, key and workers, up to a first answer: a guide on the terminal that can be left and gone on with.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ask nothing: do all steps that are left, and end at the first that fails
    #[arg(short, long)]
    yes: bool,
    /// Take values from this file, an object of JSON
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do steps again that were done
    #[arg(long, requires = "yes")]
    again: bool,
    /// Print the commands of all steps and run none
    #[arg(long, conflicts_with = "again")]
    dry_run: bool,
    /// Where to keep what was done [default: ~/.config/dair/setup.json]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Folder with deploy_workers.sh [default: where it is installed beside dair, or in the repository of this program]
    #[arg(long, value_name = "FOLDER")]
    scripts: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let is_seen = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !(args.yes || args.dry_run || is_seen) {
        return Err(Failure::Usage(
            "the guide needs a terminal; without one, --yes does all steps, and --dry-run prints them".into(),
        ));
    }
    let world = this_machine(args.scripts.as_deref())?;
    let path = args.state.clone().unwrap_or_else(|| world.config.join("setup.json"));
    let found = State::read(&path, &world)?;
    let is_resumed = found.is_some();
    let mut state = found.unwrap_or_else(|| State::new(&world));
    if let Some(file) = &args.config {
        state.take_config(file, &world)?;
    }
    if args.again {
        state.completed.clear();
    }
    if args.dry_run {
        plain::print(&state, &world)
    } else if args.yes {
        plain::run(&mut state, &path, &world)
    } else {
        live::run(Guide::new(state, world, is_resumed), &path)
    }
}

/// This machine, with scripts in `scripts` if they are said to be there.
fn this_machine(scripts: Option<&Path>) -> Result<World, Failure> {
    let exists: fn(&Path) -> bool = |path| path.exists();
    let folder = env::current_dir().map_err(|error| format!("cannot say which folder this is: {error}"))?;
    let scripts = match scripts {
        Some(named) if !exists(&named.join(DEPLOY)) => {
            return Err(Failure::Usage(format!("--scripts: there is no {DEPLOY} in {}", named.display())));
        }
        Some(named) => Some(folder.join(named)),
        None => env::current_exe().ok().and_then(|program| world::scripts_of(&program, exists)),
    };
    let config = key_file::of_user().map_err(|_| "this user has no folder for a state: set HOME".to_owned())?;
    let config = config.parent().map(Path::to_owned).unwrap_or_default();
    let home = etcetera::home_dir().map_err(|error| error.to_string())?;
    Ok(World { home, folder, config, scripts, exists })
}
