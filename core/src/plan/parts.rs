//! The parts of a cut by rows: which heads, which values, which rows a node has.

use super::{Stage, Stages};
use crate::format::Header;
use crate::quant::{BLOCK, DType};
use core::ops::Range;

/// What a node gets beside the others: parts are as large as shares, counted in whole units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Of the matrices of every layer.
    pub layers: u16,
    /// Of the output matrix.
    pub head: u16,
}

impl Share {
    /// The share of a node that has as much as every other.
    pub const EQUAL: Share = Share { layers: 1, head: 1 };

    pub(super) fn has_layers(&self) -> bool {
        self.layers > 0
    }

    pub(super) fn has_head(&self) -> bool {
        self.head > 0
    }
}

/// What is cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Query heads.
    Heads,
    /// Values of the residual stream: rows of `wo` and `w2`.
    Residual,
    /// Values of the hidden layer of a feed-forward network: rows of `w1` and `w3`.
    Hidden,
    /// Tokens: rows of `wcls`.
    Vocab,
}

/// How much of a layer a node computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub heads: u32,
    pub kv_heads: u32,
    /// Values of the residual stream.
    pub residual: u32,
    /// Values of the hidden layer, of each expert.
    pub hidden: u32,
}

impl Own {
    /// Whether it computes none of the layer's products.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The parts of all nodes, by arithmetic.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'s> {
    shares: &'s [Share],
    stages: Stages<'s>,
    n_heads: u32,
    group: u32,
    dim: u32,
    ff_dim: u32,
    vocab_size: u32,
    /// Heads that fill whole blocks.
    head_unit: u32,
}

impl<'s> Parts<'s> {
    /// Of a model whose products take their inputs as `activation`, with a share for each node, which `stages` divide.
    pub fn new(header: &Header, activation: DType, shares: &'s [Share], stages: &'s [Stage]) -> Self {
        let head_unit = match activation {
            DType::F32 => 1,
            _ => BLOCK as u32 >> header.head_dim.trailing_zeros().min(BLOCK.ilog2()),
        };
        Self {
            shares,
            stages: Stages::new(stages, shares.len() as u32, header.n_layers),
            n_heads: header.n_heads,
            group: header.n_heads / header.n_kv_heads,
            dim: header.dim,
            ff_dim: header.ff_dim(),
            vocab_size: header.vocab_size,
            head_unit,
        }
    }

    /// Nodes.
    pub const fn nodes(&self) -> u32 {
        self.shares.len() as u32
    }

    /// Who computes which layers.
    pub const fn stages(&self) -> &Stages<'s> {
        &self.stages
    }

    /// From the first to the last node of a stage that has a share of its layers.
    pub fn at_work(&self, stage: usize) -> Range<u32> {
        self.hull(self.stages.nodes(stage), Share::has_layers)
    }

    /// From the first to the last node that has a share of the output matrix.
    pub fn at_head(&self) -> Range<u32> {
        self.hull(0..self.nodes(), Share::has_head)
    }

    fn hull(&self, nodes: Range<u32>, has: fn(&Share) -> bool) -> Range<u32> {
        let has = |node: &u32| has(&self.shares[*node as usize]);
        let first = nodes.clone().find(has).unwrap_or(nodes.end);
        first..nodes.rev().find(has).map_or(first, |last| last + 1)
    }

    /// All there is of a quantity.
    pub const fn len(&self, quantity: Quantity) -> u32 {
        match quantity {
            Quantity::Heads => self.n_heads,
            Quantity::Residual => self.dim,
            Quantity::Hidden => self.ff_dim,
            Quantity::Vocab => self.vocab_size,
        }
    }

    /// The part of `node`: of tokens beside all nodes, of what layers are made of beside those of its stage.
    pub fn of(&self, quantity: Quantity, node: u32) -> Range<u32> {
        self.in_stage(self.stages.of(node), quantity, node)
    }

    /// The part of `node` in the layers of a stage: between the bounds that the shares before it and with it make, each rounded
    /// to whole units. A share that is small beside a unit may leave nothing, and who is not of the stage has nothing.
    pub fn in_stage(&self, stage: usize, quantity: Quantity, node: u32) -> Range<u32> {
        let nodes = if quantity == Quantity::Vocab { 0..self.nodes() } else { self.stages.nodes(stage) };
        let shares = &self.shares[nodes.start as usize..nodes.end as usize];
        let share = |share: &Share| match quantity {
            Quantity::Vocab => u64::from(share.head),
            _ => u64::from(share.layers),
        };
        let all: u64 = shares.iter().map(share).sum();
        let bound = |node: u32| {
            let before = node.clamp(nodes.start, nodes.end) - nodes.start;
            self.bound(quantity, shares[..before as usize].iter().map(share).sum(), all)
        };
        bound(node)..bound(node + 1)
    }

    /// Where the part behind shares of `before` in `all` starts.
    fn bound(&self, quantity: Quantity, before: u64, all: u64) -> u32 {
        // Values are cut between blocks, and between the groups of rows that are interleaved.
        let unit = if quantity == Quantity::Heads { self.head_unit } else { BLOCK as u32 };
        let len = self.len(quantity);
        let units = u64::from(len.div_ceil(unit));
        let units = (2 * units * before + all).checked_div(2 * all).unwrap_or(0);
        (units as u32).saturating_mul(unit).min(len)
    }

    /// What each node computes of a layer, in the order of the nodes.
    pub(super) fn each(&self) -> impl Iterator<Item = Own> + Clone + '_ {
        let all = self.shares.iter().map(|share| u64::from(share.layers)).sum();
        let bounds = move |quantity, before, with| {
            let bound = |share| self.bound(quantity, share, all);
            bound(before)..bound(with)
        };
        self.shares.iter().scan(0, move |before, share| {
            let with = *before + u64::from(share.layers);
            let [heads, residual, hidden] =
                [Quantity::Heads, Quantity::Residual, Quantity::Hidden].map(|quantity| bounds(quantity, *before, with));
            *before = with;
            let len = |range: &Range<u32>| range.end - range.start;
            let kv_heads = len(&self.kv_heads(&heads));
            Some(Own { heads: len(&heads), kv_heads, residual: len(&residual), hidden: len(&hidden) })
        })
    }

    /// How many tokens' logits each node computes.
    pub(super) fn vocab(&self) -> impl Iterator<Item = u32> + Clone + '_ {
        let all = self.shares.iter().map(|share| u64::from(share.head)).sum();
        self.shares.iter().scan(0, move |before, share| {
            let start = self.bound(Quantity::Vocab, *before, all);
            *before += u64::from(share.head);
            Some(self.bound(Quantity::Vocab, *before, all) - start)
        })
    }

    /// The KV heads that query heads read.
    pub const fn kv_heads(&self, heads: &Range<u32>) -> Range<u32> {
        if heads.start == heads.end { 0..0 } else { heads.start / self.group..heads.end.div_ceil(self.group) }
    }
}
