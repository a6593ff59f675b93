//! The guide on a terminal.

use super::child::{Doing, News};
use super::guide::{Effect, Guide, Message};
use super::state::{State, StateError};
use super::view;
use crate::cli::{Failure, interrupt};
use crate::cluster::discovery::{ClusterName, Discovery};
use crate::net::Address;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Keys, signals and what is printed are noticed within so long.
const BLINK: Duration = Duration::from_millis(50);

type Found = Receiver<Result<Vec<Address>, String>>;

/// Shows the guide until a key or a signal ends it; the terminal is as it was afterwards, after a panic, too.
///
/// # Errors
/// Where the terminal can't be used.
pub fn run(guide: Guide, path: &Path) -> Result<(), Failure> {
    let mut live = Live { kept: None, guide, path, doing: None, found: None };
    // A file that can't be written is known before anything is done.
    live.keep().map_err(|error| Failure::Line(error.to_string()))?;
    interrupt::catch();
    let shown = ratatui::try_init().and_then(|mut terminal| live.show(&mut terminal));
    if let Some(doing) = live.doing.take() {
        doing.end();
    }
    ratatui::try_restore()?;
    interrupt::release();
    live.keep()?;
    Ok(shown?)
}

struct Live<'p> {
    guide: Guide,
    path: &'p Path,
    /// What the file says.
    kept: Option<State>,
    doing: Option<Doing>,
    found: Option<Found>,
}

impl Live<'_> {
    fn show(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        let mut is_old = true;
        while !interrupt::is_set() {
            is_old |= self.hear();
            if let Err(error) = self.keep() {
                self.guide.message = Some(Message::Error(error.to_string()));
            }
            if std::mem::take(&mut is_old) {
                terminal.draw(|frame| view::draw(&self.guide, frame))?;
            }
            if !event::poll(BLINK)? {
                continue;
            }
            is_old = true;
            if let Event::Key(key) = event::read()?
                && !self.follow(key)
            {
                break;
            }
        }
        Ok(())
    }

    /// Does what a key asks for. Returns whether the guide goes on.
    fn follow(&mut self, key: event::KeyEvent) -> bool {
        match self.guide.key(key) {
            Effect::Draw => {}
            Effect::Run(actions) => match Doing::begin(actions, &self.guide.world) {
                Ok(doing) => self.doing = Some(doing),
                Err(error) => self.guide.ended(Err(error.to_string())),
            },
            Effect::Stop => self.doing.iter().for_each(Doing::stop),
            Effect::Discover => self.found = Some(discover()),
            Effect::Quit => return false,
        }
        true
    }

    /// Takes what has come from elsewhere. Returns whether that is to be seen.
    fn hear(&mut self) -> bool {
        let mut is_new = false;
        if let Some(found) = self.found.as_ref().and_then(|found| found.try_recv().ok()) {
            self.guide.discovered(found);
            (self.found, is_new) = (None, true);
        }
        let Some(doing) = &self.doing else { return is_new };
        let mut is_over = false;
        for news in doing.news.try_iter() {
            is_new = true;
            match news {
                News::Text(bytes) => self.guide.hear(&bytes),
                News::Model(file) => self.guide.found_model(file),
                News::Ended(result) => {
                    is_over = true;
                    self.guide.ended(result);
                }
            }
        }
        is_new |= self.guide.tick(doing.start.elapsed());
        if is_over {
            self.doing = None;
        }
        is_new
    }

    /// Writes the state, if it is not what the file says.
    fn keep(&mut self) -> Result<(), StateError> {
        if self.kept.as_ref() != Some(&self.guide.state) {
            // Tried once for each change: the disk may stay full.
            self.kept = Some(self.guide.state.clone());
            self.guide.state.write(self.path)?;
        }
        Ok(())
    }
}

/// Looks for workers, in a thread.
fn discover() -> Found {
    let (sender, found) = channel();
    thread::spawn(move || {
        let found = Discovery::default().find(&ClusterName::default());
        let _ = sender.send(found.map_err(|error| error.to_string()));
    });
    found
}
