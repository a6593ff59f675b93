//! The bytes of files, as checked values: model header ([`model`]), tensor offsets ([`layout`]), vocabulary ([`tokenizer`]).

pub mod layout;
pub mod model;
pub mod tokenizer;

pub use layout::{Layout, LayoutError, Tensor, TensorId};
pub use model::{Arch, Header, HeaderError, RopeKind, RopeScaling};
