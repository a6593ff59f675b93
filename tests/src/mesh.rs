//! Several nodes in one process: links made of channels, one thread for each node.

use crate::run::{feed, with_engine};
use dair_core::exec::{Batch, Run};
use dair_core::io::{Exchange, Links, Pool};
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::Cut;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};

/// One node's ends of the channels to all others.
pub struct Peers {
    node: u32,
    /// By node; none to itself.
    to: Vec<Option<Sender<Vec<u8>>>>,
    from: Vec<Option<Receiver<Vec<u8>>>>,
}

/// A peer has ended.
#[derive(Debug)]
pub struct Gone {
    node: u32,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} has ended", self.node)
    }
}

impl std::error::Error for Gone {}

/// The ends of all nodes.
pub fn peers(nodes: u32) -> Vec<Peers> {
    let ends = || (0..nodes).map(|_| None).collect();
    let mut peers: Vec<_> = (0..nodes).map(|node| Peers { node, to: ends(), from: Vec::new() }).collect();
    for receiver in 0..nodes as usize {
        for sender in 0..nodes as usize {
            let (to, from) = channel();
            let others = sender != receiver;
            peers[sender].to[receiver] = others.then_some(to);
            peers[receiver].from.push(others.then_some(from));
        }
    }
    peers
}

impl Peers {
    fn send(&self, to: u32, bytes: Vec<u8>) -> Result<(), Gone> {
        let end = self.to[to as usize].as_ref().expect("nobody sends to himself");
        end.send(bytes).map_err(|_| Gone { node: to })
    }

    fn receive(&self, from: u32) -> Result<Vec<u8>, Gone> {
        let end = self.from[from as usize].as_ref().expect("nobody receives from himself");
        end.recv().map_err(|_| Gone { node: from })
    }

    /// Sends what another node gets of every row.
    fn send_part(&self, to: u32, exchange: &Exchange<'_>, pipe: &[u8]) -> Result<(), Gone> {
        let part = exchange.sent(self.node, to);
        if part.is_empty() {
            return Ok(());
        }
        self.send(to, pipe.chunks(exchange.row_bytes).flat_map(|row| &row[part.clone()]).copied().collect())
    }

    /// Receives what another node has of every row for this one.
    fn receive_part(&self, from: u32, exchange: &Exchange<'_>, pipe: &mut [u8]) -> Result<(), Gone> {
        let part = exchange.sent(from, self.node);
        if part.is_empty() {
            return Ok(());
        }
        for (row, bytes) in pipe.chunks_mut(exchange.row_bytes).zip(self.receive(from)?.chunks(part.len())) {
            row[part.clone()].copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl Links for Peers {
    type Error = Gone;

    fn exchange(&mut self, exchange: Exchange<'_>, pipe: &mut [u8]) -> Result<(), Gone> {
        let others = || (0..exchange.nodes).filter(|node| *node != self.node);
        others().try_for_each(|node| self.send_part(node, &exchange, pipe))?;
        others().try_for_each(|node| self.receive_part(node, &exchange, pipe))
    }
}

/// Batches of so many rows are computed in two halves.
const HALVE_FROM: u32 = 4;

/// Logits of every token of a sequence, computed by all nodes of `cut` together; `pool` makes each node's threads.
pub fn logits<P: Pool>(
    file: &[u8],
    (cut, kv): (&Cut, KvType),
    (pool, kernels): (impl Fn() -> P + Sync, Kernels),
    tokens: &[u32],
    batches: &[usize],
) -> Vec<Vec<f32>> {
    on_all(cut.nodes(), |mut peers| {
        let pool = pool();
        with_engine(file, (cut, kv, peers.node), (&pool, kernels), 0xFF, |engine| {
            engine.halve_from(HALVE_FROM);
            feed(engine, &mut peers, tokens, 0, batches)
        })
    })
}

/// Logits of all rows of passes, computed by all nodes of `cut` together.
pub fn passes<P: Pool>(
    file: &[u8],
    (cut, kv): (&Cut, KvType),
    (pool, kernels): (impl Fn() -> P + Sync, Kernels),
    passes: &[(Vec<Run>, Vec<u32>)],
) -> Vec<Vec<f32>> {
    on_all(cut.nodes(), |mut peers| {
        let pool = pool();
        with_engine(file, (cut, kv, peers.node), (&pool, kernels), 0xFF, |engine| {
            engine.halve_from(HALVE_FROM);
            let mut rows = Vec::new();
            for (runs, tokens) in passes {
                engine.forward(&mut peers, Batch { runs, tokens }).unwrap();
                if peers.node == 0 {
                    rows.extend((0..tokens.len() as u32).map(|row| engine.logits(row).to_vec()));
                }
            }
            rows
        })
    })
}

/// Runs all nodes, each in a thread; what the root returns.
fn on_all(nodes: u32, run: impl Fn(Peers) -> Vec<Vec<f32>> + Sync) -> Vec<Vec<f32>> {
    let mut nodes = peers(nodes).into_iter();
    let root = nodes.next().expect("a cut has nodes");
    std::thread::scope(|scope| {
        for worker in nodes {
            scope.spawn(|| run(worker));
        }
        run(root)
    })
}
