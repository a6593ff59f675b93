//! The report as one JSON object.

use super::Report;
use crate::bench::kernels::{Figures, KernelFigures, Peak, Product};
use crate::bench::machine::Machine;
use crate::bench::model::{ModelFigures, PhaseFigures};
use dair_core::kernels::Isa;
use serde_json::{Value, json};

/// Everything that was found.
pub fn of(report: &Report) -> Value {
    let Report { machine, isa, relaxed, figures, model, elapsed } = report;
    let model = model.as_ref().map(|model| model_json(report, model));
    let kernels: Vec<_> = figures.kernels.iter().map(|kernel| kernel_json(figures, kernel)).collect();
    let bandwidths: Vec<_> = figures
        .bandwidths
        .iter()
        .map(|bandwidth| {
            let rate = bandwidth.gb_per_s;
            json!({"threads": bandwidth.threads, "median_gb_per_second": rate.median, "best_gb_per_second": rate.best,
                "rounds": rate.rounds})
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine_json(machine, *isa),
        "prefill": if *relaxed { "relaxed" } else { "exact" },
        "bandwidth": {"buffer_bytes": figures.buffer_bytes, "threads": bandwidths},
        "kernels": kernels,
        "peaks": figures.peaks().iter().map(peak_json).collect::<Vec<_>>(),
        "model": model,
        "seconds": elapsed.as_secs_f64(),
    })
}

fn machine_json(machine: &Machine, isa: Isa) -> Value {
    let caches: Vec<_> = machine
        .caches
        .iter()
        .map(|cache| json!({"level": cache.level, "bytes": cache.bytes, "count": cache.count}))
        .collect();
    json!({
        "name": machine.name,
        "architecture": std::env::consts::ARCH,
        "system": std::env::consts::OS,
        "processors": machine.processors,
        "usable_processors": machine.usable_processors,
        "caches": caches,
        "memory_bytes": machine.memory_bytes,
        "available_bytes": machine.available_bytes,
        "features": machine.features,
        "isas": machine.isas.iter().map(|isa| isa.name()).collect::<Vec<_>>(),
        "isa": isa.name(),
    })
}

fn with_product(product: &Product, mut fields: Value) -> Value {
    fields["isa"] = json!(product.isa.name());
    fields["weights"] = json!(product.weights.name());
    fields["activations"] = json!(product.activations.name());
    fields
}

fn kernel_json(figures: &Figures, kernel: &KernelFigures) -> Value {
    with_product(
        &kernel.product,
        json!({
            "phase": kernel.phase.name(),
            "tokens": kernel.phase.tokens(),
            "threads": kernel.threads,
            "ops_per_byte": kernel.ops_per_byte,
            "gop_per_second": kernel.gop_per_s.median,
            "best_gop_per_second": kernel.gop_per_s.best,
            "gb_per_second": kernel.gb_per_s.median,
            "percent_of_bandwidth": figures.percent_of_bandwidth(kernel),
            "rounds": kernel.gb_per_s.rounds,
        }),
    )
}

fn peak_json(peak: &Peak) -> Value {
    with_product(&peak.product, json!({"threads": peak.threads, "gop_per_second": peak.gop_per_s}))
}

fn model_json(report: &Report, model: &ModelFigures) -> Value {
    let phase = |phase: &PhaseFigures| {
        let rate = phase.tokens_per_s;
        json!({"tokens": phase.tokens, "tokens_per_second": rate.median, "best_tokens_per_second": rate.best,
            "rounds": rate.rounds})
    };
    let mut prefill = phase(&model.prefill);
    prefill["gop_per_second"] = json!(model.prefill_gop_per_s());
    let mut decode = phase(&model.decode);
    decode["weight_bytes_per_token"] = json!(model.weight_bytes_per_token);
    decode["gb_per_second"] = json!(model.decode_gb_per_s());
    decode["percent_of_bandwidth"] = json!(report.percent_of_bandwidth(model));
    let projected = model.projected.map(|(prefill, decode)| {
        json!({"prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode,
            "layers": model.shape.header.n_layers})
    });
    json!({
        "shape": model.shape.name,
        "weights": model.shape.header.weights.name(),
        "layers": model.layers,
        "threads": model.threads,
        "file_bytes": model.file_bytes,
        "prefill": prefill,
        "decode": decode,
        "projected": projected,
        "peak_memory_bytes": model.peak_memory_bytes,
    })
}
