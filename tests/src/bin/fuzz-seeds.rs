//! Writes what fuzz targets start from: `fuzz-seeds FOLDER` makes `FOLDER/TARGET/NAME` for every target of `tests/fuzz`.

use dair_core::exec::{CacheCopy, Logits, Run};
use dair_core::format::tokenizer::TokenizerFile;
use dair_core::format::{Arch, Layout};
use dair_core::graph::Sizes;
use dair_core::plan::{Cut, Share, Stage, build};
use dair_core::quant::DType;
use dair_core::wire::dllama::{
    finish_weights, records, write_ack, write_hello, write_network, write_node, write_node_as_kin, write_record,
    write_refusal,
};
use dair_core::wire::{dllama, native};
use dair_host::chat::template::BUILTINS;
use dair_host::cluster::tables::GraphTables;
use dair_host::model::convert::ggml::GgmlType;
use dair_host::synthetic::{PRESETS, model_bytes};
use dair_tests::golden::{CASES, Case};
use dair_tests::published::{
    Converted, safetensors, small, small_folder, small_for_two, small_gguf, small_gguf_with_scores, small_sentencepiece,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Seeds of a target.
struct Seeds {
    folder: PathBuf,
    count: u32,
}

impl Seeds {
    fn of(root: &Path, target: &str) -> Self {
        let folder = root.join(target);
        fs::create_dir_all(&folder).expect("a folder for seeds");
        Self { folder, count: 0 }
    }

    fn add(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        fs::write(self.folder.join(format!("seed-{:03}", self.count)), bytes).expect("room for a seed");
        self.count += 1;
        self
    }
}

fn main() {
    let root = std::env::args_os().nth(1).map(PathBuf::from).expect("fuzz-seeds FOLDER");
    models(&root);
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    converted(&root, folder.path());
    hugging_face(&root);
    native_wire(&root);
    dllama_wire(&root);
    texts(&root);
}

fn models(root: &Path) {
    let mut seeds = Seeds::of(root, "model");
    for preset in &PRESETS {
        seeds.add(preset.header.emit());
    }
    for arch in [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe] {
        seeds.add(small(arch).emit());
    }
}

/// GGUF files, and the tokenizers that they and others become.
fn converted(root: &Path, folder: &Path) {
    let mut tokenizers = Seeds::of(root, "tokenizer");
    let mut heads = Seeds::of(root, "gguf");
    let mut files = Seeds::of(root, "convert_gguf");
    let mut all = vec![small_gguf_with_scores()];
    all.extend([Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe].map(|arch| small_gguf(arch, GgmlType::Q8_0)));
    all.extend([GgmlType::F16, GgmlType::Q4_0].map(|kind| small_gguf(Arch::Llama, kind)));
    for gguf in &all {
        let bytes = gguf.bytes();
        heads.add(&bytes);
        files.add(&bytes);
        tokenizers.add(Converted::of_bytes(&bytes, None).expect("a small model").tokenizer);
    }
    small_folder().write(folder, 1);
    let out = tempfile::tempdir().expect("a folder for temporary files");
    tokenizers.add(Converted::of(folder, out.path(), None).expect("a small model").tokenizer);
    let recorded = Case::open(CASES[0]).bytes("tokenizer.t");
    TokenizerFile::parse(&recorded).expect("a tokenizer");
    tokenizers.add(recorded);
}

fn hugging_face(root: &Path) {
    let folder = small_folder();
    let mut configs = Seeds::of(root, "hf_config");
    configs.add(folder.config.to_string());
    let mut config = folder.config.clone();
    config["rope_scaling"] = serde_json::json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    configs.add(config.to_string());
    let index = r#"{"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors"}}"#;
    let texts = [folder.tokenizer_config.to_string(), folder.generation_config.to_string(), index.to_owned()];
    Seeds::of(root, "hf_settings").add(texts.join("\0")).add(
        r#"{"added_tokens_decoder": {"3": {"content": "a", "special": true}}, "add_bos_token": true,
        "chat_template": [{"name": "default", "template": "{{ x }}"}]}"#,
    );
    Seeds::of(root, "hf_tokenizer").add(folder.tokenizer.to_string());
    Seeds::of(root, "safetensors").add(safetensors(&folder.tensors));
    Seeds::of(root, "sentencepiece").add(small_sentencepiece());
}

