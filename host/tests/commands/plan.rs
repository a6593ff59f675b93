//! `dair plan`.

use crate::model::{Files, header};
use crate::network::Worker;
use crate::run::{Outcome, dair};
use dair_core::format::Header;
use dair_core::quant::DType;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A file with this content, gone with the folder.
fn written(content: &Value) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.json");
    std::fs::write(&path, content.to_string()).expect("a file");
    (folder, path.to_str().expect("UTF-8").to_owned())
}

fn simulate(content: &Value, args: &[&str]) -> Outcome {
    let (_folder, path) = written(content);
    dair(&[&["plan", "--simulate", &path], args].concat())
}

#[test]
fn published_figures_come_before_predictions_for_the_same_boards_and_both_are_labelled() {
    let boards = json!({ "model": "llama3-8b", "positions": 2048, "nodes": [{ "count": 4, "board": "pi5" }] });
    let text = simulate(&boards, &[]).quiet_success();
    let [published, simulated, table, sum] =
        ["published figures", "simulated", "4 nodes", "(predicted)"].map(|part| text.find(part).unwrap_or(usize::MAX));
    assert!(published < simulated && simulated < sum && table < usize::MAX && sum < usize::MAX, "{text}");
    let report = simulate(&boards, &["--json"]).json();
    assert_eq!(
        (&report["simulated"], &report["cut"], &report["nodes"][3]["stage"]),
        (&json!(true), &json!("rows"), &json!(0))
    );
    for figure in report["published"].as_array().unwrap() {
        let [ms, predicted] = ["ms", "predicted_ms"].map(|name| figure[name].as_f64().unwrap());
        assert!((predicted / ms - 1.0).abs() < 0.1, "{figure}");
    }
    let ours = report["predicted_ms"].as_f64().unwrap();
    assert!(ours > 80.0 && ours < report["other_ways_ms"]["alone"].as_f64().unwrap(), "{report}");
    // Another machine has no published figures.
    let other = json!({ "model": "llama3-8b", "nodes": [{ "speed_gb_per_s": 20, "memory_gb": 64 }] });
    let text = simulate(&other, &[]).quiet_success();
    assert!(!text.contains("published") && text.contains("simulated") && text.contains("all on the root"), "{text}");
}

#[test]
fn a_system_of_others_is_predicted_as_it_cuts() {
    let boards = |system, count| json!({ "model": "llama2-7b", "positions": 2048, "system": system, "nodes": [{ "count": count, "board": "pi4" }] });
    let report = simulate(&boards("dllama-0.1", 8), &["--json"]).json();
    assert_eq!(report["cut"], "star");
    assert!((report["predicted_ms"].as_f64().unwrap() / 588.0 - 1.0).abs() < 0.1, "{report}");
    assert_eq!(simulate(&boards("dllama-0.16", 4), &["--json"]).json()["cut"], "columns");
    simulate(&boards("dllama-0.16", 3), &[]).refused(&["3"]);
}

#[test]
fn a_thousand_nodes_are_planned_and_the_table_stays_short() {
    let speeds = (0..20).map(|index| json!({ "count": 50, "speed_gb_per_s": 5 + index, "memory_gb": 8 }));
    let cluster = json!({ "model": "llama3.1-405b", "positions": 8192, "nodes": speeds.collect::<Vec<_>>() });
    let text = simulate(&cluster, &[]).quiet_success();
    assert!(text.lines().count() < 60 && text.contains("have nothing to do"), "{text}");
    let report = simulate(&cluster, &["--json"]).json();
    assert_eq!(report["machines"], 1000);
    let layers: u64 = report["stages"].as_array().unwrap().iter().map(|stage| stage["layers"].as_u64().unwrap()).sum();
    assert_eq!(layers, 126);
}

#[test]
fn what_does_not_fit_or_makes_no_sense_is_said_in_one_line() {
    let small = json!({ "model": "llama3-8b", "nodes": [{ "count": 2, "speed_gb_per_s": 5, "memory_gb": 1 }] });
    simulate(&small, &[]).refused(&["2.0 GB", "--max-seq-len"]);
    let two = json!({ "model": "llama3.2-1b", "positions": 512, "nodes": [{ "count": 2, "board": "pi5" }] });
    simulate(&two, &["--shares", "1,1,1"]).misused(&["3 shares given for 2 nodes"]);
    simulate(&two, &["--shares", "0,0"]).refused(&["all shares of layers are 0"]);
    let one = json!({ "model": "llama3.2-1b", "positions": 512, "nodes": [{ "board": "pi5" }] });
    simulate(&one, &["--cut", "layers"]).refused(&["no plan of this kind"]);
    simulate(&json!({ "model": "no-such", "nodes": [{ "board": "pi5" }] }), &[]).refused(&["no-such", "llama3.1-405b"]);
    simulate(&json!({ "model": "llama3.2-1b", "nodes": [{ "bord": "pi5" }] }), &[]).refused(&["cluster.json", "bord"]);
    dair(&["plan"]).misused(&["--model"]);
    dair(&["plan", "--simulate", "a", "--save", "b"]).misused(&["--save"]);
    dair(&["plan", "--simulate", "no-such-file"]).refused(&["no-such-file"]);
}

