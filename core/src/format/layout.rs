//! Where each tensor of a `.m` file lies: offsets by arithmetic alone, in checked 64-bit integers.
//!
//! ```text
//! embedding | layer 0 | layer 1 | … | final norm | wcls
//! layer:  q k v wo | gate (e: w1 w2 w3)* or w1 w2 w3 | q_norm k_norm (Qwen) | norm_0 norm_1
//! ```
//! No padding, no alignment: an F32 tensor may start at any even byte.

use super::model::Header;
use crate::quant::DType;
use core::fmt;

/// Names one tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorId {
    /// Token embedding, `vocab_size × dim`.
    Embedding,
    /// A tensor of one layer.
    Layer(u32, LayerTensor),
    /// Norm before the output matrix, `dim`.
    FinalNorm,
    /// Output matrix, `vocab_size × dim`.
    Wcls,
}

/// Names one tensor of a layer. Shapes are `rows × cols`, the product is `out[r] = Σ_c W[r][c] * in[c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerTensor {
    /// Queries, `q_dim × dim`.
    Q,
    /// Keys, `kv_dim × dim`.
    K,
    /// Values, `kv_dim × dim`.
    V,
    /// Attention output, `dim × q_dim`.
    Wo,
    /// Router of a mixture of experts, `n_experts × dim`.
    MoeGate,
    /// Gate projection of an expert (0 in a dense layer), `ff_dim × dim`.
    W1(u32),
    /// Down projection, `dim × ff_dim`.
    W2(u32),
    /// Up projection, `ff_dim × dim`.
    W3(u32),
    /// Norm of each query head, `head_dim`.
    QNorm,
    /// Norm of each key head, `head_dim`.
    KNorm,
    /// Norm before attention, `dim`.
    Norm0,
    /// Norm before the feed-forward network, `dim`.
    Norm1,
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layer, tensor) = match self {
            TensorId::Embedding => return f.pad("embedding"),
            TensorId::FinalNorm => return f.pad("final_norm"),
            TensorId::Wcls => return f.pad("wcls"),
            TensorId::Layer(layer, tensor) => (layer, tensor),
        };
        write!(f, "layer.{layer}.")?;
        match tensor {
            LayerTensor::Q => f.write_str("q"),
            LayerTensor::K => f.write_str("k"),
            LayerTensor::V => f.write_str("v"),
            LayerTensor::Wo => f.write_str("wo"),
            LayerTensor::MoeGate => f.write_str("moe_gate"),
            LayerTensor::W1(expert) => write!(f, "{expert}.w1"),
            LayerTensor::W2(expert) => write!(f, "{expert}.w2"),
            LayerTensor::W3(expert) => write!(f, "{expert}.w3"),
            LayerTensor::QNorm => f.write_str("q_norm"),
            LayerTensor::KNorm => f.write_str("k_norm"),
            LayerTensor::Norm0 => f.write_str("norm_0"),
            LayerTensor::Norm1 => f.write_str("norm_1"),
        }
    }
}

/// One tensor: a row-major matrix of `rows × cols` values at `offset` bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Type of the values.
    pub dtype: DType,
    /// Rows; 1 for a vector.
    pub rows: u32,
    /// Values per row.
    pub cols: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes of one row.
    pub row_bytes: u64,
}

impl Tensor {
    /// Bytes of the whole tensor.
    pub const fn bytes(&self) -> u64 {
        self.rows as u64 * self.row_bytes
    }
}

/// Why a file can't hold the tensors that its header describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The sum of all tensors exceeds 63 bits.
    TooLarge,
    /// The file is shorter or longer than the formula says.
    FileBytes {
        /// What the header demands.
        expected: u64,
        /// What there is.
        found: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLarge => f.write_str("model layout: the tensors of this header exceed 2^63 bytes"),
            Self::FileBytes { expected, found } if found < expected => write!(
                f,
                "model file: {found} bytes, its header demands {expected}: {} are missing; copy or convert it again",
                expected - found
            ),
            Self::FileBytes { expected, found } => write!(
                f,
                "model file: {found} bytes, its header demands {expected}: {} too many; copy or convert it again",
                found - expected
            ),
        }
    }
}

impl core::error::Error for LayoutError {}

/// All tensors of one model file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    header: Header,
    layer_bytes: u64,
    file_bytes: u64,
}

