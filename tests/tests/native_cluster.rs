//! Roots and workers of the native dialect over real sockets: the bits of one node, and no weight on the wire.

use dair_core::exec::{Logits, Run};
use dair_core::io::Serial;
use dair_core::kernels::KvType;
use dair_core::plan::{Share, Stage};
use dair_core::text::{Candidate, Filters, Looks, Sampler};
use dair_core::wire::dllama::{ACK, Hello, write_hello};
use dair_core::wire::native::{CALL, GREETING, VERSION};
use dair_host::cluster::choose::Wish;
use dair_host::cluster::error::RootError;
use dair_host::cluster::node::OwnModel;
use dair_host::cluster::options::Options;
use dair_host::cluster::root::{Root, with_root};
use dair_host::machine::cpu::best_kernels;
use dair_host::model::{Model, identity};
use dair_host::net::{self, Keys, Timeouts, native};
use dair_host::synthetic::model_bytes;
use dair_tests::models::{self, Case};
use dair_tests::random::tokens;
use dair_tests::relay::Relay;
use dair_tests::worker::{HASTY, PATIENT, Worker};
use dair_tests::{mesh, run};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// A model file that goes away with the test.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl File {
    fn new(bytes: Vec<u8>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.m");
        std::fs::write(&path, &bytes).unwrap();
        Self { _folder: folder, path, bytes }
    }

    fn of(case: &Case, seed: u64) -> Self {
        Self::new(model_bytes(&case.header, seed))
    }

    fn model(&self) -> Model {
        Model::open(&self.path).unwrap()
    }
}

fn worker(path: &Path, threads: usize, max_memory: u64) -> Worker {
    let models = vec![OwnModel::open(path).unwrap()];
    Worker::with_models(models, PATIENT, threads, KvType::F32, max_memory)
}

fn options(workers: &[Worker], timeouts: Timeouts) -> Options {
    let wish = given(&vec![1; workers.len() + 1], &[]);
    Options { workers: workers.iter().map(Worker::as_address).collect(), wish, timeouts, ..Options::alone(1) }
}

/// These shares, in these stages: nodes and layers of each.
fn given(shares: &[u16], stages: &[(u16, u16)]) -> Wish {
    let shares = shares.iter().map(|share| Share { layers: *share, head: *share }).collect();
    Wish::Given(shares, stages.iter().map(|(nodes, layers)| Stage { nodes: *nodes, layers: *layers }).collect())
}

/// Logits of a prompt in one go, and then of the last token once more by itself.
fn logits(model: &Model, options: &Options, prompt: &[u32]) -> Result<Vec<Vec<f32>>, RootError> {
    with_root(model, options, &|_| (), |root| {
        let mut rows = Vec::new();
        root.forward_each(prompt, 0, |_, row| rows.push(row.to_vec()))?;
        let (last, position) = (prompt.len() - 1, prompt.len() as u32 - 1);
        root.forward(&prompt[last..], position, Logits::Last)?;
        assert_eq!(root.logits(), rows[last]);
        Ok(rows)
    })
}

#[test]
fn sockets_carry_the_bits_of_one_node() {
    for (case, seed) in models::all().into_iter().zip(0..) {
        let file = File::of(&case, seed);
        let (model, prompt) = (file.model(), tokens(seed, 40, case.header.vocab_size));
        let kv = KvType::default();
        let want = run::logits(&file.bytes, (&case.single(), kv), (&Serial, best_kernels()), &prompt, &[8]);
        let workers: Vec<_> = (1..5).map(|node| worker(&file.path, 1 + node % 2, u64::MAX)).collect();
        for list in [&[1, 1][..], &[1; 5], &[0, 2, 1, 0, 1]] {
            let workers = &workers[..list.len() - 1];
            let options =
                Options { activations: Some(case.activation), wish: given(list, &[]), ..options(workers, PATIENT) };
            let got = logits(&model, &options, &prompt).unwrap();
            run::assert_same_bits(&got, &want, &format!("{}, {list:?}", case.name));
            for (node, worker) in (1..).zip(workers) {
                let summary = worker.ended().unwrap();
                assert_eq!((summary.node, summary.nodes), (node, list.len() as u32));
                assert_eq!((summary.passes, summary.tokens, summary.weight_bytes), (3, 41, 0));
            }
        }
    }
}

