//! One block of the caller's memory that all lanes work in, and the rule that makes it sound:
//! between two barriers, no lane writes what another lane reads or writes. [`share`](super::share) sets the barriers.

use super::attend::Needs;
use super::error::GraphError;
use crate::kernels::SCRATCH_BYTES;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

/// Alignment of the arena and of everything in it, in bytes: a cache line.
pub const ARENA_ALIGN: usize = 64;

/// Rounds up to the next multiple of [`ARENA_ALIGN`].
pub(super) const fn aligned(bytes: u64) -> Option<u64> {
    match bytes.checked_add(ARENA_ALIGN as u64 - 1) {
        Some(sum) => Some(sum / ARENA_ALIGN as u64 * ARENA_ALIGN as u64),
        None => None,
    }
}

/// Where the regions behind the graph's places lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Everything.
    pub bytes: usize,
    /// Lanes that scratch is there for.
    pub lanes: usize,
    /// Rows of a batch at most, and of a plane.
    pub batch_max: usize,
    /// Values of a row of the RoPE table, 0 without RoPE.
    pub head_dim: usize,
    rope_offset: usize,
    frequencies_offset: usize,
    scratch_offset: usize,
    /// Values of one lane's scratch: what attention needs, or the rows of every expert.
    scratch_len: usize,
    partials_offset: usize,
    partials_len: usize,
    unpacked_offset: usize,
    /// Bytes that one lane's products unpack weights into.
    unpacked_bytes: usize,
}

impl Sizes {
    /// Adds to the places' `arena_bytes` the RoPE table for heads of `head_dim` values, its frequencies, scratch for
    /// each lane, and the states of attention that lanes hand to each other.
    pub fn new(
        arena_bytes: u64,
        head_dim: u32,
        needs: Needs,
        batch_max: u32,
        lanes: usize,
    ) -> Result<Self, GraphError> {
        let head_dim = u64::from(head_dim);
        let mut end = arena_bytes;
        let mut region = |values: u64| {
            let offset = end;
            end = values.checked_mul(4).and_then(aligned).and_then(|bytes| end.checked_add(bytes))?;
            usize::try_from(offset).ok()
        };
        let Needs { scratch_len, partials_len } = needs;
        // One token at a time takes weights as they are.
        let unpacked_bytes = if batch_max > 1 { SCRATCH_BYTES } else { 0 };
        let offsets = [
            region(head_dim * u64::from(batch_max)),
            region(head_dim / 2),
            scratch_len.checked_mul(lanes as u64).and_then(&mut region),
            region(partials_len),
            region((unpacked_bytes / 4) as u64 * lanes as u64),
        ];
        let (
            [
                Some(rope_offset),
                Some(frequencies_offset),
                Some(scratch_offset),
                Some(partials_offset),
                Some(unpacked_offset),
            ],
            Ok(bytes),
        ) = (offsets, usize::try_from(end))
        else {
            return Err(GraphError::too_large(end));
        };
        Ok(Self {
            bytes,
            lanes,
            batch_max: batch_max as usize,
            head_dim: head_dim as usize,
            rope_offset,
            frequencies_offset,
            scratch_offset,
            scratch_len: scratch_len as usize,
            partials_offset,
            partials_len: partials_len as usize,
            unpacked_offset,
            unpacked_bytes,
        })
    }
}

/// Shared access to the caller's memory.
pub(super) struct Arena<'a> {
    start: *mut u8,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: the pointer stands for an exclusive borrow of the memory; who may touch which part of it, and when, is what
// the accessors demand of their callers.
unsafe impl Send for Arena<'_> {}
// SAFETY: as above.
unsafe impl Sync for Arena<'_> {}

