//! Persistent threads that run one task together, with a barrier inside it.
//!
//! A waiting lane first spins for some microseconds, then yields its processor to whoever wants it, then (between tasks)
//! sleeps. So hand-offs are fast on an idle machine, and several nodes on few processors do not starve each other.

use dair_core::io::{Lane, Pool};
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::{hint, io};

/// Most lanes of a pool.
pub const MAX_LANES: usize = 256;

/// Looks at a value this often before the processor is offered to others.
const SPINS: u32 = 100;
/// Offers the processor this often before a lane without a task sleeps.
const YIELDS: u32 = 200;

type Task<'t> = dyn Fn(Lane<'_>) + Sync + 't;

/// A pool of threads. The thread that calls [`Pool::run`] is lane 0; dropping the pool ends the others.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a task runs: tasks of several callers come one after the other.
    running: Mutex<()>,
}

/// A value on cache lines of its own (two: processors fetch them in pairs), so that lanes that wait for it are not
/// disturbed by writes to its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

struct Shared {
    lanes: usize,
    /// Counts tasks; a change tells the workers that `task` is there.
    epoch: Apart<AtomicU32>,
    /// Valid from a change of `epoch` until `pending` is 0.
    task: UnsafeCell<Option<*const Task<'static>>>,
    /// Workers that have not finished the task.
    pending: Apart<AtomicUsize>,
    /// Lanes that have reached the barrier.
    arrived: Apart<AtomicUsize>,
    /// Counts completed barriers.
    generation: Apart<AtomicU32>,
    /// A lane has panicked: nobody waits for it any more.
    failed: AtomicBool,
    closing: AtomicBool,
}

// SAFETY: `task` is written only by the holder of `running` while no worker reads it (`pending` is 0), and read only
// between the change of `epoch` and the worker's decrement of `pending`; those atomics order the accesses. The task
// itself is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Threads {
    /// Starts a pool of `lanes` lanes: the caller and `lanes - 1` threads.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    ///
    /// # Panics
    /// If `lanes` is not between 1 and [`MAX_LANES`].
    pub fn new(lanes: usize) -> io::Result<Self> {
        assert!((1..=MAX_LANES).contains(&lanes), "{lanes} lanes; allowed: 1 to {MAX_LANES}");
        let shared = Arc::new(Shared {
            lanes,
            epoch: Apart::default(),
            task: UnsafeCell::new(None),
            pending: Apart::default(),
            arrived: Apart::default(),
            generation: Apart::default(),
            failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(lanes - 1), running: Mutex::new(()) };
        for index in 1..lanes {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(format!("lane-{index}")).spawn(move || shared.work(index))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }
}

impl Pool for Threads {
    fn lanes(&self) -> usize {
        self.shared.lanes
    }

    fn run(&self, task: &Task<'_>) {
        let shared = &*self.shared;
        let _running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: only the lifetime is erased. The pointer is read by the workers of this task, and this function does
        // not return before `pending` says that they are done.
        let erased: *const Task<'static> = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: no worker reads `task` now: the last one to do so has brought `pending` to 0.
        unsafe { *shared.task.get() = Some(erased) };
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let result = shared.lane(0, task);
        let mut waiting = Waiting::default();
        while shared.pending.load(Ordering::Acquire) != 0 {
            waiting.pause();
        }
        let failed = shared.failed.swap(false, Ordering::Relaxed);
        shared.arrived.store(0, Ordering::Relaxed);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!failed, "a lane of the pool panicked");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker that panicked has said so in `run`.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker thread.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let mut waiting = Waiting::default();
            while self.epoch.load(Ordering::Acquire) == seen {
                if !waiting.pause() {
                    thread::park();
                }
            }
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            seen = seen.wrapping_add(1);
            // SAFETY: `epoch` has changed, so the task is there, and it stays until `pending` is 0.
            if let Some(task) = unsafe { *self.task.get() } {
                // SAFETY: as above.
                let _ = self.lane(index, unsafe { &*task });
            }
            self.pending.fetch_sub(1, Ordering::Release);
        }
    }

    /// Runs one lane; a panic is kept from leaving other lanes waiting.
    fn lane(&self, index: usize, task: &Task<'_>) -> thread::Result<()> {
        let barrier = |_| self.barrier();
        let result = catch_unwind(AssertUnwindSafe(|| task(Lane::new(index, self.lanes, &barrier))));
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn barrier(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.lanes {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut waiting = Waiting::default();
        while self.generation.load(Ordering::Acquire) == generation {
            assert!(!self.failed.load(Ordering::Relaxed), "another lane of the pool panicked");
            waiting.pause();
        }
    }
}

/// How long a lane has waited.
#[derive(Default)]
struct Waiting {
    turns: u32,
}

impl Waiting {
    /// Waits a moment; false once it is time to sleep.
    fn pause(&mut self) -> bool {
        self.turns = self.turns.saturating_add(1);
        if self.turns <= SPINS {
            hint::spin_loop();
        } else {
            thread::yield_now();
        }
        self.turns <= SPINS + YIELDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_lane_runs_each_task_once() {
        for lanes in [1, 2, 3, 7] {
            let pool = Threads::new(lanes).unwrap();
            let sum = AtomicU64::new(0);
            for _ in 0..1000 {
                pool.run(&|lane| {
                    assert_eq!(lane.count, lanes);
                    sum.fetch_add(1 << (8 * lane.index), Ordering::Relaxed);
                });
            }
            let expected = (0..lanes).map(|index| 1000u64 << (8 * index)).fold(0, u64::wrapping_add);
            assert_eq!(sum.into_inner(), expected, "{lanes} lanes");
        }
    }

    #[test]
    fn nobody_passes_the_barrier_before_all_have_reached_it() {
        let pool = Threads::new(4).unwrap();
        let reached = AtomicUsize::new(0);
        pool.run(&|lane| {
            for round in 1..=500 {
                reached.fetch_add(1, Ordering::Relaxed);
                lane.barrier();
                assert_eq!(reached.load(Ordering::Relaxed), 4 * round);
                lane.barrier();
            }
        });
    }

    #[test]
    fn a_sleeping_pool_wakes_up() {
        let pool = Threads::new(3).unwrap();
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(20));
            let count = AtomicUsize::new(0);
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 3);
        }
    }

    #[test]
    fn a_panicking_lane_fails_the_task_and_the_pool_lives_on() {
        let pool = Threads::new(3).unwrap();
        for bad in [0, 2] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|lane| {
                    assert_ne!(lane.index, bad, "meant to fail");
                    lane.barrier();
                });
            }));
            assert!(result.is_err());
            let count = AtomicUsize::new(0);
            pool.run(&|lane| {
                lane.barrier();
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 3);
        }
    }
}
