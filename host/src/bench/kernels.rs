//! How fast the products of matrices are: for one token, for a prompt, and on data in the caches.
//!
//! The only file of this folder that calls kernels.

use super::bandwidth::{self, Bandwidth};
use super::buffer::Buffer;
use super::{BenchError, Rate, Run, interleave, timed};
use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use dair_core::io::Pool;
use dair_core::kernels::{Input, Isa, Kernels, Matrix, Output, SCRATCH_BYTES, Tokens, activation_row_bytes, supports};
use dair_core::quant::{DType, Order, interleaves};
use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Inputs of a product, as in a small model.
const COLS: usize = 2048;
/// Tokens of a prompt.
const PREFILL_TOKENS: usize = 256;
/// Tokens and rows per lane whose numbers fit into the cache of a core.
const CACHED: (usize, usize) = (16, 16);
/// Rows of a matrix of a prompt, at most.
const PREFILL_ROWS_MAX: usize = 4096;
/// Rows that lanes share in multiples of, as in a forward pass.
const ROW_STEP: usize = 32;
/// Rounds that should fit into the time there is.
const ROUNDS: u32 = 6;

/// What a product is measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One token, weights from memory.
    Decode,
    /// The tokens of a prompt, weights from memory.
    Prefill,
    /// A few tokens, everything in the caches.
    Cached,
}

impl Phase {
    /// All phases.
    pub const ALL: [Phase; 3] = [Phase::Decode, Phase::Prefill, Phase::Cached];

    /// Name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Prefill => "prefill",
            Self::Cached => "cached",
        }
    }

    /// Tokens of a product.
    pub const fn tokens(self) -> usize {
        match self {
            Self::Decode => 1,
            Self::Prefill => PREFILL_TOKENS,
            Self::Cached => CACHED.0,
        }
    }
}

/// The product of two types on an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Instruction set.
    pub isa: Isa,
    /// Type of the weights.
    pub weights: DType,
    /// Type of the activations.
    pub activations: DType,
}

impl Product {
    /// Multiplications and additions per byte of weights.
    fn ops_per_byte(&self, tokens: usize) -> f64 {
        2.0 * tokens as f64 * self.weights.block_len() as f64 / self.weights.block_bytes() as f64
    }
}

/// Speed of a product.
#[derive(Clone, Copy, Debug)]
pub struct KernelFigures {
    /// Of which types, on what.
    pub product: Product,
    /// With how many tokens, and where from.
    pub phase: Phase,
    /// Threads.
    pub threads: usize,
    /// Multiplications and additions per byte of weights.
    pub ops_per_byte: f64,
    /// 10^9 multiplications and additions per second.
    pub gop_per_s: Rate,
    /// 10^9 bytes of weights per second.
    pub gb_per_s: Rate,
}

/// What [`measure`] found.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Bytes of memory that were read in turn.
    pub buffer_bytes: usize,
    /// Per number of threads, fewest first.
    pub bandwidths: Vec<Bandwidth>,
    /// Per product, phase and number of threads.
    pub kernels: Vec<KernelFigures>,
}

/// The best speed of an instruction set, and who reached it.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Threads.
    pub threads: usize,
    /// The fastest product.
    pub product: Product,
    /// 10^9 multiplications and additions per second.
    pub gop_per_s: f64,
}

impl Figures {
    /// Bandwidth with `threads`.
    ///
    /// # Panics
    /// If it was not measured.
    pub fn bandwidth(&self, threads: usize) -> Rate {
        let measured = self.bandwidths.iter().find(|bandwidth| bandwidth.threads == threads);
        measured.expect("every number of threads was measured").gb_per_s
    }

    /// How much of the bandwidth a product uses, in percent: the ratio of medians.
    pub fn percent_of_bandwidth(&self, kernel: &KernelFigures) -> f64 {
        100.0 * kernel.gb_per_s.median / self.bandwidth(kernel.threads).median
    }

    /// Instruction sets, in the order of measuring.
    pub fn isas(&self) -> Vec<Isa> {
        let mut isas: Vec<_> = self.kernels.iter().map(|kernel| kernel.product.isa).collect();
        isas.dedup();
        isas
    }

