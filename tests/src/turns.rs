//! A pool whose lanes take turns, for finding barriers that are missing.

use crate::random::Random;
use dair_core::io::{Lane, Pool};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Runs its lanes one at a time, each from barrier to barrier, in another order every time.
///
/// Where what a lane computes depends on what another one does between the same two barriers, results depend on the
/// order: a race shows without any luck with time.
#[derive(Debug)]
pub struct Turns {
    lanes: usize,
    random: Mutex<Random>,
    /// The barrier of each run that is none.
    without: Option<usize>,
}

/// Whose turn it is.
struct State {
    order: Vec<usize>,
    /// Lanes of `order` that have had their turn.
    done: usize,
    failed: bool,
    random: Random,
}

impl Turns {
    /// A pool of `lanes` lanes whose orders follow from `seed`.
    pub fn new(lanes: usize, seed: u64) -> Self {
        Self { lanes, random: Mutex::new(Random::new(seed)), without: None }
    }

    /// The same, but nobody stops at barrier `index` of a run: for tests that must fail.
    pub fn without(self, index: usize) -> Self {
        Self { without: Some(index), ..self }
    }
}

impl State {
    fn shuffle(&mut self) {
        for index in (1..self.order.len()).rev() {
            self.order.swap(index, self.random.below(index + 1));
        }
    }
}

impl Pool for Turns {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn run(&self, task: &(dyn Fn(Lane<'_>) + Sync)) {
        let seed = self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        let mut state = State { order: (0..self.lanes).collect(), done: 0, failed: false, random: Random::new(seed) };
        state.shuffle();
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |lane: usize| {
            let mut state = lock();
            while !state.failed && state.order.get(state.done) != Some(&lane) {
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let failed = state.failed;
            drop(state);
            assert!(!failed, "another lane panicked");
        };
        let passed: Vec<_> = (0..self.lanes).map(|_| AtomicUsize::new(0)).collect();
        let barrier = |lane: usize| {
            if Some(passed[lane].fetch_add(1, Ordering::Relaxed)) == self.without {
                return;
            }
            let mut state = lock();
            state.done += 1;
            if state.done == self.lanes {
                state.done = 0;
                state.shuffle();
            }
            drop(state);
            changed.notify_all();
            wait(lane);
        };
        let one = |index: usize| {
            let result = catch_unwind(AssertUnwindSafe(|| {
                wait(index);
                task(Lane::new(index, self.lanes, &barrier));
            }));
            let mut state = lock();
            state.done += 1;
            state.failed |= result.is_err();
            drop(state);
            changed.notify_all();
            result
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.lanes).map(|index| scope.spawn(move || one(index))).collect();
            threads.into_iter().map(|thread| thread.join().and_then(|result| result)).collect()
        });
        // The first to panic is the one that says why; it is not always the first by index.
        let panics = results.into_iter().filter_map(Result::err);
        let is_follower = |panic: &Box<dyn std::any::Any + Send>| {
            panic.downcast_ref::<&str>().is_some_and(|text| *text == "another lane panicked")
        };
        if let Some(panic) = panics.min_by_key(is_follower) {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_run_one_at_a_time_and_in_every_order() {
        let pool = Turns::new(3, 1);
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let running = AtomicUsize::new(0);
            let order = Mutex::new(Vec::new());
            pool.run(&|lane| {
                for _ in 0..2 {
                    assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0);
                    order.lock().unwrap().push(lane.index);
                    running.fetch_sub(1, Ordering::Relaxed);
                    lane.barrier();
                }
            });
            let order = order.into_inner().unwrap();
            orders.insert(order[..3].to_vec());
            orders.insert(order[3..].to_vec());
        }
        assert_eq!(orders.len(), 6);
    }
}
