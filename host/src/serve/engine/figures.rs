//! What the engine has done and is doing: for Prometheus, and for the page about the cluster.

use super::ask::Ended;
use crate::cluster::root::NodeNow;
use crate::net::Traffic;
use crate::storage::stream::Reading;
use dair_core::wire::native::Spent;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Rates are those of so long.
const LATELY: Duration = Duration::from_secs(5);

/// What is going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Answers that are computed.
    pub running: u32,
    /// Requests that wait for a place.
    pub waiting: u32,
    /// Tokens whose keys and values are kept.
    pub cached_tokens: u64,
    /// Bytes of keys and values on disk, if any are kept.
    pub disk_bytes: Option<u64>,
}

/// What the rows of a pass are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Answers in progress, a row of each.
    pub answers: u32,
    /// Prompts.
    pub prompts: u32,
    /// Tokens that were guessed.
    pub guessed: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Seconds that a node has spent on something, in all passes of this session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeTime {
    node: String,
    on: &'static str,
}

/// A pass of the last seconds.
#[derive(Clone, Copy, Debug)]
struct Passed {
    at: Instant,
    rows: Rows,
    /// Of what was guessed, tokens of the answer.
    right: u32,
}

/// What passes and answers of the last seconds came to.
#[derive(Debug, Default)]
struct Recent {
    passes: VecDeque<Passed>,
    /// How long an answer takes, the last ones counting the most.
    answer: f64,
    traffic: Traffic,
    nodes: Vec<Seen>,
    reading: Option<Reading>,
    happened: VecDeque<(SystemTime, String)>,
}

/// What has happened is kept this far back.
const EVENTS: usize = 100;

type Seconds = Gauge<f64, AtomicU64>;

/// All figures. The engine writes them, whoever wants reads them.
pub struct Figures {
    start: Instant,
    slots: Gauge,
    registry: Registry,
    requests: Family<Outcome, Counter>,
    running: Gauge,
    waiting: Gauge,
    cached_tokens: Gauge,
    cache_bytes: Gauge,
    disk_bytes: Gauge,
    disk_tokens: Counter,
    prompt_tokens: Counter,
    reused_tokens: Counter,
    drawn_tokens: Counter,
    guessed_tokens: Counter,
    guessed_right: Counter,
    first_token: Histogram,
    each_token: Histogram,
    pass_seconds: Histogram,
    pass_rows: Histogram,
    sent: Gauge,
    received: Gauge,
    exchanging: Seconds,
    nodes: Family<NodeTime, Seconds>,
    recent: Mutex<Recent>,
}

impl Default for Figures {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Figures {
    /// Of an engine that has not begun.
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let new = Self {
            start: Instant::now(),
            slots: Gauge::default(),
            registry: Registry::with_prefix("dair"),
            requests: Family::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            cached_tokens: Gauge::default(),
            cache_bytes: Gauge::default(),
            disk_bytes: Gauge::default(),
            disk_tokens: Counter::default(),
            prompt_tokens: Counter::default(),
            reused_tokens: Counter::default(),
            drawn_tokens: Counter::default(),
            guessed_tokens: Counter::default(),
            guessed_right: Counter::default(),
            first_token: seconds(),
            each_token: seconds(),
            pass_seconds: seconds(),
            pass_rows: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            sent: Gauge::default(),
            received: Gauge::default(),
            exchanging: Gauge::default(),
            nodes: Family::default(),
            recent: Mutex::default(),
        };
        new.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register("requests", "Requests by how they ended", self.requests.clone());
        all.register("requests_running", "Answers that are computed", self.running.clone());
        all.register("requests_waiting", "Requests that wait for a place", self.waiting.clone());
        all.register("kv_cached_tokens", "Tokens whose keys and values are kept", self.cached_tokens.clone());
        all.register("kv_slots", "Sequences that the KV cache has room for", self.slots.clone());
        all.register_with_unit("kv_cache", "Memory for keys and values", Unit::Bytes, self.cache_bytes.clone());
        all.register_with_unit("kv_disk", "Keys and values on disk", Unit::Bytes, self.disk_bytes.clone());
        all.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        all.register("prompt_tokens_cached", "Of these, computed before", self.reused_tokens.clone());
        all.register("prompt_tokens_from_disk", "Of these, found on disk", self.disk_tokens.clone());
        all.register("completion_tokens", "Tokens drawn", self.drawn_tokens.clone());
        all.register("guessed_tokens", "Tokens guessed and computed", self.guessed_tokens.clone());
        all.register("guessed_tokens_right", "Of these, tokens of answers", self.guessed_right.clone());
        let time = |all: &mut Registry, name: &str, help: &str, histogram: &Histogram| {
            all.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        time(all, "time_to_first_token", "From a place to the first token", &self.first_token);
        time(all, "time_per_token", "Of an answer, on average", &self.each_token);
        time(all, "pass", "Of a pass", &self.pass_seconds);
        all.register("pass_rows", "Tokens of a pass", self.pass_rows.clone());
        all.register_with_unit("network_sent", "To workers", Unit::Bytes, self.sent.clone());
        all.register_with_unit("network_received", "From workers", Unit::Bytes, self.received.clone());
        all.register_with_unit("network_exchanging", "Spent on exchanges", Unit::Seconds, self.exchanging.clone());
        all.register_with_unit("node", "Spent by nodes on passes", Unit::Seconds, self.nodes.clone());
        self
    }

