//! The report as text.

use super::Report;
use crate::bench::kernels::{Figures, KernelFigures, Phase};
use crate::bench::machine::{Cache, Machine};
use crate::bench::model::ModelFigures;
use dair_core::kernels::Isa;
use std::fmt::{self, Write as _};

/// Times that the best reading of memory may exceed the median on a machine that does nothing else.
const BUSY: f64 = 1.3;

/// Everything that was found.
pub fn of(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_all(&mut out, report);
    out
}

fn write_all(out: &mut String, report: &Report) -> fmt::Result {
    machine(out, report)?;
    bandwidth(out, &report.figures)?;
    for isa in report.figures.isas() {
        kernels(out, &report.figures, isa)?;
    }
    if let Some(figures) = &report.model {
        model(out, report, figures)?;
    }
    Ok(())
}

fn machine(out: &mut String, Report { machine, isa, relaxed, .. }: &Report) -> fmt::Result {
    let Machine { processors, usable_processors, .. } = machine;
    writeln!(out, "{}", machine.name)?;
    writeln!(out, "  {:<12} {processors}, {usable_processors} may be used", "processors")?;
    if !machine.caches.is_empty() {
        let caches: Vec<_> = machine.caches.iter().map(cache).collect();
        writeln!(out, "  {:<12} {}", "caches", caches.join(", "))?;
    }
    if let Some(bytes) = machine.memory_bytes {
        let free = machine.available_bytes.map_or_else(String::new, |bytes| format!(", {} free", gigabytes(bytes)));
        writeln!(out, "  {:<12} {}{free}", "memory", gigabytes(bytes))?;
    }
    if !machine.features.is_empty() {
        writeln!(out, "  {:<12} {}", "features", machine.features.join(" "))?;
    }
    let isas: Vec<_> = machine.isas.iter().map(|isa| isa.name()).collect();
    let prefill = if *relaxed { ", prefill relaxed where that is faster" } else { "" };
    writeln!(out, "  {:<12} {}; used: {isa}{prefill}", "kernels", isas.join(" "))
}

fn cache(cache: &Cache) -> String {
    let Cache { level, bytes, count } = *cache;
    let size =
        if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) };
    if count == 1 { format!("L{level} {size}") } else { format!("L{level} {count} × {size}") }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn bandwidth(out: &mut String, figures: &Figures) -> fmt::Result {
    let megabytes = figures.buffer_bytes as f64 / 1e6;
    writeln!(out, "\n{:<29} {:>7} {:>13} {:>13}", format!("reading {megabytes:.0} MB"), "threads", "GB/s", "best")?;
    let mut is_busy = false;
    for bandwidth in &figures.bandwidths {
        let rate = bandwidth.gb_per_s;
        is_busy |= rate.best > BUSY * rate.median;
        writeln!(out, "{:<29} {:>7} {:>13.1} {:>13.1}", "  memory", bandwidth.threads, rate.median, rate.best)?;
    }
    if is_busy {
        writeln!(out, "  note: rounds differ much, so other programs were at work; alone, this machine is faster")?;
    }
    Ok(())
}

fn kernels(out: &mut String, figures: &Figures, isa: Isa) -> fmt::Result {
    let title = format!("kernels: {isa}");
    writeln!(out, "\n{title:<29} {:>7} {:>13} {:>13} {:>13}", "threads", "decode", "prefill", "in caches")?;
    writeln!(out, "{:<29} {:>7} {:>13} {:>13} {:>13}", "  weights × inputs", "", "GB/s", "Gop/s", "Gop/s")?;
    let of_isa: Vec<_> = figures.kernels.iter().filter(|kernel| kernel.product.isa == isa).collect();
    for decode in of_isa.iter().filter(|kernel| kernel.phase == Phase::Decode) {
        let speed = |phase: Phase| {
            let is_same = |kernel: &&&KernelFigures| {
                (kernel.phase, kernel.product, kernel.threads) == (phase, decode.product, decode.threads)
            };
            of_isa.iter().find(is_same).map_or(0.0, |kernel| kernel.gop_per_s.median)
        };
        let product = decode.product;
        writeln!(
            out,
            "  {:<27} {:>7} {:>7.1} {:>3.0} % {:>13.1} {:>13.1}",
            format!("{} × {}", product.weights, product.activations),
            decode.threads,
            decode.gb_per_s.median,
            figures.percent_of_bandwidth(decode),
            speed(Phase::Prefill),
            speed(Phase::Cached),
        )?;
    }
    for peak in figures.peaks().iter().filter(|peak| peak.product.isa == isa) {
        writeln!(out, "  {:<27} {:>7} {:>41.1}", "best", peak.threads, peak.gop_per_s)?;
    }
    writeln!(out, "  %: of the memory's GB/s with as many threads")
}

fn model(out: &mut String, report: &Report, model: &ModelFigures) -> fmt::Result {
    let header = &model.shape.header;
    let threads = if model.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", model.threads) };
    let layers = if model.layers == header.n_layers {
        format!("{} layers", model.layers)
    } else {
        format!("{} of {} layers", model.layers, header.n_layers)
    };
    writeln!(
        out,
        "\n{}, {} weights, {layers}, {:.0} MB, {threads}",
        model.shape.name,
        header.weights,
        model.file_bytes as f64 / 1e6
    )?;
    writeln!(
        out,
        "  prefill {:>4} tokens {:>10.1} tokens/s   {:.1} Gop/s",
        model.prefill.tokens,
        model.prefill.tokens_per_s.median,
        model.prefill_gop_per_s()
    )?;
    writeln!(
        out,
        "  decode  {:>4} tokens {:>10.1} tokens/s   {:.1} MB of weights per token: {:.1} GB/s, {:.0} % of the memory's",
        model.decode.tokens,
        model.decode.tokens_per_s.median,
        model.weight_bytes_per_token as f64 / 1e6,
        model.decode_gb_per_s(),
        report.percent_of_bandwidth(model)
    )?;
    if let Some((prefill, decode)) = model.projected {
        let layers = header.n_layers;
        writeln!(out, "  projected to {layers} layers: prefill {prefill:.2}, decode {decode:.2} tokens/s")?;
    }
    writeln!(out, "  {:.1} MB of memory at its peak", model.peak_memory_bytes as f64 / 1e6)
}
