//! Where weight bytes come from: a mapped file, parts of it repacked, or RAM filled over the wire; repacking.

mod interleaved;
mod mmap;
mod received;
mod shortened;
pub mod stream;
mod weights;

pub use interleaved::{group_bytes, interleaved_bytes};
pub use mmap::MappedFile;
pub use received::Received;
pub use weights::{Repacked, Weights};
