//! Every instruction set against the reference by equality of bits, and the reference against f64 by an error bound.
//!
//! A new instruction set needs one line in [`fast`].

mod attention;
mod relaxed;

use super::*;
use crate::quant::{BlockQ40, INTERLEAVED_ROWS, f32_to_f16, interleave};
use bytemuck::Zeroable;
use std::vec::Vec;
use std::{format, vec};

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    has_avx2()
        && std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512vnni")
}

/// The kernels that this machine can run, the reference excepted.
fn fast() -> Vec<Kernels> {
    let mut isas: Vec<Isa> = vec![];
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        isas.push(Isa::Avx2);
    }
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        isas.push(Isa::Avx512);
        #[cfg(target_os = "linux")]
        {
            // By the processor or by the emulator.
            x86_64::emulated::enable();
            isas.extend([Isa::AvxVnni, Isa::Amx]);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        isas.push(Isa::Neon);
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            isas.push(Isa::Dotprod);
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                isas.push(Isa::I8mm);
            }
        }
    }
    // SAFETY: the features were just detected; NEON belongs to the target.
    isas.drain(..).map(|isa| unsafe { Kernels::for_isa(isa) }.unwrap()).collect()
}

/// SplitMix64.
pub(super) struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    /// Uniform in -1..1.
    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn units(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
    /// Mostly ordinary numbers, now and then an extreme one.
    fn wild(&mut self, n: usize) -> Vec<f32> {
        const EXTREMES: [f32; 12] =
            [0.0, -0.0, 1e-40, -1e-45, 1e-38, 3e38, -3e38, 65504.0, 1e7, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let extremes = self.below(3) * 20;
        (0..n)
            .map(|_| if self.below(1000) < extremes { EXTREMES[self.below(12)] } else { self.unit() * 50.0 })
            .collect()
    }
    /// An F16 scale: ordinary, zero, subnormal, largest, or whatever the bits say.
    fn scale(&mut self) -> u16 {
        match self.below(40) {
            0 => 0,
            1 => 1 + self.below(0x3ff) as u16,
            2 => 0x7bff,
            3 => 0xfbff,
            4 => self.bits() as u16,
            _ => f32_to_f16(self.unit() * 0.02),
        }
    }
    /// A row of weights.
    fn weights(&mut self, dtype: DType, cols: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = vec![];
        for _ in 0..cols / dtype.block_len() as usize {
            match dtype {
                DType::F32 => bytes.extend(self.wild(1)[0].to_le_bytes()),
                DType::F16 => bytes.extend(self.scale().to_le_bytes()),
                DType::Q40 | DType::Q80 => {
                    bytes.extend(self.scale().to_le_bytes());
                    let extreme = [0x00, 0xff, 0x7f, 0x80, 0x81][self.below(5)];
                    let random = self.below(4) > 0;
                    let codes = dtype.block_bytes() - 2;
                    bytes.extend((0..codes).map(|_| if random { self.bits() as u8 } else { extreme }));
                }
            }
        }
        bytes
    }
}

#[derive(Clone, Copy, Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// 64-byte aligned bytes.
fn aligned(bytes: usize) -> Vec<Line> {
    vec![Line([0xa5; 64]); bytes.div_ceil(64)]
}

/// Bits for comparison: all NaN are one.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Token rows of both kinds.
struct Tokens {
    values: Vec<f32>,
    stride: usize,
    rows: Vec<Line>,
    row_stride: usize,
    count: usize,
    /// The rows that take part, where not all of them do.
    listed: Option<Vec<u32>>,
}

impl Tokens {
    fn new(values: Vec<f32>, cols: usize, stride: usize, count: usize, padding: usize) -> Self {
        let mut tokens = Tokens { values, stride, rows: vec![], row_stride: 0, count, listed: None };
        if cols.is_multiple_of(BLOCK) {
            tokens.row_stride = activation_row_bytes(cols) + 64 * padding;
            tokens.rows = aligned(tokens.row_stride * count);
            let rows: &mut [u8] = bytemuck::cast_slice_mut(&mut tokens.rows);
            for t in 0..count {
                let x = &tokens.values[t * stride..][..cols];
                Kernels::SCALAR.quantize_activations(x, &mut rows[t * tokens.row_stride..]);
            }
        }
        tokens
    }
    fn rows_of(&self) -> super::Tokens<'_> {
        self.listed.as_deref().map_or(super::Tokens::First(self.count), super::Tokens::Listed)
    }
    fn input(&self, dtype: DType) -> Input<'_> {
        if dtype == DType::F32 {
            Input::F32 { x: &self.values, stride: self.stride, tokens: self.rows_of() }
        } else {
            Input::Q80 { rows: bytemuck::cast_slice(&self.rows), stride: self.row_stride, tokens: self.rows_of() }
        }
    }
}

