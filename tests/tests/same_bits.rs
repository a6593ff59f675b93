//! Promise 1: logits are a function of the model file and the tokens, and of nothing else. Compared by equality of bits.

use dair_core::exec::{Batch, Engine, Logits, Run};
use dair_core::format::Header;
use dair_core::io::{Alone, Pool, Serial};
use dair_core::kernels::{Isa, Kernels, KvType};
use dair_core::plan::{Cut, Way};
use dair_core::quant::DType;
use dair_host::machine::cpu::{best_kernels, isas, kernels};
use dair_host::machine::pool::Threads;
use dair_host::synthetic::{model_bytes, preset};
use dair_tests::compare::relative_error;
use dair_tests::random::{Random, tokens};
use dair_tests::run::{assert_same_bits, feed, logits, with_engine};
use dair_tests::turns::Turns;
use dair_tests::{mesh, models};
use std::sync::LazyLock;

const TOKENS: usize = 40;

/// A model, a sequence, and its logits as the plainest run computes them: one lane, one token at a time, no vectors.
struct Reference {
    name: String,
    header: Header,
    cut: Cut<'static>,
    kv: KvType,
    file: Vec<u8>,
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// Every model with the usual cache, and those of F32 weights with every other.
fn references() -> &'static [Reference] {
    static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| all_references().collect());
    &REFERENCES
}

fn all_references() -> impl Iterator<Item = Reference> {
    models::all().into_iter().flat_map(|case| {
        let usual = |kv: &KvType| *kv == KvType::default();
        let goes = |header: &Header, kv: KvType| (header.head_dim as usize).is_multiple_of(kv.block_len());
        let others = case.header.weights == DType::F32;
        let kinds = KvType::ALL.into_iter().filter(move |kv| usual(kv) || (others && goes(&case.header, *kv)));
        kinds.map(move |kv| Reference::new(&case.name, case.header, case.single(), kv, TOKENS))
    })
}

/// A model that attends to three chunks of positions, with every cache.
fn long_references() -> &'static [Reference] {
    static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| all_long_references().collect());
    &REFERENCES
}

fn all_long_references() -> impl Iterator<Item = Reference> {
    let header = preset("tiny-llama31").unwrap();
    let header = Header { weights: DType::F32, n_layers: 1, hidden_dim: 64, seq_len: 600, ..header };
    KvType::ALL.into_iter().map(move |kv| Reference::new("long tiny-llama31", header, Cut::single(&header), kv, 560))
}

impl Reference {
    fn new(name: &str, header: Header, cut: Cut<'static>, kv: KvType, len: usize) -> Self {
        let file = model_bytes(&header, 5);
        let tokens = tokens(5, len, header.vocab_size);
        let logits = logits(&file, (&cut, kv), (&Serial, Kernels::SCALAR), &tokens, &[1]);
        Self { name: format!("{name}, {kv} cache"), header, cut, kv, file, tokens, logits }
    }

    fn check<P: Pool>(&self, (pool, kernels): (&P, Kernels), batches: &[usize]) {
        let got = logits(&self.file, (&self.cut, self.kv), (pool, kernels), &self.tokens, batches);
        let what = format!("{}, {} lanes, {kernels:?}, batches {batches:?}", self.name, pool.lanes());
        assert_same_bits(&got, &self.logits, &what);
    }

    /// Batches of any size of which nothing, the last row or all rows are asked.
    fn ask<P: Pool>(&self, engine: &mut Engine<'_, [u8], P>, seed: u64) {
        let mut random = Random::new(seed);
        let mut position = 0;
        while position < TOKENS {
            let rows = (1 + random.below(6)).min(TOKENS - position);
            let logits = random.pick(&[Logits::None, Logits::Last, Logits::All]);
            let tokens = &self.tokens[position..position + rows];
            let run = Run::new(position as u32, rows as u32, logits);
            engine.forward(&mut Alone, Batch { runs: &[run], tokens }).unwrap();
            let first = match logits {
                Logits::None => rows,
                Logits::Last => rows - 1,
                Logits::All => 0,
            };
            for row in first..rows {
                let got = vec![engine.logits(row as u32).to_vec()];
                let want = &self.logits[position + row..=position + row];
                assert_same_bits(&got, want, &format!("{}, position {}", self.name, position + row));
            }
            if logits != Logits::None {
                assert_eq!(engine.last_logits().to_vec(), self.logits[position + rows - 1]);
            }
            position += rows;
        }
    }

