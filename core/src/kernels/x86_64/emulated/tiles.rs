//! What tile instructions do. Source: Intel's instruction set reference, AMX, palette 1.

use super::Fault;
use super::decode::TileInstruction as Instruction;

const TILES: usize = 8;
const MAX_ROWS: usize = 16;
const MAX_ROW_BYTES: usize = 64;

/// Shape and contents of a tile; rows and bytes outside of the shape are 0.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    row_bytes: usize,
    data: [[u8; MAX_ROW_BYTES]; MAX_ROWS],
}

/// The tiles of a thread.
pub struct Tiles {
    configured: bool,
    /// Where an interrupted load or store goes on.
    start_row: usize,
    tiles: [Tile; TILES],
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault(otherwise)) }
}

/// Memory at an address that machine code computed.
fn at(address: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

impl Tiles {
    pub const IDLE: Tiles = Tiles {
        configured: false,
        start_row: 0,
        tiles: [Tile { rows: 0, row_bytes: 0, data: [[0; MAX_ROW_BYTES]; MAX_ROWS] }; TILES],
    };

    /// # Safety
    /// What the instruction reads or writes is readable or writable.
    pub unsafe fn execute(&mut self, instruction: Instruction) -> Result<(), Fault> {
        match instruction {
            Instruction::LoadConfig { address } => {
                let mut config = [0; 64];
                // SAFETY: the instruction reads 64 bytes.
                unsafe { config.as_mut_ptr().copy_from_nonoverlapping(at(address), 64) }
                return self.configure(&config);
            }
            Instruction::Release => *self = Self::IDLE,
            Instruction::Zero { tile } => self.tile(tile)?.data = Self::IDLE.tiles[0].data,
            Instruction::Load { tile, address, stride } => {
                let start = self.start_row;
                let tile = self.movable(tile)?;
                for (row, data) in tile.data.iter_mut().enumerate().skip(start) {
                    *data = [0; MAX_ROW_BYTES];
                    if row < tile.rows {
                        let from = at(address.wrapping_add(stride.wrapping_mul(row as u64)));
                        // SAFETY: the instruction reads the bytes of each row.
                        unsafe { data.as_mut_ptr().copy_from_nonoverlapping(from, tile.row_bytes) }
                    }
                }
            }
            Instruction::Store { tile, address, stride } => {
                let start = self.start_row;
                let tile = self.movable(tile)?;
                for (row, data) in tile.data.iter().enumerate().take(tile.rows).skip(start) {
                    let to = at(address.wrapping_add(stride.wrapping_mul(row as u64)));
                    // SAFETY: the instruction writes the bytes of each row.
                    unsafe { to.copy_from_nonoverlapping(data.as_ptr(), tile.row_bytes) }
                }
            }
            Instruction::Dot { sums, a, b } => self.multiply([sums, a, b], add_bytes)?,
            Instruction::DotBf16 { sums, a, b } => self.multiply([sums, a, b], add_bf16)?,
        }
        self.start_row = 0;
        Ok(())
    }

    fn configure(&mut self, config: &[u8; 64]) -> Result<(), Fault> {
        let mut new = Self::IDLE;
        if config[0] != 0 {
            check(config[0] == 1, "palette is neither 0 nor 1")?;
            let mut reserved = [&config[2..16], &config[32..48], &config[56..64]].into_iter().flatten();
            check(reserved.all(|byte| *byte == 0), "reserved bytes are set")?;
            for (i, tile) in new.tiles.iter_mut().enumerate() {
                tile.row_bytes = usize::from(u16::from_le_bytes([config[16 + 2 * i], config[17 + 2 * i]]));
                tile.rows = usize::from(config[48 + i]);
                check(tile.row_bytes <= MAX_ROW_BYTES && tile.rows <= MAX_ROWS, "a tile is too large")?;
                check((tile.rows == 0) == (tile.row_bytes == 0), "a tile has rows or bytes only")?;
            }
            new.configured = true;
            new.start_row = usize::from(config[1]);
        }
        *self = new;
        Ok(())
    }

    /// A tile that has a shape.
    fn tile(&mut self, i: usize) -> Result<&mut Tile, Fault> {
        check(self.configured, "no shapes are set")?;
        check(self.tiles[i].rows > 0, "a tile has no shape")?;
        Ok(&mut self.tiles[i])
    }

    /// A tile that may be loaded or stored.
    fn movable(&mut self, i: usize) -> Result<&mut Tile, Fault> {
        let start = self.start_row;
        let tile = self.tile(i)?;
        check(tile.row_bytes.is_multiple_of(4), "rows are not dwords")?;
        check(start < tile.rows, "starts behind the last row")?;
        Ok(tile)
    }

    /// `sums[m][n] = add(sums[m][n], (a[m][k], b[k][n]) for every k)`.
    fn multiply(
        &mut self,
        [sums, a, b]: [usize; 3],
        add: impl Fn([u8; 4], &mut dyn Iterator<Item = ([u8; 4], [u8; 4])>) -> [u8; 4],
    ) -> Result<(), Fault> {
        check(sums != a && sums != b && a != b, "a tile is used twice")?;
        let (a, b) = (*self.tile(a)?, *self.tile(b)?);
        let sums = self.tile(sums)?;
        check([&a, &b, &*sums].iter().all(|tile| tile.row_bytes.is_multiple_of(4)), "rows are not dwords")?;
        check(sums.rows == a.rows, "rows of sums and a")?;
        check(sums.row_bytes == b.row_bytes, "columns of sums and b")?;
        check(a.row_bytes / 4 == b.rows, "columns of a and rows of b")?;
        for (sums, a) in sums.data.iter_mut().zip(&a.data).take(a.rows) {
            for (n, sum) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate().take(b.row_bytes / 4) {
                let a = a.as_chunks::<4>().0.iter().copied();
                *sum = add(*sum, &mut a.zip(b.data.iter().map(|b| b.as_chunks::<4>().0[n])).take(b.rows));
            }
        }
        Ok(())
    }
}

/// Products of four signed bytes each.
fn add_bytes(sum: [u8; 4], dwords: &mut dyn Iterator<Item = ([u8; 4], [u8; 4])>) -> [u8; 4] {
    let signed = |bytes: [u8; 4]| bytes.map(|byte| i32::from(byte.cast_signed()));
    let products = dwords.map(|(a, b)| signed(a).iter().zip(signed(b)).map(|(a, b)| a * b).sum::<i32>());
    i32::from_le_bytes(sum).wrapping_add(products.sum()).to_le_bytes()
}

/// Products of two BF16 each: those of even columns and those of odd ones are added up apart. What is subnormal is 0.
fn add_bf16(sum: [u8; 4], dwords: &mut dyn Iterator<Item = ([u8; 4], [u8; 4])>) -> [u8; 4] {
    let normal = |x: f32| if x.is_subnormal() { 0.0 } else { x };
    let bf16 = |low: u8, high: u8| normal(f32::from_le_bytes([0, 0, low, high]));
    let mut sums = [0.0; 2];
    for (a, b) in dwords {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = normal(libm::fmaf(bf16(a[2 * i], a[2 * i + 1]), bf16(b[2 * i], b[2 * i + 1]), *sum));
        }
    }
    normal(normal(f32::from_le_bytes(sum)) + normal(sums[0] + sums[1])).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::Random;
    use std::vec::Vec;
    use std::{format, vec};

    fn config(shapes: &[(usize, usize)]) -> [u8; 64] {
        let mut config = [0; 64];
        config[0] = 1;
        for (i, (rows, row_bytes)) in shapes.iter().enumerate() {
            config[48 + i] = *rows as u8;
            config[16 + 2 * i] = *row_bytes as u8;
        }
        config
    }

    fn address(bytes: &[u8]) -> u64 {
        bytes.as_ptr().expose_provenance() as u64
    }

    fn load(tile: usize, bytes: &[u8], stride: usize) -> Instruction {
        Instruction::Load { tile, address: address(bytes), stride: stride as u64 }
    }

    #[test]
    fn products_are_those_of_three_loops() {
        for seed in 0..200 {
            let random = &mut Random(seed);
            let (m, k, n) = (1 + random.below(16), 1 + random.below(16), 1 + random.below(16));
            let extra = random.below(9);
            let mut bytes = |rows: usize, stride: usize| -> Vec<u8> {
                let extreme = random.below(4) == 0;
                (0..rows * stride).map(|_| if extreme { 0x80 } else { random.bits() as u8 }).collect()
            };
            let (a_stride, b_stride, c_stride) = (4 * k + extra, 4 * n + extra, 4 * n + extra);
            let (a, b, c) = (bytes(m, a_stride), bytes(k, b_stride), bytes(m, c_stride));
            let mut tiles = Tiles::IDLE;
            tiles.configure(&config(&[(m, 4 * n), (m, 4 * k), (k, 4 * n)])).unwrap();
            // What lies outside of a shape must not matter.
            let mut out = vec![0x77; m * c_stride];
            let store = Instruction::Store {
                tile: 0,
                address: out.as_mut_ptr().expose_provenance() as u64,
                stride: c_stride as u64,
            };
            let dot = Instruction::Dot { sums: 0, a: 1, b: 2 };
            // SAFETY: the buffers hold as many rows as the tiles.
            unsafe {
                for instruction in [load(1, &a, a_stride), load(2, &b, b_stride), load(0, &c, c_stride), dot, store] {
                    tiles.execute(instruction).unwrap();
                }
            }
            let byte = |of: &[u8], i: usize| i32::from(of[i].cast_signed());
            let mut expected = vec![0x77; m * c_stride];
            for m in 0..m {
                for n in 0..n {
                    let at = m * c_stride + 4 * n;
                    let mut sum = i32::from_le_bytes(c[at..at + 4].try_into().unwrap());
                    for k in 0..4 * k {
                        let product = byte(&a, m * a_stride + k) * byte(&b, k / 4 * b_stride + 4 * n + k % 4);
                        sum = sum.wrapping_add(product);
                    }
                    expected[at..at + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
            assert_eq!(out, expected, "seed {seed}: {m} x {k} x {n}");
            let Tile { rows, row_bytes, data } = tiles.tiles[0];
            assert_eq!((rows, row_bytes), (m, 4 * n));
            for (row, data) in data.iter().enumerate() {
                let inside = if row < m { 4 * n } else { 0 };
                assert!(data[inside..].iter().all(|byte| *byte == 0), "seed {seed} row {row}");
            }
        }
    }

    #[test]
    fn zeroed_and_released_tiles_hold_nothing() {
        let (bytes, mut out) = ([7; 128], [1u8; 128]);
        let to = out.as_mut_ptr().expose_provenance() as u64;
        let mut tiles = Tiles::IDLE;
        let setting = config(&[(2, 64)]);
        // SAFETY: two rows of 64 bytes.
        unsafe {
            tiles.execute(Instruction::LoadConfig { address: address(&setting) }).unwrap();
            tiles.execute(load(0, &bytes, 64)).unwrap();
            tiles.execute(Instruction::Zero { tile: 0 }).unwrap();
            tiles.execute(Instruction::Store { tile: 0, address: to, stride: 64 }).unwrap();
            tiles.execute(Instruction::Release).unwrap();
            assert_eq!(tiles.execute(Instruction::Zero { tile: 0 }), Err(Fault("no shapes are set")));
        }
        assert_eq!(out, [0; 128]);
    }

    #[test]
    fn an_interrupted_load_goes_on_where_it_stopped() {
        let (first, second) = ([1; 256], [2; 256]);
        let mut tiles = Tiles::IDLE;
        tiles.configure(&config(&[(4, 64)])).unwrap();
        // SAFETY: four rows of 64 bytes.
        unsafe {
            tiles.execute(load(0, &first, 64)).unwrap();
            tiles.start_row = 3;
            tiles.execute(load(0, &second, 64)).unwrap();
        }
        assert_eq!((tiles.tiles[0].data[2][0], tiles.tiles[0].data[3][0], tiles.start_row), (1, 2, 0));
    }

    #[test]
    fn shapes_outside_of_the_palette_are_faults() {
        let good = config(&[(16, 64), (16, 32), (8, 64)]);
        let configure = |config: &[u8; 64]| {
            let mut tiles = Tiles::IDLE;
            tiles.configure(config)
        };
        assert_eq!(configure(&good), Ok(()));
        for (i, value) in
            [(0, 2), (2, 1), (15, 1), (16, 65), (17, 1), (16, 0), (32, 1), (47, 1), (48, 17), (48, 0), (63, 1)]
        {
            let mut bad = good;
            bad[i] = value;
            assert!(configure(&bad).is_err(), "byte {i} = {value}");
        }
    }

    #[test]
    fn tiles_that_do_not_fit_each_other_are_faults() {
        let bytes = [0; 1024];
        let dot = |sums, a, b| Instruction::Dot { sums, a, b };
        let mut tiles = Tiles::IDLE;
        let shapes = [(16, 64), (16, 32), (8, 64), (8, 32), (8, 60), (16, 30)];
        // SAFETY: 1024 bytes are as much as any tile takes.
        let mut fault = |instruction| unsafe { tiles.execute(instruction) }.is_err();
        assert!(fault(load(0, &bytes, 64)) && fault(dot(0, 1, 2)), "no shapes yet");
        let setting = config(&shapes);
        assert!(!fault(Instruction::LoadConfig { address: address(&setting) }));
        assert!(!fault(dot(0, 1, 2)));
        let bad = [
            dot(0, 0, 2),
            dot(0, 1, 1),
            dot(2, 1, 2),
            dot(0, 2, 1),
            dot(0, 3, 2),
            dot(0, 1, 4),
            dot(0, 1, 0),
            dot(0, 5, 2),
        ];
        for instruction in bad {
            assert!(fault(instruction), "{}", format!("{instruction:?}"));
        }
        assert!(fault(load(5, &bytes, 32)), "30 bytes");
        assert!(fault(load(6, &bytes, 32)), "no shape");
    }
}
