//! `dair setup`: the guide on a terminal and without one, with scripts that only say what they were asked for.

use crate::model::{Files, header};
use crate::network::Worker;
use crate::run::{Outcome, dair, dair_knowing};
use crate::screen::Screen;
use dair_core::format::Header;
use dair_core::quant::DType;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A model, scripts that are none, and a place for what is kept.
struct Place {
    files: Files,
    scripts: String,
    state: String,
    config: String,
}

impl Place {
    fn new() -> Self {
        let files = Files::with(&Header { weights: DType::Q40, ..header("tiny-llama") }, 2);
        let (scripts, state, config) = (files.path("scripts"), files.path("kept/setup.json"), files.path("config"));
        fs::create_dir(&scripts).expect("a folder");
        let place = Self { files, scripts, state, config };
        place.script("deploy_workers.sh", "echo \"deployed: $*\"");
        place.script("test_connection.sh", "echo \"tested: $*\"");
        place
    }

    /// Makes or replaces a script.
    fn script(&self, name: &str, text: &str) {
        let path = format!("{}/{name}", self.scripts);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// A configuration of a cluster with one worker, with more values.
    fn write_config(&self, worker: &Worker, more: &Value) -> String {
        let mut config = json!({
            "nodes": worker.address, "nodes_file": self.files.path("nodes"), "model": self.files.model,
            "key": self.files.path("key"), "remote_dir": "dair", "question": "a day",
        });
        let config = config.as_object_mut().expect("an object");
        config.extend(more.as_object().expect("an object").clone());
        self.files.write("config.json", Value::from(config.clone()).to_string().as_bytes())
    }

    fn setup(&self, args: &[&str]) -> Outcome {
        let common = ["setup", "--state", &self.state, "--scripts", &self.scripts];
        dair_knowing(&[("XDG_CONFIG_HOME", &self.config)], &[&common[..], args].concat())
    }

    fn screen(&self, args: &[&str]) -> Screen {
        let common = ["setup", "--state", &self.state, "--scripts", &self.scripts];
        let mut screen = Screen::new(&self.files.path("state"), &[&common[..], args].concat());
        screen.wait_to_show("q quit");
        screen
    }

    fn kept(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.state).expect("it is kept")).expect("JSON")
    }

    /// A worker that knows the key beside the files.
    fn worker(&self) -> Worker {
        let key = self.files.path("key");
        if !fs::exists(&key).expect("an answer") {
            dair(&["key", "new", &key]).quiet_success();
        }
        Worker::start_with(&["--key", &key, "--model", &self.files.model])
    }
}

