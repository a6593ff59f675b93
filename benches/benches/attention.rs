//! Speed of attention on one thread, for each type of the KV cache: one layer of Llama 3.2 1B.
//!
//! `cargo bench -p dair-benches --bench attention [-- FILTER]`; `DAIR_ISA` chooses the instruction set.
//!
//! `decode` is one token behind 4096 others; it goes round several layers' caches, so that they come from memory: look
//! at GB/s of cache. `prefill` is 256 tokens: look at Gitem/s, an item being a multiplication or an addition.

use dair_core::kernels::{Attend, CHUNK, Kernels, KvHead, KvLayout, KvPart, KvType, QUERIES, SCORES, state_len};
use dair_host::machine::cpu::choose_kernels;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use std::fmt;

const KV_HEADS: usize = 8;
const GROUP: usize = 4;
const HEAD_DIM: usize = 64;

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
struct Case {
    kv: KvType,
    position: usize,
    tokens: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kv, self.position)
    }
}

/// Keys and values of one KV head.
struct Head {
    keys: Vec<u8>,
    values: Vec<u8>,
}

fn heads(kernels: &Kernels, layout: KvLayout, positions: usize, count: usize) -> Vec<Head> {
    let mut state = 1u32;
    let mut row = [0f32; HEAD_DIM];
    let mut part = |part| {
        let mut bytes = vec![0; layout.head_bytes(part, positions as u64).unwrap() as usize];
        for position in 0..positions {
            for x in &mut row {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            }
            kernels.store_position(&row, position, &KvHead::from_slice(layout, part, &mut bytes));
        }
        bytes
    };
    (0..count).map(|_| Head { keys: part(KvPart::Keys), values: part(KvPart::Values) }).collect()
}

/// All tokens' queries of one KV head over its cache, as the engine does it.
fn attend(kernels: &Kernels, layout: KvLayout, head: &Head, case: &Case, queries: &[f32], states: &mut [f32]) {
    const TILES: usize = 16;
    const STATE: usize = state_len(HEAD_DIM);
    let count = case.tokens * GROUP;
    let mut scores = [0.0; SCORES];
    let mut partials = [0.0; QUERIES * STATE];
    let len = |query: usize| case.position + query / GROUP + 1;
    for block in (0..count).step_by(TILES * QUERIES) {
        let end = count.min(block + TILES * QUERIES);
        for chunk in 0..len(end - 1).div_ceil(CHUNK) {
            for first in (block..end).step_by(QUERIES) {
                let lens: [usize; QUERIES] =
                    std::array::from_fn(|i| len(first + i).saturating_sub(chunk * CHUNK).min(CHUNK));
                if lens[0] == 0 {
                    continue;
                }
                let width = QUERIES.min(end - first);
                let lens = &lens[..width];
                let start = |part| layout.tile_start(part, chunk * CHUNK);
                let a = Attend {
                    layout,
                    queries: &queries[first * HEAD_DIM..][..width * HEAD_DIM],
                    lens,
                    keys: &head.keys[start(KvPart::Keys)..],
                    values: &head.values[start(KvPart::Values)..],
                };
                let states = &mut states[first * STATE..][..width * STATE];
                if chunk == 0 {
                    kernels.attend(&a, &mut scores, states);
                    continue;
                }
                kernels.attend(&a, &mut scores, &mut partials[..width * STATE]);
                let pairs = states.chunks_exact_mut(STATE).zip(partials.chunks_exact(STATE));
                pairs.for_each(|(state, partial)| kernels.merge_states(state, partial));
            }
        }
    }
}

fn run(bencher: Bencher<'_, '_>, case: &Case, layers: usize) {
    let (kernels, layout) = (choose_kernels(None).unwrap(), KvLayout::new(case.kv, HEAD_DIM).unwrap());
    let positions = case.position + case.tokens;
    let heads = heads(&kernels, layout, positions, KV_HEADS * layers);
    let queries: Vec<f32> =
        (0..case.tokens * GROUP * HEAD_DIM).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.002).collect();
    let mut states = vec![0f32; case.tokens * GROUP * state_len(HEAD_DIM)];
    let seen: usize = (1..=case.tokens).map(|token| case.position + token).sum();
    let bytes: usize = heads.iter().map(|head| head.keys.len() + head.values.len()).sum();
    bencher
        .counter(BytesCount::new(bytes))
        .counter(ItemsCount::new(4 * seen * KV_HEADS * GROUP * HEAD_DIM * layers))
        .bench_local(|| {
            for head in &heads {
                attend(&kernels, layout, head, case, &queries, black_box(&mut states));
            }
        });
}

fn cases(position: usize, tokens: usize) -> impl Iterator<Item = Case> {
    KvType::ALL.into_iter().map(move |kv| Case { kv, position, tokens })
}

#[divan::bench(args = cases(4096, 1), max_time = 2)]
fn decode(bencher: Bencher<'_, '_>, case: &Case) {
    run(bencher, case, 16);
}

#[divan::bench(args = cases(0, 256).chain(cases(3840, 256)), max_time = 2)]
fn prefill(bencher: Bencher<'_, '_>, case: &Case) {
    run(bencher, case, 1);
}
