//! Attention of a few query heads over a chunk of the key-value cache of the KV head that they share.
//!
//! The *state* of a query over some positions is `m`, their largest score; `l`, the sum of `e = exp(score - m)`; and
//! `o`, the sum of `e` times value. States of neighbouring chunks merge into the state of both.

use super::cache::{KEY_BLOCK_BYTES, KvLayout, KvPart, KvType, TILE};
use super::elementwise::{exp, exp_sum};
use super::lanes::{LANES, Lanes};
use crate::quant::{BLOCK, BlockQ80};
use core::ops::Range;

/// Most queries that share what is loaded.
pub const QUERIES: usize = 4;
/// Positions of a chunk: 0 to 255, 256 to 511, …
pub const CHUNK: usize = 256;
/// Values of the scratch memory of [`Kernels::attend`](super::Kernels::attend).
pub const SCORES: usize = QUERIES * CHUNK;

/// Values of a state: `o`, padded to 16, then `m`, `l` and 14 zeros.
pub const fn state_len(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES) + LANES
}

/// Queries that look at one chunk of a cache.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Of the cache.
    pub layout: KvLayout,
    /// The queries, `head_dim` values each, divided by `sqrt(head_dim)`.
    pub queries: &'a [f32],
    /// How many positions from the start of the chunk each query sees: 1 to [`CHUNK`].
    pub lens: &'a [usize],
    /// The keys from the start of the chunk on, in whole tiles. What lies in a tile behind `lens` may be anything.
    pub keys: &'a [u8],
    /// The values from the start of the chunk on.
    pub values: &'a [u8],
}

impl Attend<'_> {
    /// Panics unless all that the queries see lies inside keys and values.
    pub(super) fn check(&self, states: usize) {
        let (count, head_dim) = (self.lens.len(), self.layout.head_dim());
        assert!((1..=QUERIES).contains(&count), "attention: {count} queries");
        assert_eq!(self.queries.len(), count * head_dim, "attention: values of {count} queries");
        assert!(self.lens.iter().all(|len| (1..=CHUNK).contains(len)), "attention: positions {:?}", self.lens);
        let longest = self.longest();
        let keys = longest.div_ceil(TILE) * self.layout.tile_bytes(KvPart::Keys) as usize;
        assert!(keys <= self.keys.len(), "attention: {longest} keys in {} bytes", self.keys.len());
        let values = longest * self.layout.value_bytes();
        assert!(values <= self.values.len(), "attention: {longest} values in {} bytes", self.values.len());
        assert_eq!(states, count * state_len(head_dim), "attention: values of {count} states");
    }

    #[inline(always)]
    fn longest(&self) -> usize {
        self.lens.iter().fold(0, |longest, len| longest.max(*len))
    }
}

/// Sums that half of the registers hold, for `Q` queries.
const fn sums<S: Lanes>(queries: usize) -> usize {
    S::REGISTERS / 2 / queries
}

/// A type of the cache that widens to F32 exactly.
trait Stored {
    /// Blocks of a key, and values of a block: they have a scale in common.
    fn blocks(head_dim: usize) -> (usize, usize);
    /// Bytes of a block of a tile of keys.
    fn block_bytes(block_len: usize) -> usize;
    /// The scales of a block of a tile.
    ///
    /// # Safety
    /// `block` points to a block of a tile.
    unsafe fn scales<S: Lanes>(s: S, block: *const u8) -> S::V;
    /// Value `d` of the block, for each position of the tile.
    ///
    /// # Safety
    /// `block` points to a block of a tile, and `d` lies in it.
    unsafe fn key<S: Lanes>(s: S, block: *const u8, d: usize, scales: S::V) -> S::V;
    /// A vector of the value of a position.
    ///
    /// # Safety
    /// `row` points to the value of a position, and `vector` lies in it.
    unsafe fn value<S: Lanes>(s: S, row: *const u8, vector: usize) -> S::V;
}

struct F32;
struct F16;
struct Q80;

macro_rules! plain {
    ($type:ty, $bytes:literal, $load:ident) => {
        impl Stored for $type {
            #[inline(always)]
            fn blocks(head_dim: usize) -> (usize, usize) {
                (1, head_dim)
            }
            #[inline(always)]
            fn block_bytes(block_len: usize) -> usize {
                block_len * $bytes * TILE
            }
            #[inline(always)]
            unsafe fn scales<S: Lanes>(s: S, _: *const u8) -> S::V {
                s.splat(1.0)
            }
            #[inline(always)]
            unsafe fn key<S: Lanes>(s: S, block: *const u8, d: usize, _: S::V) -> S::V {
                // SAFETY: value `d` of the block.
                s.$load(unsafe { &*block.add(d * $bytes * TILE).cast() })
            }
            #[inline(always)]
            unsafe fn value<S: Lanes>(s: S, row: *const u8, vector: usize) -> S::V {
                // SAFETY: rows are padded to whole vectors.
                s.$load(unsafe { &*row.add(vector * $bytes * LANES).cast() })
            }
        }
    };
}
plain!(F32, 4, load_bytes);
plain!(F16, 2, load_f16);