/// Types of weights and activations that there is a product of.
fn pairs() -> Vec<(DType, DType)> {
    let all = DType::ALL.iter().flat_map(|weight| DType::ALL.map(|input| (*weight, input)));
    all.filter(|(weight, input)| supports(*weight, *input)).collect()
}

#[test]
fn every_product_has_the_bits_of_the_reference() {
    for seed in 0..600 {
        let random = &mut Random(seed);
        let (dtype, input) = pairs()[seed as usize % pairs().len()];
        let block = dtype.block_len() as usize;
        let most_blocks = [12, 12, 12, 150][random.below(4)];
        let cols = random.below(if block == 1 { 150 } else { most_blocks }) * block;
        let most = [40, 6, 6][random.below(3)];
        // Many rows and tokens, and room to unpack rows: tiles of all sizes.
        let tiles = random.below(3) == 0;
        let (rows, count) = if tiles {
            (16 + random.below(60), 5 + random.below(40))
        } else {
            (1 + random.below(45), 1 + random.below(most))
        };
        // The stride of a single row counts for nothing.
        let row_bytes = dtype.bytes(cols as u64).unwrap() as usize;
        let row_stride = if rows == 1 { random.below(9) } else { row_bytes + [0, 1, 5, 64][random.below(4)] };
        let misalignment = random.below(5);
        let mut bytes = vec![0x55; misalignment];
        for r in 0..rows {
            // The last row ends without padding.
            bytes.resize(misalignment + r * row_stride, 0x55);
            bytes.extend(random.weights(dtype, cols));
        }
        let bytes = bytes.into_boxed_slice(); // no room behind the end: a sanitizer sees a read too far
        let stride = cols + random.below(20);
        let values = random.wild(stride * count);
        let mut tokens = Tokens::new(values, cols, stride, count, random.below(2));
        if seed % 3 == 0 {
            // Any rows in any order, the output's others left alone.
            let mut rows: Vec<u32> = (0..count as u32).collect();
            (1..count).for_each(|i| rows.swap(i, random.below(i + 1)));
            rows.truncate(1 + random.below(count));
            tokens.listed = Some(rows);
        }
        let room = if tiles { SCRATCH_BYTES } else { [0, SCRATCH_BYTES, SCRATCH_BYTES, 1 << 12][random.below(4)] };
        let w = Matrix { dtype, order: Order::Rows, bytes: &bytes[misalignment..], rows, cols, row_stride };
        let start = random.below(if tiles { rows - 15 } else { rows });
        let range = start..if tiles { rows } else { start + random.below(rows - start + 1) };
        let out_stride = rows + random.below(9);
        let product = |kernels: Kernels| {
            let mut out = vec![-7.5; out_stride * count];
            let mut scratch = aligned(room);
            kernels.matmul(
                w,
                range.clone(),
                tokens.input(input),
                Output::from_slice(&mut out, out_stride),
                bytemuck::cast_slice_mut(&mut scratch),
            );
            bits(&out)
        };
        let expected = product(Kernels::SCALAR);
        for kernels in fast() {
            let what = format!("{kernels:?} {dtype} seed {seed}: {range:?} of {rows} x {cols}, {count} tokens");
            assert_eq!(product(kernels), expected, "{what}");
        }
    }
}

