//! The number types of source files, and their values as F32.
//!
//! Block layouts are those of ggml, all little-endian. "d" and "m" are binary16 scales, `q` are codes:
//!
//! ```text
//! Q4_0   32 values  18 bytes  d  q[16]                      value = (q - 8) * d         low nibbles 0..16, high 16..32
//! Q4_1   32 values  20 bytes  d m  q[16]                    value = q * d + m
//! Q5_0   32 values  22 bytes  d  high[4] q[16]              value = (q - 16) * d        bit j of `high` is bit 4 of value j
//! Q5_1   32 values  24 bytes  d m  high[4] q[16]            value = q * d + m
//! Q8_0   32 values  34 bytes  d  q[32]                      value = q * d
//! Q4_K  256 values 144 bytes  d m  s[12] q[128]             value = q * (d * scale) - m * min   8 scales and mins of 6 bits
//! Q5_K  256 values 176 bytes  d m  s[12] high[32] q[128]    the same
//! Q6_K  256 values 210 bytes  q[128] high[64] s[16] d       value = (q - 32) * (d * scale)      16 scales of 8 bits
//! ```

use dair_core::quant::{BLOCK, DType, f16_to_f32};

/// Values in a block of the K types.
const SUPER: usize = 256;

/// Type of the values of a source tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation; layouts are at the top of this file
pub enum GgmlType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Names of all published codes, so that an unreadable type is refused by its name.
const PUBLISHED: [(u32, &str); 33] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// Name of a type code, readable here or not.
pub fn published_name(code: u32) -> &'static str {
    PUBLISHED.iter().find(|(known, _)| *known == code).map_or("unknown", |(_, name)| name)
}

impl GgmlType {
    /// Every type that is read.
    pub const ALL: [GgmlType; 11] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::Bf16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q4K,
        GgmlType::Q5K,
        GgmlType::Q6K,
    ];

    /// The names of [`Self::ALL`], for messages.
    pub const READABLE: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

    /// The number that stands for this type in a GGUF file.
    pub const fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The readable type with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Name as ggml writes it.
    pub fn name(self) -> &'static str {
        published_name(self.code())
    }

    /// Values per block: a row has a multiple of it.
    pub const fn block_len(self) -> u64 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => BLOCK as u64,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPER as u64,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `len` values, or `None` where `len` is not whole blocks or the product overflows.
    pub const fn bytes(self, len: u64) -> Option<u64> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The type of `.m` files whose bytes are the same, where there is one.
    pub const fn same_as(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Q4_0 => Some(DType::Q40),
            Self::Q8_0 => Some(DType::Q80),
            _ => None,
        }
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Widens stored values to F32.
///
/// # Panics
/// If `bytes` does not hold exactly `out.len()` values of `kind`.
pub fn dequantize(kind: GgmlType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(kind.bytes(out.len() as u64), Some(bytes.len() as u64), "{kind}: {} values", out.len());
    match kind {
        GgmlType::F32 => dair_core::quant::dequantize(DType::F32, bytes, out),
        GgmlType::F16 => dair_core::quant::dequantize(DType::F16, bytes, out),
        GgmlType::Q4_0 => dair_core::quant::dequantize(DType::Q40, bytes, out),
        GgmlType::Q8_0 => dair_core::quant::dequantize(DType::Q80, bytes, out),
        GgmlType::Bf16 => {
            for (value, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        GgmlType::Q4_1 => blocks(bytes, out, q4_1),
        GgmlType::Q5_0 => blocks(bytes, out, q5_0),
        GgmlType::Q5_1 => blocks(bytes, out, q5_1),
        GgmlType::Q4K => blocks(bytes, out, q4_k),
        GgmlType::Q5K => blocks(bytes, out, q5_k),
        GgmlType::Q6K => blocks(bytes, out, q6_k),
    }
}

fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    widen: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        widen(block, values);
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn q4_1(block: &[u8; 20], out: &mut [f32; BLOCK]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (j, q) in block[4..].iter().enumerate() {
        out[j] = f32::from(q & 15) * d + m;
        out[j + 16] = f32::from(q >> 4) * d + m;
    }
}

/// Five-bit codes of 32 values: nibbles in `low`, the fifth bits in `high`.
fn five_bit_codes(high: &[u8], low: &[u8]) -> [u8; BLOCK] {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let fifth = |j: usize| ((high >> j & 1) as u8) << 4;
    std::array::from_fn(|j| if j < 16 { low[j] & 15 | fifth(j) } else { low[j - 16] >> 4 | fifth(j) })
}

fn q5_0(block: &[u8; 22], out: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    for (value, q) in out.iter_mut().zip(five_bit_codes(&block[2..6], &block[6..])) {
        *value = f32::from(q as i8 - 16) * d;
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; BLOCK]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (value, q) in out.iter_mut().zip(five_bit_codes(&block[4..8], &block[8..])) {
        *value = f32::from(q) * d + m;
    }
}

/// Six-bit scale and minimum of sub-block `j` of 8, out of their 12 packed bytes.
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// Q4_K and Q5_K: sub-blocks of 32 values; each pair of them shares 32 bytes of nibbles. `high` is empty for Q4_K.
fn q45_k(block: &[u8], high: &[u8], low: &[u8], out: &mut [f32; SUPER]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (j, values) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], j);
        let (scale, min) = (d * scale, m * min);
        let nibbles = &low[j / 2 * BLOCK..][..BLOCK];
        for (l, value) in values.iter_mut().enumerate() {
            let nibble = if j % 2 == 0 { nibbles[l] & 15 } else { nibbles[l] >> 4 };
            let fifth = high.get(l).map_or(0, |bits| (bits >> j & 1) << 4);
            *value = f32::from(nibble | fifth) * scale - min;
        }
    }
}

