//! The header of a `.m` model file (Distributed-Llama 0.16).
//!
//! ```text
//! offset 0   i32  magic 0x0A00ABCD
//!        4   i32  header bytes = 8 + 8 * pairs
//!        8   (i32 key, i32 value) * pairs      any order, the last of a repeated key wins
//! ```
//! All integers are little-endian. Tensor data follows at once, see [`super::layout`].

mod error;
mod key;
mod pairs;

pub use error::HeaderError;
pub use key::Key;

use crate::quant::DType;
use pairs::Pairs;

/// First four bytes of a model file.
pub const MAGIC: u32 = 0x0A00_ABCD;
/// First four bytes of two obsolete layouts, refused by name.
pub const OLD_MAGICS: [u32; 2] = [0x00AB_CD00, 0x00AB_CD01];
/// Bytes before the first key.
pub const PREFIX_BYTES: usize = 8;
/// Largest header that is read: far more pairs than there are keys.
pub const MAX_HEADER_BYTES: usize = PREFIX_BYTES + 8 * 128;
/// Bytes of a header as [`Header::emit`] writes it.
pub const EMITTED_BYTES: usize = PREFIX_BYTES + 8 * Key::ALL.len();

/// Model family: decides norms, RoPE and the form of the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Llama 2 and 3, Mistral and what shares their graph.
    Llama,
    /// Qwen 3, dense.
    Qwen3,
    /// Qwen 3, mixture of experts.
    Qwen3Moe,
}

impl Arch {
    const ALL: [Arch; 3] = [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe];

    /// The number that stands for this family in the header.
    pub const fn code(self) -> u32 {
        match self {
            Arch::Llama => 0xABCD00,
            Arch::Qwen3 => 0xABCD01,
            Arch::Qwen3Moe => 0xABCD02,
        }
    }

    /// Name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Llama => "llama",
            Arch::Qwen3 => "qwen3",
            Arch::Qwen3Moe => "qwen3moe",
        }
    }

    /// Whether each query and key head is RMS-normalised before RoPE.
    pub const fn has_qk_norm(self) -> bool {
        !matches!(self, Arch::Llama)
    }
}

/// Which elements of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RopeKind {
    /// Neighbours `(2j, 2j + 1)`.
    #[default]
    Llama,
    /// Halves `(j, j + head_dim / 2)`.
    Falcon,
    /// Neighbours; the code that Llama 3.1 files carry.
    Llama31,
}

impl RopeKind {
    const ALL: [RopeKind; 3] = [RopeKind::Llama, RopeKind::Falcon, RopeKind::Llama31];

    /// The number that stands for this kind in the header and on the wire.
    pub const fn code(self) -> u32 {
        match self {
            RopeKind::Llama => 0,
            RopeKind::Falcon => 1,
            RopeKind::Llama31 => 2,
        }
    }

    /// The kind with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Llama 3.1 stretching of RoPE frequencies; `factor` 1 leaves them as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// How far the context is stretched.
    pub factor: f32,
    /// Wave lengths above `orig_seq_len / low_freq_factor` are stretched fully.
    pub low_freq_factor: f32,
    /// Wave lengths below `orig_seq_len / high_freq_factor` stay.
    pub high_freq_factor: f32,
    /// Context length that the model was trained with.
    pub orig_seq_len: u32,
}

impl Default for RopeScaling {
    fn default() -> Self {
        Self { factor: 1.0, low_freq_factor: 0.0, high_freq_factor: 0.0, orig_seq_len: 0 }
    }
}

/// Everything that a model file says about itself, checked.
///
/// Sizes count elements. All products of two sizes that the formats need fit 64 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Version that the converter wrote; never interpreted.
    pub version: u32,
    /// Model family.
    pub arch: Arch,
    /// Width of the residual stream.
    pub dim: u32,
    /// Width of the dense feed-forward network.
    pub hidden_dim: u32,
    /// Transformer blocks.
    pub n_layers: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: u32,
    /// Elements per head.
    pub head_dim: u32,
    /// Experts per layer, 0 for a dense model.
    pub n_experts: u32,
    /// Experts that each token is routed to.
    pub n_active_experts: u32,
    /// Width of one expert, 0 for a dense model.
    pub moe_hidden_dim: u32,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Largest context, in positions.
    pub seq_len: u32,
    /// Activation that the file names: 0 GELU, 1 SiLU. Every supported graph computes SiLU, as the C++ system does.
    pub hidden_act: u32,
    /// RoPE pairing.
    pub rope: RopeKind,
    /// RoPE base.
    pub rope_theta: f32,
    /// RoPE stretching.
    pub rope_scaling: RopeScaling,
    /// Type of the matrices.
    pub weights: DType,
    /// Added to the mean square in norms: 1e-5 or 1e-6.
    pub norm_epsilon: f32,
    /// Where tensor data starts, in bytes from the start of the file.
    pub header_bytes: u32,
}

