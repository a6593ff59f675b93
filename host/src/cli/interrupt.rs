//! Ctrl-C as a flag: work that must tidy up asks for it, a second Ctrl-C ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_interrupt(signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
    // SAFETY: `signal` is async-signal-safe, and the default action needs no handler of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// From now on Ctrl-C and a polite kill set the flag instead of ending the process.
pub fn catch() {
    INTERRUPTED.store(false, Ordering::Relaxed);
    let handler = on_interrupt as extern "C" fn(libc::c_int);
    set(handler as libc::sighandler_t);
}

/// From now on they end the process again.
pub fn release() {
    set(libc::SIG_DFL);
}

/// Whether one of them came since [`catch`].
pub fn is_set() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The flag, for work that looks at it by itself.
pub fn flag() -> &'static AtomicBool {
    &INTERRUPTED
}

fn set(handler: libc::sighandler_t) {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler is the default one, or stores to an atomic and calls `signal`, both async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
}
