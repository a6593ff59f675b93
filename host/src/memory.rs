//! How much memory there is, and how users write it.

/// Bytes that a session may take unless the user says otherwise: nine tenths of what is free now, or everything where
/// the system does not say what is free.
pub fn usable_bytes() -> u64 {
    available_bytes().map_or(u64::MAX, |bytes| bytes / 10 * 9)
}

/// Bytes of memory of this machine, where the system tells.
pub fn total_bytes() -> Option<u64> {
    // SAFETY: `sysconf` reads a number of the system and touches no memory of ours.
    let (pages, page_bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let known = |number: libc::c_long| u64::try_from(number).ok();
    known(pages)?.checked_mul(known(page_bytes)?)
}

/// Bytes that programs can have without making the system swap, as Linux estimates it.
pub fn available_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Largest resident size of this process so far; mapped weights that were read count.
pub fn peak_bytes() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what the call writes, and all-zero is a valid value of it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage.ru_maxrss as u64 * unit
}

/// Reads `2GB`, `1500MB`, `64MiB`, `4096`.
///
/// # Errors
/// A text for the user.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] =
        [("KIB", 1 << 10), ("MIB", 1 << 20), ("GIB", 1 << 30), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    let upper = text.trim().to_ascii_uppercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((upper.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((upper.strip_suffix('B').unwrap_or(&upper), 1));
    let bytes = number.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a positive whole number of bytes, such as 1500MB or 2GB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_users_write_them() {
        for (text, bytes) in
            [("2GB", 2_000_000_000), ("1500 mb", 1_500_000_000), ("64MiB", 64 << 20), ("4096", 4096), ("7b", 7)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1", "1.5GB", "0", "99999999999GB", "1TBB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_usable_is_more_than_this_test_needs() {
        assert!(usable_bytes() > 1 << 20);
    }
}
