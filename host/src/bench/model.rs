//! How fast a whole model is: one of a published shape with random weights, in a temporary file.

use super::{BenchError, Rate, Run, interleave, timed};
use crate::cluster::error::RootError;
use crate::cluster::options::Options;
use crate::cluster::root::{self, Root};
use crate::machine::{disk, memory};
use crate::model::Model;
use crate::synthetic;
use dair_core::exec::Logits;
use dair_core::format::layout::LayerTensor;
use dair_core::format::{Header, Layout, TensorId};
use dair_core::kernels::Kernels;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Tokens of a prompt.
const PREFILL_TOKENS: usize = 256;
/// Tokens that a slow machine shortens it to: one batch.
const PREFILL_TOKENS_MIN: usize = 32;
/// Tokens that are fed one by one, from the first position on.
const DECODE_TOKENS: usize = 32;
/// Tokens that a slow machine shortens them to.
const DECODE_TOKENS_MIN: usize = 4;
/// Seed of the weights.
const SEED: u64 = 1;

/// A model to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its dimensions, with all layers.
    pub header: Header,
    /// Layers to be measured, where not all are.
    pub layers: Option<u32>,
}

impl Shape {
    /// The dimensions of what is measured.
    fn cut(&self) -> Result<Header, BenchError> {
        let found = self.header.n_layers;
        match self.layers {
            Some(asked) if !(1..=found).contains(&asked) => Err(BenchError::Layers { shape: self.name, asked, found }),
            layers => Ok(Header { n_layers: layers.unwrap_or(found), ..self.header }),
        }
    }
}

/// Speed of a model.
#[derive(Clone, Debug)]
pub struct ModelFigures {
    /// The shape as asked for.
    pub shape: Shape,
    /// Layers that were measured.
    pub layers: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Threads.
    pub threads: usize,
    /// A prompt.
    pub prefill: PhaseFigures,
    /// Tokens one by one.
    pub decode: PhaseFigures,
    /// Bytes of weights that a token reads in decode.
    pub weight_bytes_per_token: u64,
    /// Multiplications and additions of matrices for a token of the prompt, in 10^9.
    pub gop_per_token: f64,
    /// Tokens per second of prefill and decode that all layers would give, where only some were measured: as much slower
    /// as there are more operations, and more bytes.
    pub projected: Option<(f64, f64)>,
    /// Largest resident size of the process.
    pub peak_memory_bytes: u64,
}

impl ModelFigures {
    /// 10^9 bytes of weights that decode reads per second.
    pub fn decode_gb_per_s(&self) -> f64 {
        self.decode.tokens_per_s.median * self.weight_bytes_per_token as f64 / 1e9
    }

    /// 10^9 multiplications and additions of matrices per second in prefill.
    pub fn prefill_gop_per_s(&self) -> f64 {
        self.prefill.tokens_per_s.median * self.gop_per_token
    }
}

/// Tokens in a row, several times.
#[derive(Clone, Copy, Debug)]
pub struct PhaseFigures {
    /// Tokens of a run.
    pub tokens: usize,
    /// Tokens per second.
    pub tokens_per_s: Rate,
}

