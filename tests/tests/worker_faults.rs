//! Clients that are no proper root: each gets one clear line, and the worker serves the next one.

use dair_core::kernels::KvType;
use dair_core::wire::dllama::Control;
use dair_tests::golden::Case;
use dair_tests::random::Random;
use dair_tests::worker::{HASTY, PATIENT, Worker};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What a root says to one worker, for a model of which every part is small.
struct Script {
    bytes: Vec<u8>,
    /// Where configs and weights start, and the first control packet.
    node: usize,
    weights: usize,
    control: usize,
}

/// Handshake and network config of a network of two nodes.
const NETWORK: usize = 12;
const NODE: usize = NETWORK + 260;
/// Node config of the model below, and its weight records: see the documentation of the wire format.
const NODE_BYTES: usize = 7799;

impl Script {
    fn new() -> Self {
        let bytes = Case::open("llama_q40_q80_n2").root_bytes(0);
        let weights = NODE + NODE_BYTES;
        let first = Control { position: 0, batch: 12 }.emit();
        let end = [[0; 4], first[..4].try_into().unwrap(), first[4..].try_into().unwrap()].concat();
        let control = weights + bytes[weights..].windows(12).position(|window| window == end).unwrap() + 4;
        Self { bytes, node: NODE, weights, control }
    }

    /// Where `mark` stands.
    fn find(&self, mark: &str) -> usize {
        self.bytes.windows(mark.len()).position(|window| window == mark.as_bytes()).unwrap()
    }

    /// The script with the word at `at` replaced.
    fn with(&self, at: usize, word: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        bytes
    }
}

/// Says `bytes` to the worker, closes, and returns how the worker took it.
fn say(worker: &Worker, bytes: &[u8]) -> String {
    let stream = worker.connect();
    thread::scope(|scope| {
        // The worker may have hung up before it has heard everything.
        scope.spawn(|| (&stream).write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)));
        let mut answer = Vec::new();
        let _ = (&stream).read_to_end(&mut answer);
        assert!(answer.len() < 100_000);
    });
    worker.ended().map_or_else(|line| line, |summary| format!("fine: {} tokens", summary.tokens))
}

#[test]
fn every_fault_has_its_line_and_the_next_root_is_served() {
    let script = Script::new();
    let worker = Worker::patient();
    let op = script.find("block_cast_x\0");
    let random = |len: usize| {
        let mut random = Random::new(7);
        (0..len).map(|_| random.next_u64() as u8).collect::<Vec<u8>>()
    };
    let hello = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let stop = |control: Control| [&script.bytes[..script.control], &control.emit()].concat();
    let faults: Vec<(Vec<u8>, &str)> = vec![
        (random(64), "root: handshake: number of workers is "),
        (random(4096), "root: handshake: number of workers is "),
        (
            b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n".to_vec(),
            "root: handshake: number of workers is 542393671; allowed: 1 to 255",
        ),
        (Vec::new(), "root closed the connection during the handshake"),
        (hello(&[0, 0]), "root: handshake: number of workers is 0; allowed: 1 to 255"),
        (hello(&[1, 1]), "root: handshake: worker index is 1; allowed: 0 to 0"),
        (hello(&[2, 0, u32::MAX]), "root: handshake: peer 0: host length is 4294967295; allowed: 2 to 254"),
        (script.with(8, 1), "root: handshake: ACK is 1; it must be 23571114"),
        (script.with(NETWORK + 4, 257), "root: network config: batch size is 257; allowed: 1 to 256"),
        (script.with(NETWORK + 8, 3), "root: network config: number of nodes is 3; it must be 2"),
        (
            script.with(NETWORK + 12, 0x7fff_ffff),
            "root: network config: number of pipes is 2147483647; allowed: 1 to 5",
        ),
        (
            script.with(NETWORK + 56, u32::MAX),
            "root: network config: pipe 0: name length is 4294967295; allowed: 1 to 32",
        ),
        (script.with(op - 56, 9999), "root: node config: segment 1, op 0: op code is 9999; allowed: 0 to 16"),
        (script.with(op + 29, 9999), "root: node config: segment 1, op 0: output index is 9999; allowed: 0 to 26"),
        (script.with(op + 29, 4), "graph: op block_cast_x of layer 0: "),
        (script.with(script.weights, 0x7fff_ffff), "root: weights: name length is 2147483647; allowed: 0 to 32"),
        (script.with(script.weights + 4, u32::from_le_bytes(*b"blok")), "root: weights: blokk_matmul_q of layer 0: "),
        (
            script.with(script.weights + 4 + 15 + 4, 1 << 31),
            "root: weights: block_matmul_q of layer 0: offset is 2147483648; it must be 0",
        ),
        (
            script.with(script.weights + 4 + 15 + 4 + 12, 1),
            "root: weights: block_matmul_q of layer 0: number of bytes is 4294971904; allowed: 1 to 4608",
        ),
        (script.bytes[..script.weights + 1000].to_vec(), "root closed the connection during the transfer of weights"),
        (
            [&script.bytes[..script.weights], &[0; 4]].concat(),
            "root: weights: block_norm_0 of layer 0: number of bytes received is 0; it must be 512",
        ),
        (stop(Control { position: 0, batch: 1000 }), "root: control packet: batch size is 1000; allowed: 0 to 32"),
        (stop(Control { position: 100_000, batch: 1 }), "root: control packet: position is 100000; allowed: 0 to 255"),
        (stop(Control { position: 7, batch: 1 }), "root closed the connection during the broadcast of embeddings"),
        (script.bytes[..script.control].to_vec(), "root closed the connection during the wait for a forward pass"),
        (stop(Control::STOP), "fine: 0 tokens"),
    ];
    for (bytes, expected) in faults {
        let line = say(&worker, &bytes);
        assert!(line.starts_with(expected), "{line}, not {expected}");
        assert!(line.len() < 200 && !line.contains('\n'), "{line}");
        assert_eq!(say(&worker, &script.bytes), "fine: 20 tokens", "after: {line}");
    }
    assert_eq!(script.bytes[script.node..script.node + 4], script.bytes[8..12], "a node config starts with an ACK");
    assert!(peak_bytes() < 300 << 20, "{} bytes", peak_bytes());
}