    /// The best speed that any product reached in any phase, per instruction set and number of threads.
    pub fn peaks(&self) -> Vec<Peak> {
        let best = |isa, threads| {
            let fits = |kernel: &&KernelFigures| kernel.product.isa == isa && kernel.threads == threads;
            let kernels = self.kernels.iter().filter(fits);
            let best = kernels.max_by(|a, b| a.gop_per_s.best.total_cmp(&b.gop_per_s.best))?;
            Some(Peak { threads, product: best.product, gop_per_s: best.gop_per_s.best })
        };
        let threads = self.bandwidths.iter().map(|bandwidth| bandwidth.threads);
        let isas = self.isas();
        threads.flat_map(|threads| isas.iter().filter_map(move |isa| best(*isa, threads))).collect()
    }
}

/// Measures memory and all products of `kernels`, with one lane and with all lanes of `pool`, in rounds.
///
/// # Errors
/// Where the system has no memory or threads.
pub fn measure(
    kernels: &[Kernels],
    pool: &Threads,
    buffer_bytes: usize,
    budget: Duration,
) -> Result<Figures, BenchError> {
    let single = Threads::new(1).map_err(BenchError::system("start a thread"))?;
    let mut pools = vec![&single, pool];
    pools.dedup_by_key(|pool| pool.lanes());
    let buffer = Buffer::new(buffer_bytes, pool)?;
    let activations = Activations::new()?;
    let lanes: Vec<_> = (0..pool.lanes()).map(|_| LaneMemory::new().map(Mutex::new)).collect::<Result<_, _>>()?;
    let bench = Bench { buffer: &buffer, activations: &activations, lanes: &lanes };

    let products: Vec<_> =
        kernels.iter().flat_map(|kernels| products(kernels.isa()).map(move |product| (*kernels, product))).collect();
    let count = products.len() * Phase::ALL.len() * pools.len();
    let slice = budget / (ROUNDS * (count + products.len() * pools.len()) as u32);
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut readings = vec![Vec::new(); pools.len()];
    let mut cases = Vec::new();
    for (kernels, product) in products {
        // Every figure is compared with memory, so that is read beside every product.
        for (pool, readings) in pools.iter().zip(&mut readings) {
            readings.push(runs.len());
            runs.push(bandwidth::run(&buffer, pool));
        }
        for phase in Phase::ALL {
            for pool in pools.iter().copied() {
                let case = Case { kernels, product, phase, pool, bench };
                let size = case.fitting(slice);
                cases.push((case, case.weight_bytes(size), runs.len()));
                runs.push(case.run(size));
            }
        }
    }
    let times = interleave(&mut runs, budget.saturating_sub(slice * count as u32));
    let bandwidth = |(pool, readings): (&&Threads, &Vec<usize>)| {
        let times: Vec<_> = readings.iter().flat_map(|run| &times[*run]).copied().collect();
        Bandwidth { threads: pool.lanes(), gb_per_s: Rate::of(buffer.len() as f64 / 1e9, &times) }
    };
    Ok(Figures {
        buffer_bytes,
        bandwidths: pools.iter().zip(&readings).map(bandwidth).collect(),
        kernels: cases.iter().map(|(case, bytes, run)| case.figures(*bytes, &times[*run])).collect(),
    })
}

/// All products of an instruction set, the smallest weights first.
fn products(isa: Isa) -> impl Iterator<Item = Product> {
    let pairs = [DType::Q40, DType::Q80, DType::F16, DType::F32]
        .into_iter()
        .flat_map(|weights| [DType::Q80, DType::F32].map(|activations| (weights, activations)));
    let pairs = pairs.filter(|(weights, activations)| supports(*weights, *activations));
    pairs.map(move |(weights, activations)| Product { isa, weights, activations })
}

/// What the cases work on.
#[derive(Clone, Copy)]
struct Bench<'b> {
    buffer: &'b Buffer,
    activations: &'b Activations,
    lanes: &'b [Mutex<LaneMemory>],
}

