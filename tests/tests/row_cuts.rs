//! Nodes that share a model by rows compute what one node computes, bit for bit, in whatever parts.

use dair_core::format::Header;
use dair_core::io::{Pool, Serial};
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{Cut, Parts, Quantity, Share, Stage, Way};
use dair_core::quant::DType;
use dair_host::machine::cpu::{best_kernels, isas, kernels};
use dair_host::machine::pool::Threads;
use dair_host::synthetic::{model_bytes, preset};
use dair_tests::models::Case;
use dair_tests::random::{Random, tokens};
use dair_tests::run::assert_same_bits;
use dair_tests::turns::Turns;
use dair_tests::{mesh, models, run};

/// A model, some tokens, and their logits on one node.
struct Reference {
    case: Case,
    file: Vec<u8>,
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

impl Reference {
    fn new(case: Case) -> Self {
        let file = model_bytes(&case.header, 3);
        let tokens = tokens(3, 14, case.header.vocab_size);
        let cut = (&case.single(), KvType::default());
        let logits = run::logits(&file, cut, (&Serial, Kernels::SCALAR), &tokens, &[1]);
        Self { case, file, tokens, logits }
    }

    #[track_caller]
    fn check<P: Pool>(&self, shares: &[Share], computing: (impl Fn() -> P + Sync, Kernels), batches: &[usize]) {
        self.check_stages((shares, &[]), computing, batches);
    }

