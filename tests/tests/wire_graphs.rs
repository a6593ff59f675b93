//! Graphs over the `dllama` dialect: what is sent is what is received, and what is malformed is named.

use dair_core::exec::{Batch, Engine, Logits, Place, Program, Rooms, Run, Step};
use dair_core::format::{Arch, Header, Layout, RopeKind, RopeScaling};
use dair_core::graph::{Graph, Sizes};
use dair_core::io::{Alone, Serial};
use dair_core::kernels::KvType;
use dair_core::plan::{Cut, build, node_counts};
use dair_core::quant::DType;
use dair_core::wire::ReadError;
use dair_core::wire::dllama::{
    Node, finish_weights, read_network, read_node, read_weights, records, repacked, write_network, write_node,
    write_record,
};
use dair_host::cluster::tables::GraphTables;
use dair_host::machine::arena::ArenaMemory;
use dair_host::machine::cpu::best_kernels;
use std::convert::Infallible;

fn header(arch: Arch, weights: DType, rope: RopeKind) -> Header {
    let moe = arch == Arch::Qwen3Moe;
    Header {
        version: 0,
        arch,
        dim: 128,
        hidden_dim: 512,
        n_layers: 3,
        n_heads: 8,
        n_kv_heads: 4,
        head_dim: 32,
        n_experts: if moe { 4 } else { 0 },
        n_active_experts: if moe { 2 } else { 0 },
        moe_hidden_dim: if moe { 256 } else { 0 },
        vocab_size: 160,
        seq_len: 64,
        hidden_act: 1,
        rope,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling {
            factor: if rope == RopeKind::Llama31 { 8.0 } else { 1.0 },
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            orig_seq_len: 32,
        },
        weights,
        norm_epsilon: 1e-6,
        header_bytes: 136,
    }
}

fn models() -> impl Iterator<Item = Header> {
    use {Arch::*, RopeKind as R};
    let kinds = [(Llama, R::Llama), (Llama, R::Llama31), (Llama, R::Falcon), (Qwen3, R::Falcon), (Qwen3Moe, R::Falcon)];
    kinds.into_iter().flat_map(|(arch, rope)| DType::ALL.map(|weights| header(arch, weights, rope)))
}

fn write(graph: &Graph<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_network(&mut bytes, graph).unwrap();
    write_node(&mut bytes, graph).unwrap();
    bytes
}

fn read<'t>(
    bytes: &mut &[u8],
    (node, nodes): (u32, u32),
    slots: &'t mut GraphTables,
) -> Result<(Graph<'t>, u64), ReadError<Infallible>> {
    let mut tables = slots.tables();
    let network = read_network(bytes, nodes, &mut tables.pipes)?;
    let Node { graph, weight_bytes, from_kin } = read_node(bytes, node, network, tables)?;
    assert!(!from_kin, "zeros are nobody's name");
    Ok((graph, weight_bytes))
}

#[test]
fn every_graph_reads_back_as_it_was_written() {
    let mut graphs = 0;
    for header in models() {
        let layout = Layout::new(&header).unwrap();
        let sizes = Sizes::of_layers(header.n_layers);
        for nodes in node_counts(&header) {
            let cut = Cut::dllama(&header, nodes);
            for node in 0..nodes {
                let [mut planned, mut packed, mut received] = [(); 3].map(|()| GraphTables::new(sizes));
                let graph = build(&layout, &cut, node, planned.tables()).unwrap();
                let bytes = write(&graph);
                let mut rest = &bytes[..];
                let read = read(&mut rest, (node, nodes), &mut received);
                assert_eq!(read, Ok(repacked(&graph, packed.tables()).unwrap()), "{header:?}, node {node} of {nodes}");
                assert!(rest.is_empty());
                graphs += 1;
            }
        }
    }
    assert_eq!(graphs, 5 * 4 * (1 + 2 + 4));
}

#[test]
fn weights_arrive_where_the_reader_packed_them() {
    for header in models() {
        let layout = Layout::new(&header).unwrap();
        // A file whose every byte says where it is, more or less.
        let file: Vec<u8> = (0..layout.file_bytes()).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
        let sizes = Sizes::of_layers(header.n_layers);
        for (node, nodes) in [(1, 2), (3, 4)] {
            let [mut planned, mut packed] = [(); 2].map(|()| GraphTables::new(sizes));
            let graph = build(&layout, &Cut::dllama(&header, nodes), node, planned.tables()).unwrap();
            let (target, bytes) = repacked(&graph, packed.tables()).unwrap();
            let mut sent = Vec::new();
            for record in records(&graph) {
                write_record(&mut sent, &graph, record, &file[..], |_| ()).unwrap();
            }
            finish_weights(&mut sent).unwrap();
            let mut memory = vec![0; bytes as usize];
            let mut counters = vec![0; target.ops.len()];
            let mut seen = 0;
            read_weights(&mut &sent[..], &target, &mut memory, &mut counters, |bytes| seen += bytes).unwrap();
            let mut rows = 0;
            for (from, to) in graph.ops.iter().zip(target.ops).filter_map(|(a, b)| a.weight.zip(b.weight)) {
                let row_bytes = from.row_bytes().unwrap();
                for (mat, row) in (0..u64::from(from.mats)).flat_map(|m| (0..u64::from(from.rows)).map(move |r| (m, r)))
                {
                    let from = (from.offset + mat * from.mat_stride + row * from.row_stride) as usize;
                    let to = (to.offset + mat * to.mat_stride + row * to.row_stride) as usize;
                    assert!(file[from..][..row_bytes as usize] == memory[to..][..row_bytes as usize], "{header:?}");
                    rows += row_bytes;
                }
            }
            assert_eq!(seen, rows);
        }
    }
}

