//! Speed of the kernels on one thread.
//!
//! `cargo bench -p dair-benches --bench kernels [-- FILTER]`
//!
//! `decode` reads more than 300 MB of weights per call, so that they come from memory: look at GB/s. `prefill` passes
//! 256 tokens over more weights than a cache holds: look at Gitem/s, an item being a multiplication or an addition. `few`
//! are the tokens of a server's clients, over interleaved rows from memory; `few_in_cache` from a second-level cache.

use dair_core::kernels::{Input, Isa, Kernels, Matrix, Output, SCRATCH_BYTES, Tokens, activation_row_bytes, supports};
use dair_core::quant::{DType, INTERLEAVED_ROWS, Order, interleaves};
use dair_host::machine::cpu;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use std::fmt;

fn main() {
    divan::main();
}

/// The kernels that this machine can run.
fn kernels() -> impl Iterator<Item = Kernels> {
    cpu::isas().filter_map(cpu::kernels)
}

#[derive(Clone, Copy)]
struct Case {
    kernels: Kernels,
    dtype: DType,
    input: DType,
    cols: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} by {} x{}", self.kernels.isa(), self.dtype, self.input, self.cols)
    }
}

fn cases() -> Vec<Case> {
    let of = |kernels| {
        let pairs = DType::ALL.into_iter().flat_map(|dtype| DType::ALL.map(|input| (dtype, input)));
        let pairs = pairs.filter(|(dtype, input)| supports(*dtype, *input));
        pairs.flat_map(move |(dtype, input)| [2048, 8192].map(|cols| Case { kernels, dtype, input, cols }))
    };
    kernels().flat_map(of).collect()
}

/// Bytes that look like weights: small scales, any codes.
fn weights(dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
    let block = dtype.block_bytes() as usize;
    let mut state = 1u32;
    let mut bytes: Vec<u8> = vec![0; dtype.bytes((rows * cols) as u64).unwrap() as usize];
    for block in bytes.chunks_exact_mut(block) {
        for byte in block.iter_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        // The last byte of a number, the second of a scale: keep the exponent small.
        let exponent = if dtype.block_len() == 1 { block.len() - 1 } else { 1 };
        block[exponent] = block[exponent] & 0x83 | 0x20;
    }
    bytes
}

#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

fn product(bencher: Bencher<'_, '_>, case: &Case, order: Order, rows: usize, count: usize) {
    let &Case { kernels, dtype, input, cols } = case;
    let bytes = weights(dtype, rows, cols);
    let row_stride = bytes.len() / rows;
    let w = Matrix { dtype, order, bytes: &bytes, rows, cols, row_stride };
    let values: Vec<f32> = (0..cols * count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.02).collect();
    let stride = activation_row_bytes(cols);
    let mut lines = vec![Line([0; 64]); stride / 64 * count];
    let quantised: &mut [u8] = bytemuck::cast_slice_mut(&mut lines);
    for (x, row) in values.chunks_exact(cols).zip(quantised.chunks_exact_mut(stride)) {
        kernels.quantize_activations(x, row);
    }
    let x = if input == DType::F32 {
        Input::F32 { x: &values, stride: cols, tokens: Tokens::First(count) }
    } else {
        Input::Q80 { rows: quantised, stride, tokens: Tokens::First(count) }
    };
    let mut out = vec![0f32; rows * count];
    let mut scratch = vec![Line([0; 64]); SCRATCH_BYTES / 64];
    bencher.counter(BytesCount::new(bytes.len())).counter(ItemsCount::new(2 * rows * cols * count)).bench_local(|| {
        let scratch = bytemuck::cast_slice_mut(&mut scratch);
        kernels.matmul(w, 0..rows, x, Output::from_slice(black_box(&mut out), rows), scratch);
    });
}

#[divan::bench(args = cases(), max_time = 2, sample_count = 20)]
fn decode(bencher: Bencher<'_, '_>, case: &Case) {
    let row_bytes = case.dtype.bytes(case.cols as u64).unwrap() as usize;
    product(bencher, case, Order::Rows, (310 << 20) / row_bytes, 1);
}

/// The same from a second-level cache: what the instructions alone allow.
#[divan::bench(args = cases(), max_time = 1, sample_count = 100)]
fn decode_in_cache(bencher: Bencher<'_, '_>, case: &Case) {
    let row_bytes = case.dtype.bytes(case.cols as u64).unwrap() as usize;
    product(bencher, case, Order::Rows, ((256 << 10) / row_bytes).next_multiple_of(16), 1);
}

/// Interleaved rows, and tokens that meet them in one pass.
#[derive(Clone, Copy)]
struct Few {
    case: Case,
    tokens: usize,
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} tokens", self.case, self.tokens)
    }
}

fn few_cases() -> Vec<Few> {
    let interleaved = |case: &Case| case.kernels.takes_interleaved() && interleaves(case.dtype, case.input);
    let cases = cases().into_iter().filter(interleaved);
    cases.flat_map(|case| [2, 4, 8, 16].map(|tokens| Few { case, tokens })).collect()
}

#[divan::bench(args = few_cases(), max_time = 2, sample_count = 20)]
fn few(bencher: Bencher<'_, '_>, few: &Few) {
    let row_bytes = few.case.dtype.bytes(few.case.cols as u64).unwrap() as usize;
    let rows = ((310 << 20) / row_bytes).next_multiple_of(INTERLEAVED_ROWS);
    product(bencher, &few.case, Order::Interleaved, rows, few.tokens);
}

#[divan::bench(args = few_cases(), max_time = 1, sample_count = 100)]
fn few_in_cache(bencher: Bencher<'_, '_>, few: &Few) {
    let row_bytes = few.case.dtype.bytes(few.case.cols as u64).unwrap() as usize;
    let rows = ((256 << 10) / row_bytes).next_multiple_of(INTERLEAVED_ROWS);
    product(bencher, &few.case, Order::Interleaved, rows, few.tokens);
}

#[divan::bench(args = cases(), max_time = 4, sample_count = 10)]
fn prefill(bencher: Bencher<'_, '_>, case: &Case) {
    // The reference is slow: fewer tokens give the same rate.
    let count = if case.kernels.isa() == Isa::Scalar { 8 } else { 256 };
    let row_bytes = case.dtype.bytes(case.cols as u64).unwrap() as usize;
    product(bencher, case, Order::Rows, (40 << 20) / row_bytes, count);
}

#[divan::bench]
fn plain_read(bencher: Bencher<'_, '_>) {
    let words: Vec<u64> = (0..40 << 20).collect();
    bencher
        .counter(BytesCount::of_slice(&words))
        .bench_local(|| black_box(&words).iter().fold(0, |sum, word| sum ^ word));
}
