//! Codecs between peers: bytes in, checked values out, over [`embedded_io::Read`] and [`embedded_io::Write`].
//!
//! [`dllama`] is the dialect of the C++ Distributed-Llama 0.16, for both roles; [`native`] is ours. Whatever a peer sends is checked
//! against a limit before it sizes, indexes or addresses anything; what is wrong with it is an [`Invalid`].

mod bytes;
pub mod dllama;
mod error;
pub mod native;

pub use error::{At, Fault, Invalid, Part, ReadError, Spot};
