//! `dair bench`: what it reports, and what it refuses. How fast the machine is, is not tested.

use crate::run::dair;
use dair_host::machine::cpu::isas;
use dair_host::synthetic::PRESETS;
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// The quickest run.
const QUICK: [&str; 7] = ["bench", "--seconds", "1", "--shape", "tiny-llama", "--threads", "2"];

fn bench(args: &[&str]) -> crate::run::Outcome {
    dair(&[&QUICK[..], args].concat())
}

/// Every number in a report, with the way to it.
fn numbers(path: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.push((path.to_owned(), number.as_f64().expect("an F64"))),
        Value::Array(items) => items.iter().for_each(|item| numbers(&format!("{path}[]"), item, found)),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| numbers(&format!("{path}.{name}"), field, found));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn rows(report: &Value) -> &Vec<Value> {
    report["kernels"].as_array().unwrap_or_else(|| panic!("no kernels in {report}"))
}

#[test]
fn the_report_says_how_prompts_were_computed() {
    assert_eq!(bench(&["--json"]).json()["prefill"], "exact");
    if dair_host::machine::cpu::relaxed(dair_host::machine::cpu::best_kernels()).is_ok() {
        assert_eq!(bench(&["--json", "--prefill", "relaxed"]).json()["prefill"], "relaxed");
        assert!(bench(&["--prefill", "relaxed"]).quiet_success().contains("prefill relaxed"));
    }
}

#[test]
fn the_report_has_every_figure_and_none_is_nothing() {
    let report = bench(&["--json"]).json();
    let mut found = Vec::new();
    numbers("", &report, &mut found);
    for name in [
        ".machine.processors",
        ".machine.usable_processors",
        ".machine.memory_bytes",
        ".bandwidth.buffer_bytes",
        ".bandwidth.threads[].threads",
        ".bandwidth.threads[].median_gb_per_second",
        ".bandwidth.threads[].best_gb_per_second",
        ".kernels[].ops_per_byte",
        ".kernels[].gop_per_second",
        ".kernels[].gb_per_second",
        ".kernels[].percent_of_bandwidth",
        ".peaks[].gop_per_second",
        ".model.layers",
        ".model.file_bytes",
        ".model.prefill.tokens_per_second",
        ".model.prefill.gop_per_second",
        ".model.decode.tokens_per_second",
        ".model.decode.gb_per_second",
        ".model.decode.percent_of_bandwidth",
        ".model.decode.weight_bytes_per_token",
        ".model.peak_memory_bytes",
        ".seconds",
    ] {
        assert!(found.iter().any(|(path, _)| path == name), "{name} is missing in {report}");
    }
    for (path, number) in found {
        assert!(number > 0.0 && number.is_finite(), "{path} is {number}");
    }
    // Five pairs of types in three phases, with one thread and with two, on the best instruction set.
    assert_eq!(rows(&report).len(), 5 * 3 * 2);
    assert!(rows(&report).iter().all(|row| row["isa"] == report["machine"]["isa"]), "{report}");
    assert_eq!((&report["model"]["shape"], &report["model"]["projected"]), (&Value::from("tiny-llama"), &Value::Null));
}

#[test]
fn the_text_names_the_machine_and_every_part() {
    let text = bench(&["--weights", "q80"]).quiet_success();
    for part in ["processors", "reading", "kernels: ", "q40 × q80", "GB/s", "tiny-llama, q80 weights, 3 layers", "peak"]
    {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn a_model_with_fewer_layers_is_projected_and_says_so() {
    let text = bench(&["--layers", "1"]).quiet_success();
    assert!(text.contains("1 of 3 layers") && text.contains("projected to 3 layers"), "{text}");
    let report = bench(&["--layers", "1", "--json"]).json();
    let projected = report["model"]["projected"]["decode_tokens_per_second"].as_f64().expect("a number");
    assert!(report["model"]["decode"]["tokens_per_second"].as_f64().expect("a number") > projected, "{report}");
}

#[test]
fn all_instruction_sets_or_the_one_that_was_asked_for_are_measured_and_drawn() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roof.svg");
    let common = ["bench", "--seconds", "1", "--shape", "none", "--json", "--plot", path.to_str().unwrap()];
    let names: Vec<_> = isas().map(|isa| isa.name()).collect();
    for (args, names) in [(&["--all-isas"][..], &names[..]), (&["--isa", "scalar"], &["scalar"])] {
        let report = dair(&[&common[..], args].concat()).json();
        assert_eq!(report["model"], Value::Null);
        for name in names {
            assert!(rows(&report).iter().any(|row| row["isa"] == *name), "{name} is missing in {report}");
        }
        assert!(rows(&report).iter().all(|row| names.iter().any(|name| row["isa"] == *name)), "{report}");

        let most = rows(&report).iter().filter_map(|row| row["threads"].as_u64()).max();
        let is_drawn = |row: &&Value| row["threads"].as_u64() == most && row["phase"] != "cached";
        let svg = fs::read_to_string(&path).unwrap();
        let document = roxmltree::Document::parse(&svg).expect("XML");
        let dots = document.descendants().filter(|node| node.has_tag_name("circle")).count();
        assert_eq!(dots, rows(&report).iter().filter(is_drawn).count());
    }
}

#[test]
fn the_model_is_gone_afterwards() {
    let folder = TempDir::new().unwrap();
    bench(&["--dir", folder.path().to_str().unwrap()]).quiet_success();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let shapes: Vec<_> = PRESETS.iter().map(|preset| preset.name).chain(["none", "gpt-5"]).collect();
    dair(&["bench", "--shape", "gpt-5"]).misused(&shapes);
    dair(&["bench", "--isa", "mmx"]).misused(&["mmx", "scalar"]);
    dair(&["bench", "--isa", "scalar", "--all-isas"]).misused(&["--isa", "--all-isas"]);
    dair(&["bench", "--seconds", "0"]).misused(&["--seconds", "0"]);
    dair(&["bench", "--weights", "q3"]).misused(&["q3", "q40"]);
    crate::run::dair_knowing(&[("DAIR_ISA", "mmx")], &["bench"]).refused(&["DAIR_ISA=mmx", "scalar"]);
    bench(&["--layers", "4"]).refused(&["--layers 4", "tiny-llama", "1 to 3"]);
    dair(&["bench", "--shape", "none", "--layers", "1"]).refused(&["--layers", "--shape"]);
    bench(&["--dir", "/nowhere/at/all"]).refused(&["/nowhere/at/all", "No such file"]);
    bench(&["--plot", "/nowhere/at/all/roof.svg"]).refused(&["/nowhere/at/all"]);
    let folder = TempDir::new().unwrap();
    let folder = folder.path().to_str().unwrap();
    bench(&["--plot", folder]).refused(&["--plot", folder]);
}
