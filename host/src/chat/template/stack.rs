//! Room for recursion: compiled expressions and values may be nested as deeply as a template's limits allow.

use std::io;
use std::thread;

/// Bytes of stack. Pages that are not touched take no memory. With the fuel that a rendering has, lists can be nested half a
/// million deep; printing them takes 450 bytes a level (x86-64, debug build).
const STACK_BYTES: usize = if cfg!(target_pointer_width = "64") { 256 << 20 } else { 128 << 20 };

/// Runs `body` on a stack that it can't overflow.
///
/// # Errors
/// Where the system has no such stack.
pub fn with_room<R: Send>(body: impl FnOnce() -> R + Send) -> io::Result<R> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, body)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
