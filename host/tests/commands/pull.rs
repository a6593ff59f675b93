//! `dair pull`, `list` and `rm`: from a server on loopback or a folder into a cache of the test's own, and on to an answer.

use crate::files::{Asked, FileServer, send};
use crate::model::Files;
use crate::published;
use crate::run::{Outcome, dair_knowing, host_worker_knowing, without_key};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A cache that nobody else uses.
struct Cache<'f> {
    files: &'f Files,
}

impl Cache<'_> {
    fn path(&self) -> String {
        self.files.path("cache")
    }

    fn dair(&self, args: &[&str]) -> Outcome {
        // Whoever runs the test may have a token.
        dair_knowing(&[("DAIR_CACHE", &self.path()), ("HF_TOKEN", "")], args)
    }

    /// A file of a model.
    fn file(&self, model: &str, name: &str) -> String {
        format!("{}/models/{model}/{name}", self.path())
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dair"));
        without_key(&mut command).args(args).env("DAIR_CACHE", self.path()).env("HF_TOKEN", "");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    fn listed(&self) -> Vec<Value> {
        self.dair(&["list", "--json"]).json()["models"].as_array().expect("a list").clone()
    }
}

/// A server of the folder with the files of the test.
fn serve(files: &Files) -> FileServer {
    let folder = files.path("");
    FileServer::new(move |_, asked, stream| {
        let path = Path::new(&folder).join(asked.path.trim_start_matches('/'));
        match fs::read(path) {
            Ok(bytes) => send(stream, asked.answer(&bytes, "\"v1\"")),
            Err(_) => send(stream, ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(), b"")),
        }
    })
}

/// What follows a successful run on standard output, and what it says besides.
fn success(outcome: Outcome) -> (String, String) {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    (outcome.stdout, outcome.stderr)
}

/// Lays the files out as the catalogue has them: the model in two parts.
fn mirror(files: &Files, base: &str) {
    let folder = Path::new(base).join("b4rtaz/Qwen3-14B-Q40-Distributed-Llama/resolve/main");
    fs::create_dir_all(&folder).unwrap();
    let model = fs::read(&files.model).unwrap();
    let (one, two) = model.split_at(model.len() / 3);
    fs::write(folder.join("dllama_model_qwen3_14b_q40_aa"), one).unwrap();
    fs::write(folder.join("dllama_model_qwen3_14b_q40_ab"), two).unwrap();
    fs::copy(&files.tokenizer, folder.join("dllama_tokenizer_qwen3_14b.t")).unwrap();
}

#[test]
fn a_model_of_the_catalogue_is_pulled_used_by_its_name_listed_and_removed() {
    let files = Files::new("tiny-llama", 40);
    let cache = Cache { files: &files };
    let (base, name) = (files.path("mirror"), "qwen3_14b_q40");
    mirror(&files, &base);
    let ask = ["generate", "-m", name, "--prompt", "a", "--max-tokens", "4", "--temperature", "0", "--quiet"];
    cache.dair(&ask).refused(&["qwen3_14b_q40 is not here", "dair pull qwen3_14b_q40", "10.9 GB", "Apache"]);
    cache.dair(&["list"]).json_free_of_models();

    let pull = ["pull", "qwen3-14b-q40", "--base", &format!("file://{base}")];
    let (stdout, stderr) = success(cache.dair(&pull));
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("qwen3_14b_q40: about 10.9 GB from file://"), "{stderr}");
    assert_eq!(lines[1], "licence: Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0");
    assert!(stdout.contains("qwen3_14b_q40: complete") && stdout.contains("BLAKE3 "), "{stdout}");
    assert_eq!(fs::read(cache.file(name, "qwen3_14b_q40.m")).unwrap(), fs::read(&files.model).unwrap());

    let expected = cache.dair(&[&["generate", "-m", &files.model], &ask[3..]].concat()).quiet_success();
    assert_eq!(cache.dair(&ask).quiet_success(), expected);
    cache.dair(&["inspect", "-m", name]).quiet_success();
    host_worker_knowing(&[("DAIR_CACHE", &cache.path())], &["--model", "qwen3_8b_q40"])
        .refused(&["dair pull qwen3_8b_q40"]);

    let listed = cache.listed();
    assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["state"]), (1, &name.into(), &"complete".into()));
    assert_eq!(listed[0]["files"][1]["parts"].as_array().map(Vec::len), Some(2));
    let text = cache.dair(&["list"]).quiet_success();
    assert!(text.contains("qwen3_14b_q40") && text.contains("Apache License 2.0"), "{text}");
    let text = cache.dair(&["list", "--catalogue"]).quiet_success();
    assert!(text.lines().any(|line| line.starts_with("qwen3_14b_q40 ") && line.contains("complete")), "{text}");

    cache.dair(&["rm", "nothing", name]).refused(&["no model nothing"]);
    assert_eq!(cache.dair(&["rm", name, name]).quiet_success().lines().count(), 1);
    assert_eq!(fs::read_dir(format!("{}/models", cache.path())).unwrap().count(), 0);
    cache.dair(&["rm", name]).refused(&["no model qwen3_14b_q40"]);
}

