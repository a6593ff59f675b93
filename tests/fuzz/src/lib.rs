//! What all fuzz targets share: an allocator with a limit that depends on the input, and folders to convert from.
//!
//! A reader may take memory in proportion to what it was given, and no more: whatever a length in the input says. The process
//! ends where an input goes beyond its limit, and libFuzzer keeps that input.

pub mod convert;

pub use libfuzzer_sys::fuzz_target;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that are allocated now, and the most that there may be.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn add(bytes: usize) {
        let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let limit = LIMIT.load(Relaxed);
        if live > limit {
            LIMIT.store(usize::MAX, Relaxed);
            eprintln!("{bytes} bytes more make {live}: beyond the limit of {limit} for this input");
            std::process::abort();
        }
    }
}

// SAFETY: the system's allocator does the work; beside it, numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as for this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as for this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as for this call.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::add(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as for this call.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// While it lives, the memory of the process may grow by so much and no more.
pub struct Limit(());

impl Limit {
    /// `fixed` bytes, and so many for each byte of the input.
    pub fn of(fixed: usize, per_byte: usize, input: usize) -> Self {
        LIMIT.store(LIVE.load(Relaxed) + fixed + per_byte * input, Relaxed);
        Self(())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        LIMIT.store(usize::MAX, Relaxed);
    }
}

/// A target: `|bytes| { … }`, with the most memory that it may take.
#[macro_export]
macro_rules! target {
    ($fixed:expr, $per_byte:expr, |$bytes:ident| $body:block) => {
        $crate::fuzz_target!(|$bytes: &[u8]| {
            let _limit = $crate::Limit::of($fixed, $per_byte, $bytes.len());
            $body
        });
    };
}

/// The parts of an input for a target that reads several texts: a NUL ends each but the last.
pub fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut rest = bytes.splitn(N, |byte| *byte == 0);
    [(); N].map(|()| rest.next().unwrap_or_default())
}
