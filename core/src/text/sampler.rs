//! Logits to the next token.
//!
//! In this order: penalties for tokens that came up lately, top-k, min-p, temperature, top-p. The choice is that of
//! Distributed-Llama, up to the rounding of `exp` (there an approximation with a relative error of up to 4e-5, here right to
//! about the last bit); a seed is mixed before it becomes the state of the random numbers, which it is not there: 0 gave
//! nothing but zeros. Sums of probabilities are sequential F32; the sum of all exponentials is made in lanes. Loops over the
//! whole vocabulary are written for any compiler's vectoriser: they take a twentieth of a small model's time for a token.

use core::fmt;

/// A token that may be sampled: scratch memory of [`Sampler::sample`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    p: f32,
    id: u32,
}

/// Chooses the next token: the most probable one, or one at random among the probable.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    filters: Filters,
    state: u64,
}

/// What narrows the choice before temperature and top-p do, with the meaning that it has in llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filters {
    /// As many of the most probable tokens are left; 0 leaves all.
    pub top_k: u32,
    /// Tokens less probable than this share of the most probable one go away; 0 leaves all.
    pub min_p: f32,
    /// Positive logits of tokens that came up lately are divided by it, others multiplied; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Taken off the logits of tokens that came up lately.
    pub presence_penalty: f32,
    /// Taken off them once for each time that they came up.
    pub frequency_penalty: f32,
    /// How many of the last tokens count as lately.
    pub last_n: u32,
}

impl Filters {
    /// None.
    pub const OFF: Self =
        Self { top_k: 0, min_p: 0.0, repeat_penalty: 1.0, presence_penalty: 0.0, frequency_penalty: 0.0, last_n: 0 };

    fn has_penalties(&self) -> bool {
        self.last_n > 0 && (self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }
}

impl Sampler {
    /// A sampler without filters.
    ///
    /// * `temperature` 0 always takes the most probable token (the lowest id of equals) and uses no random numbers;
    ///   larger values flatten the distribution.
    /// * `top_p` in (0, 1) samples among the most probable tokens that together just exceed it; other values
    ///   sample among all.
    /// * `seed`: any number draws from the distribution, and always the same.
    ///
    /// # Errors
    /// A temperature that is negative or not finite, a `top_p` that is not finite.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Result<Self, SampleError> {
        if !temperature.is_finite() || temperature < 0.0 {
            return Err(SampleError::Temperature { found: temperature });
        }
        if !top_p.is_finite() {
            return Err(SampleError::TopP { found: top_p });
        }
        Ok(Self { temperature, top_p, filters: Filters::OFF, state: mixed(seed) })
    }

    /// With filters.
    #[must_use]
    pub fn with(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// Candidates of scratch memory that [`sample`](Self::sample) needs.
    pub const fn scratch_len(vocab_size: u32) -> usize {
        vocab_size as usize
    }

    /// Chooses a token from its logits, one per id; they are overwritten by probabilities. `recent` are the tokens before it,
    /// the last one last.
    ///
    /// Takes exactly one random number, none if the temperature is 0.
    ///
    /// # Errors
    /// No logits, or one that is not finite: then the model or its weights are broken, and no choice makes sense.
    ///
    /// # Panics
    /// If `scratch` is shorter than [`Sampler::scratch_len`].
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        recent: &[u32],
        scratch: &mut [Candidate],
    ) -> Result<u32, SampleError> {
        let needed = Self::scratch_len(logits.len() as u32);
        assert!(scratch.len() >= needed, "scratch memory of {} candidates, needed are {needed}", scratch.len());
        let mut most_probable = most_probable_of(logits)?;
        if self.filters.has_penalties() {
            penalize(logits, recent, &self.filters, scratch);
            most_probable = most_probable_of(logits)?;
        }
        if self.temperature == 0.0 {
            return Ok(most_probable);
        }
        let highest = logits[most_probable as usize] / self.temperature;
        if !highest.is_finite() {
            return Err(SampleError::NotFinite { id: most_probable, found: highest });
        }
        narrow(logits, most_probable, &self.filters, scratch);
        softmax(logits, self.temperature, highest);
        let coin = self.coin();
        if self.top_p <= 0.0 || self.top_p >= 1.0 {
            return Ok(sample_all(logits, coin));
        }
        Ok(sample_nucleus(logits, self.top_p, coin, scratch).unwrap_or(most_probable))
    }