/// Layers one after the other over sockets: a prompt in several batches, which are on their way at the same time.
#[test]
fn stages_over_sockets_carry_the_bits_of_one_node() {
    for (mut case, seed) in models::tiny().into_iter().zip(20..) {
        case.header.n_layers = 4;
        let file = File::of(&case, seed);
        let (model, prompt) = (file.model(), tokens(seed, 60, case.header.vocab_size));
        let kv = KvType::default();
        let want = run::logits(&file.bytes, (&case.single(), kv), (&Serial, best_kernels()), &prompt, &[8]);
        let workers: Vec<_> = (0..3).map(|_| worker(&file.path, 1, u64::MAX)).collect();
        for (list, stages) in [(&[1, 1][..], &[(1, 1), (1, 3)][..]), (&[0, 1, 2, 1], &[(3, 2), (1, 2)])] {
            let workers = &workers[..list.len() - 1];
            let (activations, wish) = (Some(case.activation), given(list, stages));
            let options = Options { activations, wish, ..options(workers, PATIENT) };
            let got = logits(&model, &options, &prompt).unwrap();
            run::assert_same_bits(&got, &want, &format!("{}, {stages:?}", case.name));
            // Batches that nobody asks about: the root does not wait for the last stage.
            let last = with_root(&model, &options, &|_| (), |root| {
                for (position, tokens) in prompt.chunks(7).enumerate() {
                    let logits = if position == 8 { Logits::Last } else { Logits::None };
                    root.forward(tokens, 7 * position as u32, logits)?;
                }
                Ok::<_, RootError>(root.logits().to_vec())
            });
            run::assert_same_bits(&[last.unwrap()], &want[59..], &case.name);
        }
    }
}

/// The second of three stages takes several times the limit of a wait for a batch: the third one, and the root, wait for it.
#[test]
fn a_stage_that_computes_for_longer_than_a_silence_may_last_is_not_given_up() {
    let mut case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    case.header.n_layers = 3;
    let file = File::of(&case, 18);
    let (model, prompt) = (file.model(), tokens(18, 100, case.header.vocab_size));
    let want =
        run::logits(&file.bytes, (&case.single(), KvType::default()), (&Serial, best_kernels()), &prompt, &[100]);
    // What the relay holds up are the signs of life, too.
    let timeouts = Timeouts { progress: Duration::from_secs(2), silence: Duration::from_secs(60), ..PATIENT };
    let start = || Worker::with_models(vec![OwnModel::open(&file.path).unwrap()], timeouts, 1, KvType::F32, u64::MAX);
    let (second, third) = (start(), start());
    let relay = Relay::to(&second.as_address());
    let (workers, wish) = (vec![relay.address.clone(), third.as_address()], given(&[1; 3], &[(1, 1); 3]));
    let options = Options { workers, wish, timeouts, ..Options::alone(1) };
    let last = with_root(&model, &options, &|_| (), |root| {
        thread::scope(|scope| {
            relay.hold(true);
            scope.spawn(|| {
                thread::sleep(3 * timeouts.progress);
                relay.hold(false);
            });
            root.feed(&prompt, 0, Logits::Last, |_| ControlFlow::Continue(()))
        })?;
        Ok::<_, RootError>(root.logits().to_vec())
    });
    run::assert_same_bits(&[last.unwrap()], &want[99..], &case.name);
    assert_eq!(third.ended().unwrap().passes, 3, "a few batches, so that stages work at the same time");
}

#[test]
fn columns_are_there_for_who_asks_for_them() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let file = File::of(&case, 13);
    let (workers, kv) = ([worker(&file.path, 1, u64::MAX)], KvType::default());
    let want = mesh::logits(&file.bytes, (&case.columns(2), kv), (|| Serial, best_kernels()), &[5, 6, 7], &[3]);
    let options = Options { wish: Wish::Columns, ..options(&workers, PATIENT) };
    let got = logits(&file.model(), &options, &[5, 6, 7]).unwrap();
    run::assert_same_bits(&got, &want, &case.name);
    assert_eq!(workers[0].ended().unwrap().weight_bytes, 0);
}

