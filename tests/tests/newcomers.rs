//! Workers that a root does not know when it starts: they say that they are there, and take part from the next request on.

use dair_core::exec::Logits;
use dair_core::kernels::KvType;
use dair_host::cluster::choose::Wish;
use dair_host::cluster::error::RootError;
use dair_host::cluster::newcomers::Newcomers;
use dair_host::cluster::node::OwnModel;
use dair_host::cluster::options::Options;
use dair_host::cluster::root::{Root, with_root};
use dair_host::model::Model;
use dair_host::net::door::Access;
use dair_host::net::listen::Listener;
use dair_host::net::{Address, Key, Keys, Stage, native, reception};
use dair_host::synthetic::model_bytes;
use dair_tests::models;
use dair_tests::worker::{PATIENT, Worker};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// A root's port for workers with these keys, which tells `newcomers` of them.
fn opened(keys: &Keys, newcomers: &Newcomers) -> Address {
    let listener = Listener::bind_to(([127, 0, 0, 1], 0).into(), PATIENT).unwrap();
    let port = listener.local_addr().unwrap().port();
    let newcomers = newcomers.clone();
    reception::open(listener, keys.clone(), move |address| newcomers.announce(address), |_| ()).unwrap();
    Address { host: "127.0.0.1".into(), port }
}

#[test]
fn a_worker_that_joins_takes_part_from_the_next_request_on() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.m");
    std::fs::write(&path, model_bytes(&case.header, 3)).unwrap();
    let model = Model::open(&path).unwrap();
    let (newcomers, keys) = (Newcomers::default(), Keys::from(Key::fresh().unwrap()));
    let door = opened(&keys, &newcomers);
    let options = Options {
        wish: Wish::Rows,
        timeouts: PATIENT,
        keys: keys.clone(),
        newcomers: Some(newcomers),
        ..Options::alone(1)
    };
    let heard = Mutex::new(Vec::new());
    let hear = |stage: Stage<'_>| {
        if let Stage::Back(names) = stage {
            heard.lock().unwrap().push(names.to_owned());
        }
    };
    with_root(&model, &options, &hear, |root| {
        let next = |root: &mut Root<'_>| -> Result<(u64, Vec<f32>), RootError> {
            root.session()?;
            let before = root.traffic().map_or(0, |traffic| traffic.sent);
            root.forward(&[1, 2, 3], 0, Logits::Last)?;
            Ok((root.traffic().map_or(0, |traffic| traffic.sent) - before, root.logits().to_vec()))
        };
        let (sent, want) = next(root)?;
        assert_eq!(sent, 0);
        let access = Access { keys: keys.clone(), ..Access::default() };
        let own = vec![OwnModel::open(&path).unwrap()];
        let worker = Worker::with_access(access, own, PATIENT, 1, (KvType::F32, u64::MAX));
        native::join(&door, worker.address.port(), (&PATIENT, &keys)).unwrap();
        let takes_part = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(20));
            let (sent, logits) = next(root).unwrap();
            assert_eq!(logits, want);
            sent > 0
        });
        assert!(takes_part, "a worker that has joined is called");
        assert_eq!(*heard.lock().unwrap(), [format!("worker {}", worker.address)]);
        // One that is known is no other one.
        native::join(&door, worker.address.port(), (&PATIENT, &keys)).unwrap();
        next(root)?;
        assert_eq!(heard.lock().unwrap().len(), 1);
        Ok::<_, RootError>(())
    })
    .unwrap();
}

#[test]
fn who_has_no_key_is_not_heard() {
    let (newcomers, keys) = (Newcomers::default(), Keys::from(Key::fresh().unwrap()));
    let door = opened(&keys, &newcomers);
    let error = native::join(&door, 7, (&PATIENT, &Keys::default())).unwrap_err().to_string();
    assert!(error.contains("wants the key"), "{error}");
    let other = Keys::from(Key::fresh().unwrap());
    let error = native::join(&door, 7, (&PATIENT, &other)).unwrap_err().to_string();
    assert!(error.contains("key"), "{error}");
    assert_eq!(format!("{newcomers:?}"), "[]");
    native::join(&door, 7, (&PATIENT, &keys)).unwrap();
    let is_heard = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        format!("{newcomers:?}").contains("port: 7")
    });
    assert!(is_heard, "{newcomers:?}");
}

#[test]
fn a_root_computes_for_nobody_and_a_worker_takes_no_others() {
    let keys = Keys::default();
    let door = opened(&keys, &Newcomers::default());
    let called = native::call(std::slice::from_ref(&door), (&PATIENT, &keys), |_| ()).unwrap();
    let error = called.into_iter().flatten().next().unwrap().drain().unwrap_err().to_string();
    assert!(error.contains("this is a root"), "{error}");
    let worker = Worker::start(PATIENT, 1, KvType::F32, u64::MAX);
    let error = native::join(&worker.as_address(), 7, (&PATIENT, &keys)).unwrap_err().to_string();
    assert!(error.contains("this is a worker; only a root takes others"), "{error}");
}
