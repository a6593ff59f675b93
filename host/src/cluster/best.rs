//! Links of the native dialect, on which the best logits of each node may stand for all of its logits.

use crate::cluster::lossy;
use crate::net::{Mesh, NetError};
use dair_core::graph::Collective;
use dair_core::io::{Exchange, Links};
use dair_core::text::{OCTAVES, Octaves, Partial};
use dair_core::wire::native::{Best, Wanted};

/// Bytes of a logit and its token.
const PAIR: usize = 8;
/// Bytes of a sum over all tokens of a node.
const MASSES: usize = 4 + 8 * OCTAVES;
/// Stands where a node has fewer tokens than it is asked for.
const NOTHING: (f32, u32) = (f32::MIN, u32::MAX);

/// A mesh, and what of logits is wanted in the pass that runs.
#[derive(Debug)]
pub struct NativeLinks<'m> {
    /// The links.
    pub mesh: &'m mut Mesh,
    /// What is wanted.
    pub wanted: Wanted,
    /// Whether activations cross in Q40.
    pub is_lossy: bool,
    /// What nodes sent instead of logits.
    pub gathered: &'m mut Gathered,
}

/// What was gathered instead of rows of logits.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Memory that is used again, for what crosses the network.
    bytes: Vec<u8>,
    /// On the root, where sums were asked for: of each row, what is known of its logits.
    pub partials: Vec<Partial>,
}

impl Links for NativeLinks<'_> {
    type Error = NetError;

    fn begin(&mut self, exchange: Exchange<'_>, pipe: &[u8]) -> Result<(), NetError> {
        match (exchange.collective, self.wanted) {
            // What crosses is made when it is exchanged.
            (Collective::Gather, Wanted::Best(_)) => Ok(()),
            _ => match lossy::narrowed(&exchange).filter(|_| self.is_lossy) {
                Some(small) => {
                    lossy::narrow(&exchange, pipe, self.mesh.node(), &mut self.gathered.bytes);
                    self.mesh.begin(small, &self.gathered.bytes)
                }
                None => self.mesh.begin(exchange, pipe),
            },
        }
    }

    fn exchange(&mut self, exchange: Exchange<'_>, pipe: &mut [u8]) -> Result<(), NetError> {
        match (exchange.collective, self.wanted) {
            (Collective::Gather, Wanted::Best(best)) => self.gather_best(&exchange, pipe, best),
            _ => match lossy::narrowed(&exchange).filter(|_| self.is_lossy) {
                // Every exchange is begun, and what was narrowed then is still there.
                Some(small) => {
                    self.mesh.exchange(small, &mut self.gathered.bytes)?;
                    lossy::widen(&self.gathered.bytes, pipe);
                    Ok(())
                }
                None => self.mesh.exchange(exchange, pipe),
            },
        }
    }
}

impl NativeLinks<'_> {
    /// Gathers the best of each row. The root then has these and its own, and [`f32::MIN`] for all others.
    fn gather_best(&mut self, exchange: &Exchange<'_>, pipe: &mut [u8], best: Best) -> Result<(), NetError> {
        let (node, rows) = (self.mesh.node(), pipe.len() / exchange.row_bytes);
        let bounds = bounds(exchange, best);
        let small = Exchange { row_bytes: 4 * bounds[bounds.len() - 1] as usize, bounds: Some(&bounds), ..*exchange };
        let Gathered { bytes, partials } = &mut *self.gathered;
        partials.clear();
        bytes.clear();
        bytes.resize(rows * small.row_bytes, 0);
        // The root's own stay where they are, but it adds them up as others do.
        let (from, to) = (exchange.part(node), small.part(node));
        for (row, out) in pipe.chunks(exchange.row_bytes).zip(bytes.chunks_mut(small.row_bytes)) {
            write_part(&row[from.clone()], (from.start / 4) as u32, best, &mut out[to.clone()]);
        }
        self.mesh.exchange(small, bytes)?;
        if node > 0 {
            return Ok(());
        }
        for (row, parts) in pipe.chunks_mut(exchange.row_bytes).zip(bytes.chunks(small.row_bytes)) {
            let mut partial: Option<Partial> = None;
            for other in (0..exchange.nodes).filter(|other| !exchange.part(*other).is_empty()) {
                let (part, from) = (exchange.part(other), &parts[small.part(other)]);
                let (pairs, masses) = from.split_at(best.count as usize * PAIR);
                let mut floor = f32::MIN;
                if other > 0 {
                    floor = read_pairs(pairs, (part.start / 4) as u32, &mut row[part])
                        .ok_or_else(|| self.mesh.wrong(other, "a logit of a token that is not its own"))?;
                }
                if let Some(octaves) = read_octaves(masses) {
                    partial = Some(match partial {
                        None => Partial { octaves, floor },
                        Some(all) => Partial { octaves: all.octaves.with(&octaves), floor: all.floor.max(floor) },
                    });
                }
            }
            partials.extend(partial);
        }
        Ok(())
    }
}

/// Where what each node sends of a row begins, in words: nodes without tokens send nothing.
fn bounds(exchange: &Exchange<'_>, best: Best) -> Vec<u32> {
    let masses = if best.scale > 0.0 { MASSES } else { 0 };
    let words = (best.count as usize * PAIR + masses) as u32 / 4;
    let mut bounds = vec![0];
    for node in 0..exchange.nodes {
        let has_tokens = !exchange.part(node).is_empty();
        bounds.push(bounds[node as usize] + if has_tokens { words } else { 0 });
    }
    bounds
}

