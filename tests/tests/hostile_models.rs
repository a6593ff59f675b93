//! Model files from outside: whatever the bytes, reading a header, laying it out and opening a file end in an error or
//! in numbers that fit each other.

use dair_core::exec::{Place, Program, Rooms, Step};
use dair_core::format::layout::LayerTensor;
use dair_core::format::model::{EMITTED_BYTES, Key, MAGIC, MAX_HEADER_BYTES, OLD_MAGICS};
use dair_core::format::{Header, Layout, TensorId};

use dair_core::kernels::KvType;
use dair_core::plan::{Cut, PlanError, Share, build, node_counts};
use dair_host::cluster::tables::GraphTables;
use dair_host::model::Model;
use dair_host::synthetic::{PRESETS, model_bytes, preset};
use dair_tests::random::Random;
use std::fs;

/// Values at and beyond the edges of all keys.
const EDGES: [u32; 24] = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    31,
    32,
    33,
    64,
    96,
    128,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 20,
    1 << 22,
    1 << 24,
    0xABCD00,
    i32::MAX as u32,
    u32::MAX,
];

/// A header of random pairs: most of them those of a preset, so that some pass.
fn random_header(random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(&PRESETS).header.emit().to_vec();
    for _ in 0..random.below(5) {
        let pair = 8 + 8 * random.below(Key::ALL.len());
        let at = if random.once_in(10) { pair } else { pair + 4 };
        let now = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let value = match random.below(4) {
            0 => now.wrapping_mul(2),
            1 => now.wrapping_add(1),
            2 => random.next_u64() as u32,
            _ => random.pick(&EDGES),
        };
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    if random.once_in(10) {
        let at = random.below(8);
        bytes[at] = random.next_u64() as u8;
    }
    if random.once_in(10) {
        bytes.truncate(random.below(bytes.len() + 1));
    }
    bytes
}

#[test]
fn any_header_is_refused_or_describes_tensors_that_tile_a_file() {
    let (mut accepted, mut laid_out, mut cut) = (0, 0, 0);
    for seed in 0..60_000 {
        let random = &mut Random::new(seed);
        let bytes = random_header(random);
        let Ok(header) = Header::parse(&bytes) else { continue };
        accepted += 1;
        assert_eq!(header.check(), Ok(()), "seed {seed}");
        let Ok(layout) = Layout::new(&header) else { continue };
        laid_out += 1;
        assert!(layout.file_bytes() <= i64::MAX as u64, "seed {seed}");
        assert!(layout.check_file(layout.file_bytes()).is_ok() && layout.check_file(layout.file_bytes() - 1).is_err());
        check_layer(&header, &layout, header.n_layers - 1, seed);
        if header.n_layers <= 64 {
            cut += usize::from(check_cuts(&header, &layout, seed));
        }
    }
    println!("{accepted} headers accepted, {laid_out} laid out, {cut} cut");
    assert!(accepted > 10_000 && laid_out > 10_000 && cut > 10_000, "{accepted} {laid_out} {cut}");
}

/// The tensors of the last layer lie behind each other, and what follows it up to the end of the file.
fn check_layer(header: &Header, layout: &Layout, layer: u32, seed: u64) {
    use LayerTensor as T;
    let start = layout.tensor(TensorId::Layer(layer, T::Q)).offset;
    let mut names = vec![T::Q, T::K, T::V, T::Wo];
    if header.n_experts > 0 {
        names.push(T::MoeGate);
    }
    let expert = header.n_experts.saturating_sub(1);
    let end = [T::W1(expert), T::W2(expert), T::W3(expert)];
    if header.n_experts <= 1 {
        names.extend(end);
    }
    let mut next = start;
    for name in names {
        let tensor = layout.tensor(TensorId::Layer(layer, name));
        assert_eq!(tensor.offset, next, "seed {seed}: {name:?}");
        next += tensor.bytes();
    }
    let w3 = layout.tensor(TensorId::Layer(layer, end[2]));
    next = w3.offset + w3.bytes();
    let head_norms: &[_] = if header.arch.has_qk_norm() { &[T::QNorm, T::KNorm] } else { &[] };
    let norms = head_norms.iter().chain(&[T::Norm0, T::Norm1]).map(|name| TensorId::Layer(layer, *name));
    for id in norms.chain([TensorId::FinalNorm, TensorId::Wcls]) {
        let tensor = layout.tensor(id);
        assert_eq!(tensor.offset, next, "seed {seed}: {id}");
        next += tensor.bytes();
    }
    assert_eq!(next, layout.file_bytes(), "seed {seed}");
}

/// Graphs of an accepted header read inside the file and pass the check of the engine; true where more than one node can share it.
fn check_cuts(header: &Header, layout: &Layout, seed: u64) -> bool {
    let nodes = node_counts(header).last().unwrap_or(1);
    let shares = [2, 1, 5].map(|share| Share { layers: share, head: share });
    let cuts = [(Cut::dllama(header, nodes), nodes - 1), (Cut::single(header), 0), (Cut::rows(header, &shares), 2)];
    for (cut, node) in cuts {
        let mut tables = GraphTables::new(cut.sizes(header));
        let graph = match build(layout, &cut, node, tables.tables()) {
            Ok(graph) => graph,
            Err(PlanError::Context { max, .. }) => {
                let cut = Cut { seq_len: max, ..cut };
                build(layout, &cut, node, tables.tables()).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
            }
            Err(error) => panic!("seed {seed}: {error}"),
        };
        for op in graph.ops {
            let Some(weight) = op.weight else { continue };
            let end = weight.mat_end(weight.mats - 1);
            assert!(end.is_some_and(|end| end <= layout.file_bytes()), "seed {seed}: {} ends at {end:?}", op.name);
        }
        let mut places = vec![Place::default(); Program::places_len(&graph)];
        let mut steps = vec![Step::default(); graph.ops.len()];
        let rooms = Rooms { places: &mut places, steps: &mut steps };
        let program = Program::new(&graph, layout.file_bytes(), KvType::F32, 4, rooms);
        assert!(program.is_ok(), "seed {seed}: {}", program.unwrap_err());
    }
    nodes > 1
}

#[test]
fn random_bytes_are_no_header() {
    for seed in 0..50_000 {
        let random = &mut Random::new(seed);
        let mut bytes: Vec<u8> = (0..random.below(2 * MAX_HEADER_BYTES)).map(|_| random.next_u64() as u8).collect();
        if let Some(start) = bytes.first_chunk_mut::<8>() {
            let size =
                random.pick(&[0, 8, 12, 16, EMITTED_BYTES, MAX_HEADER_BYTES, MAX_HEADER_BYTES + 8, u32::MAX as usize]);
            start[..4].copy_from_slice(&random.pick(&[MAGIC, OLD_MAGICS[0], 7]).to_le_bytes());
            start[4..].copy_from_slice(&(size as u32).to_le_bytes());
        }
        assert!(Header::parse(&bytes).is_err(), "seed {seed}");
    }
}

#[test]
fn a_damaged_file_does_not_open_and_the_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.m");
    let whole = model_bytes(&preset("tiny-llama").unwrap(), 1);
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Model::open(&path).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("{} bytes opened", bytes.len()));
        assert!(error.contains("damaged.m") && !error.contains('\n') && error.len() < 300, "{error}");
    };
    for len in [0, 1, 7, 8, 100, EMITTED_BYTES - 1, EMITTED_BYTES, EMITTED_BYTES + 1, whole.len() / 2, whole.len() - 1]
    {
        refused(&whole[..len]);
    }
    refused(&[&whole[..], &[0]].concat());
    for seed in 0..500 {
        let random = &mut Random::new(seed);
        let mut bytes = whole[..random.below(whole.len() / 100)].to_vec();
        for _ in 0..random.below(4) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        refused(&bytes);
    }
}

