//! The one place that writes to standard output and standard error, for both binaries.
//!
//! No write can end a program here: `println!` panics where the reader went away or the disk is full. Standard output
//! carries results, so a command hears of what did not arrive; standard error carries words for people, and where
//! nobody can read them there is nobody to tell.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a line of standard output, a terminal, has begun and not ended.
static IS_WITHIN_LINE: AtomicBool = AtomicBool::new(false);

/// Why standard output did not take a text.
#[derive(Debug)]
pub enum Unwritten {
    /// Its reader went away, as `head` does when it has seen enough.
    ReaderGone,
    /// The system refuses: a full disk, mostly.
    Failed(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::ReaderGone } else { Self::Failed(error) }
    }
}

/// Writes `text` to standard output, all of it before this returns.
///
/// # Errors
/// Where it did not arrive.
pub fn print(text: impl Display) -> Result<(), Unwritten> {
    // One write: lines of several threads do not mix.
    write(text.to_string().as_bytes())
}

/// Writes bytes, which need not be text, to standard output.
///
/// # Errors
/// As [`print()`].
pub fn write(bytes: &[u8]) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    if let Some(last) = bytes.last() {
        IS_WITHIN_LINE.store(*last != b'\n' && out.is_terminal(), Ordering::Relaxed);
    }
    Ok(out.flush()?)
}

/// Writes `line` and a line end to standard output.
///
/// # Errors
/// As [`print()`].
pub fn print_line(line: impl Display) -> Result<(), Unwritten> {
    print(format_args!("{line}\n"))
}

/// Writes `line` and a line end to standard error, as far as anybody can read it. On a terminal it begins a new line.
pub fn note(line: impl Display) {
    let ends_another = is_watched() && IS_WITHIN_LINE.swap(false, Ordering::Relaxed);
    note_text(format_args!("{}{line}\n", if ends_another { "\n" } else { "" }));
}

/// Writes `text` to standard error without ending the line.
pub fn note_text(text: impl Display) {
    let text = text.to_string();
    // There is no place left to complain to.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether people watch standard error.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_disk() {
        assert!(matches!(Unwritten::from(io::Error::from(io::ErrorKind::BrokenPipe)), Unwritten::ReaderGone));
        assert!(matches!(Unwritten::from(io::Error::from(io::ErrorKind::StorageFull)), Unwritten::Failed(_)));
    }
}
