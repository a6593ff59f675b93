//! Clusters with a key over real sockets: the bits of one node, and nothing for anybody who does not know it.

use dair_core::exec::Logits;
use dair_core::io::Serial;
use dair_core::kernels::KvType;
use dair_core::plan::{Share, Stage};
use dair_core::wire::native::{CALL, GREETING, Have, LINK, PLAIN, SECURED, write_have};
use dair_host::cluster::choose::Wish;
use dair_host::cluster::error::RootError;
use dair_host::cluster::node::OwnModel;
use dair_host::cluster::options::Options;
use dair_host::cluster::root::with_root;
use dair_host::machine::cpu::best_kernels;
use dair_host::model::{Model, identity};
use dair_host::net::door::Access;
use dair_host::net::{self, Address, Key, Keys, Timeouts, native};
use dair_host::synthetic::model_bytes;
use dair_tests::models::{self, Case};
use dair_tests::random::{Random, tokens};
use dair_tests::relay::{self, Relay};
use dair_tests::run;
use dair_tests::worker::{HASTY, PATIENT, Worker};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of a message of the handshake.
const MESSAGE: usize = 48;

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    case: Case,
}

impl File {
    fn new(seed: u64) -> Self {
        let mut case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
        case.header.n_layers = 4;
        let (folder, bytes) = (tempfile::tempdir().unwrap(), model_bytes(&case.header, seed));
        let path = folder.path().join("model.m");
        std::fs::write(&path, &bytes).unwrap();
        Self { _folder: folder, path, bytes, case }
    }

    fn model(&self) -> Model {
        Model::open(&self.path).unwrap()
    }

    fn logits(&self, prompt: &[u32]) -> Vec<Vec<f32>> {
        let kv = KvType::default();
        run::logits(&self.bytes, (&self.case.single(), kv), (&Serial, best_kernels()), prompt, &[prompt.len()])
    }
}

fn key() -> Key {
    Key::fresh().unwrap()
}

fn worker(path: &Path, keys: &Keys, timeouts: Timeouts) -> Worker {
    let access = Access { keys: keys.clone(), ..Access::default() };
    Worker::with_access(access, vec![OwnModel::open(path).unwrap()], timeouts, 1, (KvType::F32, u64::MAX))
}

fn options(workers: Vec<Address>, keys: &Keys) -> Options {
    let shares = vec![Share { layers: 1, head: 1 }; workers.len() + 1];
    let (wish, keys) = (Wish::Given(shares, Vec::new()), keys.clone());
    Options { workers, wish, keys, timeouts: PATIENT, ..Options::alone(1) }
}

/// Logits of all rows of a prompt.
fn logits(file: &File, options: &Options, prompt: &[u32]) -> Result<Vec<Vec<f32>>, String> {
    let mut rows = Vec::new();
    let result = with_root(&file.model(), options, &|_| (), |root| {
        root.forward_each(prompt, 0, |_, row| rows.push(row.to_vec()))
    });
    result.map(|_| rows).map_err(|error: RootError| error.to_string())
}

