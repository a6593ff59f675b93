//! What a server says of itself and its nodes, and how it reads. What it does not say is left out.

use crate::client::one_line;
use serde_json::Value;

/// What a server says at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster(Value);

/// A line of figures: its name, and how it reads.
type Line = (&'static str, fn(&Cluster) -> Option<String>);

/// Figures of the server.
const LINES: [Line; 6] = [
    ("speed", |all| {
        let rate = |name: &str| all.number(&format!("/rates/{name}")).map(rate);
        Some(format!(
            "{} tokens/s of answers, {} of prompts, {} rows in a batch",
            rate("completion_tokens_per_s")?,
            rate("prompt_tokens_per_s")?,
            rate("batch_rows")?
        ))
    }),
    ("requests", |all| {
        let count = |name: &str| all.number(&format!("/requests/{name}")).map(count);
        Some(format!(
            "{} running of {}, {} waiting; {} served, {} refused, {} cancelled, {} failed",
            count("running")?,
            count("slots")?,
            count("waiting")?,
            count("served")?,
            count("refused")?,
            count("cancelled")?,
            count("failed")?
        ))
    }),
    ("tokens", |all| {
        let count = |name: &str| all.number(&format!("/tokens/{name}")).map(count);
        Some(format!(
            "{} of answers, {} of prompts, {} of them known from before",
            count("completion")?,
            count("prompt")?,
            count("prompt_cached")?
        ))
    }),
    ("KV cache", |all| {
        let (kept, slots) = (all.number("/kv/cached_tokens")?, all.number("/kv/slots")?);
        let mut text = format!("{} tokens in {} slots", count(kept), count(slots));
        if let Some(each) = all.number("/kv/slot_positions").filter(|each| each * slots > 0.0) {
            text += &format!(" of {} positions, {}", count(each), percent(kept / (each * slots)));
        }
        if let Some(size) = all.number("/kv/bytes") {
            text += &format!(", {}", bytes(size));
        }
        Some(text)
    }),
    ("network", |all| {
        let (sent, received) = (all.number("/network/sent_bytes")?, all.number("/network/received_bytes")?);
        let exchanging = all.number("/network/exchanging_ms")? / 1000.0;
        Some(format!("{} sent, {} received, {} s in exchanges", bytes(sent), bytes(received), rate(exchanging)))
    }),
    ("disk", |all| {
        let mut text = format!("{} read", bytes(all.number("/streaming/read_bytes")?));
        if let Some(hits) = all.number("/streaming/hit_rate") {
            text += &format!(", {} found in memory", percent(hits));
        }
        Some(text)
    }),
];

/// A figure of a node: what stands above it, its key, and how its number reads.
type Column = (&'static str, &'static str, fn(f64) -> String);

/// Figures of nodes, times of each pass; those are shown that a node has.
const COLUMNS: [Column; 7] = [
    ("SHARE", "share", percent),
    ("MEMORY", "memory_bytes", bytes),
    ("PASSES", "passes", count),
    ("COMPUTE ms", "compute_ms", rate),
    ("NETWORK ms", "network_ms", rate),
    ("DISK ms", "disk_ms", rate),
    ("ROUND TRIP ms", "round_trip_ms", rate),
];

/// Nodes that are shown; a cluster of more is no cluster of machines that people have.
const NODES_MAX: usize = 1000;

impl Cluster {
    /// What a server says, if that is about a cluster.
    pub fn of(object: Value) -> Option<Self> {
        object.get("requests").is_some_and(Value::is_object).then_some(Self(object))
    }

    /// All of it.
    pub fn object(&self) -> &Value {
        &self.0
    }

    /// The number at a place.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.0.pointer(pointer).and_then(Value::as_f64)
    }

    /// What it is about: model, and for how long the server has been there.
    pub fn title(&self) -> String {
        let model = self.0["model"].as_str().map_or_else(|| "no name".into(), one_line);
        match self.number("/uptime_s") {
            Some(seconds) => format!("{model}, up for {}", duration(seconds)),
            None => model,
        }
    }

    /// Names and figures of the server.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        LINES.iter().filter_map(|(name, read)| Some((*name, read(self)?))).collect()
    }

    /// The nodes as a table, its head first. All rows are of the same length.
    pub fn nodes(&self) -> Vec<Vec<String>> {
        let nodes: Vec<&Value> = self.0["nodes"].as_array().into_iter().flatten().take(NODES_MAX).collect();
        let number = |node: &Value, key: &str| node.get(key).and_then(Value::as_f64);
        let columns: Vec<_> =
            COLUMNS.iter().filter(|(_, key, _)| nodes.iter().any(|node| number(node, key).is_some())).collect();
        let head = ["NODE", "STATE"].into_iter().chain(columns.iter().map(|(title, ..)| *title));
        let row = |node: &&Value| {
            let text = |key: &str| node[key].as_str().map_or_else(unknown, one_line);
            let figures = columns.iter().map(|(_, key, read)| number(node, key).map_or_else(unknown, read));
            [text("name"), text("state")].into_iter().chain(figures).collect()
        };
        [head.map(str::to_owned).collect()].into_iter().chain(nodes.iter().map(row)).collect()
    }

    /// Whether the node of a row of [`Self::nodes`] takes part.
    pub fn takes_part(row: &[String]) -> bool {
        row.get(1).is_some_and(|state| state == "here")
    }

    /// What has happened, the newest first.
    pub fn events(&self) -> impl Iterator<Item = String> {
        let text = |event: &Value, key: &str| event[key].as_str().map(one_line).unwrap_or_default();
        let events = self.0["events"].as_array().into_iter().flatten().rev();
        events.map(move |event| format!("{}  {}", text(event, "at"), text(event, "what")))
    }
}

