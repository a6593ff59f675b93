//! Random weights: every value is a function of the seed, its tensor and its place in it, so threads share the work freely.

use dair_core::format::model::EMITTED_BYTES;
use dair_core::format::{Header, Layout, TensorId, layout::LayerTensor};
use dair_core::quant::{DType, quantize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

/// Values that are made in one go: whole blocks, and a scratch that stays in a cache.
const PIECE_LEN: u64 = 1 << 14;
/// Pieces that are made before they are written: at most 16 MiB.
const WINDOW_PIECES: usize = 256;

/// Writes a model file with random weights; returns its size in bytes. It appears under its name when it is complete.
///
/// # Errors
/// A header that describes no model, or what the file system says.
pub fn write_model(path: &Path, header: &Header, seed: u64) -> io::Result<u64> {
    write_model_with(path, header, seed, |_| ControlFlow::Continue(()))
}

/// [`write_model`], which tells `progress` the bytes written so far and ends where that breaks.
///
/// # Errors
/// As [`write_model`]; [`io::ErrorKind::Interrupted`] where `progress` broke. What was written stays as `PATH.part`.
pub fn write_model_with(
    path: &Path,
    header: &Header,
    seed: u64,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> io::Result<u64> {
    let layout = layout(header)?;
    let mut written = EMITTED_BYTES as u64;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = File::create(&part)?;
    file.write_all(&layout.header().emit())?;
    let pieces = pieces(&layout, seed);
    let mut window = Vec::new();
    for pieces in pieces.chunks(WINDOW_PIECES) {
        window.resize(pieces.iter().map(Piece::bytes).sum(), 0);
        fill(pieces, &mut window);
        file.write_all(&window)?;
        written += window.len() as u64;
        if progress(written).is_break() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    drop(file);
    fs::rename(&part, path)?;
    Ok(layout.file_bytes())
}

/// The bytes of [`write_model`] in memory.
///
/// # Panics
/// If the header describes no model.
pub fn model_bytes(header: &Header, seed: u64) -> Vec<u8> {
    let layout = layout(header).unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = vec![0; layout.file_bytes() as usize];
    let (start, tensors) = bytes.split_at_mut(EMITTED_BYTES);
    start.copy_from_slice(&layout.header().emit());
    fill(&pieces(&layout, seed), tensors);
    bytes
}

fn layout(header: &Header) -> io::Result<Layout> {
    let header = Header { header_bytes: EMITTED_BYTES as u32, ..*header };
    header.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Layout::new(&header).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// A run of values of one tensor.
struct Piece {
    /// Stream of random numbers: one per tensor.
    key: u64,
    /// Index of the first value in its tensor.
    first: u64,
    len: u64,
    dtype: DType,
    mean: f32,
    deviation: f32,
}

impl Piece {
    fn bytes(&self) -> usize {
        // Tensors and pieces are whole blocks.
        (self.len / self.dtype.block_len() * self.dtype.block_bytes()) as usize
    }

    fn write(&self, values: &mut Vec<f32>, bytes: &mut [u8]) {
        values.clear();
        values.extend((self.first..self.first + self.len).map(|i| self.mean + self.deviation * normal(self.key, i)));
        quantize(self.dtype, values, bytes);
    }
}

/// All tensors in the order of the file.
fn pieces(layout: &Layout, seed: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut tensors = 0;
    layout.visit(|id, tensor| {
        let key = mix(mix(seed).wrapping_add(tensors));
        tensors += 1;
        let (mean, deviation) = match id {
            TensorId::FinalNorm => (1.0, 0.1),
            TensorId::Layer(_, LayerTensor::Norm0 | LayerTensor::Norm1) => (1.0, 0.1),
            TensorId::Layer(_, LayerTensor::QNorm | LayerTensor::KNorm) => (1.0, 0.1),
            // Keeps the scale of the input: the variance of a sum of `cols` products is 1.
            _ => (0.0, 1.0 / (tensor.cols as f32).sqrt()),
        };
        let len = u64::from(tensor.rows) * u64::from(tensor.cols);
        for first in (0..len).step_by(PIECE_LEN as usize) {
            let len = PIECE_LEN.min(len - first);
            pieces.push(Piece { key, first, len, dtype: tensor.dtype, mean, deviation });
        }
    });
    pieces
}

/// Writes `pieces` one behind the other, with as many threads as may run at once.
fn fill(pieces: &[Piece], mut bytes: &mut [u8]) {
    let threads = crate::machine::cpu::threads().min(pieces.len());
    let work = pieces.iter().map(|piece| {
        let (now, later) = std::mem::take(&mut bytes).split_at_mut(piece.bytes());
        bytes = later;
        (piece, now)
    });
    let work = Mutex::new(work);
    let next = || work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut values = Vec::new();
                while let Some((piece, bytes)) = next() {
                    piece.write(&mut values, bytes);
                }
            });
        }
    });
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, 2014): a bijection whose output looks random.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Value `index` of a stream with mean 0 and variance 1, close to normal: the sum of four uniform numbers.
fn normal(key: u64, index: u64) -> f32 {
    /// Of the sum of four integers below 2^16: `sqrt(4 * (2^32 - 1) / 12)`.
    const DEVIATION: f32 = 37_837.227;
    let z = mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let sum = (z & 0xFFFF) + (z >> 16 & 0xFFFF) + (z >> 32 & 0xFFFF) + (z >> 48);
    (sum as f32 - 2.0 * 65_535.0) / DEVIATION
}