#[test]
fn interleaved_rows_have_the_product_of_rows_as_in_files() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let cols = (1 + random.below(if seed % 5 == 0 { 80 } else { 6 })) * BLOCK;
        let (groups, count) = (1 + random.below(4), 1 + random.below([1, 4, 30][seed as usize % 3]));
        // An expert may have been chosen by nobody.
        let count = if seed % 50 == 49 { 0 } else { count };
        let rows = groups * INTERLEAVED_ROWS;
        let dtype = [DType::Q40, DType::Q80][seed as usize % 2];
        let row_stride = dtype.bytes(cols as u64).unwrap() as usize;
        let bytes: Vec<u8> = (0..rows).flat_map(|_| random.weights(dtype, cols)).collect();
        let group_bytes = INTERLEAVED_ROWS * row_stride;
        let mut interleaved = vec![0; bytes.len()];
        for (from, to) in bytes.chunks(group_bytes).zip(interleaved.chunks_mut(group_bytes)) {
            interleave(dtype, from, to);
        }
        let mut tokens = Tokens::new(random.wild(cols * count), cols, cols, count, 0);
        if seed % 7 == 0 {
            tokens.listed = Some((0..count as u32).rev().collect());
        }
        let first = random.below(groups);
        let range = first * INTERLEAVED_ROWS..(first + 1 + random.below(groups - first)) * INTERLEAVED_ROWS;
        // Little room: few blocks of the tokens at a time.
        let room = [0, SCRATCH_BYTES, SCRATCH_BYTES, 1 << 12][random.below(4)];
        let product = |kernels: &Kernels, order, bytes: &[u8]| {
            let mut out = vec![-7.5; rows * count];
            let mut scratch = aligned(room);
            let w = Matrix { dtype, order, bytes, rows, cols, row_stride };
            let scratch = bytemuck::cast_slice_mut(&mut scratch);
            kernels.matmul(w, range.clone(), tokens.input(DType::Q80), Output::from_slice(&mut out, rows), scratch);
            bits(&out)
        };
        let expected = product(&Kernels::SCALAR, Order::Rows, &bytes);
        for kernels in fast().iter().filter(|kernels| kernels.takes_interleaved()) {
            let what = format!("{kernels:?} {dtype} seed {seed}: {range:?} of {rows} x {cols}, {count} tokens");
            assert_eq!(product(kernels, Order::Interleaved, &interleaved), expected, "{what}");
        }
    }
}

#[test]
fn every_quantiser_has_the_bits_of_the_reference() {
    for seed in 0..300 {
        let random = &mut Random(seed);
        let n = random.below(20) * BLOCK;
        let mut x = random.wild(n);
        if seed % 3 == 0 {
            let scale = [1e-38, 1e-41, 1e-30, 1e10, 0.0][random.below(5)];
            x.iter_mut().for_each(|x| *x *= scale);
        }
        let run = |kernels: Kernels| {
            let mut row = aligned(activation_row_bytes(n));
            kernels.quantize_activations(&x, bytemuck::cast_slice_mut(&mut row));
            let mut blocks = vec![0u8; n / BLOCK * 34 + 1];
            kernels.quantize_q80(&x, &mut blocks[1..]);
            let mut sum = x.clone();
            kernels.add_q80(&mut sum, &blocks[1..]);
            (bytemuck::cast_slice::<Line, u8>(&row).to_vec(), blocks, bits(&sum))
        };
        let expected = run(Kernels::SCALAR);
        for kernels in fast() {
            assert_eq!(run(kernels), expected, "{kernels:?} seed {seed}");
        }
    }
}

