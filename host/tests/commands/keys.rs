//! The key of a cluster: how it is made and found, and who is let in with which.

use crate::model::{Files, header};
use crate::network::Worker;
use crate::run::{Outcome, dair, dair_knowing, host_worker, host_worker_knowing};
use dair_core::format::Header;
use dair_core::quant::DType;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

fn files() -> Files {
    Files::with(&Header { weights: DType::Q40, ..header("tiny-llama") }, 2)
}

/// Makes a key beside the files: its path, its text without the end of the line, its fingerprint.
fn key(files: &Files, name: &str) -> (String, String, String) {
    let path = files.path(name);
    let line = dair(&["key", "new", &path]).quiet_success();
    let fingerprint = line.strip_suffix(&format!("  {path}\n")).unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (path.clone(), fs::read_to_string(&path).unwrap().trim_end().to_owned(), fingerprint)
}

fn generate(files: &Files, args: &[&str]) -> Outcome {
    let common = ["generate", "--model", &files.model, "--prompt", "a day at the sea", "--max-tokens", "16"];
    dair(&[&common[..], &["--temperature", "0", "--ignore-eos", "-q"], args].concat())
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_key_is_in_a_new_file_that_nobody_else_may_read() {
    let files = files();
    let (path, text, fingerprint) = key(&files, "a.key");
    assert_eq!((mode(&path), text.len(), text.starts_with("dair-key-1:")), (0o600, 75, true));
    assert!(!text.contains(&fingerprint));
    let (_, other, _) = key(&files, "b.key");
    assert_ne!(text, other);
    dair(&["key", "new", &path]).refused(&[&path, "is there already"]);
    assert_eq!(fs::read_to_string(&path).unwrap().trim_end(), text);
    dair(&["key", "new", "/proc/no/key"]).refused(&["/proc/no/key"]);
    let shown = dair(&["key", "show", "--key", &path]).quiet_success();
    assert_eq!(shown, format!("{fingerprint}  {path}  calls and is accepted\n"));
}

#[test]
fn a_key_without_a_name_is_where_it_is_looked_for() {
    let files = files();
    let (home, path) = (files.path("config"), files.path("config/dair/key"));
    let knowing = |args: &[&str]| dair_knowing(&[("XDG_CONFIG_HOME", &home)], args);
    knowing(&["key", "show"]).refused(&["there is no key", "dair key new"]);
    let line = knowing(&["key", "new"]).quiet_success();
    assert!(line.ends_with(&format!("  {path}\n")), "{line}");
    assert_eq!((mode(&path), mode(&files.path("config/dair"))), (0o600, 0o700));
    assert!(knowing(&["key", "show"]).quiet_success().starts_with(line.trim_end()));
}

#[test]
fn the_first_place_that_has_a_key_counts() {
    let files = files();
    let (_, a_text, a_print) = key(&files, "a.key");
    let (b, _, b_print) = key(&files, "b.key");
    let (c, _, c_print) = key(&files, "c.key");
    let (_, _, d_print) = key(&files, "service/dair-key");
    let (_, _, e_print) = key(&files, "config/dair/key");
    let (credentials, config, empty) = (files.path("service"), files.path("config"), files.path("empty"));
    let all = [
        ("DAIR_KEY", &a_text[..]),
        ("DAIR_KEY_FILE", &b),
        ("CREDENTIALS_DIRECTORY", &credentials),
        ("XDG_CONFIG_HOME", &config),
    ];
    let shown = |from: usize, args: &[&str]| {
        dair_knowing(&all[from..], &[&["key", "show"], args].concat())
            .quiet_success()
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(shown(0, &["--key", &c]), c_print);
    assert_eq!([0, 1, 2, 3].map(|from| shown(from, &[])), [&a_print, &b_print, &d_print, &e_print].map(Clone::clone));
    let (nothing, gone) = (("DAIR_KEY", ""), ("CREDENTIALS_DIRECTORY", &empty[..]));
    let line = dair_knowing(&[nothing, gone, all[3]], &["key", "show"]).quiet_success();
    assert!(line.starts_with(&e_print), "{line}");
    // What is named must be there.
    dair_knowing(&[("DAIR_KEY_FILE", &empty), all[3]], &["key", "show"]).refused(&[&empty, "No such file"]);
    dair_knowing(&[("DAIR_KEY", "secret"), all[3]], &["key", "show"]).refused(&["DAIR_KEY", "line 1", "dair-key-1:"]);
    // systemd sees to who reads its credentials.
    set_mode(&files.path("service/dair-key"), 0o440);
    assert_eq!(shown(2, &[]), d_print);
    // What units put there where the machine has no key; a file that has lost its key is something else.
    fs::write(files.path("service/dair-key"), "none").unwrap();
    assert_eq!(shown(2, &[]), e_print);
    fs::write(files.path("service/dair-key"), "").unwrap();
    dair_knowing(&all[2..], &["key", "show"]).refused(&["dair-key", "no key in it"]);
}

#[test]
fn a_file_that_is_no_key_or_that_others_may_read_is_refused_by_name() {
    let files = files();
    let (path, text, _) = key(&files, "key");
    for wrong in [0o640, 0o604, 0o660] {
        set_mode(&path, wrong);
        dair(&["key", "show", "--key", &path]).refused(&["others may read", &format!("chmod 600 {path}")]);
    }
    let workers = ["--workers", "127.0.0.1:1", "--key", &path];
    generate(&files, &workers).refused(&[&format!("chmod 600 {path}")]);
    dair(&[&["nodes"], &workers[..]].concat()).refused(&[&format!("chmod 600 {path}")]);
    dair(&[&["verify", "-m", &files.model], &workers[..]].concat()).refused(&[&format!("chmod 600 {path}")]);
    dair(&[&["plan", "-m", &files.model], &workers[..]].concat()).refused(&[&format!("chmod 600 {path}")]);
    host_worker(&["--key", &path, "--port", "0"]).refused(&[&format!("chmod 600 {path}")]);
    // Who works alone needs no key.
    generate(&files, &workers[2..]).quiet_success();
    set_mode(&path, 0o600);
    for (wrong, part) in [("", "no key in it"), ("\u{0}\n", "line 1"), (&text[1..], "line 1")] {
        fs::write(&path, wrong).unwrap();
        let outcome = dair(&["key", "show", "--key", &path]);
        assert!(wrong.is_empty() || !outcome.stderr.contains(wrong), "{outcome:?}");
        outcome.refused(&[&path, part]);
    }
    let three = ["1", "2", "3"].map(|name| key(&files, name).0);
    let args = ["key", "show", "--key", &three[0], "--key", &three[1], "--key", &three[2]];
    dair(&args).refused(&["more than 2 keys"]);
    dair(&args[..6]).quiet_success();
}

#[test]
fn a_worker_without_a_key_listens_on_loopback_unless_told_otherwise() {
    let files = files();
    let (key, ..) = key(&files, "key");
    let quiet = ["--no-announce", "--quiet"];
    for host in ["0.0.0.0", "::"] {
        let args = [&["--host", host, "--port", "0"], &quiet[..]].concat();
        host_worker(&args).refused(&["without a key", "loopback", host, "dair key new", "--insecure"]);
    }
    let anywhere = |args: &[&str]| {
        let worker = Worker::start_anywhere(&[&["--no-announce"], args].concat());
        let host = worker.address.rsplit_once(':').unwrap().0.to_owned();
        (host, worker.stop())
    };
    let (host, said) = anywhere(&[]);
    assert_eq!((&host[..], said.lines().count()), ("127.0.0.1", 1), "{said}");
    assert!(said.contains("no key: only this machine") && said.contains("dair key new"), "{said}");
    assert_eq!(anywhere(&["--key", &key]), ("0.0.0.0".into(), String::new()));
    // A key is used, whatever else is said.
    assert_eq!(anywhere(&["--key", &key, "--insecure"]), ("0.0.0.0".into(), String::new()));
    let (host, said) = anywhere(&["--insecure"]);
    assert_eq!((&host[..], said.lines().count()), ("0.0.0.0", 1), "{said}");
    assert!(said.starts_with("warning: --insecure: ") && said.contains("nothing is encrypted"), "{said}");
    let (host, said) = anywhere(&["--host", "0.0.0.0", "--dialect", "dllama"]);
    assert_eq!((&host[..], said.lines().count()), ("0.0.0.0", 1), "{said}");
    assert!(said.starts_with("warning: --dialect dllama: ") && said.contains("nothing is encrypted"), "{said}");
    assert_eq!(anywhere(&["--dialect", "dllama"]).0, "127.0.0.1");
    host_worker(&["--dialect", "cpp"]).misused(&["--dialect", "cpp", "native", "dllama"]);
}

#[test]
fn with_a_key_on_all_nodes_answers_are_those_of_one_node() {
    let files = files();
    let (key, _, fingerprint) = key(&files, "key");
    let mut workers = [(); 3].map(|()| Worker::start_with(&["--model", &files.model, "--key", &key]));
    let line = workers[0].line_with("key ");
    assert_eq!(line, format!("key {fingerprint} of {key}"));
    let mut with = vec!["--key", &key, "--workers"];
    with.extend(workers.iter().map(|worker| &worker.address[..]));
    let text = generate(&files, &[]).quiet_success();
    let shared = [&with[..], &["--shares", "1,1,1,1"]].concat();
    assert_eq!(generate(&files, &shared).quiet_success(), text);
    let perplexity = |args: &[&str]| {
        let common = ["perplexity", "--model", &files.model, "--prompt", "a day at the sea", "--json"];
        dair(&[&common[..], args].concat()).json()["perplexity"].clone()
    };
    assert_eq!(perplexity(&shared), perplexity(&[]));
    let nodes = dair(&[&["nodes", "--json"], &with[..]].concat()).json();
    assert_eq!(nodes["nodes"][2]["models"][0]["name"], "m.m");
    let verified = dair(&[&["verify", "-m", &files.model], &with[..]].concat()).quiet_success();
    assert_eq!(verified.matches("  same\n").count(), 3, "{verified}");
    dair(&[&["plan", "--json", "-m", &files.model], &with[..]].concat()).json();
}

#[test]
fn whoever_has_another_key_or_none_is_told_so_in_one_line() {
    let files = files();
    let ((one, text, _), (other, ..)) = (key(&files, "one"), key(&files, "other"));
    let (locked, open) =
        (Worker::start_with(&["--model", &files.model, "--key", &one]), Worker::start_with(&["--model", &files.model]));
    let with = |worker: &Worker, args: &[&str]| generate(&files, &[&["--workers", &worker.address], args].concat());
    with(&locked, &[]).refused(&[&locked.address, "wants the key", "--key"]);
    with(&locked, &["--key", &other]).refused(&[&locked.address, "does not accept this cluster key", "fingerprint"]);
    with(&open, &["--key", &one]).refused(&[&open.address, "has no key", "dair key show"]);
    let nodes = dair(&["nodes", "--workers", &locked.address]);
    assert_eq!(nodes.code, Some(1));
    assert!(nodes.stdout.contains("wants the key") && !nodes.stdout.contains("m.m"), "{nodes:?}");
    with(&open, &[]).quiet_success();
    let said = locked.stop();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("does not know the key of this cluster")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("no session: root 127.0.0.1:"), "{said}");
    // Over and over, in the environment of both.
    let knowing = [("DAIR_KEY", &text[..])];
    host_worker_knowing(&[("DAIR_KEY", "nonsense")], &["--port", "0"]).refused(&["DAIR_KEY"]);
    let locked = Worker::start_with(&["--model", &files.model, "--key", &one]);
    let args = ["generate", "-m", &files.model, "-p", "a", "-n", "2", "-q", "--workers", &locked.address];
    dair_knowing(&knowing, &args).quiet_success();
}

#[test]
fn two_keys_are_accepted_at_a_time() {
    let files = files();
    let ((old, old_text, _), (new, new_text, _), (other, ..)) =
        (key(&files, "old"), key(&files, "new"), key(&files, "other"));
    let both = files.write("both", format!("# until all have it\n{new_text}\n{old_text}\n").as_bytes());
    set_mode(&both, 0o600);
    // Workers that call each other by the old key, and by the new one.
    let workers = [
        Worker::start_with(&["--model", &files.model, "--key", &old, "--key", &new]),
        Worker::start_with(&["--model", &files.model, "--key", &both]),
        Worker::start_with(&["--model", &files.model, "--key", &old, "--key", &new]),
    ];
    let mut with = vec!["--shares", "1,1,1,1", "--workers"];
    with.extend(workers.iter().map(|worker| &worker.address[..]));
    let text = generate(&files, &[]).quiet_success();
    for key in [&old, &new, &both] {
        assert_eq!(generate(&files, &[&with[..], &["--key", key]].concat()).quiet_success(), text, "{key}");
    }
    generate(&files, &[&with[..], &["--key", &other]].concat()).refused(&["does not accept this cluster key"]);
    let shown = dair(&["key", "show", "--key", &both]).quiet_success();
    assert_eq!((shown.lines().count(), shown.contains("  is accepted\n")), (2, true), "{shown}");
}

#[test]
fn the_dialect_that_no_key_protects_is_spoken_only_if_both_sides_say_so() {
    let files = files();
    let (key, ..) = key(&files, "key");
    let closed = Worker::start_with(&["--model", &files.model]);
    let asked = format!("dllama://{}", closed.address);
    generate(&files, &["--workers", &asked]).refused(&[&closed.address, "--dialect dllama"]);
    let said = closed.stop();
    assert!(said.contains("is no root of dair") && said.contains("--dialect dllama"), "{said}");
    // Without a file it could only be sent the weights.
    let empty = Worker::start_with(&["--key", &key, "--dialect", "dllama"]);
    let args = ["--key", &key, "--workers", &empty.address];
    generate(&files, &args).refused(&[&empty.address, "no key protects", "--model", "dllama://"]);
    let asked = format!("dllama://{}", empty.address);
    generate(&files, &["--key", &key, "--workers", &asked]).quiet_success();
}

/// Hundreds of strangers leave a few lines, and the worker serves on.
#[test]
fn lines_about_strangers_are_few() {
    let files = files();
    let (key, ..) = key(&files, "key");
    let worker = Worker::start_with(&["--model", &files.model, "--key", &key]);
    for _ in 0..200 {
        let mut stranger = TcpStream::connect(&worker.address).unwrap();
        // It may have been hung up on.
        let _ = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stranger.read_to_end(&mut Vec::new());
    }
    generate(&files, &["--key", &key, "--workers", &worker.address]).quiet_success();
    let said = worker.stop();
    assert!((1..80).contains(&said.lines().count()), "{said}");
}
