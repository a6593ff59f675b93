//! Where weight bytes come from: a mapped file.

mod mmap;

pub use mmap::MappedFile;
