//! Several sequences in one pass: each has the bits that it has alone.

use dair_core::exec::{Batch, CacheCopy, Failure, Logits, Run};
use dair_core::format::Header;
use dair_core::io::{Alone, Pool, Serial};
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{Cut, Share};
use dair_host::machine::cpu::best_kernels;
use dair_host::synthetic::model_bytes;
use dair_tests::mesh;
use dair_tests::models::{self, Case};
use dair_tests::random::{Random, tokens};
use dair_tests::run::{assert_same_bits, logits, with_engine};
use dair_tests::turns::Turns;

const SLOTS: u32 = 5;

/// Some sequences of a model, and the logits that each has alone.
struct Sequences {
    case: Case,
    file: Vec<u8>,
    tokens: Vec<Vec<u32>>,
    alone: Vec<Vec<Vec<f32>>>,
}

/// A pass: runs and their tokens.
type Pass = (Vec<Run>, Vec<u32>);

impl Sequences {
    fn new(case: Case, kv: KvType, lens: [usize; SLOTS as usize]) -> Self {
        let file = model_bytes(&case.header, 8);
        let tokens: Vec<_> = (0..).zip(lens).map(|(seed, len)| tokens(seed, len, case.header.vocab_size)).collect();
        let alone = |tokens: &Vec<u32>| logits(&file, (&case.single(), kv), (&Serial, Kernels::SCALAR), tokens, &[7]);
        let alone = tokens.iter().map(alone).collect();
        Self { case, file, tokens, alone }
    }

    /// Passes that compute all of them: in each, runs of some that are not over, in any order, as many rows as come.
    fn passes(&self, random: &mut Random, rows_max: usize) -> Vec<Pass> {
        let (mut at, mut passes) = (vec![0; self.tokens.len()], Vec::new());
        while at.iter().zip(&self.tokens).any(|(at, tokens)| *at < tokens.len()) {
            let (mut runs, mut ids, mut order) = (Vec::new(), Vec::new(), Vec::from_iter(0..self.tokens.len()));
            while !order.is_empty() {
                let slot = order.swap_remove(random.below(order.len()));
                let left = self.tokens[slot].len() - at[slot];
                let rows = random.below(left.min(rows_max) + 1);
                if rows > 0 {
                    ids.extend(&self.tokens[slot][at[slot]..][..rows]);
                    runs.push(Run { slot: slot as u32, ..Run::new(at[slot] as u32, rows as u32, Logits::All) });
                    at[slot] += rows;
                }
            }
            if !runs.is_empty() {
                passes.push((runs, ids));
            }
        }
        passes
    }

    fn cut<'s>(&self, shares: &'s [Share]) -> Cut<'s> {
        Cut { slots: SLOTS, ..self.case.rows(shares) }
    }

    /// Sorts the logits of passes by sequences and compares.
    fn check(&self, passes: &[Pass], rows: &[Vec<f32>]) {
        let mut got = vec![Vec::new(); self.tokens.len()];
        let slots = passes.iter().flat_map(|(runs, _)| runs).flat_map(|run| (0..run.rows).map(|_| run.slot));
        for (slot, row) in slots.zip(rows) {
            got[slot as usize].push(row.clone());
        }
        for (slot, (got, alone)) in got.iter().zip(&self.alone).enumerate() {
            assert_same_bits(got, alone, &format!("{}, sequence {slot}", self.case.name));
        }
    }

    fn run<P: Pool>(&self, (pool, kernels): (&P, Kernels), kv: KvType, seed: u64) {
        let passes = self.passes(&mut Random::new(seed), 9);
        let cut = self.cut(&[Share::EQUAL]);
        let rows = with_engine(&self.file, (&cut, kv, 0), (pool, kernels), 0xFF, |engine| {
            let mut rows = Vec::new();
            for (runs, tokens) in &passes {
                engine.forward(&mut Alone, Batch { runs, tokens }).unwrap();
                rows.extend((0..tokens.len() as u32).map(|row| engine.logits(row).to_vec()));
            }
            rows
        });
        self.check(&passes, &rows);
    }
}

