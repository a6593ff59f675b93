//! Figures that others have published, and what the cost model says of the same machines: how far it can be trusted.
//!
//! Of five figures of Raspberry Pi 4 with Distributed-Llama 0.1, three constants were fitted: the speed of the board, the time of
//! a layer that more nodes do not shorten, and the bytes at which a switch with eight boards on it takes twice as long. That
//! bursts cost more than their bytes was itself learnt from these figures: without it, eight boards come out far too fast. Of two
//! figures of Raspberry Pi 5 with 0.16, one was fitted, again the time of a layer; speed and exchange are published ones. So the
//! figures show that the model can describe these machines; they are no test of it on machines that it has not seen.
//!
//! A round trip of 0.1 ms is assumed, less than half of the 0.23 ms that were published, which wake both sides: with the latter, an
//! exchange would take longer than was measured.

use super::Task;
use crate::synthetic;
use dair_core::format::Layout;
use dair_core::kernels::{KvLayout, KvType};
use dair_core::plan::cost::{Link, Machine, Software};
use dair_core::quant::DType;

/// Gigabit Ethernet as boards have it: 117 MB/s of payload; the round trip is assumed.
pub const GIGABIT: Link = Link { round_trip_s: 100e-6, bytes_per_s: 117e6 };

/// Raspberry Pi 4 with 8 GB, four threads and a microSD card. Speed: fitted.
pub const PI4: Machine =
    Machine { bytes_per_s: 3.2e9, memory_bytes: 7_200_000_000, disk_bytes_per_s: 45e6, link: GIGABIT };

/// Raspberry Pi 5 with 8 GB, four threads and a microSD card. Speed: published.
pub const PI5: Machine =
    Machine { bytes_per_s: 10.1e9, memory_bytes: 7_200_000_000, disk_bytes_per_s: 90e6, link: GIGABIT };

/// A layer and the port of a switch: fitted.
pub const DLLAMA_0_1: Software = Software { exchange_s: 14e-6, layer_s: 4.1e-3, burst_bytes: 13_500.0 };

/// Exchanges: 120 µs each were published, for a tuned fork; less 56 of bytes and 50 of the assumed latency. A layer: fitted.
pub const DLLAMA_0_16: Software = Software { exchange_s: 14e-6, layer_s: 0.2e-3, burst_bytes: f64::INFINITY };

/// A machine whose figures were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// [`PI4`]
    Pi4,
    /// [`PI5`]
    Pi5,
}

impl Board {
    /// Every board.
    pub const ALL: [Self; 2] = [Self::Pi4, Self::Pi5];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pi4 => "pi4",
            Self::Pi5 => "pi5",
        }
    }

    /// What it is capable of.
    pub const fn machine(self) -> Machine {
        match self {
            Self::Pi4 => PI4,
            Self::Pi5 => PI5,
        }
    }
}

/// A published figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The machines.
    pub board: Board,
    /// How many.
    pub nodes: usize,
    /// A name of [`PRESETS`](crate::synthetic::PRESETS), in Q40 with Q80 exchanges.
    pub model: &'static str,
    /// Milliseconds per token.
    pub ms: f64,
}

/// Distributed-Llama 0.1 on Raspberry Pi 4, 0.16 on Raspberry Pi 5, as its project and its users published them.
pub const FIGURES: [Figure; 7] = [
    Figure { board: Board::Pi4, nodes: 1, model: "llama2-7b", ms: 1312.0 },
    Figure { board: Board::Pi4, nodes: 2, model: "llama2-7b", ms: 794.0 },
    Figure { board: Board::Pi4, nodes: 4, model: "llama2-7b", ms: 494.0 },
    Figure { board: Board::Pi4, nodes: 8, model: "llama2-7b", ms: 588.0 },
    Figure { board: Board::Pi4, nodes: 8, model: "llama2-70b", ms: 4843.0 },
    Figure { board: Board::Pi5, nodes: 4, model: "llama3-8b", ms: 1e3 / 8.36 },
    Figure { board: Board::Pi5, nodes: 4, model: "qwen3-30b-a3b", ms: 1e3 / 13.04 },
];

impl Figure {
    /// What the cost model says of it, in milliseconds per token.
    ///
    /// # Panics
    /// If the model is no preset, or can't be cut for so many nodes.
    pub fn predicted_ms(&self) -> f64 {
        let header = synthetic::preset(self.model).expect("a figure of a preset");
        let layout = Layout::new(&header).expect("a preset has a layout");
        let kv = KvLayout::new(KvType::F32, header.head_dim as usize).expect("F32 takes any head");
        let shape = super::shape(&layout, DType::Q80, &kv, POSITIONS);
        let (software, is_star) = match self.board {
            Board::Pi4 => (DLLAMA_0_1, true),
            Board::Pi5 => (DLLAMA_0_16, false),
        };
        let machines = vec![self.board.machine(); self.nodes];
        let task = Task { shape: &shape, software: &software, machines: &machines };
        1e3 * task.predict_dllama(is_star).expect("a figure of a cut that there is").seconds
    }
}

/// Runs were short: with a longer context, keys and values in F32 would not fit one board.
const POSITIONS: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures_are_met_within_a_tenth() {
        for figure in FIGURES {
            let Figure { board, nodes, model, ms } = figure;
            let percent = 100.0 * (figure.predicted_ms() / ms - 1.0);
            assert!(percent.abs() < 10.0, "{nodes} {board:?}, {model}: {percent:+.1} % off {ms:.0} ms");
        }
    }
}