/// In Q40 less crosses the network, and results do not depend on who has which part.
#[test]
fn a_lossy_exchange_moves_less_and_depends_on_no_cut() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let file = File::of(&case, 16);
    let (model, prompt) = (file.model(), tokens(16, 40, case.header.vocab_size));
    let workers = [worker(&file.path, 1, u64::MAX), worker(&file.path, 1, u64::MAX)];
    let run = |lossy, list: &[u16]| {
        let options = Options { lossy, wish: given(list, &[]), ..options(&workers, PATIENT) };
        with_root(&model, &options, &|_| (), |root| {
            root.forward(&prompt, 0, Logits::Last)?;
            Ok::<_, RootError>((root.logits().to_vec(), root.traffic().unwrap().received))
        })
        .unwrap()
    };
    let ((exact, all), (lossy, some)) = (run(false, &[1, 1, 1]), run(true, &[1, 1, 1]));
    assert!(some < all * 9 / 10, "{some} and {all} bytes");
    assert_ne!(lossy, exact);
    assert_eq!(run(true, &[3, 1, 2]).0, lossy);
}

/// A tiny model is faster on one node: who is not needed is let go, unless his help is wished for.
#[test]
fn the_planner_decides_who_takes_part() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let file = File::of(&case, 14);
    let (model, workers) = (file.model(), [worker(&file.path, 1, u64::MAX), worker(&file.path, 1, u64::MAX)]);
    let (kv, prompt) = (KvType::default(), [5, 6, 7]);
    let want = run::logits(&file.bytes, (&case.single(), kv), (&Serial, best_kernels()), &prompt, &[3]);
    for (wish, is_alone) in [(Wish::Best, true), (Wish::Rows, false), (Wish::Layers, false)] {
        let options = Options { wish, ..options(&workers, PATIENT) };
        let idle = Mutex::new(String::new());
        let hear = |stage: net::Stage<'_>| {
            if let net::Stage::Idle(names) = stage {
                names.clone_into(&mut idle.lock().unwrap());
            }
        };
        let got = with_root(&model, &options, &hear, |root| {
            root.forward(&prompt, 0, Logits::Last)?;
            Ok::<_, RootError>((root.logits().to_vec(), root.traffic().unwrap().sent))
        });
        let (logits, sent) = got.unwrap();
        run::assert_same_bits(&[logits], &want[2..], &format!("{:?}", options.wish));
        assert_eq!(sent == 0, is_alone, "{:?}", options.wish);
        assert!(idle.into_inner().unwrap().contains("127.0.0.1"), "of three nodes one or two are enough");
    }
}

/// What crosses the network in a session does not depend on the size of the weights, and is far less.
#[test]
fn no_weight_crosses_the_network() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let bytes_of = |hidden_dim: u32| {
        let mut case = case.clone();
        case.header.hidden_dim = hidden_dim;
        let file = File::of(&case, 1);
        let workers = [worker(&file.path, 1, u64::MAX)];
        let bytes = with_root(&file.model(), &options(&workers, PATIENT), &|_| (), |root| {
            Ok::<_, RootError>(root.setup_bytes())
        });
        assert_eq!(workers[0].ended().unwrap().passes, 0);
        (bytes.unwrap(), file.bytes.len())
    };
    let (small, large) = (bytes_of(96), bytes_of(96 * 64));
    assert_eq!(small.0, large.0);
    assert!(large.1 > 8 * small.1);
    let (sent, received) = large.0;
    assert!(sent < 52_000 && received < 52_000, "{sent} and {received} bytes before the first pass");
}

/// Where the best are enough, the rest of a row stays where it is; the best are those of the whole row.
#[test]
fn the_best_logits_of_a_row_cross_the_network_alone() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let file = File::of(&case, 2);
    let (model, prompt) = (file.model(), tokens(2, 30, case.header.vocab_size));
    let workers = [worker(&file.path, 1, u64::MAX), worker(&file.path, 1, u64::MAX)];
    let vocab_size = case.header.vocab_size;
    let rows = |count: Option<u32>| {
        with_root(&model, &options(&workers, PATIENT), &|_| (), |root| {
            root.want(count.map_or(Looks::All, Looks::Best), vocab_size - 7);
            let mut rows = Vec::new();
            for (token, position) in prompt.iter().zip(0..) {
                root.forward(&[*token], position, Logits::Last)?;
                rows.push(root.logits()[..vocab_size as usize - 7].to_vec());
            }
            Ok::<_, RootError>((rows, root.traffic().unwrap().received))
        })
        .unwrap()
    };
    let best = |row: &[f32], count: usize| {
        let mut pairs: Vec<_> = row.iter().map(|logit| logit.to_bits()).zip(0..row.len()).collect();
        pairs.sort_by(|a, b| f32::from_bits(b.0).total_cmp(&f32::from_bits(a.0)).then(a.1.cmp(&b.1)));
        pairs.truncate(count);
        pairs
    };
    let (whole, all_bytes) = rows(None);
    for count in [1, 5, 128] {
        let (some, bytes) = rows(Some(count));
        for (some, whole) in some.iter().zip(&whole) {
            assert_eq!(best(some, count as usize), best(whole, count as usize), "the best {count}");
        }
        // Of two workers with a third of the tokens each; 128 are more than they have.
        if count < 128 {
            let saved = (u64::from(vocab_size) / 3 * 4 - u64::from(count) * 8) * 2 * prompt.len() as u64;
            assert!(all_bytes - bytes > saved * 9 / 10, "{all_bytes} and {bytes} bytes for the best {count}");
        }
    }
}

