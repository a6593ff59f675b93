//! A `.m` header: laid out, cut for nodes, checked as the engine checks it.

#![no_main]

use dair_core::exec::{Place, Program, Rooms, Step};
use dair_core::format::{Header, Layout};
use dair_core::kernels::KvType;
use dair_core::plan::{Cut, PlanError, Share, build, node_counts};
use dair_host::cluster::tables::GraphTables;
use dair_host::model::kind::{FileKind, HEAD_BYTES};

/// Graphs of more layers say nothing new, and take long.
const MAX_LAYERS: u32 = 4;

dair_fuzz::target!(8 << 20, 64, |bytes| {
    let _ = FileKind::of(&bytes[..bytes.len().min(HEAD_BYTES)]);
    let header = match Header::parse(bytes) {
        Ok(header) => header,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    assert_eq!(header.check(), Ok(()));
    let again = Header::parse(&header.emit()).expect("a header that was written");
    assert_eq!(again, Header { header_bytes: again.header_bytes, version: again.version, ..header });
    let Ok(layout) = Layout::new(&header) else { return };
    assert!(layout.check_file(layout.file_bytes()).is_ok() && layout.check_file(layout.file_bytes() - 1).is_err());
    if header.n_layers > MAX_LAYERS {
        return;
    }
    let mut end = 0;
    if header.n_experts <= 16 {
        layout.visit(|id, tensor| {
            assert!(tensor.offset >= end && tensor.offset + tensor.bytes() <= layout.file_bytes(), "{id}");
            end = tensor.offset + tensor.bytes();
        });
        assert_eq!(end, layout.file_bytes());
    }
    let nodes = node_counts(&header).last().unwrap_or(1);
    let shares = [2, 1, 5].map(|share| Share { layers: share, head: share });
    let cuts = [(Cut::dllama(&header, nodes), nodes - 1), (Cut::single(&header), 0), (Cut::rows(&header, &shares), 2)];
    for (cut, node) in cuts {
        check_cut(&header, &layout, &cut, node);
    }
});

/// The graph of a node reads inside the file, and the engine takes it.
fn check_cut(header: &Header, layout: &Layout, cut: &Cut<'_>, node: u32) {
    let mut tables = GraphTables::new(cut.sizes(header));
    let graph = match build(layout, cut, node, tables.tables()) {
        Err(PlanError::Context { max, .. }) => {
            build(layout, &Cut { seq_len: max, ..*cut }, node, tables.tables()).expect("the context that is allowed")
        }
        graph => graph.expect("a cut of a header that was accepted"),
    };
    for weight in graph.ops.iter().filter_map(|op| op.weight) {
        assert!(weight.mat_end(weight.mats - 1).is_some_and(|end| end <= layout.file_bytes()));
    }
    let mut places = vec![Place::default(); Program::places_len(&graph)];
    let mut steps = vec![Step::default(); graph.ops.len()];
    let rooms = Rooms { places: &mut places, steps: &mut steps };
    Program::new(&graph, layout.file_bytes(), KvType::F32, 4, rooms).expect("a graph that was built");
}
