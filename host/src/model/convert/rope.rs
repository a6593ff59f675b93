//! RoPE scaling: what sources say of it, and what a `.m` file can hold.

use dair_core::format::RopeScaling;
use std::f64::consts::TAU;

/// How close a stored factor must be to the formula: they are F32, some were computed in F32.
const TOLERANCE: f64 = 1e-4;
/// Context lengths that Llama 3.1 scaling is recognised for.
const ORIG_SEQ_LENS: [u32; 6] = [2048, 4096, 8192, 16384, 32768, 65536];

/// What the Llama 3.1 formula divides the frequency of pair `j` by.
///
/// With wave length `w = 2π · theta^(2j / head_dim)`: 1 for `w < orig / high`, `factor` for `w > orig / low`,
/// and between them `1 / ((1 - s) / factor + s)` with `s = (orig / w - low) / (high - low)`.
fn llama31_divisor(scaling: &RopeScaling, theta: f64, head_dim: u32, j: u32) -> f64 {
    let wave_len = TAU * theta.powf(f64::from(2 * j) / f64::from(head_dim));
    let (factor, orig) = (f64::from(scaling.factor), f64::from(scaling.orig_seq_len));
    let (low, high) = (f64::from(scaling.low_freq_factor), f64::from(scaling.high_freq_factor));
    if wave_len < orig / high {
        1.0
    } else if wave_len > orig / low {
        factor
    } else {
        let smooth = (orig / wave_len - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

/// Finds the Llama 3.1 parameters that give these `head_dim / 2` divisors: GGUF files carry them instead of the parameters.
/// `None` where no parameters do.
pub fn llama31_of_divisors(divisors: &[f32], theta: f64, head_dim: u32) -> Option<RopeScaling> {
    if divisors.iter().all(|divisor| *divisor == 1.0) {
        return Some(RopeScaling::default());
    }
    let factor = divisors.last()?.round();
    ORIG_SEQ_LENS.into_iter().find_map(|orig_seq_len| {
        let scaling = RopeScaling { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len };
        let fits = (0u32..).zip(divisors).all(|(j, found)| {
            let expected = llama31_divisor(&scaling, theta, head_dim, j);
            (f64::from(*found) - expected).abs() <= TOLERANCE * expected
        });
        (factor > 1.0 && fits).then_some(scaling)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divisors(scaling: &RopeScaling, theta: f64, head_dim: u32) -> Vec<f32> {
        (0..head_dim / 2).map(|j| llama31_divisor(scaling, theta, head_dim, j) as f32).collect()
    }

    #[test]
    fn published_parameters_are_found_again() {
        for (factor, head_dim) in [(8.0, 128), (32.0, 64), (32.0, 128), (16.0, 64)] {
            let scaling = RopeScaling { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 };
            let divisors = divisors(&scaling, 500_000.0, head_dim);
            // All three branches of the formula are in use.
            assert!(divisors[0] == 1.0 && divisors.last() == Some(&factor));
            assert!(divisors.iter().any(|d| *d > 1.0 && *d < factor));
            assert_eq!(llama31_of_divisors(&divisors, 500_000.0, head_dim), Some(scaling));
        }
    }

    #[test]
    fn other_divisors_are_refused() {
        let scaling = RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 };
        let good = divisors(&scaling, 500_000.0, 128);
        for j in [0, 30, 40, 63] {
            let mut bad = good.clone();
            bad[j] *= 1.01;
            assert_eq!(llama31_of_divisors(&bad, 500_000.0, 128), None, "{j}");
        }
        assert_eq!(llama31_of_divisors(&[2.0; 64], 500_000.0, 128), None);
        assert_eq!(llama31_of_divisors(&[], 500_000.0, 128), Some(RopeScaling::default()));
    }

    #[test]
    fn ones_mean_no_scaling() {
        assert_eq!(llama31_of_divisors(&[1.0; 64], 500_000.0, 128), Some(RopeScaling::default()));
    }
}
