//! What a token costs under a plan: seconds of computing, network and disk, and the memory of each node, by arithmetic.
//!
//! A token waits for the slowest node at every exchange, and passes stages one after the other:
//!
//! ```text
//! token     = Σ stages: layers × layer(stage)  +  hand-offs between stages  +  head
//! layer     = Σ 4 steps: max over nodes of read × pace  +  Σ 4 gathers  +  layer_s
//! pace      = 1 / speed + missing / disk                      seconds per byte of weights that a token makes a node read
//! missing   = (weights + cache + activations - memory) / weights, between 0 and 1
//! gather    = exchange_s + one way + max over nodes of burst(max(bytes in, bytes out))
//! burst(b)  = b / bandwidth × (1 + b / burst_bytes)
//! one way   = a quarter of the sum of the two longest round trips
//! hand-off  = a gather of the residual stream in F32, each node's part once
//! head      = a gather of the normed row  +  max over nodes of read × pace  +  a gather of the best logits at the root
//! ```
//! Steps are queries, keys and values; `wo`; `w1` and `w3`; `w2`. Of experts, those that a token is routed to are read, all
//! are kept, and from disk comes the same fraction of what is read as of what is kept. Cuts by columns have two exchanges a layer,
//! of whole partial sums from everybody to everybody. The cache is not read here: this is a token at the start of a conversation.
//! Neither is the embedding, of which a token reads one row.
//!
//! A link is a node's own way to a switch that all share. Between two nodes, the round trip is half the sum of both, and the
//! narrower link counts.

mod shape;
mod software;
#[cfg(test)]
mod tests;

pub use shape::Shape;
pub use software::Software;

use super::parts::Own;
use super::{Parts, Share, Stage};
use crate::quant::DType;
use shape::packed;

/// A node's own way to the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Seconds to a node with the same link and back.
    pub round_trip_s: f64,
    /// Bytes per second in each direction, at the same time.
    pub bytes_per_s: f64,
}

/// What a node is capable of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Bytes of weights per second that it multiplies with one token.
    pub bytes_per_s: f64,
    /// Bytes of memory that it may take.
    pub memory_bytes: u64,
    /// Bytes per second that it reads from its disk; 0 where it is not to read weights while it computes.
    pub disk_bytes_per_s: f64,
    /// Its link.
    pub link: Link,
}

/// Who computes what; nodes are in the order of the machines.
#[derive(Clone, Copy, Debug)]
pub enum Division<'p> {
    /// Layers by stages, rows by shares within each; one stage is a plain cut by rows. The native dialect.
    Stages {
        /// Stages in their order.
        stages: &'p [Stage],
        /// A share for each node.
        shares: &'p [Share],
    },
    /// Equal parts by columns, partial sums from everybody to everybody: Distributed-Llama 0.16.
    Columns {
        /// Type of the sums.
        exchange: DType,
    },
    /// Equal parts, everything by way of the root, which also computes attention and the head: Distributed-Llama 0.1.
    Star {
        /// Type of what is exchanged.
        exchange: DType,
    },
}

/// What a token costs a node. What is missing to the time of the whole, it waits for others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeCost {
    /// Seconds of computing.
    pub compute_s: f64,
    /// Seconds of exchanges, without those of nodes that have more to move.
    pub network_s: f64,
    /// Seconds of reading weights that have no room in memory.
    pub disk_s: f64,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of keys and values.
    pub cache_bytes: u64,
    /// Bytes of activations.
    pub activation_bytes: u64,
    /// Of the weights, what comes from disk for every token.
    pub missing: f64,
    /// Whether cache and activations fit the memory, and weights do or may be read from disk.
    pub fits: bool,
}

impl NodeCost {
    /// Bytes that it would like to have.
    pub const fn wanted_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.cache_bytes).saturating_add(self.activation_bytes)
    }

    /// Adds the reading of weights `times`, and says how long it takes each time.
    fn read(&mut self, machine: &Machine, bytes: u64, times: f64) -> f64 {
        let bytes = bytes as f64;
        let compute_s = bytes / machine.bytes_per_s;
        let disk_s = if self.missing > 0.0 { bytes * self.missing / machine.disk_bytes_per_s } else { 0.0 };
        self.compute_s += times * compute_s;
        self.disk_s += times * disk_s;
        compute_s + disk_s
    }
}

