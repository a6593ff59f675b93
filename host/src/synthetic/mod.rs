//! Models that nobody trained: the shapes of real ones, seeded random weights. For tests, benches and trying things out.
//!
//! ```no_run
//! use dair_host::synthetic;
//! let header = synthetic::preset("llama3.2-1b").expect("a name of PRESETS");
//! synthetic::write_model("1b.m".as_ref(), &header, 1)?;
//! synthetic::write_tokenizer("1b.t".as_ref(), header.vocab_size)?;
//! # std::io::Result::Ok(())
//! ```
//! A file is a function of header and seed alone, on every machine. What such a model says is noise; its speed and its
//! memory are those of the real one, and every matrix keeps the scale of its input, so that no layer dies out.

mod presets;
mod vocabulary;
mod weights;

pub use presets::{PRESETS, Preset, preset};
pub use vocabulary::{MIN_VOCAB_SIZE, tokenizer_bytes, write_tokenizer};
pub use weights::{model_bytes, write_model, write_model_with};
