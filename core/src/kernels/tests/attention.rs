//! Attention over a cache: the reference against f64 and against the definition of its order of sums, every instruction
//! set against the reference.

use super::*;
use crate::quant::f16_to_f32;

/// Neighbouring tokens that attend to a cache of one head, one query each; the last sees all positions.
pub struct Case {
    layout: KvLayout,
    /// Scaled.
    queries: Vec<f32>,
    lens: Vec<usize>,
    /// As they are before they are stored.
    rows: [Vec<f32>; 2],
    cache: [Vec<u8>; 2],
}

const PARTS: [KvPart; 2] = [KvPart::Keys, KvPart::Values];

/// A head's memory with `rows` in it, and `garbage` elsewhere.
fn stored(kernels: &Kernels, layout: KvLayout, part: KvPart, rows: &[f32], garbage: u8) -> Vec<u8> {
    let positions = rows.len() / layout.head_dim();
    let mut cache = vec![garbage; layout.head_bytes(part, positions as u64).unwrap() as usize];
    for (position, row) in rows.chunks_exact(layout.head_dim()).enumerate() {
        kernels.store_position(row, position, &KvHead::from_slice(layout, part, &mut cache));
    }
    cache
}

/// What is read back of a stored row.
fn widened(kv: KvType, row: &[f32]) -> Vec<f32> {
    match kv {
        KvType::F32 => row.to_vec(),
        KvType::F16 => row.iter().map(|x| f16_to_f32(f32_to_f16(*x))).collect(),
        KvType::Q80 => {
            let mut blocks = vec![0; row.len() / BLOCK * size_of::<BlockQ80>()];
            Kernels::SCALAR.quantize_q80(row, &mut blocks);
            let mut wide = vec![0.0; row.len()];
            crate::quant::dequantize(DType::Q80, &blocks, &mut wide);
            wide
        }
    }
}

impl Case {
    pub fn new(random: &mut Random, layout: KvLayout, count: usize, len: usize, garbage: u8) -> Self {
        let head_dim = layout.head_dim();
        let mut queries = random.units(count * head_dim);
        Kernels::SCALAR.scale(&mut queries, 4.0 / libm::sqrtf(head_dim as f32));
        let lens = (1..=count).map(|i| (len + i).saturating_sub(count).max(1)).collect();
        let rows = [(); 2].map(|()| random.units(len * head_dim));
        let cache = [0, 1].map(|i| stored(&Kernels::SCALAR, layout, PARTS[i], &rows[i], garbage));
        Self { layout, queries, lens, rows, cache }
    }

    /// The results of all queries, `tile` of them at a time.
    pub fn results(&self, kernels: &Kernels, tile: usize) -> Vec<f32> {
        let (layout, head_dim) = (self.layout, self.layout.head_dim());
        let state_len = state_len(head_dim);
        let mut scores = [f32::NAN; SCORES];
        let mut out = vec![-7.5; self.queries.len()];
        let tiles = self.queries.chunks(tile * head_dim).zip(self.lens.chunks(tile));
        for ((queries, lens), out) in tiles.zip(out.chunks_mut(tile * head_dim)) {
            let mut states = vec![f32::NAN; lens.len() * state_len];
            for start in (0..lens[lens.len() - 1]).step_by(CHUNK) {
                let skipped = lens.iter().take_while(|len| **len <= start).count();
                let lens: Vec<_> = lens[skipped..].iter().map(|len| (len - start).min(CHUNK)).collect();
                let [keys, values] = [0, 1].map(|i| &self.cache[i][layout.tile_start(PARTS[i], start)..]);
                let a = Attend { layout, queries: &queries[skipped * head_dim..], lens: &lens, keys, values };
                let mut partials = vec![f32::NAN; lens.len() * state_len];
                kernels.attend(&a, &mut scores, &mut partials);
                if start == 0 {
                    states = partials;
                    continue;
                }
                let states = states[skipped * state_len..].chunks_mut(state_len);
                states.zip(partials.chunks(state_len)).for_each(|(into, from)| kernels.merge_states(into, from));
            }
            for (state, out) in states.chunks(state_len).zip(out.chunks_mut(head_dim)) {
                kernels.finish_state(state, out);
            }
        }
        out
    }

