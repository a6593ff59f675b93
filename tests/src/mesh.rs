//! Several nodes in one process: links made of channels, one thread for each node.

use crate::run::{feed, with_engine};
use dair_core::graph::Collective;
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

    /// Sends this node's part of every row.
    fn send_part(&self, to: u32, exchange: &Exchange<'_>, pipe: &[u8]) -> Result<(), Gone> {
        let part = exchange.part(self.node);
        self.send(to, pipe.chunks(exchange.row_bytes).flat_map(|row| &row[part.clone()]).copied().collect())
    }

    /// Receives a node's part of every row.
    fn receive_part(&self, from: u32, exchange: &Exchange<'_>, pipe: &mut [u8]) -> Result<(), Gone> {
        let (part, bytes) = (exchange.part(from), self.receive(from)?);
        for (row, bytes) in pipe.chunks_mut(exchange.row_bytes).zip(bytes.chunks(part.len().max(1))) {
            row[part.clone()].copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl Links for Peers {
    type Error = Gone;

    fn exchange(&mut self, exchange: Exchange<'_>, pipe: &mut [u8]) -> Result<(), Gone> {
        let others = || (0..exchange.nodes).filter(|node| *node != self.node);
        match (exchange.collective, self.node) {
            (Collective::Broadcast, 0) => others().try_for_each(|node| self.send(node, pipe.to_vec())),
            (Collective::Broadcast, _) => {
                pipe.copy_from_slice(&self.receive(0)?);
                Ok(())
            }
            (Collective::Gather, 0) => others().try_for_each(|node| self.receive_part(node, &exchange, pipe)),
            (Collective::Gather, _) => self.send_part(0, &exchange, pipe),
            (Collective::AllGather, _) => {
                others().try_for_each(|node| self.send_part(node, &exchange, pipe))?;
                others().try_for_each(|node| self.receive_part(node, &exchange, pipe))
            }
        }
    }
}

/// Logits of every token of a sequence, computed by all nodes of `cut` together; `pool` makes each node's threads.
pub fn logits<P: Pool>(
    file: &[u8],
    (cut, kv): (&Cut, KvType),
    (pool, kernels): (impl Fn() -> P + Sync, Kernels),
    tokens: &[u32],
    batches: &[usize],
) -> Vec<Vec<f32>> {
    let run = |mut peers: Peers| {
        let pool = pool();
        with_engine(file, (cut, kv, peers.node), (&pool, kernels), 0xFF, |engine| {
            feed(engine, &mut peers, tokens, 0, batches)
        })
    };
    let mut nodes = peers(cut.nodes()).into_iter();
    let root = nodes.next().expect("a cut has nodes");
    std::thread::scope(|scope| {
        for worker in nodes {
            scope.spawn(|| run(worker));
        }
        run(root)
    })
}
