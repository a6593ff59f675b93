//! Probabilities and a random number to a token. Sums of probabilities are sequential F32.

use super::{Candidate, SKIP};

/// Samples among all tokens.
pub(super) fn sample_all(probabilities: &[f32], coin: f32) -> u32 {
    let mut sum = 0.0;
    for (id, p) in probabilities.iter().enumerate() {
        sum += p;
        if coin < sum {
            return id as u32;
        }
    }
    // Rounding may leave the sum below the coin. What a filter took out is not drawn even then.
    probabilities.iter().rposition(|p| *p > 0.0).unwrap_or(0) as u32
}

/// Samples among the most probable tokens that together exceed `top_p`, equals in the order of their ids.
///
/// `None` if no token is probable enough to count: `top_p` below the share of a single one.
pub(super) fn sample_nucleus(probabilities: &[f32], top_p: f32, coin: f32, scratch: &mut [Candidate]) -> Option<u32> {
    // A token below the average of the rest can't belong to the nucleus: less to sort.
    let cutoff = (1.0 - top_p) / (probabilities.len() - 1) as f32;
    let mut len = 0;
    for (chunk, start) in probabilities.chunks(SKIP).zip((0..).step_by(SKIP)) {
        // Most chunks have no candidate.
        if !chunk.iter().fold(false, |found, p| found | (*p >= cutoff)) {
            continue;
        }
        for (&p, id) in chunk.iter().zip(start..) {
            if p >= cutoff {
                scratch[len] = Candidate { p, id };
                len += 1;
            }
        }
    }
    let candidates = &mut scratch[..len];
    let falling = |a: &Candidate, b: &Candidate| b.p.total_cmp(&a.p).then(a.id.cmp(&b.id));
    // A nucleus is small as a rule: the first candidates are sorted, then, while they do not suffice, some more.
    let (mut sum, mut size, mut sorted) = (0.0, 0, 0);
    while sorted < len && sum <= top_p {
        let end = len.min(SKIP.max(4 * sorted));
        if end < len {
            candidates[sorted..].select_nth_unstable_by(end - sorted, falling);
        }
        candidates[sorted..end].sort_unstable_by(falling);
        sorted = end;
        while size < sorted && sum <= top_p {
            sum += candidates[size].p;
            size += 1;
        }
    }
    let nucleus = &candidates[..size];
    let target = coin * sum;
    let mut sum = 0.0;
    for candidate in nucleus {
        sum += candidate.p;
        if target < sum {
            return Some(candidate.id);
        }
    }
    nucleus.last().map(|candidate| candidate.id)
}

#[cfg(test)]
mod tests {
    use super::super::softmax::softmax;
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn a_nucleus_of_any_size_is_that_of_sorted_candidates() {
        let n = 1000;
        let mut scratch = vec![Candidate::default(); n];
        for (round, top_p) in [0.05, 0.3, 0.6, 0.9, 0.99, 0.999_999].into_iter().enumerate() {
            // Equals are there; no two neighbours are.
            let mut logits: Vec<f32> = (0..n).map(|i| (i * 37 % 211) as f32 / (10 + 20 * round) as f32).collect();
            let coin = 0.17 * (round + 1) as f32;
            let highest = logits.iter().fold(0.0, |a: f32, b| a.max(*b));
            softmax(&mut logits, 1.0, highest);
            let mut sorted: Vec<_> = logits.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let cutoff = (1.0 - top_p) / (n - 1) as f32;
            sorted.retain(|(_, p)| *p >= cutoff);
            let mut sum = 0.0;
            let size = sorted.iter().take_while(|(_, p)| (sum <= top_p, sum += p).0).count();
            let total = sorted[..size].iter().fold(0.0, |sum, (_, p)| sum + p);
            let mut sum = 0.0;
            let chosen = sorted[..size].iter().find(|(_, p)| (sum += p, coin * total < sum).1);
            let expected = chosen.unwrap_or(&sorted[size - 1]).0 as u32;
            assert_eq!(sample_nucleus(&logits, top_p, coin, &mut scratch), Some(expected), "{size} of {n} for {top_p}");
        }
    }

    #[test]
    fn rounding_draws_no_token_that_a_filter_took_out() {
        // The largest random number that there is, and probabilities whose sum lies below it.
        let largest = 16_777_215.0 / 16_777_216.0;
        assert_eq!(sample_all(&[0.5, 0.25, 0.249_999, 0.0, 0.0], largest), 2);
        assert_eq!(sample_all(&[0.0, 0.999_999, 0.0], largest), 1);
    }
}