#[test]
fn a_cut_that_is_asked_for_is_predicted() {
    let cluster = json!({ "model": "llama3-8b", "positions": 2048, "nodes": [{ "count": 4, "board": "pi5" }] });
    let ms = |args: &[&str], cut: &str| {
        let report = simulate(&cluster, &[&["--json"], args].concat()).json();
        assert_eq!(report["cut"], cut);
        report["predicted_ms"].as_f64().unwrap()
    };
    let best = ms(&[], "rows");
    assert_eq!(ms(&["--cut", "rows"], "rows"), best);
    assert!(ms(&["--cut", "layers"], "layers") > best);
    assert!(ms(&["--cut", "columns"], "columns") > 0.0);
    assert!(ms(&["--shares", "3,1,1,1"], "rows") > 1.5 * best);
}

fn files() -> Files {
    Files::with(&Header { weights: DType::Q40, ..header("tiny-llama") }, 3)
}

/// Small enough for one node to be best, whoever else is there.
#[test]
fn a_live_cluster_is_asked_and_its_plan_can_be_kept_and_taken() {
    let files = files();
    let workers = [(); 2].map(|()| Worker::start_with(&["--model", &files.model]));
    let [a, b] = workers.each_ref().map(|worker| &worker.address[..]);
    let saved = format!("{}.plan.json", files.model);
    let common = ["plan", "--json", "--model", &files.model, "--threads", "1"];
    let plan = |args: &[&str]| dair(&[&common[..], args].concat());
    let report = plan(&["--workers", a, b]).json();
    assert_eq!((&report["simulated"], &report["machines"]), (&json!(false), &json!(3)));
    let report = plan(&["--workers", a, b, "--cut", "rows", "--shares=2,1,1"]);
    report.misused(&["--cut", "--shares"]);
    let shares = plan(&["--shares", "2,1,1", "--save", &saved, "--workers", a, b]).json();
    assert_eq!((&shares["nodes"][0]["layers"], &shares["nodes"][1]["name"]), (&json!(2), &json!(a)));
    let taken = plan(&["--plan", &saved]).json();
    assert_eq!((&taken["nodes"][2]["name"], &taken["nodes"][0]["layers"]), (&json!(b), &json!(2)));
    let text = std::fs::read_to_string(&saved).unwrap().replace(a, b);
    std::fs::write(&saved, text).unwrap();
    plan(&["--plan", &saved]).refused(&["plan.json", "is there twice", "--save"]);
    plan(&["--cut", "columns", "--save", &saved, "--workers", a]).misused(&["columns"]);
    assert!(Path::new(&saved).exists());
}

#[test]
fn workers_that_can_not_take_part_are_named() {
    let (files, other) = (files(), Files::new("tiny-llama", 9));
    let worker = Worker::start_with(&["--model", &other.model]);
    let plan = |address: &str| dair(&["plan", "--model", &files.model, "--threads", "1", "--workers", address]);
    plan(&worker.address).refused(&[&worker.address, "does not have this model"]);
    plan("127.0.0.1:1").refused(&["127.0.0.1:1", "no answer"]);
}

/// The figure of this machine is in the cache after the first time.
#[test]
fn speed_is_measured_once() {
    let files = files();
    let cache = tempfile::tempdir().unwrap();
    let plan = |args: &[&str]| {
        let cache = cache.path().to_str().unwrap();
        let common = ["plan", "--json", "--model", &files.model, "--threads", "1"];
        let report = crate::run::dair_knowing(&[("DAIR_CACHE", cache)], &[&common[..], args].concat()).json();
        report["predicted_ms"].as_f64().unwrap()
    };
    let first = plan(&[]);
    assert_eq!(plan(&[]), first);
    let folder = cache.path().join("machine");
    let figure = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&figure).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    record["bytes_per_s"] = json!(record["bytes_per_s"].as_f64().unwrap() / 1e3);
    std::fs::write(&figure, record.to_string()).unwrap();
    assert!(plan(&[]) > 10.0 * first, "what is kept counts");
    assert!(plan(&["--measure-again"]) < 10.0 * first, "unless it is measured again");
}