    /// The next random number in [0, 1), of 24 bits: xorshift64*.
    fn coin(&mut self) -> f32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32;
        (bits >> 8) as f32 / 16_777_216.0
    }
}

/// Spreads seeds over all states but 0, from which only zeros would follow (the finaliser of SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    if z == 0 { 0x9E37_79B9_7F4A_7C15 } else { z }
}

/// Makes tokens that came up lately less probable.
fn penalize(logits: &mut [f32], recent: &[u32], filters: &Filters, scratch: &mut [Candidate]) {
    let count = recent.len().min(filters.last_n as usize).min(scratch.len());
    let lately = &mut scratch[..count];
    for (slot, id) in lately.iter_mut().zip(&recent[recent.len() - count..]) {
        *slot = Candidate { p: 0.0, id: *id };
    }
    lately.sort_unstable_by_key(|candidate| candidate.id);
    for same in lately.chunk_by(|a, b| a.id == b.id) {
        let Some(logit) = logits.get_mut(same[0].id as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / filters.repeat_penalty } else { *logit * filters.repeat_penalty };
        *logit -= filters.presence_penalty + filters.frequency_penalty * same.len() as f32;
    }
}

/// Takes tokens out of the choice, so that their probability becomes 0: all but the `top_k` most probable (of equals those
/// with lower ids), and those below `min_p` of the most probable one.
fn narrow(logits: &mut [f32], most_probable: u32, filters: &Filters, scratch: &mut [Candidate]) {
    let k = filters.top_k as usize;
    if k > 0 && k < logits.len() {
        let candidates = &mut scratch[..logits.len()];
        for ((slot, logit), id) in candidates.iter_mut().zip(&*logits).zip(0..) {
            *slot = Candidate { p: *logit, id };
        }
        candidates.select_nth_unstable_by(k, |a, b| b.p.total_cmp(&a.p).then(a.id.cmp(&b.id)));
        for candidate in &candidates[k..] {
            logits[candidate.id as usize] = f32::NEG_INFINITY;
        }
    }
    if filters.min_p > 0.0 {
        // e^(logit - highest) is how probable a token is beside the most probable one.
        let lowest = logits[most_probable as usize] + libm::logf(filters.min_p);
        for logit in logits {
            *logit = if *logit < lowest { f32::NEG_INFINITY } else { *logit };
        }
    }
}

/// Logits that are looked at together, to be passed over where nothing is among them.
const SKIP: usize = 64;

/// The id with the highest logit, the lowest of equals.
fn most_probable_of(logits: &[f32]) -> Result<u32, SampleError> {
    if logits.is_empty() {
        return Err(SampleError::NoLogits);
    }
    // 0 times a number is 0, unless that is not finite: then the sum is a NaN.
    let (mut highest, mut finite) = ([f32::NEG_INFINITY; 16], [0f32; 16]);
    let (chunks, tail) = logits.as_chunks::<16>();
    for chunk in chunks {
        for ((highest, finite), logit) in highest.iter_mut().zip(&mut finite).zip(chunk) {
            *highest = if *logit > *highest { *logit } else { *highest };
            *finite += 0.0 * logit;
        }
    }
    let highest = highest.iter().chain(tail).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    if finite.iter().any(|x| x.is_nan()) || tail.iter().any(|x| !x.is_finite()) {
        let broken = logits.iter().enumerate().find(|(_, x)| !x.is_finite());
        return Err(broken.map_or(SampleError::NoLogits, |(id, x)| SampleError::NotFinite { id: id as u32, found: *x }));
    }
    // Whole chunks at once until one has it.
    let mut start = 0;
    for chunk in logits.chunks(SKIP) {
        if chunk.iter().fold(false, |found, logit| found | (*logit == highest)) {
            break;
        }
        start += chunk.len();
    }
    let inside = logits[start..].iter().position(|logit| *logit == highest);
    Ok((start + inside.unwrap_or(0)) as u32)
}