/// A code of 8 bits times a scale of 11 is exact in F32: the result is that of the widened cache, bit for bit.
impl Stored for Q80 {
    #[inline(always)]
    fn blocks(head_dim: usize) -> (usize, usize) {
        (head_dim / BLOCK, BLOCK)
    }
    #[inline(always)]
    fn block_bytes(_: usize) -> usize {
        KEY_BLOCK_BYTES
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(s: S, block: *const u8) -> S::V {
        // SAFETY: a block begins with its scales.
        s.load_f16(unsafe { &*block.cast() })
    }
    #[inline(always)]
    unsafe fn key<S: Lanes>(s: S, block: *const u8, d: usize, scales: S::V) -> S::V {
        // SAFETY: codes `d` of the block, behind the scales.
        s.mul(s.load_i8(unsafe { &*block.add(2 * TILE + d * TILE).cast() }), scales)
    }
    #[inline(always)]
    unsafe fn value<S: Lanes>(s: S, row: *const u8, vector: usize) -> S::V {
        const VECTORS: usize = BLOCK / LANES;
        // SAFETY: a row is whole blocks.
        let block: &BlockQ80 = unsafe { &*row.cast::<BlockQ80>().add(vector / VECTORS) };
        s.mul(s.load_i8(&block.qs.as_chunks().0[vector % VECTORS]), s.splat_f16(block.d))
    }
}

/// The state of each query over the positions of the chunk that it sees; all of `a` passed its `check`.
#[inline(always)]
pub(super) fn attend<S: Lanes>(s: S, a: &Attend<'_>, scores: &mut [f32; SCORES], states: &mut [f32]) {
    match a.layout.kv() {
        KvType::F16 => by_count::<S, F16>(s, a, scores, states),
        KvType::F32 => by_count::<S, F32>(s, a, scores, states),
        KvType::Q80 => by_count::<S, Q80>(s, a, scores, states),
    }
}

#[inline(always)]
fn by_count<S: Lanes, E: Stored>(s: S, a: &Attend<'_>, scores: &mut [f32; SCORES], states: &mut [f32]) {
    let (head_dim, state_len) = (a.layout.head_dim(), state_len(a.layout.head_dim()));
    if sums::<S>(QUERIES) == 0 {
        // Nothing is gained where registers do not hold the sums of several queries.
        for (q, state) in states.chunks_exact_mut(state_len).enumerate() {
            let alone = Attend { queries: &a.queries[q * head_dim..][..head_dim], lens: &a.lens[q..=q], ..*a };
            tile::<S, E, 1>(s, &alone, scores, state);
        }
        return;
    }
    match a.lens.len() {
        1 => tile::<S, E, 1>(s, a, scores, states),
        2 => tile::<S, E, 2>(s, a, scores, states),
        3 => tile::<S, E, 3>(s, a, scores, states),
        _ => tile::<S, E, QUERIES>(s, a, scores, states),
    }
}

/// Positions whose values stay in the first-level cache while all parts of a head pass over them.
const VALUES: usize = 64;

#[inline(always)]
fn tile<S: Lanes, E: Stored, const Q: usize>(s: S, a: &Attend<'_>, scores: &mut [f32; SCORES], states: &mut [f32]) {
    let groups = a.longest().div_ceil(TILE);
    let mut group = 0;
    match sums::<S>(Q) {
        8.. => group = scores_of::<S, E, Q, 8>(s, a, group..groups, scores),
        4.. => group = scores_of::<S, E, Q, 4>(s, a, group..groups, scores),
        2 | 3 => group = scores_of::<S, E, Q, 2>(s, a, group..groups, scores),
        _ => {}
    }
    scores_of::<S, E, Q, 1>(s, a, group..groups, scores);

    let state_len = state_len(a.layout.head_dim());
    for (q, state) in states.chunks_exact_mut(state_len).enumerate() {
        let (m, l) = exp_sum(s, &mut scores[q * CHUNK..][..a.lens[q]]);
        let tail = &mut state[state_len - LANES..];
        tail.fill(0.0);
        (tail[0], tail[1]) = (m, l);
    }

    // All queries see the common positions; of those behind, only what each sees enters its sums.
    let common = a.lens.iter().fold(CHUNK, |common, len| common.min(*len));
    let mut start = 0;
    while start < common {
        let end = common.min(start + VALUES);
        values_of::<S, E, Q>(s, a, 0, start..end, scores, states);
        start = end;
    }
    for (q, len) in a.lens.iter().enumerate() {
        if common < *len {
            values_of::<S, E, 1>(s, a, q, common..*len, scores, states);
        }
    }
}

/// Scores of `G` groups of 16 positions at a time; returns the first group that is left.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators over vectors are not always inlined")]
fn scores_of<S: Lanes, E: Stored, const Q: usize, const G: usize>(
    s: S,
    a: &Attend<'_>,
    groups: Range<usize>,
    scores: &mut [f32; SCORES],
) -> usize {
    let head_dim = a.layout.head_dim();
    let (blocks, block_len) = E::blocks(head_dim);
    let block_bytes = E::block_bytes(block_len);
    let tile_bytes = blocks * block_bytes;
    let mut group = groups.start;
    while group + G <= groups.end {
        let mut acc = [[s.splat(0.0); G]; Q];
        for b in 0..blocks {
            let mut keys = [core::ptr::null(); G];
            let mut scales = [s.splat(0.0); G];
            for g in 0..G {
                // SAFETY: `check` saw that all tiles up to the last position lie inside the keys.
                unsafe {
                    keys[g] = a.keys.as_ptr().add((group + g) * tile_bytes + b * block_bytes);
                    scales[g] = E::scales(s, keys[g]);
                }
            }
            for d in 0..block_len {
                for g in 0..G {
                    // SAFETY: `d` lies inside the block.
                    let key = unsafe { E::key(s, keys[g], d, scales[g]) };
                    for q in 0..Q {
                        // SAFETY: `check` saw `Q` queries of `head_dim` values.
                        let x = s.splat(unsafe { *a.queries.get_unchecked(q * head_dim + b * block_len + d) });
                        acc[q][g] = s.fma(x, key, acc[q][g]);
                    }
                }
            }
        }
        for q in 0..Q {
            for g in 0..G {
                let scores = scores[q * CHUNK + (group + g) * TILE..].first_chunk_mut();
                s.store(acc[q][g], scores.expect("whole tiles fit a chunk"));
            }
        }
        group += G;
    }
    group
}

/// Adds positions to `o` of the queries `first..first + Q`.
#[inline(always)]
fn values_of<S: Lanes, E: Stored, const Q: usize>(
    s: S,
    a: &Attend<'_>,
    first: usize,
    positions: Range<usize>,
    scores: &[f32; SCORES],
    states: &mut [f32],
) {
    let vectors = a.layout.head_dim().div_ceil(LANES);
    let mut vector = 0;
    match sums::<S>(Q) {
        4.. => vector = weigh::<S, E, Q, 4>(s, a, first, (&positions, vector..vectors), scores, states),
        2 | 3 => vector = weigh::<S, E, Q, 2>(s, a, first, (&positions, vector..vectors), scores, states),
        _ => {}
    }
    weigh::<S, E, Q, 1>(s, a, first, (&positions, vector..vectors), scores, states);
}

/// `N` vectors of a head at a time; returns the first vector that is left.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators over vectors are not always inlined")]
fn weigh<S: Lanes, E: Stored, const Q: usize, const N: usize>(
    s: S,
    a: &Attend<'_>,
    first: usize,
    (positions, vectors): (&Range<usize>, Range<usize>),
    scores: &[f32; SCORES],
    states: &mut [f32],
) -> usize {
    let (row_bytes, state_len) = (a.layout.value_bytes(), state_len(a.layout.head_dim()));
    let mut vector = vectors.start;
    while vector + N <= vectors.end {
        let mut acc = [[s.splat(0.0); N]; Q];
        if positions.start > 0 {
            for q in 0..Q {
                for n in 0..N {
                    acc[q][n] = s.load(&states[(first + q) * state_len..].as_chunks().0[vector + n]);
                }
            }
        }
        for j in positions.clone() {
            // SAFETY: `check` saw that all positions lie inside the values.
            let row = unsafe { a.values.as_ptr().add(j * row_bytes) };
            for n in 0..N {
                // SAFETY: a row has all vectors of a head.
                let value = unsafe { E::value(s, row, vector + n) };
                for q in 0..Q {
                    // SAFETY: `check` saw that there are at most `QUERIES` queries and `CHUNK` positions.
                    let e = s.splat(unsafe { *scores.get_unchecked((first + q) * CHUNK + j) });
                    acc[q][n] = s.fma(e, value, acc[q][n]);
                }
            }
        }
        for q in 0..Q {
            for n in 0..N {
                s.store(acc[q][n], &mut states[(first + q) * state_len..].as_chunks_mut().0[vector + n]);
            }
        }
        vector += N;
    }
    vector
}

/// Merges the state of the positions that follow into that of those before; equally long.
#[inline(always)]
pub(super) fn merge_states<S: Lanes>(s: S, into: &mut [f32], from: &[f32]) {
    let at = into.len() - LANES;
    let (m, m_from) = (into[at], from[at]);
    let larger = if m_from > m { m_from } else { m };
    let mut factors = [0.0; LANES];
    (factors[0], factors[1]) = (m - larger, m_from - larger);
    let exps = exp(s, s.load(&factors));
    s.store(exps, &mut factors);
    let (a, b) = (s.splat(factors[0]), s.splat(factors[1]));
    // `l` goes the way of `o`, and so do the zeros behind it.
    for (x, y) in into.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
        s.store(s.fma(s.load(x), a, s.mul(s.load(y), b)), x);
    }
    into[at] = larger;
}

/// `out = o / l`, by the reciprocal.
#[inline(always)]
pub(super) fn finish_state<S: Lanes>(_: S, state: &[f32], out: &mut [f32]) {
    let inverse = 1.0 / state[state.len() - LANES + 1];
    for (out, o) in out.iter_mut().zip(state) {
        *out = o * inverse;
    }
}
