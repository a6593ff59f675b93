//! What happens when somebody shortens a file that is mapped: reading what is no longer there raises SIGBUS, and nothing that was
//! computed from it can be trusted. The process ends with a line that says so, not with a crash.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

const LINE: &[u8] =
    b"error: the model file was shortened while it was in use; copy or convert it again, and replace files only by renaming\n";

extern "C" fn on_bus_error(_signal: libc::c_int) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    // Several threads read the file; one speaks, the others wait for the end.
    while IS_SAID.swap(true, Ordering::Relaxed) {
        // SAFETY: `pause` is async-signal-safe and touches nothing.
        unsafe { libc::pause() };
    }
    // SAFETY: `write` and `_exit` are async-signal-safe; `LINE` lives for ever. Nobody reads the count: there is nothing else to
    // be done where standard error is closed.
    unsafe {
        libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len());
        libc::_exit(1);
    }
}

/// From now on the process ends in this way.
pub fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let handler = on_bus_error as extern "C" fn(libc::c_int);
        // SAFETY: the handler calls async-signal-safe functions alone, and does not return to where the signal was raised.
        unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
    });
}
