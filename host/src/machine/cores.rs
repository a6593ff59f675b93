//! Which processors lanes run on: how many by default, and which one each is pinned to.
//!
//! Lanes get equal shares, so that the slowest one sets the pace. Two threads of one core share what a lane is limited by,
//! and a small core holds up large ones: by default there is one lane per core, and none on small cores where the large
//! ones alone are faster.

use crate::machine::cpu;
use crate::machine::pool::MAX_LANES;
use dair_core::io::Pool;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{cmp, fs, io};

/// Where Linux describes processors.
const SYSTEM: &str = "/sys/devices/system/cpu";

/// A processor that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Processor {
    index: usize,
    /// Processors of the same core before this one.
    sibling: usize,
    /// Speed, as the system scales it.
    capacity: u64,
}

/// Lanes unless the user says otherwise: one per core that is worth it, and never more than processors that affinity
/// masks and container limits leave.
pub fn default_lanes() -> usize {
    let most = cpu::processors().min(MAX_LANES);
    match lanes_of(&processors(Path::new(SYSTEM), &allowed())) {
        0 => most,
        lanes => lanes.min(most),
    }
}

/// Pins every lane to a processor of its own, the first of each core before the second and large cores before small ones.
///
/// # Errors
/// Where there are more lanes than processors, or the system refuses or can't.
pub fn pin(pool: &impl Pool) -> io::Result<()> {
    let processors = order(processors(Path::new(SYSTEM), &allowed()));
    let (lanes, count) = (pool.lanes(), processors.len());
    if !cfg!(target_os = "linux") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no way to; Linux has"));
    }
    if lanes > count {
        let text = format!("{lanes} threads, {count} processors that may be used");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let result = Mutex::new(Ok(()));
    pool.run(&|lane| {
        if let Err(error) = run_on(processors[lane.index].index) {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
        }
    });
    result.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What the system says about the processors `allowed`; those it says nothing about are cores of their own.
fn processors(system: &Path, allowed: &[usize]) -> Vec<Processor> {
    let read = |index: usize, name: &str| {
        let text = fs::read_to_string(system.join(format!("cpu{index}")).join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let mut cores = Vec::new();
    let processor = |index: &usize| {
        let core = read(*index, "topology/thread_siblings_list").unwrap_or_else(|| index.to_string());
        let sibling = cores.iter().filter(|other| **other == core).count();
        cores.push(core);
        let capacity = read(*index, "cpu_capacity").and_then(|text| text.parse().ok());
        Processor { index: *index, sibling, capacity: capacity.unwrap_or(1024) }
    };
    allowed.iter().map(processor).collect()
}

/// The order in which lanes take processors.
fn order(mut processors: Vec<Processor>) -> Vec<Processor> {
    processors.sort_by_key(|processor| (processor.sibling, cmp::Reverse(processor.capacity), processor.index));
    processors
}

/// Lanes that are fastest together at the pace of the slowest one, one per core; the fewest of those.
fn lanes_of(processors: &[Processor]) -> usize {
    let mut capacities: Vec<_> = processors.iter().filter(|p| p.sibling == 0).map(|p| p.capacity).collect();
    capacities.sort_unstable_by_key(|capacity| cmp::Reverse(*capacity));
    let speeds = (1..).zip(&capacities).map(|(lanes, slowest)| (lanes * slowest, cmp::Reverse(lanes)));
    speeds.max().map_or(0, |(_, cmp::Reverse(lanes))| lanes as usize)
}

/// Processors that this thread may run on, by number; none where the system does not say.
fn allowed() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    if let Ok(set) = affinity() {
        // SAFETY: reads a bit of a set of this size.
        return (0..libc::CPU_SETSIZE as usize).filter(|index| unsafe { libc::CPU_ISSET(*index, &set) }).collect();
    }
    Vec::new()
}

#[cfg(target_os = "linux")]
fn affinity() -> io::Result<libc::cpu_set_t> {
    // SAFETY: a set is plain bits, all of them clear.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes a set of this size for the calling thread.
    match unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(set),
    }
}

/// Keeps the calling thread, and those that it starts, on one processor.
#[cfg(target_os = "linux")]
fn run_on(processor: usize) -> io::Result<()> {
    // SAFETY: a set is plain bits, all of them clear.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    assert!(processor < libc::CPU_SETSIZE as usize, "processor {processor}");
    // SAFETY: the bit is one of the set's, as just checked.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: reads a set of this size.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn run_on(_: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use std::thread;

    /// Describes processors as Linux does: their core's siblings, and their capacity where it is known.
    fn system(processors: &[(&str, Option<u64>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (index, (siblings, capacity)) in processors.iter().enumerate() {
            let cpu = dir.path().join(format!("cpu{index}"));
            fs::create_dir_all(cpu.join("topology")).unwrap();
            fs::write(cpu.join("topology/thread_siblings_list"), format!("{siblings}\n")).unwrap();
            if let Some(capacity) = capacity {
                fs::write(cpu.join("cpu_capacity"), format!("{capacity}\n")).unwrap();
            }
        }
        dir
    }

    fn lanes_and_order(described: &[(&str, Option<u64>)], allowed: &[usize]) -> (usize, Vec<usize>) {
        let dir = system(described);
        let processors = processors(dir.path(), allowed);
        (lanes_of(&processors), order(processors).iter().map(|processor| processor.index).collect())
    }

    #[test]
    fn threads_of_one_core_count_once_and_come_last() {
        let smt = [("0-1", None), ("0-1", None), ("2-3", None), ("2-3", None)];
        assert_eq!(lanes_and_order(&smt, &[0, 1, 2, 3]), (2, vec![0, 2, 1, 3]));
        assert_eq!(lanes_and_order(&smt, &[1, 2, 3]), (2, vec![1, 2, 3]));
        assert_eq!(lanes_and_order(&smt, &[2, 3]), (1, vec![2, 3]));
        let far = [("0,2", None), ("1,3", None), ("0,2", None), ("1,3", None)];
        assert_eq!(lanes_and_order(&far, &[0, 1, 2, 3]), (2, vec![0, 1, 2, 3]));
    }

    #[test]
    fn small_cores_get_lanes_where_they_do_not_hold_up_the_large_ones() {
        let of = |capacities: &[u64]| {
            let names: Vec<_> = (0..capacities.len()).map(|index| index.to_string()).collect();
            let described: Vec<_> = names.iter().zip(capacities).map(|(name, c)| (name.as_str(), Some(*c))).collect();
            lanes_and_order(&described, &(0..capacities.len()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[400, 400, 400, 400, 1024, 1024, 1024, 1024]), (4, vec![4, 5, 6, 7, 0, 1, 2, 3]));
        assert_eq!(of(&[325, 325, 325, 325, 871, 871, 871, 1024]).0, 4);
        assert_eq!(of(&[446, 446, 446, 446, 446, 446, 1024, 1024]).0, 8);
        assert_eq!(of(&[512, 512, 1024]).0, 3);
        assert_eq!(of(&[512, 1024]).0, 1);
        assert_eq!(of(&[1024; 4]).0, 4);
    }

    #[test]
    fn where_nothing_is_described_every_processor_is_a_core() {
        assert_eq!(lanes_and_order(&[], &[0, 5]), (2, vec![0, 5]));
        assert_eq!(lanes_and_order(&[], &[]), (0, vec![]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_is_kept_on_one_processor_counts_one_lane_and_can_pin_no_more() {
        let test = || {
            let last = *allowed().last().unwrap();
            run_on(last).unwrap();
            assert_eq!((allowed(), default_lanes()), (vec![last], 1));
            pin(&crate::machine::pool::Threads::new(1).unwrap()).unwrap();
            let error = pin(&crate::machine::pool::Threads::new(2).unwrap()).unwrap_err();
            assert_eq!(error.to_string(), "2 threads, 1 processors that may be used");
        };
        thread::spawn(test).join().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pinned_lanes_have_a_processor_each() {
        let test = || {
            let pool = crate::machine::pool::Threads::new(default_lanes()).unwrap();
            pin(&pool).unwrap();
            let of = Mutex::new(Vec::new());
            pool.run(&|_| of.lock().unwrap().push(allowed()));
            let mut of = of.into_inner().unwrap();
            of.sort();
            of.dedup();
            assert_eq!((of.len(), of.iter().all(|allowed| allowed.len() == 1)), (pool.lanes(), true), "{of:?}");
        };
        thread::spawn(test).join().unwrap();
    }
}
