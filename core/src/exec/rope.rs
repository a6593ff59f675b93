//! RoPE angles: frequencies once, a row of sines and cosines per token.

use crate::format::{RopeKind, RopeScaling};

/// What the frequencies of a model depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Frequencies {
    pub kind: RopeKind,
    pub theta: f32,
    pub scaling: RopeScaling,
    /// 0 in a graph without RoPE.
    pub head_dim: u32,
}

impl Frequencies {
    /// Writes `head_dim / 2` frequencies: `theta^(-2j / head_dim)`, stretched as Llama 3.1 asks.
    ///
    /// Stretching applies where the factor is not 1 and pairs are neighbours, as in the C++ system.
    pub fn fill(&self, out: &mut [f32]) {
        for (j, frequency) in out.iter_mut().enumerate() {
            let exponent = (2 * j) as f32 / self.head_dim as f32;
            *frequency = 1.0 / libm::pow(f64::from(self.theta), f64::from(exponent)) as f32;
            if self.scaling.factor != 1.0 && self.kind != RopeKind::Falcon {
                *frequency = stretch(*frequency, &self.scaling);
            }
        }
    }
}

/// Llama 3.1: long waves are stretched by the factor, short ones stay, those between are blended.
fn stretch(frequency: f32, scaling: &RopeScaling) -> f32 {
    let original = scaling.orig_seq_len as f32;
    let wave_len = (core::f64::consts::TAU / f64::from(frequency)) as f32;
    if wave_len < original / scaling.high_freq_factor {
        return frequency;
    }
    if wave_len > original / scaling.low_freq_factor {
        return frequency / scaling.factor;
    }
    let blend = (original / wave_len - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    (1.0 - blend) * frequency / scaling.factor + blend * frequency
}

/// Writes cosine and sine of each angle at `position`: `cos0, sin0, cos1, sin1, …`.
pub(super) fn fill_row(frequencies: &[f32], position: u32, out: &mut [f32]) {
    for (pair, frequency) in out.as_chunks_mut::<2>().0.iter_mut().zip(frequencies) {
        let angle = position as f32 * frequency;
        *pair = [libm::cosf(angle), libm::sinf(angle)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_from_one_by_equal_ratios() {
        let mut out = [0.0; 4];
        Frequencies { theta: 10_000.0, head_dim: 8, ..Frequencies::default() }.fill(&mut out);
        for (got, want) in out.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
        }
    }

    #[test]
    fn llama_31_stretches_long_waves_only() {
        let scaling = RopeScaling { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 };
        assert_eq!(stretch(1.0, &scaling), 1.0);
        assert_eq!(stretch(1e-5, &scaling), 1e-5 / 32.0);
        let between = core::f32::consts::TAU / 4096.0;
        let stretched = stretch(between, &scaling);
        assert!(stretched < between && stretched > between / 32.0);
    }
}
