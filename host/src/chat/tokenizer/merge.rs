//! Byte-pair merges inside one piece of a text, by a rank of pairs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Symbols up to which looking at all pairs again for each merge is faster than a heap.
const FEW: usize = 32;
/// No pair, or one that does not merge.
const NEVER: u64 = u64::MAX;

/// Scratch memory of merges, used again from piece to piece.
#[derive(Debug, Default)]
pub struct Merger<S> {
    /// The symbols of the piece; what is left of them after [`run`](Self::run).
    pub symbols: Vec<S>,
    pairs: Vec<(u64, S)>,
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    prev: Vec<u32>,
    next: Vec<u32>,
}

impl<S: Copy + Default> Merger<S> {
    /// Merges neighbours until none merge any more: always the pair of the lowest rank, of equals the leftmost. `pair` says what
    /// two symbols become, and their rank.
    pub fn run(&mut self, pair: impl Fn(S, S) -> Option<(u32, S)>) {
        let pair =
            |left, right| pair(left, right).map_or((NEVER, S::default()), |(rank, merged)| (rank.into(), merged));
        self.pairs.clear();
        self.pairs.extend(self.symbols.windows(2).map(|two| pair(two[0], two[1])));
        if self.symbols.len() <= FEW { self.scan(pair) } else { self.queue(pair) }
    }

    fn scan(&mut self, pair: impl Fn(S, S) -> (u64, S)) {
        let Self { symbols, pairs, .. } = self;
        loop {
            let mut best = (NEVER, 0);
            for (i, (rank, _)) in pairs.iter().enumerate() {
                if *rank < best.0 {
                    best = (*rank, i);
                }
            }
            let (rank, i) = best;
            if rank == NEVER {
                return;
            }
            symbols[i] = pairs[i].1;
            symbols.remove(i + 1);
            pairs.remove(i);
            if i > 0 {
                pairs[i - 1] = pair(symbols[i - 1], symbols[i]);
            }
            if i < pairs.len() {
                pairs[i] = pair(symbols[i], symbols[i + 1]);
            }
        }
    }

    fn queue(&mut self, pair: impl Fn(S, S) -> (u64, S)) {
        let Self { symbols, pairs, heap, prev, next } = self;
        let len = symbols.len();
        pairs.push((NEVER, S::default()));
        prev.clear();
        prev.extend((0..len as u32).map(|i| i.wrapping_sub(1)));
        next.clear();
        next.extend(1..=len as u32);
        heap.clear();
        let entries = pairs.iter().zip(0..).filter(|((rank, _), _)| *rank != NEVER);
        heap.extend(entries.map(|(&(rank, _), i)| Reverse((rank, i))));
        while let Some(Reverse((rank, i))) = heap.pop() {
            let (left, right) = (i as usize, next[i as usize] as usize);
            // An entry is out of date where the pair at its place has another rank by now.
            if pairs[left].0 != rank {
                continue;
            }
            symbols[left] = pairs[left].1;
            pairs[right].0 = NEVER;
            let after = next[right];
            next[left] = after;
            pairs[left] = (NEVER, S::default());
            let mut update = |left: usize, right: usize| {
                pairs[left] = pair(symbols[left], symbols[right]);
                if pairs[left].0 != NEVER {
                    heap.push(Reverse((pairs[left].0, left as u32)));
                }
            };
            if (after as usize) < len {
                prev[after as usize] = i;
                update(left, after as usize);
            }
            if prev[left] != u32::MAX {
                update(prev[left] as usize, left);
            }
        }
        let (mut from, mut to) = (0, 0);
        while from < len {
            symbols[to] = symbols[from];
            from = next[from] as usize;
            to += 1;
        }
        symbols.truncate(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule word for word.
    fn slowly(mut symbols: Vec<u32>, pair: impl Fn(u32, u32) -> Option<(u32, u32)>) -> Vec<u32> {
        loop {
            let ranks = symbols.windows(2).enumerate().filter_map(|(i, two)| Some((pair(two[0], two[1])?, i)));
            let Some(((_, merged), i)) = ranks.min_by_key(|((rank, _), i)| (*rank, *i)) else { return symbols };
            symbols[i] = merged;
            symbols.remove(i + 1);
        }
    }

    #[test]
    fn both_ways_are_the_rule() {
        let mut state = 1_u64;
        let mut random = |n: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % n
        };
        for round in 0..3000 {
            // Few symbols and few ranks: many merges, many of equal rank.
            let (symbols, ranks, some) = (2 + random(5), 1 + random(9), 1 + random(4));
            let pair = |a: u32, b: u32| {
                let hash = (a * 31 + b * 17).wrapping_mul(2_654_435_761) >> 7;
                (!hash.is_multiple_of(some + 1)).then_some((hash % ranks, (a + b + hash) % (symbols + 3)))
            };
            let text: Vec<u32> = (0..random(120)).map(|_| random(symbols)).collect();
            let expected = slowly(text.clone(), pair);
            let mut merger = Merger { symbols: text.clone(), ..Merger::default() };
            merger.run(pair);
            assert_eq!(merger.symbols, expected, "round {round}: {text:?}");
            let mut merger = Merger { symbols: text.clone(), ..Merger::default() };
            merger.pairs =
                text.windows(2).map(|two| pair(two[0], two[1]).map_or((NEVER, 0), |(r, s)| (r.into(), s))).collect();
            if !text.is_empty() {
                merger.queue(|a, b| pair(a, b).map_or((NEVER, 0), |(rank, merged)| (rank.into(), merged)));
            }
            assert_eq!(merger.symbols, expected, "by a queue, round {round}: {text:?}");
        }
    }
}
