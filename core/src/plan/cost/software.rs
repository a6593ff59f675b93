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
    /// This program. 60 µs is what an exchange between two nodes on loopback is meant to stay below, 20 µs an allowance for nine
    /// barriers and what one lane does while others wait. Neither is a measurement: whole runs over loopback
    /// (`benches/results/2026-11-26-native-cluster.md`) show that they are no more than some milliseconds of a token, not how much.
    pub const DAIR: Self = Self { exchange_s: 60e-6, layer_s: 20e-6, burst_bytes: f64::INFINITY };
}
