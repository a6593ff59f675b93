//! `dair setup`: a guide from nothing to a first answer, on a terminal or without one.
//!
//! | file | holds |
//! |---|---|
//! | [`step`], [`config`] | the pages, and what they ask for |
//! | [`action`] | what a page runs, as one would type it |
//! | [`state`] | what is remembered |
//! | [`guide`], [`output`] | the pages as keys and commands change them; no terminal, no child |
//! | [`view`] | the pages as they are drawn |
//! | [`child`] | commands that are run |
//! | [`live`], [`plain`] | all of that together, with a terminal and without one |
//! | [`world`] | what of the machine the others look at |

mod action;
mod child;
mod config;
mod guide;
mod live;
mod output;
mod plain;
mod state;
mod step;
mod view;
mod world;

use super::Failure;
use crate::cluster::key_file;
use crate::machine::file;
use config::Config;
use guide::Guide;
use serde_json::Value;
use state::State;
pub use state::StateError;
use std::env;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use step::Step;
use world::{DEPLOY, World};

/// Largest configuration that is read.
const CONFIG_MAX: u64 = 1 << 20;

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
    let world = world(args.scripts.as_deref())?;
    let path = args.state.clone().unwrap_or_else(|| world.config.join("setup.json"));
    let found = State::read(&path, &world)?;
    let is_resumed = found.is_some();
    let mut state = found.unwrap_or_else(|| State::new(&world));
    if let Some(file) = &args.config {
        take_config(&mut state, file, &world)?;
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
fn world(scripts: Option<&Path>) -> Result<World, Failure> {
    let exists: fn(&Path) -> bool = |path| path.exists();
    let folder = env::current_dir().map_err(|error| format!("cannot say which folder this is: {error}"))?;
    let scripts = match scripts {
        Some(named) if !exists(&named.join(DEPLOY)) => {
            return Err(format!("--scripts: there is no {DEPLOY} in {}", named.display()).into());
        }
        Some(named) => Some(folder.join(named)),
        None => env::current_exe().ok().and_then(|program| world::scripts_of(&program, exists)),
    };
    let config = key_file::of_user().map_err(|_| "this user has no folder for a state: set HOME".to_owned())?;
    let config = config.parent().map(Path::to_owned).unwrap_or_default();
    let home = etcetera::home_dir().map_err(|error| error.to_string())?;
    Ok(World { home, folder, config, scripts, exists })
}

/// Takes the values of a file into `state`.
fn take_config(state: &mut State, path: &Path, world: &World) -> Result<(), Failure> {
    let failed = |what: String| format!("cannot use the configuration {}: {what}", path.display());
    let mut text = Vec::new();
    let file = file::open_regular(path).map_err(|error| failed(error.to_string()))?;
    file.take(CONFIG_MAX + 1).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > CONFIG_MAX {
        return Err(failed(format!("it has more than {CONFIG_MAX} bytes")).into());
    }
    let object: Value = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    let object = object.as_object().ok_or_else(|| failed("an object of JSON is needed".into()))?;
    Config::each(object, |field, text| {
        if state.config.set(field, text, world)? {
            let step = Step::ALL.into_iter().find(|step| step.fields().contains(&field));
            step.into_iter().for_each(|step| state.forget(step));
        }
        Ok(())
    })
    .map_err(failed)?;
    Ok(())
}
