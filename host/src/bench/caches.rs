//! Sizes of data caches.

/// Caches of one level that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Level: 1 is the closest to the processor.
    pub level: u32,
    /// Bytes of one.
    pub bytes: u64,
    /// How many there are in this machine.
    pub count: u32,
}

/// One cache, as the system lists it for a processor: level, bytes, and which processors share it.
type Entry = (u32, u64, String);

/// Groups entries: a cache that several processors share is listed by each of them.
fn group(mut entries: Vec<Entry>) -> Vec<Cache> {
    entries.sort();
    entries.dedup();
    let mut caches: Vec<Cache> = Vec::new();
    for (level, bytes, _) in entries {
        match caches.last_mut() {
            Some(cache) if (cache.level, cache.bytes) == (level, bytes) => cache.count += 1,
            _ => caches.push(Cache { level, bytes, count: 1 }),
        }
    }
    caches
}

/// Data caches of this machine, the closest first; empty where the system does not tell.
#[cfg(not(target_os = "macos"))]
pub fn detect() -> Vec<Cache> {
    let Ok(processors) = std::fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let is_processor = |name: &str| {
        name.strip_prefix("cpu").is_some_and(|index| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
    };
    let processors = processors.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_processor));
    let folders = processors.filter_map(|entry| std::fs::read_dir(entry.path().join("cache")).ok());
    group(folders.flat_map(Iterator::flatten).filter_map(|folder| entry_of(&folder.path())).collect())
}

/// The cache that a folder of sysfs describes, unless it is one of instructions or does not tell its size.
#[cfg(not(target_os = "macos"))]
fn entry_of(folder: &std::path::Path) -> Option<Entry> {
    let read = |name: &str| Some(std::fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
    if read("type")? == "Instruction" {
        return None;
    }
    let bytes = size(&read("size")?).filter(|bytes| *bytes > 0)?;
    Some((read("level")?.parse().ok()?, bytes, read("shared_cpu_list")?))
}

/// Reads `32K` or `1M`.
#[cfg(not(target_os = "macos"))]
fn size(text: &str) -> Option<u64> {
    let (number, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Data caches of this machine, the closest first: those of its fast cores. The system does not tell how many there
/// are: one per core of the first level, and one of each other.
#[cfg(target_os = "macos")]
pub fn detect() -> Vec<Cache> {
    use crate::machine::sysctl::number;
    let cores = number("hw.perflevel0.physicalcpu").or_else(|| number("hw.physicalcpu")).unwrap_or(1);
    let of = |level: u32, names: [&str; 2], count: u64| {
        let bytes = names.iter().find_map(|name| number(name)).filter(|bytes| *bytes > 0)?;
        Some((0..count).map(move |index| (level, bytes, index.to_string())))
    };
    let levels = [
        of(1, ["hw.perflevel0.l1dcachesize", "hw.l1dcachesize"], cores),
        of(2, ["hw.perflevel0.l2cachesize", "hw.l2cachesize"], 1),
        of(3, ["hw.perflevel0.l3cachesize", "hw.l3cachesize"], 1),
    ];
    group(levels.into_iter().flatten().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_cache_counts_once_and_equal_ones_are_counted() {
        let entry = |level, bytes, shared: &str| (level, bytes, shared.to_owned());
        let listed = vec![
            entry(1, 32 << 10, "0"),
            entry(3, 8 << 20, "0-1"),
            entry(1, 32 << 10, "1"),
            entry(3, 8 << 20, "0-1"),
            entry(1, 48 << 10, "2"),
        ];
        let expected = [(1, 32 << 10, 2), (1, 48 << 10, 1), (3, 8 << 20, 1)];
        assert_eq!(group(listed), expected.map(|(level, bytes, count)| Cache { level, bytes, count }));
        assert_eq!(group(Vec::new()), []);
    }

    #[cfg(not(target_os = "macos"))]
    #[test]
    fn sizes_are_read_as_the_kernel_writes_them() {
        for (text, bytes) in [("32K", Some(32 << 10)), ("2M", Some(2 << 20)), ("7", Some(7)), ("", None), ("K", None)] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn caches_of_this_machine_come_closest_first() {
        let caches = detect();
        assert!(caches.is_sorted_by_key(|cache| cache.level), "{caches:?}");
        assert!(caches.iter().all(|cache| cache.bytes > 0 && cache.count > 0), "{caches:?}");
    }
}
