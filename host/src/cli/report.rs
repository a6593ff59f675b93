//! What is printed about a run: to people on standard error, to scripts as JSON.

use crate::chat::generate::{Answer, Phase};
use crate::machine::memory;
use console::style;
use serde_json::{Value, json};
use std::time::Duration;

/// Figures of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Report<'r> {
    /// From the start of the command to the first forward pass.
    pub load: Duration,
    /// Of that, repacking weights, if they were.
    pub repack: Option<Duration>,
    /// What was computed.
    pub answer: &'r Answer,
    /// Bytes sent to and received from workers, if there are any.
    pub network: Option<(u64, u64)>,
}

impl Report<'_> {
    /// Prints a few lines for people.
    pub fn print(&self) {
        let line = |name: &str, text: String| eprintln!("{} {text}", style(format!("{name:>8}")).for_stderr().dim());
        let phase = |phase: &Phase| {
            format!("{} tokens in {:.2} s, {:.1} tokens/s", phase.tokens, phase.time.as_secs_f64(), phase.rate())
        };
        eprintln!();
        let repack = self.repack.map(|time| format!(", {:.2} s of it to repack weights", time.as_secs_f64()));
        line("load", format!("{:.2} s{}", self.load.as_secs_f64(), repack.unwrap_or_default()));
        line("prefill", phase(&self.answer.prefill));
        line("decode", phase(&self.answer.decode));
        if let Some((sent, received)) = self.per_token() {
            line("network", format!("{:.1} kB sent, {:.1} kB received per token", sent / 1e3, received / 1e3));
        }
        line("memory", format!("{:.1} MB at its peak", memory::peak_bytes() as f64 / 1e6));
    }

    /// The same as JSON, with `text` and the reasoning before it, if there was any.
    pub fn json(&self, text: &str, reasoning: Option<&str>) -> Value {
        let phase = |phase: &Phase| json!({"tokens": phase.tokens, "seconds": phase.time.as_secs_f64(), "tokens_per_second": phase.rate()});
        let network = self
            .per_token()
            .map(|(sent, received)| json!({"sent_bytes_per_token": sent, "received_bytes_per_token": received}));
        json!({
            "text": text,
            "reasoning": reasoning,
            "finish_reason": self.answer.finish.name(),
            "generated_tokens": self.answer.tokens,
            "load_seconds": self.load.as_secs_f64(),
            "repack_seconds": self.repack.map(|time| time.as_secs_f64()),
            "prefill": phase(&self.answer.prefill),
            "decode": phase(&self.answer.decode),
            "network": network,
            "peak_memory_bytes": memory::peak_bytes(),
        })
    }

    fn per_token(&self) -> Option<(f64, f64)> {
        let (sent, received) = self.network?;
        let tokens = f64::from(self.answer.prefill.tokens + self.answer.decode.tokens);
        Some((sent as f64 / tokens, received as f64 / tokens))
    }
}