    /// The result of query `q`, in f64.
    fn exact(&self, q: usize) -> Vec<f64> {
        let head_dim = self.layout.head_dim();
        let row = |i: usize, j: usize| &self.rows[i][j * head_dim..][..head_dim];
        let query = &self.queries[q * head_dim..][..head_dim];
        let score = |j| query.iter().zip(row(0, j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let exps: Vec<f64> = (0..self.lens[q]).map(|j| score(j).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let value = |d| exps.iter().enumerate().map(|(j, e)| e / sum * f64::from(row(1, j)[d])).sum();
        (0..head_dim).map(value).collect()
    }
}

/// Layouts and lengths where something changes, and random ones.
fn shapes(random: &mut Random) -> Vec<(KvLayout, usize)> {
    let mut shapes = vec![];
    for kv in KvType::ALL {
        for head_dim in [1, 8, 16, 31, 32, 64, 80, 96, 128, 160, 1 + random.below(160), 1 + random.below(160)] {
            let Some(layout) = KvLayout::new(kv, head_dim) else { continue };
            for len in [1, 2, 15, 16, 17, 64, 65, 255, 256, 257, 300, 513, 700] {
                if len < 300 || random.below(4) == 0 {
                    shapes.push((layout, len));
                }
            }
        }
    }
    shapes
}

#[test]
fn every_instruction_set_attends_with_the_bits_of_the_reference() {
    let random = &mut Random(1);
    for (layout, len) in shapes(random) {
        let count = 1 + random.below(9);
        let case = Case::new(random, layout, count, len, 0xFF);
        let want = case.results(&Kernels::SCALAR, QUERIES);
        assert!(want.iter().all(|x| x.is_finite()), "{layout:?}, {len} positions");
        for kernels in fast() {
            assert_eq!(bits(&case.results(&kernels, QUERIES)), bits(&want), "{kernels:?} {layout:?}, {len} positions");
        }
    }
}

#[test]
fn every_instruction_set_stores_the_bytes_of_the_reference() {
    for seed in 0..60 {
        let random = &mut Random(seed);
        for kv in KvType::ALL {
            let head_dim = [1 + random.below(150), 32, 64, 96][random.below(4)].next_multiple_of(kv.block_len());
            let (layout, part) = (KvLayout::new(kv, head_dim).unwrap(), PARTS[random.below(2)]);
            let positions = 1 + random.below(40);
            let rows = random.wild(head_dim * positions);
            let want = stored(&Kernels::SCALAR, layout, part, &rows, 0x5A);
            for kernels in fast() {
                assert!(stored(&kernels, layout, part, &rows, 0x5A) == want, "{kernels:?} {layout:?} {part:?} {seed}");
            }
        }
    }
}

#[test]
fn broken_numbers_break_every_instruction_set_alike() {
    for seed in 0..40 {
        let random = &mut Random(seed);
        for kv in KvType::ALL {
            let (layout, len) = (KvLayout::new(kv, 32).unwrap(), 1 + random.below(400));
            let mut case = Case::new(random, layout, 5, len, 0);
            let rows = [(); 2].map(|()| random.wild(len * 32));
            case.cache = [0, 1].map(|i| stored(&Kernels::SCALAR, layout, PARTS[i], &rows[i], 0));
            let want = bits(&case.results(&Kernels::SCALAR, QUERIES));
            for kernels in fast() {
                assert_eq!(bits(&case.results(&kernels, QUERIES)), want, "{kernels:?} {kv} seed {seed}");
            }
        }
    }
}

#[test]
fn a_query_has_the_same_bits_in_every_company() {
    let random = &mut Random(2);
    for (layout, len) in shapes(random) {
        let case = Case::new(random, layout, 8, len, 0x00);
        for kernels in fast() {
            let want = bits(&case.results(&kernels, 1));
            for tile in 2..=QUERIES {
                assert_eq!(bits(&case.results(&kernels, tile)), want, "{kernels:?} {layout:?}, {len}, tiles of {tile}");
            }
        }
    }
}

#[test]
fn what_lies_behind_the_positions_does_not_matter() {
    let random = &mut Random(3);
    for (layout, len) in shapes(random) {
        let case = Case::new(random, layout, 3, len, 0xFF);
        for kernels in fast() {
            // Queries before the last see fewer positions: to them these are garbage, too.
            for (q, seen) in case.lens.iter().enumerate() {
                let head_dim = layout.head_dim();
                let (queries, lens) = (case.queries[q * head_dim..][..head_dim].to_vec(), vec![*seen]);
                let rows = [0, 1].map(|i| case.rows[i][..seen * head_dim].to_vec());
                let cache = [0, 1].map(|i| stored(&kernels, layout, PARTS[i], &rows[i], 0x77));
                let alone = Case { layout, queries, lens, rows, cache };
                let got = &case.results(&kernels, QUERIES)[q * head_dim..][..head_dim];
                assert_eq!(bits(got), bits(&alone.results(&kernels, 1)), "{kernels:?} {layout:?}, {seen} of {len}");
            }
        }
    }
}

#[test]
fn a_rounded_cache_gives_the_bits_of_one_that_holds_the_rounded_numbers() {
    let random = &mut Random(4);
    for (layout, len) in shapes(random) {
        let case = Case::new(random, layout, 4, len, 0xFF);
        let (kv, head_dim) = (layout.kv(), layout.head_dim());
        let rows = [0, 1].map(|i| case.rows[i].chunks(head_dim).flat_map(|row| widened(kv, row)).collect::<Vec<_>>());
        let layout = KvLayout::new(KvType::F32, head_dim).unwrap();
        let cache = [0, 1].map(|i| stored(&Kernels::SCALAR, layout, PARTS[i], &rows[i], 0xFF));
        let (queries, lens) = (case.queries.clone(), case.lens.clone());
        let wide = Case { layout, queries, lens, rows, cache };
        for kernels in fast() {
            let (got, want) = (case.results(&kernels, QUERIES), wide.results(&kernels, QUERIES));
            assert_eq!(bits(&got), bits(&want), "{kernels:?} {kv}, {head_dim}, {len} positions");
        }
    }
}

#[test]
fn attention_is_within_its_error_bound_of_f64() {
    let random = &mut Random(5);
    let mut worst = [0f64; 3];
    for (layout, len) in shapes(random) {
        let case = Case::new(random, layout, 5, len, 0xFF);
        let got = case.results(&fast().pop().unwrap_or(Kernels::SCALAR), QUERIES);
        for (q, got) in got.chunks(layout.head_dim()).enumerate() {
            for (got, want) in got.iter().zip(case.exact(q)) {
                let error = &mut worst[layout.kv() as usize];
                *error = error.max((f64::from(*got) - want).abs());
            }
        }
    }
    // Queries, keys and values are uniform in -1..1 and scores within a few units.
    for (kv, (worst, bound)) in KvType::ALL.iter().zip(worst.iter().zip([5e-4, 1e-6, 1e-2])) {
        assert!(*worst < bound, "{kv}: {worst:e}");
    }
}

#[test]
fn sums_are_made_in_the_documented_order() {
    let (head_dim, len) = (7, 300);
    let layout = KvLayout::new(KvType::F32, head_dim).unwrap();
    let case = Case::new(&mut Random(6), layout, 1, len, 0xFF);
    let exp = |x| {
        // A softmax over a single value and its own reference point gives the polynomial's value away.
        let mut pair = [x, 0.0];
        let (_, _) = elementwise::exp_sum(scalar::Scalar, &mut pair);
        pair[0]
    };
    let row = |i: usize, j: usize| &case.rows[i][j * head_dim..][..head_dim];
    let chunk = |positions: Range<usize>| {
        let score = |j| case.queries.iter().zip(row(0, j)).fold(0.0, |sum, (q, k)| libm::fmaf(*q, *k, sum));
        let scores: Vec<f32> = positions.clone().map(score).collect();
        let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f32> = scores.iter().map(|score| exp(score - m)).collect();
        let mut lanes = [0.0; 16];
        e.iter().enumerate().for_each(|(j, e)| lanes[j % 16] += e);
        for half in [8, 4, 2, 1] {
            (0..half).for_each(|i| lanes[i] += lanes[i + half]);
        }
        let pairs = || positions.clone().zip(&e);
        let o: Vec<f32> =
            (0..head_dim).map(|d| pairs().fold(0.0, |sum, (j, e)| libm::fmaf(*e, row(1, j)[d], sum))).collect();
        (m, lanes[0], o)
    };
    let (first, second) = (chunk(0..CHUNK), chunk(CHUNK..len));
    let m = first.0.max(second.0);
    let (a, b) = (exp(first.0 - m), exp(second.0 - m));
    let merged = |x: f32, y: f32| libm::fmaf(x, a, y * b);
    let inverse = 1.0 / merged(first.1, second.1);
    let want: Vec<f32> = first.2.iter().zip(&second.2).map(|(x, y)| merged(*x, *y) * inverse).collect();
    assert_eq!(bits(&case.results(&Kernels::SCALAR, 1)), bits(&want));
}

#[test]
#[should_panic(expected = "attention: 17 keys in 1024 bytes")]
fn a_tile_that_is_not_there_is_refused() {
    let layout = KvLayout::new(KvType::F32, 16).unwrap();
    let a = Attend { layout, queries: &[0.0; 16], lens: &[17], keys: &[0; 1024], values: &[0; 4096] };
    Kernels::SCALAR.attend(&a, &mut [0.0; SCORES], &mut [0.0; 32]);
}

#[test]
#[should_panic(expected = "KV cache: position 16 in 512 bytes")]
fn a_position_behind_the_cache_is_refused() {
    let layout = KvLayout::new(KvType::F16, 16).unwrap();
    Kernels::SCALAR.store_position(&[0.0; 16], 16, &KvHead::from_slice(layout, KvPart::Keys, &mut [0; 512]));
}
