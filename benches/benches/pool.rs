//! What lanes pay to meet.
//!
//! `cargo bench -p dair-benches --bench pool`
//!
//! `barriers` is the time of a hundred barriers, `fork` that of one run of the pool with nothing to do, `late_fork` that of
//! one after a pause in which the lanes fell asleep. With more lanes than processors they take turns.

use dair_core::io::Pool;
use dair_host::machine::pool::Threads;
use divan::Bencher;
use std::thread;
use std::time::Duration;

const LANES: [usize; 3] = [2, 4, 16];

fn main() {
    divan::main();
}

#[divan::bench(args = LANES, max_time = 2)]
fn barriers(bencher: Bencher<'_, '_>, lanes: usize) {
    let pool = Threads::new(lanes).expect("threads");
    bencher.bench_local(|| pool.run(&|lane| (0..100).for_each(|_| lane.barrier())));
}

#[divan::bench(args = LANES, max_time = 2)]
fn fork(bencher: Bencher<'_, '_>, lanes: usize) {
    let pool = Threads::new(lanes).expect("threads");
    bencher.bench_local(|| pool.run(&|_| ()));
}

#[divan::bench(args = LANES, max_time = 2, sample_size = 1)]
fn late_fork(bencher: Bencher<'_, '_>, lanes: usize) {
    let pool = Threads::new(lanes).expect("threads");
    bencher.with_inputs(|| thread::sleep(Duration::from_millis(5))).bench_local_values(|()| pool.run(&|_| ()));
}