    /// Sequences that the KV cache has room for.
    pub fn slots(&self) -> u32 {
        self.slots.get() as u32
    }

    /// It has begun, with room for so many sequences in so many bytes.
    pub(super) fn begins(&self, slots: u32, cache_bytes: u64) {
        self.slots.set(slots.into());
        self.cache_bytes.set(cache_bytes as i64);
    }

    /// Answers that are computed, and requests that wait.
    pub fn load(&self) -> (u32, u32) {
        (self.running.get() as u32, self.waiting.get() as u32)
    }

    /// What is going on.
    pub(super) fn now(&self, now: Now) {
        self.running.set(now.running.into());
        self.waiting.set(now.waiting.into());
        self.cached_tokens.set(now.cached_tokens as i64);
        self.disk_bytes.set(now.disk_bytes.unwrap_or(0) as i64);
    }

    /// Who computes, and what this machine read from its disk, if not all weights are in memory.
    pub(super) fn nodes(&self, nodes: Vec<NodeNow>, reading: Option<Reading>) {
        let mut recent = self.recent();
        recent.reading = reading;
        let before = std::mem::take(&mut recent.nodes);
        let seen = |now: NodeNow| {
            let before = before.iter().find(|before| before.now.address == now.address);
            Seen::new(now, before)
        };
        recent.nodes = nodes.into_iter().map(seen).collect();
        for node in &recent.nodes {
            let Some(spent) = node.now.work.map(|work| work.spent) else { continue };
            for (on, micros) in [("compute", spent.compute_us), ("network", spent.exchange_us), ("disk", spent.disk_us)]
            {
                let label = NodeTime { node: node.name(), on };
                self.nodes.get_or_create(&label).set(micros as f64 / 1e6);
            }
        }
    }

    /// Something has become of a worker: one line.
    pub fn happened(&self, line: String) {
        let mut recent = self.recent();
        recent.happened.push_back((SystemTime::now(), line));
        if recent.happened.len() > EVENTS {
            recent.happened.pop_front();
        }
    }

    /// A request has got its place: tokens of its prompt, and how many of them were in the cache.
    pub(super) fn begun(&self, prompt: u32, reused: u32) {
        self.prompt_tokens.inc_by(prompt.into());
        self.reused_tokens.inc_by(reused.into());
    }

    /// So many more were found on disk.
    pub(super) fn found(&self, tokens: u32) {
        self.reused_tokens.inc_by(tokens.into());
        self.disk_tokens.inc_by(tokens.into());
    }

    /// A pass was computed.
    pub(super) fn passed(&self, rows: Rows, time: Duration, traffic: Traffic) {
        self.pass_seconds.observe(time.as_secs_f64());
        self.pass_rows.observe((rows.answers + rows.prompts + rows.guessed).into());
        self.guessed_tokens.inc_by(rows.guessed.into());
        self.sent.set(traffic.sent as i64);
        self.received.set(traffic.received as i64);
        self.exchanging.set(traffic.exchanging.as_secs_f64());
        let mut recent = self.recent();
        let at = Instant::now();
        recent.passes.push_back(Passed { at, rows, right: 0 });
        recent.traffic = traffic;
        while recent.passes.front().is_some_and(|first| at - first.at > LATELY) {
            recent.passes.pop_front();
        }
    }