/// Most memory that this process has had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

#[test]
fn a_silent_client_keeps_nobody_out_and_is_given_up() {
    let worker = Worker::start(HASTY, 1, KvType::default(), u64::MAX);
    let _silent = worker.connect();
    assert_eq!(say(&worker, &Script::new().bytes), "fine: 20 tokens");
    assert_eq!(worker.ended().unwrap_err(), "root: no data for 0.4 s during the handshake");
}

/// A connection from one of many addresses, where all of 127.0.0.0/8 is this machine, and else from the same one.
fn connect_from(ip: [u8; 4], worker: &Worker) -> TcpStream {
    if !cfg!(target_os = "linux") {
        return worker.connect();
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&worker.address.into()).unwrap();
    socket.into()
}

/// Whether the other side has not closed a connection on which it says nothing.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// More clients than there are places for an address and for all, silent or slow, for far longer than the test takes.
#[test]
fn hundreds_of_clients_that_say_nothing_or_little_keep_nobody_out() {
    let worker = Worker::patient();
    let script = Script::new();
    let silent: Vec<_> = (0..500).map(|n| connect_from([127, 0, 1, 1 + (n % 20) as u8], &worker)).collect();
    assert_eq!(say(&worker, &script.bytes), "fine: 20 tokens");
    let here = silent.iter().filter(|stream| is_open(stream)).count();
    assert!(here <= 128, "{here} silent clients are still heard");
    drop(silent);
    let slow: Vec<_> = (0..150).map(|_| worker.connect()).collect();
    for mut stream in &slow {
        // Those who had to make room have seen the end.
        let _ = stream.write_all(&[1]);
    }
    let start = Instant::now();
    let fine = (0..200).find(|_| {
        let line = say(&worker, &script.bytes);
        line == "fine: 20 tokens"
    });
    assert!(fine.is_some() && start.elapsed() < PATIENT.handshake, "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn a_second_root_is_turned_away_at_once_and_the_first_one_goes_on() {
    let worker = Worker::patient();
    let script = Script::new();
    let mut first = worker.connect();
    first.write_all(&script.bytes[..script.control]).unwrap();
    // It is inside when it is answered.
    first.read_exact(&mut [0; 4]).unwrap();
    let start = Instant::now();
    let mut second = worker.connect();
    // It may be turned away before it has said all.
    let _ = second.write_all(&script.bytes);
    let mut answer = Vec::new();
    let _ = second.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    first.write_all(&script.bytes[script.control..]).unwrap();
    assert_eq!(worker.ended().unwrap().tokens, 20);
    assert_eq!(say(&worker, &script.bytes), "fine: 20 tokens");
}

#[test]
fn a_client_that_drips_bytes_is_over_when_the_handshake_is() {
    let worker = Worker::start(HASTY, 1, KvType::default(), u64::MAX);
    let mut stream = worker.connect();
    let start = Instant::now();
    for byte in [2u8, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0].into_iter().chain([0]).chain([b'a'; 200]) {
        thread::sleep(Duration::from_millis(50));
        if stream.write_all(&[byte]).is_err() {
            break;
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_slow(&worker, "the handshake");
}

/// Checks that a session ended with a root that was not silent, but moved too little.
fn assert_slow(worker: &Worker, phase: &str) {
    let line = worker.ended().unwrap_err();
    assert!(line.starts_with("root: only ") && line.ends_with(&format!(" s during {phase}")), "{line}");
}

#[test]
fn a_root_that_drips_bytes_is_given_up_in_every_phase() {
    let script = Script::new();
    let worker = Worker::start(HASTY, 1, KvType::default(), u64::MAX);
    for (from, phase) in [
        (8, "the handshake"),
        (NETWORK, "the network config"),
        (NODE, "the node config"),
        (script.weights, "the transfer of weights"),
        (script.control + Control::BYTES, "the broadcast of embeddings"),
    ] {
        let mut stream = worker.connect();
        stream.write_all(&script.bytes[..from]).unwrap();
        for byte in script.bytes[from..].iter().take(100) {
            thread::sleep(Duration::from_millis(if phase == "the handshake" { 150 } else { 50 }));
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        assert_slow(&worker, phase);
    }
}

#[test]
fn a_root_that_falls_silent_is_given_up_in_every_phase_but_the_wait_for_its_next_pass() {
    let script = Script::new();
    let worker = Worker::start(HASTY, 1, KvType::default(), u64::MAX);
    let pass = script.control + Control::BYTES;
    for (until, phase) in [
        (8, "the handshake"),
        (NETWORK, "the network config"),
        (NETWORK + 100, "the network config"),
        (NODE + 100, "the node config"),
        (script.weights + 500, "the transfer of weights"),
        (pass + 100, "the broadcast of embeddings"),
        (pass + 12 * 512, "the exchange of partial sums"),
    ] {
        let mut stream = worker.connect();
        stream.write_all(&script.bytes[..until]).unwrap();
        assert_eq!(worker.ended().unwrap_err(), format!("root: no data for 0.4 s during {phase}"));
    }
    let mut stream = worker.connect();
    stream.write_all(&script.bytes[..script.control]).unwrap();
    thread::sleep(Duration::from_millis(1000));
    stream.write_all(&script.bytes[script.control..]).unwrap();
    assert!(worker.ended().is_ok(), "a chat's user may think for a while");
}

#[test]
fn a_worker_that_is_missing_from_the_mesh_is_named() {
    let worker = Worker::start(HASTY, 1, KvType::default(), u64::MAX);
    let ack = 23_571_114u32.to_le_bytes();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    // Worker 1 of 2: worker 0 should dial.
    let hello = [words(&[2, 1, 10]), b"127.0.0.1\0".to_vec(), words(&[1]), ack.to_vec()].concat();
    let mut stream = worker.connect();
    stream.write_all(&hello).unwrap();
    assert_eq!(
        worker.ended().unwrap_err(),
        "1 of the workers 127.0.0.1:1: no data for 0.4 s during the set-up of links"
    );
    // A second root in between speaks at once: it is not taken for worker 0.
    let mut stream = worker.connect();
    stream.write_all(&hello[..hello.len() - 4]).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    let mut stray = worker.connect();
    stray.write_all(&words(&[1, 0])).unwrap();
    thread::sleep(Duration::from_millis(50));
    stream.write_all(&ack).unwrap();
    assert_eq!(
        worker.ended().unwrap_err(),
        "1 of the workers 127.0.0.1:1: no data for 0.4 s during the set-up of links"
    );
}
