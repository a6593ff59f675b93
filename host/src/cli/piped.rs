//! What another program or the shell hands to a command on standard input, when the command has a prompt already.
//!
//! Nothing is read from a terminal or a device: who sits there was not asked. A file is read unless somebody has begun
//! to read it, as the `read` of a shell's loop does, which would miss the rest. A pipe is read to its end once something
//! comes; one that stays silent for a while belongs to somebody else, a service manager for one, who never writes to it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// What standard input holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Piped {
    /// Nothing, and nothing will come.
    Nothing,
    /// An open pipe through which nothing came in time.
    Silence,
    /// All that came; not empty.
    Text(Vec<u8>),
}

/// Reads up to `limit` bytes of standard input. With a `patience` it is beside a prompt: a pipe gets that long for its first
/// byte, and a file that somebody reads is left alone.
///
/// # Errors
/// What the system says.
pub fn read(patience: Option<Duration>, limit: u64) -> io::Result<Piped> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(Piped::Nothing);
    }
    // A handle of its own: a read that never ends holds no lock.
    of(File::from(stdin.as_fd().try_clone_to_owned()?), patience, limit)
}

fn of(mut file: File, patience: Option<Duration>, limit: u64) -> io::Result<Piped> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        let is_in_use = patience.is_some() && file.stream_position()? > 0;
        return if is_in_use { Ok(Piped::Nothing) } else { read_all(file, limit, || ()) };
    }
    if !kind.is_fifo() && !kind.is_socket() {
        return Ok(Piped::Nothing);
    }
    let Some(patience) = patience else { return read_all(file, limit, || ()) };
    let (begin, begun) = channel();
    // Where nothing comes, it ends with the process.
    let reader = thread::spawn(move || {
        read_all(file, limit, || {
            // Whether anybody still waits does not matter.
            let _ = begin.send(());
        })
    });
    match begun.recv_timeout(patience) {
        Err(RecvTimeoutError::Timeout) => Ok(Piped::Silence),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            reader.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")))
        }
    }
}

/// Reads to the end; `begin` is called when the first bytes, or the end, are there.
fn read_all(file: File, limit: u64, begin: impl FnOnce()) -> io::Result<Piped> {
    let mut file = file.take(limit);
    let mut bytes = vec![0; 4096];
    let len = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    begin();
    bytes.truncate(len);
    file.read_to_end(&mut bytes)?;
    Ok(if bytes.is_empty() { Piped::Nothing } else { Piped::Text(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_a_silent_one_is_left_alone() {
        let long = Some(Duration::from_secs(60));
        let (reader, mut writer) = pipe();
        let thread = thread::spawn(move || {
            writer.write_all(b"one ").unwrap();
            thread::sleep(Duration::from_millis(50));
            writer.write_all(b"two").unwrap();
        });
        assert_eq!(of(reader, long, 100).unwrap(), Piped::Text(b"one two".to_vec()));
        thread.join().unwrap();

        let (reader, _writer) = pipe();
        assert_eq!(of(reader, Some(Duration::from_millis(20)), 100).unwrap(), Piped::Silence);
        let (reader, writer) = pipe();
        drop(writer);
        assert_eq!(of(reader, long, 100).unwrap(), Piped::Nothing);
    }

    #[test]
    fn a_file_is_read_unless_somebody_reads_it() {
        let patience = Some(Duration::from_secs(60));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();
        assert_eq!(of(file.try_clone().unwrap(), patience, 100).unwrap(), Piped::Nothing);
        file.rewind().unwrap();
        assert_eq!(of(file.try_clone().unwrap(), patience, 3).unwrap(), Piped::Text(b"tex".to_vec()));
        file.seek(io::SeekFrom::Start(2)).unwrap();
        assert_eq!(of(file, None, 100).unwrap(), Piped::Text(b"xt".to_vec()), "there is no other text");
    }

    #[test]
    fn devices_are_not_read() {
        assert_eq!(of(File::open("/dev/zero").unwrap(), None, 100).unwrap(), Piped::Nothing);
    }
}