#[test]
fn without_a_terminal_all_steps_are_done_and_only_once() {
    let place = Place::new();
    let worker = place.worker();
    let config = place.write_config(&worker, &json!({}));
    place.script("deploy_workers.sh", "echo no way >&2; exit 3");
    let outcome = place.setup(&["--yes", "--config", &config]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let error = "no way\nerror: the step deployment failed: deploy_workers.sh ended with exit code 3; the same command goes on there\n";
    assert_eq!(outcome.stderr, error);
    assert_eq!(place.kept()["current_step"], "deployment");
    assert_eq!(place.kept()["completed_steps"], json!(["nodes", "model", "key"]));

    place.script("deploy_workers.sh", "echo \"deployed: $*\"");
    let outcome = place.setup(&["--yes"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let (model, key, nodes) = (&place.files.model, place.files.path("key"), place.files.path("nodes"));
    for line in [
        "nodes: done before\nmodel: done before\nkey: done before\ndeployment: ",
        &format!("$ {}/deploy_workers.sh --model {model} --key {key} {nodes} dair\n", place.scripts),
        &format!("\ndeployed: --model {model} --key {key} {nodes} dair\n"),
        &format!("\ntested: --key {key} {nodes}\n"),
        &format!(
            "\n$ dair generate --model {model} --chat --prompt 'a day' --temperature 0 --nodes-file {nodes} --key {key}\n"
        ),
        &format!("\nWhat next:\n  dair chat --model {model} --nodes-file {nodes} --key {key}\n"),
    ] {
        assert!(outcome.stdout.contains(line), "{line:?} is missing in {}", outcome.stdout);
    }
    let text = fs::read_to_string(&nodes).expect("it was written");
    assert_eq!(text, format!("# Written by dair setup.\n{}\n", worker.address));
    // The answer is that of one node.
    let question = ["generate", "-m", model, "--chat", "-p", "a day", "--temperature", "0", "-q"];
    let answer = dair(&question).quiet_success();
    assert!(outcome.stdout.contains(answer.trim_end()), "{answer:?} is missing in {}", outcome.stdout);

    let again = place.setup(&["--yes"]).quiet_success();
    assert!(again.starts_with("nodes: done before\n") && again.contains("\nanswer: done before\n"), "{again}");
    let outcome = place.setup(&["--yes", "--again", "--config", &config]);
    assert!(outcome.stdout.contains("\ndeployed: ") && !outcome.stdout.contains("done before"), "{outcome:?}");
    // Another question, and nothing but that is done again.
    let config = place.write_config(&worker, &json!({ "question": "a night" }));
    let outcome = place.setup(&["--yes", "--config", &config]);
    assert!(outcome.stdout.contains("deployment: done before\nanswer: "), "{outcome:?}");
}

#[test]
fn a_machine_alone_needs_a_model_and_a_question() {
    let place = Place::new();
    let config = place.files.write("config.json", json!({ "model": place.files.model }).to_string().as_bytes());
    let outcome = place.setup(&["--yes", "--config", &config]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for name in ["nodes", "key", "deployment"] {
        assert!(outcome.stdout.contains(&format!("{name}: nothing to do, this machine works alone\n")), "{outcome:?}");
    }
    assert!(!fs::exists(format!("{}/dair/key", place.config)).expect("an answer"));
}

#[test]
fn a_key_is_made_where_there_is_none() {
    let place = Place::new();
    let config = json!({ "nodes": "10.0.0.2", "nodes_file": place.files.path("nodes"), "key": place.files.path("k"), "model": place.files.model });
    let config = place.files.write("config.json", config.to_string().as_bytes());
    let printed = place.setup(&["--dry-run", "--config", &config]).quiet_success();
    let want = format!("\n# key: who is let in\ndair key new {0}\n# deployment", place.files.path("k"));
    assert!(printed.contains(&want) && printed.contains("--model MODEL.m --key"), "{printed}");
    // Nothing was done by that.
    assert!(
        !fs::exists(&place.state).expect("an answer") && !fs::exists(place.files.path("nodes")).expect("an answer")
    );
    place.script("test_connection.sh", "exit 7");
    let outcome = place.setup(&["--yes", "--config", &config]);
    assert!(outcome.stderr.contains("test_connection.sh ended with exit code 7"), "{outcome:?}");
    let key = fs::metadata(place.files.path("k")).expect("a key").permissions();
    assert_eq!(key.mode() & 0o777, 0o600);
    assert!(place.setup(&["--dry-run"]).quiet_success().contains("\ndair key show --key "));
}

#[test]
fn what_can_not_be_used_is_one_line() {
    let place = Place::new();
    dair(&["setup"]).misused(&["needs a terminal", "--yes", "--dry-run"]);
    dair(&["setup", "--again"]).misused(&["--yes"]);
    place.setup(&["--yes", "--scripts", "/"]).misused(&["--scripts"]);
    dair(&["setup", "--yes", "--scripts", "/"]).misused(&["no deploy_workers.sh in /"]);
    let refused = |config: &str, parts: &[&str]| {
        let path = place.files.write("bad.json", config.as_bytes());
        place
            .setup(&["--yes", "--config", &path])
            .refused(&[&["cannot use the configuration ", "bad.json"], parts].concat());
    };
    refused("{", &["EOF"]);
    refused("[]", &["an object of JSON is needed"]);
    refused(r#"{"node": "a"}"#, &["\"node\" is no key", "nodes, nodes_file, model, key"]);
    refused(r#"{"nodes": 7}"#, &["nodes is 7", "text"]);
    refused(r#"{"nodes": "a b:x"}"#, &["\"x\" is not a port"]);
    refused(r#"{"model": "/no/such.m"}"#, &["there is no /no/such.m"]);
    place.setup(&["--yes", "--config", "/no/such.json"]).refused(&["/no/such.json", "No such file"]);
    fs::create_dir(place.files.path("kept")).expect("a folder");
    for (state, part) in
        [("{\"wiz", "EOF while parsing"), (r#"{"wizard_version": 9}"#, "is of version 9, and this dair knows 1")]
    {
        fs::write(&place.state, state).expect("a file");
        place.setup(&["--yes"]).refused(&[&place.state, part, "--state"]);
        assert_eq!(fs::read_to_string(&place.state).expect("it stays"), state);
    }
}

/// Runs the step of the page, which shows `sign`, and goes back.
fn run_step(screen: &mut Screen, sign: &str, word: &str) {
    screen.send("r");
    screen.wait_to_show(sign);
    screen.wait_to_show("Enter goes back to the guide.");
    screen.send("\r");
    screen.wait_to_show(word);
}

/// Does the first three steps of a cluster.
fn run_to_deployment(screen: &mut Screen) {
    run_step(screen, "workers of the cluster: 1", "Done: nodes.");
    run_step(screen, "node 0 (root)", "Done: model.");
    run_step(screen, "calls and is accepted", "Done: key.");
}

#[test]
fn a_terminal_leads_through_all_pages_and_is_given_back() {
    let place = Place::new();
    let worker = place.worker();
    let config = place.write_config(&worker, &json!({ "nodes": "", "question": "a night" }));
    let mut screen = place.screen(&["--config", &config]);
    screen.wait_until_hushed();
    screen.send(format!("e{}\r", worker.address));
    screen.wait_to_show("printf");
    run_to_deployment(&mut screen);
    run_step(&mut screen, "tested: ", "Done: deployment.");
    run_step(&mut screen, "dair chat --model ", "Everything works. q ends the guide.");
    screen.send("q");
    assert_eq!((screen.end(), screen.is_as_found()), (Some(0), true));
    // What steps have said is still there.
    assert!(screen.shown().contains("What next:"), "{}", screen.shown());
    assert_eq!(place.kept()["completed_steps"].as_array().map(Vec::len), Some(5));
    assert_eq!(place.kept()["config"]["nodes"], worker.address.as_str());
}

#[test]
fn who_is_killed_in_the_middle_goes_on_there() {
    let place = Place::new();
    let worker = place.worker();
    let config = place.write_config(&worker, &json!({}));
    place.script("deploy_workers.sh", "trap 'touch \"$0.ended\"; exit 143' TERM; echo begun; sleep 60 & wait");
    let mut screen = place.screen(&["--config", &config]);
    run_to_deployment(&mut screen);
    screen.send("r");
    screen.wait_to_show("begun");
    // A polite kill ends what it has started; what was done is kept.
    screen.signal("TERM");
    assert_eq!((screen.end(), screen.is_as_found()), (Some(130), true));
    assert!(fs::exists(format!("{}/deploy_workers.sh.ended", place.scripts)).expect("an answer"));

    place.script("deploy_workers.sh", "echo \"deployed: $*\"");
    let screen = place.screen(&[]);
    assert!(screen.shown().contains("deployment: ") && screen.shown().contains("This goes on where you were."));
    // No kindness: the file is what it was.
    drop(screen);
    assert_eq!(place.kept()["completed_steps"], json!(["nodes", "model", "key"]));
    let mut screen = place.screen(&[]);
    run_step(&mut screen, "deployed: ", "Done: deployment.");
    screen.send("\u{3}");
    assert_eq!((screen.end(), screen.is_as_found()), (Some(0), true));
    assert_eq!(place.kept()["completed_steps"], json!(["nodes", "model", "key", "deployment"]));
}

#[test]
fn a_failure_and_an_interrupt_are_told_and_a_wrong_value_stays_in_the_line() {
    let place = Place::new();
    let worker = place.worker();
    let config = place.write_config(&worker, &json!({}));
    let mut screen = place.screen(&["--config", &config]);
    screen.send("e@\r");
    screen.wait_to_show("is no");
    assert!(screen.shown().contains(&format!("{}@", worker.address)), "{}", screen.shown());
    screen.send("\u{1b}");
    screen.wait_to_show("q quit");
    screen.send("4r");
    screen.wait_to_show("the step nodes comes first");
    screen.send("1");
    run_to_deployment(&mut screen);
    place.script("deploy_workers.sh", "exit 5");
    run_step(&mut screen, "error: deploy_workers.sh ended with exit code 5", "exit code 5. r tries it again.");
    place.script("deploy_workers.sh", "echo begun; sleep 60");
    screen.send("r");
    screen.wait_to_show("begun");
    screen.send("\u{3}");
    assert_eq!((screen.end(), screen.is_as_found()), (Some(130), true));
    assert!(screen.shown().ends_with("interrupted"), "{}", screen.shown());
    assert_eq!(place.kept()["current_step"], "deployment");
}
