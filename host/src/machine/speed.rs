//! How fast this machine computes tokens, in one number: bytes of Q40 weights per second that a product of one token reads
//! from memory. What a node can take on beside others follows from it.

use crate::machine::arena::ArenaMemory;
use crate::machine::pool::Threads;
use dair_core::io::Pool;
use dair_core::kernels::{Input, Kernels, Matrix, Output, Tokens, activation_row_bytes};
use dair_core::quant::{DType, Order};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Inputs of the product.
const COLS: usize = 2048;
/// Rows that lanes share out together: whole groups of interleaved ones.
const STEP: usize = 32;
/// Bytes of weights: more than caches hold.
const BYTES: usize = 64 << 20;
/// A share of a processor is given for a tenth of a second at a time.
const TIME: Duration = Duration::from_millis(100);

/// Measures for a tenth of a second, and some more to take memory.
///
/// # Errors
/// Where the system has no memory.
pub fn bytes_per_s(pool: &Threads, kernels: Kernels) -> io::Result<f64> {
    let row_bytes = COLS / 32 * size_of::<dair_core::quant::BlockQ40>();
    let rows = BYTES / row_bytes / STEP * STEP;
    let mut weights = ArenaMemory::new(rows * row_bytes)?;
    let mut input = ArenaMemory::new(activation_row_bytes(COLS))?;
    kernels.quantize_activations(&[1.0; COLS], &mut input);
    let (weights, input): (&mut [u8], &[u8]) = (&mut weights, &input);
    let mut output = vec![0.0; rows];
    // A lane's share is as long as everybody's or shorter.
    let share = rows.div_ceil(STEP).div_ceil(pool.lanes()) * STEP;
    let parts = weights.chunks_mut(share * row_bytes).zip(output.chunks_mut(share)).map(Mutex::new);
    let parts: Vec<_> = parts.collect();
    let order = if kernels.takes_interleaved() { Order::Interleaved } else { Order::Rows };
    let on_parts = |work: &(dyn Fn(&mut [u8], &mut [f32]) + Sync)| {
        pool.run(&|lane| {
            let Some(part) = parts.get(lane.index) else { return };
            let (weights, output) = &mut *part.lock().unwrap_or_else(PoisonError::into_inner);
            work(weights, output);
        });
    };
    // Pages are taken by whoever reads them.
    on_parts(&|weights, _| weights.fill(0x11));
    let (start, mut passes) = (Instant::now(), 0u32);
    while start.elapsed() < TIME {
        on_parts(&|weights, output| {
            let rows = output.len();
            let matrix = Matrix { dtype: DType::Q40, order, bytes: weights, rows, cols: COLS, row_stride: row_bytes };
            let input = Input::Q80 { rows: input, stride: input.len(), tokens: Tokens::First(1) };
            kernels.matmul(matrix, 0..rows, input, Output::from_slice(output, rows), &mut []);
        });
        passes += 1;
    }
    Ok(f64::from(passes) * (rows * row_bytes) as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpu::best_kernels;

    #[test]
    fn any_number_of_threads_measures_something() {
        for threads in [1, 2, 3, 7] {
            let speed = bytes_per_s(&Threads::new(threads).unwrap(), best_kernels()).unwrap();
            assert!(speed > 1e6 && speed < 1e13, "{threads} threads: {speed} bytes per second");
        }
        assert!(bytes_per_s(&Threads::new(1).unwrap(), Kernels::SCALAR).unwrap() > 1e5);
    }
}
