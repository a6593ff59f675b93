//! Relaxed products beside the exact ones: near them, and theirs where few tokens or odd columns leave no choice.

use super::*;
use crate::quant::dequantize;

/// Relaxed kernels that this machine can run, or whose machine code it can emulate.
fn relaxed() -> Vec<Kernels> {
    #[cfg(target_arch = "x86_64")]
    if !std::is_x86_feature_detected!("avx512bf16") {
        return vec![];
    }
    // SAFETY: the feature was just detected; `fast` makes tiles work.
    fast().into_iter().filter_map(|kernels| unsafe { kernels.relaxed() }).collect()
}

/// A product of ordinary numbers.
struct Case {
    dtype: DType,
    input: DType,
    order: Order,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
    tokens: Tokens,
}

impl Case {
    fn new(seed: u64, count: usize, cols: usize) -> Self {
        let random = &mut Random(seed);
        let (dtype, input) = pairs()[seed as usize % pairs().len()];
        let interleaved = input == DType::Q80 && seed.is_multiple_of(2);
        let order = if interleaved { Order::Interleaved } else { Order::Rows };
        let rows = if interleaved { 16 * (1 + random.below(10)) } else { 16 + random.below(150) };
        let mut bytes = vec![];
        for _ in 0..rows * cols / dtype.block_len() as usize {
            match dtype {
                DType::F32 => bytes.extend(random.unit().to_le_bytes()),
                DType::F16 => bytes.extend(f32_to_f16(random.unit()).to_le_bytes()),
                DType::Q40 | DType::Q80 => {
                    bytes.extend(f32_to_f16(random.unit() * 0.1).to_le_bytes());
                    bytes.extend((2..dtype.block_bytes()).map(|_| random.bits() as u8));
                }
            }
        }
        let mut tokens = Tokens::new(random.units(count * cols), cols, cols, count, 0);
        if seed.is_multiple_of(3) {
            tokens.listed = Some((0..count as u32).rev().collect());
        }
        Self { dtype, input, order, rows, cols, bytes, tokens }
    }

    fn row_bytes(&self) -> usize {
        self.dtype.bytes(self.cols as u64).unwrap() as usize
    }

    fn product(&self, kernels: &Kernels) -> Vec<f32> {
        // The reference takes no interleaved rows.
        let order = if kernels.takes_interleaved() { self.order } else { Order::Rows };
        let group_bytes = 16 * self.row_bytes();
        let mut bytes = self.bytes.clone();
        if order == Order::Interleaved {
            for (from, to) in self.bytes.chunks(group_bytes).zip(bytes.chunks_mut(group_bytes)) {
                interleave(self.dtype, from, to);
            }
        }
        let Self { dtype, rows, cols, .. } = *self;
        let w = Matrix { dtype, order, bytes: &bytes, rows, cols, row_stride: self.row_bytes() };
        let mut out = vec![0.0; rows * self.tokens.count];
        let mut scratch = aligned(SCRATCH_BYTES);
        let scratch = bytemuck::cast_slice_mut(&mut scratch);
        kernels.matmul(w, 0..rows, self.tokens.input(self.input), Output::from_slice(&mut out, rows), scratch);
        out
    }

    /// `Σ |w| * |x|` for token row `t` and row `r`.
    fn magnitude(&self, t: usize, r: usize) -> f64 {
        let mut row = vec![0.0; self.cols];
        dequantize(self.dtype, &self.bytes[r * self.row_bytes()..][..self.row_bytes()], &mut row);
        row.iter().zip(&self.tokens.values[t * self.cols..]).map(|(w, x)| f64::from(w * x).abs()).sum()
    }
}

#[test]
fn relaxed_products_are_as_near_as_eight_bits_of_mantissa() {
    let mut different = 0;
    for seed in 0..100 {
        let random = &mut Random(seed);
        let cols = (1 + random.below(if seed % 7 == 0 { 80 } else { 5 })) * BLOCK;
        let case = Case::new(seed, 5 + random.below(30), cols);
        let expected = case.product(&Kernels::SCALAR);
        for kernels in relaxed() {
            let near = case.product(&kernels);
            for (i, (near, exact)) in near.iter().zip(&expected).enumerate() {
                let (t, r) = (i / case.rows, i % case.rows);
                let bound = case.magnitude(t, r) / 128.0;
                let error = f64::from(near - exact).abs();
                let Case { dtype, input, order, rows, .. } = case;
                assert!(
                    error <= bound,
                    "{kernels:?} seed {seed} {dtype} {order:?} by {input}, {rows} x {cols}: token {t}, row {r}: \
                     {near} is not {exact}, error {error}, bound {bound}"
                );
                different += usize::from(near != exact);
            }
        }
    }
    assert!(relaxed().is_empty() || different > 0, "nothing was relaxed");
}

#[test]
fn few_tokens_and_odd_columns_stay_exact() {
    for seed in 0..60 {
        let plain = matches!(pairs()[seed as usize % pairs().len()].0, DType::F32 | DType::F16);
        for (count, cols) in [(1, 64), (4, 96), (9, 45)] {
            if cols % BLOCK != 0 && !plain {
                continue;
            }
            let case = Case::new(seed, count, cols);
            let expected = bits(&case.product(&Kernels::SCALAR));
            for kernels in relaxed() {
                assert_eq!(bits(&case.product(&kernels)), expected, "{kernels:?} seed {seed}: {count} tokens, {cols}");
            }
        }
    }
}