/// Says `words` to a worker, and no more; all that it answers.
fn answer_to(worker: &Worker, words: &[u8]) -> Vec<u8> {
    let mut stream = worker.connect();
    // It may hang up before it has heard everything.
    let _ = stream.write_all(words);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

const SECURED_GREETING: [u8; 5] = [GREETING[0], GREETING[1], GREETING[2], GREETING[3], SECURED];

#[test]
fn keys_change_no_bit() {
    let file = File::new(30);
    let prompt = tokens(30, 60, file.case.header.vocab_size);
    let (want, keys) = (file.logits(&prompt), Keys::from(key()));
    let workers: Vec<_> = (0..3).map(|_| worker(&file.path, &keys, PATIENT)).collect();
    let mut options = options(workers.iter().map(Worker::as_address).collect(), &keys);
    for stages in [&[][..], &[(3, 2), (1, 2)]] {
        let Wish::Given(shares, _) = options.wish else { unreachable!() };
        let stages = stages.iter().map(|(nodes, layers)| Stage { nodes: *nodes, layers: *layers }).collect();
        options.wish = Wish::Given(shares, stages);
        let got = logits(&file, &options, &prompt).unwrap();
        run::assert_same_bits(&got, &want, &format!("{:?}", options.wish));
        for worker in &workers {
            assert_eq!(worker.ended().unwrap().tokens, 60);
        }
    }
}

#[test]
fn nothing_that_was_recorded_can_be_read_or_used_again() {
    let file = File::new(31);
    let (prompt, keys) = (tokens(31, 20, file.case.header.vocab_size), Keys::from(key()));
    let worker = worker(&file.path, &keys, PATIENT);
    let relay = Relay::to(&worker.as_address());
    logits(&file, &options(vec![relay.address.clone()], &keys), &prompt).unwrap();
    assert!(worker.ended().is_ok());
    let [asked, answered] = relay.records().remove(0);
    assert!(asked.starts_with(&CALL) && answered.starts_with(&SECURED_GREETING) && asked.len() > 1000);
    let fingerprint = identity::identity(&file.model(), None).unwrap().fingerprint;
    let ids: Vec<u8> = prompt[..4].iter().flat_map(|id| id.to_le_bytes()).collect();
    for known in [&fingerprint[..8], b"model.m", &ids, &CALL] {
        let seen = |bytes: &[u8]| bytes.windows(known.len()).any(|window| window == known);
        assert!(!seen(&asked[CALL.len()..]) && !seen(&answered), "{known:?} can be read");
    }
    // To the worker, again: it answers the handshake with another key of its own, and that is all.
    let mut stream = worker.connect();
    let (call, rest) = asked.split_at(CALL.len() + MESSAGE);
    stream.write_all(call).unwrap();
    let mut again = [0; 5 + MESSAGE];
    stream.read_exact(&mut again).unwrap();
    assert_eq!(again[..5], SECURED_GREETING);
    assert_ne!(again[5..], answered[5..5 + MESSAGE]);
    // It may hang up before it has heard everything.
    let _ = stream.write_all(rest);
    let mut more = Vec::new();
    let _ = stream.read_to_end(&mut more);
    assert!(more.is_empty(), "{more:?}");
    let line = worker.ended().unwrap_err();
    assert!(line.contains("encrypted data that was changed on the way"), "{line}");
    // Nor does it help not to wait for its answer.
    assert!(answer_to(&worker, &asked).len() <= 5 + MESSAGE);
    let line = worker.ended().unwrap_err();
    assert_eq!(line, "root does not know the key of this cluster");
    // To a root, again.
    let (address, said) = fake(answered);
    let error = logits(&file, &options(vec![address.clone()], &keys), &prompt).unwrap_err();
    assert!(error.starts_with(&format!("worker {address} does not accept this cluster key")), "{error}");
    assert_eq!(said.join().unwrap().len(), CALL.len() + MESSAGE);
    assert!(logits(&file, &options(vec![worker.as_address()], &keys), &prompt).is_ok());
}

/// A bit that is changed on its way, whichever it is, costs a new session, and changes no logits.
#[test]
fn what_is_spoiled_on_its_way_is_not_computed_with() {
    let file = File::new(40);
    let (model, prompt) = (file.model(), tokens(40, 24, 100));
    let want = file.logits(&prompt);
    let keys = Keys::from(key());
    let relays = [(); 2].map(|()| Relay::to(&worker(&file.path, &keys, PATIENT).as_address()));
    let options = options(relays.iter().map(|relay| relay.address.clone()).collect(), &keys);
    let losses = AtomicUsize::new(0);
    let hear = |stage: net::Stage<'_>| {
        if matches!(stage, net::Stage::Lost(_)) {
            losses.fetch_add(1, Ordering::Relaxed);
        }
    };
    let got = with_root(&model, &options, &hear, |root| {
        let mut rows = Vec::new();
        for (position, token) in prompt.iter().enumerate() {
            if position % 6 == 5 {
                relays[position / 6 % 2].spoil();
            }
            root.session()?;
            root.forward(&[*token], position as u32, Logits::Last)?;
            rows.push(root.logits().to_vec());
        }
        Ok::<_, RootError>(rows)
    });
    run::assert_same_bits(&got.unwrap(), &want, "logits where links spoil what they carry");
    assert!(losses.load(Ordering::Relaxed) > 0, "nothing was spoiled");
}

/// Somebody who answers a call with `words`, whatever is said to him: all that is.
fn fake(words: Vec<u8>) -> (Address, JoinHandle<Vec<u8>>) {
    let (listener, questions, address) = relay::door();
    let thread = thread::spawn(move || {
        let (_, from) = questions.recv_from(&mut [0; 64]).unwrap();
        questions.send_to(&GREETING, from).unwrap();
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(&words).unwrap();
        let mut said = Vec::new();
        // How the root hangs up, is up to the system.
        let _ = stream.read_to_end(&mut said);
        said
    });
    (address, thread)
}

/// Whoever stands between and says that there is no key, or another kind of handshake, hears nothing more.
#[test]
fn a_root_with_a_key_says_nothing_without_it() {
    let (file, keys) = (File::new(32), Keys::from(key()));
    let mut have = Vec::new();
    write_have(&mut have, &Have { version: dair_core::wire::native::VERSION, ..Have::default() }).unwrap();
    for (kind, words) in [(PLAIN, "has no key"), (2, "a kind of handshake that this dair does not know")] {
        let (address, said) = fake([&GREETING[..], &[kind], &have].concat());
        let error = logits(&file, &options(vec![address.clone()], &keys), &[1]).unwrap_err();
        assert!(error.starts_with(&format!("worker {address} ")) && error.contains(words), "{error}");
        assert_eq!(said.join().unwrap(), CALL);
    }
    // One without a key does not try.
    let (address, said) = fake([&SECURED_GREETING[..], &have].concat());
    let error = logits(&file, &options(vec![address], &Keys::default()), &[1]).unwrap_err();
    assert!(error.contains("wants the key of its cluster"), "{error}");
    assert_eq!(said.join().unwrap(), CALL);
}