/// One of each kind of message, alone and one after the other.
fn native_wire(root: &Path) {
    let mut all = vec![Vec::new(); 24];
    let model = native::HasModel {
        fingerprint: [1; 32],
        header: [2; 32],
        digest: Some([3; 32]),
        bytes: 1 << 30,
        name: "m.m".try_into().expect("a short name"),
    };
    let have = native::Have {
        version: native::VERSION,
        threads: 4,
        isa: "avx2".try_into().expect("a short name"),
        models: [model.clone(), native::HasModel { digest: None, ..model }].into_iter().collect(),
        ..native::Have::default()
    };
    let plan = native::Plan {
        version: native::VERSION,
        node: 1,
        nodes: 3,
        activation: DType::Q80,
        batch_max: 32,
        seq_len: 128,
        slots: 1,
        halve_from: 32,
        columns: Some(DType::Q80),
        stages: [Stage { nodes: 1, layers: 1 }, Stage { nodes: 2, layers: 2 }].into_iter().collect(),
        ..native::Plan::default()
    };
    let share = Share { layers: 1, head: 1 };
    let nodes = [(share, "", 0), (share, "10.0.0.2", 9990), (share, "10.0.0.3", 9990)];
    let best = native::Best { count: 40, below: 128, scale: 1.5 };
    let runs = [Run { slot: 1, position: 9, rows: 2, logits: Logits::None }, Run::new(7, 1, Logits::Last)];
    let pass = native::Pass { epoch: 3, wanted: native::Wanted::Best(best), runs: runs.into_iter().collect() };
    let watch = native::Watch { session: [8; 16], silence_ms: 2000 };
    let pages = native::Pages { slot: 1, first: 2, names: &[[3; 16], [4; 16]] };
    let written = [
        native::write_have(&mut all[0], &have),
        native::write_plan(&mut all[1], &plan, nodes.into_iter()),
        native::write_ready(&mut all[2], &native::Ready { arena_bytes: 5, repacked_bytes: 6, keeps: true }),
        native::write_refused(&mut all[3], "no memory"),
        native::write_go(&mut all[4]),
        native::write_linked(&mut all[5]),
        native::write_link(&mut all[6], &[3; 16], 5),
        native::write_pass(&mut all[7], &pass, &[1, 2, 3]),
        native::write_bye(&mut all[8]),
        native::write_beat(&mut all[9], &native::Beat { passes: 7, busy_us: 8, spent: native::Spent::default() }),
        native::write_rest(&mut all[10]),
        native::write_verify(&mut all[11], &[4; 32]),
        native::write_hashing(&mut all[12], 9),
        native::write_digest(&mut all[13], &[5; 32]),
        native::write_echo(&mut all[14], &[6; 9]),
        native::write_watch(&mut all[15], &watch),
        native::write_failed(&mut all[16], 3, "no disk"),
        native::write_drain(&mut all[17]),
        native::write_leaving(&mut all[18]),
        native::write_join(&mut all[19], 9990),
        native::write_copy(&mut all[20], CacheCopy { from: 1, to: 2, positions: 9 }),
        native::write_keep(&mut all[21], &pages),
        native::write_restore(&mut all[22], &pages),
        native::write_restored(&mut all[23], 2),
    ];
    assert!(written.iter().all(Result::is_ok));
    let mut seeds = Seeds::of(root, "wire_native");
    for message in &all {
        seeds.add(message);
    }
    seeds.add(all.concat());
}