/// Builds the model in a folder, measures it and removes it; `progress` hears of bytes written of all, and may end it.
///
/// # Errors
/// Where memory or disk are too small, before anything is written; where the system fails.
pub fn measure(
    shape: &Shape,
    folder: &Path,
    (threads, kernels): (usize, Kernels),
    budget: Duration,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ModelFigures, BenchError> {
    let header = shape.cut()?;
    let work = Work::of(&header);
    let seq_len = (PREFILL_TOKENS as u32).min(header.seq_len);
    check_room(&header, work.file_bytes, seq_len, folder)?;
    let model = build(&header, folder, |bytes| progress(bytes, work.file_bytes))?;

    let options = Options { kernels, max_seq_len: Some(seq_len), ..Options::alone(threads) };
    let (prefill, decode) = root::with_root(&model, &options, &|_| (), |root| run(root, &header, budget))?;
    let whole = Work::of(&shape.header);
    let projected = (header.n_layers < shape.header.n_layers).then(|| {
        let fewer_ops = work.ops(prefill.tokens) / whole.ops(prefill.tokens);
        let fewer_bytes = work.decode_bytes as f64 / whole.decode_bytes as f64;
        (prefill.tokens_per_s.median * fewer_ops, decode.tokens_per_s.median * fewer_bytes)
    });
    Ok(ModelFigures {
        shape: *shape,
        layers: header.n_layers,
        file_bytes: work.file_bytes,
        threads,
        prefill,
        decode,
        weight_bytes_per_token: work.decode_bytes,
        gop_per_token: work.ops(prefill.tokens) / prefill.tokens as f64 / 1e9,
        projected,
        peak_memory_bytes: memory::peak_bytes(),
    })
}

/// What a model costs.
struct Work {
    file_bytes: u64,
    /// Bytes of weights that a single token reads.
    decode_bytes: u64,
    /// Multiplications and additions per token in the matrices of all layers.
    layer_ops: f64,
    /// Those of the output matrix, which only the last token of a prompt goes through.
    head_ops: f64,
}

impl Work {
    fn of(header: &Header) -> Self {
        let layout = Layout::new(header).expect("published shapes are valid");
        let active = header.n_active_experts.max(1);
        let mut work = Self { file_bytes: layout.file_bytes(), decode_bytes: 0, layer_ops: 0.0, head_ops: 0.0 };
        layout.visit(|id, tensor| {
            let ops = 2.0 * f64::from(tensor.rows) * f64::from(tensor.cols);
            match id {
                // One row is looked up.
                TensorId::Embedding => return work.decode_bytes += tensor.row_bytes,
                // Of many experts the router takes some.
                TensorId::Layer(_, LayerTensor::W1(expert) | LayerTensor::W2(expert) | LayerTensor::W3(expert))
                    if expert >= active =>
                {
                    return;
                }
                TensorId::Wcls => work.head_ops += ops,
                // A vector is no matrix.
                TensorId::Layer(..) if tensor.rows > 1 => work.layer_ops += ops,
                TensorId::Layer(..) | TensorId::FinalNorm => {}
            }
            work.decode_bytes += tensor.bytes();
        });
        work
    }

    /// Operations of a prompt.
    fn ops(&self, tokens: usize) -> f64 {
        self.layer_ops * tokens as f64 + self.head_ops
    }
}

/// Demands room in memory and in `folder`.
fn check_room(header: &Header, file_bytes: u64, seq_len: u32, folder: &Path) -> Result<(), BenchError> {
    let kv_cache = 2 * 4 * u64::from(header.n_layers) * u64::from(seq_len) * u64::from(header.kv_dim());
    let (needed, usable) = (file_bytes + kv_cache, memory::usable_bytes());
    if needed > usable || usize::try_from(needed).is_err() {
        return Err(BenchError::Memory { needed, usable: usable.min(usize::MAX as u64) });
    }
    let free = disk::free_bytes(folder).map_err(BenchError::system(format!("use the folder {}", folder.display())))?;
    if file_bytes > free {
        return Err(BenchError::Disk { folder: folder.into(), needed: file_bytes, free });
    }
    Ok(())
}

/// Writes the model and opens it. Its file has no name any more when this returns: it goes away with the process at the
/// latest, however that ends.
fn build(header: &Header, folder: &Path, progress: impl FnMut(u64) -> ControlFlow<()>) -> Result<Model, BenchError> {
    let what = || format!("write a temporary model to {}", folder.display());
    let temporary =
        tempfile::Builder::new().prefix("dair-bench-").tempdir_in(folder).map_err(BenchError::system(what()))?;
    let path = temporary.path().join("model.m");
    synthetic::write_model_with(&path, header, SEED, progress).map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => BenchError::Interrupted,
        _ => BenchError::System(what(), error),
    })?;
    let model = Model::open(&path).map_err(BenchError::Model)?;
    temporary.close().map_err(BenchError::system(format!("remove the temporary model from {}", folder.display())))?;
    Ok(model)
}

