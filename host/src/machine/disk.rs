//! How much room a disk has, and how fast it is read.

use crate::machine::arena::ArenaMemory;
use crate::machine::file;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that are read at once: weights are read in pieces about as large.
const PIECE: usize = 4 << 20;
/// Most pieces, 64 MB.
const PIECES: u64 = 16;
/// Pieces are at multiples of this, and end there.
const SECTOR: u64 = 4096;
/// After this no further piece is read.
const TIME: Duration = Duration::from_millis(300);

/// Bytes per second of reading pieces of a file that are spread over it, past the system's cache where it lets itself be
/// passed. `None` where the file is too small to tell.
///
/// # Errors
/// Where the file can't be read.
pub fn read_bytes_per_s(path: &Path) -> io::Result<Option<f64>> {
    let file = file::open_regular(path)?;
    let is_past_cache = pass_cache(&file, true);
    let pieces = (file.metadata()?.len() / PIECE as u64).min(PIECES);
    let step = (file.metadata()?.len() / pieces.max(1)) / SECTOR * SECTOR;
    let mut memory = ArenaMemory::new(PIECE)?;
    // Taking its pages is not the disk's time.
    memory.fill(1);
    let (start, mut bytes) = (Instant::now(), 0);
    for piece in 0..pieces {
        match file.read_exact_at(&mut memory, piece * step) {
            // A file system that has no way past its cache says so only now.
            Err(error) if is_past_cache && bytes == 0 && error.kind() == io::ErrorKind::InvalidInput => {
                pass_cache(&file, false);
                file.read_exact_at(&mut memory, piece * step)?;
            }
            result => result?,
        }
        bytes += PIECE;
        if start.elapsed() > TIME {
            break;
        }
    }
    Ok((bytes > 0).then(|| bytes as f64 / start.elapsed().as_secs_f64()))
}

/// Reads past the system's cache from now on, or not; says whether the system takes it. What the cache holds of the file and
/// nobody uses is dropped, for file systems that have no other way.
#[cfg(target_os = "linux")]
pub fn pass_cache(file: &File, past: bool) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: the calls take numbers; `fd` is open as long as `file` lives.
    unsafe {
        libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED);
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let flags = if past { flags | libc::O_DIRECT } else { flags & !libc::O_DIRECT };
        libc::fcntl(fd, libc::F_SETFL, flags) == 0
    }
}

/// As on Linux.
#[cfg(target_vendor = "apple")]
pub fn pass_cache(file: &File, past: bool) -> bool {
    // SAFETY: the call takes numbers; the file is open as long as `file` lives.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, libc::c_int::from(past)) == 0 }
}

/// Other systems have no way that is known here.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub fn pass_cache(_: &File, _: bool) -> bool {
    false
}

/// Whether reads of a file pass the system's cache.
#[cfg(target_os = "linux")]
pub fn passes_cache(file: &File) -> bool {
    // SAFETY: the call takes numbers; the file is open as long as `file` lives.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) & libc::O_DIRECT != 0 }
}

/// Elsewhere the system does not tell, and nothing needs to be done about it.
#[cfg(not(target_os = "linux"))]
pub fn passes_cache(_: &File) -> bool {
    true
}

/// Drops what the system's cache holds of a part of a file.
pub fn forget(file: &File, part: Range<u64>) {
    // A part is inside a file, whose size is a signed number.
    #[cfg(target_os = "linux")]
    if let (Ok(start), Ok(len)) = (part.start.try_into(), (part.end - part.start).try_into()) {
        // A matter of memory: a system that refuses keeps it.
        // SAFETY: the call takes numbers; the file is open as long as `file` lives.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, part);
}

/// Bytes that may still be written to the disk that holds `folder`.
///
/// # Errors
/// Where there is no such folder.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let name = CString::new(folder.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `name` is a C string and `stat` room for the answer; both outlive the call.
    let result = unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid `statvfs`, which is plain numbers, and the call has filled it.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // narrower on 32-bit machines
    let free = (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64);
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_some_megabytes_tells_the_speed_of_its_disk() {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(read_bytes_per_s(file.path()).unwrap(), None);
        file.as_file().set_len(3 * PIECE as u64 + 1000).unwrap();
        let speed = read_bytes_per_s(file.path()).unwrap().unwrap();
        assert!(speed > 1e5 && speed < 1e12, "{speed} bytes per second");
        assert!(read_bytes_per_s(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn a_folder_has_room_and_no_folder_has_none() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert_eq!(free_bytes(Path::new("/nowhere/at/all")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
