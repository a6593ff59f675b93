//! Machines that find each other: workers and a root in network namespaces on a bridge (Linux, as root).

use crate::model::{Files, header};
use crate::run::{CACHE, Outcome, dair, finish, without_key};
use dair_core::format::Header;
use dair_core::quant::DType;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A bridge and machines on it, which go away with this.
struct Network {
    name: String,
    /// A file that all machines have.
    key: String,
    machines: usize,
    workers: Vec<Child>,
}

impl Network {
    fn new(machines: usize, key: String) -> Self {
        // Names of links have 15 bytes.
        let network = Self { name: format!("dair{}", std::process::id()), key, machines, workers: Vec::new() };
        let name = &network.name;
        ip(&format!("link add {name} type bridge"));
        ip(&format!("link set {name} up"));
        for machine in 0..machines {
            let (space, link) = (network.space(machine), format!("{name}-{machine}"));
            ip(&format!("netns add {space}"));
            ip(&format!("link add {link} type veth peer name eth0 netns {space}"));
            ip(&format!("link set {link} master {name} up"));
            ip(&format!("-n {space} link set lo up"));
            ip(&format!("-n {space} link set eth0 up"));
            ip(&format!("-n {space} addr add 10.9.8.{}/24 dev eth0", machine + 1));
        }
        network
    }

    fn space(&self, machine: usize) -> String {
        format!("{}-n{machine}", self.name)
    }

    /// A program on a machine.
    fn on(&self, machine: usize, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        without_key(&mut command).args(["netns", "exec", &self.space(machine), program]).args(args);
        command.env("DAIR_CACHE", CACHE).env("DAIR_KEY_FILE", &self.key);
        command
    }

    /// Starts a worker and waits until it listens.
    fn work(&mut self, machine: usize, args: &[&str]) {
        let mut worker = self.on(machine, env!("CARGO_BIN_EXE_host-worker"), &[&["-t", "1"], args].concat());
        let mut worker = worker.stdout(Stdio::piped()).spawn().expect("ip starts");
        let mut line = String::new();
        BufReader::new(worker.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("listening on "), "{line:?}");
        self.workers.push(worker);
    }

    /// Bytes that a machine's link to the others has received.
    fn received(&self, machine: usize) -> u64 {
        let counter =
            self.on(machine, "cat", &["/sys/class/net/eth0/statistics/rx_bytes"]).output().expect("ip starts");
        String::from_utf8_lossy(&counter.stdout).trim().parse().expect("a number")
    }

    fn dair(&self, args: &[&str]) -> Outcome {
        finish(self.on(0, env!("CARGO_BIN_EXE_dair"), args), b"", args)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // It may have ended.
            let _ = worker.kill();
            let _ = worker.wait();
        }
        // The other end of a link goes with it.
        let links = (0..self.machines).map(|machine| format!("link del {}-{machine}", self.name));
        let spaces = (0..self.machines).map(|machine| format!("netns del {}", self.space(machine)));
        for args in links.chain(spaces).chain([format!("link del {}", self.name)]) {
            let _ = Command::new("ip").args(args.split(' ')).status();
        }
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip is installed");
    assert!(status.success(), "ip {args}");
}

#[test]
#[ignore = "makes network namespaces: needs Linux, root and iproute2"]
fn three_workers_are_found_without_an_address() {
    // Weights of some megabytes, of which nothing is to be seen on the network.
    let files = Files::with(&Header { weights: DType::Q40, hidden_dim: 32 << 10, ..header("tiny-llama") }, 3);
    let other = Files::new("tiny-llama", 4);
    let generate =
        ["generate", "-m", &files.model, "-p", "a day", "-n", "8", "--temperature", "0", "--ignore-eos", "-q"];
    let key = files.path("key");
    dair(&["key", "new", &key]).quiet_success();
    let mut network = Network::new(5, key);
    let alone = network.dair(&generate).quiet_success();
    for machine in 1..4 {
        network.work(machine, &["--model", &files.model]);
    }
    network.work(4, &["--model", &other.model, "--cluster", "another"]);
    let nodes = network.dair(&["nodes", "--json"]).json();
    let found: Vec<_> =
        nodes["nodes"].as_array().unwrap().iter().map(|node| node["address"].as_str().unwrap()).collect();
    assert_eq!(found, ["10.9.8.2:9990", "10.9.8.3:9990", "10.9.8.4:9990"]);
    let before = [1, 2, 3].map(|machine| network.received(machine));
    let shared = ["--discover", "--shares", "1,1,1,1", "--json"];
    let report = network.dair(&[&generate[..generate.len() - 1], &shared].concat()).json();
    assert_eq!(report["text"].as_str().unwrap().trim_end(), alone.trim_end());
    let file_bytes = std::fs::metadata(&files.model).unwrap().len();
    for (machine, before) in [1, 2, 3].into_iter().zip(before) {
        let bytes = network.received(machine) - before;
        assert!(bytes < file_bytes / 8, "{bytes} bytes of a file of {file_bytes} reached machine {machine}");
    }
    assert!(report["network"]["sent_bytes_per_token"].as_f64().unwrap() > 0.0, "{report}");
    let verified = network.dair(&["verify", "-m", &files.model, "--discover"]).quiet_success();
    assert_eq!(verified.matches("  same\n").count(), 3, "{verified}");
    let other = network.dair(&["verify", "-m", &files.model, "--cluster", "another"]);
    assert_eq!(other.stderr, "error: 1 of 1 workers do not have this file\n", "{other:?}");
    // Without IPv4, by the addresses that links give themselves.
    for machine in 0..2 {
        ip(&format!("-n {} addr flush dev eth0 scope global", network.space(machine)));
    }
    network.work(1, &["--model", &files.model, "--host", "::", "--port", "9991", "--cluster", "six"]);
    assert_eq!(network.dair(&[&generate[..], &["--cluster", "six"]].concat()).quiet_success(), alone);
}
