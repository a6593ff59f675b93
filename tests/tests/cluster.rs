//! Roots and workers over real sockets.

use dair_core::exec::Logits;
use dair_core::io::Serial;
use dair_core::kernels::KvType;
use dair_core::plan::node_counts;
use dair_core::quant::DType;
use dair_host::cluster::error::RootError;
use dair_host::cluster::options::{Dialect, Options};
use dair_host::cluster::root::with_root;
use dair_host::machine::cpu::best_kernels;
use dair_host::model::Model;
use dair_host::net::Timeouts;
use dair_host::synthetic::model_bytes;
use dair_tests::random::tokens;
use dair_tests::worker::{HASTY, PATIENT, Worker};
use dair_tests::{mesh, models, run};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A model file that goes away with the test.
fn model_file(file: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.m");
    std::fs::write(&path, file).unwrap();
    (folder, path)
}

fn options(workers: &[Worker], timeouts: Timeouts) -> Options {
    let workers = workers.iter().map(Worker::as_address).collect();
    Options { workers, timeouts, dialect: Dialect::Dllama, ..Options::alone(1) }
}

/// Logits of every token, by a root that uses `workers`.
fn logits(
    model: &Model,
    workers: &[Worker],
    activations: Option<DType>,
    prompt: &[u32],
) -> Result<Vec<Vec<f32>>, RootError> {
    logits_by(model, &Options { activations, ..options(workers, PATIENT) }, prompt)
}

fn logits_by(model: &Model, options: &Options, prompt: &[u32]) -> Result<Vec<Vec<f32>>, RootError> {
    with_root(model, options, &|_| (), |root| {
        let mut rows = Vec::new();
        root.forward_each(prompt, 0, |_, row| rows.push(row.to_vec()))?;
        Ok(rows)
    })
}

#[test]
fn sockets_carry_the_same_bits_as_one_process() {
    for case in models::tiny() {
        let (name, header) = (&case.name, &case.header);
        let file = model_bytes(header, 4);
        let (_folder, path) = model_file(&file);
        let model = Model::open(&path).unwrap();
        let prompt = tokens(4, 40, header.vocab_size);
        for nodes in node_counts(header).filter(|nodes| *nodes > 1) {
            let workers: Vec<_> = (1..nodes).map(|_| Worker::patient()).collect();
            let want = mesh::logits(
                &file,
                (&case.columns(nodes), KvType::default()),
                (|| Serial, best_kernels()),
                &prompt,
                &[32],
            );
            // Twice: a worker is as good as new after a session.
            for _ in 0..2 {
                let got = logits(&model, &workers, Some(case.activation), &prompt).unwrap();
                run::assert_same_bits(&got, &want, &format!("{name}, {nodes} nodes"));
                for (node, worker) in (1..).zip(&workers) {
                    let summary = worker.ended().unwrap();
                    assert_eq!((summary.node, summary.nodes, summary.passes, summary.tokens), (node, nodes, 2, 40));
                }
            }
        }
    }
}

fn tiny() -> (tempfile::TempDir, Model) {
    let (folder, path) = model_file(&model_bytes(&models::tiny()[0].header, 5));
    (folder, Model::open(&path).unwrap())
}

/// Why a root with these workers can't run.
fn refusal(workers: &[Worker], timeouts: Timeouts) -> String {
    let (_folder, model) = tiny();
    let result: Result<(), RootError> =
        with_root(&model, &options(workers, timeouts), &|_| (), |root| root.forward(&[1, 2, 3], 0, Logits::Last));
    result.unwrap_err().to_string()
}

#[test]
fn a_worker_without_memory_says_so_and_serves_the_next_root() {
    let worker = Worker::start(PATIENT, 1, KvType::default(), 100_000);
    for _ in 0..2 {
        let line = refusal(std::slice::from_ref(&worker), PATIENT);
        let reason = worker.ended().unwrap_err();
        assert_eq!(line, format!("worker {} refuses: {reason}", worker.address));
        assert!(
            reason
                .ends_with("allowed: 100000 bytes; more workers or a shorter context need less, --memory allows more"),
            "{reason}"
        );
    }
}

