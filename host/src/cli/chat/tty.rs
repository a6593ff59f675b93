//! The terminal between questions: what is typed while the model answers waits, whole and unseen, for the next one.
//!
//! Left alone, a terminal hands over lines, echoes them into the answer, and cuts what is longer than 4,095 bytes.

use crate::cli::interrupt;
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use std::fs::File;
use std::io::{self, Read, Stdin};
use std::os::fd::AsFd;

/// What is thrown away at once after broken input; a paste of any size ends.
const DRAINED_BYTES: usize = 1 << 16;

/// The terminal on standard input, given back as it was found.
#[derive(Debug)]
pub struct Tty {
    found: Termios,
    quiet: Termios,
}

impl Tty {
    /// The terminal, hushed; `None` where standard input is none.
    pub fn take() -> Option<Self> {
        let found = termios::tcgetattr(io::stdin()).ok()?;
        let mut quiet = found.clone();
        // Ctrl-C stays a signal.
        quiet.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        reading(&mut quiet, 1, 0);
        // The one signal of the keyboard that would leave the terminal like this.
        quiet.control_chars[SpecialCharacterIndices::VQUIT as usize] = libc::_POSIX_VDISABLE;
        interrupt::give_back_terminal(found.clone().into());
        let terminal = Self { found, quiet };
        terminal.hush();
        Some(terminal)
    }

    /// Keeps what is typed for later.
    fn hush(&self) {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.quiet);
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.found);
    }
}

/// From now on reading waits for a key.
pub fn wait_for_keys() {
    set_reading(1, 0);
}

/// From now on reading reports an end of input where nothing comes within `tenths` of a second.
pub fn end_where_nothing_comes(tenths: u8) {
    set_reading(0, tenths);
}

/// A terminal that refuses this has gone, which the next read says better.
fn set_reading(least_bytes: u8, tenths: u8) {
    if let Ok(mut mode) = termios::tcgetattr(io::stdin()) {
        reading(&mut mode, least_bytes, tenths);
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &mode);
    }
}

fn reading(mode: &mut Termios, least_bytes: u8, tenths: u8) {
    mode.control_chars[SpecialCharacterIndices::VMIN as usize] = least_bytes;
    mode.control_chars[SpecialCharacterIndices::VTIME as usize] = tenths;
}

impl Tty {
    /// Throws away what is on its way.
    pub fn drain(&self) {
        end_where_nothing_comes(1);
        // Not by way of `Stdin`, whose buffer would keep what it has read.
        let owned = |stdin: Stdin| stdin.as_fd().try_clone_to_owned();
        if let Ok(terminal) = owned(io::stdin()) {
            let mut terminal = File::from(terminal);
            let mut bytes = vec![0; DRAINED_BYTES];
            while terminal.read(&mut bytes).is_ok_and(|read| read > 0) {}
        }
        self.hush();
    }
}