/// Turns logits into probabilities; `highest` is the largest of them after the division by the temperature.
fn softmax(logits: &mut [f32], temperature: f32, highest: f32) {
    let mut sums = [0f32; 16];
    let (chunks, tail) = logits.as_chunks_mut::<16>();
    for chunk in chunks {
        for (sum, logit) in sums.iter_mut().zip(chunk) {
            *logit = exp(*logit / temperature - highest);
            *sum += *logit;
        }
    }
    for (sum, logit) in sums.iter_mut().zip(tail) {
        *logit = exp(*logit / temperature - highest);
        *sum += *logit;
    }
    let inverse = 1.0 / sums.iter().sum::<f32>();
    for p in logits {
        *p *= inverse;
    }
}

/// `e^x` for `x` up to 0, right to 2 units in the last place; 0 below the smallest normal number.
///
/// `x = n ln 2 + r`, Taylor's polynomial of degree 7 for `e^r`, `2^n` by exponent bits; without FMA, so that every
/// compiler makes vectors of it and all machines agree.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts; the first has so few bits that its product with `n` is exact.
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

fn sample_all(probabilities: &[f32], coin: f32) -> u32 {
    let mut sum = 0.0;
    for (id, p) in probabilities.iter().enumerate() {
        sum += p;
        if coin < sum {
            return id as u32;
        }
    }
    // Rounding may leave the sum below the coin.
    probabilities.len() as u32 - 1
}

/// Samples among the most probable tokens that together exceed `top_p`, equals in the order of their ids.
///
/// `None` if no token is probable enough to count: `top_p` below the share of a single one.
fn sample_nucleus(probabilities: &[f32], top_p: f32, coin: f32, scratch: &mut [Candidate]) -> Option<u32> {
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

/// Why no token can be sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampleError {
    /// A temperature outside its range.
    Temperature {
        /// The temperature.
        found: f32,
    },
    /// A top-p outside its range.
    TopP {
        /// The top-p.
        found: f32,
    },
    /// There are no logits.
    NoLogits,
    /// A logit, by itself or divided by the temperature, is not finite.
    NotFinite {
        /// The token.
        id: u32,
        /// The logit.
        found: f32,
    },
}

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temperature { found } => {
                write!(f, "temperature is {found}, allowed are finite numbers from 0")
            }
            Self::TopP { found } => write!(f, "top-p is {found}, allowed are finite numbers"),
            Self::NoLogits => write!(f, "there are no logits to sample from"),
            Self::NotFinite { id, found } => write!(
                f,
                "logits are not finite: token {id} has {found}; the model file or the exchange between nodes is broken, \
                 or the temperature is too small"
            ),
        }
    }
}