fn dllama_wire(root: &Path) {
    let mut graphs = Seeds::of(root, "wire_dllama_graph");
    let mut weights = Seeds::of(root, "wire_dllama_weights");
    let mut headers = vec![small_for_two()];
    headers.extend(PRESETS.iter().filter(|preset| preset.name.starts_with("tiny")).map(|preset| preset.header));
    for mut header in headers {
        header.n_layers = 1;
        let layout = Layout::new(&header).expect("a small model");
        let mut tables = GraphTables::new(Sizes::of_layers(1));
        let graph = build(&layout, &Cut::dllama(&header, 2), 1, tables.tables()).expect("a graph of it");
        for as_kin in [false, true] {
            let mut bytes = vec![0];
            write_network(&mut bytes, &graph).expect("memory");
            let node = if as_kin { write_node_as_kin } else { write_node };
            node(&mut bytes, &graph).expect("memory");
            graphs.add(bytes);
        }
        if header.dim == small_for_two().dim && header.vocab_size == small_for_two().vocab_size {
            let (model, mut bytes) = (model_bytes(&header, 1), Vec::new());
            for record in records(&graph) {
                write_record(&mut bytes, &graph, record, &model[..], |_| ()).expect("memory");
            }
            finish_weights(&mut bytes).expect("memory");
            weights.add(bytes);
        }
    }
    let mut handshakes = Seeds::of(root, "wire_dllama_handshake");
    let others = [("10.0.0.1", 9990), ("pi-3.local", 9991)];
    let mut bytes = Vec::new();
    write_hello(&mut bytes, dllama::Hello { workers: 3, index: 1 }, others.into_iter()).expect("memory");
    handshakes.add(&bytes);
    bytes.clear();
    write_refusal(&mut bytes, "no memory").expect("memory");
    handshakes.add(&bytes);
    bytes.clear();
    write_ack(&mut bytes).expect("memory");
    handshakes.add(&bytes).add(dllama::Control { position: 3, batch: 2 }.emit());
}

fn texts(root: &Path) {
    let mut templates = Seeds::of(root, "template");
    for builtin in &BUILTINS {
        templates.add(format!("{}\0Hello", builtin.source));
    }
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/templates");
    for entry in fs::read_dir(published).expect("templates").flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "jinja") {
            templates.add(fs::read(entry.path()).expect("a template"));
        }
    }
    let mut flags = Seeds::of(root, "flags");
    for text in ["10.0.0.1:9991", "[fe80::1%eth0]:7", "dllama://pi-3.local", "1500 mb", "64MiB", "12.5 %", "avx2"] {
        flags.add(text);
    }
    let mut lines = Seeds::of(root, "command_line");
    for line in [
        "generate --model m.m --prompt x --chat --workers 10.0.0.2 dllama://10.0.0.3:1 --shares 2,1,1 --memory 50%",
        "chat --model=m.m --cut rows --exchange q40 --temperature -0.5 --top-k -1 --storage stream --template chatml",
        "plan --model m.m --nodes-file nodes --save plan.json",
        "convert in.gguf out.m --weights q40 --force --threads 4",
        "nodes --discover --cluster kitchen --timeout-s 7",
        "perplexity --model m.m --plan p.json --isa scalar --prefill relaxed",
        "inspect --model m.m --nodes 3 --json",
    ] {
        lines.add(line.replace(' ', "\0"));
    }
    Seeds::of(root, "plan_file").add(
        r#"{"version": 1, "nodes": [{"address": "root", "layers": 1, "head": 1}, {"address": "10.0.0.2:9990", "layers": 2,
        "head": 0}], "stages": [{"nodes": 1, "layers": 1}, {"nodes": 1, "layers": 2}]}"#,
    );
    Seeds::of(root, "nodes_file").add(
        "# kitchen\n10.0.0.2   # a worker\n10.0.0.3:9991\ndllama://10.0.0.4:9991\npi@pi-4.local:2222\n[fe80::1]:80\n",
    );
}
