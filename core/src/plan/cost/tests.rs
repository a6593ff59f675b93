use super::*;
use crate::format::{Arch, Header, Layout, RopeKind, RopeScaling};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// The shape of Llama 3.2 1B.
fn header() -> Header {
    Header {
        version: 0,
        arch: Arch::Llama,
        dim: 2048,
        hidden_dim: 8192,
        n_layers: 16,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 64,
        n_experts: 0,
        n_active_experts: 0,
        moe_hidden_dim: 0,
        vocab_size: 128_256,
        seq_len: 8192,
        hidden_act: 1,
        rope: RopeKind::Llama,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::default(),
        weights: DType::Q40,
        norm_epsilon: 1e-5,
        header_bytes: 136,
    }
}

/// The same with experts.
fn experts() -> Header {
    Header {
        arch: Arch::Qwen3Moe,
        rope: RopeKind::Falcon,
        n_experts: 16,
        n_active_experts: 4,
        moe_hidden_dim: 1024,
        ..header()
    }
}

const CACHE_HEAD: u64 = 1 << 20;

fn shape(header: &Header) -> Shape {
    Shape::new(&Layout::new(header).unwrap(), DType::Q80, 32, CACHE_HEAD)
}

/// Moves a byte in a second, and nothing else takes time.
const BYTES: Software = Software { exchange_s: 0.0, layer_s: 0.0, burst_bytes: f64::INFINITY };
const MACHINE: Machine = Machine {
    bytes_per_s: f64::INFINITY,
    memory_bytes: u64::MAX,
    disk_bytes_per_s: 0.0,
    link: Link { round_trip_s: 0.0, bytes_per_s: 1.0 },
};

fn rows(header: &Header, software: &Software, machines: &[Machine], shares: &[Share]) -> (f64, Vec<NodeCost>) {
    let stages = [Stage { nodes: machines.len() as u16, layers: header.n_layers as u16 }];
    stages_of(header, software, machines, (&stages, shares))
}

fn stages_of(
    header: &Header,
    software: &Software,
    machines: &[Machine],
    (stages, shares): (&[Stage], &[Share]),
) -> (f64, Vec<NodeCost>) {
    let mut costs = vec![NodeCost::default(); machines.len()];
    let division = Division::Stages { stages, shares };
    let seconds = predict(&shape(header), software, machines, division, &mut costs);
    (seconds, costs)
}

/// As counted by the root of a running cluster (`benches/results/2026-11-26-native-cluster.md`), in kB per token; for columns
/// into a node by the cut, without embedding and logits.
#[test]
fn bytes_into_a_node_are_those_that_were_measured() {
    for (nodes, by_rows, by_columns) in [(2, 129.0, 70.0), (4, 193.0, 209.0), (8, 225.0, 488.0)] {
        let machines = vec![MACHINE; nodes];
        let (_, costs) = rows(&header(), &BYTES, &machines, &vec![Share::EQUAL; nodes]);
        assert!((costs[0].network_s / 1e3 - by_rows).abs() < 1.5, "{nodes} nodes: {} bytes", costs[0].network_s);
        let mut costs = vec![NodeCost::default(); nodes];
        let division = Division::Columns { exchange: DType::Q80 };
        predict(&shape(&header()), &BYTES, &machines, division, &mut costs);
        let (embedding, logits) = (4.0 * 2048.0, 4.0 * 128_256.0 / nodes as f64);
        let sums = costs[1].network_s - embedding - logits;
        assert!((sums / 1e3 - by_columns).abs() < 1.0, "{nodes} nodes: {sums} bytes");
    }
}

#[test]
fn one_node_reads_every_matrix_once_and_of_experts_the_active_ones() {
    for (header, active) in [(header(), 1.0), (experts(), 0.25)] {
        let layout = Layout::new(&header).unwrap();
        let (mut read, mut kept) = (0.0, 0);
        layout.visit(|id, tensor| {
            use crate::format::layout::{LayerTensor as T, TensorId};
            let part = match id {
                TensorId::Layer(_, T::W1(_) | T::W2(_) | T::W3(_)) => active,
                TensorId::Embedding => return,
                _ if tensor.rows == 1 => return,
                _ => 1.0,
            };
            read += part * tensor.bytes() as f64;
            kept += tensor.bytes();
        });
        let machine = Machine { bytes_per_s: 1.0, ..MACHINE };
        let (seconds, costs) = rows(&header, &BYTES, &[machine], &[Share::EQUAL]);
        assert_eq!((seconds, costs[0].weight_bytes), (read, kept));
        assert_eq!(costs[0].cache_bytes, 16 * 8 * CACHE_HEAD);
    }
}

