//! Number types of weights and activations: F32, F16 and the block types Q40 and Q80.
//!
//! Scalar conversions only; products of quantised values live in [`crate::kernels`].
//! Source of the formats: the `.m` files of Distributed-Llama 0.16.

mod blocks;
mod f16;
mod interleaved;

pub use blocks::{BLOCK, BlockQ40, BlockQ80, NormBlock, dequantize, quantize};
pub use f16::{f16_to_f32, f32_to_f16};
pub use interleaved::{INTERLEAVED_ROWS, Order, interleave, interleaves};

/// Type of stored numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    #[default]
    F32,
    /// IEEE binary16.
    F16,
    /// Blocks of 32 values: an F16 scale and 32 four-bit codes, 18 bytes ([`BlockQ40`]).
    Q40,
    /// Blocks of 32 values: an F16 scale and 32 signed bytes, 34 bytes ([`BlockQ80`]).
    Q80,
}

impl DType {
    /// Every type, in the order of its code.
    pub const ALL: [DType; 4] = [DType::F32, DType::F16, DType::Q40, DType::Q80];

    /// The number that stands for this type in `.m` headers and on the wire.
    pub const fn code(self) -> u32 {
        match self {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q40 => 2,
            DType::Q80 => 3,
        }
    }

    /// The type with this code.
    pub const fn from_code(code: u32) -> Option<DType> {
        match code {
            0 => Some(DType::F32),
            1 => Some(DType::F16),
            2 => Some(DType::Q40),
            3 => Some(DType::Q80),
            _ => None,
        }
    }

    /// Name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Q40 => "q40",
            DType::Q80 => "q80",
        }
    }

    /// Values per block: a row of this type has a multiple of it.
    pub const fn block_len(self) -> u64 {
        match self {
            DType::F32 | DType::F16 => 1,
            DType::Q40 | DType::Q80 => BLOCK as u64,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F16 => 2,
            DType::Q40 => size_of::<BlockQ40>() as u64,
            DType::Q80 => size_of::<BlockQ80>() as u64,
        }
    }

    /// Bytes of `len` values, or `None` where `len` is not whole blocks or the product overflows.
    ///
    /// ```
    /// use dair_core::quant::DType;
    /// assert_eq!(DType::Q40.bytes(64), Some(36));
    /// assert_eq!(DType::Q40.bytes(33), None);
    /// ```
    pub const fn bytes(self, len: u64) -> Option<u64> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}
