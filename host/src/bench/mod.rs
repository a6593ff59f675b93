//! How fast this machine computes, and how fast it could: the figures of `dair bench`.
//!
//! [`machine`] says what is there; [`bandwidth`] measures how fast memory can be read, [`kernels`] how fast products of
//! matrices are, out of memory and out of the caches, and [`model`] a whole model. [`plot`] draws the kernels under
//! their roofs: no kernel computes faster than its weights arrive, and none faster than the best on data in a cache.

pub mod bandwidth;
pub mod buffer;
mod caches;
mod error;
mod features;
pub mod kernels;
mod labels;
pub mod machine;
pub mod model;
pub mod plot;

pub use error::BenchError;

use std::time::{Duration, Instant};

/// Most rounds of one measurement: more do not move a median.
const ROUNDS_MAX: usize = 100;

/// Work per second, over several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Half of the runs were faster.
    pub median: f64,
    /// The fastest run.
    pub best: f64,
    /// How many runs there were.
    pub rounds: usize,
}

impl Rate {
    /// The rate of runs that did `work` each; at least one.
    fn of(work: f64, times: &[Duration]) -> Self {
        let mut rates: Vec<_> = times.iter().map(|time| work / time.as_secs_f64().max(1e-9)).collect();
        rates.sort_by(f64::total_cmp);
        let (low, high) = (rates[(rates.len() - 1) / 2], rates[rates.len() / 2]);
        Self { median: f64::midpoint(low, high), best: rates[rates.len() - 1], rounds: rates.len() }
    }

    /// The same in another unit.
    fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, best: self.best * by, ..self }
    }
}

/// Something to be measured: does the same work every time, and says how long it took.
type Run<'r> = Box<dyn FnMut() -> Duration + 'r>;

/// Runs all of them in turn, round by round, as long as another round fits into `budget`: what disturbs the machine for
/// a while disturbs all alike. Everything runs at least once.
fn interleave(runs: &mut [Run<'_>], budget: Duration) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); runs.len()];
    let start = Instant::now();
    for round in 1..=ROUNDS_MAX {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            times.push(run());
        }
        let spent = start.elapsed();
        if spent + spent / round as u32 > budget {
            break;
        }
    }
    times
}

/// Time of one call.
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_middle_of_its_runs() {
        let times = [4, 1, 2].map(Duration::from_secs);
        assert_eq!(Rate::of(8.0, &times), Rate { median: 4.0, best: 8.0, rounds: 3 });
        assert_eq!(Rate::of(8.0, &times[..2]), Rate { median: 5.0, best: 8.0, rounds: 2 });
        assert_eq!(Rate::of(8.0, &times[..1]).scaled(0.5), Rate { median: 1.0, best: 1.0, rounds: 1 });
    }

    #[test]
    fn everything_runs_once_and_nothing_runs_for_ever() {
        for (budget, rounds) in [(Duration::ZERO, 1), (Duration::MAX / 2, ROUNDS_MAX)] {
            let run = || -> Run<'_> { Box::new(|| Duration::from_nanos(1)) };
            let times = interleave(&mut [run(), run()], budget);
            assert!(times.iter().all(|times| times.len() == rounds), "{times:?}");
        }
    }
}