fn unknown() -> String {
    "–".into()
}

/// Whole numbers.
fn count(number: f64) -> String {
    format!("{number:.0}")
}

/// Numbers of which three digits say enough.
fn rate(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 || number == number.round() => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn percent(number: f64) -> String {
    format!("{} %", rate(number * 100.0))
}

fn bytes(number: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut size, mut unit) = (number, 0);
    while size >= 1000.0 && unit + 1 < units.len() {
        (size, unit) = (size / 1000.0, unit + 1);
    }
    format!("{} {}", rate(size), units[unit])
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// What a server may say, for tests.
#[cfg(test)]
pub fn example() -> Cluster {
    let object = serde_json::json!({
        "model": "smollm2", "uptime_s": 3720,
        "requests": {"running": 2, "waiting": 1, "slots": 4, "served": 9, "refused": 0, "cancelled": 3, "failed": 0},
        "tokens": {"prompt": 100, "prompt_cached": 40, "completion": 250},
        "rates": {"batch_rows": 2.5, "passes_per_s": 20.0, "completion_tokens_per_s": 41.25, "prompt_tokens_per_s": 0.0},
        "network": {"sent_bytes": 12_345_678, "received_bytes": 999, "exchanging_ms": 1500},
        "nodes": [
            {"name": "root", "state": "here", "address": null, "passes": 100, "compute_ms": 12.3456, "share": 0.625},
            {"name": "10.0.0.2:9990", "state": "out", "passes": null, "share": 0.375, "memory_bytes": 1_500_000_000u64}
        ],
        "events": [
            {"at": "2026-11-27T10:00:00Z", "what": "left out: worker 10.0.0.2:9990"},
            {"at": "2026-11-27T10:00:05Z", "what": "computing 40 tokens again"}
        ],
        "kv": {"slots": 4, "cached_tokens": 512, "slot_positions": 2048}
    });
    Cluster::of(object).expect("a cluster")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_those_that_a_node_has_a_figure_for() {
        let nodes = example().nodes();
        assert_eq!(nodes[0], ["NODE", "STATE", "SHARE", "MEMORY", "PASSES", "COMPUTE ms"]);
        assert_eq!(nodes[1], ["root", "here", "62.5 %", "–", "100", "12.3"]);
        assert_eq!(nodes[2], ["10.0.0.2:9990", "out", "37.5 %", "1.50 GB", "–", "–"]);
        assert!(Cluster::takes_part(&nodes[1]) && !Cluster::takes_part(&nodes[2]));
    }

    #[test]
    fn what_a_server_does_not_say_is_left_out() {
        let bare = Cluster::of(json!({"requests": {}, "nodes": 7, "events": [1, {"what": "a\u{1b}[2J\nb"}]})).unwrap();
        assert_eq!((bare.lines(), bare.nodes().len(), bare.title()), (vec![], 1, "no name".into()));
        assert_eq!(bare.events().collect::<Vec<_>>(), ["  a [2J b", "  "]);
        for other in [json!([]), json!({}), json!({"requests": 1})] {
            assert_eq!(Cluster::of(other), None);
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0.0, 0.123, 12.34, 123.4, 7.0].map(rate), ["0", "0.12", "12.3", "123", "7"]);
        assert_eq!([999.0, 1e3, 12_345_678.0, 5e15].map(bytes), ["999 B", "1 kB", "12.3 MB", "5000 TB"]);
        assert_eq!([59.0, 61.0, 3720.0].map(duration), ["59 s", "1 min", "1 h 2 min"]);
    }
}
