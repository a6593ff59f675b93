//! How work is divided between given nodes: layers between stages, rows within a stage, rows of the head.

use super::Task;
use super::ways::Way;
use dair_core::plan::cost::{self, Division, Machine, NodeCost};
use dair_core::plan::{Share, Stage};

/// Largest share that is given: fine enough for any part, and small enough for sums.
const SHARE: f64 = 10_000.0;

/// Stages and shares for the nodes of `way`, in variants of which the best is to be found. Parts fill no more than this fraction
/// of memory before they are rounded. Nothing where they do not fit.
pub(super) fn variants(task: &Task<'_>, way: &Way, room: f64) -> Vec<(Vec<Stage>, Vec<Share>)> {
    let with_room = |node: &usize| {
        let machine = task.machines[*node];
        Machine { memory_bytes: (machine.memory_bytes as f64 * room) as u64, ..machine }
    };
    let machines: Vec<_> = way.nodes.iter().map(with_room).collect();
    let stages = stages(task, way, &machines);
    let mut nodes = Vec::with_capacity(machines.len());
    let mut rest = &machines[..];
    for stage in &stages {
        let (own, behind) = rest.split_at(stage.nodes.into());
        let Some(parts) = layer_parts(task, own, stage.layers.into()) else { return Vec::new() };
        nodes.extend(parts.into_iter().zip(own).map(|(part, machine)| Node {
            machine,
            layers: stage.layers.into(),
            part,
        }));
        rest = behind;
    }
    let last = stages.last().map_or(0, |stage| nodes.len() - usize::from(stage.nodes));
    let mut heads = vec![head_parts(task, &nodes, 0)];
    if last > 0 {
        heads.push(head_parts(task, &nodes, last));
    }
    let parts: Vec<_> = nodes.iter().map(|node| node.part).collect();
    let layers = [in_proportion(&parts), in_heads(task, &stages, &parts)];
    let shares = |layers: &[u16], head: &[f64]| -> Vec<_> {
        layers.iter().zip(in_proportion(head)).map(|(layers, head)| Share { layers: *layers, head }).collect()
    };
    let pairs = layers.iter().flat_map(|layers| heads.iter().flatten().map(move |head| (layers, head)));
    pairs.map(|(layers, head)| (stages.clone(), shares(layers, head))).collect()
}

/// A node that knows its part of the layers of its stage.
struct Node<'m> {
    machine: &'m Machine,
    layers: u32,
    part: f64,
}

/// Layers for each stage: as many as fit for those where a layer is fastest, one at least for each.
fn stages(task: &Task<'_>, way: &Way, machines: &[Machine]) -> Vec<Stage> {
    let n_layers = usize::from(task.n_layers());
    let mut open: Vec<_> = Vec::with_capacity(way.sizes.len());
    let mut rest = machines;
    for size in &way.sizes {
        let (own, behind) = rest.split_at(*size);
        open.push(OpenStage { nodes: *size, layers: 1, room: room_of(task, own), layer_s: layer_s(task, own) });
        rest = behind;
    }
    let mut left = n_layers.saturating_sub(open.len());
    let mut order: Vec<_> = (0..open.len()).collect();
    order.sort_by(|a, b| open[*a].layer_s.total_cmp(&open[*b].layer_s));
    for index in &order {
        let more = left.min(open[*index].room.saturating_sub(1));
        open[*index].layers += more;
        left -= more;
    }
    // What has room nowhere is read from a disk, if at all.
    open[order[0]].layers += left;
    open.iter().map(|stage| Stage { nodes: stage.nodes as u16, layers: stage.layers as u16 }).collect()
}

struct OpenStage {
    nodes: usize,
    layers: usize,
    /// Layers that fit the memory.
    room: usize,
    layer_s: f64,
}

/// Layers that nodes have room for, together.
fn room_of(task: &Task<'_>, machines: &[Machine]) -> usize {
    let bytes = |layers, part| {
        let (weights, rest) = task.shape.wanted(layers, part);
        weights.saturating_add(rest)
    };
    let layer_bytes = bytes(2, 1.0) - bytes(1, 1.0);
    let activation_bytes = bytes(0, 1.0 / machines.len() as f64);
    let free = machines.iter().map(|machine| machine.memory_bytes.saturating_sub(activation_bytes));
    (free.fold(0, u64::saturating_add) / layer_bytes.max(1)) as usize
}

/// Seconds of a layer where nodes share it by their speeds.
fn layer_s(task: &Task<'_>, machines: &[Machine]) -> f64 {
    let machines: Vec<_> = machines.iter().map(|machine| Machine { memory_bytes: u64::MAX, ..*machine }).collect();
    let speeds: Vec<_> = machines.iter().map(|machine| machine.bytes_per_s).collect();
    let shares: Vec<_> = in_proportion(&speeds).into_iter().map(|layers| Share { layers, head: 0 }).collect();
    let mut costs = vec![NodeCost::default(); machines.len()];
    let mut seconds = |layers| {
        let stages = [Stage { nodes: machines.len() as u16, layers }];
        let division = Division::Stages { stages: &stages, shares: &shares };
        cost::predict(task.shape, task.software, &machines, division, &mut costs)
    };
    seconds(2) - seconds(1)
}

