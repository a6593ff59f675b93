//! Probabilities and a random number to a token. Sums of probabilities are sequential F32.

use super::octaves::{Octaves, Weight};
use super::{Candidate, SKIP, Unknown};

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

/// What a nucleus is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masses<'m> {
    /// The sum over all tokens that may be drawn.
    pub octaves: &'m Octaves,
    /// What logits are multiplied with before they become powers of two.
    pub scale: f32,
    /// Tokens with a lower logit are not drawn.
    pub lowest: f32,
    /// Of tokens with this logit or a lower one, not all may be there.
    pub floor: f32,
}

/// Samples among the most probable tokens that together exceed `top_p`, equals in the order of their ids: the token, or none if
/// none is probable enough to count, `top_p` being below the share of a single one.
///
/// # Errors
/// [`Unknown`] where tokens may belong to the nucleus that are not there.
pub(super) fn sample_nucleus(
    logits: &[f32],
    masses: Masses<'_>,
    (top_p, coin): (f32, f32),
    scratch: &mut [Candidate],
) -> Result<Option<u32>, Unknown> {
    let Masses { octaves, scale, lowest, floor } = masses;
    let inverse = octaves.inverse();
    let probability = |logit: f32| Weight::of(logit * scale).probability(octaves.highest, inverse);
    let unknown = probability(floor);
    // A token below the average of the rest can't belong to the nucleus: less to sort.
    let cutoff = (1.0 - top_p) / (logits.len() - 1) as f32;
    // No logit below this has as much; a little lower, for what rounding does.
    let least = lowest.max((cutoff_exponent(octaves, cutoff) - 0.01) / scale);
    let mut len = 0;
    for (chunk, start) in logits.chunks(SKIP).zip((0..).step_by(SKIP)) {
        // Most chunks have no candidate.
        if !chunk.iter().fold(false, |found, logit| found | (*logit >= least)) {
            continue;
        }
        for (&logit, id) in chunk.iter().zip(start..) {
            let p = if logit >= least { probability(logit) } else { 0.0 };
            if p >= cutoff && p > 0.0 {
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
    let least = if sum > top_p { nucleus[size - 1].p } else { cutoff };
    if least <= unknown && floor > f32::MIN {
        return Err(Unknown);
    }
    let target = coin * sum;
    let mut sum = 0.0;
    for candidate in nucleus {
        sum += candidate.p;
        if target < sum {
            return Ok(Some(candidate.id));
        }
    }
    Ok(nucleus.last().map(|candidate| candidate.id))
}

/// The scaled logit of a token with this share of the sum, to some rounding.
fn cutoff_exponent(octaves: &Octaves, share: f32) -> f32 {
    octaves.highest as f32 - 24.0 + libm::log2f(share / octaves.inverse())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    const SCALE: f32 = core::f32::consts::LOG2_E;

    fn logits(n: usize, flatness: usize) -> Vec<f32> {
        // Equals are there; no two neighbours are.
        (0..n).map(|i| (i * 37 % 211) as f32 / flatness as f32).collect()
    }

    fn whole(octaves: &Octaves) -> Masses<'_> {
        Masses { octaves, scale: SCALE, lowest: f32::MIN, floor: f32::MIN }
    }

    fn octaves_of(logits: &[f32]) -> Octaves {
        Octaves::of(logits, logits.iter().fold(f32::MIN, |a: f32, b| a.max(*b)), SCALE)
    }

    #[test]
    fn a_nucleus_of_any_size_is_that_of_sorted_candidates() {
        let n = 1000;
        let mut scratch = vec![Candidate::default(); n];
        for (round, top_p) in [0.05, 0.3, 0.6, 0.9, 0.99, 0.999_999].into_iter().enumerate() {
            let logits = logits(n, 10 + 20 * round);
            let (coin, octaves) = (0.17 * (round + 1) as f32, octaves_of(&logits));
            let p = |logit: &f32| Weight::of(logit * SCALE).probability(octaves.highest, octaves.inverse());
            let mut sorted: Vec<_> = logits.iter().map(p).enumerate().collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let cutoff = (1.0 - top_p) / (n - 1) as f32;
            sorted.retain(|(_, p)| *p >= cutoff);
            let mut sum = 0.0;
            let size = sorted.iter().take_while(|(_, p)| (sum <= top_p, sum += p).0).count();
            let total = sorted[..size].iter().fold(0.0, |sum, (_, p)| sum + p);
            let mut sum = 0.0;
            let chosen = sorted[..size].iter().find(|(_, p)| (sum += p, coin * total < sum).1);
            let expected = chosen.unwrap_or(&sorted[size - 1]).0 as u32;
            let found = sample_nucleus(&logits, whole(&octaves), (top_p, coin), &mut scratch);
            assert_eq!(found, Ok(Some(expected)), "{size} of {n} for {top_p}");
        }
    }

    /// With the best tokens only, the choice is the same or none.
    #[test]
    fn a_nucleus_of_what_is_known_is_that_of_all_or_unknown() {
        let n = 1000;
        let mut scratch = vec![Candidate::default(); n];
        let mut known = [0; 2];
        for (flatness, top_p) in [5, 8, 20, 60].into_iter().flat_map(|f| [0.1, 0.5, 0.9, 0.99].map(|top_p| (f, top_p)))
        {
            let all = logits(n, flatness);
            let octaves = octaves_of(&all);
            for (floor, coin) in (0..211).step_by(10).zip((0..97).cycle()) {
                let (floor, coin) = (floor as f32 / flatness as f32, coin as f32 / 97.0);
                let some: Vec<_> = all.iter().map(|x| if *x > floor { *x } else { f32::MIN }).collect();
                let wanted = sample_nucleus(&all, whole(&octaves), (top_p, coin), &mut scratch);
                let found = sample_nucleus(&some, Masses { floor, ..whole(&octaves) }, (top_p, coin), &mut scratch);
                assert!(found == wanted || found == Err(Unknown), "{flatness} {top_p} {floor} {coin}");
                known[usize::from(found.is_ok())] += 1;
            }
        }
        assert!(known.iter().all(|count| *count > 50), "{known:?}");
    }

    #[test]
    fn rounding_draws_no_token_that_a_filter_took_out() {
        // The largest random number that there is, and probabilities whose sum lies below it.
        let largest = 16_777_215.0 / 16_777_216.0;
        assert_eq!(sample_all(&[0.5, 0.25, 0.249_999, 0.0, 0.0], largest), 2);
        assert_eq!(sample_all(&[0.0, 0.999_999, 0.0], largest), 1);
    }
}
