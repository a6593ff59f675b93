//! How much memory there is, and how users write it.

use std::path::Path;
use std::str::FromStr;

/// Bytes that a session may take unless the user says otherwise: nine tenths of what is free now, or everything where
/// the system does not say what is free.
pub fn usable_bytes() -> u64 {
    available_bytes().map_or(u64::MAX, |bytes| bytes / 10 * 9)
}

/// What the process takes beside its own memory now, weights, caches and activations: its program, stacks, buffers, texts.
const RESERVE: u64 = 20 << 20;

/// Most memory of the process, as users write it: bytes, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// A fraction of the machine's memory, or of what a container may have.
    Share(f64),
}

impl Budget {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (limit_bytes().unwrap_or(u64::MAX) as f64 * share) as u64,
        }
    }

    /// What is left of it for a session, beside what the process has now.
    pub fn left_bytes(self) -> u64 {
        self.bytes().saturating_sub(own_bytes()).saturating_sub(RESERVE)
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else { return parse_bytes(text).map(Self::Bytes) };
        let percent = percent.trim().parse::<f64>().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
        percent.map(|percent| Self::Share(percent / 100.0)).ok_or_else(|| "write a share between 0% and 100%".into())
    }
}

/// Bytes that a session may take: what is left of a budget, or of what is free.
pub fn session_bytes(budget: Option<Budget>) -> u64 {
    budget.map_or_else(usable_bytes, Budget::left_bytes)
}

/// Bytes that this machine has, or that a container's limit allows, whatever of it is in use.
fn limit_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = allowed_bytes(&groups, Path::new("/sys/fs/cgroup"), Held::Ignored);
    [total_bytes(), limit].into_iter().flatten().min()
}

/// Bytes of memory that this process has now, pages of mapped files left out, which the system takes back; 0 where it does not tell.
fn own_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut fields = statm.split(' ').skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0));
    let pages = fields.next().zip(fields.next()).map(|(resident, of_files)| resident.saturating_sub(of_files));
    // SAFETY: `sysconf` reads a number of the system and touches no memory of ours.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * u64::try_from(page_bytes).unwrap_or(0)
}

/// Bytes of memory of this machine, where the system tells.
pub fn total_bytes() -> Option<u64> {
    // SAFETY: `sysconf` reads a number of the system and touches no memory of ours.
    let (pages, page_bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let known = |number: libc::c_long| u64::try_from(number).ok();
    known(pages)?.checked_mul(known(page_bytes)?)
}

/// Bytes that this process can have without making the system swap, as Linux estimates it, or what a container's limit
/// leaves of them.
pub fn available_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let allowed = allowed_bytes(&groups, Path::new("/sys/fs/cgroup"), Held::Deducted).unwrap_or(u64::MAX);
    Some(free_bytes()?.min(allowed))
}

/// What becomes of memory that a control group holds and can't give back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Deducted,
    Ignored,
}

/// What the limits of the control groups in `groups` (as `/proc/self/cgroup` lists them, version 1 or 2, mounted at
/// `root`) leave beside memory that can't be given back; `None` without a limit.
fn allowed_bytes(groups: &str, root: &Path, treatment: Held) -> Option<u64> {
    let left = |group: &Path, limit: &str, held: &str| {
        let limit: u64 = std::fs::read_to_string(group.join(limit)).ok()?.trim().parse().ok()?;
        let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let held = stat.lines().find_map(|line| line.strip_prefix(held)?.trim().parse().ok());
        Some(limit.saturating_sub(held.filter(|_| treatment == Held::Deducted).unwrap_or(0)))
    };
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (root, limit, held) = match controllers {
            "" if number == "0" => (root.to_path_buf(), "memory.max", "anon "),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "total_rss ")
            }
            _ => return None,
        };
        // Those above count, too; in a container the path may be one of the host's, and only the root be there.
        let group = root.join(path.trim_start_matches('/'));
        group
            .ancestors()
            .take_while(|group| group.starts_with(&root))
            .filter_map(|group| left(group, limit, held))
            .min()
    };
    groups.lines().filter_map(of_line).min()
}

fn free_bytes() -> Option<u64> {
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
    fn the_tightest_limit_of_a_group_or_of_one_above_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let allowed = |groups| allowed_bytes(groups, root.path(), Held::Deducted);
        assert_eq!(allowed("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("a/memory.stat", "file 900\nanon 300\n");
        assert_eq!(allowed("0::/a/b\n"), Some(700));
        write("a/b/memory.max", "200\n");
        write("a/b/memory.stat", "anon 300\n");
        assert_eq!(allowed("1:cpu:/a\n0::/a/b\n"), Some(0));
        // Version 1, seen from inside a container.
        write("memory/memory.limit_in_bytes", "5000\n");
        write("memory/memory.stat", "rss 1\ntotal_rss 2000\n");
        assert_eq!(allowed("4:memory:/docker/123\n0::/\n"), Some(3000));
        assert_eq!(allowed("4:cpu,cpuacct:/docker/123\nbroken\n"), None);
        assert_eq!(allowed_bytes("4:memory:/docker/123\n", root.path(), Held::Ignored), Some(5000));
    }

    #[test]
    fn budgets_are_bytes_or_shares() {
        assert_eq!("2GiB".parse(), Ok(Budget::Bytes(2 << 30)));
        assert_eq!("50%".parse(), Ok(Budget::Share(0.5)));
        assert_eq!(" 12.5 %".parse(), Ok(Budget::Share(0.125)));
        for text in ["0%", "101%", "%", "-5%", "NaN%", "x", "0"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
        let [half, all] = [0.5, 1.0].map(|share| Budget::Share(share).bytes());
        assert!(half > 1 << 20 && half <= all / 2 + 1, "{half} of {all}");
        assert_eq!(Budget::Bytes(5).left_bytes(), 0);
        assert!(own_bytes() > 1 << 16 || cfg!(not(target_os = "linux")));
    }

    #[test]
    fn what_is_usable_is_more_than_this_test_needs() {
        assert!(usable_bytes() > 1 << 20);
    }
}