/// Tokens of a nucleus are those that whole rows give, whether the best of each node are enough or not.
#[test]
fn tokens_are_drawn_as_from_whole_rows() {
    let mut case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    case.header.vocab_size = 4096;
    let file = File::of(&case, 3);
    let model = file.model();
    let workers = [worker(&file.path, 1, u64::MAX), worker(&file.path, 1, u64::MAX)];
    let drawn = |options: &Options, (temperature, min_p): (f32, f32)| {
        let mut sampler = Sampler::new(temperature, 0.9, 7).unwrap().with(Filters { min_p, ..Filters::OFF });
        let mut scratch = vec![Candidate::default(); 4096];
        with_root(&model, options, &|_| (), |root| {
            root.want(sampler.looks_at(), 4090);
            let mut tokens = vec![1];
            for position in 0..60 {
                root.forward(&tokens[tokens.len() - 1..], position, Logits::Last)?;
                let partial = root.partial();
                let known = partial.and_then(|partial| {
                    sampler.sample_partial(&root.logits()[..4090], &partial, &mut scratch).unwrap().ok()
                });
                if partial.is_some() && known.is_none() {
                    root.rest()?;
                }
                tokens.push(match known {
                    Some(token) => token,
                    None => sampler.sample(&mut root.logits()[..4090], &[], &mut scratch).unwrap(),
                });
            }
            Ok::<_, RootError>((tokens, root.rests()))
        })
        .unwrap()
    };
    let alone = Options::alone(1);
    let mut rests = Vec::new();
    for settings in [(0.02, 0.0), (0.3, 0.0), (1.0, 0.0), (1.0, 0.3), (5.0, 0.01)] {
        let (want, none) = drawn(&alone, settings);
        let (got, some) = drawn(&options(&workers, PATIENT), settings);
        assert_eq!((got, none), (want, 0), "{settings:?}");
        rests.push(some);
    }
    assert!(rests.contains(&0) && rests.contains(&60), "{rests:?}");
}

#[test]
fn a_worker_with_another_file_is_named_and_serves_the_next_root() {
    let case = &models::tiny()[0];
    let (file, other) = (File::of(case, 1), File::of(case, 2));
    let workers = [worker(&file.path, 1, u64::MAX), worker(&other.path, 1, u64::MAX)];
    let error = logits(&file.model(), &options(&workers, PATIENT), &[1, 2]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "worker {} does not have this model; its model.m has the same size and header, but other content: start it \
             with a copy of this file (--model), or write dllama:// before all addresses to send the weights",
            workers[1].address,
        )
    );
    assert!(logits(&other.model(), &options(&workers[1..], PATIENT), &[1, 2]).is_ok());
    assert!(logits(&file.model(), &options(&workers[..1], PATIENT), &[1, 2]).is_ok());
}

#[test]
fn a_worker_without_a_file_is_sent_the_weights() {
    let case = &models::tiny()[0];
    let file = File::of(case, 3);
    let with = worker(&file.path, 1, u64::MAX);
    for workers in [vec![Worker::patient()], vec![with, Worker::patient()]] {
        let nodes = workers.len() as u32 + 1;
        if !dair_core::plan::node_counts(&case.header).any(|count| count == nodes) {
            continue;
        }
        let kv = KvType::default();
        let want = mesh::logits(&file.bytes, (&case.columns(nodes), kv), (|| Serial, best_kernels()), &[5, 6], &[2]);
        let got = logits(&file.model(), &options(&workers, PATIENT), &[5, 6]).unwrap();
        run::assert_same_bits(&got, &want, &case.name);
        assert!(workers[0].ended().unwrap().weight_bytes > 0);
    }
}

