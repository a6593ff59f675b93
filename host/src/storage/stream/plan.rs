//! How memory is shared out between weights that stay, those that are on their way, and experts.

use super::pieces::{self, Grain, Pieces, weight_bytes};
use super::source::{SECTOR, frame_bytes};
use dair_core::graph::{Graph, Weight};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of what is on its way: read, and not used yet.
const AHEAD: u64 = 32 << 20;
/// Bytes that are read in one go, about: disks are at their full speed with it.
const WINDOW: Range<u64> = 512 << 10..4 << 20;
/// Fewest slots of a lane, so that one can be read while another is computed with.
const SLOTS_MIN: u64 = 2;
/// Fewest places for experts: lanes use one while others are read.
const PLACES_MIN: u64 = 4;

/// What of a graph's weights stays in memory, and what is read for every pass.
#[derive(Debug, PartialEq)]
pub struct Plan {
    pub(super) pieces: Pieces,
    pub(super) slots: usize,
    /// Experts that are kept at a time.
    pub(super) places: usize,
    pub(super) place_bytes: u64,
    pub(super) experts: Vec<ExpertWeight>,
    pub(super) vectors: BTreeMap<u64, Range<u64>>,
    pub(super) figures: Figures,
}

/// The matrices of all experts for one product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ExpertWeight {
    pub layer: u32,
    pub weight: Weight,
}

/// A plan in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Weights of the graph, the embedding left out.
    pub weight_bytes: u64,
    /// Of those, what stays in memory from the first pass on.
    pub kept_bytes: u64,
    /// Of experts, which are read as they are chosen: all.
    pub expert_bytes: u64,
    /// And the places for them.
    pub place_bytes: u64,
    /// Of what is read for every pass, the part that is on its way.
    pub slot_bytes: u64,
    /// Bytes that every pass reads, without experts.
    pub pass_bytes: u64,
}

impl Figures {
    /// Bytes of memory that the plan takes.
    pub const fn memory_bytes(&self) -> u64 {
        self.kept_bytes + self.place_bytes + self.slot_bytes
    }

    /// Bytes that a token reads if `chosen` of all experts of a layer are used for it, and any expert is as often in memory as
    /// there is room for.
    pub fn token_bytes(&self, chosen: f64) -> u64 {
        let kept = if self.expert_bytes == 0 { 1.0 } else { self.place_bytes as f64 / self.expert_bytes as f64 };
        self.pass_bytes + (self.expert_bytes as f64 * chosen * (1.0 - kept.min(1.0))) as u64
    }
}

/// What a plan is made of, in bytes.
struct Parts {
    pieces: Pieces,
    vectors: BTreeMap<u64, Range<u64>>,
    experts: Vec<ExpertWeight>,
    /// Memory for the vectors.
    vector_bytes: u64,
    /// Of one slot.
    slot_bytes: u64,
    /// Of one place.
    place_bytes: u64,
    /// Matrices of experts.
    all_places: u64,
    /// What kept pieces take beside their bytes, if all are kept.
    edges: u64,
}

impl Parts {
    fn of(graph: &Graph<'_>, grain: Grain) -> Self {
        let pieces = Pieces::of(graph, grain);
        let vectors = pieces::vectors(graph);
        let experts: Vec<_> =
            pieces::expert_weights(graph).map(|(layer, weight)| ExpertWeight { layer, weight: *weight }).collect();
        Self {
            vector_bytes: vectors.values().map(|span| frame_bytes(span.end - span.start)).sum(),
            slot_bytes: if pieces.len() == 0 { 0 } else { frame_bytes(pieces.largest()) },
            place_bytes: experts.iter().map(|expert| frame_bytes(expert.mat_bytes())).max().unwrap_or(0),
            all_places: experts.iter().map(|expert| u64::from(expert.weight.mats)).sum(),
            edges: pieces.len() as u64 * 2 * SECTOR,
            pieces,
            vectors,
            experts,
        }
    }

    /// Memory without which nothing goes.
    fn least_places(&self) -> u64 {
        self.vector_bytes + self.all_places.min(PLACES_MIN) * self.place_bytes
    }
}

impl Grain {
    /// For so many lanes.
    pub fn of(lanes: usize) -> Self {
        let Range { start, end } = WINDOW;
        let window = AHEAD / (2 * SLOTS_MIN * lanes as u64);
        Self { window: window.clamp(start, end), lanes }
    }

    /// Fewest slots that lanes can do with.
    const fn slots_min(self) -> u64 {
        SLOTS_MIN * self.lanes as u64
    }
}

impl ExpertWeight {
    /// Bytes of one expert's matrix.
    fn mat_bytes(&self) -> u64 {
        self.weight.mat_end(0).unwrap_or(0).saturating_sub(self.weight.offset)
    }
}

impl Plan {
    /// Bytes of memory that any plan takes.
    pub fn least(graph: &Graph<'_>, grain: Grain) -> u64 {
        let parts = Parts::of(graph, grain);
        parts.least_places() + (grain.slots_min() * parts.slot_bytes).min(parts.pieces.bytes() + parts.edges)
    }

    /// The best within `memory_bytes`, which is not less than [`Self::least`].
    pub fn new(graph: &Graph<'_>, grain: Grain, memory_bytes: u64) -> Self {
        let parts = Parts::of(graph, grain);
        let least = parts.least_places();
        let Parts { mut pieces, vectors, experts, vector_bytes, slot_bytes, place_bytes, all_places, edges } = parts;
        let all = pieces.bytes() + edges;
        let left = memory_bytes.saturating_sub(least);
        let (slots, keep) = if left >= all {
            (0, all)
        } else {
            // An eighth for what is on its way, so that little memory is mostly for what stays.
            let slots = (memory_bytes / 8).min(AHEAD) / slot_bytes.max(1);
            let slots = slots.max(grain.slots_min());
            (slots, left.saturating_sub(slots * slot_bytes))
        };
        // In whole numbers, so that every machine chooses the same.
        let share = |of: u64| (u128::from(of) * u128::from(keep) / u128::from(all.max(1))) as u64;
        pieces.keep(graph, share(pieces.bytes()));
        let edges = pieces.kept() * 2 * SECTOR;
        let kept_bytes = vector_bytes + pieces.kept_bytes() + edges;
        let left = memory_bytes.saturating_sub(kept_bytes + slots * slot_bytes);
        let places = left.checked_div(place_bytes).map_or(0, |places| places.max(PLACES_MIN).min(all_places));
        let expert_bytes = experts.iter().map(|expert| expert.mat_bytes() * u64::from(expert.weight.mats)).sum();
        let figures = Figures {
            weight_bytes: weight_bytes(graph),
            kept_bytes,
            expert_bytes,
            place_bytes: places * place_bytes,
            slot_bytes: slots * slot_bytes,
            pass_bytes: pieces.bytes() - pieces.kept_bytes(),
        };
        let (slots, places) = (slots as usize, places as usize);
        Self { pieces, slots, places, place_bytes, experts, vectors, figures }
    }

    /// The plan in bytes.
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }
}