impl Layout {
    /// Lays out the tensors that `header` describes.
    ///
    /// # Errors
    /// [`LayoutError::TooLarge`] where the end of the file does not fit 63 bits.
    pub fn new(header: &Header) -> Result<Self, LayoutError> {
        let mut layout = Self { header: *header, layer_bytes: 0, file_bytes: 0 };
        let mut layer_bytes = 0u64;
        layout.visit_layer(0, |_, tensor| {
            layer_bytes = layer_bytes.saturating_add(u64::from(tensor.rows).saturating_mul(tensor.row_bytes));
        });
        layout.layer_bytes = layer_bytes;
        let rest = [layout.shape(TensorId::Embedding), layout.shape(TensorId::FinalNorm), layout.shape(TensorId::Wcls)];
        layout.file_bytes = rest
            .iter()
            .map(Tensor::bytes)
            .chain([u64::from(header.header_bytes)])
            .try_fold(layer_bytes.saturating_mul(u64::from(header.n_layers)), u64::checked_add)
            .filter(|bytes| *bytes <= i64::MAX as u64)
            .ok_or(LayoutError::TooLarge)?;
        Ok(layout)
    }

    /// The header that this layout was made from.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the whole file, header included.
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of one layer; all are alike.
    pub const fn layer_bytes(&self) -> u64 {
        self.layer_bytes
    }

    /// Checks the size of a file against the formula; to be done before any tensor is touched.
    ///
    /// # Errors
    /// [`LayoutError::FileBytes`] with both sizes.
    pub const fn check_file(&self, found: u64) -> Result<(), LayoutError> {
        if found == self.file_bytes { Ok(()) } else { Err(LayoutError::FileBytes { expected: self.file_bytes, found }) }
    }

    /// Where a tensor lies.
    ///
    /// # Panics
    /// If the model has no such tensor: a layer or expert out of range, QK norms in a Llama.
    pub fn tensor(&self, id: TensorId) -> Tensor {
        let embedding = self.shape(TensorId::Embedding);
        let layers_start = embedding.offset + embedding.bytes();
        let final_norm = layers_start + u64::from(self.header.n_layers) * self.layer_bytes;
        let mut tensor = self.shape(id);
        tensor.offset = match id {
            TensorId::Embedding => embedding.offset,
            TensorId::FinalNorm => final_norm,
            TensorId::Wcls => final_norm + self.shape(TensorId::FinalNorm).bytes(),
            TensorId::Layer(layer, name) => {
                assert!(layer < self.header.n_layers, "layer {layer} of {}", self.header.n_layers);
                layers_start + u64::from(layer) * self.layer_bytes + self.offset_in_layer(name)
            }
        };
        tensor
    }

    /// Calls `visit` for every tensor in the order of the file.
    pub fn visit(&self, mut visit: impl FnMut(TensorId, Tensor)) {
        visit(TensorId::Embedding, self.tensor(TensorId::Embedding));
        let mut offset = self.shape(TensorId::Embedding).offset + self.shape(TensorId::Embedding).bytes();
        for layer in 0..self.header.n_layers {
            self.visit_layer(layer, |id, tensor| {
                visit(id, Tensor { offset, ..tensor });
                offset += tensor.bytes();
            });
        }
        visit(TensorId::FinalNorm, self.tensor(TensorId::FinalNorm));
        visit(TensorId::Wcls, self.tensor(TensorId::Wcls));
    }

    fn offset_in_layer(&self, name: LayerTensor) -> u64 {
        use LayerTensor as T;
        let bytes = |name| self.shape(TensorId::Layer(0, name)).bytes();
        let attention = bytes(T::Q) + bytes(T::K) + bytes(T::V) + bytes(T::Wo);
        let (gate, expert_bytes) = (self.gate_bytes(), 2 * bytes(T::W1(0)) + bytes(T::W2(0)));
        let expert_start = |expert: u32| attention + gate + u64::from(expert) * expert_bytes;
        let norms = expert_start(self.n_expert_slots());
        match name {
            T::Q => 0,
            T::K => bytes(T::Q),
            T::V => bytes(T::Q) + bytes(T::K),
            T::Wo => bytes(T::Q) + bytes(T::K) + bytes(T::V),
            T::MoeGate => attention,
            T::W1(e) => expert_start(e),
            T::W2(e) => expert_start(e) + bytes(T::W1(e)),
            T::W3(e) => expert_start(e) + bytes(T::W1(e)) + bytes(T::W2(e)),
            T::QNorm => norms,
            T::KNorm => norms + bytes(T::QNorm),
            T::Norm0 => self.layer_bytes - bytes(T::Norm0) - bytes(T::Norm1),
            T::Norm1 => self.layer_bytes - bytes(T::Norm1),
        }
    }

    fn gate_bytes(&self) -> u64 {
        if self.header.n_experts > 0 { self.shape(TensorId::Layer(0, LayerTensor::MoeGate)).bytes() } else { 0 }
    }

    /// Feed-forward networks per layer: the experts, or one.
    const fn n_expert_slots(&self) -> u32 {
        if self.header.n_experts > 0 { self.header.n_experts } else { 1 }
    }

