//! Where weight bytes come from: a mapped file, parts of it repacked, or RAM filled over the wire.

mod mmap;
mod received;
mod weights;

pub use mmap::MappedFile;
pub use received::Received;
pub use weights::{Weights, interleaved_bytes};