impl Outcome {
    /// Checks that the command listed nothing, and said how to change that.
    fn json_free_of_models(self) {
        assert_eq!((self.code, &self.stdout[..]), (Some(0), ""), "{self:?}");
        assert!(self.stderr.contains("dair list --catalogue"), "{self:?}");
    }
}

#[test]
fn what_is_here_is_compared_with_its_first_download_and_nobody_is_asked() {
    let files = Files::new("tiny-llama", 41);
    let (cache, server) = (Cache { files: &files }, serve(&files));
    let pull = ["pull", &format!("{}/m.m", server.url)[..]];
    let (_, stderr) = success(cache.dair(&pull));
    assert!(stderr.contains("licence: not known here"), "{stderr}");
    let asked = server.asked().len();
    let again = cache.dair(&pull).quiet_success();
    assert!(again.contains("was here already, and is whole"), "{again}");
    assert_eq!(server.asked().len(), asked);

    // One byte of it, with the times that it had.
    let path = cache.file("m", "m.m");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (stdout, stderr) = success(cache.dair(&pull));
    assert!(stderr.contains("m.m is damaged") && stdout.contains("m: complete"), "{stderr}{stdout}");
    assert_eq!(fs::read(&path).unwrap(), fs::read(&files.model).unwrap());

    // Another model under the same address, where the first one has to be fetched again.
    let other = Files::new("tiny-llama", 42);
    fs::copy(&other.model, &files.model).unwrap();
    fs::remove_file(&path).unwrap();
    cache.dair(&["inspect", "-m", "m"]).refused(&["m is not complete", "dair pull http", "--name m"]);
    let outcome = cache.dair(&pull);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("BLAKE3") && outcome.stderr.contains("dair rm m"), "{outcome:?}");
    cache.dair(&["rm", "m"]).quiet_success();
    success(cache.dair(&pull));
    cache.dair(&["pull", &format!("file://{}", files.model)]).refused(&["is here already", "--name"]);
}

#[test]
fn what_is_no_model_is_removed_and_what_is_not_there_leaves_nothing() {
    let files = Files::new("tiny-llama", 43);
    let (cache, server) = (Cache { files: &files }, serve(&files));
    let page = files.write("page.m", b"<!DOCTYPE html><html></html>");
    fs::copy(&files.tokenizer, page.replace(".m", ".t")).unwrap();
    let foreign =
        Files::with(&dair_core::format::Header { vocab_size: 5000, ..crate::model::header("tiny-llama") }, 44);
    for (url, words) in [
        (format!("{}/page.m", server.url), &["a web page", "was removed"][..]),
        (format!("{}/none.m", server.url), &["none.t", "no such file"]),
        (format!("file://{}/none.gguf", files.path("")), &["no such file"]),
        (format!("file://{}", foreign.model), &["288 tokens"]),
    ] {
        let tokenizer = format!("file://{}", files.tokenizer);
        let with = ["--tokenizer", &tokenizer[..]];
        let flags = if url.contains("/m.m") { &with[..] } else { &[] };
        let outcome = cache.dair(&[&["pull", &url][..], flags].concat());
        assert_eq!((outcome.code, &outcome.stdout[..]), (Some(1), ""), "{outcome:?}");
        let line = outcome.stderr.lines().last().expect("a line");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {outcome:?}");
        assert_eq!(cache.listed().len(), 0, "{url}");
    }
}

