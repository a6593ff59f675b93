//! The `dllama` dialect against recorded sessions: what our root writes and our worker reads, byte for byte.

use dair_core::format::{Header, Layout};
use dair_core::graph::{Graph, Sizes, Weight};
use dair_core::plan::{Cut, build};
use dair_core::wire::Part;
use dair_core::wire::dllama::{
    ACK, Control, Hello, finish_weights, read_ack, read_hello, read_network, read_node, read_peer, read_weights,
    records, repacked, weight_bytes, write_ack, write_hello, write_network, write_node, write_record,
};
use dair_host::cluster::tables::GraphTables;
use dair_tests::golden::{CASES, Case};

struct Model {
    bytes: Vec<u8>,
    layout: Layout,
}

impl Model {
    fn of(case: &Case) -> Self {
        let bytes = case.bytes("model.m");
        let layout = Layout::new(&Header::parse(&bytes).unwrap()).unwrap();
        layout.check_file(bytes.len() as u64).unwrap();
        Self { bytes, layout }
    }

    fn sizes(&self) -> Sizes {
        Sizes::of_layers(self.layout.header().n_layers)
    }

    fn graph<'t>(&self, nodes: u32, node: u32, tables: &'t mut GraphTables) -> Graph<'t> {
        build(&self.layout, &Cut::dllama(self.layout.header(), nodes), node, tables.tables()).unwrap()
    }
}

/// All that a root says to worker `index` before the first control packet.
fn set_up_bytes(case: &Case, model: &Model, index: u32) -> Vec<u8> {
    let mut tables = GraphTables::new(model.sizes());
    let graph = model.graph(case.nodes, index + 1, &mut tables);
    let others: Vec<_> = (0..).zip(&case.workers).filter(|(worker, _)| *worker != index).collect();
    let mut out = Vec::new();
    let hello = Hello { workers: case.nodes - 1, index };
    write_hello(&mut out, hello, others.iter().map(|(_, (host, port))| (host.as_str(), *port))).unwrap();
    write_ack(&mut out).unwrap();
    write_network(&mut out, &graph).unwrap();
    write_node(&mut out, &graph).unwrap();
    let mut progress = 0;
    for record in records(&graph) {
        write_record(&mut out, &graph, record, &model.bytes[..], |bytes| progress += bytes).unwrap();
    }
    finish_weights(&mut out).unwrap();
    assert_eq!(progress, weight_bytes(&graph), "{}", case.name);
    out
}

#[test]
fn a_root_writes_the_recorded_bytes() {
    for case in CASES.map(Case::open) {
        let model = Model::of(&case);
        for index in 0..case.nodes - 1 {
            let mut recorded = case.root_bytes(index);
            let written = set_up_bytes(&case, &model, index);
            for (start, len) in case.mask(index) {
                assert!(written[start..start + len].iter().all(|byte| *byte == 0), "{} at {start}", case.name);
                recorded[start..start + len].fill(0);
            }
            let differs = written.iter().zip(&recorded).position(|(written, recorded)| written != recorded);
            assert_eq!(differs, None, "{}, worker {index}: first difference", case.name);
            let control = recorded[written.len()..][..Control::BYTES].try_into().unwrap();
            let prompt = Control { position: 0, batch: 12 };
            assert_eq!(Control::parse(control, 32, 64), Ok(Some(prompt)), "{}", case.name);
        }
    }
}

#[test]
fn a_worker_reads_the_graph_that_the_plan_makes_and_all_its_weights() {
    for case in CASES.map(Case::open) {
        let model = Model::of(&case);
        for index in 0..case.nodes - 1 {
            let recorded = case.root_bytes(index);
            let mut reader = &recorded[..];
            let hello = read_hello(&mut reader).unwrap();
            assert_eq!(hello, Hello { workers: case.nodes - 1, index });
            for (peer, expected) in (0..case.nodes - 1).filter(|worker| *worker != index).enumerate() {
                let found = read_peer(&mut reader, peer as u32).unwrap();
                let (host, port) = &case.workers[expected as usize];
                assert_eq!((found.host.as_str(), found.port), (host.as_str(), *port));
            }
            read_ack(&mut reader, Part::Handshake).unwrap();
            let mut received = GraphTables::new(Sizes::MAX);
            let mut tables = received.tables();
            let network = read_network(&mut reader, case.nodes, &mut tables.pipes).unwrap();
            let node = read_node(&mut reader, index + 1, network, tables).unwrap();
            assert!(!node.from_kin, "{}: a C++ root", case.name);
            let (graph, bytes) = (node.graph, node.weight_bytes);

            let (mut planned, mut packed) = (GraphTables::new(model.sizes()), GraphTables::new(model.sizes()));
            let planned = model.graph(case.nodes, index + 1, &mut planned);
            assert_eq!((graph, bytes), repacked(&planned, packed.tables()).unwrap(), "{}", case.name);

            let mut memory = vec![0; bytes as usize];
            let mut counters = vec![0; graph.ops.len()];
            read_weights(&mut reader, &graph, &mut memory, &mut counters, |_| ()).unwrap();
            assert_eq!(reader.len(), recorded.len() - set_up_bytes(&case, &model, index).len());
            assert_same_weights(&planned, &model.bytes, &graph, &memory);
        }
    }
}

/// Every row of every weight of one graph is that of the other.
fn assert_same_weights(one: &Graph<'_>, one_bytes: &[u8], other: &Graph<'_>, other_bytes: &[u8]) {
    for (one, other) in one.ops.iter().zip(other.ops) {
        let (Some(from), Some(to)) = (one.weight, other.weight) else { continue };
        let row_bytes = from.row_bytes().unwrap() as usize;
        for mat in 0..u64::from(from.mats) {
            for row in 0..u64::from(from.rows) {
                let at = |weight: Weight| (weight.offset + mat * weight.mat_stride + row * weight.row_stride) as usize;
                let (from, to) = (&one_bytes[at(from)..][..row_bytes], &other_bytes[at(to)..][..row_bytes]);
                assert!(from == to, "{} of layer {}: matrix {mat}, row {row}", one.name, one.layer);
            }
        }
    }
}

#[test]
fn a_worker_answers_each_step_with_an_ack() {
    for case in CASES.map(Case::open) {
        for index in 0..case.nodes - 1 {
            // Handshake, network, node, weights.
            let acks: Vec<u8> = [ACK; 4].iter().flat_map(|ack| ack.to_le_bytes()).collect();
            assert_eq!(case.worker_bytes(index)[..16], acks);
        }
    }
}