#[test]
fn sequences_in_one_pass_have_the_bits_that_they_have_alone() {
    for (case, seed) in models::all().into_iter().zip(0..) {
        let sequences = Sequences::new(case, KvType::F32, [11, 1, 6, 19, 3]);
        sequences.run((&Serial, best_kernels()), KvType::F32, seed);
        sequences.run((&Turns::new(1 + seed as usize % 4, seed), best_kernels()), KvType::F32, seed + 100);
    }
}

/// So long that attention has several chunks, which lanes share out where there are few queries.
#[test]
fn long_and_short_sequences_do_not_disturb_each_other() {
    let mut case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    case.header.seq_len = 700;
    let sequences = Sequences::new(case, KvType::default(), [600, 5, 300, 1, 17]);
    for lanes in 1..4 {
        sequences.run((&Turns::new(lanes, lanes as u64), best_kernels()), KvType::default(), lanes as u64);
    }
}

#[test]
fn several_nodes_keep_sequences_apart_too() {
    for (case, seed) in models::tiny().into_iter().zip(0..) {
        let sequences = Sequences::new(case, KvType::default(), [9, 2, 6, 13, 3]);
        let passes = sequences.passes(&mut Random::new(seed), 6);
        let shares = [Share { layers: 2, head: 1 }, Share::EQUAL, Share { layers: 1, head: 3 }];
        let cut = sequences.cut(&shares);
        let rows = mesh::passes(&sequences.file, (&cut, KvType::default()), (|| Serial, best_kernels()), &passes);
        sequences.check(&passes, &rows);
    }
}

/// A sequence goes on from a copy of another one's beginning as if it had been computed there.
#[test]
fn a_beginning_that_was_copied_is_one_that_was_computed() {
    for (case, at) in models::all().into_iter().zip(0..) {
        let kv = KvType::ALL[at % KvType::ALL.len()];
        if !(case.header.head_dim as usize).is_multiple_of(kv.block_len()) {
            continue;
        }
        let sequences = Sequences::new(case, kv, [37, 33, 1, 1, 1]);
        let (tokens, alone, other) = (&sequences.tokens[0], &sequences.alone[0], &sequences.tokens[1]);
        let cut = sequences.cut(&[Share::EQUAL]);
        with_engine(&sequences.file, (&cut, kv, 0), (&Serial, best_kernels()), 0xFF, |engine| {
            for (slot, tokens) in [(1, tokens), (4, other), (0, other)] {
                let runs = [Run { slot, ..Run::new(0, tokens.len() as u32, Logits::None) }];
                engine.forward(&mut Alone, Batch { runs: &runs, tokens }).unwrap();
            }
            for positions in [1, 15, 16, 17, 36] {
                for to in [4, 0, 2] {
                    engine.copy::<()>(CacheCopy { from: 1, to, positions }).unwrap();
                    let rest = &tokens[positions as usize..];
                    let runs = [Run { slot: to, ..Run::new(positions, rest.len() as u32, Logits::All) }];
                    engine.forward(&mut Alone, Batch { runs: &runs, tokens: rest }).unwrap();
                    let rows: Vec<_> = (0..rest.len() as u32).map(|row| engine.logits(row).to_vec()).collect();
                    let what = format!("{}, {kv}, after {positions} positions", sequences.case.name);
                    assert_same_bits(&rows, &alone[positions as usize..], &what);
                }
            }
            let mut copy = |from, to, positions| engine.copy::<()>(CacheCopy { from, to, positions });
            assert!(matches!(copy(SLOTS, 0, 1), Err(Failure::Slot { .. })));
            assert!(matches!(copy(0, SLOTS, 1), Err(Failure::Slot { .. })));
            assert!(matches!(copy(0, 1, u32::MAX), Err(Failure::Context { .. })));
        });
    }
}

