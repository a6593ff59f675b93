//! The weight of all tokens together, `Σ 2^x`, as a sum that does not depend on who adds which part of it.
//!
//! A logit is scaled to `x`, so that `2^x` is proportional to the token's probability, and `2^x = q 2^n`: an integer and an
//! octave. Integers of one octave are added exactly, and octaves far below the highest count for nothing; so parts that several
//! nodes add up, and one sum of all, are the same, to the last bit.

/// Octaves that count: what lies below the last is less than 2^-40 of the most probable token, all tokens of a vocabulary
/// together less than F32 resolves.
pub const OCTAVES: usize = 40;

/// Scaled logits beyond this are taken for it: rounded, they would be wrong.
pub(super) const FAR: f32 = 1e6;

/// Sums of `q`, octave by octave, the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octaves {
    /// The octave of the first sum.
    pub highest: i32,
    /// A vocabulary of 2^32 tokens fits.
    pub sums: [u64; OCTAVES],
}

/// A token's `2^x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    q: u32,
    octave: i32,
}

impl Weight {
    /// Of a scaled logit, right to two units in the last place of F32: Taylor's polynomial of degree 7, without FMA, so that every
    /// compiler makes vectors of it and all machines agree.
    #[inline(always)]
    pub fn of(x: f32) -> Self {
        /// Adding it rounds to an integer, in the lowest bits of the sum.
        const ROUND: f32 = 12_582_912.0;
        let x = if x > -FAR { x } else { -FAR };
        let x = if x < FAR { x } else { FAR };
        let shifted = x + ROUND;
        let r = (x - (shifted - ROUND)) * core::f32::consts::LN_2;
        let mut p = 1.0 / 5040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p * r + c;
        }
        // Half a step is added for rounding; p lies between 0.7 and 1.5.
        Self {
            q: (p * 16_777_216.0 + 0.5) as i32 as u32,
            octave: shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32,
        }
    }

    /// As a share of the sum whose inverse this is.
    pub fn probability(&self, highest: i32, inverse: f32) -> f32 {
        let below = highest.saturating_sub(self.octave);
        // A power of two, down to the smallest normal number.
        let power = if (0..126).contains(&below) { f32::from_bits((127 - below as u32) << 23) } else { 0.0 };
        self.q as f32 * power * inverse
    }
}

impl Octaves {
    /// None, below an octave.
    const fn empty(highest: i32) -> Self {
        Self { highest, sums: [0; OCTAVES] }
    }

    /// Of these logits, of which none exceeds `highest`, times `scale`.
    pub fn of(logits: &[f32], highest: f32, scale: f32) -> Self {
        Self::of_those(logits, f32::NEG_INFINITY, highest, scale)
    }

    /// Of those that are not below `lowest`.
    pub(super) fn of_those(logits: &[f32], lowest: f32, highest: f32, scale: f32) -> Self {
        let mut new = Self::empty(Weight::of(highest * scale).octave);
        let mut weights = [Weight::default(); 16];
        for chunk in logits.chunks(weights.len()) {
            for (weight, logit) in weights.iter_mut().zip(chunk) {
                *weight = Weight::of(if *logit < lowest { f32::NEG_INFINITY } else { logit * scale });
            }
            weights[..chunk.len()].iter().for_each(|weight| new.add(*weight));
        }
        new
    }

    fn add(&mut self, Weight { q, octave }: Weight) {
        if let Some(sum) = self.sums.get_mut(self.highest.wrapping_sub(octave) as u32 as usize) {
            *sum += u64::from(q);
        }
    }

    /// With those of other tokens.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut all = Self::empty(self.highest.max(other.highest));
        for part in [self, other] {
            let below = all.highest.saturating_sub(part.highest) as usize;
            for (sum, part) in all.sums.iter_mut().skip(below).zip(&part.sums) {
                *sum = sum.saturating_add(*part);
            }
        }
        all
    }

    /// The inverse of the sum, in units of the highest octave.
    pub(super) fn inverse(&self) -> f32 {
        let sum = self.sums.iter().rev().fold(0.0f64, |sum, octave| sum / 2.0 + *octave as f64);
        (1.0 / sum) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn highest(logits: &[f32]) -> f32 {
        logits.iter().copied().fold(f32::MIN, f32::max)
    }

    #[test]
    fn a_weight_is_a_power_of_two_to_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -200_000..200_000 {
            let x = i as f32 * 1e-4;
            let Weight { q, octave } = Weight::of(x);
            let found = f64::from(q) / 16_777_216.0 * libm::exp2(f64::from(octave));
            worst = worst.max((found / libm::exp2(f64::from(x)) - 1.0).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(Weight::of(0.0), Weight { q: 1 << 24, octave: 0 });
        for far in [f32::MIN, f32::NEG_INFINITY, f32::MAX, f32::INFINITY] {
            assert_eq!(Weight::of(far).octave.unsigned_abs(), 1_000_000);
        }
    }

    #[test]
    fn the_sum_is_that_of_a_softmax() {
        let logits: std::vec::Vec<f32> = (0..5000).map(|i| (i * 37 % 211) as f32 / 9.0 - 12.0).collect();
        let octaves = Octaves::of(&logits, highest(&logits), core::f32::consts::LOG2_E);
        let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(*x))).sum();
        for logit in [highest(&logits), 0.0, -3.5] {
            let weight = Weight::of(logit * core::f32::consts::LOG2_E);
            let p = f64::from(weight.probability(octaves.highest, octaves.inverse()));
            let exact = libm::exp(f64::from(logit)) / sum;
            assert!((p / exact - 1.0).abs() < 3e-6, "{p} instead of {exact}");
        }
    }

    proptest! {
        /// Whoever adds up which part: the sum is the same.
        #[test]
        fn parts_add_up_to_the_whole(logits in prop::collection::vec(-200f32..200.0, 2..300), cut in 0.0..1.0f64, scale in 0.1f32..40.0) {
            let cut = 1 + ((logits.len() - 1) as f64 * cut) as usize;
            let (a, b) = logits.split_at(cut.min(logits.len() - 1));
            let of = |logits: &[f32]| Octaves::of(logits, highest(logits), scale);
            prop_assert_eq!(of(a).with(&of(b)), of(&logits));
            prop_assert_eq!(of(b).with(&of(a)), of(&logits));
        }
    }
}