    /// A token was drawn.
    pub(super) fn drawn(&self) {
        self.drawn_tokens.inc();
    }

    /// A token that was guessed in the last pass is one of the answer.
    pub(super) fn guessed(&self) {
        self.guessed_right.inc();
        if let Some(last) = self.recent().passes.back_mut() {
            last.right += 1;
        }
    }

    /// An answer has come to its end.
    pub(super) fn ended(&self, ended: &Ended) {
        self.outcome("ended", 1);
        let time = (ended.prefill + ended.decode).as_secs_f64();
        let mut recent = self.recent();
        recent.answer += (time - recent.answer) / 8.0;
        drop(recent);
        self.first_token.observe(ended.prefill.as_secs_f64());
        if ended.drawn > 1 {
            self.each_token.observe(ended.decode.as_secs_f64() / f64::from(ended.drawn - 1));
        }
    }

    /// Requests have failed.
    pub(super) fn failed(&self, count: usize) {
        self.outcome("failed", count);
    }

    /// Nobody listens to them any more.
    pub(super) fn cancelled(&self, count: usize) {
        self.outcome("cancelled", count);
    }

    /// A request was refused, because too many wait.
    pub fn refused(&self) {
        self.outcome("refused", 1);
    }

    /// After how many seconds another request may well be taken, where so many wait.
    pub fn seconds_until_free(&self, waiting: u32) -> u64 {
        let answer = self.recent().answer;
        ((answer * f64::from(waiting) / f64::from(self.slots().max(1))).ceil() as u64).clamp(1, 60)
    }

    fn outcome(&self, outcome: &'static str, count: usize) {
        self.requests.get_or_create(&Outcome { outcome }).inc_by(count as u64);
    }

