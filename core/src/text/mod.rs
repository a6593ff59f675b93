//! Tokens to text and back, sampling, stop detection.
//!
//! In the order in which a conversation flows: the [`Vocabulary`]
//! encodes it, a [`Sampler`] turns logits into the next token, a [`Decoder`] turns tokens into text again, and the
//! [`StopDetector`] says when the answer ends. All memory is the caller's; functions named `..._len` state how much.

mod decode;
mod encode;
mod sampler;
mod stop;
mod vocabulary;

pub use decode::Decoder;
pub use encode::{EncodeError, EncodeOptions, MAX_TEXT_BYTES, encode_scratch_len};
pub use sampler::{Candidate, Filters, Looks, OCTAVES, Octaves, Partial, SampleError, Sampler, Unknown};
pub use stop::{Stop, StopDetector, held_back_len};
pub use vocabulary::Vocabulary;