/// One that does not answer as workers do is left out, with a line, and nobody connects to it: it may be of C++ Distributed-Llama.
#[test]
fn workers_with_the_model_and_others_are_not_mixed() {
    let file = File::of(&models::tiny()[0], 8);
    let (with, silent) = (worker(&file.path, 1, u64::MAX), TcpListener::bind("127.0.0.1:0").unwrap());
    let silent_address = silent.local_addr().unwrap();
    let mut options = options(std::slice::from_ref(&with), PATIENT);
    options.workers.push(silent_address.to_string().parse().unwrap());
    let heard = Heard::default();
    with_root(&file.model(), &options, &|stage| heard.hear(stage), |root| root.forward(&[1], 0, Logits::Last)).unwrap();
    let said = heard.take();
    let start = format!("lost worker {silent_address} does not answer as dair's workers do: ");
    assert!(said.len() == 1 && said[0].starts_with(&start), "{said:?}");
    assert_eq!(with.ended().unwrap().nodes, 2);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "nobody called");
}

/// A byte that the fingerprint does not look at.
#[test]
fn digests_that_both_nodes_know_must_agree_at_the_join() {
    let mut case = models::tiny()[0].clone();
    case.header.hidden_dim *= 512;
    let file = File::of(&case, 9);
    let mut changed = file.bytes.clone();
    changed[5000] ^= 1;
    let changed = File::new(changed);
    let worker = worker(&changed.path, 1, u64::MAX);
    let mut options = options(std::slice::from_ref(&worker), PATIENT);
    let identity = identity::identity(&file.model(), None).unwrap();
    assert_eq!(identity.fingerprint, identity::identity(&changed.model(), None).unwrap().fingerprint, "of samples");

    options.digest = Some(*blake3::hash(&file.bytes).as_bytes());
    assert!(logits(&file.model(), &options, &[1]).is_ok(), "the worker does not know its digest yet");
    let mut called = native::call(&options.workers, (&PATIENT, &Keys::default()), |_| ()).unwrap().remove(0).unwrap();
    let told = called.digest((&identity.fingerprint, identity.bytes), &PATIENT, |_| ()).unwrap();
    assert_eq!(told, *blake3::hash(&changed.bytes).as_bytes());
    drop(called);
    let error = logits(&file.model(), &options, &[1]).unwrap_err().to_string();
    assert!(error.contains("its model.m has the same size and header, but other content"), "{error}");
    options.digest = None;
    assert!(logits(&file.model(), &options, &[1]).is_ok(), "this node does not know its digest");
}

#[test]
fn a_digest_is_refused_where_there_is_none() {
    let file = File::of(&models::tiny()[0], 10);
    let worker = worker(&file.path, 1, u64::MAX);
    let ask = |fingerprint| {
        let mut called =
            native::call(&[worker.as_address()], (&PATIENT, &Keys::default()), |_| ()).unwrap().remove(0).unwrap();
        called.digest((&fingerprint, 5), &PATIENT, |_| ()).unwrap_err().to_string()
    };
    assert_eq!(ask([7; 32]), format!("worker {} refuses: it does not have this model", worker.address));
    let own = identity::identity(&file.model(), None).unwrap().fingerprint;
    std::fs::File::options().append(true).open(&file.path).unwrap().write_all(b"x").unwrap();
    assert!(ask(own).ends_with("was changed after it was opened; start the worker again"));
}

#[test]
fn a_worker_without_memory_says_so_to_its_root() {
    let file = File::of(&models::tiny()[0], 4);
    let worker = worker(&file.path, 1, 1000);
    let error = logits(&file.model(), &options(std::slice::from_ref(&worker), PATIENT), &[1]).unwrap_err().to_string();
    let reason = worker.ended().unwrap_err();
    assert_eq!(error, format!("worker {} refuses: {reason}", worker.address));
    assert!(reason.contains("KV cache of"), "{reason}");
}