/// Writes what a node sends instead of `logits`, those of the tokens from `first` on: the best, and where they are asked for,
/// sums over all.
fn write_part(logits: &[u8], first: u32, best: Best, out: &mut [u8]) {
    if out.is_empty() {
        return;
    }
    let (pairs, masses) = out.split_at_mut(best.count as usize * PAIR);
    write_best(logits, first, best, pairs);
    let Some((highest, sums)) = masses.split_first_chunk_mut() else { return };
    let tokens = (best.below.saturating_sub(first) as usize).min(logits.len() / 4);
    let values: Vec<f32> = logits.as_chunks().0[..tokens].iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let octaves = Octaves::of(&values, values.iter().copied().fold(f32::MIN, f32::max), best.scale);
    *highest = octaves.highest.to_le_bytes();
    for (out, sum) in sums.as_chunks_mut().0.iter_mut().zip(octaves.sums) {
        *out = sum.to_le_bytes();
    }
}

/// Reads sums, if there are some.
fn read_octaves(masses: &[u8]) -> Option<Octaves> {
    let (highest, sums) = masses.split_first_chunk()?;
    let mut octaves = Octaves { highest: i32::from_le_bytes(*highest), sums: [0; OCTAVES] };
    for (sum, bytes) in octaves.sums.iter_mut().zip(sums.as_chunks().0) {
        *sum = u64::from_le_bytes(*bytes);
    }
    Some(octaves)
}

/// Writes pairs of a node into its part of a row, whose first token is `first`; returns the logit that others of the node may
/// have, at most. `None` where a token is not in its part.
fn read_pairs(pairs: &[u8], first: u32, logits: &mut [u8]) -> Option<f32> {
    let logits = logits.as_chunks_mut().0;
    logits.fill(f32::MIN.to_le_bytes());
    let mut floor = f32::MIN;
    for pair in pairs.as_chunks::<PAIR>().0 {
        let ([logit, token], []) = pair.as_chunks::<4>() else { unreachable!("a pair is two words") };
        let token = u32::from_le_bytes(*token);
        if token == NOTHING.1 {
            return Some(f32::MIN);
        }
        *logits.get_mut(token.checked_sub(first)? as usize)? = *logit;
        floor = f32::from_le_bytes(*logit);
    }
    Some(floor)
}

/// Writes the best of `logits`, little-endian F32 of the tokens from `first` on.
fn write_best(logits: &[u8], first: u32, best: Best, out: &mut [u8]) {
    let mut found: Vec<(f32, u32)> = Vec::with_capacity(best.count as usize + 1);
    // What is broken goes first: whoever samples has to see it.
    let rank = |logit: f32| if logit.is_nan() { f32::INFINITY } else { logit };
    for (bytes, token) in logits.as_chunks().0.iter().zip(first..best.below) {
        let logit = f32::from_le_bytes(*bytes);
        let is_full = found.len() == best.count as usize;
        if is_full && found.last().is_some_and(|(least, _)| rank(logit) <= rank(*least)) {
            continue;
        }
        found.truncate(best.count as usize - 1);
        let place = found.partition_point(|(other, _)| rank(*other) >= rank(logit));
        found.insert(place, (logit, token));
    }
    found.resize(best.count as usize, NOTHING);
    for ((logit, token), out) in found.into_iter().zip(out.as_chunks_mut::<PAIR>().0) {
        out[..4].copy_from_slice(&logit.to_le_bytes());
        out[4..].copy_from_slice(&token.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn best(logits: &[f32], first: u32, best: Best) -> Vec<(f32, u32)> {
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let mut out = vec![0; best.count as usize * PAIR];
        write_best(&bytes, first, best, &mut out);
        let word = |bytes: &[u8]| bytes.try_into().unwrap();
        out.chunks(PAIR)
            .map(|pair| (f32::from_le_bytes(word(&pair[..4])), u32::from_le_bytes(word(&pair[4..]))))
            .collect()
    }

    #[test]
    fn equal_logits_are_in_the_order_of_tokens_and_padding_is_none() {
        let logits = [1.0, 3.0, 3.0, 2.0, 3.0, 9.0];
        let of = |count, below| best(&logits, 10, Best { count, below, scale: 0.0 });
        assert_eq!(of(1, 15), [(3.0, 11)]);
        assert_eq!(of(2, 15), [(3.0, 11), (3.0, 12)]);
        assert_eq!(of(4, 15), [(3.0, 11), (3.0, 12), (3.0, 14), (2.0, 13)]);
        assert_eq!(of(2, 100), [(9.0, 15), (3.0, 11)]);
        assert_eq!(of(2, 11), [(1.0, 10), NOTHING]);
        assert_eq!(of(1, 3), [NOTHING], "all of its tokens are padding");
        assert!(best(&[1.0, f32::NAN, 5.0], 0, Best { count: 1, below: 9, scale: 0.0 })[0].0.is_nan());
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_sorted_row(logits in prop::collection::vec(-4..5i8, 1..60), count in 1..20u32) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut sorted: Vec<_> = logits.iter().copied().zip(0..).collect();
            sorted.sort_by(|a: &(f32, u32), b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            sorted.resize(count as usize, NOTHING);
            prop_assert_eq!(best(&logits, 0, Best { count, below: 1000, scale: 0.0 }), sorted);
        }
    }
}