/// A written graph, the 32-bit word `at` bytes behind `mark` (or the start) replaced.
fn with_word(mark: &str, at: isize, word: u32) -> String {
    let header = header(Arch::Llama, DType::Q40, RopeKind::Llama);
    let mut planned = GraphTables::new(Sizes::of_layers(header.n_layers));
    let graph = build(&Layout::new(&header).unwrap(), &Cut::dllama(&header, 2), 1, planned.tables()).unwrap();
    let mut bytes = write(&graph);
    let start = (0..bytes.len()).find(|at| bytes[*at..].starts_with(mark.as_bytes())).unwrap();
    let at = start.checked_add_signed(at).unwrap();
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    match read(&mut &bytes[..], (1, 2), &mut GraphTables::new(Sizes::MAX)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("word {at} = {word} was taken"),
    }
}

#[test]
fn malformed_configs_are_refused_by_field() {
    let net = |at, word| with_word("", at, word);
    assert_eq!(net(0, 7), "network config: ACK is 7; it must be 23571114");
    assert_eq!(net(4, 257), "network config: batch size is 257; allowed: 1 to 256");
    assert_eq!(net(8, 3), "network config: number of nodes is 3; it must be 2");
    assert_eq!(net(12, 0x7fff_ffff), "network config: number of pipes is 2147483647; allowed: 1 to 5");
    assert_eq!(net(16, 9), "network config: pipe 0: float type is 9; allowed: 0 to 3");
    assert_eq!(net(20, 0), "network config: pipe 0: planes is 0; allowed: 1 to 4294967295");
    assert_eq!(net(28, 2), "network config: pipe 0: length is 32; it must be 64");
    assert_eq!(net(56, u32::MAX), "network config: pipe 0: name length is 4294967295; allowed: 1 to 32");
    assert_eq!(net(56, 33), "network config: pipe 0: name length is 33; allowed: 1 to 32");
    assert_eq!(net(60, 0xFFFF_FFFF), "network config: pipe 0: name is not UTF-8 text closed by a NUL");
    let node = |at: isize, word| with_word("", 260 + at, word);
    assert_eq!(node(0, 0), "node config: ACK is 0; it must be 23571114");
    assert_eq!(node(4, 2), "node config: node index is 2; it must be 1");
    assert_eq!(node(8, 1 << 31), "node config: number of buffers is 2147483648; allowed: 1 to 535");
    assert_eq!(node(12, 515), "node config: number of segments is 515; allowed: 1 to 514");
    assert_eq!(node(28, 1 << 31), "node config: buffer 0: length is 4096; it must be 68719476736");
    // The first op: code, layer, weight size, config size, name length, name; then two operands.
    let op = |at, word| with_word("block_cast_x\0", at, word);
    assert_eq!(op(-56, 9999), "node config: segment 1, op 0: op code is 9999; allowed: 0 to 16");
    assert_eq!(op(-52, 300), "node config: segment 1, op 0: layer is 300; allowed: 0 to 255");
    assert_eq!(op(-44, 1), "node config: segment 1, op 0: size without a float type is 1; it must be 0");
    assert_eq!(op(-8, 12), "node config: segment 1, op 0: config size is 12; it must be 1");
    assert_eq!(op(-4, 0), "node config: segment 1, op 0: name length is 0; allowed: 1 to 32");
    assert_eq!(op(13 + 4, 9999), "node config: segment 1, op 0: input index is 9999; allowed: 0 to 4");
    assert_eq!(op(25 + 4, 9999), "node config: segment 1, op 0: output index is 9999; allowed: 0 to 28");
    assert_eq!(op(25 + 8, 3), "node config: segment 1, op 0: output view is 3; allowed: 0 to 2");
}

