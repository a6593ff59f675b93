use super::published::{GIGABIT, PI5};
use super::*;
use crate::cluster::tables::GraphTables;
use crate::synthetic::preset;
use dair_core::exec::{Place, Program, Rooms, Step};
use dair_core::kernels::KvType;
use dair_core::plan::cost::Link;
use dair_core::plan::{self, activations_of};
use proptest::prelude::*;
use std::time::Instant;

/// A published shape with a context of as many positions, kept in F16.
fn shape(name: &str, positions: u64) -> Shape {
    let header = preset(name).unwrap();
    let cache_head_bytes = 2 * 2 * positions * u64::from(header.head_dim);
    Shape::new(&Layout::new(&header).unwrap(), activations_of(header.weights)[0], BATCH, cache_head_bytes)
}

fn choose(shape: &Shape, machines: &[Machine]) -> Choice {
    Task { shape, software: &Software::DAIR, machines }.choose().unwrap()
}

/// Fast enough for exchanges to cost little.
const LOOPBACK: Link = Link { round_trip_s: 10e-6, bytes_per_s: 5e9 };

const SERVER: Machine =
    Machine { bytes_per_s: 20e9, memory_bytes: 64_000_000_000, disk_bytes_per_s: 0.0, link: LOOPBACK };

fn check(task: &Task<'_>, proposal: &Proposal) {
    let Proposal { nodes, stages, shares, costs, .. } = proposal;
    assert_eq!(nodes.first(), Some(&0), "the root is node 0");
    let mut seen = nodes.clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), nodes.len(), "nobody is two nodes");
    assert!(nodes.iter().all(|node| *node < task.machines.len()));
    assert_eq!((shares.len(), costs.len()), (nodes.len(), nodes.len()));
    assert_eq!(stages.iter().map(|stage| usize::from(stage.nodes)).sum::<usize>(), nodes.len());
    assert_eq!(stages.iter().map(|stage| stage.layers).sum::<u16>(), task.n_layers());
    assert!(stages.iter().all(|stage| stage.nodes > 0 && stage.layers > 0));
    let mut rest = &shares[..];
    for stage in stages {
        let (own, behind) = rest.split_at(stage.nodes.into());
        assert!(own.iter().any(|share| share.layers > 0), "somebody computes each stage");
        rest = behind;
    }
    assert!(shares.iter().any(|share| share.head > 0), "somebody computes the head");
    for (node, cost) in nodes.iter().zip(costs) {
        let machine = &task.machines[*node];
        assert!(cost.wanted_bytes() <= machine.memory_bytes || machine.disk_bytes_per_s > 0.0);
        let busy = cost.compute_s + cost.network_s + cost.disk_s;
        assert!(busy <= proposal.seconds * 1.000_001, "nobody is busy for longer than a token takes");
    }
}

