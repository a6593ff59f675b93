//! How far two runs are apart, and how far they may be.

use dair_core::format::{Arch, Header};
use dair_core::plan::{Cut, Way};
use dair_core::quant::DType;
use std::fmt;

/// Largest error relative to the largest logit of a row: what F32 arithmetic and its order of sums cost.
pub const BOUND: f64 = 1e-5;
/// Largest error after a flip: an activation on the edge between two codes got the other one. Few rows have one, but
/// the cache keeps it for all that follow.
pub const BOUND_AFTER_FLIP: f64 = 5e-2;

/// How far `got` is from `want`, relative to the largest value of `want`.
pub fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f64, |max, x| max.max(x.abs()));
    let errors = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs());
    let worst = errors.fold(0f64, |worst, error| if error <= worst { worst } else { error });
    assert!(!worst.is_nan(), "NaN among the logits");
    worst / largest
}

/// Shares for [`Agreement::assert_close`] that a run needs: quantised activations flip now and then, and a flip may send
/// a token to another expert.
pub fn shares(cut: &Cut, header: &Header) -> (f64, f64) {
    let exchange = match cut.way {
        Way::Rows { .. } => DType::F32,
        Way::Columns { exchange, .. } => exchange,
    };
    match ([cut.activation, exchange], header.arch) {
        ([DType::F32, DType::F32], _) => (1.0, 0.0),
        (_, Arch::Llama | Arch::Qwen3) => (0.75, 0.0),
        (_, Arch::Qwen3Moe) => (0.75, 0.02),
    }
}

/// Index of the largest value, the first where several are equal.
pub fn argmax<T: PartialOrd>(values: &[T]) -> usize {
    (0..values.len()).fold(0, |best, index| if values[index] > values[best] { index } else { best })
}

/// What a comparison of many rows found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreement {
    /// Rows compared.
    pub rows: usize,
    /// Rows that agree within [`BOUND`].
    pub close: usize,
    /// Largest error of these.
    pub error: f64,
    /// Largest error of the others.
    pub error_after_flip: f64,
    /// Rows further away than [`BOUND_AFTER_FLIP`].
    pub far: usize,
}

impl Agreement {
    /// Compares the rows of one sequence; `name` is for messages.
    ///
    /// # Panics
    /// If a row has another most likely token although its error does not explain that.
    #[track_caller]
    pub fn add(&mut self, name: &str, got: &[Vec<f32>], want: &[Vec<f64>]) {
        assert_eq!(got.len(), want.len(), "{name}: rows");
        for (token, (got, want)) in got.iter().zip(want).enumerate() {
            let error = relative_error(got, want);
            self.rows += 1;
            if error < BOUND {
                (self.close, self.error) = (self.close + 1, self.error.max(error));
            } else {
                self.error_after_flip = self.error_after_flip.max(error);
                self.far += usize::from(error >= BOUND_AFTER_FLIP);
            }
            let best = argmax(want);
            let largest = want.iter().fold(0f64, |max, x| max.max(x.abs()));
            let others = want.iter().enumerate().filter(|(index, _)| *index != best);
            let second = others.fold(f64::NEG_INFINITY, |max, (_, x)| max.max(*x));
            if want[best] - second > 2.0 * error * largest {
                assert_eq!(argmax(got), best, "{name}: most likely token behind token {token}");
            }
        }
    }

    /// Fails unless at least this share of the rows agree within [`BOUND`] and at most that share are further away than
    /// [`BOUND_AFTER_FLIP`].
    #[track_caller]
    pub fn assert_close(&self, name: &str, close: f64, far: f64) {
        let rows = self.rows as f64;
        assert!(self.close as f64 >= close * rows, "{name}: {self}; at least {close} of them must be close");
        assert!(self.far as f64 <= far * rows, "{name}: {self}; at most {far} of them may be far");
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, close, error, error_after_flip, far } = self;
        write!(f, "{close} of {rows} rows within {error:.1e}")?;
        if close < rows { write!(f, ", all within {error_after_flip:.1e}, {far} far") } else { Ok(()) }
    }
}
