//! Random numbers: xorshift64* as in Distributed-Llama, from a seed that is mixed first.

/// A stream of random numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Random {
    /// Never 0, from which only zeros would follow.
    state: u64,
}

impl Random {
    /// The stream of a seed. Without mixing, 0 would stand still, and the first numbers of neighbouring seeds would lie in
    /// equal steps.
    pub(super) fn new(seed: u64) -> Self {
        Self { state: mixed(seed) }
    }

    /// The next number in [0, 1), of 24 bits.
    pub(super) fn next(&mut self) -> f32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32;
        (bits >> 8) as f32 / 16_777_216.0
    }

    /// A stream from a state as it is.
    #[cfg(test)]
    pub(super) fn of_state(state: u64) -> Self {
        Self { state }
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

#[cfg(test)]
mod tests {
    use super::super::{Sampler, tests::sample};
    use super::*;
    use std::vec::Vec;

    fn coins(state: u64, n: usize) -> Vec<u32> {
        let mut random = Random::of_state(state);
        (0..n).map(|_| (random.next() * 16_777_216.0) as u32).collect()
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

    /// Tokens, whose logits fall in equal steps.
    const TOKENS: usize = 6;
    const ROUNDS: u64 = 20_000;
    /// Chi-square of 35 degrees of freedom: of 10,000 good generators one lies below, one above.
    const GOOD: core::ops::Range<f64> = 11.8..75.3;

    /// Draws two tokens by `draw` again and again: how far the counts of the pairs are from those of independent draws that
    /// follow the distribution (Pearson's chi-square).
    fn statistic(mut draw: impl FnMut(u64, &[f32]) -> [u32; 2]) -> f64 {
        let logits = [0.0, -0.25, -0.5, -0.75, -1.0, -1.25];
        let weights = logits.map(|logit: f32| f64::from(logit).exp());
        let sum: f64 = weights.iter().sum();
        let mut counts = [[0u32; TOKENS]; TOKENS];
        for round in 0..ROUNDS {
            let [first, second] = draw(round, &logits);
            counts[first as usize][second as usize] += 1;
        }
        let expected = |a: usize, b: usize| weights[a] * weights[b] / (sum * sum) * ROUNDS as f64;
        let cells = (0..TOKENS).flat_map(|a| (0..TOKENS).map(move |b| (a, b)));
        cells.map(|(a, b)| (f64::from(counts[a][b]) - expected(a, b)).powi(2) / expected(a, b)).sum()
    }

    /// What makes a sampler of a seed.
    type Make<'m> = &'m dyn Fn(u64) -> Sampler;

    fn mixing(seed: u64) -> Sampler {
        Sampler::new(1.0, 1.0, seed).unwrap()
    }

    /// The seed is the state as it is.
    fn unmixed(seed: u64) -> Sampler {
        Sampler { random: Random::of_state(seed), ..mixing(0) }
    }

    /// First draws of a seed and of the next one.
    fn neighbours(make: Make<'_>, start: u64) -> f64 {
        statistic(|round, logits| {
            [0, 1].map(|next| sample(&mut make(start.wrapping_add(2 * round + next)), logits).unwrap())
        })
    }

    /// First and second draw of a seed.
    fn beginnings(make: Make<'_>, start: u64) -> f64 {
        statistic(|round, logits| {
            let mut sampler = make(start.wrapping_add(round));
            [(); 2].map(|()| sample(&mut sampler, logits).unwrap())
        })
    }

    /// All draws of one seed.
    fn stream(make: Make<'_>, seed: u64) -> f64 {
        let mut sampler = make(seed);
        statistic(|_, logits| [(); 2].map(|()| sample(&mut sampler, logits).unwrap()))
    }

    #[test]
    fn draws_of_many_seeds_are_independent_and_follow_the_distribution() {
        // Small seeds, seconds since 1970, large ones.
        for start in [0, 1_700_000_000, 1 << 32, 1 << 52, 0u64.wrapping_sub(ROUNDS)] {
            for (name, found) in
                [("neighbours", neighbours(&mixing, start)), ("beginnings", beginnings(&mixing, start))]
            {
                assert!(GOOD.contains(&found), "{name} from {start}: {found}");
            }
        }
    }

    #[test]
    fn draws_of_one_seed_are_independent_and_follow_the_distribution() {
        for seed in [0, 1, 42, (1 << 53) - 1, u64::MAX] {
            let found = stream(&mixing, seed);
            assert!(GOOD.contains(&found), "seed {seed}: {found}");
        }
    }

    #[test]
    fn broken_generators_are_found_out() {
        let zero = stream(&unmixed, 0);
        assert!(zero > GOOD.end, "a state of 0: {zero}");
        for start in [1, 1_700_000_000] {
            let found = neighbours(&unmixed, start);
            assert!(found > GOOD.end, "unmixed seeds from {start}: {found}");
        }
        let same: Make<'_> = &|_| mixing(7);
        assert!(neighbours(same, 0) > GOOD.end, "every seed draws the same");
    }
}