/// Runs two passes of a graph that was taken off the wire, if the engine takes it too; says whether it did.
fn run(graph: &Graph<'_>, weight_bytes: u64) -> bool {
    let weights = vec![0x3C; weight_bytes as usize];
    let mut places = vec![Place::default(); Program::places_len(graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    let Ok(program) = Program::new(graph, weight_bytes, KvType::default(), 1, rooms) else { return false };
    if program.arena_bytes() > 64 << 20 {
        return false;
    }
    let mut arena = ArenaMemory::new(program.arena_bytes()).unwrap();
    let mut engine = Engine::new(&program, &weights[..], &Serial, best_kernels(), &mut arena);
    for (position, rows) in [(0, graph.batch_max.min(3)), (program.seq_len().saturating_sub(1), 1)] {
        // Refusals are fine, panics are not.
        let _ = engine.forward(&mut Alone, Batch { runs: &[Run::new(position, rows, Logits::All)], tokens: &[] });
    }
    true
}

#[test]
fn any_changed_byte_of_a_config_is_refused_or_harmless() {
    for arch in [Arch::Llama, Arch::Qwen3Moe] {
        let mut header = header(arch, DType::Q40, RopeKind::Falcon);
        header.n_layers = 1;
        let mut planned = GraphTables::new(Sizes::of_layers(1));
        let graph = build(&Layout::new(&header).unwrap(), &Cut::dllama(&header, 2), 1, planned.tables()).unwrap();
        let mut bytes = write(&graph);
        let mut slots = GraphTables::new(Sizes::of_layers(1));
        let (mut read_ok, mut ran) = (0, 0);
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xFF] {
                bytes[at] ^= change;
                if let Ok((graph, total)) = read(&mut &bytes[..], (1, 2), &mut slots) {
                    let ends = graph.ops.iter().filter_map(|op| op.weight?.mat_end(op.weight?.mats - 1));
                    assert!(ends.max() <= Some(total), "byte {at}");
                    read_ok += 1;
                    ran += u32::from(total < 64 << 20 && run(&graph, total));
                }
                bytes[at] ^= change;
            }
        }
        // Names, layers, epsilons and the like are free; sizes and indexes are not.
        println!("{arch:?}: {} changes, {read_ok} read, {ran} run", bytes.len() * 3);
        assert!(ran > 0 && ran < read_ok && read_ok < bytes.len() as u32 * 3 / 2);
        for len in 0..bytes.len() {
            assert!(matches!(read(&mut &bytes[..len], (1, 2), &mut slots), Err(ReadError::Closed(_))), "{len} bytes");
        }
    }
}

#[test]
fn weight_records_must_fit_their_op() {
    let header = header(Arch::Llama, DType::Q40, RopeKind::Llama);
    let [mut planned, mut packed] = [(); 2].map(|()| GraphTables::new(Sizes::of_layers(header.n_layers)));
    let graph = build(&Layout::new(&header).unwrap(), &Cut::dllama(&header, 2), 1, planned.tables()).unwrap();
    let (graph, bytes) = repacked(&graph, packed.tables()).unwrap();
    let mut memory = vec![0; bytes as usize];
    let mut counters = vec![0; graph.ops.len()];
    let mut receive = |records: &[(&str, u32, u64, u64, usize)]| {
        let mut sent = Vec::new();
        for (name, layer, offset, bytes, data) in records {
            sent.extend((name.len() as u32 + 1).to_le_bytes());
            sent.extend(name.as_bytes());
            sent.push(0);
            sent.extend(layer.to_le_bytes());
            sent.extend(offset.to_le_bytes());
            sent.extend(bytes.to_le_bytes());
            sent.extend(vec![0; *data]);
        }
        sent.extend([0; 4]);
        read_weights(&mut &sent[..], &graph, &mut memory, &mut counters, |_| ()).unwrap_err().to_string()
    };
    let q = "block_matmul_q";
    assert_eq!(
        receive(&[(q, 0, 1 << 31, 64, 64)]),
        "weights: block_matmul_q of layer 0: offset is 2147483648; it must be 0"
    );
    assert_eq!(
        receive(&[(q, 0, 0, u64::MAX, 0)]),
        "weights: block_matmul_q of layer 0: number of bytes is 18446744073709551615; allowed: 1 to 9216"
    );
    assert_eq!(
        receive(&[(q, 0, 0, 0, 0)]),
        "weights: block_matmul_q of layer 0: number of bytes is 0; allowed: 1 to 9216"
    );
    assert_eq!(
        receive(&[(q, 9, 0, 64, 64)]),
        "weights: block_matmul_q of layer 9: weight record names no op that takes weights"
    );
    assert_eq!(
        receive(&[("a\n\u{1b}[2J", 0, 0, 64, 64)]),
        "weights: a\u{fffd}\u{fffd}[2J of layer 0: weight record names no op that takes weights",
        "a terminal obeys no name"
    );
    assert_eq!(
        receive(&[("block_cast_y", 0, 0, 64, 64)]),
        "weights: block_cast_y of layer 0: weight record names no op that takes weights"
    );
    assert_eq!(
        receive(&[(q, 0, 0, 9216, 9216), (q, 0, 9216, 64, 64)]),
        "weights: block_matmul_q of layer 0: weight record repeats what was received before"
    );
    let long = "x".repeat(40);
    assert_eq!(receive(&[(&long, 0, 0, 64, 64)]), "weights: name length is 41; allowed: 0 to 32");
    assert_eq!(
        receive(&[(q, 0, 0, 9000, 9000)]),
        "weights: block_norm_0 of layer 0: number of bytes received is 0; it must be 512"
    );
}
