//! Signals: Ctrl-C and a polite kill, and a mapped file that is cut while it is read.
//!
//! Ctrl-C ends the process wherever it stands, at once: waiting for a worker, sending weights, computing a prompt. The
//! system closes what is open, and nothing else needs to be tidied up. Work that must tidy up, or whose first part the
//! user has seen, is between [`catch`] and [`release`]: there Ctrl-C sets a flag, and only a second one ends the process.

use crate::machine::terminal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a command that the user interrupted, as shells know it: 128 and the number of SIGINT.
pub const EXIT_CODE: u8 = 130;
/// What is said then.
pub const LINE: &str = "interrupted";

/// Whether somebody asks for the flag.
static CAUGHT: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether standard error is a terminal, where a progress line may stand.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Prepares the process; without this, signals end it as the system does.
pub fn install() {
    WATCHED.store(terminal::is_watched(), Ordering::Relaxed);
    let interrupt = on_interrupt as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        set(signal, interrupt as libc::sighandler_t);
    }
    let cut = on_cut as extern "C" fn(libc::c_int);
    set(libc::SIGBUS, cut as libc::sighandler_t);
}

/// From now on Ctrl-C and a polite kill set the flag.
pub fn catch() {
    INTERRUPTED.store(false, Ordering::Relaxed);
    CAUGHT.store(true, Ordering::Relaxed);
}

/// From now on they end the process again.
pub fn release() {
    CAUGHT.store(false, Ordering::Relaxed);
}

/// Whether one of them came since [`catch`].
pub fn is_set() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

extern "C" fn on_interrupt(_: libc::c_int) {
    let is_second = INTERRUPTED.swap(true, Ordering::Relaxed);
    if is_second || !CAUGHT.load(Ordering::Relaxed) {
        end(b"interrupted\n", EXIT_CODE);
    }
}

/// A page of a mapped file that the file no longer has. Every file that this program maps is a model's.
extern "C" fn on_cut(_: libc::c_int) {
    let line =
        b"error: the model file became shorter while it was read, or its disk failed; leave it alone until this ends\n";
    end(line, 1);
}

/// Writes a line to standard error and ends the process. On a terminal it takes the place of a progress line and of the
/// ^C that stands there.
fn end(line: &[u8], code: u8) -> ! {
    let clear: &[u8] = if WATCHED.load(Ordering::Relaxed) { b"\r\x1b[K" } else { b"" };
    for bytes in [clear, line] {
        // SAFETY: a signal handler may call `write`, and the bytes are constants. Nobody is left to be told where it fails.
        unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    }
    // SAFETY: a signal handler may call `_exit`, which runs nothing of ours.
    unsafe { libc::_exit(code.into()) }
}

fn set(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: all-zero is a valid `sigaction`; the handlers store to atomics or end the process by `end`, which is
    // async-signal-safe, on the stack for signals where the thread has one; reads go on after them.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}