/// Memory of a lane.
struct LaneMemory {
    out: Vec<f32>,
    scratch: ArenaMemory,
}

impl LaneMemory {
    fn new() -> Result<Self, BenchError> {
        let scratch = ArenaMemory::new(SCRATCH_BYTES).map_err(BenchError::system("get memory"))?;
        Ok(Self { out: Vec::new(), scratch })
    }
}

/// A product in a phase with some threads.
#[derive(Clone, Copy)]
struct Case<'b> {
    kernels: Kernels,
    product: Product,
    phase: Phase,
    pool: &'b Threads,
    bench: Bench<'b>,
}

/// How large a case is.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Rows of the matrix, all lanes together.
    rows: usize,
    /// Times that it is multiplied.
    repeats: usize,
}

impl<'b> Case<'b> {
    fn row_bytes(&self) -> usize {
        COLS / self.product.weights.block_len() as usize * self.product.weights.block_bytes() as usize
    }

    /// Bytes of weights that a run goes through.
    fn weight_bytes(&self, size: Size) -> f64 {
        (size.rows * size.repeats * self.row_bytes()) as f64
    }

    /// The size whose run takes about as long as `slice`, within what makes sense.
    fn fitting(self, slice: Duration) -> Size {
        let lanes = self.pool.lanes();
        let all = self.bench.buffer.len() / self.row_bytes() / CACHED.1 * CACHED.1;
        let (least, most) = match self.phase {
            Phase::Decode => (all.min((ROW_STEP * lanes).max((all / 64).next_multiple_of(ROW_STEP))), all),
            Phase::Prefill => (all.min(ROW_STEP * lanes), all.min(PREFILL_ROWS_MAX.max(ROW_STEP * lanes))),
            Phase::Cached => (CACHED.1 * lanes, CACHED.1 * lanes),
        };
        let least = Size { rows: least, repeats: 1 };
        let mut run = self.run(least);
        let mut time = run();
        if time < slice {
            // The first time, pages were taken and processors woke up.
            time = run();
        }
        let more = (slice.as_secs_f64() / time.as_secs_f64().max(1e-7)).max(1.0);
        match self.phase {
            Phase::Cached => Size { repeats: more as usize, ..least },
            _ => Size {
                rows: ((least.rows as f64 * more) as usize / ROW_STEP * ROW_STEP).clamp(least.rows, most),
                ..least
            },
        }
    }

    /// Runs of this case: each begins in the buffer where the one before ended, unless it is to stay in the caches.
    fn run(self, size: Size) -> Run<'b> {
        let all = self.bench.buffer.len() / self.row_bytes() / CACHED.1 * CACHED.1;
        let next = Cell::new(0);
        Box::new(move || {
            let start = if next.get() + size.rows > all { 0 } else { next.get() };
            if self.phase != Phase::Cached {
                next.set(start + size.rows);
            }
            timed(|| self.multiply(start, size))
        })
    }

    /// Multiplies rows from `start` on, each lane its share.
    fn multiply(&self, start: usize, size: Size) {
        let Bench { buffer, activations, lanes } = self.bench;
        let step = if self.phase == Phase::Cached { CACHED.1 } else { ROW_STEP };
        self.pool.run(&|lane| {
            let mut memory = lanes[lane.index].lock().unwrap_or_else(PoisonError::into_inner);
            let share = lane.share(size.rows, step);
            let rows = start + share.start..start + share.end;
            let tokens = self.phase.tokens();
            if memory.out.len() < rows.len() * tokens {
                memory.out.resize(rows.len() * tokens, 0.0);
            }
            for _ in 0..size.repeats {
                let x = activations.input(self.product.activations, tokens);
                self.multiply_rows(buffer, rows.clone(), x, &mut memory);
            }
        });
    }

    /// Multiplies some rows of the matrix that `buffer` is, into `out`: row by row of tokens.
    fn multiply_rows(&self, buffer: &Buffer, rows: Range<usize>, x: Input<'_>, memory: &mut LaneMemory) {
        let row_bytes = self.row_bytes();
        // As a model would be repacked where memory allows.
        let interleaved =
            self.kernels.takes_interleaved() && interleaves(self.product.weights, self.product.activations);
        let matrix = Matrix {
            dtype: self.product.weights,
            order: if interleaved { Order::Interleaved } else { Order::Rows },
            bytes: &buffer[rows.start * row_bytes..rows.end * row_bytes],
            rows: rows.len(),
            cols: COLS,
            row_stride: row_bytes,
        };
        let output = Output::from_slice(&mut memory.out, rows.len());
        self.kernels.matmul(matrix, 0..rows.len(), x, output, &mut memory.scratch);
    }

    fn figures(&self, weight_bytes: f64, times: &[Duration]) -> KernelFigures {
        let gb_per_s = Rate::of(weight_bytes / 1e9, times);
        let ops_per_byte = self.product.ops_per_byte(self.phase.tokens());
        KernelFigures {
            product: self.product,
            phase: self.phase,
            threads: self.pool.lanes(),
            ops_per_byte,
            gop_per_s: gb_per_s.scaled(ops_per_byte),
            gb_per_s,
        }
    }
}

