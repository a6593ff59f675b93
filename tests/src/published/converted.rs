//! What a conversion made, read back.

use dair_core::format::{Header, Layout, TensorId};
use dair_core::quant::{DType, dequantize};
use dair_host::model::convert::{ConvertError, Options, Summary, convert};
use std::ops::ControlFlow;
use std::path::Path;

/// A model and a tokenizer that were made.
#[derive(Debug)]
pub struct Converted {
    /// What the conversion says.
    pub summary: Summary,
    /// Where tensors lie, from the header of the model.
    pub layout: Layout,
    /// The model.
    pub model: Vec<u8>,
    /// The tokenizer.
    pub tokenizer: Vec<u8>,
}

/// Options to make `model` with two threads.
pub fn options(input: &Path, model: &Path, weights: Option<DType>) -> Options {
    Options { input: input.into(), model: model.into(), tokenizer: None, weights, force: false, lanes: 2 }
}

impl Converted {
    /// Converts `input` to `out.m` and `out.t` in `folder`.
    ///
    /// # Errors
    /// As the conversion.
    pub fn of(input: &Path, folder: &Path, weights: Option<DType>) -> Result<Self, ConvertError> {
        let options = options(input, &folder.join("out.m"), weights);
        let summary = convert(&options, &mut |_| ControlFlow::Continue(()))?;
        let model = std::fs::read(&summary.model).unwrap();
        let layout = Layout::new(&Header::parse(&model).unwrap()).unwrap();
        layout.check_file(model.len() as u64).unwrap();
        let tokenizer = std::fs::read(&summary.tokenizer).unwrap();
        Ok(Self { summary, layout, model, tokenizer })
    }

    /// Converts a file of these bytes.
    ///
    /// # Errors
    /// As the conversion.
    pub fn of_bytes(bytes: &[u8], weights: Option<DType>) -> Result<Self, ConvertError> {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.gguf");
        std::fs::write(&input, bytes).unwrap();
        Self::of(&input, folder.path(), weights)
    }

    /// The bytes of a tensor.
    pub fn bytes(&self, id: TensorId) -> &[u8] {
        let tensor = self.layout.tensor(id);
        &self.model[tensor.offset as usize..][..tensor.bytes() as usize]
    }

    /// The values of a tensor.
    pub fn values(&self, id: TensorId) -> Vec<f32> {
        let tensor = self.layout.tensor(id);
        let mut values = vec![0.0; tensor.rows as usize * tensor.cols as usize];
        dequantize(tensor.dtype, self.bytes(id), &mut values);
        values
    }
}
