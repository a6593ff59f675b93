//! Several nodes that share a model by column cuts, against the oracle and against recordings of the C++ system.

use dair_core::format::Header;
use dair_core::io::Serial;
use dair_core::kernels::{Kernels, KvType};
use dair_core::plan::{Cut, Way, node_counts};
use dair_core::quant::DType;
use dair_host::machine::cpu::best_kernels;
use dair_host::machine::pool::Threads;
use dair_host::synthetic::{model_bytes, preset};
use dair_tests::compare::{Agreement, BOUND, argmax, relative_error, shares};
use dair_tests::golden::{self, Case};
use dair_tests::oracle::{Model, Numerics, Oracle};
use dair_tests::random::tokens;
use dair_tests::{mesh, models, run, trace};

#[test]
fn nodes_together_compute_what_the_oracle_computes() {
    for case in models::tiny() {
        let (name, header) = (&case.name, case.header);
        let file = model_bytes(&header, 1);
        let model = Model::read(&file);
        for nodes in node_counts(&header) {
            let cut = case.columns(nodes);
            let mut agreement = Agreement::default();
            for seed in 1..=60 {
                let prompt = tokens(seed, 12, header.vocab_size);
                let want = Oracle::new(&model, Numerics::of(&cut)).run(&prompt);
                let got = mesh::logits(&file, (&cut, KvType::F32), (|| Serial, best_kernels()), &prompt, &[5, 1]);
                agreement.add(&format!("{name}, {nodes} nodes, prompt {seed}"), &got, &want);
            }
            println!("{name}, {nodes} nodes: {agreement}");
            let (close, far) = shares(&cut, &header);
            agreement.assert_close(name, close, far);
        }
    }
}

#[test]
fn the_number_of_nodes_is_all_that_bits_depend_on() {
    for case in models::tiny() {
        let (name, header) = (&case.name, case.header);
        let file = model_bytes(&header, 2);
        let prompt = tokens(2, 40, header.vocab_size);
        for nodes in node_counts(&header).filter(|nodes| *nodes > 1) {
            let cut = case.columns(nodes);
            let want = mesh::logits(&file, (&cut, KvType::F16), (|| Serial, Kernels::SCALAR), &prompt, &[1]);
            let pool = || Threads::new(2).unwrap();
            let got = mesh::logits(&file, (&cut, KvType::F16), (pool, best_kernels()), &prompt, &[7, 32, 1]);
            run::assert_same_bits(&got, &want, &format!("{name}, {nodes} nodes"));
        }
    }
}

#[test]
fn a_width_that_is_not_cut_need_not_be_a_multiple_of_the_nodes() {
    let header = preset("tiny-llama31").unwrap();
    let header = Header { dim: 64, n_heads: 6, n_kv_heads: 3, hidden_dim: 288, ..header };
    let file = model_bytes(&header, 4);
    let prompt = tokens(4, 12, header.vocab_size);
    let cut = Cut::dllama(&header, 3);
    let want = Oracle::new(&Model::read(&file), Numerics::of(&cut)).run(&prompt);
    let got = mesh::logits(&file, (&cut, KvType::F32), (|| Serial, best_kernels()), &prompt, &[12]);
    let mut agreement = Agreement::default();
    agreement.add("3 nodes", &got, &want);
    agreement.assert_close("3 nodes", 0.75, 0.0);
}

#[test]
fn unquantised_cuts_differ_from_one_node_by_rounding_only() {
    for case in models::tiny().iter().filter(|case| case.activation == DType::F32) {
        let (name, header) = (&case.name, &case.header);
        let file = model_bytes(header, 3);
        let prompt = tokens(3, 40, header.vocab_size);
        let alone = run::logits(&file, (&case.single(), KvType::F32), (&Serial, best_kernels()), &prompt, &[8]);
        let together = mesh::logits(
            &file,
            (&Cut { way: Way::Columns { nodes: 2, exchange: DType::F32 }, ..case.columns(2) }, KvType::F32),
            (|| Serial, best_kernels()),
            &prompt,
            &[8],
        );
        for (token, (together, alone)) in together.iter().zip(&alone).enumerate() {
            let alone: Vec<_> = alone.iter().map(|x| f64::from(*x)).collect();
            let error = relative_error(together, &alone);
            assert!(error < BOUND, "{name}: token {token}: {error:.1e}");
        }
    }
}

/// Share of a case's rows that agree as closely as F32 arithmetic can: the C++ system sums in another order when it
/// computes a batch, and approximates `exp`.
fn recorded_share(case: &str) -> f64 {
    match case {
        "llama_q40_q80_n2" => 0.7,
        "llama_f32_f32_n2" => 1.0,
        "qwen3_q40_q80_n2" => 0.85,
        "llama_q40_q80_n4" => 0.9,
        "qwen3moe_q40_q80_n2" => 1.0,
        _ => panic!("{case}: not compared yet"),
    }
}

#[test]
fn nodes_together_and_the_oracle_compute_what_the_cpp_system_computed() {
    for case in golden::CASES.map(Case::open) {
        let (name, nodes, share) = (case.name, case.nodes, recorded_share(case.name));
        let file = case.bytes("model.m");
        let header = Header::parse(&file).unwrap();
        let passes = trace::passes(&case.path("root-trace.tsv"));
        let recorded = trace::rows(&case.path("root-trace.logits.f32"), header.vocab_size as usize);
        let tokens: Vec<_> = passes.iter().flat_map(|pass| pass.tokens.clone()).collect();
        let batches: Vec<_> = passes.iter().map(|pass| pass.tokens.len()).collect();
        assert_eq!(tokens.len(), recorded.len(), "{name}");

        let (mut engine, mut oracle) = (Agreement::default(), Agreement::default());
        let cut = Cut::dllama(&header, nodes);
        let got = mesh::logits(&file, (&cut, KvType::F32), (|| Serial, best_kernels()), &tokens, &batches);
        let widened: Vec<Vec<_>> = recorded.iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
        engine.add(name, &got, &widened);
        oracle.add(name, &recorded, &Oracle::new(&Model::read(&file), Numerics::of(&cut)).run(&tokens));
        println!("{name}: engine: {engine}; oracle: {oracle}");
        engine.assert_close(name, share, 0.0);
        oracle.assert_close(name, share, 0.0);

        let mut rows = recorded.iter();
        for pass in passes {
            let last = rows.by_ref().take(pass.tokens.len()).last().unwrap();
            assert_eq!((argmax(last) as u32, last[argmax(last)]), pass.top, "{name}: the two recordings differ");
        }
    }
}
