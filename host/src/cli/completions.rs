//! `dair completions`: what a shell needs to complete command lines.

use super::{Cli, Failure, worker};
use crate::machine::terminal;
use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

const EXAMPLES: &str = "\
Examples:
  dair completions bash > ~/.local/share/bash-completion/completions/dair
  dair completions bash --of host-worker > ~/.local/share/bash-completion/completions/host-worker
  dair completions zsh > ~/.zfunc/_dair
  dair completions fish > ~/.config/fish/completions/dair.fish";

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: ShellArg,
    /// The program whose command lines are to be completed
    #[arg(long, value_enum, value_name = "PROGRAM", default_value_t)]
    of: Program,
}

/// Shells whose scripts are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShellArg {
    Bash,
    Zsh,
    Fish,
}

/// Programs that read a command line of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// This one
    #[default]
    Dair,
    /// The one that computes for a root
    HostWorker,
}

impl Program {
    /// What it takes.
    pub fn command(self) -> Command {
        match self {
            Self::Dair => Cli::command(),
            Self::HostWorker => worker::Args::command(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Where the script can't be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut command = args.of.command();
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    generate(shell, &mut command, name, &mut script);
    Ok(terminal::write(&script)?)
}
