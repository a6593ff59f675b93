//! Kernels that go over a row element by element: exponential, softmax, SiLU, norm, RoPE, sums and products.
//!
//! Plain products and sums are written as loops over numbers; the compiler makes vectors of them.

use super::lanes::{LANES, Lanes, load_part, store_part};

const LOG2_E: f32 = core::f32::consts::LOG2_E;
/// ln 2 in two parts; the first has 16 significant bits, so that its product with `n` is exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;
/// Ends of the range in which the result is a normal number: ln 2^-126 and ln 2^127.5, rounded inwards.
const EXP_MIN: f32 = -87.336_54;
const EXP_MAX: f32 = 88.376_25;
/// `(e^r - 1 - r) / r²` at Chebyshev's nodes for |r| <= ln 2 / 2, highest power first; off by 8e-10 relative to `e^r`.
const EXP_COEFFICIENTS: [f32; 6] = [1.989_103e-4, 1.393_368_6e-3, 8.333_31e-3, 4.166_646_3e-2, 1.666_666_7e-1, 5e-1];

/// `e^x` with `x` clamped to the range of normal results; NaN stays NaN.
///
/// `x = n ln 2 + r` (Cody and Waite), a polynomial for `e^r`, `2^n` by exponent bits.
#[inline(always)]
pub(super) fn exp<S: Lanes>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(EXP_MAX), s.max(s.splat(EXP_MIN), x));
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_LOW), s.fma(n, s.splat(-LN2_HIGH), x));
    let mut p = s.splat(EXP_COEFFICIENTS[0]);
    for c in &EXP_COEFFICIENTS[1..] {
        p = s.fma(p, r, s.splat(*c));
    }
    p = s.fma(p, r, s.splat(1.0));
    p = s.fma(p, r, s.splat(1.0));
    s.mul(p, s.pow2(n))
}

/// Softmax in place; a sum of zero counts as 1e-6.
#[inline(always)]
pub(super) fn softmax<S: Lanes>(s: S, x: &mut [f32]) {
    let (_, sum) = exp_sum(s, x);
    scale(s, x, 1.0 / if sum == 0.0 { 1e-6 } else { sum });
}

/// `x = e^(x - max)`; returns `max`, where NaN does not count, and the sum, which is made in 16 lanes and their tree.
#[inline(always)]
pub(super) fn exp_sum<S: Lanes>(s: S, x: &mut [f32]) -> (f32, f32) {
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for chunk in chunks.iter() {
        max = s.max(s.load(chunk), max);
    }
    if !tail.is_empty() {
        max = s.max(load_part(s, tail, f32::NEG_INFINITY), max);
    }
    let largest = s.largest(max);
    let max = s.splat(largest);
    let mut sum = s.splat(0.0);
    for chunk in chunks.iter_mut() {
        let e = exp(s, s.sub(s.load(chunk), max));
        s.store(e, chunk);
        sum = s.add(sum, e);
    }
    if !tail.is_empty() {
        store_part(s, exp(s, s.sub(load_part(s, tail, 0.0), max)), tail);
        sum = s.add(sum, load_part(s, tail, 0.0));
    }
    (largest, s.sum(sum))
}

/// `x = x / (1 + e^-x)`
#[inline(always)]
pub(super) fn silu<S: Lanes>(s: S, x: &mut [f32]) {
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        s.store(silu_of(s, s.load(chunk)), chunk);
    }
    if !tail.is_empty() {
        store_part(s, silu_of(s, load_part(s, tail, 0.0)), tail);
    }
}

#[inline(always)]
fn silu_of<S: Lanes>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// `y = fma(a, x, y)`
#[inline(always)]
pub(super) fn add_scaled<S: Lanes>(s: S, y: &mut [f32], a: f32, x: &[f32]) {
    let a = s.splat(a);
    let (y, y_tail) = y.as_chunks_mut();
    let (x, x_tail) = x.as_chunks();
    for (y, x) in y.iter_mut().zip(x) {
        s.store(s.fma(a, s.load(x), s.load(y)), y);
    }
    if !y_tail.is_empty() {
        store_part(s, s.fma(a, load_part(s, x_tail, 0.0), load_part(s, y_tail, 0.0)), y_tail);
    }
}

/// `x = w * (inv_rms * x)`
#[inline(always)]
pub(super) fn rms_norm<S: Lanes>(_: S, x: &mut [f32], inv_rms: f32, weight: &[u8]) {
    for (x, w) in x.iter_mut().zip(weight.as_chunks().0) {
        *x = f32::from_le_bytes(*w) * (inv_rms * *x);
    }
}

/// `x = x * by`, element by element.
#[inline(always)]
pub(super) fn mul<S: Lanes>(_: S, x: &mut [f32], by: &[f32]) {
    for (x, by) in x.iter_mut().zip(by) {
        *x *= by;
    }
}

/// `x = x * by`
#[inline(always)]
pub(super) fn scale<S: Lanes>(_: S, x: &mut [f32], by: f32) {
    for x in x {
        *x *= by;
    }
}

/// `x = x + y`
#[inline(always)]
pub(super) fn add<S: Lanes>(_: S, x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// RoPE on neighbours.
#[inline(always)]
pub(super) fn rotate_pairs<S: Lanes>(_: S, x: &mut [f32], cos_sin: &[f32]) {
    for ([a, b], [cos, sin]) in x.as_chunks_mut().0.iter_mut().zip(cos_sin.as_chunks().0) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// RoPE on halves.
#[inline(always)]
pub(super) fn rotate_halves<S: Lanes>(_: S, x: &mut [f32], cos_sin: &[f32]) {
    let (low, high) = x.split_at_mut(x.len() / 2);
    for ((a, b), [cos, sin]) in low.iter_mut().zip(high).zip(cos_sin.as_chunks().0) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::Scalar;
    use super::*;

    fn exp1(x: f32) -> f32 {
        exp(Scalar, [x; LANES])[0]
    }

    #[test]
    fn exp_is_within_one_unit_in_the_last_place() {
        let mut worst = 0f64;
        for (start, end) in [(1e-10f32, EXP_MAX), (-1e-10, EXP_MIN)] {
            for bits in (start.to_bits()..end.to_bits()).step_by(1009) {
                let x = f32::from_bits(bits);
                let exact = libm::exp(f64::from(x));
                let (_, exponent) = libm::frexp(exact);
                let ulp = libm::ldexp(1.0, exponent - 24);
                worst = worst.max(libm::fabs(f64::from(exp1(x)) - exact) / ulp);
            }
        }
        // Over every third number of the range the largest error is 0.874.
        assert!(worst < 0.88, "{worst} ulp");
    }

    #[test]
    fn exp_saturates_at_normal_numbers() {
        assert_eq!(exp1(0.0), 1.0);
        for low in [EXP_MIN, -100.0, f32::NEG_INFINITY] {
            assert!(exp1(low) >= f32::MIN_POSITIVE && exp1(low) < 1.2e-38, "{low}: {:e}", exp1(low));
        }
        for high in [EXP_MAX, 100.0, f32::INFINITY] {
            assert!(exp1(high) > 2.4e38 && exp1(high).is_finite(), "{high}: {:e}", exp1(high));
        }
        assert!(exp1(f32::NAN).is_nan());
    }
}
