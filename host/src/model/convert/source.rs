//! A model to be converted, whatever it was stored as: a header, tensors in files, a vocabulary.
//!
//! [`super::gguf`] and [`super::hugging_face`] make a [`Source`]; [`Source::pieces`] says for every tensor of the `.m` file
//! which rows of which file become its rows; [`super::write`] carries them over.

use super::error::ConvertError;
use super::ggml::GgmlType;
use super::vocabulary::Vocabulary;
use crate::machine::file;
use crate::model::kind::{FileKind, HEAD_BYTES};
use dair_core::format::layout::LayerTensor;
use dair_core::format::{Header, Layout, Tensor, TensorId};
use dair_core::quant::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open file of the source.
#[derive(Debug)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Open for reading.
    pub file: File,
    /// Its size.
    pub bytes: u64,
}

impl SourceFile {
    /// Opens a regular file, and refuses what a failed download leaves in its place.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        let file = file::open_regular(path).map_err(ConvertError::io("open", path))?;
        let bytes = file.metadata().map_err(ConvertError::io("read", path))?.len();
        let opened = Self { path: path.to_owned(), file, bytes };
        match opened.kind()? {
            // What downloads leave behind that did not work, in place of any file.
            kind @ (FileKind::Empty | FileKind::LfsPointer | FileKind::WebPage) => {
                Err(ConvertError::Kind { path: opened.path, kind })
            }
            _ => Ok(opened),
        }
    }

    /// What it is by its first bytes.
    pub fn kind(&self) -> Result<FileKind, ConvertError> {
        self.read(0, self.bytes.min(HEAD_BYTES as u64)).map(|head| FileKind::of(&head))
    }

    /// Reads `bytes` bytes at `offset`.
    pub fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, ConvertError> {
        let mut buffer = vec![0; bytes as usize];
        self.read_into(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Fills `buffer` from `offset` on.
    pub fn read_into(&self, buffer: &mut [u8], offset: u64) -> Result<(), ConvertError> {
        self.file.read_exact_at(buffer, offset).map_err(ConvertError::io("read", &self.path))
    }
}

/// A tensor as the source stores it.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Index of its file.
    pub file: usize,
    /// First byte.
    pub offset: u64,
    /// Type of the values.
    pub kind: GgmlType,
    /// Sizes, outermost first.
    pub dims: Vec<u64>,
}

/// In which order the rows of a stored matrix become rows of the `.m` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As they are.
    Stored,
    /// Inside each head, rows `j` and `j + head_dim / 2` become neighbours: from half-split to interleaved RoPE.
    Interleaved {
        /// Rows per head.
        head_dim: u32,
    },
    /// As the vocabulary was reordered.
    Vocabulary,
}

/// What a source calls a tensor of the `.m` file.
#[derive(Clone, Debug)]
pub struct SourceName {
    /// Name of the tensor.
    pub tensor: String,
    /// Which matrix of a stack of experts.
    pub expert: Option<u32>,
    /// Which of how many matrices that lie one above the other.
    pub part: (u32, u32),
    /// How its rows are ordered.
    pub order: RowOrder,
}

impl SourceName {
    /// A tensor that is not part of a stack.
    pub fn whole(tensor: &str, order: RowOrder) -> Self {
        Self { tensor: tensor.to_owned(), expert: None, part: (0, 1), order }
    }
}

/// A model to be converted.
pub struct Source {
    /// The files that hold tensors; the first names the model in messages.
    pub files: Vec<SourceFile>,
    /// What the model is; `weights` is F32 until the output's type is chosen.
    pub header: Header,
    /// Tensors by name.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Tensors that the model does not need.
    pub unneeded: BTreeSet<String>,
    /// Whether the embedding is the output matrix, too.
    pub tied: bool,
    /// Finds the name of a tensor.
    pub name: fn(TensorId, &Header) -> SourceName,
    /// The tokens.
    pub vocabulary: Vocabulary,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Where the values of one tensor of the `.m` file come from.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The tensor in the `.m` file.
    pub target: Tensor,
    /// Its name in the source.
    pub name: String,
    /// Index of the source file.
    pub file: usize,
    /// First byte of its values there.
    pub offset: u64,
    /// Their type.
    pub kind: GgmlType,
    /// The order of the rows.
    pub order: RowOrder,
}

