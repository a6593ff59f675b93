//! What a worker tells programs that watch over it.

use crate::run::{CACHE, signal, without_key};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_worker_tells_programs_what_happens_and_systemd_when_it_is_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("notify");
    let system = UnixDatagram::bind(&place).expect("a socket");
    system.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-worker"));
    command.args(["--log", "json", "--dialect", "dllama", "--host", "127.0.0.1", "--port", "0", "--threads", "1"]);
    without_key(&mut command).env("DAIR_CACHE", CACHE).env("NOTIFY_SOCKET", &place);
    let mut worker = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let hear = || {
        let mut words = [0; 64];
        let len = system.recv(&mut words).expect("it tells the system");
        String::from_utf8_lossy(&words[..len]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    signal(&worker, "TERM");
    assert_eq!(hear(), "STOPPING=1");
    let lines = BufReader::new(worker.stdout.take().expect("piped")).lines();
    let events: Vec<Value> = lines.map(|line| serde_json::from_str(&line.expect("UTF-8")).expect("JSON")).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["listening", "leaving", "over"]);
    assert_eq!((&events[0]["level"], &events[0]["threads"]), (&"info".into(), &1.into()));
    assert!(events[0]["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{}", events[0]);
    assert_eq!(worker.wait().expect("it ends").code(), Some(0));
    let mut warning = String::new();
    BufReader::new(worker.stderr.take().expect("piped")).read_line(&mut warning).expect("UTF-8");
    let warning: Value = serde_json::from_str(&warning).expect("JSON");
    assert_eq!((&warning["level"], &warning["event"]), (&"warning".into(), &"exposed".into()));
}

#[test]
fn an_error_is_an_object_too() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-worker"));
    without_key(&mut command).args(["--log", "json", "--model", "nowhere.m"]);
    let done = command.output().expect("it ends");
    let error: Value = serde_json::from_slice(&done.stderr).expect("JSON");
    assert_eq!((&error["level"], &error["event"], done.status.code()), (&"error".into(), &"failed".into(), Some(1)));
    assert!(error["message"].as_str().is_some_and(|message| message.contains("nowhere.m")), "{error}");
}