#[test]
fn what_has_no_room_comes_from_disk_or_does_not_fit() {
    let alone = |memory_bytes, disk_bytes_per_s| {
        let machine = Machine { bytes_per_s: 1e9, memory_bytes, disk_bytes_per_s, ..MACHINE };
        let (seconds, costs) = rows(&header(), &BYTES, &[machine], &[Share::EQUAL]);
        (seconds, costs[0])
    };
    let (all_s, all) = alone(u64::MAX, 0.0);
    let wanted = all.wanted_bytes();
    assert_eq!(alone(wanted, 0.0).0, all_s);
    assert_eq!((alone(wanted - 1, 0.0).0, alone(wanted - 1, 0.0).1.fits), (f64::INFINITY, false));
    let (seconds, cost) = alone(wanted - 100_000_000, 1e8);
    assert!((seconds - all_s - 1.0).abs() < 1e-3 && (cost.disk_s - 1.0).abs() < 1e-3, "{seconds} s, {cost:?}");
    // Cache and activations can't be read from disk.
    assert_eq!(alone(wanted - all.weight_bytes - 1, 1e8).0, f64::INFINITY);
}

#[test]
fn stages_add_up_and_rows_divide() {
    let machine = Machine { bytes_per_s: 1e9, link: Link { round_trip_s: 0.0, bytes_per_s: f64::INFINITY }, ..MACHINE };
    let (one_s, _) = rows(&header(), &BYTES, &[machine], &[Share::EQUAL]);
    let (two_s, _) = rows(&header(), &BYTES, &[machine; 2], &[Share::EQUAL; 2]);
    assert!((two_s - one_s / 2.0).abs() < 1e-9);
    let stages = [Stage { nodes: 1, layers: 4 }, Stage { nodes: 1, layers: 12 }];
    let only_layers = [Share { layers: 1, head: 0 }, Share { layers: 1, head: 1 }];
    let (stages_s, costs) = stages_of(&header(), &BYTES, &[machine; 2], (&stages, &only_layers));
    assert!((stages_s - one_s).abs() < 1e-9);
    assert_eq!(costs[0].cache_bytes * 3, costs[1].cache_bytes);
    // A hand-off, the way to the head, and the best logits: three ways of half a round trip.
    let far = Machine { link: Link { round_trip_s: 2.0, ..machine.link }, ..machine };
    let (far_s, _) = stages_of(&header(), &BYTES, &[far; 2], (&stages, &only_layers));
    assert!((far_s - stages_s - 3.0).abs() < 1e-9, "{far_s} s");
    let (far_s, _) = rows(&header(), &BYTES, &[far; 2], &[Share::EQUAL; 2]);
    assert!((far_s - two_s - (16.0 * 4.0 + 2.0)).abs() < 1e-9, "{far_s} s");
}

proptest! {
    #[test]
    fn parts_of_any_shares_add_up_to_the_whole(shares in prop::collection::vec((0u16..1000, 0u16..1000), 1..20), moe: bool) {
        let header = if moe { experts() } else { header() };
        let shares: Vec<_> = shares.into_iter().map(|(layers, head)| Share { layers, head }).collect();
        prop_assume!(shares.iter().any(Share::has_layers) && shares.iter().any(Share::has_head));
        let machine = Machine { bytes_per_s: 1.0, ..MACHINE };
        let machines = vec![machine; shares.len()];
        let (_, costs) = rows(&header, &BYTES, &machines, &shares);
        let (_, alone) = rows(&header, &BYTES, &[machine], &[Share::EQUAL]);
        let read: f64 = costs.iter().map(|cost| cost.compute_s).sum();
        let kept: u64 = costs.iter().map(|cost| cost.weight_bytes).sum();
        // Some KV heads, and the router, are on several nodes.
        prop_assert!(read >= alone[0].compute_s && kept >= alone[0].weight_bytes);
        let twice = (2 * 64 * 1152 + 16 * 2048 * 4) * 16 * shares.len() as u64;
        prop_assert!(kept - alone[0].weight_bytes <= twice, "{} bytes more", kept - alone[0].weight_bytes);
    }
}
