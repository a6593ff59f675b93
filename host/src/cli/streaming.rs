//! What is said about weights that are streamed.

use crate::storage::stream::{Figures, Reading};
use dair_core::format::Header;
use serde_json::{Value, json};

/// The fraction of a layer's experts that a token uses; 1 without experts.
pub fn chosen(header: &Header) -> f64 {
    if header.n_experts == 0 { 1.0 } else { f64::from(header.n_active_experts) / f64::from(header.n_experts) }
}

/// What is in memory, what is read, and how fast that can be, where the disk's speed is known.
pub fn plan(figures: &Figures, chosen: f64, disk_bytes_per_s: Option<f64>) -> String {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let Figures { weight_bytes, kept_bytes, place_bytes, slot_bytes, .. } = figures;
    let token = figures.token_bytes(chosen);
    let mut text = format!(
        "weights: {:.2} of {:.2} GB stay in memory, {:.2} GB more to read through; a token reads {:.2} GB",
        gb(kept_bytes + place_bytes),
        gb(*weight_bytes),
        gb(*slot_bytes),
        gb(token)
    );
    if let Some(speed) = disk_bytes_per_s.filter(|speed| *speed > 0.0 && token > 0) {
        text += &format!(": at {:.2} GB/s of the disk, {:.2} tokens/s at best", speed / 1e9, speed / token as f64);
    }
    text
}

/// What was read for all passes, for people.
pub fn line(reading: &Reading, figures: &Figures) -> String {
    let per_pass = |bytes: u64| bytes as f64 / reading.passes.max(1) as f64 / 1e6;
    let mut text = format!(
        "{:.1} MB per pass in {} passes, {:.2} s waited for it; {:.1} MB of weights in memory",
        per_pass(reading.bytes),
        reading.passes,
        reading.waited.as_secs_f64(),
        figures.memory_bytes() as f64 / 1e6
    );
    if let Some(rate) = reading.experts.rate() {
        text += &format!("; {:.1} % of experts were there", 100.0 * rate);
    }
    text
}

/// The same for scripts.
pub fn json(reading: &Reading, figures: &Figures) -> Value {
    json!({
        "passes": reading.passes,
        "read_bytes": reading.bytes,
        "wait_seconds": reading.waited.as_secs_f64(),
        "memory_bytes": figures.memory_bytes(),
        "kept_bytes": figures.kept_bytes,
        "bytes_per_pass": figures.pass_bytes,
        "expert_hits": reading.experts.hits,
        "expert_misses": reading.experts.misses,
    })
}
