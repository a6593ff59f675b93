//! Where weight bytes come from: a mapped file, or RAM filled over the wire.

mod mmap;
mod received;

pub use mmap::MappedFile;
pub use received::Received;
