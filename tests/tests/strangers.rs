//! Workers that are not ours: they answer as the C++ ones do, and are given nothing that those can't compute.

use dair_core::graph::Sizes;
use dair_core::plan::{Cut, build};
use dair_core::quant::DType;
use dair_core::wire::dllama::{ACK, write_network, write_node};
use dair_host::cluster::error::RootError;
use dair_host::cluster::options::{Dialect, Options};
use dair_host::cluster::root::with_root;
use dair_host::cluster::tables::GraphTables;
use dair_host::model::Model;
use dair_host::net::Timeouts;
use dair_host::synthetic::{model_bytes, preset};
use dair_tests::worker::{HASTY, PATIENT};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of a root's words to its only worker, phase by phase: handshake, its end, network config, node config.
fn phases(model: &Model, activations: Option<DType>) -> [usize; 4] {
    let mut tables = GraphTables::new(Sizes::of_layers(model.header().n_layers));
    let cut = Cut::dllama(model.header(), 2);
    let cut = Cut { activation: activations.unwrap_or(cut.activation), ..cut };
    let graph = build(&model.layout, &cut, 1, tables.tables()).unwrap();
    let (mut network, mut node) = (Vec::new(), Vec::new());
    write_network(&mut network, &graph).unwrap();
    write_node(&mut node, &graph).unwrap();
    [8, 4, network.len(), node.len()]
}

/// A worker that hears `phases` and answers all but the second with an ACK, byte by byte where it `drips`; then it reads
/// to the end. Gives the number of bytes that came after its last answer.
fn stranger(phases: [usize; 4], drips: Option<Duration>) -> (SocketAddr, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |stream: &mut TcpStream| match drips {
        None => stream.write_all(&ACK.to_le_bytes()).unwrap(),
        Some(pause) => {
            for byte in ACK.to_le_bytes() {
                thread::sleep(pause);
                // The root may have given up.
                let _ = stream.write_all(&[byte]);
            }
        }
    };
    let thread = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        for (phase, len) in phases.into_iter().enumerate() {
            if stream.read_exact(&mut vec![0; len]).is_err() {
                return 0;
            }
            if phase != 1 {
                answer(&mut stream);
            }
        }
        let mut rest = Vec::new();
        // How the root hangs up, is up to the system.
        let _ = stream.read_to_end(&mut rest);
        rest.len()
    });
    (address, thread)
}

/// Runs a tiny model with such a worker; why it fails, how long that took, and the bytes of weights that were sent.
fn run(
    name: &str,
    weights: DType,
    activations: Option<DType>,
    (timeouts, drips): (Timeouts, Option<Duration>),
) -> (SocketAddr, String, Duration, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.m");
    let header = dair_core::format::Header { weights, ..preset(name).unwrap() };
    std::fs::write(&path, model_bytes(&header, 1)).unwrap();
    let model = Model::open(&path).unwrap();
    let (address, worker) = stranger(phases(&model, activations), drips);
    let workers = vec![address.to_string().parse().unwrap()];
    let options = Options { workers, activations, timeouts, dialect: Dialect::Dllama, ..Options::alone(1) };
    let start = Instant::now();
    let result: Result<(), RootError> = with_root(&model, &options, &|_| (), |_| Ok(()));
    (address, result.unwrap_err().to_string(), start.elapsed(), worker.join().unwrap())
}

#[test]
fn a_stranger_gets_no_weights_that_cpp_workers_have_no_kernel_for() {
    for (name, weights, activations, what) in [
        ("tiny-llama", DType::Q80, None, "q80 weights and f32 inputs"),
        ("tiny-llama", DType::F16, None, "f16 weights and f32 inputs"),
        ("tiny-qwen3-moe", DType::F32, None, "experts with f32 inputs"),
        ("tiny-llama", DType::Q80, Some(DType::Q80), "q80 weights and q80 inputs"),
    ] {
        let (address, line, _, weights) = run(name, weights, activations, (PATIENT, None));
        assert_eq!(weights, 0, "{line}");
        for part in [&format!("worker {address} "), "C++", what, "convert the model with --weights q40", "host-worker"]
        {
            assert!(line.contains(part), "{part:?} is missing in {line}");
        }
    }
}

#[test]
fn a_stranger_gets_the_weights_that_cpp_workers_compute() {
    for (name, weights) in [
        ("tiny-llama", DType::Q40),
        ("tiny-llama", DType::F32),
        ("tiny-qwen3", DType::Q40),
        ("tiny-qwen3-moe", DType::Q40),
    ] {
        // It never says that it has them.
        let (address, line, _, sent) = run(name, weights, None, (HASTY, None));
        assert!(sent > 1000, "{line}");
        assert_eq!(line, format!("worker {address}: no data for 0.4 s during the transfer of weights"));
    }
}

#[test]
fn a_worker_that_answers_byte_by_byte_is_given_up_when_its_time_is_over() {
    let drips = Some(Duration::from_millis(150));
    let (address, line, time, _) = run("tiny-llama", DType::Q40, None, (HASTY, drips));
    assert!(line.starts_with(&format!("worker {address}: only ")) && line.ends_with(" during the handshake"), "{line}");
    assert!(time < Duration::from_secs(20), "{time:?}");
}
