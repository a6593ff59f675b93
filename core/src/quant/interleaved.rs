//! Rows of blocks side by side, so that kernels with a lane per row load vectors instead of gathering them.

use super::{BLOCK, BlockQ40};

/// Rows that lie interleaved.
pub const INTERLEAVED_ROWS: usize = 16;

/// How the rows of a matrix lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// One after the other, as in files.
    #[default]
    Rows,
    /// Groups of [`INTERLEAVED_ROWS`], as [`interleave_q40`] makes them; groups take the bytes that their rows took.
    Interleaved,
}

/// Interleaves sixteen rows of Q40 blocks: for each column of blocks first the sixteen scales, then four times sixteen
/// dwords, dword `r` of the `j`-th sixteen being bytes `4j..4j + 4` of the codes of row `r`.
///
/// # Panics
/// If `rows` is not sixteen rows of whole blocks, or `out` of another length.
pub fn interleave_q40(rows: &[u8], out: &mut [u8]) {
    const COLUMN: usize = INTERLEAVED_ROWS * size_of::<BlockQ40>();
    assert!(rows.len() == out.len() && rows.len().is_multiple_of(COLUMN), "{} and {} bytes", rows.len(), out.len());
    let blocks: &[BlockQ40] = bytemuck::cast_slice(rows);
    let per_row = blocks.len() / INTERLEAVED_ROWS;
    for (b, column) in out.chunks_exact_mut(COLUMN).enumerate() {
        let (scales, codes) = column.split_at_mut(2 * INTERLEAVED_ROWS);
        for r in 0..INTERLEAVED_ROWS {
            let block = &blocks[r * per_row + b];
            scales[2 * r..][..2].copy_from_slice(&block.d);
            for j in 0..BLOCK / 8 {
                codes[4 * (j * INTERLEAVED_ROWS + r)..][..4].copy_from_slice(&block.qs[4 * j..][..4]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_row_has_its_place() {
        let per_row = 3;
        let rows: [u8; 16 * 3 * 18] = core::array::from_fn(|i| (i * 7 % 251) as u8);
        let mut out = [0; 16 * 3 * 18];
        interleave_q40(&rows, &mut out);
        for r in 0..16 {
            for b in 0..per_row {
                let (block, column) = (&rows[(r * per_row + b) * 18..][..18], &out[b * 16 * 18..][..16 * 18]);
                assert_eq!(block[..2], column[2 * r..][..2]);
                for i in 0..16 {
                    assert_eq!(block[2 + i], column[32 + i / 4 * 64 + 4 * r + i % 4], "row {r}, block {b}, byte {i}");
                }
            }
        }
    }
}