/// Prefill and decode in turn.
fn run(root: &mut Root<'_>, header: &Header, budget: Duration) -> Result<(PhaseFigures, PhaseFigures), BenchError> {
    let tokens: Vec<u32> = (0..PREFILL_TOKENS.min(root.seq_len() as usize) as u32)
        .map(|i| i.wrapping_mul(2_654_435_761) % header.vocab_size)
        .collect();
    let (tokens, root) = (&tokens[..], RefCell::new(root));
    let prefill = |count: usize| root.borrow_mut().forward(&tokens[..count], 0, Logits::Last);
    let decode =
        |count: usize| (0..count).try_for_each(|i| root.borrow_mut().forward(&tokens[i..=i], i as u32, Logits::Last));
    // How many tokens there is time for; the first ones find pages that were never touched.
    let least = PREFILL_TOKENS_MIN.min(tokens.len());
    prefill(least)?;
    decode(1)?;
    let fitting = |count: usize, work: &dyn Fn(usize) -> Result<(), RootError>| {
        let mut result = Ok(());
        let time = timed(|| result = work(count)).as_secs_f64();
        result.map(|()| (budget.as_secs_f64() / 6.0 / time * count as f64) as usize)
    };
    let prefill_tokens = fitting(least, &prefill)?.clamp(least, tokens.len()) / least * least;
    let decode_tokens = fitting(1, &decode)?.clamp(DECODE_TOKENS_MIN, DECODE_TOKENS);

    let failure = RefCell::new(None);
    let note = |result: Result<(), RootError>| {
        if let Err(error) = result {
            failure.borrow_mut().get_or_insert(error);
        }
    };
    let mut runs: [Run<'_>; 2] =
        [Box::new(|| timed(|| note(prefill(prefill_tokens)))), Box::new(|| timed(|| note(decode(decode_tokens))))];
    let times = interleave(&mut runs, budget * 2 / 3);
    drop(runs);
    if let Some(error) = failure.take() {
        return Err(error.into());
    }
    let figures =
        |tokens: usize, times: &[Duration]| PhaseFigures { tokens, tokens_per_s: Rate::of(tokens as f64, times) };
    Ok((figures(prefill_tokens, &times[0]), figures(decode_tokens, &times[1])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpu;

    fn shape(name: &'static str, layers: Option<u32>) -> Shape {
        Shape { name, header: synthetic::preset(name).unwrap(), layers }
    }

    fn measured(shape: &Shape) -> Result<ModelFigures, BenchError> {
        let folder = tempfile::tempdir().unwrap();
        let kernels = cpu::best_kernels();
        let figures =
            measure(shape, folder.path(), (2, kernels), Duration::from_millis(50), |_, _| ControlFlow::Continue(()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        figures
    }

    #[test]
    fn every_kind_of_model_is_measured() {
        for name in ["tiny-llama", "tiny-llama31", "tiny-qwen3", "tiny-qwen3-moe"] {
            let figures = measured(&shape(name, None)).unwrap();
            assert!(figures.prefill.tokens_per_s.median > 0.0 && figures.decode.tokens_per_s.median > 0.0);
            assert_eq!((figures.layers, figures.projected), (shape(name, None).header.n_layers, None));
        }
    }

    #[test]
    fn a_model_with_fewer_layers_is_projected_to_be_slower() {
        let figures = measured(&shape("tiny-llama", Some(1))).unwrap();
        let (prefill, decode) = figures.projected.unwrap();
        assert!(prefill < figures.prefill.tokens_per_s.median && decode < figures.decode.tokens_per_s.median);
        for layers in [0, 4] {
            let error = measured(&shape("tiny-llama", Some(layers))).unwrap_err().to_string();
            assert!(error.contains("allowed: 1 to 3"), "{error}");
        }
    }

    #[test]
    fn a_model_beyond_the_memory_is_refused_before_anything_is_written() {
        let mut shape = shape("llama3-8b", None);
        shape.header = Header { n_layers: 20_000, vocab_size: 16_000_000, ..shape.header };
        let error = measured(&shape).unwrap_err();
        // Where the system does not say how much memory there is, the disk is too small.
        assert!(matches!(error, BenchError::Memory { .. } | BenchError::Disk { .. }), "{error}");
        assert!(error.to_string().contains("--layers"), "{error}");
    }

    #[test]
    fn what_is_interrupted_or_fits_nowhere_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let header = synthetic::preset("tiny-llama").unwrap();
        let error = build(&header, folder.path(), |_| ControlFlow::Break(())).unwrap_err();
        assert!(matches!(error, BenchError::Interrupted), "{error}");
        let error = check_room(&header, u64::MAX / 2, 1, folder.path()).unwrap_err();
        assert!(matches!(error, BenchError::Memory { .. }), "{error}");
        let error = check_room(&header, 1, 1, Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_token_reads_its_experts_and_one_row_of_the_embedding() {
        let dense = synthetic::preset("smollm2-135m").unwrap();
        let (layout, work) = (Layout::new(&dense).unwrap(), Work::of(&dense));
        let embedding = layout.tensor(TensorId::Embedding);
        let rest = u64::from(dense.header_bytes) + embedding.bytes() - embedding.row_bytes;
        assert_eq!(work.decode_bytes, work.file_bytes - rest);
        assert_eq!(work.head_ops, 2.0 * 49_152.0 * 576.0);
        // 106 million weights in the layers.
        assert!((work.layer_ops / 2.0 / 1e6 - 106.2).abs() < 0.1, "{}", work.layer_ops);
        let experts = Work::of(&synthetic::preset("qwen3-30b-a3b").unwrap());
        let active = (experts.layer_ops + experts.head_ops) / 2.0 / 1e9;
        assert!((2.9..3.4).contains(&active), "{active} billion active weights");
    }
}