    fn count(&self, outcome: &'static str) -> u64 {
        self.requests.get_or_create(&Outcome { outcome }).get()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the text format of Prometheus.
    ///
    /// # Errors
    /// None: writing to a String does not fail.
    pub fn prometheus(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// For the page about the cluster.
    pub fn json(&self) -> Value {
        let recent = self.recent();
        let now = Instant::now();
        let passes: Vec<_> = recent.passes.iter().filter(|passed| now - passed.at <= LATELY).collect();
        let sum = |of: fn(&Passed) -> u32| f64::from(passes.iter().map(|passed| of(passed)).sum::<u32>());
        let rows = sum(|passed| passed.rows.answers + passed.rows.prompts + passed.rows.guessed);
        let per_second = |count: f64| count / LATELY.as_secs_f64();
        let Traffic { sent, received, exchanging, .. } = recent.traffic;
        json!({
            "uptime_s": self.start.elapsed().as_secs(),
            "requests": {
                "running": self.running.get(), "waiting": self.waiting.get(), "slots": self.slots(),
                "served": self.count("ended"), "refused": self.count("refused"),
                "cancelled": self.count("cancelled"), "failed": self.count("failed"),
            },
            "tokens": {
                "prompt": self.prompt_tokens.get(), "prompt_cached": self.reused_tokens.get(),
                "completion": self.drawn_tokens.get(),
                "guessed": self.guessed_tokens.get(), "guessed_right": self.guessed_right.get(),
            },
            "rates": {
                "batch_rows": rows / passes.len().max(1) as f64,
                "passes_per_s": per_second(passes.len() as f64),
                "completion_tokens_per_s": per_second(sum(|passed| passed.rows.answers + passed.right)),
                "prompt_tokens_per_s": per_second(sum(|passed| passed.rows.prompts)),
            },
            "network": (sent > 0).then(|| json!({
                "sent_bytes": sent, "received_bytes": received, "exchanging_ms": exchanging.as_millis() as u64,
            })),
            "streaming": recent.reading.map(|Reading { bytes, waited, passes, experts }| json!({
                "read_bytes": bytes, "waited_ms": waited.as_millis() as u64, "passes": passes,
                "hit_rate": experts.rate(),
            })),
            "nodes": recent.nodes.iter().map(Seen::json).collect::<Vec<_>>(),
            "events": recent.happened.iter().map(|(at, what)| json!({
                "at": humantime::format_rfc3339_seconds(*at).to_string(), "what": what,
            })).collect::<Vec<_>>(),
            "kv": {
                "slots": self.slots(), "cached_tokens": self.cached_tokens.get(), "bytes": self.cache_bytes.get(),
                "disk_bytes": self.disk_bytes.get(), "disk_tokens": self.disk_tokens.get(),
            },
        })
    }
}

/// A node as it was seen last, and how it spent its time between then and the time before.
#[derive(Debug)]
struct Seen {
    now: NodeNow,
    lately: Option<Spent>,
}

impl Seen {
    /// Beside what was `before`, where that is known.
    fn new(now: NodeNow, before: Option<&Self>) -> Self {
        let spent = |node: &NodeNow| node.work.map(|work| work.spent);
        let lately =
            spent(&now).zip(before.and_then(|before| spent(&before.now))).map(|(now, before)| now.since(&before));
        // Where it had nothing to do, what it did before is as good as ever.
        let lately = lately.filter(|spent| spent.passes > 0).or(before.and_then(|before| before.lately));
        Self { now, lately }
    }

    fn name(&self) -> String {
        self.now.address.as_ref().map_or_else(|| "root".to_owned(), ToString::to_string)
    }

    fn json(&self) -> Value {
        let NodeNow { address, takes_part, work, planned } = &self.now;
        let each =
            |micros: fn(&Spent) -> u64| self.lately.map(|spent| micros(&spent) as f64 / 1000.0 / spent.passes as f64);
        let round_trip_s = planned.and_then(|plan| plan.round_trip_s);
        json!({
            "name": self.name(), "address": address.as_ref().map(ToString::to_string),
            "state": if *takes_part { "here" } else { "out" },
            "passes": work.map(|work| work.spent.passes),
            "compute_ms": each(|spent| spent.compute_us), "network_ms": each(|spent| spent.exchange_us),
            "disk_ms": each(|spent| spent.disk_us),
            "share": planned.map(|plan| plan.share), "memory_bytes": planned.map(|plan| plan.memory_bytes),
            "round_trip_ms": round_trip_s.map(|seconds| 1000.0 * seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::engine::Why;

    #[test]
    fn what_was_counted_is_told_in_both_forms() {
        let figures = Figures::new();
        figures.begins(4, 1 << 20);
        figures.now(Now { running: 2, waiting: 1, cached_tokens: 77, disk_bytes: Some(5) });
        figures.begun(10, 1);
        figures.found(3);
        figures.drawn();
        figures.passed(Rows { answers: 1, prompts: 2, guessed: 3 }, Duration::from_millis(5), Traffic::default());
        figures.guessed();
        let (prefill, decode) = (Duration::from_millis(9), Duration::from_millis(20));
        figures.ended(&Ended { why: Why::Stop, prompt: 10, cached: 4, drawn: 5, prefill, decode });
        figures.refused();
        figures.happened("left out: worker 10.0.0.2:9990".to_owned());
        figures.nodes(vec![NodeNow { address: None, takes_part: true, work: None, planned: None }], None);
        let text = figures.prometheus().unwrap();
        for line in [
            "dair_requests_total{outcome=\"ended\"} 1",
            "dair_requests_total{outcome=\"refused\"} 1",
            "dair_requests_running 2",
            "dair_prompt_tokens_cached_total 4",
            "dair_prompt_tokens_from_disk_total 3",
            "dair_kv_cache_bytes 1048576",
            "dair_kv_disk_bytes 5",
            "dair_completion_tokens_total 1",
            "dair_guessed_tokens_total 3",
            "dair_guessed_tokens_right_total 1",
            "dair_pass_rows_sum 6.0",
            "dair_time_per_token_seconds_sum 0.005",
            "dair_pass_rows_count 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let json = figures.json();
        assert_eq!(json["requests"]["served"], 1);
        assert_eq!(json["kv"]["cached_tokens"], 77);
        assert_eq!(json["events"][0]["what"], "left out: worker 10.0.0.2:9990");
        assert_eq!((&json["nodes"][0]["name"], &json["nodes"][0]["state"]), (&"root".into(), &"here".into()));
        assert_eq!((figures.load(), figures.slots()), ((2, 1), 4));
    }
}
