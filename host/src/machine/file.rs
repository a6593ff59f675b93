//! Opening what must be a regular file. A device or a FIFO under its name is refused at once: nobody waits for bytes that
//! may never come, or reads without end.

use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What a file that is not a regular one is called in messages.
pub fn irregular(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Opens a regular file, or a link to one, for reading.
///
/// # Errors
/// Those of opening; one that names what the file is where it is not a regular one.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Opening alone may make a device do something, so the name is asked first; the open file is asked again, because
    // the name may lead elsewhere by then, and without O_NONBLOCK opening a FIFO would wait for a writer.
    check(&std::fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

fn check(metadata: &Metadata) -> io::Result<()> {
    match irregular(metadata.file_type()) {
        None => Ok(()),
        Some(what) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}; a regular file is needed")))
        }
    }
}

/// Whether an open file is what a path leads to.
///
/// # Errors
/// Where nothing has that name.
pub fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

/// Adds text to the end of a file, which is readable for its owner alone if it is new.
///
/// # Errors
/// Those of the system.
pub fn append_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_regular_files_and_links_to_them_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        symlink(path("file"), path("link")).unwrap();
        assert!(is_same(&open_regular(&path("link")).unwrap(), &path("file")).unwrap());

        let _socket = UnixListener::bind(path("socket")).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        make_fifo(&path("fifo"));
        for (name, what) in [(".", "a folder"), ("fifo", "a FIFO"), ("socket", "a socket"), ("zero", "a device")] {
            let error = open_regular(&path(name)).unwrap_err();
            assert_eq!(error.to_string(), format!("it is {what}; a regular file is needed"));
        }
        assert_eq!(open_regular(&path("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    fn make_fifo(path: &Path) {
        let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(status.success(), "mkfifo {}", path.display());
    }
}