    /// An engine of several lanes over the model.
    fn with_engine<R>(&self, body: impl FnOnce(&mut Engine<'_, [u8], Threads>) -> R) -> R {
        let pool = Threads::new(2).unwrap();
        with_engine(&self.file, (&self.cut, self.kv, 0), (&pool, best_kernels()), 0, body)
    }
}

#[test]
fn the_instruction_set_does_not_matter() {
    for reference in references() {
        for isa in isas() {
            for batches in [&[1][..], &[32], &[3]] {
                reference.check((&Serial, kernels(isa).unwrap()), batches);
            }
        }
    }
}

#[test]
fn the_batch_does_not_matter() {
    for reference in references() {
        for batches in [&[2][..], &[3], &[7], &[32], &[5, 1, 9, 2, 23]] {
            reference.check((&Serial, best_kernels()), batches);
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let pools = [1, 2, 3, 5].map(|lanes| Threads::new(lanes).unwrap());
    for reference in references() {
        for pool in &pools {
            reference.check((pool, best_kernels()), &[1, 6]);
        }
        reference.check((&pools[2], Kernels::SCALAR), &[32]);
    }
}

#[test]
fn a_long_context_is_no_exception() {
    let pools = [2, 3, 4, 5].map(|lanes| Threads::new(lanes).unwrap());
    // All but the last 48 tokens in few batches.
    let mostly_large = [vec![128; 4], vec![1; 48]].concat();
    for (reference, seed) in long_references().iter().zip(0..) {
        for isa in isas().filter(|isa| *isa != Isa::Scalar) {
            for batches in [&[1][..], &[128], &[5, 1, 9, 2, 23]] {
                reference.check((&Serial, kernels(isa).unwrap()), batches);
            }
        }
        for pool in &pools {
            for batches in [&mostly_large[..], &[2], &[128], &[29, 1]] {
                reference.check((pool, best_kernels()), batches);
            }
        }
        for lanes in [3, 5] {
            reference.check((&Turns::new(lanes, seed), best_kernels()), &mostly_large);
        }
        reference.check((&pools[1], Kernels::SCALAR), &mostly_large);
    }
}

#[test]
fn the_order_of_lanes_between_barriers_does_not_matter() {
    for (reference, seed) in references().iter().zip(0..) {
        for lanes in 2..6 {
            reference.check((&Turns::new(lanes, seed), best_kernels()), &[1, 6, 3]);
        }
        let (node, pool) = ((&reference.cut, reference.kv, 0), Turns::new(3, seed));
        with_engine(&reference.file, node, (&pool, best_kernels()), 0, |engine| reference.ask(engine, seed));
    }
}

#[test]
fn what_memory_held_before_does_not_matter() {
    for reference in references().iter().chain(long_references()) {
        // NaN in each type of the cache, the largest numbers, zeros.
        for garbage in [0xFF, 0x7F, 0x7B, 0x00] {
            let cut = (&reference.cut, reference.kv, 0);
            let got = with_engine(&reference.file, cut, (&Serial, best_kernels()), garbage, |engine| {
                feed(engine, &mut Alone, &reference.tokens, 0, &[7, 1, 32])
            });
            assert_same_bits(&got, &reference.logits, &format!("{}, memory full of {garbage:#x}", reference.name));
        }
    }
}

#[test]
fn a_rounded_cache_costs_little() {
    for reference in references().iter().chain(long_references()) {
        if reference.kv == KvType::F32 || reference.cut.activation != DType::F32 {
            continue;
        }
        let cut = (&reference.cut, KvType::F32);
        let exact = logits(&reference.file, cut, (&Serial, best_kernels()), &reference.tokens, &[32]);
        let exact: Vec<Vec<_>> = exact.iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        let errors = reference.logits.iter().zip(&exact).map(|(got, want)| relative_error(got, want));
        let worst = errors.fold(0f64, f64::max);
        println!("{}: {worst:.1e}", reference.name);
        let bound = if reference.kv == KvType::F16 { 2e-3 } else { 3e-2 };
        assert!(worst < bound, "{}: {worst:e}", reference.name);
    }
}

#[test]
fn the_order_of_lanes_does_not_matter_on_two_nodes() {
    for (case, seed) in models::tiny().into_iter().zip(0..) {
        let (file, cut) = (model_bytes(&case.header, 5), case.columns(2));
        let (cut, tokens) = ((&cut, KvType::default()), tokens(seed, 12, case.header.vocab_size));
        let want = mesh::logits(&file, cut, (|| Serial, best_kernels()), &tokens, &[1, 4]);
        let got = mesh::logits(&file, cut, (|| Turns::new(3, seed), best_kernels()), &tokens, &[1, 4]);
        assert_same_bits(&got, &want, &case.name);
    }
}

#[test]
fn one_node_of_the_cpp_cut_is_the_same_as_a_single_one_where_nothing_is_quantised() {
    for reference in references().iter().filter(|reference| reference.cut.activation == DType::F32) {
        let way = Way::Columns { nodes: 1, exchange: DType::F32 };
        let cut = Cut { way, activation: DType::F32, ..Cut::dllama(&reference.header, 1) };
        let got =
            mesh::logits(&reference.file, (&cut, reference.kv), (|| Serial, best_kernels()), &reference.tokens, &[4]);
        assert_same_bits(&got, &reference.logits, &reference.name);
    }
}

#[test]
fn a_shorter_context_and_another_batch_limit_do_not_matter() {
    for reference in references() {
        let cut = Cut { seq_len: TOKENS as u32, batch_max: 9, ..reference.cut };
        let got = logits(&reference.file, (&cut, reference.kv), (&Serial, best_kernels()), &reference.tokens, &[9]);
        assert_same_bits(&got, &reference.logits, &reference.name);
    }
}

#[test]
fn what_is_asked_of_the_head_does_not_matter() {
    for reference in references() {
        reference.with_engine(|engine| reference.ask(engine, 1));
    }
}

#[test]
fn what_the_cache_held_before_does_not_matter() {
    for reference in references() {
        let other = tokens(6, TOKENS, reference.header.vocab_size);
        reference.with_engine(|engine| {
            let at = |engine: &mut _, tokens: &[u32], position| feed(engine, &mut Alone, tokens, position, &[5, 1]);
            // Another sequence, then this one from the start; another end, then this one's again.
            at(engine, &other, 0);
            assert_same_bits(&at(engine, &reference.tokens, 0), &reference.logits, &reference.name);
            at(engine, &other[17..], 17);
            let what = format!("{}, from position 17", reference.name);
            assert_same_bits(&at(engine, &reference.tokens[17..], 17), &reference.logits[17..], &what);
            // The last token once more.
            let last = TOKENS - 1;
            assert_same_bits(&at(engine, &reference.tokens[last..], last as u32), &reference.logits[last..], &what);
        });
    }
}

#[test]
fn a_refused_batch_changes_nothing() {
    for reference in references() {
        reference.with_engine(|engine| {
            let half = TOKENS / 2;
            let mut got = feed(engine, &mut Alone, &reference.tokens[..half], 0, &[8]);
            let position = half as u32;
            let vocab_size = reference.header.vocab_size;
            let too_many = vec![0; reference.cut.batch_max as usize + 1];
            let (last, good) = (reference.header.seq_len - 1, Run::new(position, 1, Logits::Last));
            for (runs, tokens) in [
                (&[][..], &[][..]),
                (&[Run { rows: 0, ..good }], &[]),
                (&[good, Run { rows: 0, ..good }], &[0]),
                (&[Run { rows: too_many.len() as u32, ..good }], &too_many),
                (&[Run { rows: u32::MAX, ..good }, Run { rows: u32::MAX, ..good }], &too_many),
                (&[Run { rows: 2, ..good }], &[0]),
                (&[good], &[vocab_size]),
                (&[good], &[u32::MAX]),
                (&[Run { position: last + 1, ..good }], &[0]),
                (&[Run { position: u32::MAX, ..good }], &[0]),
                (&[Run { position: last, rows: 2, ..good }], &[0, 0]),
                (&[Run { slot: 1, ..good }], &[0]),
                (&[good, good], &[0, 0]),
            ] {
                let bad = Batch { runs, tokens };
                assert!(engine.forward(&mut Alone, bad).is_err(), "{}: {bad:?}", reference.name);
            }
            got.extend(feed(engine, &mut Alone, &reference.tokens[half..], position, &[8]));
            assert_same_bits(&got, &reference.logits, &reference.name);
        });
    }
}

#[test]
fn the_last_position_of_the_context_can_be_computed() {
    for reference in references() {
        let seq_len = reference.header.seq_len as usize;
        let tokens = tokens(9, seq_len, reference.header.vocab_size);
        let cut = (&reference.cut, reference.kv);
        let whole = logits(&reference.file, cut, (&Serial, best_kernels()), &tokens, &[32]);
        let one_by_one = logits(&reference.file, cut, (&Serial, best_kernels()), &tokens, &[1]);
        assert_eq!(whole.len(), seq_len);
        assert_same_bits(&whole, &one_by_one, &reference.name);
    }
}