    /// Calls `visit` for the tensors of one layer in the order of the file, without their offsets.
    fn visit_layer(&self, layer: u32, mut visit: impl FnMut(TensorId, Tensor)) {
        use LayerTensor as T;
        let mut next = |name| {
            let id = TensorId::Layer(layer, name);
            visit(id, self.shape(id));
        };
        for name in [T::Q, T::K, T::V, T::Wo] {
            next(name);
        }
        if self.header.n_experts > 0 {
            next(T::MoeGate);
        }
        for expert in 0..self.n_expert_slots() {
            next(T::W1(expert));
            next(T::W2(expert));
            next(T::W3(expert));
        }
        if self.header.arch.has_qk_norm() {
            next(T::QNorm);
            next(T::KNorm);
        }
        next(T::Norm0);
        next(T::Norm1);
    }

    /// Type and shape of a tensor; the offset is right for the embedding only.
    fn shape(&self, id: TensorId) -> Tensor {
        use LayerTensor as T;
        let header = &self.header;
        let (dim, ff_dim, weights) = (header.dim, header.ff_dim(), header.weights);
        let (dtype, rows, cols) = match id {
            TensorId::Embedding => (DType::F32, header.vocab_size, dim),
            TensorId::FinalNorm => (DType::F32, 1, dim),
            TensorId::Wcls => (weights, header.vocab_size, dim),
            TensorId::Layer(_, name) => match name {
                T::Q => (weights, header.q_dim(), dim),
                T::K | T::V => (weights, header.kv_dim(), dim),
                T::Wo => (weights, dim, header.q_dim()),
                T::MoeGate => (DType::F32, header.n_experts, dim),
                T::W1(expert) | T::W3(expert) | T::W2(expert) => {
                    assert!(expert < self.n_expert_slots(), "expert {expert} of {}", self.n_expert_slots());
                    if matches!(name, T::W2(_)) { (weights, dim, ff_dim) } else { (weights, ff_dim, dim) }
                }
                T::QNorm | T::KNorm => {
                    assert!(header.arch.has_qk_norm(), "{} has no QK norms", header.arch.name());
                    (DType::F32, 1, header.head_dim)
                }
                T::Norm0 | T::Norm1 => (DType::F32, 1, dim),
            },
        };
        // `Header::check` made every row whole blocks.
        let row_bytes = u64::from(cols) / dtype.block_len() * dtype.block_bytes();
        Tensor { dtype, rows, cols, offset: u64::from(header.header_bytes), row_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::model::{Arch, RopeKind, RopeScaling};

    fn header(arch: Arch, weights: DType) -> Header {
        let moe = arch == Arch::Qwen3Moe;
        Header {
            version: 0,
            arch,
            dim: 64,
            hidden_dim: 128,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 16,
            n_experts: if moe { 3 } else { 0 },
            n_active_experts: if moe { 2 } else { 0 },
            moe_hidden_dim: if moe { 96 } else { 0 },
            vocab_size: 128,
            seq_len: 64,
            hidden_act: 1,
            rope: RopeKind::Llama,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::default(),
            weights,
            norm_epsilon: 1e-5,
            header_bytes: 136,
        }
    }

    #[test]
    fn the_worked_example_has_the_measured_size() {
        let layout = Layout::new(&header(Arch::Llama, DType::Q40)).unwrap();
        assert_eq!(layout.layer_bytes(), 21248);
        assert_eq!(layout.file_bytes(), 80264);
        assert_eq!(layout.check_file(80264), Ok(()));
        assert_eq!(layout.check_file(80164), Err(LayoutError::FileBytes { expected: 80264, found: 80164 }));
    }

    #[test]
    fn tensors_tile_the_file_without_gaps() {
        for arch in [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe] {
            for weights in DType::ALL {
                let layout = Layout::new(&header(arch, weights)).unwrap();
                let mut end = 136;
                layout.visit(|id, tensor| {
                    assert_eq!(tensor.offset, end, "{id} {arch:?} {weights}");
                    assert_eq!(layout.tensor(id), tensor, "{id} {arch:?} {weights}");
                    end += tensor.bytes();
                });
                assert_eq!(end, layout.file_bytes());
            }
        }
    }

    #[test]
    fn sizes_beyond_63_bits_are_refused() {
        let mut huge = header(Arch::Qwen3Moe, DType::F32);
        huge.dim = 1 << 20;
        huge.moe_hidden_dim = 1 << 20;
        huge.n_experts = 1 << 10;
        huge.n_layers = 256;
        huge.n_heads = 4096;
        huge.head_dim = 1 << 14;
        assert!(Layout::new(&huge).is_ok(), "2^61 bytes still fit");
        huge.n_experts = 1 << 14;
        assert_eq!(Layout::new(&huge), Err(LayoutError::TooLarge));
    }
}