#[test]
fn a_stranger_hears_a_greeting_and_nothing_more_whatever_he_says() {
    let (file, keys) = (File::new(33), Keys::from(key()));
    let worker = worker(&file.path, &keys, HASTY);
    let mut random = Random::new(33);
    let mut noise = |len: usize| (0..len).map(|_| random.next_u64() as u8).collect::<Vec<u8>>();
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let greeted = &SECURED_GREETING[..];
    let words = [
        ([&CALL[..], &noise(MESSAGE)].concat(), greeted),
        ([&CALL[..], &noise(5000)].concat(), greeted),
        ([&CALL[..], &[0; MESSAGE]].concat(), greeted),
        ([&CALL[..], &noise(20)].concat(), greeted),
        (CALL.to_vec(), greeted),
        // What a root without a key says: a plan, the wish for a digest.
        ([&CALL[..], &frame(&[2; 100])].concat(), greeted),
        ([&CALL[..], &frame(&[&[12][..], &[0; 32]].concat())].concat(), greeted),
        ([&LINK[..], &noise(MESSAGE)].concat(), &[]),
        ([&LINK[..], &frame(&[&[7][..], &[0; 20]].concat())].concat(), &[]),
        (noise(100), &[]),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[]),
        // C++ Distributed-Llama.
        ([1u32.to_le_bytes(), 0u32.to_le_bytes()].concat(), &[]),
        (Vec::new(), &[]),
    ];
    for (words, want) in words {
        assert_eq!(answer_to(&worker, &words), want, "{:?}", &words[..words.len().min(20)]);
        worker.ended().unwrap_err();
    }
    let called = native::call(&[worker.as_address()], (&PATIENT, &keys), |_| ()).unwrap();
    assert_eq!(called[0].as_ref().unwrap().have.models.len(), 1);
}

/// Nobody who stops in the middle of a handshake, or drips, is waited for longer than a handshake may take.
#[test]
fn a_handshake_that_stops_or_drips_is_given_up() {
    let (file, keys) = (File::new(34), Keys::from(key()));
    let worker = worker(&file.path, &keys, HASTY);
    let started = [&CALL[..], &[7; 10]].concat();
    let start = Instant::now();
    let mut stream = worker.connect();
    stream.write_all(&started).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, SECURED_GREETING);
    assert_eq!(worker.ended().unwrap_err(), "root: no data for 0.4 s during the handshake");
    let mut stream = worker.connect();
    stream.write_all(&started).unwrap();
    for _ in 0..MESSAGE {
        thread::sleep(Duration::from_millis(100));
        if stream.write_all(&[7]).is_err() {
            break;
        }
    }
    let line = worker.ended().unwrap_err();
    assert!(line.starts_with("root: only ") && line.ends_with(" s during the handshake"), "{line}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// A connection from an address of loopback, where the system has more than one of them.
fn connect_from(ip: [u8; 4], worker: SocketAddr) -> Option<TcpStream> {
    if !cfg!(target_os = "linux") {
        return TcpStream::connect(worker).ok();
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((ip, 0)).into()).ok()?;
    socket.connect(&worker.into()).ok()?;
    Some(socket.into())
}

/// Connections without end from many addresses, of all kinds of strangers, while a session runs: its bits stay the same, and whoever
/// knows the key is still answered.
#[test]
fn a_flood_of_strangers_disturbs_no_session() {
    let file = File::new(35);
    let (prompt, keys) = (tokens(35, 100, file.case.header.vocab_size), Keys::from(key()));
    let want = file.logits(&prompt);
    let workers = [worker(&file.path, &keys, PATIENT), worker(&file.path, &keys, PATIENT)];
    let options = options(workers.iter().map(Worker::as_address).collect(), &keys);
    let (is_over, flooded) = (AtomicBool::new(false), workers[0].address);
    let flood = &|kind: u8| {
        let mut open = Vec::new();
        for n in (0..=u8::MAX).cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
            let Some(mut stream) = connect_from([127, 0, 2 + kind, 1 + n % 40], flooded) else { continue };
            let words =
                [&[][..], &[0xff; 100], &CALL, &[&CALL[..], &[9; MESSAGE]].concat(), &[&LINK[..], &[1]].concat()];
            let _ = stream.write_all(words[usize::from(n) % words.len()]);
            // Half of them stay.
            open.extend(Some(stream).filter(|_| n % 2 == 0));
            open.truncate(100);
        }
    };
    thread::scope(|scope| {
        for kind in 0..2 {
            scope.spawn(move || flood(kind));
        }
        let result = with_root(&file.model(), &options, &|_| (), |root| {
            for _ in 0..20 {
                let mut rows = Vec::new();
                root.forward_each(&prompt, 0, |_, row| rows.push(row.to_vec()))?;
                run::assert_same_bits(&rows, &want, "in a flood");
                root.forward(&prompt[99..], 99, Logits::Last)?;
            }
            let called = native::call(&options.workers, (&PATIENT, &keys), |_| ()).unwrap();
            assert!(called[0].as_ref().unwrap().have.busy.contains("it has served root"));
            Ok::<_, RootError>(())
        });
        is_over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}
