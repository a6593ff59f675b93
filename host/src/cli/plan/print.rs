//! A plan as a table and some sentences, or as JSON.

use super::{Board, Cluster, Decision, Figure};
use crate::cluster::planner::{Choice, Proposal};
use dair_core::graph::MAX_NODES;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Lines up to which a table is shown whole, and lines that are shown of a longer one.
const ROWS_MAX: usize = 40;
const ROWS_SHOWN: usize = 20;

/// A way of cutting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Alone,
    Rows,
    Layers,
    Columns,
    Star,
}

impl Cut {
    /// That of a plan of the native dialect.
    pub fn of(proposal: &Proposal) -> Self {
        match (proposal.nodes.len(), proposal.stages.len()) {
            (1, _) => Self::Alone,
            (_, 1) => Self::Rows,
            _ => Self::Layers,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Rows => "rows",
            Self::Layers => "layers",
            Self::Columns => "columns",
            Self::Star => "star",
        }
    }

    fn describe(self, proposal: &Proposal) -> String {
        let (nodes, stages) = (proposal.nodes.len(), proposal.stages.len());
        match self {
            Self::Alone => "all on the root".into(),
            Self::Rows => format!("by rows over {nodes} nodes"),
            Self::Layers => format!("by layers in {stages} stages over {nodes} nodes"),
            Self::Columns => format!("in equal parts by columns over {nodes} nodes"),
            Self::Star => format!("in equal parts by way of the root over {nodes} nodes"),
        }
    }
}

/// What is to be printed.
pub(super) struct View<'v> {
    pub model: &'v str,
    pub is_simulated: bool,
    /// Published figures of the machines.
    pub figures: &'v [Figure],
    pub cluster: &'v Cluster,
    pub decision: &'v Decision,
}

/// A line of the table.
struct Line {
    stage: usize,
    name: String,
    /// Of the layers of its stage, and of the head.
    shares: [f64; 2],
    layers: u16,
    wanted_bytes: u64,
    memory_bytes: u64,
    /// Computing, network, disk, and waiting for others.
    ms: [f64; 4],
    fits: bool,
}