#[test]
fn shares_that_do_not_fit_the_nodes_are_refused() {
    let file = File::of(&models::tiny()[0], 5);
    let workers = [worker(&file.path, 1, u64::MAX)];
    let mut options = options(&workers, PATIENT);
    for (list, want) in [
        (&[1, 1, 1][..], "3 shares given for 2 nodes; --shares takes one for each, the root's first"),
        (&[0, 0], "all shares of a layer are 0"),
    ] {
        options.wish = given(list, &[]);
        assert_eq!(logits(&file.model(), &options, &[1]).unwrap_err().to_string(), want);
    }
}

/// A C++ worker ends where a root hangs up on it: the first connection to it has to be a root's that goes on.
#[test]
fn a_cpp_worker_is_not_called_but_spoken_to_in_its_dialect() {
    let file = File::of(&models::tiny()[0], 6);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let mut hello = Vec::new();
        write_hello(&mut hello, Hello { workers: 1, index: 0 }, std::iter::empty()).unwrap();
        let mut stream = listener.accept().unwrap().0;
        let mut heard = [0; 8];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, hello[..]);
        stream.write_all(&ACK.to_le_bytes()).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    });
    let options =
        Options { workers: vec![address.to_string().parse().unwrap()], timeouts: PATIENT, ..Options::alone(1) };
    let error = logits(&file.model(), &options, &[1]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("worker {address} closed the connection")), "{error}");
    thread.join().unwrap();
}

#[test]
fn nonsense_is_refused_and_the_worker_serves_the_next_root() {
    let file = File::of(&models::tiny()[0], 7);
    let worker = Worker::with_models(vec![OwnModel::open(&file.path).unwrap()], HASTY, 1, KvType::F16, u64::MAX);
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let version: &str = &format!("version is 9; it must be {VERSION}");
    for (words, want) in [
        (frame(&[77]), "kind is 77; allowed: 1 to 24"),
        (frame(&[5]), "sent a message that is not due"),
        (frame(&[5, 0]), "length has 1 bytes too many"),
        (frame(&[2, 9, 0, 0, 0]), version),
        (frame(&[2]), "version is not there: the message ends before it"),
        (u32::MAX.to_le_bytes().to_vec(), "length is 4294967295; allowed: 1 to 131072"),
        (vec![0; 4], "length is 0; allowed: 1 to 131072"),
        // Says too little, and nothing more.
        (vec![40, 0, 0, 0, 2], "no data for 0.4 s during the wait for a message"),
    ] {
        let mut stream = worker.connect();
        stream.write_all(&CALL).unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, GREETING);
        stream.write_all(&words).unwrap();
        let reason = worker.ended().unwrap_err();
        assert!(reason.ends_with(want), "{reason}: {want}");
    }
    assert!(logits(&file.model(), &options(&[worker], PATIENT), &[1]).is_ok());
}