/// Bytes that a node sends of its best logits for greedy sampling: one pair.
const BEST_BYTES: f64 = 8.0;

/// Seconds per token of `shape` on `machines`, the root first, under `division`; `costs` gets each node's part. Infinite where
/// something does not fit; `costs` says where.
///
/// # Panics
/// If there are not as many machines as nodes, or not a cost for each.
pub fn predict(
    shape: &Shape,
    software: &Software,
    machines: &[Machine],
    division: Division<'_>,
    costs: &mut [NodeCost],
) -> f64 {
    assert_eq!(machines.len(), costs.len(), "machines and costs");
    costs.fill(NodeCost::default());
    let mut cluster = Cluster { shape, software, machines, costs };
    let seconds = match division {
        Division::Stages { stages, shares } => cluster.stages(stages, shares),
        Division::Columns { exchange } => cluster.columns(exchange),
        Division::Star { exchange } => cluster.star(exchange),
    };
    if costs.iter().all(|cost| cost.fits) { seconds } else { f64::INFINITY }
}

struct Cluster<'c> {
    shape: &'c Shape,
    software: &'c Software,
    machines: &'c [Machine],
    costs: &'c mut [NodeCost],
}

/// Bytes that a node takes and gives in an exchange.
#[derive(Clone, Copy, Default)]
struct Moved {
    taken: f64,
    given: f64,
}

/// Nodes of a stage, and its layers.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    layers: f64,
}

/// Stages with the places of their nodes.
fn spans(stages: &[Stage]) -> impl Iterator<Item = Span> + Clone + '_ {
    stages.iter().scan(0, |end, stage| {
        let start = *end;
        *end += usize::from(stage.nodes);
        Some(Span { start, end: *end, layers: stage.layers.into() })
    })
}

