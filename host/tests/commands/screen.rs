//! A pseudo-terminal with `dair` on it, as a person has it before them.

use crate::run::{signal, without_key};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The size that terminals have unless somebody changes it.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// What the program on the terminal has written.
type Written = Arc<(Mutex<Vec<u8>>, Condvar)>;

/// A terminal and the program on it; ends it when it is dropped.
pub struct Screen {
    process: Child,
    keyboard: File,
    written: Written,
    /// Ends when the last program on the terminal has.
    reader: Option<JoinHandle<()>>,
    seen: usize,
}

impl Screen {
    /// Runs `dair` on a terminal of its own; files of its own go to the folder `state`.
    pub fn new(state: &str, args: &[&str]) -> Self {
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(Some(&size), None).expect("a pseudo-terminal");
        let side = || terminal.slave.try_clone().expect("a file descriptor");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dair"));
        without_key(&mut command)
            .args(args)
            .envs([("XDG_STATE_HOME", state), ("TERM", "xterm")])
            .env_remove("NO_COLOR");
        command.stdin(side()).stdout(side()).stderr(side());
        // SAFETY: between fork and exec only two system calls are made, both async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                // The terminal of a session of its own: else its Ctrl-C reaches nobody.
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY as _, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let process = command.spawn().expect("it starts");
        // The command holds copies: while one is open, reading does not end.
        drop((command, terminal.slave));
        let keyboard = File::from(terminal.master);
        let written = Written::default();
        let reader = Some(watch(keyboard.try_clone().expect("a file descriptor"), Arc::clone(&written)));
        Self { process, keyboard, written, reader, seen: 0 }
    }

    /// Types or pastes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.keyboard.write_all(bytes.as_ref()).expect("the terminal takes it");
    }

    /// Sends a signal to the program.
    pub fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// Waits until `text` is written, behind what earlier calls have waited for.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn wait_for(&mut self, text: &str) {
        let (start, text) = (self.seen, text.as_bytes());
        let find = |written: &[u8]| written[start..].windows(text.len()).position(|part| part == text);
        let end = self.wait(|written| find(written).map(|at| start + at + text.len()));
        self.seen = end.unwrap_or_else(|| panic!("{:?} did not come: {}", String::from_utf8_lossy(text), self.text()));
    }

    /// Waits until `text` is on the screen, wherever and however it got there. Programs that draw change only what differs, so what they
    /// write need not have it in one piece.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn wait_to_show(&mut self, text: &str) {
        let shown = self.wait(|written| shown(written).contains(text).then_some(()));
        assert!(shown.is_some(), "{text:?} is not shown:\n{}", self.shown());
    }

    /// What is on the screen.
    pub fn shown(&self) -> String {
        shown(&self.written.0.lock().expect("the reader does not panic"))
    }

    /// Waits until `count` more bytes are written.
    ///
    /// # Panics
    /// If they do not come in time.
    pub fn wait_for_bytes(&mut self, count: usize) {
        let end = self.seen + count;
        let reached = self.wait(|written| (written.len() >= end).then_some(end));
        self.seen = reached.unwrap_or_else(|| panic!("not {count} bytes: {}", self.text()));
    }

    /// Waits for the end, and until all that was written before it is read, and returns the exit code.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn end(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the reader does not panic");
                }
                return status.code();
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("it did not end: {}", self.text());
    }

    /// Waits until the program has taken the terminal: before, the system cuts long lines.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_until_hushed(&self) {
        let start = Instant::now();
        while self.is_as_found() {
            assert!(start.elapsed() < DEADLINE, "the terminal is as it was: {}", self.text());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it waits for lines and shows what is typed, as shells expect it to be left.
    pub fn is_as_found(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        let mode = tcgetattr(&self.keyboard).expect("a terminal");
        mode.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    /// All that was written.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.0.lock().expect("the reader does not panic")).into_owned()
    }

    fn wait<T>(&self, ready: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let (bytes, more) = &*self.written;
        let start = Instant::now();
        let mut bytes = bytes.lock().expect("the reader does not panic");
        loop {
            if let Some(result) = ready(&bytes) {
                return Some(result);
            }
            let left = DEADLINE.checked_sub(start.elapsed())?;
            bytes = more.wait_timeout(bytes, left).expect("the reader does not panic").0;
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After `end` there is nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a terminal shows that has got these bytes.
fn shown(written: &[u8]) -> String {
    let size = |cells| NonZero::new(cells).expect("more than none");
    let mut terminal = vt100::Parser::new(size(ROWS), size(COLUMNS), 0);
    terminal.process(written);
    terminal.screen().contents()
}

fn watch(mut screen: File, written: Written) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        // Reading fails when the last program on the terminal has ended.
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            written.0.lock().expect("waiting does not panic while it holds this").extend_from_slice(&bytes[..count]);
            written.1.notify_all();
        }
    })
}
