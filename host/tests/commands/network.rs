//! A root and workers as processes of their own, and peers that are none.

use crate::model::{Files, header};
use crate::run::{CACHE, Outcome, dair, host_worker, signal, without_key};
use dair_core::format::Header;
use dair_core::quant::DType;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Takes roots of C++ Distributed-Llama, and all that send weights.
const DLLAMA: [&str; 2] = ["--dialect", "dllama"];

/// A `host-worker` that ends with this.
pub struct Worker {
    process: Child,
    /// Where it listens.
    pub address: String,
}

impl Worker {
    /// Starts one without a model, which takes weights.
    pub fn start() -> Self {
        Self::start_with(&DLLAMA)
    }

    /// Starts one with more arguments.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_on("0", &[&["--host", "127.0.0.1"], args].concat())
    }

    /// Starts one that listens where it will.
    pub fn start_anywhere(args: &[&str]) -> Self {
        Self::start_on("0", args)
    }

    /// Starts one where another one was.
    pub fn start_at(address: &str) -> Self {
        let port = address.rsplit(':').next().expect("a port");
        Self::start_on(port, &[&["--host", "127.0.0.1"], &DLLAMA[..]].concat())
    }

    fn start_on(port: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-worker"));
        without_key(&mut command).args(["--port", port, "--threads", "1"]).args(args).env("DAIR_CACHE", CACHE);
        let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("host-worker starts");
        let mut worker = Self { process, address: String::new() };
        let line = worker.line_with("listening on ");
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
        worker.address = address.unwrap_or_else(|| panic!("{line:?} names no address")).to_owned();
        worker
    }

    /// Starts one whose standard output and standard error nobody reads any more.
    pub fn start_unread() -> Self {
        let mut worker = Self::start();
        drop((worker.process.stdout.take(), worker.process.stderr.take()));
        worker
    }

    /// The next line that it prints with `what` in it.
    pub fn line_with(&mut self, what: &str) -> String {
        let mut text = String::new();
        let stdout = self.process.stdout.as_mut().expect("piped");
        loop {
            let mut byte = [0];
            stdout.read_exact(&mut byte).expect("it prints such a line before it ends");
            match byte[0] {
                b'\n' if text.contains(what) => return text,
                b'\n' => text.clear(),
                other => text.push(other.into()),
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// Its exit code, when it has ended by itself.
    pub fn ends(mut self) -> Option<i32> {
        for _ in 0..1000 {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }

    /// Ends it and returns what it complained about.
    pub fn stop(mut self) -> String {
        self.process.kill().expect("it was running");
        let mut text = String::new();
        self.process.stderr.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        text
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After `stop` there is nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// F32 weights and exchanges: the sums of nodes differ in their last bits only.
fn files() -> Files {
    Files::with(&Header { weights: DType::F32, ..header("tiny-llama") }, 1)
}

fn generate(files: &Files, args: &[&str]) -> Outcome {
    let common = ["generate", "--model", &files.model, "--prompt", "a day at the sea", "--max-tokens", "16"];
    dair(&[&common[..], &["--temperature", "0", "--ignore-eos"], args].concat())
}

#[test]
fn a_root_with_workers_says_what_one_node_says() {
    let files = files();
    let alone = generate(&files, &["--json"]).json();
    for workers in [1, 3] {
        let workers: Vec<_> = (0..workers).map(|_| Worker::start()).collect();
        let addresses: Vec<_> = workers.iter().map(|worker| &worker.address[..]).collect();
        for round in 0..2 {
            let report = generate(&files, &[&["--json", "--workers"], &addresses[..]].concat()).json();
            assert_eq!(report["text"], alone["text"], "{} workers, round {round}", workers.len());
            let bytes = |name: &str| report["network"][name].as_f64().unwrap_or_default();
            assert!(bytes("sent_bytes_per_token") > 0.0 && bytes("received_bytes_per_token") > 0.0, "{report}");
        }
    }
}

/// A model of which products are quantised, and several commands beside each other.
#[test]
fn workers_with_a_copy_compute_what_one_node_computes_in_any_number_and_shares() {
    let files = Files::with(&Header { weights: DType::Q40, ..header("tiny-llama") }, 2);
    let perplexity = |args: &[&str]| {
        let common = ["perplexity", "--model", &files.model, "--prompt", "a day at the sea", "--json"];
        dair(&[&common[..], args].concat()).json()["perplexity"].clone()
    };
    let (alone, bits) = (generate(&files, &["--json"]).json(), perplexity(&[]));
    // Three nodes do not divide this model's heads, and five are more than its KV heads.
    for (workers, shares) in [(1, "1,1"), (2, "1,1,1"), (4, "1,1,1,1,1"), (2, "0,2,1")] {
        let workers: Vec<_> = (0..workers).map(|_| Worker::start_with(&["--model", &files.model])).collect();
        let mut args = vec!["--shares", shares];
        args.push("--workers");
        args.extend(workers.iter().map(|worker| &worker.address[..]));
        let report = generate(&files, &[&["--json"], &args[..]].concat()).json();
        assert_eq!(report["text"], alone["text"], "{args:?}");
        assert_eq!(perplexity(&args), bits, "{args:?}");
        let drawn = ["-q", "--temperature", "1.5", "--top-k", "20", "--seed", "3"];
        let draw = |more: &[&str]| dair(&[&["generate", "-m", &files.model, "-p", "a day"], &drawn[..], more].concat());
        assert_eq!(draw(&args).quiet_success(), draw(&[]).quiet_success(), "{args:?}");
    }
}

#[test]
fn workers_say_what_they_have() {
    let files = files();
    let (with, without) = (Worker::start_with(&["--model", &files.model]), Worker::start());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let list = dair(&["nodes", "--json", "--workers", &with.address, &without.address]).json();
    let node = |index: usize| &list["nodes"][index];
    assert_eq!((&node(0)["address"], &node(0)["threads"]), (&with.address.as_str().into(), &1.into()));
    let bytes = std::fs::metadata(&files.model).unwrap().len();
    assert_eq!((&node(0)["models"][0]["name"], &node(0)["models"][0]["bytes"]), (&"m.m".into(), &bytes.into()));
    assert!(node(0)["bytes_per_second"].as_u64().unwrap() > 1_000_000);
    assert_eq!((&node(1)["models"], &node(1)["bytes_per_second"]), (&serde_json::json!([]), &0.into()));
    let text = dair(&["nodes", "--workers", &with.address, &without.address]).quiet_success();
    assert!(text.starts_with("ADDRESS ") && text.contains("m.m") && text.contains("no model file"), "{text}");
    let isa = dair_host::machine::cpu::best_kernels().isa();
    assert_eq!((&node(0)["isa"], &node(0)["state"]), (&isa.name().into(), &"free".into()));
    // Those that answer are listed all the same.
    let outcome = dair(&["nodes", "--workers", &gone, &with.address]);
    assert_eq!((outcome.code, outcome.stdout.lines().count()), (Some(1), 3), "a heading and two workers: {outcome:?}");
    assert!(outcome.stdout.contains("no answer: not there"), "{outcome:?}");
    assert_eq!(outcome.stderr, "error: 1 of 2 workers can't be asked\n");
}

#[test]
fn workers_may_stand_in_a_file() {
    let files = files();
    let workers: Vec<_> = (0..2).map(|_| Worker::start_with(&["--model", &files.model])).collect();
    let [a, b] = [0, 1].map(|index: usize| &workers[index].address[..]);
    let list = files.write("nodes", format!("# two\n{a}\n\n{b} # the second\n").as_bytes());
    let text = generate(&files, &["-q"]).quiet_success();
    assert_eq!(generate(&files, &["-q", "--nodes-file", &list]).quiet_success(), text);
    let nodes = dair(&["nodes", "--json", "--nodes-file", &list]).json();
    assert_eq!((&nodes["nodes"][0]["address"], &nodes["nodes"][1]["address"]), (&a.into(), &b.into()));

    let list = files.write("nodes", format!("{a}\nb c\n").as_bytes());
    generate(&files, &["--nodes-file", &list]).refused(&[&format!("{list}:2: "), "\"b c\" is more than one word"]);
    generate(&files, &["--nodes-file", "no-such-file"]).refused(&["no-such-file"]);
    generate(&files, &["--nodes-file", &list, "--workers", a]).misused(&["--nodes-file", "--workers"]);
}

/// Over loopback: a worker that only this machine reaches is announced where a name of a cluster is given.
#[test]
fn workers_are_found_by_the_name_of_their_cluster() {
    let (files, other) = (files(), Files::new("tiny-llama", 9));
    let (cluster, nobody) = (format!("test-{}", std::process::id()), format!("nobody-{}", std::process::id()));
    let start = |model: &str| Worker::start_with(&["--model", model, "--cluster", &cluster]);
    let (with, another, other) = (start(&files.model), start(&files.model), start(&other.model));
    let discover = ["--cluster", &cluster];
    let mut addresses = [&with, &another, &other].map(|worker| worker.address.clone());
    addresses.sort_by_key(|address| address.rsplit(':').next().unwrap().parse::<u16>().unwrap());
    let nodes = dair(&[&["nodes", "--json"], &discover[..]].concat()).json();
    let found: Vec<_> =
        nodes["nodes"].as_array().unwrap().iter().map(|node| node["address"].as_str().unwrap()).collect();
    assert_eq!(found, addresses);

    let text = generate(&files, &["-q"]).quiet_success();
    assert_eq!(generate(&files, &[&["-q"], &discover[..]].concat()).quiet_success(), text);
    let outcome = generate(&files, &discover);
    let line = format!("left out: worker {} does not have this model; its m.m has ", other.address);
    assert_eq!((outcome.code, outcome.stderr.contains(&line)), (Some(0), true), "{outcome:?}");
    drop((with, another));
    let parts = ["no worker of the cluster", &cluster, "has this model"];
    generate(&files, &[&["-q"], &discover[..]].concat()).refused(&parts);

    dair(&["nodes", "--discover", "--cluster", &nobody]).refused(&["no worker of the cluster", &nobody, "5353"]);
    dair(&["nodes", "--discover", "--workers", "a"]).misused(&["--discover", "--workers"]);
    dair(&["nodes", "--cluster", "a b"]).misused(&["--cluster", "a b"]);
    dair(&["nodes", "--cluster", "a", "--workers", "a"]).misused(&["--cluster", "--workers"]);
    host_worker(&["--cluster", "a", "--no-announce"]).misused(&["--cluster", "--no-announce"]);
}

/// Of every node's file every byte counts, also those that no sample of a fingerprint sees.
#[test]
fn files_are_compared_byte_by_byte() {
    let large = Header { hidden_dim: 512 * 96, ..header("tiny-llama") };
    let (files, other) = (Files::with(&large, 1), Files::new("tiny-llama", 2));
    let mut bytes = std::fs::read(&files.model).unwrap();
    let digest = blake3::hash(&bytes).to_string();
    bytes[5000] ^= 1;
    let changed = files.write("changed.m", &bytes);
    let [same, changed, other] =
        [&files.model, &changed, &other.model].map(|model| Worker::start_with(&["--model", model]));
    let verify = |more: &[&str]| dair(&[&["verify", "-m", &files.model], more].concat());

    let alone = verify(&["--json"]).json();
    assert_eq!((&alone["blake3"], &alone["nodes"]), (&digest.as_str().into(), &serde_json::json!([])));
    let text = verify(&["--workers", &same.address]).quiet_success();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!((text.matches(&digest).count(), text.ends_with("  same\n")), (2, true), "{text}");

    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let all = ["--workers", &same.address, &changed.address, &other.address, &gone];
    let outcome = verify(&all);
    assert_eq!(outcome.stderr, "error: 2 of 4 workers do not have this file, 1 can't be compared\n");
    for part in ["DIFFERENT: its changed.m has the same size and header, but other content", "DIFFERENT: its m.m has"] {
        assert!(outcome.stdout.contains(part), "{outcome:?}");
    }
    let outcome = verify(&[&all[..], &["--json"]].concat());
    assert_eq!(outcome.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let said = |index: usize, what: &str| report["nodes"][index][what].clone();
    assert_eq!((said(0, "same"), said(0, "blake3")), (true.into(), digest.as_str().into()));
    assert_eq!((said(1, "differs"), said(1, "blake3")), ("content".into(), blake3::hash(&bytes).to_string().into()));
    assert_eq!((said(2, "differs"), said(2, "blake3")), ("size".into(), serde_json::Value::Null));
    assert!(said(3, "error").as_str().unwrap().starts_with("no answer"), "{report}");
    verify(&["--workers", &changed.address, "--timeout-s", "0"]).misused(&["--timeout-s"]);
    dair(&["verify", "-m", "no-such.m"]).refused(&["no-such.m"]);
}

#[test]
fn workers_of_two_kinds_are_not_mixed() {
    let files = files();
    let with = Worker::start_with(&[&["--model", &files.model], &DLLAMA[..]].concat());
    let without = Worker::start();
    let dllama = format!("dllama://{}", without.address);
    generate(&files, &["--workers", &with.address, &dllama]).misused(&[
        &with.address,
        &without.address,
        "one dialect",
        "before all or none",
    ]);
    // Those without a file speak both.
    let another = Worker::start();
    let outcome = generate(&files, &["--workers", &with.address, &without.address, &another.address]);
    let names = format!("worker {}, worker {}", without.address, another.address);
    let note = format!("{names}: no model file, so all workers are sent the weights\n");
    assert_eq!((outcome.code, outcome.stderr.contains(&note)), (Some(0), true), "{outcome:?}");
}

#[test]
fn a_worker_with_a_copy_may_be_sent_the_weights_all_the_same() {
    let files = files();
    let worker = Worker::start_with(&[&["--model", &files.model], &DLLAMA[..]].concat());
    let address = format!("dllama://{}", worker.address);
    let text = generate(&files, &["-q"]).quiet_success();
    assert_eq!(generate(&files, &["-q", "--workers", &address]).quiet_success(), text);
}

#[test]
fn what_does_not_fit_a_worker_with_a_copy_is_said_in_one_line() {
    let (files, other) = (files(), Files::new("tiny-llama", 9));
    let worker = Worker::start_with(&["--model", &other.model]);
    let parts = [&worker.address[..], "does not have this model", "--model", "dllama://"];
    generate(&files, &["--workers", &worker.address]).refused(&parts);
    let parts = ["3 shares given for 2 nodes"];
    generate(&other, &["--shares", "1,1,1", "--workers", &worker.address]).refused(&parts);
    generate(&other, &["--shares", "1,x", "--workers", &worker.address]).misused(&["--shares"]);
}

#[test]
fn workers_may_stand_between_commas() {
    let files = files();
    let workers: Vec<_> = (0..3).map(|_| Worker::start()).collect();
    let [a, b, c] = [0, 1, 2].map(|index: usize| &workers[index].address[..]);
    let text = generate(&files, &["-q"]).quiet_success();
    for list in [&[&format!("{a},{b},{c}")[..]][..], &[a, &format!("{b},{c}")]] {
        assert_eq!(generate(&files, &[&["-q", "--workers"], list].concat()).quiet_success(), text);
    }
}

#[test]
fn a_prompt_that_is_too_long_is_refused_before_anyone_is_called() {
    let files = files();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let text = "7".repeat(1000);
    for command in ["generate", "perplexity"] {
        dair(&[command, "-m", &files.model, "-p", &text, "--workers", &address]).refused(&["needs 1001 positions"]);
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody called");
}

#[test]
fn a_worker_that_does_not_answer_is_given_up_after_the_time_that_was_asked_for() {
    let files = files();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let parts = [&address[..], "did not answer the handshake for 1 s"];
    generate(&files, &["--timeout-s", "1", "--workers", &address]).refused(&parts);
}

#[test]
fn a_worker_without_memory_tells_the_root_why_it_refuses() {
    let files = files();
    let worker = Worker::start_with(&[&["--memory", "100KB"], &DLLAMA[..]].concat());
    let parts = [&worker.address[..], "refuses", "allowed: 0 bytes", "more workers", "--memory"];
    generate(&files, &["--workers", &worker.address]).refused(&parts);
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    host_worker(&["--host", "127.0.0.1", "--port", &port]).refused(&["127.0.0.1", &port, "in use"]);
}

#[test]
fn wrong_usage_of_a_worker_ends_with_two() {
    for (flag, value) in [("--port", "65536"), ("--threads", "0"), ("--timeout-s", "0"), ("--memory", "much")] {
        host_worker(&[flag, value]).misused(&[flag, value]);
    }
    host_worker(&["--model", "no-such.m"]).refused(&["no-such.m"]);
    host_worker(&["--model-dir", "/dev"]).refused(&["/dev", "no file that ends in .m"]);
}

#[test]
fn a_worker_explains_itself_with_examples() {
    let help = host_worker(&["--help"]).quiet_success();
    assert!(help.contains("Examples:\n  host-worker "), "{help}");
}

#[test]
fn a_worker_that_is_not_there_is_named() {
    let files = files();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    generate(&files, &["--workers", &gone]).refused(&[&gone, "nothing listens there"]);
    generate(&files, &["--workers", "no-such-host.invalid:9990"]).refused(&["no-such-host.invalid"]);
    generate(&files, &["--workers", "host:0:0"]).misused(&["host:0:0"]);
}

#[test]
fn a_number_of_nodes_that_does_not_divide_the_model_is_refused_before_anyone_is_called() {
    let files = files();
    let nobody = ["dllama://127.0.0.1:1", "dllama://127.0.0.1:2"];
    generate(&files, &[&["--workers"], &nobody[..]].concat()).refused(&["n_kv_heads 4", "3 equal parts"]);
}

#[test]
fn a_peer_that_speaks_nonsense_or_hangs_up_is_named() {
    let files = files();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = thread::spawn(move || listener.accept().expect("a root calls").0.write_all(answer));
        generate(&files, &["--workers", &address]).refused(&[&address]);
        peer.join().unwrap().expect("the root listens");
    }
}

#[test]
fn a_worker_survives_nonsense_and_names_its_source() {
    let files = files();
    let worker = Worker::start_with(&["--model", &files.model]);
    let mut noise = TcpStream::connect(&worker.address).unwrap();
    let source = noise.local_addr().unwrap().to_string();
    noise.write_all(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n").unwrap();
    // The worker hangs up; how, is up to the system.
    let _ = noise.read_to_end(&mut Vec::new());
    generate(&files, &["--quiet", "--workers", &worker.address]).quiet_success();
    let complaint = worker.stop();
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains(&source), "{complaint}");
}