impl View<'_> {
    fn lines(&self) -> Vec<Line> {
        let Proposal { nodes, stages, shares, seconds, costs } = &self.decision.proposal;
        let all_head: f64 = shares.iter().map(|share| f64::from(share.head)).sum();
        let mut lines = Vec::with_capacity(nodes.len());
        let mut start = 0;
        for (index, stage) in stages.iter().enumerate() {
            let own = start..start + usize::from(stage.nodes);
            start = own.end;
            let all_layers: f64 = shares[own.clone()].iter().map(|share| f64::from(share.layers)).sum();
            lines.extend(own.map(|node| {
                let (share, cost, machine) = (shares[node], &costs[node], nodes[node]);
                let busy = [cost.compute_s, cost.network_s, cost.disk_s];
                let waits = if seconds.is_finite() { (seconds - busy.iter().sum::<f64>()).max(0.0) } else { 0.0 };
                Line {
                    stage: index,
                    name: self.cluster.names[machine].clone(),
                    shares: [f64::from(share.layers) / all_layers, f64::from(share.head) / all_head],
                    layers: stage.layers,
                    wanted_bytes: cost.wanted_bytes(),
                    memory_bytes: self.cluster.machines[machine].memory_bytes,
                    ms: [busy[0], busy[1], busy[2], waits].map(|seconds| 1e3 * seconds),
                    fits: cost.fits,
                }
            }));
        }
        lines
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if !self.figures.is_empty() {
            writeln!(
                out,
                "published figures of these boards (C++ Distributed-Llama), and what the same cost model says of them:"
            )?;
            for figure in self.figures {
                let (predicted, Figure { board, nodes, model, ms }) = (figure.predicted_ms(), figure);
                let percent = 100.0 * (predicted / ms - 1.0);
                writeln!(
                    out,
                    "  {nodes} x {}, {model}: {ms:.0} ms per token, predicted {predicted:.0} ({percent:+.1} %)",
                    board.name()
                )?;
            }
            writeln!(out)?;
        }
        if self.is_simulated {
            writeln!(out, "{}, simulated: predictions for a described cluster, not measurements", self.model)?;
        } else {
            writeln!(out, "{}: predictions from measured speeds and ways", self.model)?;
        }
        self.write_table(out)?;
        writeln!(out)?;
        self.reasons().iter().try_for_each(|reason| writeln!(out, "{reason}"))
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let lines = self.lines();
        let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max("node".len());
        writeln!(
            out,
            "{:>9}  {:<width$}  {:>5} {:>6}  {:>7} {:>7}  {:>16}  {:>10} {:>10} {:>10} {:>10}",
            "", "node", "stage", "layers", "share", "head", "memory", "compute ms", "network ms", "disk ms", "waits ms"
        )?;
        let mut rows: Vec<(usize, usize, String)> = Vec::new();
        for (node, line) in lines.iter().enumerate() {
            let [compute, network, disk, waits] = line.ms;
            let [share, head] = line.shares.map(|share| 100.0 * share);
            let memory = format!("{:.2} of {:.1} GB", line.wanted_bytes as f64 / 1e9, line.memory_bytes as f64 / 1e9);
            let mut text = format!(
                "{:<width$}  {:>5} {:>6}  {share:>5.1} % {head:>5.1} %  {memory:>16}  {compute:>10.2} {network:>10.2} {disk:>10.2} {waits:>10.2}",
                line.name, line.stage, line.layers
            );
            if !line.fits {
                text += "  does not fit";
            }
            match rows.last_mut() {
                Some((_, end, before)) if *before == text => *end = node,
                _ => rows.push((node, node, text)),
            }
        }
        let hidden = if rows.len() > ROWS_MAX { rows.split_off(ROWS_SHOWN) } else { Vec::new() };
        for (start, end, text) in rows {
            let nodes = if start == end { start.to_string() } else { format!("{start} to {end}") };
            writeln!(out, "{nodes:>9}  {text}")?;
        }
        match (hidden.first(), hidden.last()) {
            (Some((start, ..)), Some((_, end, _))) => writeln!(out, "and {start} to {end}: --json lists them"),
            _ => Ok(()),
        }
    }

    /// Why this cut.
    fn reasons(&self) -> Vec<String> {
        let Decision { cut, proposal, choice } = self.decision;
        let what = cut.describe(proposal);
        let mut reasons = Vec::new();
        if proposal.seconds.is_finite() {
            let (ms, rate) = (1e3 * proposal.seconds, 1.0 / proposal.seconds);
            reasons.push(format!("{what}: {ms:.1} ms per token, {rate:.2} tokens/s (predicted)"));
        } else {
            reasons.push(format!("{what}: does not fit the memory"));
        }
        let Some(choice) = choice else { return reasons };
        let others: Vec<_> = instead(choice)
            .into_iter()
            .filter(|(_, other)| other.is_none_or(|other| other != proposal))
            .map(|(name, other)| match other {
                Some(other) => format!("{} {:.1} ms", name, 1e3 * other.seconds),
                None => format!("{name} does not fit"),
            })
            .collect();
        if !others.is_empty() && self.cluster.machines.len() > 1 {
            reasons.push(format!("other ways: {}", others.join(", ")));
        }
        let idle = self.cluster.machines.len() - proposal.nodes.len();
        if idle > 0 {
            let (nodes, have) = if idle == 1 { ("node", "has") } else { ("nodes", "have") };
            let why = if proposal.nodes.len() == MAX_NODES as usize {
                format!("a plan has up to {MAX_NODES}")
            } else {
                "a token would hardly be faster by more, or slower".to_owned()
            };
            reasons.push(format!("{idle} {nodes} {have} nothing to do: {why}"));
        }
        reasons
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let Decision { cut, proposal, choice } = self.decision;
        let ms = |seconds: f64| seconds.is_finite().then_some(1e3 * seconds);
        let nodes = self.lines().into_iter().zip(&proposal.costs).zip(&proposal.shares).zip(&proposal.nodes);
        let nodes: Vec<_> = nodes
            .map(|(((line, cost), share), machine)| {
                let [compute, network, disk, waits] = line.ms;
                json!({
                    "machine": machine, "name": line.name, "stage": line.stage,
                    "layers": share.layers, "head": share.head,
                    "weight_bytes": cost.weight_bytes, "cache_bytes": cost.cache_bytes,
                    "activation_bytes": cost.activation_bytes, "memory_bytes": line.memory_bytes, "fits": line.fits,
                    "compute_ms": compute, "network_ms": network, "disk_ms": disk, "waits_ms": waits,
                })
            })
            .collect();
        let stages: Vec<_> =
            proposal.stages.iter().map(|stage| json!({ "nodes": stage.nodes, "layers": stage.layers })).collect();
        let published: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                json!({
                    "board": Board::name(figure.board), "nodes": figure.nodes, "model": figure.model,
                    "ms": figure.ms, "predicted_ms": figure.predicted_ms(),
                })
            })
            .collect();
        let others = choice.as_ref().map(|choice| {
            instead(choice)
                .map(|(name, other)| (name.to_owned(), json!(other.and_then(|other| ms(other.seconds)))))
                .into_iter()
        });
        json!({
            "model": self.model, "simulated": self.is_simulated, "published": published, "cut": cut.name(),
            "predicted_ms": ms(proposal.seconds), "machines": self.cluster.machines.len(), "nodes": nodes, "stages": stages,
            "other_ways_ms": others.map(serde_json::Map::from_iter),
        })
    }
}

/// What a plan was chosen from.
fn instead(choice: &Choice) -> [(&'static str, Option<&Proposal>); 4] {
    let Choice { rows, layers, alone, equal, .. } = choice;
    [("alone", alone.as_ref()), ("rows", rows.as_ref()), ("layers", layers.as_ref()), ("equal parts", equal.as_ref())]
}