fn machines() -> impl Strategy<Value = Vec<Machine>> {
    let machine = (5e8..3e10, 100_000_000u64..2_000_000_000, prop_oneof![Just(0.0), 1e7..2e9], 1e-5..2e-2, 1e6..2e9)
        .prop_map(|(bytes_per_s, memory_bytes, disk_bytes_per_s, round_trip_s, link)| Machine {
            bytes_per_s,
            memory_bytes,
            disk_bytes_per_s,
            link: Link { round_trip_s, bytes_per_s: link },
        });
    prop::collection::vec(machine, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_plan_is_whole_fits_and_is_no_worse_than_the_plain_ones(machines in machines(), name in 0usize..3) {
        let shape = shape(["smollm2-135m", "llama3.2-1b", "qwen3-0.6b"][name], 1024);
        let task = Task { shape: &shape, software: &Software::DAIR, machines: &machines };
        let (alone, equal) = (task.alone(), task.equal());
        let plain = alone.iter().chain(&equal).cloned().chain(task.single_workers());
        let least = plain.map(|plan| plan.seconds).fold(f64::INFINITY, f64::min);
        match task.choose() {
            Ok(choice) => {
                [Some(&choice.best), choice.rows.as_ref(), choice.layers.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(|proposal| check(&task, proposal));
                prop_assert!(choice.best.seconds <= least, "{} s, a plain plan {least} s", choice.best.seconds);
            }
            Err(_) => prop_assert!(least.is_infinite()),
        }
    }
}

#[test]
fn a_node_of_half_the_speed_gets_half_and_the_cut_is_near_the_optimum() {
    let shape = shape("llama3.2-1b", 1024);
    let machines = [SERVER, Machine { bytes_per_s: 10e9, ..SERVER }];
    let Choice { best, equal, .. } = choose(&shape, &machines);
    let equal = equal.unwrap();
    let compute = |plan: &Proposal| plan.costs.iter().map(|cost| cost.compute_s).fold(0.0, f64::max);
    // Both together read 30 GB/s; in equal parts, 20.
    let read = f64::from(shape.header().n_layers) * shape.layer_read_bytes() as f64 + shape.head_bytes() as f64;
    assert!(compute(&best) < 1.1 * read / 30e9, "{} of {}", compute(&best), read / 30e9);
    assert!(compute(&equal) > 1.4 * compute(&best));
}

#[test]
fn slow_links_make_stages_or_one_node_of_what_fast_ones_make_rows() {
    let with = |name, link, memory_bytes| {
        let machines = [Machine { link, memory_bytes, ..PI5 }; 4];
        choose(&shape(name, 2048), &machines)
    };
    let near = with("llama3-8b", GIGABIT, 7_000_000_000).best;
    assert_eq!((near.nodes.len(), near.stages.len()), (4, 1));
    let far = Link { round_trip_s: 5e-3, bytes_per_s: 12.5e6 };
    assert_eq!(with("llama3.2-1b", far, 7_000_000_000).best.nodes, [0]);
    // Too little memory for one.
    let Choice { best, rows, .. } = with("llama3-8b", far, 3_000_000_000);
    assert!(best.stages.len() > 1 && best.stages[0].nodes == 1, "{best:?}");
    assert!(rows.unwrap().seconds > 1.15 * best.seconds);
}

#[test]
fn a_model_that_fits_nobody_is_refused_with_both_sizes_and_a_disk_makes_it_slow() {
    let shape = shape("llama3.1-405b", 2048);
    let task = |machines: &[Machine]| Task { shape: &shape, software: &Software::DAIR, machines }.choose();
    let error = task(&[SERVER]).unwrap_err().to_string();
    assert!(error.contains("228.") && error.contains("64.0 GB"), "{error}");
    let best = task(&[Machine { disk_bytes_per_s: 2e9, ..SERVER }]).unwrap().best;
    assert!(best.costs[0].disk_s > 70.0 && best.costs[0].disk_s < 100.0, "{best:?}");
}

#[test]
fn memory_moves_work_to_others() {
    let shape = shape("llama3-8b", 1024);
    let machines = [SERVER, Machine { memory_bytes: 1_000_000_000, ..SERVER }, SERVER];
    let task = Task { shape: &shape, software: &Software::DAIR, machines: &machines };
    let best = task.choose().unwrap().best;
    check(&task, &best);
    assert_eq!(best.nodes.len(), 3);
    let small = best.nodes.iter().position(|node| *node == 1).unwrap();
    assert!(best.costs[small].weight_bytes < best.costs[0].weight_bytes / 2);
}

#[test]
fn a_thousand_nodes_and_the_largest_shape_are_planned_at_once() {
    let shape = shape("llama3.1-405b", 8192);
    let machines: Vec<_> = (0..1000)
        .map(|index| Machine { bytes_per_s: PI5.bytes_per_s * (1.0 + f64::from(index % 7) / 7.0), ..PI5 })
        .collect();
    let start = Instant::now();
    let task = Task { shape: &shape, software: &Software::DAIR, machines: &machines };
    let best = task.choose().unwrap().best;
    check(&task, &best);
    assert!(best.nodes.len() <= MAX_NODES as usize);
    let seconds = start.elapsed().as_secs_f64();
    // With few optimisations, as tests are compiled; qemu, which the variable is for, takes about ten times as long.
    let most = if std::env::var_os("QEMU_CPU").is_some() { 100.0 } else { 10.0 };
    assert!(seconds < most, "{seconds} s; allowed: {most} s");
}

/// Both count the same rows; what lanes work with, and the edges of parts, are missing in the estimate.
#[test]
fn estimated_activations_are_near_what_a_program_takes() {
    for name in ["smollm2-135m", "llama3.2-1b", "qwen3-30b-a3b"] {
        let header = dair_core::format::Header { seq_len: 256, ..preset(name).unwrap() };
        let layout = Layout::new(&header).unwrap();
        let kv = KvLayout::new(KvType::F16, header.head_dim as usize).unwrap();
        let shares = [Share::EQUAL; 3];
        let cut = Cut::rows(&header, &shares);
        let shape = super::shape(&layout, cut.activation, &kv, header.seq_len);
        let task = Task { shape: &shape, software: &Software::DAIR, machines: &[SERVER; 3] };
        for (node, cost) in (0..).zip(&task.equal().unwrap().costs) {
            let mut tables = GraphTables::new(cut.sizes(&header));
            let graph = plan::build(&layout, &cut, node, tables.tables()).unwrap();
            let mut places = vec![Place::default(); Program::places_len(&graph)];
            let mut steps = vec![Step::default(); graph.ops.len()];
            let rooms = Rooms { places: &mut places, steps: &mut steps };
            let program = Program::new(&graph, layout.file_bytes(), KvType::F16, 1, rooms).unwrap();
            let ratio = (cost.cache_bytes + cost.activation_bytes) as f64 / program.arena_bytes() as f64;
            assert!(ratio > 0.8 && ratio < 1.1, "{name}, node {node}: {ratio} of {}", program.arena_bytes());
        }
    }
}
