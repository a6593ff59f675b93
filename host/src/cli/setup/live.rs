//! The guide on a terminal. Steps are done below what stood there before, so that they may ask, and their words stay.

use super::guide::{Effect, Guide, Message};
use super::state::State;
use super::view;
use super::work;
use crate::cli::{Failure, interrupt};
use crate::cluster::discovery::{ClusterName, Discovery};
use crate::machine::terminal::{note, print_line};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Signals are noticed within so long.
const BLINK: Duration = Duration::from_millis(50);

/// Shows the guide until a key or a signal ends it; the terminal is as it was afterwards, after a panic, too.
///
/// # Errors
/// Where the terminal or the state file can't be used, and where somebody interrupts a step.
pub fn run(mut guide: Guide, path: &Path) -> Result<(), Failure> {
    // A file that can't be written is known before anything is done.
    guide.state.write(path)?;
    loop {
        interrupt::catch();
        let shown = ratatui::try_init().and_then(|mut terminal| {
            // Several lines that are pasted are one value.
            execute!(io::stdout(), EnableBracketedPaste)?;
            show(&mut guide, path, &mut terminal)
        });
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        ratatui::try_restore()?;
        interrupt::release();
        guide.state.write(path)?;
        match shown? {
            Effect::Run => do_step(&mut guide, path)?,
            _ => return Ok(()),
        }
    }
}

/// Draws, and follows keys until one asks for something that needs the terminal, or for the end.
fn show(guide: &mut Guide, path: &Path, terminal: &mut DefaultTerminal) -> io::Result<Effect> {
    let mut kept: Option<State> = None;
    while !interrupt::is_set() {
        if kept.as_ref() != Some(&guide.state) {
            // Tried once for each change: the disk may stay full.
            kept = Some(guide.state.clone());
            if let Err(line) = guide.state.write(path) {
                guide.message = Some(Message::Error(line));
            }
        }
        terminal.draw(|frame| view::draw(guide, frame))?;
        while !event::poll(BLINK)? && !interrupt::is_set() {}
        if interrupt::is_set() {
            break;
        }
        match guide.take(&event::read()?) {
            Effect::Draw => {}
            Effect::Discover => {
                guide.message = Some(Message::Note("Looking for workers ...".into()));
                terminal.draw(|frame| view::draw(guide, frame))?;
                let found = Discovery::default().find(&ClusterName::default());
                guide.discovered(found.map_err(|error| error.to_string()));
            }
            effect => return Ok(effect),
        }
    }
    Ok(Effect::Quit)
}

/// Does the step of the page, and waits until somebody has read what it said.
fn do_step(guide: &mut Guide, path: &Path) -> Result<(), Failure> {
    let step = guide.step();
    let failure = match work::do_step(step, &mut guide.state, path, &guide.world) {
        Ok(()) => None,
        Err(Failure::Interrupted) => return Err(Failure::Interrupted),
        Err(failure) => Some(failure.to_string()),
    };
    match &failure {
        Some(line) => note(format_args!("error: {line}")),
        None if step.next().is_none() => work::print_next(&guide.state, &guide.world)?,
        None => {}
    }
    print_line("\nEnter goes back to the guide.")?;
    io::stdin().read_line(&mut String::new())?;
    guide.ended(failure);
    Ok(())
}
