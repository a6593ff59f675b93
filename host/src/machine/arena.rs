//! Memory that the engine computes in.

use dair_core::exec::ARENA_ALIGN;
use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// Zeroed memory, aligned to a page. Pages that are never touched cost nothing: a KV cache grows with the conversation.
#[derive(Debug)]
pub struct ArenaMemory {
    map: MmapMut,
}

impl ArenaMemory {
    /// Reserves `bytes`.
    ///
    /// # Errors
    /// Where the system has no such address range.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(bytes.max(1))?;
        debug_assert!(map.as_ptr().addr().is_multiple_of(ARENA_ALIGN));
        Ok(Self { map })
    }

    /// Reserves `bytes` in large pages, where the system has them: for memory that is used as a whole.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn large(bytes: usize) -> io::Result<Self> {
        let memory = Self::new(bytes)?;
        // Large pages are a matter of speed.
        #[cfg(target_os = "linux")]
        let _ = memory.map.advise(memmap2::Advice::HugePage);
        Ok(memory)
    }
}

impl Deref for ArenaMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for ArenaMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}
