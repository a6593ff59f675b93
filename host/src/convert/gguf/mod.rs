//! GGUF files: [`reader`] turns bytes into metadata and a table of tensors, [`model`] into what a `.m` file needs,
//! [`vocabulary`] into what a `.t` file needs.

mod error;
mod model;
pub mod reader;
mod vocabulary;

pub use error::GgufError;
pub use model::open;
pub use reader::Gguf;
