//! Time of one exchange between nodes on loopback, each node in a thread of its own.
//!
//! `cargo bench -p dair-benches --bench network`
//!
//! `all_gather` is what a layer does twice: every node sends its slice to every other. Slices of 2 KB are partial sums
//! of a small model (F32, dim 512, or Q80, dim 2048), 17 KB those of a large one. With more nodes than processors the
//! threads take turns: then the figure says how well they share.

use dair_core::graph::Collective;
use dair_core::io::{Exchange, Links};
use dair_host::net::Mesh;
use divan::Bencher;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn main() {
    divan::main();
}

/// Meshes of `nodes` nodes, every pair connected over loopback.
fn meshes(nodes: u32) -> Vec<Mesh> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut peers: Vec<Vec<_>> = (0..nodes).map(|_| Vec::new()).collect();
    for low in 0..nodes {
        for high in low + 1..nodes {
            let dialled = TcpStream::connect(address).expect("a connection");
            let (accepted, _) = listener.accept().expect("a connection");
            peers[low as usize].push((high, format!("node {high}"), dialled));
            peers[high as usize].push((low, format!("node {low}"), accepted));
        }
    }
    let mesh = |(node, peers)| Mesh::new(node, peers, Duration::from_secs(30)).expect("a mesh");
    (0..).zip(peers).map(mesh).collect()
}

fn exchanges(bencher: Bencher<'_, '_>, collective: Collective, nodes: u32, part_bytes: usize, rows: usize) {
    let exchange = Exchange::equal(collective, part_bytes * nodes as usize, nodes);
    let pipe = || vec![1; exchange.row_bytes * rows];
    let mut meshes = meshes(nodes).into_iter();
    let mut root = meshes.next().expect("a root");
    let workers: Vec<_> = meshes
        .map(|mut mesh| {
            let mut pipe = pipe();
            // Until the root has gone.
            thread::spawn(move || while mesh.exchange(exchange, &mut pipe).is_ok() {})
        })
        .collect();
    let mut pipe = pipe();
    bencher.bench_local(|| root.exchange(exchange, &mut pipe).expect("an exchange"));
    drop(root);
    workers.into_iter().for_each(|worker| worker.join().expect("a worker"));
}

#[divan::bench(args = [2, 3, 4], sample_count = 5000, sample_size = 1)]
fn all_gather_2_kb(bencher: Bencher<'_, '_>, nodes: u32) {
    exchanges(bencher, Collective::AllGather, nodes, 2048, 1);
}

#[divan::bench(args = [2, 3, 4], sample_count = 5000, sample_size = 1)]
fn all_gather_17_kb(bencher: Bencher<'_, '_>, nodes: u32) {
    exchanges(bencher, Collective::AllGather, nodes, 17_408, 1);
}

#[divan::bench(args = [2, 3, 4], sample_count = 5000, sample_size = 1)]
fn all_gather_2_kb_batch_32(bencher: Bencher<'_, '_>, nodes: u32) {
    exchanges(bencher, Collective::AllGather, nodes, 2048, 32);
}