/// A sequence goes on from pages that were taken out of the cache as if it had been computed there.
#[test]
fn pages_that_were_put_back_are_as_good_as_computed_ones() {
    for (case, at) in models::all().into_iter().zip(0..) {
        let kv = KvType::ALL[at % KvType::ALL.len()];
        if !(case.header.head_dim as usize).is_multiple_of(kv.block_len()) {
            continue;
        }
        let case = Case { header: Header { seq_len: 200, ..case.header }, ..case };
        let sequences = Sequences::new(case, kv, [150, 140, 1, 1, 1]);
        let (tokens, alone, other) = (&sequences.tokens[0], &sequences.alone[0], &sequences.tokens[1]);
        let cut = sequences.cut(&[Share::EQUAL]);
        with_engine(&sequences.file, (&cut, kv, 0), (&Serial, best_kernels()), 0xFF, |engine| {
            for (slot, tokens) in [(1, tokens), (4, other)] {
                for (part, tokens) in (0..).zip(tokens.chunks(16)) {
                    let runs = [Run { slot, ..Run::new(16 * part, tokens.len() as u32, Logits::None) }];
                    engine.forward(&mut Alone, Batch { runs: &runs, tokens }).unwrap();
                }
            }
            let mut pages = [Vec::new(), Vec::new()];
            for (page, bytes) in (0..).zip(&mut pages) {
                engine.page::<()>(1, page, |piece| bytes.extend_from_slice(piece)).unwrap();
            }
            assert_eq!(pages[0].len(), pages[1].len());
            // A page is 4 tiles, and 200 positions are 13 of them.
            let cache_bytes = engine.program().cache_bytes() / u64::from(SLOTS);
            assert!((cache_bytes / 4..=cache_bytes / 3).contains(&(pages[0].len() as u64)), "{}", pages[0].len());
            for (page, bytes) in (0..).zip(&pages) {
                let mut rest = &bytes[..];
                let put = engine.page::<()>(4, page, |piece| {
                    let (own, others) = rest.split_at(piece.len());
                    piece.copy_from_slice(own);
                    rest = others;
                });
                assert!(put.is_ok() && rest.is_empty());
            }
            let rest = &tokens[128..];
            let runs = [Run { slot: 4, ..Run::new(128, rest.len() as u32, Logits::All) }];
            engine.forward(&mut Alone, Batch { runs: &runs, tokens: rest }).unwrap();
            let rows: Vec<_> = (0..rest.len() as u32).map(|row| engine.logits(row).to_vec()).collect();
            assert_same_bits(&rows, &alone[128..], &format!("{}, {kv}", sequences.case.name));
            let mut page = |slot, page| engine.page::<()>(slot, page, |_| panic!("nothing is there"));
            assert!(matches!(page(SLOTS, 0), Err(Failure::Slot { .. })));
            assert!(matches!(page(0, 3), Err(Failure::Context { .. })));
            assert!(matches!(page(0, u32::MAX), Err(Failure::Context { .. })));
        });
    }
}

/// The head computes rows from the first to the last that is asked about.
#[test]
fn runs_are_asked_for_logits_one_by_one() {
    let case = models::tiny().into_iter().find(|case| case.name.contains("q40")).unwrap();
    let sequences = Sequences::new(case, KvType::default(), [4, 4, 4, 4, 4]);
    let cut = sequences.cut(&[Share::EQUAL]);
    with_engine(&sequences.file, (&cut, KvType::default(), 0), (&Serial, best_kernels()), 0xFF, |engine| {
        let asked = [Logits::None, Logits::Last, Logits::None, Logits::Last, Logits::None];
        let runs: Vec<_> = (0..).zip(asked).map(|(slot, logits)| Run { slot, ..Run::new(0, 4, logits) }).collect();
        let tokens: Vec<_> = sequences.tokens.concat();
        engine.forward(&mut Alone, Batch { runs: &runs, tokens: &tokens }).unwrap();
        for (slot, row) in [(1, 7), (3, 15)] {
            assert_same_bits(&[engine.logits(row).to_vec()], &sequences.alone[slot][3..], "the last row of a run");
        }
    });
}
