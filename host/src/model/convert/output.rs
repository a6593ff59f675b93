//! An output file that takes its name only when it is complete, and replaces nothing but a regular file.

use super::error::ConvertError;
use crate::machine::{disk, file};
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file under a temporary name, `NAME.part`, in the folder of the final one. Dropped before [`Self::finish`], it is removed.
#[derive(Debug)]
pub struct Output {
    file: File,
    part: PathBuf,
    path: PathBuf,
    is_finished: bool,
}

impl Output {
    /// Creates the temporary file, or takes over one that a killed conversion left behind.
    ///
    /// # Errors
    /// [`ConvertError::Busy`] while another conversion writes it.
    pub fn create(path: &Path) -> Result<Self, ConvertError> {
        let part = part_of(path);
        if let Some(found) = found(std::fs::symlink_metadata(&part)).map_err(ConvertError::io("read", &part))?
            && !found.is_file()
        {
            let what = file::irregular(found.file_type()).filter(|_| !found.is_symlink()).unwrap_or("a link");
            return Err(ConvertError::refused(&part, "the temporary file", what, "remove it, or choose another name"));
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false) // not before the lock is ours
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&part)
            .map_err(ConvertError::io("create", &part))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ConvertError::Busy(part)),
            Err(TryLockError::Error(source)) => return Err(ConvertError::io("lock", &part)(source)),
        }
        // Whoever held the lock may have finished and renamed this very file in between.
        let is_ours = file::is_same(&file, &part).map_err(ConvertError::io("create", &part))?;
        if !is_ours {
            return Err(ConvertError::Busy(part));
        }
        file.set_len(0).map_err(ConvertError::io("truncate", &part))?;
        Ok(Self { file, part, path: path.to_owned(), is_finished: false })
    }

    /// The open file.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Its temporary name.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Puts everything on the disk and gives the file its name.
    pub fn finish(mut self) -> Result<(), ConvertError> {
        self.file.sync_all().map_err(ConvertError::io("write", &self.part))?;
        // Conversions take their time; what has this name may be another thing by now.
        destination(&self.path, true)?;
        std::fs::rename(&self.part, &self.path).map_err(ConvertError::io("rename", &self.part))?;
        self.is_finished = true;
        // The name, too, must survive a power cut.
        let folder = folder_of(&self.path);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(ConvertError::io("write", folder))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nothing can be done about a failure here; a part is never taken for a model.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Where an output is to be put. A link to a regular file is followed: the file behind it is replaced, the link stays.
///
/// # Errors
/// Where `path` is anything but a regular file or nothing at all; where it is a file, unless `force`.
pub fn destination(path: &Path, force: bool) -> Result<PathBuf, ConvertError> {
    let refused = |what: String, allowed: &str| Err(ConvertError::refused(path, "the output", what, allowed));
    let io = |action| ConvertError::io(action, path);
    let Some(named) = found(std::fs::symlink_metadata(path)).map_err(io("read"))? else {
        return Ok(path.to_owned());
    };
    let link = if named.is_symlink() { "a link to " } else { "" };
    let Some(target) = found(std::fs::metadata(path)).map_err(io("read"))? else {
        return refused("a link to nothing".to_owned(), "remove it, or choose another name");
    };
    match file::irregular(target.file_type()) {
        Some(what @ "a folder") => refused(format!("{link}{what}"), "name the file to be made in it"),
        Some(what) => refused(format!("{link}{what}"), "only a regular file is replaced, choose another name"),
        None if !force => Err(ConvertError::Exists(path.to_owned())),
        None if named.is_symlink() => path.canonicalize().map_err(io("read")),
        None => Ok(path.to_owned()),
    }
}

/// What is there, if anything is.
fn found(metadata: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    match metadata {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The temporary name of an output.
pub fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// The folder that holds a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Demands room for `needed` bytes beside `path`.
///
/// # Errors
/// [`ConvertError::DiskSpace`] with both numbers.
pub fn check_space(path: &Path, needed: u64) -> Result<(), ConvertError> {
    let folder = folder_of(path);
    let free = disk::free_bytes(folder).map_err(ConvertError::io("read", folder))?;
    if free < needed {
        return Err(ConvertError::DiskSpace { path: path.to_owned(), needed, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_final_name_appears_only_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.m");
        let output = Output::create(&path).unwrap();
        output.file().write_all(b"half").unwrap();
        assert!(output.part().exists() && !path.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let output = Output::create(&path).unwrap();
        output.file().write_all(b"whole").unwrap();
        output.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_disk_that_is_too_small_is_named_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.m");
        assert!(check_space(&path, 1).is_ok());
        let Err(ConvertError::DiskSpace { needed, free, .. }) = check_space(&path, u64::MAX) else {
            panic!("no such disk")
        };
        assert!(needed == u64::MAX && free > 0 && free < needed);
        assert!(matches!(check_space("/nowhere/at/all.m".as_ref(), 1), Err(ConvertError::Io { .. })));
    }
}