impl Header {
    /// Reads and checks the header at the start of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// Names the field, the value found and what is allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (pairs, header_bytes) = Pairs::parse(bytes)?;
        let arch_code = pairs.required(Key::Arch)?;
        let weights_code = pairs.required(Key::Weights)?;
        let out_of_range = |key: Key, found: u32| {
            let (min, max) = key.range();
            HeaderError::OutOfRange { key, found: found as i32, min, max }
        };
        let arch =
            Arch::ALL.into_iter().find(|arch| arch.code() == arch_code).ok_or(out_of_range(Key::Arch, arch_code))?;
        let weights = DType::from_code(weights_code).ok_or(out_of_range(Key::Weights, weights_code))?;
        let stored_rope = pairs.checked(Key::RopeKind, Some(0))?;
        let rope = match arch {
            Arch::Llama => RopeKind::from_code(stored_rope).ok_or(out_of_range(Key::RopeKind, stored_rope))?,
            // Qwen files are half-split whatever they say, as in the C++ system.
            Arch::Qwen3 | Arch::Qwen3Moe => RopeKind::Falcon,
        };
        let dim = pairs.required(Key::Dim)?;
        let n_heads = pairs.required(Key::NHeads)?;
        let head_dim = match pairs.checked(Key::HeadDim, Some(0))? {
            0 if dim / n_heads > Key::HeadDim.range().1 => return Err(out_of_range(Key::HeadDim, dim / n_heads)),
            0 => dim / n_heads,
            stored => stored,
        };
        let header = Self {
            version: pairs.checked(Key::Version, Some(0))?,
            arch,
            dim,
            hidden_dim: match arch {
                Arch::Llama | Arch::Qwen3 => pairs.required(Key::HiddenDim)?,
                // Unused there; converters may write 0.
                Arch::Qwen3Moe => pairs.stored(Key::HiddenDim).and_then(|v| u32::try_from(v).ok()).unwrap_or(0),
            },
            n_layers: pairs.required(Key::NLayers)?,
            n_heads,
            n_kv_heads: pairs.required(Key::NKvHeads)?,
            head_dim,
            n_experts: pairs.checked(Key::NExperts, Some(0))?,
            n_active_experts: pairs.checked(Key::NActiveExperts, Some(0))?,
            moe_hidden_dim: pairs.checked(Key::MoeHiddenDim, Some(0))?,
            vocab_size: pairs.required(Key::VocabSize)?,
            seq_len: pairs.required(Key::SeqLen)?,
            hidden_act: pairs.checked(Key::HiddenAct, Some(1))?,
            rope,
            rope_theta: pairs.checked(Key::RopeTheta, Some(10_000))? as f32,
            rope_scaling: RopeScaling {
                factor: pairs.checked(Key::RopeScalingFactor, Some(1))? as f32,
                low_freq_factor: pairs.checked(Key::RopeLowFreqFactor, Some(0))? as f32,
                high_freq_factor: pairs.checked(Key::RopeHighFreqFactor, Some(0))? as f32,
                orig_seq_len: pairs.checked(Key::RopeOrigSeqLen, Some(0))?,
            },
            weights,
            norm_epsilon: if pairs.checked(Key::NormEpsilon, Some(5))? == 5 { 1e-5 } else { 1e-6 },
            header_bytes,
        };
        header.check()?;
        Ok(header)
    }

    /// Checks what one field demands of another.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), HeaderError> {
        let rule = |holds: bool, key, found, rule, other| {
            if holds { Ok(()) } else { Err(HeaderError::Mismatch { key, found, rule, other }) }
        };
        let (head_dim, heads, kv_heads) = (self.head_dim, self.n_heads, self.n_kv_heads);
        rule(head_dim > 0 && head_dim.is_multiple_of(2), Key::HeadDim, head_dim, "be positive and a multiple of", 2)?;
        rule(kv_heads <= heads && heads.is_multiple_of(kv_heads), Key::NKvHeads, kv_heads, "divide n_heads", heads)?;
        if self.rope != RopeKind::Falcon && self.rope_scaling.factor != 1.0 {
            let scaling = &self.rope_scaling;
            let (low, high) = (scaling.low_freq_factor as u32, scaling.high_freq_factor as u32);
            rule(low > 0, Key::RopeLowFreqFactor, low, "with rope scaling be at least", 1)?;
            rule(high > low, Key::RopeHighFreqFactor, high, "exceed rope_low_freq_factor", low)?;
            rule(
                scaling.orig_seq_len > 0,
                Key::RopeOrigSeqLen,
                scaling.orig_seq_len,
                "with rope scaling be at least",
                1,
            )?;
        }
        let (experts, active) = (self.n_experts, self.n_active_experts);
        if self.arch == Arch::Qwen3Moe {
            rule(experts > 0, Key::NExperts, experts, "in a qwen3moe model be at least", 1)?;
            rule(active > 0, Key::NActiveExperts, active, "in a qwen3moe model be at least", 1)?;
            rule(active <= experts, Key::NActiveExperts, active, "not exceed n_experts", experts)?;
            rule(self.moe_hidden_dim > 0, Key::MoeHiddenDim, 0, "in a qwen3moe model be at least", 1)?;
        } else {
            rule(experts == 0, Key::NExperts, experts, "in a dense architecture be", 0)?;
        }
        let block = self.weights.block_len() as u32;
        let whole = |key, len: u32| rule(len.is_multiple_of(block), key, len, "be whole blocks: a multiple of", block);
        whole(Key::Dim, self.dim)?;
        whole(if self.arch == Arch::Qwen3Moe { Key::MoeHiddenDim } else { Key::HiddenDim }, self.ff_dim())?;
        whole(Key::HeadDim, self.q_dim())
    }

    /// Width of all query heads together; may differ from `dim`.
    pub const fn q_dim(&self) -> u32 {
        self.head_dim * self.n_heads
    }

    /// Width of all key (or value) heads together.
    pub const fn kv_dim(&self) -> u32 {
        self.head_dim * self.n_kv_heads
    }

    /// Width of the feed-forward network that a token passes: of one expert, or of the dense one.
    pub const fn ff_dim(&self) -> u32 {
        match self.arch {
            Arch::Qwen3Moe => self.moe_hidden_dim,
            Arch::Llama | Arch::Qwen3 => self.hidden_dim,
        }
    }

    /// Writes the header as bytes, every key once, in the order of the converters; `header_bytes` is what [`EMITTED_BYTES`] says.
    pub fn emit(&self) -> [u8; EMITTED_BYTES] {
        let scaling = &self.rope_scaling;
        // The largest whole number of a file is no F32: it rounds to the next one, which is back in range by this cast.
        let whole = |number: f32| number as i32 as u32;
        let pairs: [(Key, u32); Key::ALL.len()] = [
            (Key::Version, self.version),
            (Key::Arch, self.arch.code()),
            (Key::HiddenAct, self.hidden_act),
            (Key::Dim, self.dim),
            (Key::HiddenDim, self.hidden_dim),
            (Key::NLayers, self.n_layers),
            (Key::NHeads, self.n_heads),
            (Key::NKvHeads, self.n_kv_heads),
            (Key::Weights, self.weights.code()),
            (Key::SeqLen, self.seq_len),
            (Key::VocabSize, self.vocab_size),
            (Key::NExperts, self.n_experts),
            (Key::NActiveExperts, self.n_active_experts),
            (Key::RopeTheta, whole(self.rope_theta)),
            (Key::RopeScalingFactor, whole(scaling.factor)),
            (Key::RopeLowFreqFactor, whole(scaling.low_freq_factor)),
            (Key::RopeHighFreqFactor, whole(scaling.high_freq_factor)),
            (Key::RopeOrigSeqLen, scaling.orig_seq_len),
            (Key::RopeKind, self.rope.code()),
            (Key::HeadDim, self.head_dim),
            (Key::NormEpsilon, if self.norm_epsilon == 1e-5 { 5 } else { 6 }),
            (Key::MoeHiddenDim, self.moe_hidden_dim),
        ];
        let mut bytes = [0; EMITTED_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&(EMITTED_BYTES as u32).to_le_bytes());
        for (slot, (key, value)) in bytes[PREFIX_BYTES..].chunks_exact_mut(8).zip(pairs) {
            slot[..4].copy_from_slice(&(key as u32).to_le_bytes());
            slot[4..].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, vec::Vec};

    fn bytes(pairs: &[(u32, i32)]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_le_bytes());
        out.extend((8 + 8 * pairs.len() as u32).to_le_bytes());
        for (key, value) in pairs {
            out.extend(key.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        out
    }

    const TINY: [(u32, i32); 10] =
        [(1, 0xABCD00), (2, 64), (3, 128), (4, 2), (5, 4), (6, 2), (9, 128), (10, 64), (13, 2), (20, 5)];

    fn with(change: (u32, i32)) -> Result<Header, HeaderError> {
        let mut pairs = TINY.to_vec();
        pairs.push(change);
        Header::parse(&bytes(&pairs))
    }

    #[test]
    fn defaults_and_derived_sizes_follow_the_format() {
        let header = Header::parse(&bytes(&TINY)).unwrap();
        assert_eq!((header.head_dim, header.q_dim(), header.kv_dim()), (16, 64, 32));
        assert_eq!((header.rope_theta, header.hidden_act, header.rope), (10_000.0, 1, RopeKind::Llama));
        assert_eq!(header.header_bytes, 88);
        assert_eq!(with((19, 32)).unwrap().q_dim(), 128);
        assert_eq!(with((1, 0xABCD01)).unwrap().rope, RopeKind::Falcon);
    }

    #[test]
    fn emitted_headers_parse_to_the_same_values() {
        let mut header = with((18, 2)).unwrap();
        header.rope_scaling =
            RopeScaling { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 };
        header.header_bytes = EMITTED_BYTES as u32;
        assert_eq!(Header::parse(&header.emit()), Ok(header));
        let largest = Header { header_bytes: header.header_bytes, ..with((12, i32::MAX)).unwrap() };
        assert_eq!(Header::parse(&largest.emit()), Ok(largest));
    }

    #[test]
    fn absurd_values_are_refused_by_name() {
        let message = |change| format!("{}", with(change).unwrap_err());
        assert_eq!(message((5, 0)), "model header: n_heads is 0; allowed: 1 to 4096");
        assert_eq!(message((2, -1)), "model header: dim is -1; allowed: 1 to 1048576");
        assert_eq!(message((4, 1 << 30)), "model header: n_layers is 1073741824; allowed: 1 to 256");
        assert_eq!(message((6, 3)), "model header: n_kv_heads is 3; it must divide n_heads 4");
        assert_eq!(message((3, 100)), "model header: hidden_dim is 100; it must be whole blocks: a multiple of 32");
        assert_eq!(message((77, 0)), "model header: unknown key 77 at byte 88; known keys are 0 to 21");
        // What is derived has the limits of what is stored.
        let wide: Vec<_> = TINY.into_iter().chain([(2, 1 << 17)]).collect();
        let wide = Header::parse(&bytes(&wide)).unwrap_err();
        assert_eq!(format!("{wide}"), "model header: head_dim is 32768; allowed: 0 to 16384");
        assert_eq!(message((13, 99)), "model header: weight type is 99; allowed: 0 to 3");
        assert_eq!(message((7, 4)), "model header: n_experts is 4; it must in a dense architecture be 0");
        assert_eq!(message((1, 0xABCD02)), "model header: n_experts is 0; it must in a qwen3moe model be at least 1");
    }

    #[test]
    fn wrong_prefixes_are_told_apart() {
        let mut file = bytes(&TINY);
        assert!(matches!(Header::parse(&file[..6]), Err(HeaderError::Truncated { needed: 8, found: 6 })));
        assert!(matches!(Header::parse(&file[..40]), Err(HeaderError::Truncated { needed: 88, found: 40 })));
        for size in [0, 8, 12, 0x7fff_ffff, u32::MAX] {
            file[4..8].copy_from_slice(&size.to_le_bytes());
            assert_eq!(Header::parse(&file), Err(HeaderError::HeaderBytes(size)));
        }
        file[..4].copy_from_slice(&OLD_MAGICS[1].to_le_bytes());
        assert_eq!(Header::parse(&file), Err(HeaderError::OldFormat(0x00AB_CD01)));
        file[..4].copy_from_slice(b"GGUF");
        assert!(matches!(Header::parse(&file), Err(HeaderError::NotAModel(_))));
    }

    #[test]
    fn a_missing_required_key_is_named() {
        let pairs: Vec<_> = TINY.iter().copied().filter(|(key, _)| *key != 13).collect();
        assert_eq!(Header::parse(&bytes(&pairs)), Err(HeaderError::Missing(Key::Weights)));
    }
}