#[test]
fn a_changed_dimension_no_longer_fits_the_size_of_the_file() {
    for preset in PRESETS.iter().filter(|preset| preset.name.starts_with("tiny")) {
        let file_bytes = Layout::new(&preset.header).unwrap().file_bytes();
        let changes: [fn(&mut Header); 6] = [
            |h| h.dim += 32,
            |h| h.n_layers += 1,
            |h| h.vocab_size += 1,
            |h| h.n_heads *= 2,
            |h| h.n_kv_heads = if h.n_kv_heads == 1 { 2 } else { 1 },
            |h| h.head_dim *= 2,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut header = preset.header;
            change(&mut header);
            let header = Header::parse(&header.emit()).unwrap();
            assert!(Layout::new(&header).unwrap().check_file(file_bytes).is_err(), "{}, change {index}", preset.name);
        }
    }
}

#[test]
fn the_largest_header_that_is_accepted_can_be_laid_out_and_planned() {
    for preset in PRESETS {
        let header = Header { seq_len: 1 << 24, n_heads: 1 << 12, n_layers: 256, vocab_size: 1 << 22, ..preset.header };
        for n_kv_heads in [1, 256, 1 << 12] {
            for head_dim in [32, 1 << 14] {
                let header = Header { n_kv_heads, head_dim, dim: 1 << 20, hidden_dim: 1 << 20, ..header };
                let header = Header::parse(&header.emit()).unwrap();
                let layout = Layout::new(&header).unwrap();
                check_layer(&header, &layout, 255, 0);
                check_cuts(&header, &layout, 0);
            }
        }
    }
}