/// Activations of the tokens of a prompt, of both types.
struct Activations {
    values: Vec<f32>,
    quantised: ArenaMemory,
}

impl Activations {
    const ROW_BYTES: usize = activation_row_bytes(COLS);
    /// Values from a row to the next: an odd number of cache lines, as in a forward pass.
    const STRIDE: usize = COLS + 16;

    fn new() -> Result<Self, BenchError> {
        let values: Vec<f32> =
            (0..Self::STRIDE * PREFILL_TOKENS).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.02).collect();
        let mut quantised =
            ArenaMemory::new(Self::ROW_BYTES * PREFILL_TOKENS).map_err(BenchError::system("get memory"))?;
        // Every instruction set makes the same bits.
        for (x, row) in
            values.chunks_exact(Self::STRIDE).map(|x| &x[..COLS]).zip(quantised.chunks_exact_mut(Self::ROW_BYTES))
        {
            Kernels::SCALAR.quantize_activations(x, row);
        }
        Ok(Self { values, quantised })
    }

    fn input(&self, dtype: DType, count: usize) -> Input<'_> {
        match dtype {
            DType::Q80 => Input::Q80 { rows: &self.quantised, stride: Self::ROW_BYTES, tokens: Tokens::First(count) },
            _ => Input::F32 { x: &self.values, stride: Self::STRIDE, tokens: Tokens::First(count) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpu;

    #[test]
    fn every_product_is_measured_in_every_phase_with_one_and_with_all_threads() {
        let pool = Threads::new(2).unwrap();
        let figures = measure(&[cpu::best_kernels()], &pool, 4 << 20, Duration::from_millis(50)).unwrap();
        assert_eq!(figures.bandwidths.iter().map(|bandwidth| bandwidth.threads).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(figures.kernels.len(), 5 * 3 * 2);
        for kernel in &figures.kernels {
            assert!(kernel.gb_per_s.median > 0.0 && figures.percent_of_bandwidth(kernel) > 0.0, "{kernel:?}");
            let reached = figures.peaks().iter().any(|peak| {
                (peak.threads, peak.product.isa) == (kernel.threads, kernel.product.isa)
                    && peak.gop_per_s >= kernel.gop_per_s.best
            });
            assert!(reached, "{kernel:?}");
        }
        let single = measure(&[cpu::best_kernels()], &Threads::new(1).unwrap(), 1 << 20, Duration::ZERO).unwrap();
        assert_eq!((single.bandwidths.len(), single.kernels.len()), (1, 15));
    }

    #[test]
    fn a_product_of_one_token_does_two_operations_per_weight() {
        let ops = |weights| Product { isa: Isa::Scalar, weights, activations: DType::F32 }.ops_per_byte(1);
        assert_eq!((ops(DType::F32), ops(DType::F16)), (0.5, 1.0));
        assert_eq!((ops(DType::Q80), ops(DType::Q40)), (64.0 / 34.0, 64.0 / 18.0));
    }
}