#[test]
fn a_published_model_is_pulled_and_converted_where_it_is_used() {
    let files = Files::new("tiny-llama", 45);
    let cache = Cache { files: &files };
    let gguf = files.path("x.gguf");
    published::write_gguf(gguf.as_ref());
    success(cache.dair(&["pull", &format!("file://{gguf}"), "--name", "small.one"]));
    let outcome = cache.dair(&["inspect", "-m", "small.one"]);
    assert!(outcome.code == Some(0) && outcome.stderr.contains("this once"), "{outcome:?}");
    cache.dair(&["inspect", "-m", "small.one"]).quiet_success();
    cache.dair(&["rm", "--yes", "small.one"]).quiet_success();
    // What it was converted to, too.
    assert_eq!(fs::read_dir(format!("{}/models", cache.path())).unwrap().count(), 0);
}

#[test]
fn a_pull_that_was_killed_goes_on_and_two_at_a_time_do_not_go() {
    let files = Files::new("tiny-llama", 46);
    let cache = Cache { files: &files };
    let (model, tokenizer) = (fs::read(&files.model).unwrap(), fs::read(&files.tokenizer).unwrap());
    let is_stuck = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&is_stuck);
    let half = model.len() / 2;
    let server = FileServer::new(move |_, asked, stream| {
        let bytes = if asked.path.ends_with(".t") { &tokenizer } else { &model };
        let (head, body) = asked.answer(bytes, "\"v1\"");
        let is_model = asked.path.ends_with(".m") && !asked.is_probe();
        if !is_model || !seen.load(Ordering::Relaxed) {
            return send(stream, (head, body));
        }
        // Half of it, and then nothing.
        send(stream, (head, &body[..body.len().min(half)]));
        while seen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let url = format!("{}/m.m", server.url);
    let mut first = cache.start(&["pull", &url]);
    // It records what it has every five seconds.
    let ledger = cache.file("m", "m.m.part.json");
    let start = Instant::now();
    while !fs::read_to_string(&ledger).is_ok_and(|text| text.contains(&format!("\"done\":[{half}]"))) {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is recorded");
        std::thread::sleep(Duration::from_millis(20));
    }
    cache.dair(&["pull", &url]).refused(&["another process is pulling or removing m"]);
    cache.dair(&["rm", "m"]).refused(&["another process is pulling or removing m"]);
    cache.dair(&["inspect", "-m", "m"]).refused(&["m is not complete"]);
    assert_eq!(cache.listed()[0]["state"], "unfinished");
    first.kill().unwrap();
    first.wait().unwrap();
    is_stuck.store(false, Ordering::Relaxed);
    let before = server.asked().len();
    let (_, stderr) = success(cache.dair(&["pull", &url]));
    assert!(stderr.contains("are here already"), "{stderr}");
    let rest = server.asked().split_off(before);
    let ranges: Vec<_> =
        rest.iter().filter(|asked| asked.path.ends_with(".m")).filter_map(|asked| asked.range).collect();
    assert_eq!(ranges, [(0, 1), (half as u64, fs::metadata(&files.model).unwrap().len())]);
    assert_eq!(fs::read(cache.file("m", "m.m")).unwrap(), fs::read(&files.model).unwrap());
}

#[test]
fn ctrl_c_keeps_what_has_come_and_an_unfinished_model_is_removed() {
    let files = Files::new("tiny-llama", 47);
    let cache = Cache { files: &files };
    let (model, tokenizer) = (fs::read(&files.model).unwrap(), fs::read(&files.tokenizer).unwrap());
    let come = model[..1000].to_vec();
    let server = FileServer::new(move |_, asked: &Asked, stream| {
        let (bytes, is_model) = if asked.path.ends_with(".t") { (&tokenizer, false) } else { (&model, true) };
        let (head, body) = asked.answer(bytes, "\"v1\"");
        if !is_model || asked.is_probe() {
            return send(stream, (head, body));
        }
        send(stream, (head, &body[..1000]));
        std::thread::sleep(Duration::from_secs(60));
    });
    let mut pull = cache.start(&["pull", &format!("{}/m.m", server.url)]);
    let start = Instant::now();
    while !fs::read(cache.file("m", "m.m.part")).is_ok_and(|bytes| bytes.starts_with(&come)) {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing has come");
        std::thread::sleep(Duration::from_millis(20));
    }
    crate::run::signal(&pull, "INT");
    assert_eq!(pull.wait().unwrap().code(), Some(130));
    let ledger = fs::read_to_string(cache.file("m", "m.m.part.json")).unwrap();
    assert!(ledger.contains("\"done\":[1000]"), "{ledger}");
    cache.dair(&["rm", "m"]).quiet_success();
    assert_eq!(cache.listed().len(), 0);
}
