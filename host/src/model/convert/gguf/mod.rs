//! GGUF files. [`Gguf`] turns bytes into metadata and a table of tensors; `open` says what both mean for a `.m` and a
//! `.t` file.

mod cursor;
mod error;
mod files;
mod model;
mod reader;
mod split;
mod value;
mod vocabulary;

pub use error::GgufError;
pub(super) use model::open;
pub use reader::{Gguf, Tensor};
pub use split::PartName;
pub use value::{Array, Value, ValueType};
