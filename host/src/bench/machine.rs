//! What this machine is: processor, caches, memory, instruction sets.

use super::{caches, features};
use crate::machine::{cpu, cpu_name, memory};
use dair_core::kernels::Isa;

pub use super::caches::Cache;

/// What the system tells about a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Board and processor.
    pub name: String,
    /// Logical processors.
    pub processors: usize,
    /// Processors that this process may use: less what affinity masks and container limits take away.
    pub usable_processors: usize,
    /// Data caches, the closest first; empty where the system does not tell.
    pub caches: Vec<Cache>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that programs can have now.
    pub available_bytes: Option<u64>,
    /// Extensions that matter to kernels, as far as the processor has them.
    pub features: Vec<&'static str>,
    /// Instruction sets that there are kernels for, the plainest first.
    pub isas: Vec<Isa>,
}

impl Machine {
    /// This machine.
    pub fn detect() -> Self {
        Self {
            name: cpu_name::detect(),
            processors: processors().max(cpu::threads()),
            usable_processors: cpu::processors(),
            caches: caches::detect(),
            memory_bytes: memory::total_bytes(),
            available_bytes: memory::available_bytes(),
            features: features::detect(),
            isas: cpu::isas().collect(),
        }
    }

    /// Bytes of all caches of the last level.
    pub fn last_level_bytes(&self) -> u64 {
        self.caches.last().map_or(0, |cache| cache.bytes * u64::from(cache.count))
    }

    /// Bytes that a benchmark may take for itself: a quarter of what is free.
    pub fn spare_bytes(&self) -> u64 {
        self.available_bytes.or(self.memory_bytes).unwrap_or(1 << 30) / 4
    }
}

/// Logical processors that are switched on.
fn processors() -> usize {
    // SAFETY: `sysconf` reads a number of the system and touches no memory of ours.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_processors_and_instruction_sets() {
        let machine = Machine::detect();
        assert!(!machine.name.is_empty() && !machine.isas.is_empty(), "{machine:?}");
        assert!((1..=machine.processors).contains(&machine.usable_processors), "{machine:?}");
        assert!(machine.available_bytes.is_none_or(|bytes| Some(bytes) <= machine.memory_bytes), "{machine:?}");
        assert!(machine.spare_bytes() > 1 << 20);
    }
}
