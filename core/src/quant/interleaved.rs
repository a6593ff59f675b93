//! Rows of blocks side by side, so that kernels with a lane per row load vectors instead of gathering them.

use super::{BlockQ40, BlockQ80, DType};

/// Rows that lie interleaved.
pub const INTERLEAVED_ROWS: usize = 16;

/// How the rows of a matrix lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// One after the other, as in files.
    #[default]
    Rows,
    /// Groups of [`INTERLEAVED_ROWS`], as [`interleave`] makes them; groups take the bytes that their rows took.
    Interleaved,
}

/// Whether rows of `weight` weights may lie interleaved where they meet `input` activations.
pub const fn interleaves(weight: DType, input: DType) -> bool {
    matches!((weight, input), (DType::Q40 | DType::Q80, DType::Q80))
}

/// Interleaves sixteen rows of Q40 or Q80 blocks: for each column of blocks first the sixteen scales, then sixteen
/// dwords for each four bytes of codes, dword `r` of the `j`-th sixteen being bytes `4j..4j + 4` of the codes of row `r`.
///
/// # Panics
/// If `dtype` has no blocks, `rows` is not sixteen rows of whole blocks, or `out` of another length.
pub fn interleave(dtype: DType, rows: &[u8], out: &mut [u8]) {
    match dtype {
        DType::Q40 => interleave_blocks::<{ size_of::<BlockQ40>() }>(rows, out),
        DType::Q80 => interleave_blocks::<{ size_of::<BlockQ80>() }>(rows, out),
        DType::F32 | DType::F16 => panic!("{dtype} has no blocks"),
    }
}

/// [`interleave`] of blocks of `BYTES` bytes, the scale being the first two.
fn interleave_blocks<const BYTES: usize>(rows: &[u8], out: &mut [u8]) {
    let column_bytes = INTERLEAVED_ROWS * BYTES;
    assert!(
        rows.len() == out.len() && rows.len().is_multiple_of(column_bytes),
        "{} and {} bytes",
        rows.len(),
        out.len()
    );
    let blocks = rows.as_chunks::<BYTES>().0;
    let per_row = blocks.len() / INTERLEAVED_ROWS;
    for (b, column) in out.chunks_exact_mut(column_bytes).enumerate() {
        let (scales, codes) = column.split_at_mut(2 * INTERLEAVED_ROWS);
        for r in 0..INTERLEAVED_ROWS {
            let (scale, dwords) = blocks[r * per_row + b].split_at(2);
            scales[2 * r..][..2].copy_from_slice(scale);
            for (j, dword) in dwords.as_chunks::<4>().0.iter().enumerate() {
                codes[4 * (j * INTERLEAVED_ROWS + r)..][..4].copy_from_slice(dword);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn every_byte_of_a_row_has_its_place() {
        let per_row = 3;
        for (dtype, bytes) in [(DType::Q40, 18), (DType::Q80, 34)] {
            let rows: Vec<u8> = (0..16 * per_row * bytes).map(|i| (i * 7 % 251) as u8).collect();
            let mut out = vec![0; rows.len()];
            interleave(dtype, &rows, &mut out);
            for r in 0..16 {
                for b in 0..per_row {
                    let block = &rows[(r * per_row + b) * bytes..][..bytes];
                    let column = &out[b * 16 * bytes..][..16 * bytes];
                    assert_eq!(block[..2], column[2 * r..][..2]);
                    for i in 0..bytes - 2 {
                        let place = 32 + i / 4 * 64 + 4 * r + i % 4;
                        assert_eq!(block[2 + i], column[place], "{dtype} row {r}, block {b}, byte {i}");
                    }
                }
            }
        }
    }
}