#[test]
fn workers_that_are_not_there_are_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_folder, model) = tiny();
    let timeouts = Timeouts { start: Duration::from_millis(300), ..PATIENT };
    let options = Options {
        workers: vec![format!("127.0.0.1:{port}").parse().unwrap()],
        timeouts,
        dialect: Dialect::Dllama,
        ..Options::alone(1)
    };
    let start = Instant::now();
    let result: Result<(), RootError> = with_root(&model, &options, &|_| (), |_| Ok(()));
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "cannot connect to worker 127.0.0.1:{port}: nothing listens there; is it started, and not busy with another root?"
        )
    );
    assert!(start.elapsed() >= Duration::from_millis(300), "it might have been starting");
}

#[test]
fn a_worker_that_starts_late_is_waited_for() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        drop(listener.accept().unwrap());
    });
    let (_folder, model) = tiny();
    let timeouts = Timeouts { start: Duration::from_secs(20), ..PATIENT };
    let options = Options {
        workers: vec![format!("127.0.0.1:{port}").parse().unwrap()],
        timeouts,
        dialect: Dialect::Dllama,
        ..Options::alone(1)
    };
    let result: Result<(), RootError> = with_root(&model, &options, &|_| (), |_| Ok(()));
    late.join().unwrap();
    assert_eq!(
        result.unwrap_err().to_string(),
        format!(
            "worker 127.0.0.1:{port} closed the connection during the handshake; it may be serving another root, or want --dialect dllama"
        )
    );
}

#[test]
fn a_worker_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (_folder, model) = tiny();
    let options = Options {
        workers: vec![address.to_string().parse().unwrap()],
        timeouts: HASTY,
        dialect: Dialect::Dllama,
        ..Options::alone(1)
    };
    let result: Result<(), RootError> = with_root(&model, &options, &|_| (), |_| Ok(()));
    assert_eq!(
        result.unwrap_err().to_string(),
        format!("worker {address} did not answer the handshake for 0.4 s; is it busy with another root?")
    );
}

#[test]
fn a_root_that_vanishes_between_passes_frees_the_worker() {
    let worker = Worker::patient();
    let (_folder, model) = tiny();
    let workers = std::slice::from_ref(&worker);
    for _ in 0..2 {
        let result = std::panic::catch_unwind(|| {
            let _: Result<(), RootError> = with_root(&model, &options(workers, PATIENT), &|_| (), |root| {
                root.forward(&[1, 2, 3], 0, Logits::Last)?;
                // As if the process died: no stop packet is sent.
                std::panic::resume_unwind(Box::new(()));
            });
        });
        assert!(result.is_err());
        assert_eq!(worker.ended().unwrap_err(), "root closed the connection during the wait for a forward pass");
    }
    assert!(logits(&model, workers, None, &[1, 2, 3]).is_ok());
}

/// Roots that want the same workers at the same time: each is served, or hears at once that somebody else is; none disturbs another.
#[test]
fn roots_that_want_the_same_workers_do_each_other_no_harm() {
    let (_folder, model) = tiny();
    let workers = [Worker::patient(), Worker::patient(), Worker::patient()];
    let options = options(&workers, PATIENT);
    let want = logits_by(&model, &options, &[1, 2, 3]).unwrap();
    let served = std::thread::scope(|scope| {
        let root = || {
            let mut served = 0;
            for _ in 0..8 {
                match logits_by(&model, &options, &[1, 2, 3]) {
                    Ok(got) => {
                        run::assert_same_bits(&got, &want, "a root among others");
                        served += 1;
                    }
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains("it may be serving another root"), "{error}");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            served
        };
        let roots = [(); 3].map(|()| scope.spawn(root));
        roots.map(|root| root.join().unwrap()).iter().sum::<u32>()
    });
    assert!(served > 0, "somebody is served");
}