#[test]
fn every_elementwise_kernel_has_the_bits_of_the_reference() {
    type Call = fn(&Kernels, &mut [f32], &[f32]);
    let calls: [(&str, Call); 11] = [
        ("dot", |k, x, y| x[0] = k.dot(x, y)),
        ("sum_squares", |k, x, _| x[0] = k.sum_squares(x)),
        ("rms_norm", |k, x, y| {
            let mut weight = vec![0];
            weight.extend(y.iter().flat_map(|y| y.to_le_bytes()));
            k.rms_norm(x, 0.37, &weight[1..]);
        }),
        ("softmax", |k, x, _| k.softmax(x)),
        ("silu", |k, x, _| k.silu(x)),
        ("mul", |k, x, y| k.mul(x, y)),
        ("scale", |k, x, y| k.scale(x, y[0])),
        ("add", |k, x, y| k.add(x, y)),
        ("add_scaled", |k, x, y| k.add_scaled(x, y[0], y)),
        ("rotate_pairs", |k, x, y| {
            let n = x.len() & !1;
            k.rotate_pairs(&mut x[..n], &y[..n]);
        }),
        ("rotate_halves", |k, x, y| {
            let n = x.len() & !1;
            k.rotate_halves(&mut x[..n], &y[..n]);
        }),
    ];
    for seed in 0..400 {
        let random = &mut Random(seed);
        let n = 1 + random.below(if seed % 4 == 0 { 1000 } else { 70 });
        let (x, y) = if seed % 2 == 0 { (random.wild(n), random.wild(n)) } else { (random.units(n), random.units(n)) };
        for (name, call) in calls {
            let run = |kernels: &Kernels| {
                let mut x = x.clone();
                call(kernels, &mut x, &y);
                bits(&x)
            };
            let expected = run(&Kernels::SCALAR);
            for kernels in fast() {
                assert_eq!(run(&kernels), expected, "{kernels:?} {name} seed {seed} n {n}");
            }
        }
    }
}

#[test]
fn results_are_the_bits_of_every_other_machine() {
    let mut digest = 0xcbf2_9ce4_8422_2325;
    let mut add = |x: &[f32]| {
        for x in bits(x) {
            digest = (digest ^ u64::from(x)).wrapping_mul(0x0100_0000_01b3); // FNV-1a on words
        }
    };
    let k = fast().pop().unwrap_or(Kernels::SCALAR);
    let random = &mut Random(77);
    let (rows, cols, count) = (21, 1056, 5);
    for (dtype, input) in pairs() {
        let row_stride = dtype.bytes(cols as u64).unwrap() as usize;
        let mut bytes = vec![0; rows * row_stride];
        crate::quant::quantize(dtype, &random.units(rows * cols), &mut bytes);
        let tokens = Tokens::new(random.units(cols * count), cols, cols, count, 0);
        let mut out = vec![0.0; rows * count];
        let w = Matrix { dtype, order: Order::Rows, bytes: &bytes, rows, cols, row_stride };
        k.matmul(w, 0..rows, tokens.input(input), Output::from_slice(&mut out, rows), &mut []);
        add(&out);
    }
    let (mut x, y) = (random.units(77), random.units(77));
    add(&[k.dot(&x, &y)]);
    x.iter_mut().for_each(|x| *x *= 30.0);
    k.silu(&mut x);
    add(&x);
    k.softmax(&mut x);
    add(&x);
    for kv in KvType::ALL {
        let case = attention::Case::new(random, KvLayout::new(kv, 96).unwrap(), 7, 300, 0xA5);
        add(&case.results(&k, QUERIES));
    }
    // Found on x86-64 with and without AVX2, and on AArch64.
    assert_eq!(digest, 0xb21e_d406_5333_67f3, "{digest:#x}");
}