/// What a node can do of something that is divided.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Seconds that all of it would take from memory.
    memory_s: f64,
    /// Seconds that reading all of it from disk would add.
    disk_s: f64,
    /// The part that fits its memory, up to 1.
    room: f64,
    /// The largest part that it may have.
    most: f64,
}

impl Lane {
    /// The part that it does in `seconds`.
    fn within(&self, seconds: f64) -> f64 {
        let in_memory = seconds / self.memory_s;
        if in_memory <= self.room {
            return in_memory;
        }
        let rest_s = seconds - self.room * self.memory_s;
        (self.room + rest_s / (self.memory_s + self.disk_s)).min(self.most)
    }
}

/// Parts that add up to 1 and finish at the same time, but for lanes that can't have more.
fn balance(lanes: &[Lane]) -> Option<Vec<f64>> {
    if lanes.iter().map(|lane| lane.most).sum::<f64>() < 1.0 {
        return None;
    }
    let sum = |seconds: f64| lanes.iter().map(|lane| lane.within(seconds)).sum::<f64>();
    let longest = |lane: &Lane| if lane.most > 0.0 { lane.memory_s + lane.disk_s } else { 0.0 };
    let (mut low, mut high) = (0.0, lanes.iter().map(longest).fold(0.0, f64::max));
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if sum(middle) < 1.0 { low = middle } else { high = middle }
    }
    Some(lanes.iter().map(|lane| lane.within(high)).collect())
}

/// The part of each node of a stage.
fn layer_parts(task: &Task<'_>, machines: &[Machine], layers: u32) -> Option<Vec<f64>> {
    let bytes = f64::from(layers) * task.shape.layer_read_bytes() as f64;
    let lane = |machine: &Machine| {
        let fits = |part: f64| {
            let (weights, rest) = task.shape.wanted(layers, part);
            weights.saturating_add(rest) <= machine.memory_bytes
        };
        let room = largest(fits);
        let most = if machine.disk_bytes_per_s > 0.0 {
            largest(|part| task.shape.wanted(layers, part).1 <= machine.memory_bytes)
        } else {
            room
        };
        lane(machine, bytes, (room, most))
    };
    balance(&machines.iter().map(lane).collect::<Vec<_>>())
}

/// The part of the output matrix for each node, none for those before `first`.
fn head_parts(task: &Task<'_>, nodes: &[Node<'_>], first: usize) -> Option<Vec<f64>> {
    let bytes = task.shape.head_bytes() as f64;
    let lane = |(index, node): (usize, &Node<'_>)| {
        let (weights, rest) = task.shape.wanted(node.layers, node.part);
        let free = node.machine.memory_bytes.saturating_sub(weights.saturating_add(rest));
        let room = if index < first { 0.0 } else { (free as f64 / bytes).min(1.0) };
        let most = if index >= first && node.machine.disk_bytes_per_s > 0.0 { 1.0 } else { room };
        lane(node.machine, bytes, (room, most))
    };
    balance(&nodes.iter().enumerate().map(lane).collect::<Vec<_>>())
}

fn lane(machine: &Machine, bytes: f64, (room, most): (f64, f64)) -> Lane {
    let disk_s = if most > room { bytes / machine.disk_bytes_per_s } else { 0.0 };
    Lane { memory_s: bytes / machine.bytes_per_s, disk_s, room, most }
}

/// The largest part, from 0 to 1, of which `fits` is true; 0 if it is of none.
fn largest(fits: impl Fn(f64) -> bool) -> f64 {
    if fits(1.0) {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Finer than a block of any model.
    for _ in 0..16 {
        let middle = (low + high) / 2.0;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

/// Shares as large as parts.
fn in_proportion(parts: &[f64]) -> Vec<u16> {
    let most = parts.iter().copied().fold(0.0, f64::max);
    parts.iter().map(|part| (part / most * SHARE).round() as u16).collect()
}

/// Shares that are whole heads, each given to the node of a stage that is done with it first: with few heads, parts in proportion
/// would round some nodes up to more than they can do in the time of the others.
fn in_heads(task: &Task<'_>, stages: &[Stage], parts: &[f64]) -> Vec<u16> {
    let n_heads = task.shape.header().n_heads;
    let mut shares = Vec::with_capacity(parts.len());
    let mut rest = parts;
    for stage in stages {
        let (own, behind) = rest.split_at(stage.nodes.into());
        let mut heads: Vec<_> = own.iter().map(|part| (part * f64::from(n_heads)) as u16).collect();
        let given: u32 = heads.iter().copied().map(u32::from).sum();
        for _ in given..n_heads {
            let done = |node: &usize| f64::from(heads[*node] + 1) / own[*node];
            let first = (0..own.len()).min_by(|a, b| done(a).total_cmp(&done(b)));
            first.into_iter().for_each(|node| heads[node] += 1);
        }
        shares.extend(heads);
        rest = behind;
    }
    shares
}
