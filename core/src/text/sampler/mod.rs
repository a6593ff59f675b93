//! Logits to the next token.
//!
//! In this order: penalties for tokens that came up lately, top-k, min-p, temperature, top-p. The choice is that of
//! Distributed-Llama, up to the rounding of `exp` (there an approximation with a relative error of up to 4e-5, here right to
//! about the last bit); a seed is mixed before it becomes the state of the random numbers, which it is not there: 0 gave
//! nothing but zeros, and neighbouring seeds began alike.

mod draw;
mod filters;
mod octaves;
mod random;
mod softmax;

use core::fmt;
use draw::{Masses, sample_all, sample_nucleus};
pub use filters::Filters;
use filters::{narrow, penalize};
pub use octaves::{OCTAVES, Octaves};
use random::Random;
use softmax::{most_probable_of, softmax};

/// Logits that are looked at together, to be passed over where nothing is among them.
const SKIP: usize = 64;

/// A token that may be sampled: scratch memory of [`Sampler::sample`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    p: f32,
    id: u32,
}

/// What of logits a choice depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Looks {
    /// On all of them.
    All,
    /// On so many of the highest; others may be anything lower.
    Best(u32),
    /// On the highest, and on the sum of all: [`Partial`], made with this scale.
    Nucleus(f32),
}

/// What is known of logits where only the highest are there, the others being [`f32::MIN`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partial {
    /// The sum over all tokens, with the scale of [`Looks::Nucleus`].
    pub octaves: Octaves,
    /// Of tokens with this logit or a lower one, some may be missing; [`f32::MIN`] if none is.
    pub floor: f32,
}

/// Tokens matter that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// Chooses the next token: the most probable one, or one at random among the probable.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    filters: Filters,
    random: Random,
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
        Ok(Self { temperature, top_p, filters: Filters::OFF, random: Random::new(seed) })
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

    /// What of logits the choice depends on.
    pub fn looks_at(&self) -> Looks {
        match (self.filters.has_penalties(), self.temperature, self.filters.top_k) {
            // They may bring others to the top.
            (true, ..) => Looks::All,
            (false, 0.0, _) => Looks::Best(1),
            (false, _, 0) if self.has_nucleus() => Looks::Nucleus(self.scale()),
            (false, _, 0) => Looks::All,
            (false, _, top_k) => Looks::Best(top_k),
        }
    }

    fn has_nucleus(&self) -> bool {
        self.top_p > 0.0 && self.top_p < 1.0
    }

    /// Of logits, so that probabilities are proportional to powers of two.
    fn scale(&self) -> f32 {
        core::f32::consts::LOG2_E / self.temperature
    }

    /// Whether it is so cold that only the most probable token is ever drawn: the highest logit, scaled, is as good as infinite.
    fn is_cold(&self, highest: f32) -> bool {
        let scaled = highest * self.scale();
        scaled.is_nan() || scaled.abs() >= octaves::FAR
    }

    /// How many recent tokens the penalties look at, if scratch memory has as many candidates; less memory, fewer tokens.
    pub fn last_n(&self) -> u32 {
        if self.filters.has_penalties() { self.filters.last_n } else { 0 }
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
        let top = logits[most_probable as usize];
        if self.is_cold(top) {
            self.random.next();
            return Ok(most_probable);
        }
        let highest = top / self.temperature;
        narrow(logits, most_probable, &self.filters, scratch);
        let coin = self.random.next();
        if !self.has_nucleus() {
            softmax(logits, self.temperature, highest);
            return Ok(sample_all(logits, coin));
        }
        let octaves = Octaves::of(logits, top, self.scale());
        let masses = Masses { octaves: &octaves, scale: self.scale(), lowest: f32::MIN, floor: f32::MIN };
        let token = sample_nucleus(logits, masses, (self.top_p, coin), scratch);
        Ok(token.ok().flatten().unwrap_or(most_probable))
    }

    /// As [`sample`](Self::sample), which chooses the same token, where only the highest logits are there and
    /// [`looks_at`](Self::looks_at) says that they may do. Where they do not, nothing is changed, and no random number taken.
    ///
    /// # Errors
    /// As [`sample`](Self::sample); [`Unknown`], inside, where others matter.
    ///
    /// # Panics
    /// As [`sample`](Self::sample).
    pub fn sample_partial(
        &mut self,
        logits: &[f32],
        partial: &Partial,
        scratch: &mut [Candidate],
    ) -> Result<Result<u32, Unknown>, SampleError> {
        let most_probable = most_probable_of(logits)?;
        let (top, scale) = (logits[most_probable as usize], self.scale());
        if self.is_cold(top) {
            self.random.next();
            return Ok(Ok(most_probable));
        }
        let mut masses = Masses { octaves: &partial.octaves, scale, lowest: f32::MIN, floor: partial.floor };
        let narrowed;
        if let Some(lowest) = self.filters.lowest(top) {
            // The sum is that of what is left then.
            narrowed = Octaves::of_those(logits, lowest, top, scale);
            masses = Masses { octaves: &narrowed, lowest, floor: f32::MIN, ..masses };
            if lowest <= partial.floor && partial.floor > f32::MIN {
                return Ok(Err(Unknown));
            }
        }
        let mut random = self.random.clone();
        let token = sample_nucleus(logits, masses, (self.top_p, random.next()), scratch);
        Ok(token.map(|token| {
            self.random = random;
            token.unwrap_or(most_probable)
        }))
    }
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
    /// A logit is not finite.
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
                "logits are not finite: token {id} has {found}; the model file or the exchange between nodes is broken"
            ),
        }
    }
}