impl Cluster<'_> {
    fn stages(&mut self, stages: &[Stage], shares: &[Share]) -> f64 {
        assert_eq!(shares.len(), self.machines.len(), "shares and machines");
        let (shape, header) = (self.shape, self.shape.header);
        let all = Parts::new(&header, shape.activation, shares, &[]);
        let parts = |span: Span| Parts::new(&header, shape.activation, &shares[span.start..span.end], &[]);
        for span in spans(stages) {
            for ((node, own), vocab) in (span.start..).zip(parts(span).each()).zip(all.vocab().skip(span.start)) {
                self.keep(node, &own, (span.layers as u64, vocab.into()));
            }
        }
        let mut seconds: f64 = spans(stages).map(|span| span.layers * self.layer(span, parts(span))).sum();
        for (from, to) in spans(stages).zip(spans(stages).skip(1)) {
            seconds += self.hand_off((from, parts(from)), (to, parts(to)));
        }
        let Some(last) = spans(stages).last() else { return seconds };
        seconds + self.head((last, parts(last)), all)
    }

    /// Notes what a node has to keep.
    fn keep(&mut self, node: usize, own: &Own, (layers, vocab): (u64, u64)) {
        let (shape, machine) = (self.shape, &self.machines[node]);
        let weight_bytes = layers.saturating_mul(shape.kept(own)).saturating_add(vocab * shape.vocab_row);
        let cache_bytes = layers.saturating_mul(shape.cache(own));
        let activation_bytes = shape.activations(own);
        let cost = NodeCost { weight_bytes, cache_bytes, activation_bytes, ..NodeCost::default() };
        let over = cost.wanted_bytes().saturating_sub(machine.memory_bytes);
        let missing = if over == 0 { 0.0 } else { over as f64 / weight_bytes as f64 };
        let fits = over == 0 || (over <= weight_bytes && machine.disk_bytes_per_s > 0.0);
        self.costs[node] = NodeCost { missing: if fits { missing } else { 0.0 }, fits, ..cost };
    }

    /// Seconds of one layer of a stage.
    fn layer(&mut self, span: Span, parts: Parts<'_>) -> f64 {
        let (shape, header) = (self.shape, self.shape.header);
        let mut seconds = self.software.layer_s;
        let mut steps = [0f64; 4];
        for (node, own) in (span.start..).zip(parts.each()) {
            for (step, bytes) in steps.iter_mut().zip(shape.read(&own)) {
                *step = step.max(self.costs[node].read(&self.machines[node], bytes, span.layers));
            }
            self.costs[node].compute_s += span.layers * self.software.layer_s;
        }
        seconds += steps.iter().sum::<f64>();
        let peers = (span.end - span.start - 1) as f64;
        if peers == 0.0 {
            return seconds;
        }
        let lens = [header.dim, header.n_heads, header.dim, header.ff_dim()];
        for (index, (bytes, len)) in shape.gathered().into_iter().zip(lens).enumerate() {
            let moved = parts.each().map(|own| {
                let own = [own.residual, own.heads, own.residual, own.hidden][index];
                let given = bytes as f64 * f64::from(own) / f64::from(len);
                Moved { taken: bytes as f64 - given, given: given * peers }
            });
            seconds += self.exchange((span.start..span.end).zip(moved), span.layers);
        }
        seconds
    }

    /// Seconds of an exchange that happens `times`.
    fn exchange(&mut self, moved: impl Iterator<Item = (usize, Moved)> + Clone, times: f64) -> f64 {
        let fixed_s = self.software.exchange_s + one_way(moved.clone().map(|(node, _)| &self.machines[node].link));
        let mut longest = 0f64;
        for (node, Moved { taken, given }) in moved {
            let burst_s = self.burst(&self.machines[node].link, taken.max(given));
            self.costs[node].network_s += times * (fixed_s + burst_s);
            longest = longest.max(burst_s);
        }
        fixed_s + longest
    }

    fn burst(&self, link: &Link, bytes: f64) -> f64 {
        bytes / link.bytes_per_s * (1.0 + bytes / self.software.burst_bytes)
    }

    /// Every node of a stage gets its part of the residual stream from those of the stage before.
    fn hand_off(&mut self, (from, from_parts): (Span, Parts<'_>), (to, to_parts): (Span, Parts<'_>)) -> f64 {
        let bytes = |own: Own| 4.0 * f64::from(own.residual);
        let given = from_parts.each().map(|own| Moved { taken: 0.0, given: bytes(own) });
        let taken = to_parts.each().map(|own| Moved { taken: bytes(own), given: 0.0 });
        self.exchange((from.start..from.end).zip(given).chain((to.start..to.end).zip(taken)), 1.0)
    }

    fn head(&mut self, (last, last_parts): (Span, Parts<'_>), all: Parts<'_>) -> f64 {
        let (shape, dim) = (self.shape, self.shape.header.dim);
        let mut read_s = 0f64;
        for (node, vocab) in all.vocab().enumerate() {
            let bytes = u64::from(vocab) * shape.vocab_row;
            read_s = read_s.max(self.costs[node].read(&self.machines[node], bytes, 1.0));
        }
        if self.machines.len() == 1 {
            return read_s;
        }
        let row = shape.gathered_last() as f64;
        let readers = all.vocab().filter(|vocab| *vocab > 0).count() as f64;
        let before = core::iter::repeat_n(0, last.start).chain(last_parts.each().map(|own| own.residual));
        let moved = before.zip(all.vocab()).map(|(own, vocab)| {
            let (own, reads) = (row * f64::from(own) / f64::from(dim), f64::from(u8::from(vocab > 0)));
            Moved { taken: reads * (row - own), given: own * (readers - reads) }
        });
        let gather_s = self.exchange(moved.enumerate(), 1.0);
        let nodes = self.machines.len();
        let best = (0..nodes).map(|node| {
            let taken = if node == 0 { (nodes - 1) as f64 * BEST_BYTES } else { 0.0 };
            (node, Moved { taken, given: BEST_BYTES })
        });
        gather_s + read_s + self.exchange(best, 1.0)
    }

    /// The equal part of each of `nodes`, with `vocab` rows of the head.
    fn equal(&self) -> Own {
        let (header, nodes) = (&self.shape.header, self.machines.len() as u32);
        Own {
            heads: header.n_heads / nodes,
            kv_heads: header.n_kv_heads.div_ceil(nodes),
            residual: header.dim / nodes,
            hidden: header.ff_dim() / nodes,
        }
    }

    /// Seconds of the layers of equal parts, without exchanges.
    fn equal_layers(&mut self, vocab: impl Fn(usize) -> u64) -> f64 {
        let (own, layers) = (self.equal(), self.shape.header.n_layers);
        let mut longest = 0f64;
        for node in 0..self.machines.len() {
            self.keep(node, &own, (layers.into(), vocab(node)));
            let bytes = self.shape.read(&own).iter().sum();
            let layer_s = self.costs[node].read(&self.machines[node], bytes, layers.into());
            self.costs[node].compute_s += f64::from(layers) * self.software.layer_s;
            longest = longest.max(layer_s + self.software.layer_s);
        }
        f64::from(layers) * longest
    }

    /// Seconds of a product with the output matrix, of which each node has some rows.
    fn equal_head(&mut self, vocab: impl Fn(usize) -> u64) -> f64 {
        let row = self.shape.vocab_row;
        let read = |(node, cost): (usize, &mut NodeCost)| cost.read(&self.machines[node], vocab(node) * row, 1.0);
        self.costs.iter_mut().enumerate().map(read).fold(0.0, f64::max)
    }

    fn columns(&mut self, exchange: DType) -> f64 {
        let (header, nodes) = (self.shape.header, self.machines.len());
        let vocab = |_| u64::from(header.vocab_size).div_ceil(nodes as u64);
        let seconds = self.equal_layers(vocab) + self.equal_head(vocab);
        if nodes == 1 {
            return seconds;
        }
        let peers = (nodes - 1) as f64;
        let sums = peers * packed(exchange, header.dim.into()) as f64;
        let everybody = (0..nodes).map(|node| (node, Moved { taken: sums, given: sums }));
        let times = 2.0 * f64::from(header.n_layers);
        let layers_s = times * self.exchange(everybody, times);
        // The embedding to everybody, and all logits to the root.
        let (row, logits) = (4.0 * f64::from(header.dim), 4.0 * f64::from(header.vocab_size) / nodes as f64);
        let of_root = |root: Moved, other: Moved| {
            (0..nodes).map(move |node| if node == 0 { (node, root) } else { (node, other) })
        };
        let given = |given| Moved { taken: 0.0, given };
        let taken = |taken| Moved { taken, given: 0.0 };
        let embedding_s = self.exchange(of_root(given(peers * row), taken(row)), 1.0);
        let logits_s = self.exchange(of_root(taken(peers * logits), given(logits)), 1.0);
        seconds + layers_s + embedding_s + logits_s
    }

    /// The root sends every worker the stream, two parts of its width and the hidden layer; it gets their parts of queries, keys and
    /// values, and two sums. Which messages there were was concluded from the bytes per token that were published (32.9 MB for Llama 2
    /// 70B on 8 nodes), not read in that version's source.
    fn star(&mut self, exchange: DType) -> f64 {
        let (header, nodes) = (self.shape.header, self.machines.len());
        let vocab = |node| if node == 0 { u64::from(header.vocab_size) } else { 0 };
        let mut seconds = self.equal_layers(vocab) + self.equal_head(vocab);
        if nodes == 1 {
            return seconds;
        }
        let (peers, part) = ((nodes - 1) as f64, 1.0 / nodes as f64);
        let [dim, kv_dim, hidden] =
            [header.dim, header.kv_dim(), header.hidden_dim].map(|len| packed(exchange, len.into()) as f64);
        let times = f64::from(header.n_layers);
        for bytes in [dim, part * dim, part * dim, hidden, part * dim, part * kv_dim, part * kv_dim, dim, dim] {
            let moved = (0..nodes).map(|node| {
                let bytes = if node == 0 { peers * bytes } else { bytes };
                (node, Moved { taken: bytes, given: 0.0 })
            });
            seconds += times * self.exchange(moved, times);
        }
        seconds
    }
}

/// Seconds of the longest way between two of these links.
fn one_way<'l>(links: impl Iterator<Item = &'l Link>) -> f64 {
    let longest = links.fold([0f64; 2], |[first, second], link| {
        let round_trip_s = link.round_trip_s;
        if round_trip_s > first { [round_trip_s, first] } else { [first, second.max(round_trip_s)] }
    });
    longest.iter().sum::<f64>() / 4.0
}
