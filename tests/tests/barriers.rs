//! How often the lanes of a node meet in one pass: the numbers of ARCHITECTURE.md.

use dair_core::exec::{Batch, Logits, Run};
use dair_core::format::Header;
use dair_core::io::{Alone, Serial};
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::Cut;
use dair_core::quant::DType;
use dair_host::synthetic::{model_bytes, preset};
use dair_tests::random::tokens;
use dair_tests::run::{logits, with_engine};
use dair_tests::turns::Turns;

/// Barriers of one pass over `n_layers` layers.
fn barriers(name: &str, n_layers: u32, cut: impl Fn(&Header) -> Cut<'static>) -> usize {
    let header = Header { n_layers, weights: DType::Q40, ..preset(name).unwrap() };
    let file = model_bytes(&header, 1);
    with_engine(&file, (&cut(&header), KvType::default(), 0), (&Serial, Kernels::SCALAR), 0, |engine| {
        engine.program().barriers()
    })
}

#[track_caller]
fn assert_barriers(name: &str, cut: impl Fn(&Header) -> Cut<'static>, per_layer: usize, besides: usize) {
    let [two, five] = [2, 5].map(|layers| barriers(name, layers, &cut));
    assert_eq!((five - two, two), (3 * per_layer, 2 * per_layer + besides), "{name}");
}

#[test]
fn lanes_meet_nine_times_in_a_dense_layer_and_eleven_times_in_one_of_experts() {
    assert_barriers("tiny-llama", Cut::single, 9, 1);
    assert_barriers("tiny-qwen3", Cut::single, 9, 1);
    assert_barriers("tiny-qwen3-moe", Cut::single, 11, 1);
}

#[test]
fn beside_other_nodes_the_exchanges_take_the_place_of_two() {
    let cut = |header: &Header| Cut::dllama(header, 2);
    assert_barriers("tiny-llama", cut, 7, 1);
    assert_barriers("tiny-qwen3", cut, 7, 1);
    assert_barriers("tiny-qwen3-moe", cut, 9, 1);
}

/// Proves two things: no barrier is there for nothing, and a missing one is found by lanes that take turns.
#[test]
fn without_any_one_of_its_barriers_a_pass_depends_on_the_order_of_lanes() {
    for name in ["tiny-llama", "tiny-qwen3", "tiny-qwen3-moe"] {
        let header = Header { n_layers: 2, weights: DType::Q40, ..preset(name).unwrap() };
        let (file, cut) = (model_bytes(&header, 1), Cut::single(&header));
        let tokens = tokens(1, 12, header.vocab_size);
        let logits = |pool: &Turns| logits(&file, (&cut, KvType::default()), (pool, Kernels::SCALAR), &tokens, &[1, 5]);
        let want = logits(&Turns::new(3, 0));
        for barrier in 0..barriers(name, 2, Cut::single) {
            let found = (0..20).any(|seed| logits(&Turns::new(3, seed).without(barrier)) != want);
            assert!(found, "{name}: barrier {barrier} of a pass");
        }
    }
}

/// One token behind so many others that lanes share out chunks of positions: then they meet inside attention, too.
#[test]
fn without_any_one_of_its_barriers_a_token_in_a_long_context_depends_on_the_order_of_lanes() {
    let header = Header { n_layers: 2, weights: DType::Q40, seq_len: 640, ..preset("tiny-llama31").unwrap() };
    let (file, cut) = (model_bytes(&header, 1), Cut::single(&header));
    let logits = |pool: &Turns| {
        // What memory is full of stands for the positions before.
        with_engine(&file, (&cut, KvType::F16, 0), (pool, Kernels::SCALAR), 0x11, |engine| {
            let batch = Batch { runs: &[Run::new(600, 1, Logits::Last)], tokens: &[7] };
            engine.forward(&mut Alone, batch).unwrap();
            engine.last_logits().to_vec()
        })
    };
    let planned = barriers("tiny-llama31", 2, Cut::single);
    let want = logits(&Turns::new(3, 0));
    assert_eq!(logits(&Turns::new(3, 1).without(planned + 2)), want, "there are no more barriers");
    for barrier in 0..planned + 2 {
        let found = (0..20).any(|seed| logits(&Turns::new(3, seed).without(barrier)) != want);
        assert!(found, "barrier {barrier} of a pass");
    }
}
