//! `dair inspect` against the file that it describes.

use crate::model::{Files, header};
use crate::run::dair;
use dair_core::format::Header;
use dair_core::quant::DType;
use dair_host::synthetic::PRESETS;
use serde_json::Value;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn tensors_tile_the_file_from_the_header_to_its_last_byte() {
    for preset in PRESETS.iter().filter(|preset| preset.name.starts_with("tiny")) {
        for weights in [DType::F32, DType::Q40, DType::Q80] {
            let files = Files::with(&Header { weights, ..preset.header }, 1);
            let report = dair(&["inspect", "--model", &files.model, "--json"]).json();
            let file_bytes = std::fs::metadata(&files.model).unwrap().len();
            assert_eq!((report["file"].as_str(), number(&report["file_bytes"])), (Some(&files.model[..]), file_bytes));
            let mut end = number(&report["header"]["header_bytes"]);
            for tensor in report["tensors"].as_array().expect("a list") {
                assert_eq!(number(&tensor["offset"]), end, "{} {weights}: {tensor}", preset.name);
                end += number(&tensor["bytes"]);
            }
            assert_eq!(end, file_bytes, "{} {weights}", preset.name);
        }
    }
}

#[test]
fn the_parts_of_the_nodes_add_up_to_the_model() {
    let files = Files::new("tiny-llama", 1);
    let report = |nodes: &str| dair(&["inspect", "--model", &files.model, "--nodes", nodes, "--json"]).json();
    let sums = |report: &Value| {
        let nodes = report["nodes"].as_array().expect("a list").iter();
        nodes.fold((0, 0), |(w, kv), node| (w + number(&node["weight_bytes"]), kv + number(&node["kv_cache_bytes"])))
    };
    let single = report("1");
    let header = header("tiny-llama");
    let (weights, kv_cache) = sums(&single);
    assert_eq!(weights, number(&single["file_bytes"]) - number(&single["header"]["header_bytes"]));
    assert_eq!(kv_cache, u64::from(header.n_layers * header.seq_len * header.n_kv_heads * header.head_dim) * 2 * 2);
    // By rows every node has its own part of each tensor, the norms' too, in parts that may differ.
    for nodes in ["2", "3", "4"] {
        assert_eq!(sums(&report(nodes)), (weights, kv_cache), "{nodes} nodes");
    }
    assert_eq!(single["node_counts"], serde_json::json!([1, 2, 4]));
}

/// Which numbers of nodes columns go with, does not matter to rows.
#[test]
fn there_may_be_more_nodes_than_heads() {
    let files = Files::new("tiny-llama", 1);
    let report = dair(&["inspect", "--model", &files.model, "--nodes", "12", "--json"]).json();
    assert_eq!(report["nodes"].as_array().map(Vec::len), Some(12));
    dair(&["inspect", "--model", &files.model, "--nodes", "257"]).misused(&["--nodes", "256"]);
}

#[test]
fn the_text_shows_what_the_json_holds() {
    let files = Files::new("tiny-qwen3-moe", 1);
    let json = dair(&["inspect", "--model", &files.model, "--json"]).json();
    let text = dair(&["inspect", "--model", &files.model, "--all"]).quiet_success();
    for (name, value) in json["header"].as_object().expect("an object") {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let shown = text.lines().any(|line| line.split_whitespace().eq([&name[..], &value[..]]));
        assert!(shown, "{name} {value} is missing in {text}");
    }
    for tensor in json["tensors"].as_array().expect("a list") {
        let ends = [&tensor["name"], &tensor["offset"], &tensor["bytes"]].map(|v| v.to_string().replace('"', ""));
        let shown = text.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            ends.iter().all(|end| words.contains(&&end[..]))
        });
        assert!(shown, "{tensor} is missing in {text}");
    }
}
