//! `dair inspect`: what a model file holds, and what each node of a cluster would compute.

use super::Failure;
use super::model_files::ModelFiles;
use crate::cluster::kv::{self, Kv};
use crate::cluster::tables::GraphTables;
use crate::machine::terminal;
use crate::model::Model;
use dair_core::format::{Header, Layout, Tensor, TensorId};
use dair_core::graph::{Graph, MAX_NODES, Weight};
use dair_core::kernels::{KvLayout, KvType};
use dair_core::plan::{self, Cut, Share};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  dair inspect --model smollm2.m
  dair inspect --model smollm2.m --nodes 3 --all
  dair inspect --model smollm2.m --json | jq '.tensors[] | select(.name == \"wcls\")'";

/// Show a model's header, where its tensors lie, and which part each node of a cluster computes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Model: a .m file, or the name of one that dair pull got; a GGUF file or a Hugging Face folder is converted, once, into the cache
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
    /// Cut the model by rows into equal parts for this many nodes, the root included
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_NODES)))]
    nodes: u32,
    /// Type in which keys and values would be kept
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    kv: Kv,
    /// List the tensors of every layer, not of the first alone
    #[arg(long)]
    all: bool,
    /// Print one JSON object, with every tensor and every part
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let files = ModelFiles::of(&args.model, false)?;
    let model = Model::open(&files.model)?;
    let header = model.header();
    let kv = KvType::from(args.kv);
    let layout = kv::layout(kv, header).map_err(|error| error.to_string())?;
    let shares = vec![Share::EQUAL; args.nodes as usize];
    let cut = Cut::rows(header, &shares);
    let mut parts = Vec::new();
    for node in 0..args.nodes {
        let mut tables = GraphTables::new(cut.sizes(header));
        let graph = plan::build(&model.layout, &cut, node, tables.tables())?;
        parts.push(Part::of(&graph, (&cut, node), &layout, header));
    }
    let printed = if args.json {
        terminal::print_line(to_json(&model, &parts))
    } else {
        terminal::print(to_text(&model, &parts, kv, args.all))
    };
    Ok(printed?)
}

/// What one node reads and keeps.
struct Part {
    weight_bytes: u64,
    kv_cache_bytes: u64,
    weights: Vec<(String, Weight)>,
}

impl Part {
    fn of(graph: &Graph<'_>, (cut, node): (&Cut<'_>, u32), layout: &KvLayout, header: &Header) -> Self {
        let weights: Vec<_> =
            graph.ops.iter().filter_map(|op| Some((format!("{}.{}", op.name, op.layer), op.weight?))).collect();
        let bytes = |weight: &Weight| weight.mat_bytes().unwrap_or(0) * u64::from(weight.mats);
        Self {
            weight_bytes: weights.iter().map(|(_, weight)| bytes(weight)).sum(),
            kv_cache_bytes: kv::cache_bytes(layout, cut.kv_rows(header, node), cut.seq_len),
            weights,
        }
    }
}

