//! Whole command lines: a NUL ends each word.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

dair_fuzz::target!(16 << 20, 1 << 10, |bytes| {
    let words = bytes.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let _ = dair_host::cli::check([OsStr::new("dair")].into_iter().chain(words));
});