/// Largest error of the reference product, relative to the sum of magnitudes.
fn product_error(dtype: DType, input: DType, cols: usize) -> f64 {
    let random = &mut Random(cols as u64);
    let (rows, count) = (16, 3);
    let row_stride = dtype.bytes(cols as u64).unwrap() as usize;
    let weights = random.units(rows * cols);
    let mut bytes = vec![0; rows * row_stride];
    crate::quant::quantize(dtype, &weights, &mut bytes);
    let mut w = vec![0.0; rows * cols];
    crate::quant::dequantize(dtype, &bytes, &mut w);
    let tokens = Tokens::new(random.units(cols * count), cols, cols, count, 0);
    let matrix = Matrix { dtype, order: Order::Rows, bytes: &bytes, rows, cols, row_stride };
    let mut out = vec![0.0; rows * count];
    Kernels::SCALAR.matmul(matrix, 0..rows, tokens.input(input), Output::from_slice(&mut out, rows), &mut []);

    let mut worst = 0f64;
    for t in 0..count {
        let mut x = tokens.values[t * cols..][..cols].to_vec();
        if input == DType::Q80 {
            let mut blocks = vec![0; cols / BLOCK * size_of::<BlockQ80>()];
            Kernels::SCALAR.quantize_q80(&x, &mut blocks);
            crate::quant::dequantize(DType::Q80, &blocks, &mut x);
        }
        for r in 0..rows {
            let terms = || w[r * cols..][..cols].iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let magnitude: f64 = terms().map(f64::abs).sum();
            worst = worst.max((f64::from(out[t * rows + r]) - terms().sum::<f64>()).abs() / magnitude);
        }
    }
    worst
}

#[test]
fn the_reference_product_is_within_its_error_bound_of_f64() {
    for (dtype, input) in pairs() {
        for cols in [32, 2048, 8192] {
            // The decoded values round once each, so a block product of f64 is off by 2^-24 itself.
            let error = product_error(dtype, input, cols);
            assert!(error < 1.5e-7, "{dtype} by {input}, {cols} columns: {error:e}");
        }
    }
}

#[test]
fn elementwise_kernels_compute_what_they_say() {
    let k = Kernels::SCALAR;
    let random = &mut Random(5);
    let x = random.units(77);
    let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
    let mut y = x.clone();
    k.softmax(&mut y);
    for (x, y) in x.iter().zip(&y) {
        let exact = f64::from(*x).exp() / sum;
        assert!((f64::from(*y) / exact - 1.0).abs() < 4e-7, "softmax {x}: {y} {exact}");
    }
    for x in [-100.0, -30.0, -1.0, -1e-20, 0.0, 0.3, 5.0, 90.0] {
        let mut y = [x];
        k.silu(&mut y);
        let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
        assert!((f64::from(y[0]) - exact).abs() <= exact.abs() * 3e-7 + 1e-36, "silu {x}: {} {exact}", y[0]);
    }
    let mut y = [1.0, 2.0, 3.0, 4.0];
    k.rotate_pairs(&mut y, &[0.0, 1.0, 1.0, 0.0]);
    assert_eq!(y, [-2.0, 1.0, 3.0, 4.0]);
    let mut y = [1.0, 2.0, 3.0, 4.0];
    k.rotate_halves(&mut y, &[0.0, 1.0, 1.0, 0.0]);
    assert_eq!(y, [-3.0, 2.0, 1.0, 4.0]);
    let mut y = [3.0, -2.0];
    k.rms_norm(&mut y, 0.5, bytemuck::cast_slice(&[10f32.to_le_bytes(), 1f32.to_le_bytes()]));
    assert_eq!(y, [15.0, -1.0]);
    let mut y = [3.0, -2.0];
    k.add_scaled(&mut y, 2.0, &[1.0, 10.0]);
    k.mul(&mut y, &[1.0, 3.0]);
    k.scale(&mut y, 2.0);
    k.add(&mut y, &[0.5, 0.25]);
    assert_eq!(y, [10.5, 108.25]);
    assert_eq!((k.dot(&[1.0, 2.0], &[3.0, 4.0]), k.sum_squares(&[3.0, 4.0])), (11.0, 25.0));
    assert_eq!((k.dot(&[], &[]), k.sum_squares(&[])), (0.0, 0.0));
    k.softmax(&mut []);
}