/// The shortest decimal of an F32: 1e-5, not the digits of its neighbour in F64.
fn number(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

/// Name and value of every field worth showing.
fn fields(header: &Header) -> Vec<(&'static str, Value)> {
    let mut fields = vec![
        ("architecture", json!(header.arch.name())),
        ("weights", json!(header.weights.name())),
        ("n_layers", json!(header.n_layers)),
        ("dim", json!(header.dim)),
        ("hidden_dim", json!(header.hidden_dim)),
        ("n_heads", json!(header.n_heads)),
        ("n_kv_heads", json!(header.n_kv_heads)),
        ("head_dim", json!(header.head_dim)),
        ("vocab_size", json!(header.vocab_size)),
        ("seq_len", json!(header.seq_len)),
        ("rope_type", json!(format!("{:?}", header.rope).to_lowercase())),
        ("rope_theta", number(header.rope_theta)),
        ("norm_epsilon", number(header.norm_epsilon)),
        ("header_bytes", json!(header.header_bytes)),
    ];
    if header.rope_scaling.factor != 1.0 {
        let scaling = &header.rope_scaling;
        fields.push(("rope_scaling_factor", number(scaling.factor)));
        fields.push(("rope_low_freq_factor", number(scaling.low_freq_factor)));
        fields.push(("rope_high_freq_factor", number(scaling.high_freq_factor)));
        fields.push(("rope_orig_seq_len", json!(scaling.orig_seq_len)));
    }
    if header.n_experts > 0 {
        fields.push(("n_experts", json!(header.n_experts)));
        fields.push(("n_active_experts", json!(header.n_active_experts)));
        fields.push(("moe_hidden_dim", json!(header.moe_hidden_dim)));
    }
    fields
}

fn tensors(layout: &Layout) -> Vec<(TensorId, Tensor)> {
    let mut tensors = Vec::new();
    layout.visit(|id, tensor| tensors.push((id, tensor)));
    tensors
}

fn to_json(model: &Model, parts: &[Part]) -> Value {
    let header: serde_json::Map<_, _> =
        fields(model.header()).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let tensors: Vec<_> = tensors(&model.layout)
        .iter()
        .map(|(id, t)| {
            json!({"name": id.to_string(), "dtype": t.dtype.name(), "shape": [t.rows, t.cols],
                "offset": t.offset, "bytes": t.bytes()})
        })
        .collect();
    let nodes: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(node, part)| {
            let weights: Vec<_> = part
                .weights
                .iter()
                .map(|(name, w)| {
                    json!({"op": name, "dtype": w.dtype.name(), "offset": w.offset, "shape": [w.mats, w.rows, w.cols],
                        "row_stride": w.row_stride, "mat_stride": w.mat_stride})
                })
                .collect();
            json!({"node": node, "weight_bytes": part.weight_bytes, "kv_cache_bytes": part.kv_cache_bytes,
                "weights": weights})
        })
        .collect();
    json!({
        "file": model.path.display().to_string(),
        "file_bytes": model.layout.file_bytes(),
        "header": header,
        "node_counts": plan::node_counts(model.header()).collect::<Vec<_>>(),
        "tensors": tensors,
        "nodes": nodes,
    })
}

fn to_text(model: &Model, parts: &[Part], kv: KvType, all: bool) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_text(&mut out, model, parts, kv, all);
    out
}

fn write_text(out: &mut String, model: &Model, parts: &[Part], kv: KvType, all: bool) -> std::fmt::Result {
    let header = model.header();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    writeln!(out, "{}: {:.1} MB", model.path.display(), megabytes(model.layout.file_bytes()))?;
    for (name, value) in fields(header) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "  {name:<22} {value}")?;
    }
    let counts: Vec<_> = plan::node_counts(header).map(|count| count.to_string()).collect();
    writeln!(out, "  {:<22} {}", "cuts by columns into", counts.join(", "))?;

    writeln!(out, "\n{:<20} {:<5} {:>15} {:>15} {:>13}", "tensor", "type", "rows x cols", "offset", "bytes")?;
    for (id, t) in tensors(&model.layout) {
        match id {
            TensorId::Layer(1.., _) if !all => continue,
            TensorId::FinalNorm if !all && header.n_layers > 1 => {
                let last = header.n_layers - 1;
                writeln!(
                    out,
                    "layers 1 to {last} follow, {} bytes each (--all lists them)",
                    model.layout.layer_bytes()
                )?;
            }
            _ => {}
        }
        let shape = format!("{} x {}", t.rows, t.cols);
        writeln!(out, "{:<20} {:<5} {shape:>15} {:>15} {:>13}", id.to_string(), t.dtype, t.offset, t.bytes())?;
    }

    writeln!(out)?;
    for (node, part) in parts.iter().enumerate() {
        let role = if node == 0 { "root" } else { "worker" };
        writeln!(
            out,
            "node {node} ({role}): {:.1} MB of weights, {:.1} MB of {kv} KV cache at {} positions",
            megabytes(part.weight_bytes),
            megabytes(part.kv_cache_bytes),
            header.seq_len
        )?;
        if parts.len() == 1 {
            break;
        }
        for (name, w) in part.weights.iter().filter(|(name, _)| all || name.ends_with(".0")) {
            let shape = format!("{} x {}", w.rows, w.cols);
            let step = if w.mats > 1 { format!(", {} experts {} apart", w.mats, w.mat_stride) } else { String::new() };
            writeln!(out, "  {name:<24} {shape:>15} from byte {}, rows {} apart{step}", w.offset, w.row_stride)?;
        }
    }
    Ok(())
}
