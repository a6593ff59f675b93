//! Our worker over real sockets, fed with what a C++ root and C++ workers sent: its answers are the recorded ones.

use dair_core::graph::{Collective, Graph, Sizes};
use dair_core::kernels::KvType;
use dair_core::plan::{Cut, build};
use dair_core::quant::dequantize;
use dair_core::wire::dllama::{Hello, read_hello, read_peer, write_hello};
use dair_host::cluster::tables::GraphTables;
use dair_host::model::Model;
use dair_tests::golden::{CASES, Case};
use dair_tests::trace;
use dair_tests::worker::{PATIENT, Worker};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Sends all of `bytes`, in step with nobody, and returns all that comes back before the end.
fn play(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(|| (&*stream).write_all(bytes).unwrap());
        let mut answer = Vec::new();
        (&*stream).read_to_end(&mut answer).unwrap();
        answer
    })
}

/// What the worker `index` sends to its root and to every other worker when it is fed with the recorded bytes.
fn replay(case: &Case, index: u32) -> (Vec<u8>, Vec<(u32, Vec<u8>)>) {
    let worker = Worker::start(PATIENT, 1, KvType::F32, u64::MAX);
    let recorded = case.root_bytes(index);
    let mut rest = &recorded[..];
    let hello = read_hello(&mut rest).unwrap();
    let peers: Vec<u32> = (0..hello.workers).filter(|peer| *peer != index).collect();
    for peer in 0..hello.workers - 1 {
        read_peer(&mut rest, peer).unwrap();
    }
    let listeners: Vec<_> = peers.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hosts = listeners.iter().map(|listener| ("127.0.0.1", listener.local_addr().unwrap().port()));
    let mut script = Vec::new();
    write_hello(&mut script, Hello { workers: hello.workers, index }, hosts).unwrap();
    script.extend(rest);

    let root = &worker.connect();
    thread::scope(|scope| {
        scope.spawn(move || (&*root).write_all(&script).unwrap());
        // Lower workers dial, in rising order, once the worker has acknowledged its root. All are silent until it has acknowledged
        // the network, which it does when it has its links.
        let mut to_root = vec![0; 8];
        (&*root).read_exact(&mut to_root[..4]).unwrap();
        let mut streams = Vec::new();
        for (peer, listener) in peers.into_iter().zip(&listeners) {
            streams.push((peer, if peer < index { worker.connect() } else { listener.accept().unwrap().0 }));
        }
        (&*root).read_exact(&mut to_root[4..]).unwrap();
        let mut links = Vec::new();
        for (peer, stream) in streams {
            let (low, high, way) = if peer < index { (peer, index, "a2b") } else { (index, peer, "b2a") };
            let script = case.bytes(&format!("link-w{low}-w{high}.{way}.bin"));
            links.push((peer, scope.spawn(move || play(&stream, &script))));
        }
        (&*root).read_to_end(&mut to_root).unwrap();
        let summary = worker.ended();
        assert!(summary.is_ok(), "{}: {summary:?}", case.name);
        (to_root, links.into_iter().map(|(peer, link)| (peer, link.join().unwrap())).collect())
    })
}

/// Rows that a worker sends over a link, in order, as F32.
fn rows(graph: &Graph<'_>, to_root: bool, batches: &[u32], mut bytes: &[u8]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for batch in batches {
        for sync in graph.syncs {
            let sends = match sync.collective {
                Collective::Broadcast => false,
                Collective::AllGather => true,
                Collective::Gather => to_root,
                Collective::To(..) => unreachable!("graphs of this dialect are cut by columns"),
            };
            let pipe = &graph.pipes[sync.pipe as usize];
            let width = (pipe.width / graph.nodes) as usize;
            let row_bytes = pipe.dtype.bytes(width as u64).unwrap() as usize;
            for _ in 0..if sends { *batch } else { 0 } {
                let (row, rest) = bytes.split_at(row_bytes);
                let mut values = vec![0.0; width];
                dequantize(pipe.dtype, row, &mut values);
                rows.push(values);
                bytes = rest;
            }
        }
    }
    assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
    rows
}

/// Compares rows by the largest difference, relative to the largest value of the row.
fn assert_close(what: &str, found: &[Vec<f32>], recorded: &[Vec<f32>]) {
    assert_eq!(found.len(), recorded.len(), "{what}");
    let mut errors: Vec<f32> = found
        .iter()
        .zip(recorded)
        .map(|(found, recorded)| {
            let largest = recorded.iter().fold(1e-6f32, |largest, value| largest.max(value.abs()));
            found.iter().zip(recorded).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
        })
        .collect();
    errors.sort_by(f32::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    println!("{what}: {} rows, median {median:.1e}, worst {worst:.1e}", errors.len());
    assert!(median < 1e-5 && worst < 0.05, "{what}: median {median}, worst {worst}");
}

#[test]
fn a_worker_answers_a_recorded_root_as_the_recorded_worker_did() {
    for case in CASES.map(Case::open) {
        let model = Model::open(&case.path("model.m")).unwrap();
        let batches: Vec<u32> =
            trace::passes(&case.path("root-trace.tsv")).iter().map(|pass| pass.tokens.len() as u32).collect();
        for index in 0..case.nodes - 1 {
            let mut tables = GraphTables::new(Sizes::of_layers(model.header().n_layers));
            let cut = Cut::dllama(model.header(), case.nodes);
            let graph = build(&model.layout, &cut, index + 1, tables.tables()).unwrap();
            let (to_root, to_workers) = replay(&case, index);
            let recorded = case.worker_bytes(index);
            // Handshake, network, node, weights: four ACKs.
            assert_eq!(to_root[..16], recorded[..16], "{}", case.name);
            assert_eq!(to_root.len(), recorded.len(), "{}", case.name);
            let what = format!("{}, worker {index} to root", case.name);
            assert_close(
                &what,
                &rows(&graph, true, &batches, &to_root[16..]),
                &rows(&graph, true, &batches, &recorded[16..]),
            );
            for (peer, sent) in to_workers {
                let way = if index < peer { "a2b" } else { "b2a" };
                let recorded = case.bytes(&format!("link-w{}-w{}.{way}.bin", index.min(peer), index.max(peer)));
                let what = format!("{}, worker {index} to worker {peer}", case.name);
                assert_close(&what, &rows(&graph, false, &batches, &sent), &rows(&graph, false, &batches, &recorded));
            }
        }
    }
}
