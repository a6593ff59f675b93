//! Carries tensors over from the source to the `.m` file, a chunk of rows at a time.
//!
//! Every chunk knows by arithmetic where its bytes come from and where they go, so that lanes take chunks as they are free:
//! read, widen, quantise, write. Memory is a few buffers of a chunk per lane, whatever the model's size.

use super::error::ConvertError;
use super::ggml;
use super::source::{Piece, RowOrder, SourceFile};
use dair_core::quant::{BlockQ40, BlockQ80, DType, quantize};
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Values in a chunk, about: 4 MiB as F32.
const CHUNK_LEN: u32 = 1 << 20;

/// The file that is written.
pub struct Target<'a> {
    /// Open for writing.
    pub file: &'a File,
    /// Its name, for messages.
    pub path: &'a Path,
}

/// What there is to carry over.
pub struct Work<'a> {
    /// The files that pieces refer to.
    pub files: &'a [SourceFile],
    /// All tensors.
    pub pieces: &'a [Piece],
    /// The old id of each token, where ids were changed.
    pub old_ids: Option<&'a [u32]>,
}

/// Rows of a piece.
struct Chunk<'a> {
    piece: &'a Piece,
    rows: Range<u32>,
}

/// Carries everything over on `lanes` threads; `progress` hears of the bytes written after each chunk.
///
/// # Errors
/// The first that a lane meets, or [`ConvertError::Interrupted`] where `progress` says so.
pub fn carry_over(
    work: &Work<'_>,
    target: &Target<'_>,
    lanes: usize,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let chunks: Vec<Chunk<'_>> = work.pieces.iter().flat_map(chunks_of).collect();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..lanes {
            let (sender, chunks, next, stop) = (sender.clone(), &chunks, &next, &stop);
            scope.spawn(move || {
                let mut buffers = Buffers::default();
                while !stop.load(Ordering::Relaxed)
                    && let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let done = buffers.carry_over(work, chunk, target);
                    stop.fetch_or(done.is_err(), Ordering::Relaxed);
                    if sender.send(done).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut result = Ok(());
        for done in receiver {
            let step = done.and_then(|bytes| match progress(bytes) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(ConvertError::Interrupted),
            });
            if step.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            result = result.and(step);
        }
        result
    })
}

/// Whole rows, about [`CHUNK_LEN`] values each time.
fn chunks_of(piece: &Piece) -> impl Iterator<Item = Chunk<'_>> {
    let (rows, step) = (piece.target.rows, (CHUNK_LEN / piece.target.cols).max(1));
    (0..rows).step_by(step as usize).map(move |row| Chunk { piece, rows: row..rows.min(row.saturating_add(step)) })
}

/// The buffers of one lane, reused from chunk to chunk.
#[derive(Default)]
struct Buffers {
    source: Vec<u8>,
    values: Vec<f32>,
    target: Vec<u8>,
}

impl Buffers {
    /// Carries one chunk over; returns the bytes written.
    fn carry_over(&mut self, work: &Work<'_>, chunk: &Chunk<'_>, target: &Target<'_>) -> Result<u64, ConvertError> {
        let Chunk { piece, rows } = chunk;
        let n_rows = rows.len();
        self.source.resize(n_rows * piece.row_bytes() as usize, 0);
        self.read_rows(work, chunk)?;
        let bytes = if piece.is_copied() {
            check_copied(&self.source, chunk, &work.files[piece.file].path)?;
            &self.source
        } else {
            self.values.resize(n_rows * piece.target.cols as usize, 0.0);
            self.target.resize(n_rows * piece.target.row_bytes as usize, 0);
            ggml::dequantize(piece.kind, &self.source, &mut self.values);
            check_widened(&self.values, chunk, &work.files[piece.file].path)?;
            quantize(piece.target.dtype, &self.values, &mut self.target);
            &self.target
        };
        let offset = piece.target.offset + u64::from(rows.start) * piece.target.row_bytes;
        target.file.write_all_at(bytes, offset).map_err(ConvertError::io("write", target.path))?;
        Ok(bytes.len() as u64)
    }

    /// Reads the source rows of a chunk, neighbours at once.
    fn read_rows(&mut self, work: &Work<'_>, chunk: &Chunk<'_>) -> Result<(), ConvertError> {
        let (piece, file) = (chunk.piece, &work.files[chunk.piece.file]);
        let row_bytes = piece.row_bytes();
        let source_row = |row| piece.source_row(row, work.old_ids);
        let mut rest = self.source.as_mut_slice();
        let mut row = chunk.rows.start;
        while row < chunk.rows.end {
            let first = source_row(row);
            let run = if piece.order == RowOrder::Stored {
                chunk.rows.end - row
            } else {
                (row..chunk.rows.end).zip(first..).take_while(|(row, neighbour)| source_row(*row) == *neighbour).count()
                    as u32
            };
            let (part, others) = rest.split_at_mut(run as usize * row_bytes as usize);
            file.read_into(part, piece.offset + u64::from(first) * row_bytes)?;
            rest = others;
            row += run;
        }
        Ok(())
    }
}

/// Refuses blocks whose scale is no finite number, and values that are none.
fn check_copied(bytes: &[u8], chunk: &Chunk<'_>, path: &Path) -> Result<(), ConvertError> {
    let dtype = chunk.piece.target.dtype;
    let bad = match dtype {
        DType::F32 => bytes.as_chunks().0.iter().position(|value| !f32::from_le_bytes(*value).is_finite()),
        DType::F16 => bytes.as_chunks::<2>().0.iter().position(|value| !is_finite_half(value)),
        DType::Q40 => bytes.as_chunks::<{ size_of::<BlockQ40>() }>().0.iter().position(|block| !is_finite_half(block)),
        DType::Q80 => bytes.as_chunks::<{ size_of::<BlockQ80>() }>().0.iter().position(|block| !is_finite_half(block)),
    };
    let Some(at) = bad else { return Ok(()) };
    let per_row = chunk.piece.target.cols as usize / dtype.block_len() as usize;
    let (row, at_in_row) = (chunk.rows.start as usize + at / per_row, at % per_row);
    let what = if dtype.block_len() > 1 { "scale of block" } else { "column" };
    let field = format!("tensor {}, row {row}, {what} {at_in_row}", chunk.piece.name);
    let allowed = "finite numbers are needed; the file is damaged or was made wrongly, download it again";
    Err(ConvertError::refused(path, field, "infinite or no number", allowed))
}

/// Whether the first two bytes are a finite binary16: its exponent is not all ones.
fn is_finite_half(block: &[u8]) -> bool {
    block[1] & 0x7c != 0x7c
}

/// Refuses values that the target type can't hold.
fn check_widened(values: &[f32], chunk: &Chunk<'_>, path: &Path) -> Result<(), ConvertError> {
    const HALF_MAX: f32 = 65504.0;
    let dtype = chunk.piece.target.dtype;
    let max = match dtype {
        DType::F32 => f32::MAX,
        DType::F16 => HALF_MAX,
        DType::Q40 => HALF_MAX * 8.0,
        DType::Q80 => HALF_MAX * 127.0,
    };
    let fits = |value: f32| value.abs() <= max; // false for NaN, too
    match values.iter().position(|value| !fits(*value)) {
        None => Ok(()),
        Some(at) => {
            let cols = chunk.piece.target.cols as usize;
            let field = format!(
                "tensor {}, row {}, column {}",
                chunk.piece.name,
                chunk.rows.start as usize + at / cols,
                at % cols
            );
            Err(ConvertError::refused(path, field, values[at], format!("{dtype} holds magnitudes up to {max}")))
        }
    }
}
