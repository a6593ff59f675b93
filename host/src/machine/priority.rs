//! How urgent a thread is.

/// Lets the calling thread run when hardly anybody else wants the processor or the disk (Linux; elsewhere it stays as it is).
pub fn lower() {
    #[cfg(target_os = "linux")]
    {
        /// `IOPRIO_WHO_PROCESS`, and `IOPRIO_CLASS_IDLE` where it stands in a priority: `linux/ioprio.h`.
        const ONE_THREAD: libc::c_int = 1;
        const IDLE: libc::c_int = 3 << 13;
        const NICEST: libc::c_int = 19;
        // SAFETY: sets a number of the calling thread, which is what 0 stands for. Where it is refused, nothing changes.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
        // SAFETY: as before; the call has no wrapper.
        unsafe { libc::syscall(libc::SYS_ioprio_set, ONE_THREAD, 0, IDLE) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_lowered_and_the_others_are_not() {
        // SAFETY: reads a number of the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let lowered = std::thread::spawn(move || {
            lower();
            nice()
        });
        assert_eq!((lowered.join().unwrap(), nice()), (19, before));
    }
}
