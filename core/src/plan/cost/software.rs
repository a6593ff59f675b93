//! What programs add to the time of the machines.

/// Constants of a program that computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Software {
    /// Seconds of every exchange besides latency and bytes.
    pub exchange_s: f64,
    /// Seconds of every layer that are not spent on weights and that more nodes do not shorten.
    pub layer_s: f64,
    /// Bytes that may meet in one port at once before they take twice as long as they would one after the other; infinite if
    /// any number may.
    pub burst_bytes: f64,
}

impl Software {
    /// This program. An exchange takes up to 60 µs on loopback, threads of two nodes in turn on two processors included; of a
    /// layer, nine barriers and what one lane does while others wait take some microseconds
    /// (`benches/results/2026-11-26-native-cluster.md`).
    pub const DAIR: Self = Self { exchange_s: 60e-6, layer_s: 20e-6, burst_bytes: f64::INFINITY };
}