impl core::error::Error for SampleError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    pub(super) fn sample(sampler: &mut Sampler, logits: &[f32]) -> Result<u32, SampleError> {
        let mut scratch = vec![Candidate::default(); Sampler::scratch_len(logits.len() as u32)];
        sampler.sample(&mut logits.to_vec(), &[], &mut scratch)
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equals_and_no_random_number() {
        let mut sampler = Sampler::new(0.0, 0.9, 7).unwrap();
        assert_eq!(sample(&mut sampler, &[-1.0, 3.0, 2.0, 3.0]), Ok(1));
        assert_eq!(sample(&mut sampler, &[-0.0, 0.0]), Ok(0));
        assert_eq!(sampler.random, Random::new(7));
    }

    #[test]
    fn every_sampled_token_takes_one_random_number() {
        for top_p in [0.5, 1.0] {
            let mut sampler = Sampler::new(0.8, top_p, 42).unwrap();
            let mut reference = sampler.clone();
            sample(&mut sampler, &[0.0, 1.0, 2.0]).unwrap();
            reference.random.next();
            assert_eq!(sampler.random, reference.random);
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
            let mut sampler = Sampler { random: Random::of_state(42), ..Sampler::new(0.8, top_p, 0).unwrap() };
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
            assert_eq!(sampler.random, Random::new(3));
        }
        assert_eq!(sample(&mut Sampler::new(1e-3, 0.9, 3).unwrap(), &[-3e38, 20.0]), Ok(1));
    }

    #[test]
    fn the_colder_the_surer_down_to_the_smallest_temperature() {
        for temperature in [1e-3, 1e-4, 1e-5, 1e-6, 1e-9, 1e-38, f32::from_bits(1)] {
            for top_p in [0.5, 0.9, 1.0] {
                for logits in [
                    [17.0, 19.5, 20.0, 19.0],
                    [-20.0, -19.0, -18.5, -19.5],
                    [-1.0, -2.0, 0.0, -3.0],
                    [1.0, 0.5, 1e30, 2.0],
                ] {
                    let mut sampler = Sampler::new(temperature, top_p, 3).unwrap();
                    assert!(
                        (0..20).all(|_| sample(&mut sampler, &logits) == Ok(2)),
                        "{temperature:e} {top_p} {logits:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn absurd_settings_are_refused() {
        for temperature in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(Sampler::new(temperature, 0.9, 1), Err(SampleError::Temperature { .. })));
        }
        assert!(matches!(Sampler::new(1.0, f32::NAN, 1), Err(SampleError::TopP { .. })));
    }
}
