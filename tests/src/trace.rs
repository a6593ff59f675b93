//! Recorded forward passes: what was fed, and the logits that came of it.

use std::fs;
use std::path::Path;

/// One forward pass of a recorded run.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Position of the first token.
    pub position: u32,
    /// Tokens fed.
    pub tokens: Vec<u32>,
    /// The most likely token behind them, and its logit.
    pub top: (u32, f32),
    /// The second.
    pub second: (u32, f32),
}

/// Reads a trace: position, batch, tokens, most likely token, its logit, second token, its logit.
///
/// # Panics
/// If the file can't be read, or at a line that is none.
pub fn passes(path: &Path) -> Vec<Pass> {
    let pass = |line: &str| {
        let fields: Vec<_> = line.split('\t').collect();
        let [position, batch, tokens, top, top_logit, second, second_logit] = fields[..] else { return None };
        let tokens: Option<Vec<_>> = tokens.split(',').map(|token| token.parse().ok()).collect();
        Some(Pass {
            position: position.parse().ok()?,
            tokens: tokens.filter(|tokens| batch.parse() == Ok(tokens.len()))?,
            top: (top.parse().ok()?, top_logit.parse().ok()?),
            second: (second.parse().ok()?, second_logit.parse().ok()?),
        })
    };
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| pass(line).unwrap_or_else(|| panic!("{}: {line}", path.display()))).collect()
}

/// Reads rows of little-endian F32.
///
/// # Panics
/// If the file can't be read or ends in the middle of a row.
pub fn rows(path: &Path, width: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let values: Vec<_> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert!(values.len().is_multiple_of(width), "{}: {} values in rows of {width}", path.display(), values.len());
    values.chunks(width).map(<[f32]>::to_vec).collect()
}