fn q4_k(block: &[u8; 144], out: &mut [f32; SUPER]) {
    q45_k(block, &[], &block[16..], out);
}

fn q5_k(block: &[u8; 176], out: &mut [f32; SUPER]) {
    q45_k(block, &block[16..48], &block[48..], out);
}

fn q6_k(block: &[u8; 210], out: &mut [f32; SUPER]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (i, value) in out.iter_mut().enumerate() {
        // Halves of 128 values; in a half, four runs of 32 share 64 bytes of nibbles and 32 bytes of high bits.
        let (part, run, l) = (i / 128, i % 128 / 32, i % 32);
        let nibbles = low[part * 64 + run % 2 * 32 + l];
        let nibble = if run < 2 { nibbles & 15 } else { nibbles >> 4 };
        let code = nibble | (high[part * 32 + l] >> (2 * run) & 3) << 4;
        *value = f32::from(code as i8 - 32) * (d * f32::from(scales[i / 16] as i8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_belong_together() {
        for kind in GgmlType::ALL {
            assert_eq!(GgmlType::from_code(kind.code()), Some(kind));
            assert!(GgmlType::READABLE.contains(kind.name()), "{kind}");
        }
        assert_eq!(GgmlType::from_code(16), None);
        assert_eq!((published_name(16), published_name(4)), ("IQ2_XXS", "unknown"));
    }

    #[test]
    fn bytes_demand_whole_blocks() {
        assert_eq!(GgmlType::Q4_1.bytes(64), Some(40));
        assert_eq!(GgmlType::Q4_1.bytes(63), None);
        assert_eq!(GgmlType::Q6K.bytes(512), Some(420));
        assert_eq!(GgmlType::F32.bytes(u64::MAX), None);
    }

    #[test]
    fn types_that_equal_ours_have_the_same_blocks() {
        for kind in GgmlType::ALL {
            if let Some(ours) = kind.same_as() {
                assert_eq!((ours.block_len(), ours.block_bytes()), (kind.block_len(), kind.block_bytes()), "{kind}");
            }
        }
    }
}
