//! A terminal that shows the figures until somebody has seen enough.

use super::ask;
use super::figures::Cluster;
use super::view::View;
use crate::cli::{Failure, interrupt};
use crate::client::Server;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// The server is asked this often.
const EVERY: Duration = Duration::from_secs(1);
/// Keys and signals are noticed within so long.
const BLINK: Duration = Duration::from_millis(100);

type News = Result<Cluster, String>;

/// Shows a server until a key or a signal ends it; the terminal is as it was afterwards, after a panic, too.
///
/// # Errors
/// Where the terminal can't be used.
pub fn watch(server: Server, first: Cluster) -> Result<(), Failure> {
    let mut view = View::new(server.url.to_string(), first);
    let news = poll(server)?;
    interrupt::catch();
    let shown = ratatui::try_init().and_then(|mut terminal| show(&mut terminal, &mut view, &news));
    interrupt::release();
    ratatui::try_restore()?;
    Ok(shown?)
}

/// Asks the server in a thread of its own, so that keys need not wait for it.
fn poll(server: Server) -> io::Result<Receiver<News>> {
    let (sender, news) = channel();
    thread::Builder::new().name("poll".into()).spawn(move || {
        loop {
            thread::sleep(EVERY);
            if sender.send(ask(&server).map_err(|error| error.to_string())).is_err() {
                return;
            }
        }
    })?;
    Ok(news)
}

fn show(terminal: &mut DefaultTerminal, view: &mut View, news: &Receiver<News>) -> io::Result<()> {
    let mut is_old = true;
    while !interrupt::is_set() {
        for moment in news.try_iter() {
            match moment {
                Ok(now) => view.show(now),
                Err(why) => view.lose(why),
            }
            is_old = true;
        }
        if std::mem::take(&mut is_old) {
            terminal.draw(|frame| view.draw(frame))?;
        }
        if !event::poll(BLINK)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if ends(key) => return Ok(()),
            Event::Resize(..) => is_old = true,
            _ => {}
        }
    }
    Ok(())
}

fn ends(key: KeyEvent) -> bool {
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_interrupt || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
}