impl core::error::Error for SampleError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn sample(sampler: &mut Sampler, logits: &[f32]) -> Result<u32, SampleError> {
        let mut scratch = vec![Candidate::default(); Sampler::scratch_len(logits.len() as u32)];
        sampler.sample(&mut logits.to_vec(), &[], &mut scratch)
    }

    fn coins(seed: u64, n: usize) -> Vec<u32> {
        let mut sampler = Sampler { state: seed, ..Sampler::new(1.0, 0.9, 0).unwrap() };
        (0..n).map(|_| (sampler.coin() * 16_777_216.0) as u32).collect()
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in 0..870_000 {
            let x = i as f32 * -1e-4;
            let exact = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-88.0), exp(f32::MIN), exp(f32::NEG_INFINITY)], [0.0; 3]);
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equals_and_no_random_number() {
        let mut sampler = Sampler::new(0.0, 0.9, 7).unwrap();
        assert_eq!(sample(&mut sampler, &[-1.0, 3.0, 2.0, 3.0]), Ok(1));
        assert_eq!(sample(&mut sampler, &[-0.0, 0.0]), Ok(0));
        assert_eq!(sampler.state, mixed(7));
    }

    #[test]
    fn random_numbers_are_xorshift64_star() {
        // State 1: 1 ^ 1 << 25 = 0x2000001, times the multiplier, bits 40 to 63 of the product.
        let state = 0x0200_0001_u64;
        let expected = (u128::from(state) * 0x2545_F491_4F6C_DD1D_u128) as u64 >> 40;
        assert_eq!(u64::from(coins(1, 1)[0]), expected);
        assert_eq!(coins(0, 3), [0, 0, 0]);
        assert_ne!(coins(12345, 2)[0], coins(12345, 2)[1]);
    }

    #[test]
    fn every_sampled_token_takes_one_random_number() {
        for top_p in [0.5, 1.0] {
            let mut sampler = Sampler::new(0.8, top_p, 42).unwrap();
            let mut reference = sampler.clone();
            sample(&mut sampler, &[0.0, 1.0, 2.0]).unwrap();
            reference.coin();
            assert_eq!(sampler.state, reference.state);
        }
    }

    /// How far counts are from what probabilities let expect: the chi-square statistic.
    fn chi_square(counts: &[u32], probabilities: &[f64]) -> f64 {
        let n: u32 = counts.iter().sum();
        let part = |(count, p): (&u32, &f64)| (f64::from(*count) - p * f64::from(n)).powi(2) / (p * f64::from(n));
        counts.iter().zip(probabilities).map(part).sum()
    }

    /// Counts of tokens drawn by `draw` from logits that fall in equal steps, and the statistic of these counts.
    fn statistic(mut draw: impl FnMut(u64, &[f32]) -> u32) -> f64 {
        let logits: Vec<f32> = (0..16).map(|i| i as f32 * -0.25).collect();
        let weights: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut counts = [0; 16];
        for round in 0..20_000 {
            counts[draw(round, &logits) as usize] += 1;
        }
        chi_square(&counts, &weights.iter().map(|weight| weight / sum).collect::<Vec<_>>())
    }

    /// With 15 degrees of freedom, one of 10,000 good generators lies below, one above.
    const GOOD: core::ops::Range<f64> = 2.1..44.3;

    #[test]
    fn first_draws_of_many_seeds_follow_the_distribution() {
        for start in [0, 1 << 32, u64::MAX - 20_000] {
            let found =
                statistic(|seed, logits| sample(&mut Sampler::new(1.0, 1.0, start + seed).unwrap(), logits).unwrap());
            assert!(GOOD.contains(&found), "{found} from seed {start} on");
        }
    }

    #[test]
    fn draws_of_one_seed_follow_the_distribution() {
        for seed in [0, 1, 42, u64::MAX] {
            let mut sampler = Sampler::new(1.0, 1.0, seed).unwrap();
            let found = statistic(|_, logits| sample(&mut sampler, logits).unwrap());
            assert!(GOOD.contains(&found), "{found} with seed {seed}");
        }
    }

    #[test]
    fn a_generator_that_stands_still_is_found_out() {
        // The state is the seed, and the seed 0: what was done before.
        let mut zero = Sampler { state: 0, ..Sampler::new(1.0, 1.0, 0).unwrap() };
        let found = statistic(|_, logits| sample(&mut zero, logits).unwrap());
        assert!(!GOOD.contains(&found), "{found}");
    }

    #[test]
    fn filters_leave_what_they_say() {
        let logits = [2.0, 1.0, 3.0, 1.0, 0.0];
        let drawn = |filters: Filters| {
            let mut sampler = Sampler::new(2.0, 1.0, 5).unwrap().with(filters);
            let mut seen = [false; 5];
            (0..2000).for_each(|_| seen[sample(&mut sampler, &logits).unwrap() as usize] = true);
            (0..5).filter(|id| seen[*id]).collect::<Vec<_>>()
        };
        assert_eq!(drawn(Filters::OFF), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(Filters { top_k: 3, ..Filters::OFF }), [0, 1, 2], "of equals the lower id");
        assert_eq!(drawn(Filters { top_k: 9, ..Filters::OFF }), [0, 1, 2, 3, 4]);
        // e^-1 is 0.37, e^-2 0.14; the temperature does not matter.
        assert_eq!(drawn(Filters { min_p: 0.36, ..Filters::OFF }), [0, 2]);
        assert_eq!(drawn(Filters { min_p: 0.13, ..Filters::OFF }), [0, 1, 2, 3]);
        assert_eq!(drawn(Filters { min_p: 1.0, ..Filters::OFF }), [2]);
    }

    #[test]
    fn penalties_count_the_last_tokens() {
        let filters =
            Filters { repeat_penalty: 2.0, presence_penalty: 0.5, frequency_penalty: 0.25, last_n: 4, ..Filters::OFF };
        let mut logits = [4.0, -4.0, 1.0, 3.0];
        let mut scratch = vec![Candidate::default(); 4];
        // Token 3 came up too long ago, and 9 is none.
        penalize(&mut logits, &[3, 0, 1, 0, 9], &filters, &mut scratch);
        assert_eq!(logits, [4.0 / 2.0 - 0.5 - 0.5, -4.0 * 2.0 - 0.5 - 0.25, 1.0, 3.0]);
        let mut greedy =
            Sampler::new(0.0, 1.0, 1).unwrap().with(Filters { repeat_penalty: 3.0, last_n: 64, ..Filters::OFF });
        assert_eq!(greedy.sample(&mut [2.0, 3.0, 1.0], &[1], &mut scratch), Ok(0));
        assert_eq!(greedy.sample(&mut [2.0, 3.0, 1.0], &[], &mut scratch), Ok(1));
    }

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
    fn frequencies_follow_the_probabilities() {
        let logits = [0.5f32.ln(), 0.1f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        let count = |temperature, top_p| {
            let mut sampler = Sampler::new(temperature, top_p, 99).unwrap();
            let mut counts = [0; 4];
            for _ in 0..20_000 {
                counts[sample(&mut sampler, &logits).unwrap() as usize] += 1;
            }
            counts.map(|count| f64::from(count) / 20_000.0)
        };
        let near = |found: [f64; 4], expected: [f64; 4]| {
            let close = found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 0.02 && (*e > 0.0 || *f == 0.0));
            assert!(close, "{found:?} instead of {expected:?}");
        };
        near(count(1.0, 1.0), [0.5, 0.1, 0.3, 0.1]);
        near(count(1.0, 0.0), [0.5, 0.1, 0.3, 0.1]);
        near(count(1.0, 0.6), [0.625, 0.0, 0.375, 0.0]);
        near(count(1.0, 0.85), [0.5 / 0.9, 0.1 / 0.9, 0.3 / 0.9, 0.0]);
        // At temperature 1/2 probabilities are squared.
        near(count(0.5, 1.0), [0.25 / 0.36, 0.01 / 0.36, 0.09 / 0.36, 0.01 / 0.36]);
    }

    #[test]
    fn a_state_gives_the_tokens_that_it_gives_in_cpp() {
        // Printed by the sampler of C++ Distributed-Llama 0.16 (AVX2) for the same logits.
        let cases = [
            (0.9, [195, 150, 138, 89, 226, 308, 80, 200, 113, 200, 139, 219, 159, 299, 259, 42]),
            (1.0, [132, 232, 210, 248, 226, 262, 80, 200, 130, 201, 139, 145, 299, 14, 93, 264]),
        ];
        for (top_p, expected) in cases {
            let mut lcg = 12345_u64;
            let mut sampler = Sampler { state: 42, ..Sampler::new(0.8, top_p, 0).unwrap() };
            let tokens = expected.map(|_| {
                let logits = [(); 320].map(|()| {
                    lcg = lcg.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let u = (lcg >> 40) as f32 / 16_777_216.0;
                    12.0 * u * u * u * u * u * u * u * u
                });
                sample(&mut sampler, &logits).unwrap()
            });
            assert_eq!(tokens, expected);
        }
    }

    #[test]
    fn a_nucleus_smaller_than_any_token_is_the_most_probable_one() {
        for logits in [[1.0f32; 8].as_slice(), &[3.0]] {
            assert_eq!(sample(&mut Sampler::new(1.0, 0.01, 5).unwrap(), logits), Ok(0));
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        for temperature in [0.0, 0.8] {
            let mut sampler = Sampler::new(temperature, 0.9, 3).unwrap();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = sample(&mut sampler, &[1.0, bad, 2.0]).unwrap_err();
                assert!(matches!(error, SampleError::NotFinite { id: 1, .. }), "{error}");
            }
            assert_eq!(sample(&mut sampler, &[]), Err(SampleError::NoLogits));
            assert_eq!(sampler.state, mixed(3));
        }
        let mut cold = Sampler::new(1e-38, 0.9, 3).unwrap();
        assert!(matches!(sample(&mut cold, &[1.0, 1e30]), Err(SampleError::NotFinite { id: 1, .. })));
        assert_eq!(sample(&mut Sampler::new(1e-3, 0.9, 3).unwrap(), &[-3e38, 20.0]), Ok(1));
    }

    #[test]
    fn absurd_settings_are_refused() {
        for temperature in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(Sampler::new(temperature, 0.9, 1), Err(SampleError::Temperature { .. })));
        }
        assert!(matches!(Sampler::new(1.0, f32::NAN, 1), Err(SampleError::TopP { .. })));
    }
}
