//! Attention, and the cache that it reads.
//!
//! The queries of a KV head (each token's heads of its group, token by token) are cut into tiles of four that share what
//! is read. Where there are enough tiles, lanes share them out and take each through all chunks of positions. Where
//! there are few (one token), lanes share out chunks, too: each leaves the states of its chunks in memory, and behind a
//! barrier they are merged. Either way each chunk is summed up for itself and all are merged in order: the same bits.

use super::batch::RowAt;
use super::run::Work;
use super::step::{Cache, Heads, Rows};
use crate::io::{Lane, Storage};
use crate::kernels::{Attend, CHUNK, KvHead, QUERIES, SCORES, state_len};
use core::ops::Range;

/// Tiles that a lane takes through the cache together, so that a chunk comes from memory once for all of them.
const TILES: usize = 16;
/// Chunks are shared out only where there are at most as many tiles for each lane: the states of all have to be kept.
const FEW_TILES: usize = 4;

/// Memory that attention takes, beside its operands, in values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// For each lane.
    pub scratch_len: u64,
    /// For all lanes together: the states of every chunk of few queries.
    pub partials_len: u64,
}

impl Needs {
    /// For one op with a cache of `seq_len` positions.
    pub fn of(heads: &Heads, seq_len: u32, batch_max: u32, lanes: usize) -> Self {
        let (state_len, head_dim) = (state_len(heads.head_dim) as u64, heads.head_dim as u64);
        let kept = (TILES * QUERIES) as u64;
        let scratch_len = SCORES as u64 + kept * head_dim + (kept + QUERIES as u64) * state_len;
        let tiles_of_head = (u64::from(batch_max) * heads.group as u64).div_ceil(QUERIES as u64);
        let tiles = tiles_of_head.saturating_mul(heads.kv_heads as u64);
        let few_tiles = if lanes > 1 { tiles.min((FEW_TILES * lanes) as u64) } else { 0 };
        let chunks = u64::from(seq_len).div_ceil(CHUNK as u64);
        // A product beyond 64 bits is refused with the arena that it belongs to.
        let partials_len = (few_tiles * QUERIES as u64).saturating_mul(chunks).saturating_mul(state_len);
        Self { scratch_len: scratch_len.next_multiple_of(16), partials_len }
    }

    /// What is enough for both.
    pub fn max(self, other: Self) -> Self {
        Self {
            scratch_len: self.scratch_len.max(other.scratch_len),
            partials_len: self.partials_len.max(other.partials_len),
        }
    }
}

/// Whether it is worth sharing out chunks: whole tiles would let the longest lane work for at least a chunk more, which
/// takes longer than to meet once more and to merge.
const fn chunks_pay_off(tiles: usize, chunks: usize, lanes: usize) -> bool {
    tiles <= FEW_TILES * lanes && tiles.div_ceil(lanes) * chunks > (tiles * chunks).div_ceil(lanes)
}

/// One lane's memory.
struct Scratch<'s> {
    scores: &'s mut [f32; SCORES],
    /// Scaled queries.
    queries: &'s mut [f32],
    /// Their states.
    states: &'s mut [f32],
    /// States of a tile over one chunk.
    partials: &'s mut [f32],
}

/// What all lanes share in one attention step.
struct Operands<'s> {
    query: &'s Rows,
    keys: &'s Cache,
    values: &'s Cache,
    out: &'s Rows,
    heads: &'s Heads,
}

// Accesses to the arena are sound as in `run`: lanes write apart, and the cache is written by another step.
impl<S: Storage + ?Sized> Work<'_, '_, S> {
    /// Writes the keys or values of this lane's rows.
    pub(super) fn shift(&self, lane: &Lane<'_>, x: &Rows, cache: &Cache) {
        let Cache { head_bytes, heads, part, layout, .. } = *cache;
        self.for_rows(lane, 1, |_, row| {
            let RowAt { slot, position } = self.at[row];
            for (head, x) in (0..heads).zip(self.values(x, 0, row, 0..x.width).chunks_exact(layout.head_dim())) {
                let start = self.arena.byte_ptr(cache.head(slot, head), head_bytes);
                // SAFETY: apart; `byte_ptr` checked the range, and other lanes write other positions or slots: a batch has
                // each slot once.
                let to = unsafe { KvHead::from_raw(layout, part, start, head_bytes) };
                self.kernels.store_position(x, position as usize, &to);
            }
        });
    }

