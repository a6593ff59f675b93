//! How fast memory can be read by nothing but reading.

use super::{Rate, Run, timed};
use crate::machine::pool::Threads;
use dair_core::io::Pool;
use std::hint::black_box;

/// Places that a lane reads from at once: the processor fetches ahead of each. Four are as fast as two, one or eight are
/// slower by 7 to 20 % (one Zen 4 core, 256 MiB).
const STREAMS: usize = 4;
/// Words of a step: a line of the cache, in accumulators of its own per stream.
const STEP: usize = 8;

/// Bandwidth of memory with some threads.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth {
    /// Threads that read, each a part of its own.
    pub threads: usize,
    /// 10^9 bytes per second.
    pub gb_per_s: Rate,
}

/// Reads all of `bytes` with all lanes of `pool`.
///
/// # Panics
/// When run, if `bytes` are not aligned to 8.
pub(super) fn run<'r>(bytes: &'r [u8], pool: &'r Threads) -> Run<'r> {
    let words: &[u64] = bytemuck::cast_slice(&bytes[..bytes.len() / 8 * 8]);
    Box::new(move || {
        timed(|| {
            pool.run(&|lane| {
                let share = lane.share(words.len(), STREAMS * STEP);
                black_box(read(&words[share]));
            });
        })
    })
}

/// Sums all words; independent sums leave nothing to wait for but memory.
fn read(words: &[u64]) -> u64 {
    let part = words.len() / STREAMS / STEP * STEP;
    let (parts, rest) = words.split_at(STREAMS * part);
    let (front, back) = parts.split_at(2 * part);
    let ((a, b), (c, d)) = (front.split_at(part), back.split_at(part));
    let mut sums = [[0u64; STEP]; STREAMS];
    let steps = |words| <[u64]>::as_chunks::<STEP>(words).0.iter();
    for (((a, b), c), d) in steps(a).zip(steps(b)).zip(steps(c)).zip(steps(d)) {
        for (sums, words) in sums.iter_mut().zip([a, b, c, d]) {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.iter().flatten().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        for len in [0, 1, 31, 32, 33, 64, 1000] {
            let words: Vec<u64> = (1..=len).map(|i| i * i).collect();
            assert_eq!(read(&words), words.iter().sum::<u64>(), "{len} words");
        }
    }
}
