//! Which nodes take part, and how they fall into stages: what the planner tries.

use super::{EXHAUSTIVE, Task};
use dair_core::plan::cost::Machine;
use std::cmp::Ordering;

/// A choice of nodes, and how many consecutive ones each stage has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Machines, the root first.
    pub nodes: Vec<usize>,
    /// Nodes of each stage.
    pub sizes: Vec<usize>,
}

/// Calls `visit` with all ways that are worth a try.
pub(super) fn each(task: &Task<'_>, visit: impl FnMut(Way)) {
    let stages_max = task.shape.header().n_layers as usize;
    if task.machines.len() <= EXHAUSTIVE { all(task, stages_max, visit) } else { some(task, stages_max, visit) }
}

/// Nodes with the nearest and widest links first.
fn by_link(a: &Machine, b: &Machine) -> Ordering {
    let near = a.link.round_trip_s.total_cmp(&b.link.round_trip_s);
    near.then(b.link.bytes_per_s.total_cmp(&a.link.bytes_per_s)).then(by_speed(a, b))
}

/// Fast nodes first, of equal ones those with more memory.
fn by_speed(a: &Machine, b: &Machine) -> Ordering {
    b.bytes_per_s.total_cmp(&a.bytes_per_s).then(b.memory_bytes.cmp(&a.memory_bytes))
}

/// Nodes with much memory first.
fn by_memory(a: &Machine, b: &Machine) -> Ordering {
    b.memory_bytes.cmp(&a.memory_bytes).then(by_speed(a, b))
}

/// The workers in some order.
fn workers(task: &Task<'_>, order: fn(&Machine, &Machine) -> Ordering) -> Vec<usize> {
    let mut workers: Vec<_> = (1..task.machines.len()).collect();
    workers.sort_by(|a, b| order(&task.machines[*a], &task.machines[*b]));
    workers
}

/// Every choice of workers and every grouping, stages being of nodes with similar links.
fn all(task: &Task<'_>, stages_max: usize, mut visit: impl FnMut(Way)) {
    let workers = workers(task, by_link);
    for chosen in 0u32..1 << workers.len() {
        let is_chosen = |(place, worker): (usize, &usize)| (chosen >> place & 1 == 1).then_some(*worker);
        let nodes: Vec<_> = [0].into_iter().chain(workers.iter().enumerate().filter_map(is_chosen)).collect();
        // A bit for each neighbours between whom a stage ends.
        for ends in 0u32..1 << (nodes.len() - 1) {
            let mut sizes = vec![1];
            for place in 0..nodes.len() - 1 {
                match sizes.last_mut() {
                    Some(size) if ends >> place & 1 == 0 => *size += 1,
                    _ => sizes.push(1),
                }
            }
            if sizes.len() <= stages_max {
                visit(Way { nodes: nodes.clone(), sizes });
            }
        }
    }
}

/// The first nodes of some orders, in one stage, or in one and some of equal size.
fn some(task: &Task<'_>, stages_max: usize, mut visit: impl FnMut(Way)) {
    for order in [by_link, by_speed, by_memory] {
        let workers = workers(task, order);
        let first = |count: usize| [0].into_iter().chain(workers.iter().copied()).take(count).collect::<Vec<_>>();
        for count in counts(task.most_nodes(), 8) {
            visit(Way { nodes: first(count), sizes: vec![count] });
        }
        for count in counts(task.most_nodes(), 1) {
            for head in counts(count - 1, 1) {
                for size in counts(count - head, 1) {
                    let rest = count - head;
                    let mut sizes = vec![head];
                    sizes.extend(std::iter::repeat_n(size, rest / size));
                    sizes.extend((!rest.is_multiple_of(size)).then_some(rest % size));
                    if sizes.len() <= stages_max {
                        visit(Way { nodes: first(count), sizes });
                    }
                }
            }
        }
    }
}

/// Numbers up to `most`: all small ones, then `steps` for each doubling, and the last.
fn counts(most: usize, steps: usize) -> impl Iterator<Item = usize> {
    let next = move |count: &usize| (*count < most).then(|| (count + (count / steps).max(1)).min(most));
    std::iter::successors((most > 0).then_some(1), next)
}
