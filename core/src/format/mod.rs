//! The bytes of files, as checked values: model header ([`model`]), tensor offsets ([`layout`]), vocabulary ([`tokenizer`]).

pub mod layout;
pub mod model;
pub mod tokenizer;
