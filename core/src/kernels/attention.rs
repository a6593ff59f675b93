//! Attention of one query head over a key-value cache.

use super::dense::dot;
use super::elementwise::softmax;
use super::lanes::{LANES, Lanes, load_part, store_part};

/// `scores[t] = dot(q, K[t]) / sqrt(head_dim)`, softmax, `out = Σ scores[t] * V[t]`; positions are `scores.len()`.
#[inline(always)]
pub(super) fn attention<S: Lanes>(
    s: S,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    stride: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let head_dim = q.len();
    let root = libm::sqrtf(head_dim as f32);
    for (t, score) in scores.iter_mut().enumerate() {
        *score = dot(s, q, &keys[t * stride..][..head_dim]) / root;
    }
    softmax(s, scores);
    // Vectors of the output stay in registers while all positions pass.
    const WIDE: usize = 4;
    let mut start = 0;
    while start + WIDE * LANES <= head_dim {
        weighted_sum::<S, WIDE>(s, scores, values, stride, start, out);
        start += WIDE * LANES;
    }
    while start + LANES <= head_dim {
        weighted_sum::<S, 1>(s, scores, values, stride, start, out);
        start += LANES;
    }
    if start < head_dim {
        let mut acc = s.splat(0.0);
        for (t, a) in scores.iter().enumerate() {
            let v = load_part(s, &values[t * stride..][start..head_dim], 0.0);
            acc = s.fma(s.splat(*a), v, acc);
        }
        store_part(s, acc, &mut out[start..]);
    }
}

/// `N` vectors of `out`, from element `start`.
#[inline(always)]
fn weighted_sum<S: Lanes, const N: usize>(
    s: S,
    scores: &[f32],
    values: &[f32],
    stride: usize,
    start: usize,
    out: &mut [f32],
) {
    let mut acc = [s.splat(0.0); N];
    for (t, a) in scores.iter().enumerate() {
        let a = s.splat(*a);
        let v = values[t * stride..][start..][..N * LANES].as_chunks().0;
        for k in 0..N {
            acc[k] = s.fma(a, s.load(&v[k]), acc[k]);
        }
    }
    for (acc, out) in acc.into_iter().zip(out[start..].as_chunks_mut().0) {
        s.store(acc, out);
    }
}