impl Piece {
    /// Bytes of one row in the source.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.target.cols) / self.kind.block_len() * self.kind.block_bytes()
    }

    /// Whether the bytes are copied as they are.
    pub fn is_copied(&self) -> bool {
        self.kind.same_as() == Some(self.target.dtype)
    }

    /// The row of the source that becomes `row`; `vocabulary` holds the old id of each token where ids were changed.
    pub fn source_row(&self, row: u32, vocabulary: Option<&[u32]>) -> u32 {
        match self.order {
            RowOrder::Stored => row,
            RowOrder::Vocabulary => vocabulary.map_or(row, |old_ids| old_ids[row as usize]),
            RowOrder::Interleaved { head_dim } => {
                let (head, row) = (row / head_dim, row % head_dim);
                head * head_dim + row % 2 * (head_dim / 2) + row / 2
            }
        }
    }
}

impl Source {
    /// The path that stands for this model in messages.
    pub fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// Finds every tensor that `layout` demands, and demands that there is no other.
    ///
    /// # Errors
    /// Names the tensor that is missing, has other sizes, or would be dropped.
    pub fn pieces(&self, layout: &Layout) -> Result<Vec<Piece>, ConvertError> {
        let mut used: BTreeSet<&str> = self.unneeded.iter().map(String::as_str).collect();
        let mut pieces = Vec::new();
        let mut failure = None;
        layout.visit(|id, target| {
            if failure.is_some() {
                return;
            }
            match self.piece(id, target) {
                Ok((key, piece)) => {
                    used.insert(key);
                    pieces.push(piece);
                }
                Err(error) => failure = Some(error),
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        match self.tensors.iter().find(|(name, _)| !used.contains(name.as_str())) {
            Some((name, stored)) => Err(ConvertError::refused(
                &self.files[stored.file].path,
                format!("tensor {name}"),
                format!("not part of a {} model", self.header.arch.name()),
                "dropping it would change the answers; this kind of model is not supported",
            )),
            None => Ok(pieces),
        }
    }

    fn piece(&self, id: TensorId, target: Tensor) -> Result<(&str, Piece), ConvertError> {
        let id = if id == TensorId::Wcls && self.tied { TensorId::Embedding } else { id };
        let SourceName { tensor: name, expert, part: (part, parts), order } = (self.name)(id, &self.header);
        let Some((key, stored)) = self.tensors.get_key_value(&name) else {
            return Err(ConvertError::missing(self.path(), format!("tensor {name}")));
        };
        let (rows, cols) = (u64::from(target.rows), u64::from(target.cols));
        let is_vector = matches!(
            id,
            TensorId::FinalNorm
                | TensorId::Layer(_, LayerTensor::Norm0 | LayerTensor::Norm1 | LayerTensor::QNorm | LayerTensor::KNorm)
        );
        let expected = match expert {
            Some(_) => vec![u64::from(self.header.n_experts), rows * u64::from(parts), cols],
            None if is_vector => vec![cols],
            None => vec![rows, cols],
        };
        if stored.dims != expected {
            return Err(ConvertError::refused(
                &self.files[stored.file].path,
                format!("size of tensor {name}"),
                format!("{:?}", stored.dims),
                format!("the header demands {expected:?}"),
            ));
        }
        let matrix_bytes = rows * (cols / stored.kind.block_len() * stored.kind.block_bytes());
        let matrix = u64::from(expert.unwrap_or(0)) * u64::from(parts) + u64::from(part);
        let offset = stored.offset + matrix * matrix_bytes;
        Ok((key, Piece { target, name, file: stored.file, offset, kind: stored.kind, order }))
    }

    /// The weight type that keeps the quality of this source: Q40 where every matrix is Q4_0 already, else Q80.
    ///
    /// # Errors
    /// As [`Self::pieces`].
    pub fn natural_weights(&self) -> Result<DType, ConvertError> {
        // In an F16 layout, the tensors of the model's weight type are those that are not F32.
        let header = Header { weights: DType::F16, ..self.header };
        let pieces = self.pieces(&Layout::new(&header).map_err(ConvertError::layout(self.path()))?)?;
        let mut weights = pieces.iter().filter(|piece| piece.target.dtype == DType::F16);
        Ok(if weights.all(|piece| piece.kind == GgmlType::Q4_0) { DType::Q40 } else { DType::Q80 })
    }
}