/// What a root has said of those who were lost, or came back.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn hear(&self, stage: net::Stage<'_>) {
        let line = match stage {
            net::Stage::Lost(reason) => format!("lost {reason}"),
            net::Stage::Back(names) => format!("back {names}"),
            net::Stage::Replay(tokens) => format!("replay {tokens}"),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A relay to a worker of its own.
fn behind_relay(path: &Path) -> Relay {
    Relay::to(&worker(path, 1, u64::MAX).as_address())
}

fn options_of(relays: &[Relay]) -> Options {
    let wish = given(&vec![1; relays.len() + 1], &[]);
    Options {
        workers: relays.iter().map(|relay| relay.address.clone()).collect(),
        wish,
        timeouts: PATIENT,
        ..Options::alone(1)
    }
}

/// Logits of each token of `prompt`, fed one by one; `before` is told of every one.
fn one_by_one(
    root: &mut Root<'_>,
    prompt: &[u32],
    mut before: impl FnMut(&mut Root<'_>, usize),
) -> Result<Vec<Vec<f32>>, RootError> {
    let mut rows = Vec::new();
    for (index, token) in prompt.iter().enumerate() {
        before(root, index);
        root.forward(&[*token], index as u32, Logits::Last)?;
        rows.push(root.logits().to_vec());
    }
    Ok(rows)
}

/// Workers are lost one after the other, down to the root alone: nobody who asks for logits notices, and they are those of one node.
#[test]
fn a_loss_changes_no_logits() {
    for stages in [&[][..], &[(1, 1), (2, 1)]] {
        let mut case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
        case.header.n_layers = 2;
        let file = File::of(&case, 8);
        let (model, prompt) = (file.model(), tokens(8, 12, 100));
        let kv = KvType::default();
        let want = run::logits(&file.bytes, (&case.single(), kv), (&Serial, best_kernels()), &prompt, &[12]);
        let relays = [behind_relay(&file.path), behind_relay(&file.path)];
        let mut options = options_of(&relays);
        options.wish = given(&[1, 1, 1], stages);
        let heard = Heard::default();
        let got = with_root(&model, &options, &|stage| heard.hear(stage), |root| {
            one_by_one(root, &prompt, |_, index| match index {
                5 => relays[1].end(),
                8 => relays[0].end(),
                _ => {}
            })
        });
        run::assert_same_bits(&got.unwrap(), &want, "logits before and after losses");
        let heard = heard.take();
        let lost = |index: usize| format!("lost worker {} closed the connection", relays[index].address);
        assert!(heard.len() == 4 && heard[0].starts_with(&lost(1)) && heard[2].starts_with(&lost(0)), "{heard:?}");
        assert_eq!((&*heard[1], &*heard[3]), ("replay 5", "replay 8"));
    }
}

/// A worker that says nothing any more, and keeps its connections, is found by the silence; the others go on at once.
#[test]
fn a_silent_worker_is_left_out() {
    let file = File::of(&models::tiny()[0], 31);
    let (model, prompt) = (file.model(), tokens(31, 9, 100));
    let relays = [behind_relay(&file.path), behind_relay(&file.path)];
    let mut options = options_of(&relays);
    options.timeouts.silence = Duration::from_millis(500);
    let heard = Heard::default();
    let rows = with_root(&model, &options, &|stage| heard.hear(stage), |root| {
        let want = one_by_one(root, &prompt, |_, _| ())?;
        let got = one_by_one(root, &prompt, |_, index| {
            if index == 4 {
                relays[0].hold(true);
            }
        })?;
        Ok::<_, RootError>((want, got))
    });
    let (want, got) = rows.unwrap();
    assert_eq!(want, got);
    let line = format!("lost worker {}: no data for 0.5 s during the wait for a sign of life", relays[0].address);
    assert_eq!(heard.take(), [line, "replay 4".into()]);
}

/// A root that says nothing any more, and keeps its connections, holds no worker.
#[test]
fn a_worker_frees_itself_from_a_root_that_is_silent() {
    let file = File::of(&models::tiny()[0], 34);
    let (model, worker) = (file.model(), worker(&file.path, 1, u64::MAX));
    let relay = Relay::to(&worker.as_address());
    let mut options = options_of(std::slice::from_ref(&relay));
    options.timeouts.silence = Duration::from_millis(300);
    with_root(&model, &options, &|_| (), |root| {
        root.forward(&[1], 0, Logits::Last)?;
        relay.hold(true);
        let end = worker.ended().unwrap_err();
        assert!(end.starts_with("root closed the connection during "), "{end}");
        Ok::<_, RootError>(())
    })
    .unwrap();
}

/// One whose connections are cut, and can be made again, is in the session of a later request.
#[test]
fn a_worker_that_comes_back_takes_part_again() {
    let file = File::of(&models::tiny()[0], 32);
    let (model, prompt) = (file.model(), tokens(32, 6, 100));
    let relays = [behind_relay(&file.path)];
    let options = options_of(&relays);
    let heard = Heard::default();
    with_root(&model, &options, &|stage| heard.hear(stage), |root| {
        let want = one_by_one(root, &prompt, |_, _| ())?;
        let got = one_by_one(root, &prompt, |_, index| {
            if index == 3 {
                relays[0].cut_all();
            }
        })?;
        assert_eq!(got, want);
        assert!(heard.take()[0].starts_with("lost worker"));
        let sent = |root: &mut Root<'_>| -> Result<u64, RootError> {
            let before = root.traffic().unwrap().sent;
            root.session()?;
            root.forward(&prompt[..1], 0, Logits::Last)?;
            Ok(root.traffic().unwrap().sent - before)
        };
        let mut comes_back = false;
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(50));
            comes_back = sent(root)? > 0;
            if comes_back {
                break;
            }
        }
        assert!(comes_back, "a worker that answers again is called again");
        assert_eq!(heard.take(), [format!("back worker {}", relays[0].address)]);
        assert_eq!(one_by_one(root, &prompt, |_, _| ())?, want);
        Ok::<_, RootError>(())
    })
    .unwrap();
}