#[cfg(test)]
mod tests {
    use super::super::{PRESETS, preset};
    use super::*;

    fn values(bytes: &[u8], layout: &Layout, id: TensorId) -> Vec<f32> {
        let tensor = layout.tensor(id);
        let mut values = vec![0.0; (tensor.rows * tensor.cols) as usize];
        let start = tensor.offset as usize;
        dair_core::quant::dequantize(tensor.dtype, &bytes[start..start + tensor.bytes() as usize], &mut values);
        values
    }

    #[test]
    fn a_written_model_opens_and_equals_the_one_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        for header in PRESETS.iter().filter(|preset| preset.name.starts_with("tiny")).map(|preset| preset.header) {
            let path = folder.path().join("model.m");
            let bytes = write_model(&path, &header, 7).unwrap();
            let model = crate::model::Model::open(&path).unwrap();
            assert_eq!(model.header(), &header);
            assert_eq!(model.file.len() as u64, bytes);
            assert!(model_bytes(&header, 7) == model.file[..]);
            assert!(model_bytes(&header, 8) != model.file[..]);
        }
    }

    #[test]
    fn matrices_have_variance_one_over_columns_and_norms_are_near_one() {
        let header = Header { weights: DType::F32, ..preset("tiny-llama31").unwrap() };
        let (bytes, layout) = (model_bytes(&header, 3), Layout::new(&header).unwrap());
        let moments = |id| {
            let values = values(&bytes, &layout, id);
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32)
        };
        for (id, cols) in [
            (TensorId::Embedding, 192.0),
            (TensorId::Layer(1, LayerTensor::W2(0)), 320.0),
            (TensorId::Layer(0, LayerTensor::Q), 192.0),
        ] {
            let (mean, variance) = moments(id);
            assert!(mean.abs() < 1e-3 && (variance * cols - 1.0).abs() < 0.02, "{id}: {mean} {variance}");
        }
        let (mean, variance) = moments(TensorId::FinalNorm);
        assert!((mean - 1.0).abs() < 0.03 && (variance - 0.01).abs() < 0.003, "{mean} {variance}");
    }

    #[test]
    fn writing_tells_how_far_it_is_and_can_be_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (path, header) = (folder.path().join("model.m"), preset("tiny-llama31").unwrap());
        let mut last = 0;
        let progress = |bytes| {
            last = bytes;
            ControlFlow::Continue(())
        };
        assert_eq!(write_model_with(&path, &header, 1, progress).unwrap(), last);
        fs::remove_file(&path).unwrap();
        let error = write_model_with(&path, &header, 1, |_| ControlFlow::Break(())).unwrap_err();
        assert!(error.kind() == io::ErrorKind::Interrupted && !path.exists());
    }

    #[test]
    fn tensors_differ_from_each_other() {
        let header = preset("tiny-llama").unwrap();
        let (bytes, layout) = (model_bytes(&header, 3), Layout::new(&header).unwrap());
        let of = |layer, name| values(&bytes, &layout, TensorId::Layer(layer, name));
        assert_ne!(of(0, LayerTensor::K), of(0, LayerTensor::V));
        assert_ne!(of(0, LayerTensor::K), of(1, LayerTensor::K));
    }

    #[test]
    fn a_header_without_a_model_is_refused() {
        let header = Header { dim: 65, ..preset("tiny-llama").unwrap() };
        let error = write_model(Path::new("never-written.m"), &header, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(!Path::new("never-written.m.part").exists());
    }
}