#[test]
fn activation_rows_hold_the_codes_scales_and_offsets_of_q80_blocks() {
    let n = 96;
    let x = Random(9).units(n);
    let mut row = aligned(activation_row_bytes(n));
    let row: &mut [u8] = bytemuck::cast_slice_mut(&mut row);
    Kernels::SCALAR.quantize_activations(&x, row);
    assert_eq!(row.len(), 192);
    for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        let block = BlockQ80::quantize(x);
        assert_eq!(row[b * BLOCK..][..BLOCK], *bytemuck::cast_slice::<i8, u8>(&block.qs));
        assert_eq!(row[n + 4 * b..][..4], block.scale().to_ne_bytes());
        let sum: i32 = block.qs.iter().map(|q| i32::from(*q)).sum();
        assert_eq!(row[n + n / BLOCK * 4 + 4 * b..][..4], (-8 * sum).to_ne_bytes());
    }
}

#[test]
fn threads_fill_disjoint_rows_of_one_output() {
    let (rows, cols, count) = (64, 64, 3);
    let random = &mut Random(3);
    let bytes: Vec<u8> = (0..rows).flat_map(|_| random.weights(DType::Q40, cols)).collect();
    let tokens = Tokens::new(random.units(cols * count), cols, cols, count, 0);
    let row_stride = cols / BLOCK * size_of::<BlockQ40>();
    let w = Matrix { dtype: DType::Q40, order: Order::Rows, bytes: &bytes, rows, cols, row_stride };
    let mut whole = vec![0.0; rows * count];
    Kernels::SCALAR.matmul(w, 0..rows, tokens.input(DType::Q80), Output::from_slice(&mut whole, rows), &mut []);
    for kernels in fast() {
        let mut parts = vec![0f32; rows * count];
        let (len, ptr) = (parts.len(), parts.as_mut_ptr().expose_provenance());
        std::thread::scope(|scope| {
            for range in [0..13, 13..40, 40..64] {
                let tokens = &tokens;
                scope.spawn(move || {
                    // SAFETY: the buffer outlives the scope, and the threads' rows are disjoint.
                    let out = unsafe { Output::from_raw(core::ptr::with_exposed_provenance_mut(ptr), rows, len) };
                    kernels.matmul(w, range, tokens.input(DType::Q80), out, &mut []);
                });
            }
        });
        assert_eq!(bits(&parts), bits(&whole), "{kernels:?}");
    }
}

#[test]
#[should_panic(expected = "matmul: rows 0..3 of 2")]
fn rows_outside_of_the_matrix_are_refused() {
    let w = Matrix { dtype: DType::F32, order: Order::Rows, bytes: &[0; 16], rows: 2, cols: 2, row_stride: 8 };
    let x = Input::F32 { x: &[0.0; 2], stride: 2, tokens: super::Tokens::First(1) };
    Kernels::SCALAR.matmul(w, 0..3, x, Output::from_slice(&mut [0.0; 3], 3), &mut []);
}

#[test]
#[should_panic(expected = "matmul: output of 2 tokens")]
fn an_output_too_small_for_the_last_token_is_refused() {
    let w = Matrix { dtype: DType::F32, order: Order::Rows, bytes: &[0; 16], rows: 2, cols: 2, row_stride: 8 };
    let x = Input::F32 { x: &[0.0; 4], stride: 2, tokens: super::Tokens::First(2) };
    Kernels::SCALAR.matmul(w, 0..2, x, Output::from_slice(&mut [0.0; 3], 2), &mut []);
}

#[test]
#[should_panic(expected = "matmul: q40 weights with f32 input")]
fn a_pair_of_types_without_a_product_is_refused() {
    let w = Matrix { dtype: DType::Q40, order: Order::Rows, bytes: &[0; 18], rows: 1, cols: 32, row_stride: 18 };
    let x = Input::F32 { x: &[0.0; 32], stride: 32, tokens: super::Tokens::First(1) };
    Kernels::SCALAR.matmul(w, 0..1, x, Output::from_slice(&mut [0.0], 1), &mut []);
}
