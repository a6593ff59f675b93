//! A day of a cluster whose machines and links fail, on virtual time: no answer is lost or another one, and everybody comes back.

use dair_tests::lives::{Story, live};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Each so long, and all together a day.
const LENGTH: Duration = Duration::from_secs(90);
const LIVES: u64 = 960;

/// `DAIR_LIFE=SEED` lives one of them alone.
#[test]
fn a_day_of_mishaps() {
    let seeds = match std::env::var("DAIR_LIFE") {
        Ok(seed) => vec![seed.parse().expect("DAIR_LIFE is a number")],
        Err(_) => (0..LIVES).collect(),
    };
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = live(*seed, LENGTH);
                    outcomes.lock().expect("nobody panics with it").push((*seed, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("nobody panics with it");
    outcomes.sort_by_key(|(seed, _)| *seed);
    let mut all = Story::default();
    let mut failed = Vec::new();
    for (_, outcome) in outcomes {
        match outcome {
            Ok(story) => all.add(&story),
            Err(error) => failed.push(error),
        }
    }
    println!("{all:?}");
    let count = failed.len();
    failed.truncate(3);
    assert!(count == 0, "{count} lives went wrong:\n{}", failed.join("\n\n"));
    assert!(all.losses > 0 && all.sessions > 0, "{all:?}");
}