    #[track_caller]
    fn check_stages<P: Pool>(
        &self,
        (shares, stages): (&[Share], &[Stage]),
        (pool, kernels): (impl Fn() -> P + Sync, Kernels),
        batches: &[usize],
    ) {
        let cut = self.case.stages(shares, stages);
        let got = mesh::logits(&self.file, (&cut, KvType::default()), (pool, kernels), &self.tokens, batches);
        assert_same_bits(
            &got,
            &self.logits,
            &format!("{}, {shares:?}, {stages:?}, batches {batches:?}", self.case.name),
        );
    }
}

fn of_layers(layers: &[u16]) -> Vec<Share> {
    layers.iter().map(|layers| Share { layers: *layers, head: *layers }).collect()
}

#[test]
fn one_to_twelve_equal_nodes_compute_what_one_computes() {
    for reference in models::all().into_iter().map(Reference::new) {
        for nodes in [1, 2, 3, 4, 5, 8, 12] {
            reference.check(&vec![Share::EQUAL; nodes], (|| Serial, best_kernels()), &[5, 1]);
        }
    }
}

#[test]
fn shares_may_be_uneven_and_empty() {
    let lists = [
        vec![2, 1, 1],
        vec![1, 7],
        // A root that only takes samples, workers that have nothing to do.
        vec![0, 1],
        vec![0, 3, 0, 1, 0],
        vec![1, 0, 0],
    ];
    for reference in models::all().into_iter().map(Reference::new) {
        for list in &lists {
            reference.check(&of_layers(list), (|| Serial, best_kernels()), &[3, 1, 4]);
        }
        // The output matrix is somebody else's.
        let apart = [Share { layers: 3, head: 0 }, Share { layers: 1, head: 0 }, Share { layers: 0, head: 1 }];
        reference.check(&apart, (|| Serial, best_kernels()), &[14]);
    }
}

/// Any shares, any batches, any lanes in any order, any instruction set.
#[test]
fn random_plans_compute_what_one_node_computes() {
    let mut random = Random::new(11);
    for (reference, seed) in models::all().into_iter().map(Reference::new).zip(0..) {
        for _ in 0..6 {
            let nodes = 1 + random.below(7);
            let mut share = || [0, 1, 1, 2, 3, 60_000][random.below(6)];
            let mut shares: Vec<_> = (0..nodes).map(|_| Share { layers: share(), head: share() }).collect();
            let some = random.below(nodes);
            (shares[some].layers, shares[some].head) = (5, 5);
            let batches: Vec<_> = (0..4).map(|_| 1 + random.below(9)).collect();
            let isas: Vec<_> = isas().collect();
            let kernels = kernels(isas[random.below(isas.len())]).unwrap();
            reference.check(&shares, (|| Turns::new(1 + seed as usize % 4, seed), kernels), &batches);
        }
    }
}

/// Some nodes and some layers in each stage.
fn random_stages(random: &mut Random, nodes: usize, n_layers: u32) -> Vec<Stage> {
    let count = 1 + random.below(nodes.min(n_layers as usize));
    let mut stages = vec![Stage { nodes: 1, layers: 1 }; count];
    for _ in count..nodes {
        stages[random.below(count)].nodes += 1;
    }
    for _ in count..n_layers as usize {
        stages[random.below(count)].layers += 1;
    }
    stages
}

#[test]
fn stages_compute_what_one_node_computes() {
    let stage = |nodes, layers| Stage { nodes, layers };
    for mut case in models::all() {
        case.header.n_layers = 4;
        let reference = Reference::new(case);
        let (equal, serial) = ([Share::EQUAL; 5], || Serial);
        for stages in [
            &[stage(1, 4)][..],
            &[stage(1, 3), stage(1, 1)],
            &[stage(1, 1), stage(1, 1), stage(1, 1), stage(1, 1)],
            &[stage(2, 1), stage(3, 3)],
            &[stage(1, 1), stage(3, 2), stage(1, 1)],
        ] {
            let nodes = stages.iter().map(|stage| usize::from(stage.nodes)).sum();
            reference.check_stages((&equal[..nodes], stages), (serial, best_kernels()), &[5, 1, 3]);
        }
        // A root without layers, an output matrix that only the first stage has.
        let share = |layers, head| Share { layers, head };
        let shares = [share(0, 0), share(1, 1), share(2, 0), share(1, 0)];
        reference.check_stages((&shares, &[stage(2, 2), stage(2, 2)]), (serial, best_kernels()), &[4, 1]);
    }
}

#[test]
fn random_stages_compute_what_one_node_computes() {
    let mut random = Random::new(12);
    for mut case in models::all() {
        case.header.n_layers = 3 + random.below(3) as u32;
        let reference = Reference::new(case);
        for _ in 0..3 {
            let nodes = 1 + random.below(6);
            let mut share = || 1 + random.below(5) as u16;
            let shares: Vec<_> = (0..nodes).map(|_| Share { layers: share(), head: share() }).collect();
            let stages = random_stages(&mut random, nodes, reference.case.header.n_layers);
            let batches: Vec<_> = (0..3).map(|_| 1 + random.below(7)).collect();
            reference.check_stages((&shares, &stages), (|| Serial, best_kernels()), &batches);
        }
    }
}

#[test]
fn stages_that_do_not_add_up_are_refused() {
    let header = preset("tiny-llama").unwrap();
    let (stage, shares) = (|nodes, layers| Stage { nodes, layers }, [Share::EQUAL; 3]);
    let layers = header.n_layers as u16;
    for stages in [vec![stage(3, layers + 1)], vec![stage(2, layers)], vec![stage(2, layers), stage(1, 0)]] {
        let way = Way::Rows { shares: &shares, stages: &stages };
        let error = Cut { way, ..Cut::single(&header) }.check(&header).unwrap_err();
        let want = format!("stages must have at least one node and one layer each, 3 nodes and {layers} layers in all");
        assert_eq!(error.to_string(), want);
    }
    let idle = [Share::EQUAL, Share { layers: 0, head: 1 }];
    let way = Way::Rows { shares: &idle, stages: &[stage(1, layers - 1), stage(1, 1)] };
    let error = Cut { way, ..Cut::single(&header) }.check(&header).unwrap_err();
    assert_eq!(error.to_string(), "all shares of a layer are 0");
}

#[test]
fn threads_do_not_matter_beside_other_nodes() {
    for reference in models::tiny().into_iter().map(Reference::new) {
        reference.check(&of_layers(&[2, 1]), (|| Threads::new(2).unwrap(), best_kernels()), &[7, 1]);
    }
}

/// More nodes than KV heads: a KV head is computed by all nodes that have some of its query heads.
#[test]
fn heads_of_one_kv_head_may_be_on_several_nodes() {
    let header = preset("tiny-llama31").unwrap();
    let header = Header { n_heads: 12, n_kv_heads: 2, head_dim: 32, ..header };
    for weights in DType::ALL {
        for activation in dair_core::plan::activations_of(weights) {
            let header = Header { weights, ..header };
            let case = Case { name: format!("{weights} {activation}"), header, activation: *activation };
            let reference = Reference::new(case);
            for list in [&[1; 12][..], &[1; 5], &[1, 3, 2], &[7, 5]] {
                reference.check(&of_layers(list), (|| Serial, best_kernels()), &[14]);
            }
        }
    }
}

#[test]
fn what_nobody_has_a_share_of_is_refused_by_name() {
    let header = preset("tiny-llama").unwrap();
    for (share, what) in [(Share { layers: 0, head: 1 }, "a layer"), (Share { layers: 1, head: 0 }, "the vocabulary")] {
        let shares = [share; 3];
        let error = Cut::rows(&header, &shares).check(&header).unwrap_err();
        assert_eq!(error.to_string(), format!("all shares of {what} are 0"));
    }
    let error = Cut::rows(&header, &[]).check(&header).unwrap_err();
    assert_eq!(error.to_string(), "0 nodes asked for; allowed: 1 to 256");
}

fn smollm2() -> Header {
    preset("smollm2-135m").unwrap()
}

const ALL: [Quantity; 4] = [Quantity::Heads, Quantity::Residual, Quantity::Hidden, Quantity::Vocab];

#[test]
fn parts_cover_everything_once_in_the_order_of_nodes() {
    let lists: [&[(u16, u16)]; 6] = [
        &[(1, 1)],
        &[(1, 1); 12],
        &[(0, 0), (3, 1), (65_535, 65_535)],
        &[(1, 0), (0, 1)],
        &[(1, 1); 255],
        &[(5, 9); 3],
    ];
    for list in lists {
        let shares: Vec<_> = list.iter().map(|(layers, head)| Share { layers: *layers, head: *head }).collect();
        for activation in [DType::F32, DType::Q80] {
            let parts = Parts::new(&smollm2(), activation, &shares, &[]);
            for quantity in ALL {
                let mut next = 0;
                for node in 0..parts.nodes() {
                    let part = parts.of(quantity, node);
                    assert!(part.start == next && part.end >= next, "{quantity:?} of {node}: {part:?}");
                    let share = shares[node as usize];
                    let share = if quantity == Quantity::Vocab { share.head } else { share.layers };
                    assert!(share > 0 || part.is_empty());
                    next = part.end;
                }
                assert_eq!(next, parts.len(quantity));
            }
        }
    }
}

#[test]
fn parts_are_as_large_as_shares() {
    let shares = [Share { layers: 2, head: 0 }, Share { layers: 1, head: 1 }];
    let parts = Parts::new(&smollm2(), DType::Q80, &shares, &[]);
    assert_eq!((parts.of(Quantity::Heads, 0), parts.kv_heads(&(0..6))), (0..6, 0..2));
    assert_eq!(parts.of(Quantity::Residual, 0), 0..384);
    assert_eq!(parts.of(Quantity::Vocab, 1), 0..49_152);
    assert_eq!(parts.kv_heads(&(2..7)), 0..3, "two are another node's, too");
    assert_eq!(parts.kv_heads(&(4..4)), 0..0);
}

#[test]
fn heads_are_cut_where_blocks_end() {
    for (head_dim, unit) in [(64, 1), (32, 1), (16, 2), (80, 2), (8, 4), (20, 8)] {
        let header = Header { head_dim, n_heads: 16, n_kv_heads: 16, ..smollm2() };
        let parts = Parts::new(&header, DType::Q80, &[Share::EQUAL; 3], &[]);
        assert!((0..3).all(|node| parts.of(Quantity::Heads, node).start.is_multiple_of(unit)), "{head_dim}");
        assert!((parts.of(Quantity::Heads, 1).start * head_dim).is_multiple_of(32));
    }
}
