//! Logits to probabilities. Loops over the whole vocabulary are written for any compiler's vectoriser: they take a twentieth
//! of a small model's time for a token.

use super::{SKIP, SampleError};

/// The id with the highest logit, the lowest of equals.
pub(super) fn most_probable_of(logits: &[f32]) -> Result<u32, SampleError> {
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
pub(super) fn softmax(logits: &mut [f32], temperature: f32, highest: f32) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