/// A loss between requests is found by the signs of life that are missing, before the next one begins.
#[test]
fn a_loss_between_requests_disturbs_nobody() {
    let file = File::of(&models::tiny()[0], 9);
    let model = file.model();
    let relays = [behind_relay(&file.path)];
    let options = options_of(&relays);
    let heard = Heard::default();
    with_root(&model, &options, &|stage| heard.hear(stage), |root| {
        root.forward(&[1], 0, Logits::Last)?;
        relays[0].end();
        let is_found = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(50));
            root.session().is_ok() && !heard.0.lock().unwrap().is_empty()
        });
        assert!(is_found, "{:?}", heard.take());
        root.forward(&[2], 1, Logits::Last)
    })
    .unwrap();
    assert_eq!(heard.take()[1..], ["replay 1"]);
}

/// A root without a share of its own has all of them when it is alone.
#[test]
fn a_root_that_only_asked_computes_itself_when_nobody_is_left() {
    let file = File::of(&models::tiny()[0], 33);
    let (model, relays) = (file.model(), [behind_relay(&file.path)]);
    let options = Options { wish: given(&[0, 1], &[]), ..options_of(&relays) };
    with_root(&model, &options, &|_| (), |root| {
        root.forward(&[1], 0, Logits::Last)?;
        let want = root.logits().to_vec();
        relays[0].end();
        root.forward(&[1], 0, Logits::Last)?;
        assert_eq!(root.logits(), want);
        Ok::<_, RootError>(())
    })
    .unwrap();
}

/// While a root is served, others hear at once by whom a worker is held; asking what it has is free.
#[test]
fn a_busy_worker_says_whom_it_serves() {
    let file = File::of(&models::tiny()[0], 15);
    let (model, worker) = (file.model(), worker(&file.path, 1, u64::MAX));
    let options = options(std::slice::from_ref(&worker), PATIENT);
    with_root(&model, &options, &|_| (), |root| {
        root.forward(&[1], 0, Logits::Last)?;
        let error = logits(&model, &options, &[1]).unwrap_err().to_string();
        let start = format!("worker {} is busy: it has served root 127.0.0.1:", worker.address);
        assert!(error.starts_with(&start) && error.ends_with("try again when that is over, or without it"), "{error}");
        let called = native::call(&options.workers, (&PATIENT, &Keys::default()), |_| ()).unwrap();
        assert!(called[0].as_ref().unwrap().have.busy.contains("it has served root"));
        root.forward(&[2], 1, Logits::Last)
    })
    .unwrap();
    assert!(worker.ended().is_ok());
    assert!(logits(&model, &options, &[1]).is_ok());
}

/// Several sequences in one pass over sockets: each has the logits that it has alone.
#[test]
fn sequences_share_passes_over_sockets() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let file = File::of(&case, 17);
    let (model, workers) = (file.model(), [worker(&file.path, 1, u64::MAX), worker(&file.path, 1, u64::MAX)]);
    let sequences: Vec<_> = [7, 1, 4].into_iter().zip(0..).map(|(len, seed)| tokens(seed, len, 100)).collect();
    let kv = KvType::default();
    let alone = |tokens: &Vec<u32>| {
        run::logits(&file.bytes, (&case.single(), kv), (&Serial, best_kernels()), tokens, &[tokens.len()])
            .pop()
            .unwrap()
    };
    let want: Vec<_> = sequences.iter().map(alone).collect();
    with_root(&model, &Options { slots: 3, ..options(&workers, PATIENT) }, &|_| (), |root| {
        let run = |(slot, tokens): (u32, &Vec<u32>)| Run { slot, ..Run::new(0, tokens.len() as u32, Logits::Last) };
        let runs: Vec<_> = (0..).zip(&sequences).map(run).collect();
        root.pass(&runs, &sequences.concat())?;
        for (row, want) in [6, 7, 11].into_iter().zip(&want) {
            run::assert_same_bits(
                &[root.logits_of(row).to_vec()],
                std::slice::from_ref(want),
                "a sequence among others",
            );
        }
        let error = root.pass(&[Run { slot: 3, ..Run::new(0, 1, Logits::Last) }], &[5]).unwrap_err().to_string();
        assert_eq!(error, "sequence 3; the KV cache has room for 3");
        Ok::<_, RootError>(())
    })
    .unwrap();
}