impl<'a> Arena<'a> {
    pub fn new(memory: &'a mut [u8], bytes: usize) -> Self {
        assert!(memory.len() >= bytes, "arena of {} bytes; {bytes} needed", memory.len());
        let start = memory.as_mut_ptr();
        assert!(start.addr().is_multiple_of(ARENA_ALIGN), "arena at {start:p}: not aligned to {ARENA_ALIGN}");
        Self { start, len: bytes, memory: PhantomData }
    }

    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(bytes <= self.len && offset <= self.len - bytes, "{bytes} bytes at {offset} of {}", self.len);
        // SAFETY: inside the block, as just checked.
        unsafe { self.start.add(offset) }
    }

    /// # Safety
    /// Nobody writes these bytes while the slice lives.
    pub unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: `at` checked the range; the caller keeps writers away.
        unsafe { core::slice::from_raw_parts(self.at(offset, len), len) }
    }

    /// # Safety
    /// Nobody else reads or writes these bytes while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        // SAFETY: `at` checked the range; the caller keeps everybody else away.
        unsafe { core::slice::from_raw_parts_mut(self.at(offset, len), len) }
    }

    /// `len` values from byte `offset` on.
    ///
    /// # Safety
    /// Nobody writes them while the slice lives.
    pub unsafe fn f32s(&self, offset: usize, len: usize) -> &[f32] {
        // SAFETY: as for the bytes; every bit pattern is an F32, and `f32_ptr` checked range and alignment.
        unsafe { core::slice::from_raw_parts(self.f32_ptr(offset, len), len) }
    }

    /// # Safety
    /// Nobody else reads or writes them while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn f32s_mut(&self, offset: usize, len: usize) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.f32_ptr(offset, len), len) }
    }

    /// Where `bytes` bytes from byte `offset` on lie.
    pub fn byte_ptr(&self, offset: usize, bytes: usize) -> *mut u8 {
        self.at(offset, bytes)
    }

    /// Where `len` values from byte `offset` on lie.
    pub fn f32_ptr(&self, offset: usize, len: usize) -> *mut f32 {
        assert!(offset.is_multiple_of(align_of::<f32>()), "F32 values at byte {offset}");
        self.at(offset, len.saturating_mul(4)).cast()
    }

    /// The table that RoPE reads: a row of `head_dim` values for each row of the batch.
    ///
    /// # Safety
    /// As for [`Self::f32s_mut`].
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn rope(&self, sizes: &Sizes) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.f32s_mut(sizes.rope_offset, sizes.head_dim * sizes.batch_max) }
    }

    /// A row of the RoPE table.
    ///
    /// # Safety
    /// As for [`Self::f32s`].
    pub unsafe fn rope_row(&self, sizes: &Sizes, row: usize) -> &[f32] {
        // SAFETY: the caller's promise.
        unsafe { self.f32s(sizes.rope_offset + row * 4 * sizes.head_dim, sizes.head_dim) }
    }

    /// The frequencies that the RoPE table is made of.
    ///
    /// # Safety
    /// As for [`Self::f32s_mut`].
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn frequencies(&self, sizes: &Sizes) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.f32s_mut(sizes.frequencies_offset, sizes.head_dim / 2) }
    }

    /// Scratch of one lane.
    ///
    /// # Safety
    /// Only this lane uses it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn scratch(&self, sizes: &Sizes, lane: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.f32s_mut(sizes.scratch_offset + lane * 4 * sizes.scratch_len, sizes.scratch_len) }
    }

    /// Values of the region through which lanes hand states of attention to each other.
    ///
    /// # Safety
    /// As for [`Self::f32s_mut`].
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn partials(&self, sizes: &Sizes, values: Range<usize>) -> &mut [f32] {
        assert!(values.end <= sizes.partials_len, "values {values:?} of {} of states", sizes.partials_len);
        // SAFETY: the caller's promise.
        unsafe { self.f32s_mut(sizes.partials_offset + 4 * values.start, values.len()) }
    }

    /// What one lane's products unpack weights into.
    ///
    /// # Safety
    /// Only this lane uses it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn unpacked(&self, sizes: &Sizes, lane: usize) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { self.bytes_mut(sizes.unpacked_offset + lane * sizes.unpacked_bytes, sizes.unpacked_bytes) }
    }
}

/// Keeps the first of several lanes' errors.
pub(super) struct FirstError<E> {
    state: AtomicU8,
    error: UnsafeCell<Option<E>>,
}

const CLEAR: u8 = 0;
const SET: u8 = 1;

// SAFETY: the cell is written once, by the lane that moved `state` from CLEAR to SET, and read only by value.
unsafe impl<E: Send> Sync for FirstError<E> {}

impl<E> FirstError<E> {
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(CLEAR), error: UnsafeCell::new(None) }
    }

    /// Keeps `error` if it is the first.
    pub fn set(&self, error: E) {
        if self.state.compare_exchange(CLEAR, SET, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: only one lane ever gets here, and nobody reads before all lanes are done.
            unsafe { *self.error.get() = Some(error) };
        }
    }

    /// Whether a lane has failed.
    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SET
    }

    /// The error, if any; all lanes are done by then.
    pub fn into_result(self) -> Result<(), E> {
        self.error.into_inner().map_or(Ok(()), Err)
    }
}