    /// Whether lanes share out chunks. All lanes say the same, for a barrier depends on it.
    pub(super) fn splits(&self, heads: &Heads, lanes: usize) -> bool {
        chunks_pay_off(heads.kv_heads * self.tiles(heads), self.chunks(), lanes)
    }

    /// Queries of a KV head, run by run. They are counted from the first row that is computed.
    fn queries_of_runs(&self, heads: &Heads) -> impl Iterator<Item = Range<usize>> + use<'_, S> {
        let (rows, group) = (self.rows.clone(), heads.group);
        let mut next = 0;
        self.runs.iter().map(move |run| {
            let run = next..next + run.rows as usize;
            next = run.end;
            let [start, end] = [run.start, run.end].map(|row| row.clamp(rows.start, rows.end) - rows.start);
            start * group..end * group
        })
    }

    /// Tiles of a KV head: those of one run only share what is read.
    fn tiles(&self, heads: &Heads) -> usize {
        self.queries_of_runs(heads).map(|queries| queries.len().div_ceil(QUERIES)).sum()
    }

    /// The queries of `count` tiles from one on, as far as they belong to the same run.
    fn tiles_from(&self, heads: &Heads, tile: usize, count: usize) -> Range<usize> {
        let mut skip = tile * QUERIES;
        for queries in self.queries_of_runs(heads) {
            let len = queries.len().next_multiple_of(QUERIES);
            if skip < len {
                let first = queries.start + skip;
                return first..queries.end.min(first + count * QUERIES);
            }
            skip -= len;
        }
        unreachable!("tile {tile} of {}", self.tiles(heads))
    }

    pub(super) fn attention(
        &self,
        lane: &Lane<'_>,
        query: &Rows,
        (keys, values): (&Cache, &Cache),
        out: &Rows,
        heads: &Heads,
    ) {
        let step = Operands { query, keys, values, out, heads };
        let scratch = &mut self.attention_scratch(lane, heads.head_dim);
        if self.splits(heads, lane.count) {
            self.attend_to_chunks(lane, &step, scratch);
            lane.barrier();
            self.merge_chunks(lane, &step);
        } else {
            self.attend_to_all(lane, &step, scratch);
        }
    }

    fn attention_scratch(&self, lane: &Lane<'_>, head_dim: usize) -> Scratch<'_> {
        // SAFETY: each lane has scratch of its own.
        let scratch = unsafe { self.arena.scratch(self.sizes, lane.index) };
        let (scores, rest) = scratch.split_first_chunk_mut().expect("`Needs` counts it");
        let (states, rest) = rest.split_at_mut(TILES * QUERIES * state_len(head_dim));
        let (partials, rest) = rest.split_at_mut(QUERIES * state_len(head_dim));
        Scratch { scores, states, partials, queries: &mut rest[..TILES * QUERIES * head_dim] }
    }

    /// Whole tiles: this lane's, through all of their chunks.
    fn attend_to_all(&self, lane: &Lane<'_>, step: &Operands<'_>, scratch: &mut Scratch<'_>) {
        let tiles = self.tiles(step.heads);
        let share = lane.share(step.heads.kv_heads * tiles, 1);
        let mut item = share.start;
        while item < share.end {
            let (head, tile) = (item / tiles, item % tiles);
            let count = (share.end - item).min(tiles - tile).min(TILES);
            let queries = self.tiles_from(step.heads, tile, count);
            item += queries.len().div_ceil(QUERIES);
            self.attend_to_all_of(step, head, queries, scratch);
        }
    }

    /// Some queries of a KV head and a run, from the cache to the output.
    fn attend_to_all_of(&self, step: &Operands<'_>, head: usize, queries: Range<usize>, scratch: &mut Scratch<'_>) {
        let (head_dim, state_len) = (step.heads.head_dim, state_len(step.heads.head_dim));
        self.gather(step, head, queries.clone(), scratch.queries);
        for chunk in 0..self.len(step.heads, queries.end - 1).div_ceil(CHUNK) {
            for first in queries.clone().step_by(QUERIES) {
                let tile = first..queries.end.min(first + QUERIES);
                let at = first - queries.start;
                let tile_queries = &scratch.queries[at * head_dim..][..tile.len() * head_dim];
                let states = &mut scratch.states[at * state_len..][..tile.len() * state_len];
                if chunk == 0 {
                    self.attend(step, head, chunk, tile, tile_queries, scratch.scores, states);
                    continue;
                }
                let partials = &mut scratch.partials[..tile.len() * state_len];
                let skipped = self.attend(step, head, chunk, tile, tile_queries, scratch.scores, partials);
                let pairs = states.chunks_exact_mut(state_len).zip(partials.chunks_exact(state_len));
                for (state, partial) in pairs.skip(skipped) {
                    self.kernels.merge_states(state, partial);
                }
            }
        }
        for (query, state) in queries.zip(scratch.states.chunks_exact(state_len)) {
            self.kernels.finish_state(state, self.output_of(step, head, query));
        }
    }

    /// Single chunks of a tile: this lane's; their states go to memory that all lanes share.
    fn attend_to_chunks(&self, lane: &Lane<'_>, step: &Operands<'_>, scratch: &mut Scratch<'_>) {
        let (tiles, chunks) = (self.tiles(step.heads), self.chunks());
        let (head_dim, state_len) = (step.heads.head_dim, state_len(step.heads.head_dim));
        let mut gathered = None;
        for item in lane.share(step.heads.kv_heads * tiles * chunks, 1) {
            let (head, tile, chunk) = (item / chunks / tiles, item / chunks % tiles, item % chunks);
            let queries = self.tiles_from(step.heads, tile, 1);
            if gathered != Some((head, tile)) {
                self.gather(step, head, queries.clone(), scratch.queries);
                gathered = Some((head, tile));
            }
            let tile_queries = &scratch.queries[..queries.len() * head_dim];
            let start = item * QUERIES * state_len;
            // SAFETY: this item's states are this lane's.
            let states = unsafe { self.arena.partials(self.sizes, start..start + queries.len() * state_len) };
            self.attend(step, head, chunk, queries, tile_queries, scratch.scores, states);
        }
    }

    /// Merges the chunks of this lane's share of the queries.
    fn merge_chunks(&self, lane: &Lane<'_>, step: &Operands<'_>) {
        let (tiles, chunks) = (self.tiles(step.heads), self.chunks());
        let state_len = state_len(step.heads.head_dim);
        for item in lane.share(step.heads.kv_heads * tiles * QUERIES, 1) {
            let (head, tile, at) = (item / QUERIES / tiles, item / QUERIES % tiles, item % QUERIES);
            let Some(query) = self.tiles_from(step.heads, tile, 1).nth(at) else { continue };
            let state = |chunk: usize| {
                let index = ((head * tiles + tile) * chunks + chunk) * QUERIES + at;
                // SAFETY: behind the barrier, this query's states are this lane's; each is asked for once.
                unsafe { self.arena.partials(self.sizes, index * state_len..(index + 1) * state_len) }
            };
            let merged = state(0);
            for chunk in 1..self.len(step.heads, query).div_ceil(CHUNK) {
                self.kernels.merge_states(merged, state(chunk));
            }
            self.kernels.finish_state(merged, self.output_of(step, head, query));
        }
    }

    /// Chunks of the row that has most.
    fn chunks(&self) -> usize {
        let len = |row: &RowAt| row.position as usize + 1;
        self.at[self.rows.clone()].iter().map(len).max().unwrap_or(0).div_ceil(CHUNK)
    }

    /// Row of the batch that a query belongs to.
    fn row(&self, heads: &Heads, query: usize) -> usize {
        self.rows.start + query / heads.group
    }

    /// Positions that a query sees.
    fn len(&self, heads: &Heads, query: usize) -> usize {
        self.at[self.row(heads, query)].position as usize + 1
    }

    /// Values of a query's head in a row of queries, or of the output.
    fn cols(&self, heads: &Heads, head: usize, query: usize) -> Range<usize> {
        let start = (head * heads.group + query % heads.group) * heads.head_dim;
        start..start + heads.head_dim
    }

    #[allow(clippy::mut_from_ref)]
    fn output_of(&self, step: &Operands<'_>, head: usize, query: usize) -> &mut [f32] {
        self.values_mut(step.out, 0, self.row(step.heads, query), self.cols(step.heads, head, query))
    }

    /// Copies queries to `to`, divided by `sqrt(head_dim)`.
    fn gather(&self, step: &Operands<'_>, head: usize, queries: Range<usize>, to: &mut [f32]) {
        let head_dim = step.heads.head_dim;
        let to = &mut to[..queries.len() * head_dim];
        for (query, to) in queries.zip(to.chunks_exact_mut(head_dim)) {
            let cols = self.cols(step.heads, head, query);
            to.copy_from_slice(self.values(step.query, 0, self.row(step.heads, query), cols));
        }
        self.kernels.scale(to, 1.0 / libm::sqrtf(head_dim as f32));
    }

    /// The states of a tile of queries over one chunk. Those that end before the chunk come first; they are skipped,
    /// and counted.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        step: &Operands<'_>,
        head: usize,
        chunk: usize,
        tile: Range<usize>,
        queries: &[f32],
        scores: &mut [f32; SCORES],
        states: &mut [f32],
    ) -> usize {
        let (head_dim, start, count) = (step.heads.head_dim, chunk * CHUNK, tile.len());
        let slot = self.at[self.row(step.heads, tile.start)].slot;
        let mut lens = [0; QUERIES];
        for (len, query) in lens.iter_mut().zip(tile) {
            *len = self.len(step.heads, query).saturating_sub(start).min(CHUNK);
        }
        let lens = &lens[..count];
        let skipped = lens.iter().take_while(|len| **len == 0).count();
        if skipped == count {
            return count;
        }
        let from = |cache: &Cache| {
            let skip = cache.layout.tile_start(cache.part, start);
            // SAFETY: apart; all positions up to the last row's are in the cache.
            unsafe { self.arena.bytes(cache.head(slot, head) + skip, cache.head_bytes - skip) }
        };
        let a = Attend {
            layout: step.keys.layout,
            queries: &queries[skipped * head_dim..],
            lens: &lens[skipped..],
            keys: from(step.keys),
            values: from(step.values),
        };
        self.kernels.attend(&a, scores, &mut states[skipped * state_len(head_dim)..]);
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_shared_out_where_lanes_would_be_idle() {
        for (tiles, chunks, lanes, want) in [
            (8, 16, 1, false),
            (8, 1, 3, false),
            (8, 16, 2, false),
            (3, 2, 2, true),
            (8, 16, 3, true),
            (2, 3, 5, true),
            (2, 3, 3, true),
            (96, 16, 2, false),
        ] {
            assert_eq!(chunks_pay_off(tiles, chunks, lanes), want, "{tiles} tiles, {chunks} chunks, {lanes} lanes");
        }
    }

    #[test]
    fn the_states_of_all_chunks_that_are_shared_out_are_counted() {
        let heads = Heads { kv_heads: 3, head_dim: 20, group: 3 };
        let needs = Needs::of(&heads, 1000, 32, 5);
        for rows in 1..=32 {
            let tiles = 3 * (rows * 3usize).div_ceil(QUERIES);
            if chunks_pay_off(tiles, 4, 5) {
                assert!((tiles * QUERIES * 4 * state_len(20)) as u64 <= needs.partials_len, "{rows} rows");
            }
        }
        assert_eq!(Needs::of(&heads, 1000, 32, 1).partials_len, 0);
    }
}
