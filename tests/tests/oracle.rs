//! The engine on one node against the independent forward pass in F64.

use dair_core::io::Serial;
use dair_core::kernels::KvType;
use dair_host::machine::cpu::best_kernels;
use dair_host::synthetic::model_bytes;
use dair_tests::compare::{Agreement, BOUND, relative_error, shares};
use dair_tests::models;
use dair_tests::oracle::{Flaw, Model, Numerics, Oracle};
use dair_tests::random::tokens;
use dair_tests::run;

#[test]
fn the_engine_computes_what_the_oracle_computes() {
    const SEEDS: u64 = 24;
    for case in models::all() {
        let (name, header, cut) = (&case.name, case.header, case.single());
        let mut agreement = Agreement::default();
        for seed in 1..=SEEDS {
            let file = model_bytes(&header, seed);
            let prompt = tokens(seed, 24, header.vocab_size);
            let want = Oracle::new(&Model::read(&file), Numerics::of(&cut)).run(&prompt);
            let got = run::logits(&file, (&cut, KvType::F32), (&Serial, best_kernels()), &prompt, &[1, 9]);
            agreement.add(&format!("{name}, seed {seed}"), &got, &want);
        }
        println!("{name}: {agreement}");
        let (close, far) = shares(&cut, &header);
        agreement.assert_close(name, close, far);
    }
}

#[test]
fn the_oracle_finds_mistakes() {
    for case in models::all() {
        let (name, header, numerics) = (&case.name, case.header, Numerics::of(&case.single()));
        let file = model_bytes(&header, 1);
        let model = Model::read(&file);
        let prompt = tokens(1, 24, header.vocab_size);
        let right = Oracle::new(&model, numerics).run(&prompt);
        for flaw in Flaw::ALL.into_iter().filter(|flaw| flaw.concerns(&header)) {
            let wrong = Oracle::new(&model, numerics).with_flaw(flaw).run(&prompt);
            let errors = wrong.iter().zip(&right).map(|(wrong, right)| {
                let wrong: Vec<_> = wrong.iter().map(|x| *x as f32).collect();
                relative_error(&wrong, right)
            });
            let worst = errors.fold(0f64, f64::max);
            assert!(worst > 10.0 * BOUND, "{name}: {flaw:?} changes the result by {worst:.1e} only");
        }
    }
}
