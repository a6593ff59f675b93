//! `dair man`: manual pages of both programs and of every command, made of what `--help` says.

use super::Failure;
use super::completions::Program;
use crate::machine::terminal;
use clap::{Command, ValueEnum};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  dair man ~/.local/share/man/man1
  dair man pages && man pages/dair-chat.1";

/// The section of programs.
const SECTION: &str = "1";
/// The line of a help text behind which its examples stand.
const EXAMPLES_TITLE: &str = "Examples:";

/// Write man pages of dair, of each of its commands, and of host-worker.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to; made if it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Names a file that can't be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let folder = &args.folder;
    fs::create_dir_all(folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let mut count = 0;
    for program in Program::value_variants() {
        // Nobody reads a manual to learn of `help`.
        let mut command = program.command().disable_help_subcommand(true);
        command.build();
        count += write_all(&command, None, folder)?;
    }
    Ok(terminal::print_line(format_args!("{count} pages in {}", folder.display()))?)
}

/// Writes the pages of a command and of those below it; returns how many.
fn write_all(command: &Command, above: Option<&str>, folder: &Path) -> Result<usize, Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.{SECTION}"));
    let page = page(command, name, above).and_then(|page| fs::write(&path, page));
    page.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let parts = command.get_subcommands().filter(|part| part.get_name() != "help");
    parts.map(|part| write_all(part, Some(name), folder)).sum::<Result<usize, _>>().map(|count| count + 1)
}

/// The page of a command called `name`, one of those of the command `above`.
fn page(command: &Command, name: &str, above: Option<&str>) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).section(SECTION);
    // Without a date, so that a version's pages are the same whenever they are made; clap_mangen leaves the place of an empty one out.
    let (title, version) = (name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let mut page = format!(".TH {title} {SECTION} \"\" \"dair {version}\" dair\n").into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|part| part.get_name() != "help") {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    if let Some(text) = command.get_after_help() {
        add_text(&mut roff, &text.to_string());
    }
    let other = if name == "dair" { "host-worker" } else { above.unwrap_or("dair") };
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold(other), roman(format!("({SECTION})"))]);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// Adds what stands below the options: its paragraphs are filled, and lines that are set in stay as they are.
fn add_text(roff: &mut Roff, text: &str) {
    if !text.starts_with(EXAMPLES_TITLE) {
        roff.control("SH", ["NOTES"]);
    }
    let (mut is_literal, mut has_gap) = (false, false);
    for line in text.lines() {
        let was_literal = std::mem::replace(&mut is_literal, line.starts_with("  "));
        if was_literal != is_literal {
            roff.control(if is_literal { "nf" } else { "fi" }, []);
        }
        if line == EXAMPLES_TITLE {
            roff.control("SH", ["EXAMPLES"]);
        } else if !line.is_empty() {
            if !is_literal && (was_literal || has_gap) {
                roff.control("PP", []);
            }
            roff.text([roman(line)]);
        }
        has_gap = line.is_empty();
    }
    if is_literal {
        roff.control("fi", []);
    }
}
