//! Numbers only: products of weights and activations, norms, softmax, RoPE, attention; no model knowledge.
//!
//! The host detects what the processor can do and picks one [`Kernels`] table at start; from then on every call goes
//! through it. [`Isa::Scalar`] is the reference and runs everywhere.
//!
//! # Same bits everywhere
//! A result is a function of its inputs alone: not of the instruction set, the batch that a token came in, or the way
//! in which rows were split between threads. (The sign and payload of a NaN are the only exception.) To keep it so:
//! * quantised product: per block of 32, `i` = exact integer dot of the codes, `s = f32(d_w) * f32(d_x)` (exact: two
//!   11-bit mantissas), `acc = fma(f32(i), s, acc)`; blocks in order, one accumulator that starts at +0;
//! * every other sum: 16 lanes, element `i` into lane `i % 16` by FMA in order, then the tree +8, +4, +2, +1 (`lanes`);
//! * attention: the score of a position is one FMA chain over `head_dim`; positions are cut into chunks of 256 by
//!   their number, and the chunks of a query are summed up each for itself and merged in order (`attention`);
//! * `exp` is one polynomial with explicit FMAs (`elementwise`); division and square root are IEEE's;
//! * no sum or product is left to the compiler to contract or to reorder (Rust does neither).
//!
//! Products of many tokens by [`Kernels::relaxed`] are the exception, for those who ask for it.
//!
//! # Where things are
//! `lanes` is a vector of 16 F32 lanes, implemented once per instruction set. The bodies in `dense`, `elementwise`,
//! `quantize`, `cache` (how keys and values lie in memory) and `attention` are written once over it, and `table` compiles
//! them for each instruction set. Only the quantised products have code of their own: `scalar`, and `x86_64` and `aarch64`
//! inside the frame of `groups`, each written once over a trait of what a generation of its instructions offers.

#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod aarch64;
mod attention;
mod cache;
mod dense;
mod elementwise;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little", target_feature = "neon")))]
mod groups;
mod lanes;
mod operands;
mod quantize;
mod scalar;
mod table;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use crate::quant::{BLOCK, BlockQ80, DType, NormBlock, Order};
pub use attention::{Attend, CHUNK, QUERIES, SCORES, state_len};
pub use cache::{KvHead, KvLayout, KvPart, KvType};
use core::fmt;
use core::ops::Range;
pub use operands::{ActivationParts, Input, Matrix, Output, SCRATCH_BYTES, Tokens, activation_row_bytes, supports};
use table::{Products, Table};

/// Instruction set that a table of kernels is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// No vector instructions: the reference.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// [`Isa::Avx2`] and AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// [`Isa::Avx512`] and AMX with 8-bit integers, whose use the operating system allows to this process.
    Amx,
    /// AArch64 with NEON, as every ARMv8-A has it.
    Neon,
    /// AArch64 with byte dot products.
    Dotprod,
    /// AArch64 with byte dot products and matrix products.
    I8mm,
}

impl Isa {
    /// Every instruction set, the plainest first.
    pub const ALL: [Isa; 8] =
        [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Amx, Isa::Neon, Isa::Dotprod, Isa::I8mm];

    /// Name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::Dotprod => "dotprod",
            Isa::I8mm => "i8mm",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The kernels of one instruction set: one table of functions, chosen once at start.
///
/// Lengths that do not fit each other are the caller's mistake and panic.
#[derive(Clone, Copy)]
pub struct Kernels {
    table: &'static Table,
    products: &'static Products,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.isa())
    }
}

// The functions of a table ask for two things: a processor that has the instruction set, which holds since the table
// was made (`for_isa`), and operands that fit each other, which the method checks first.
impl Kernels {
    /// The reference kernels.
    pub const SCALAR: Kernels = Kernels { table: &scalar::TABLE, products: &scalar::TABLE.products };

    /// The kernels of `isa`, or `None` where this architecture has none such.
    ///
    /// # Safety
    /// The processor has the features of `isa`, and the operating system lets all threads that use the table use them.
    pub unsafe fn for_isa(isa: Isa) -> Option<Self> {
        let table = match isa {
            Isa::Scalar => &scalar::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &x86_64::avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => &x86_64::avxvnni::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &x86_64::avx512::TABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => &x86_64::amx::TABLE,
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Isa::Neon => &aarch64::neon::TABLE,
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Isa::Dotprod => &aarch64::dotprod::TABLE,
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Isa::I8mm => &aarch64::i8mm::TABLE,
            #[allow(unreachable_patterns)]
            _ => return None,
        };
        Some(Self { table, products: &table.products })
    }

    /// These kernels with products of many tokens in BF16 (AVX-512 BF16, and the tiles of AMX), or `None` where the
    /// instruction set has none such.
    ///
    /// Such products are faster and not exact: weights and activations are rounded to 8 bits of mantissa, sums are F32 in
    /// an order of the processor's. Q40 weights, and others with Q80 activations, take part with AMX only: elsewhere the
    /// exact products of integers are faster.
    ///
    /// # Safety
    /// The processor has AVX-512 BF16, and with [`Isa::Amx`] tiles of BF16, too.
    pub unsafe fn relaxed(self) -> Option<Self> {
        self.table.relaxed.as_ref().map(|products| Self { products, ..self })
    }

    /// The products: exact ones, whose results are those of any other instruction set, or relaxed ones.
    pub fn products(&self) -> &'static str {
        if core::ptr::eq(self.products, &self.table.products) { "exact" } else { "relaxed" }
    }

    /// The instruction set of this table.
    pub fn isa(&self) -> Isa {
        self.table.isa
    }

    /// Quantises one token's `x` into an activation row ([`activation_row_bytes`]), the input of quantised products.
    ///
    /// Per block of 32: scale `d = max|x| / 127`, code = `x / d` to nearest even, stored scale = `d` rounded to F16.
    /// A block whose `1 / d` is not finite has codes 0; a NaN has code 0.
    ///
    /// # Panics
    /// If `x.len()` is not a multiple of 32, or `row` is shorter than its row or not 64-byte aligned.
    pub fn quantize_activations(&self, x: &[f32], row: &mut [u8]) {
        let (codes, scales, offsets) = operands::split_row_mut(row, x.len());
        self.quantize_activation_parts(x, codes, scales, offsets);
    }

    /// Quantises some blocks of a token into the parts of its activation row that are theirs ([`ActivationParts`]), as
    /// [`Self::quantize_activations`] does the whole: several threads may fill one row.
    ///
    /// # Panics
    /// If the lengths are not those of the blocks of `x`.
    pub fn quantize_activation_parts(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
        check_parts(x.len(), codes, scales, offsets);
        // SAFETY: the table's instruction set is there; the lengths fit.
        unsafe { (self.table.quantize_activations)(x, codes, scales, offsets) }
    }

    /// The parts of an activation row that Q80 blocks stand for; the inverse of the way from
    /// [`Self::quantize_activation_parts`] to [`Self::quantize_q80`], and exact.
    ///
    /// # Panics
    /// If the lengths are not those of the blocks.
    pub fn unpack_q80(&self, blocks: &[u8], codes: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
        check_parts(codes.len(), codes, scales, offsets);
        q80_blocks(codes.len(), blocks.len());
        // SAFETY: the table's instruction set is there; the lengths fit.
        unsafe { (self.table.unpack_q80)(bytemuck::cast_slice(blocks), codes, scales, offsets) }
    }

    /// First half of a norm of some values of a row: `weight * x`, quantised in blocks as in
    /// [`Self::quantize_activations`] but for the scale, which stays F32; and the squares of `x`. `weight` holds
    /// little-endian F32 of any alignment.
    ///
    /// # Panics
    /// If `weight` is not exactly `x.len()` values, or `out` not exactly the blocks that they fill.
    pub fn norm_blocks(&self, x: &[f32], weight: &[u8], out: &mut [NormBlock]) {
        assert!(
            Some(weight.len()) == x.len().checked_mul(4) && out.len() * BLOCK == x.len(),
            "norm: {} values, {} bytes of weight, {} blocks",
            x.len(),
            weight.len(),
            out.len()
        );
        // SAFETY: the table's instruction set is there; the lengths fit.
        unsafe { (self.table.norm_blocks)(x, weight, out) }
    }

    /// The other half: the parts of an activation row that `blocks` stand for. A scale is `inv_rms` times that of its
    /// block, rounded to F16.
    ///
    /// # Panics
    /// If the lengths are not those of the blocks.
    pub fn finish_norm(
        &self,
        blocks: &[NormBlock],
        inv_rms: f32,
        codes: &mut [i8],
        scales: &mut [f32],
        offsets: &mut [i32],
    ) {
        check_parts(blocks.len() * BLOCK, codes, scales, offsets);
        // SAFETY: the table's instruction set is there; the lengths fit.
        unsafe { (self.table.finish_norm)(blocks, inv_rms, codes, scales, offsets) }
    }

    /// Quantises `x` into Q80 blocks of any alignment, the format of pipes and of the wire; codes and scales as in
    /// [`Self::quantize_activations`].
    ///
    /// # Panics
    /// If `out` is not exactly as many blocks as `x` fills.
    pub fn quantize_q80(&self, x: &[f32], out: &mut [u8]) {
        let blocks = q80_blocks(x.len(), out.len());
        let out: &mut [BlockQ80] = bytemuck::cast_slice_mut(out);
        assert!(out.len() == blocks);
        // SAFETY: the table's instruction set is there; one block per 32 values was just checked.
        unsafe { (self.table.quantize_q80)(x, out) }
    }

    /// Adds Q80 blocks to `x`: `x = fma(q, d, x)`.
    ///
    /// # Panics
    /// If `blocks` is not exactly as many blocks as `x` fills.
    pub fn add_q80(&self, x: &mut [f32], blocks: &[u8]) {
        q80_blocks(x.len(), blocks.len());
        // SAFETY: the table's instruction set is there; one block per 32 values was just checked.
        unsafe { (self.table.add_q80)(x, bytemuck::cast_slice(blocks)) }
    }

    /// Product of weights and activations: `out[t][r] = Σ w[r][c] * x[t][c]` for each row `r` of `rows` (absolute row
    /// numbers of `w`) and each token row `t` of `x`. With [`SCRATCH_BYTES`] of `scratch`, whose contents count for
    /// nothing, many tokens are faster.
    ///
    /// # Panics
    /// If the pair of types is none of [`supports`], or the operands do not fit each other.
    pub fn matmul(&self, w: Matrix<'_>, rows: Range<usize>, x: Input<'_>, out: Output<'_>, scratch: &mut [u8]) {
        operands::check(&w, &rows, &x, &out);
        if rows.is_empty() || x.tokens().count() == 0 {
            return;
        }
        let blocks = match w.order {
            Order::Rows => self.products.blocks,
            Order::Interleaved => {
                self.products.interleaved.unwrap_or_else(|| panic!("matmul: {self:?} takes no interleaved rows"))
            }
        };
        let matmul = match (w.dtype, &x) {
            (DType::F32, _) => self.products.f32,
            (DType::F16, _) => self.products.f16,
            (DType::Q40, _) => blocks.q40,
            (DType::Q80, Input::F32 { .. }) => self.products.q80,
            (DType::Q80, Input::Q80 { .. }) => blocks.q80,
        };
        // SAFETY: the table's instruction set is there; `check` saw that the types are a supported pair and that every
        // row, token and output element lies inside its buffer.
        unsafe { matmul(&w, rows, &x, &out, scratch) }
    }

    /// Whether there are products of interleaved rows ([`crate::quant::interleaves`]), which then are faster than those
    /// of rows as in files.
    pub fn takes_interleaved(&self) -> bool {
        self.products.interleaved.is_some()
    }

    /// `Σ a[i] * b[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "dot: lengths");
        // SAFETY: the table's instruction set is there; the lengths are equal.
        unsafe { (self.table.dot)(a, b) }
    }

    /// `Σ x[i]²`.
    pub fn sum_squares(&self, x: &[f32]) -> f32 {
        // SAFETY: the table's instruction set is there; the lengths are equal.
        unsafe { (self.table.dot)(x, x) }
    }

    /// `x = w * (inv_rms * x)`; `weight` holds little-endian F32 of any alignment.
    ///
    /// # Panics
    /// If `weight` is not exactly `x.len()` values.
    pub fn rms_norm(&self, x: &mut [f32], inv_rms: f32, weight: &[u8]) {
        assert_eq!(Some(weight.len()), x.len().checked_mul(4), "rms_norm: bytes of weight for {} values", x.len());
        // SAFETY: the table's instruction set is there; the lengths fit.
        unsafe { (self.table.rms_norm)(x, inv_rms, weight) }
    }

    /// Softmax in place: `e = exp(x - max)`, divided by their sum.
    pub fn softmax(&self, x: &mut [f32]) {
        // SAFETY: the table's instruction set is there.
        unsafe { (self.table.softmax)(x) }
    }

    /// `x = x / (1 + exp(-x))`.
    pub fn silu(&self, x: &mut [f32]) {
        // SAFETY: the table's instruction set is there.
        unsafe { (self.table.silu)(x) }
    }

    /// `x = x * by`, element by element.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn mul(&self, x: &mut [f32], by: &[f32]) {
        assert_eq!(x.len(), by.len(), "mul: lengths");
        // SAFETY: the table's instruction set is there; the lengths are equal.
        unsafe { (self.table.mul)(x, by) }
    }

    /// `x = x * by`.
    pub fn scale(&self, x: &mut [f32], by: f32) {
        // SAFETY: the table's instruction set is there.
        unsafe { (self.table.scale)(x, by) }
    }

    /// `x = x + y`, element by element.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "add: lengths");
        // SAFETY: the table's instruction set is there; the lengths are equal.
        unsafe { (self.table.add)(x, y) }
    }

    /// `y = fma(a, x, y)`, element by element.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_scaled(&self, y: &mut [f32], a: f32, x: &[f32]) {
        assert_eq!(y.len(), x.len(), "add_scaled: lengths");
        // SAFETY: the table's instruction set is there; the lengths are equal.
        unsafe { (self.table.add_scaled)(y, a, x) }
    }

    /// RoPE on neighbours: turns each `(x[2j], x[2j + 1])` by angle `j`; `cos_sin` is `cos0, sin0, cos1, sin1, …`.
    ///
    /// # Panics
    /// If the length is odd or the lengths differ.
    pub fn rotate_pairs(&self, x: &mut [f32], cos_sin: &[f32]) {
        assert!(x.len().is_multiple_of(2) && x.len() == cos_sin.len(), "RoPE: {} by {}", x.len(), cos_sin.len());
        // SAFETY: the table's instruction set is there; the lengths are equal and even.
        unsafe { (self.table.rotate_pairs)(x, cos_sin) }
    }

    /// RoPE on halves: turns each `(x[j], x[j + n/2])` by angle `j`; `cos_sin` as in [`Self::rotate_pairs`].
    ///
    /// # Panics
    /// If the length is odd or the lengths differ.
    pub fn rotate_halves(&self, x: &mut [f32], cos_sin: &[f32]) {
        assert!(x.len().is_multiple_of(2) && x.len() == cos_sin.len(), "RoPE: {} by {}", x.len(), cos_sin.len());
        // SAFETY: the table's instruction set is there; the lengths are equal and even.
        unsafe { (self.table.rotate_halves)(x, cos_sin) }
    }

    /// Writes one key or value of `head_dim` values to its `position` in the cache of a head; nothing else is touched.
    ///
    /// # Panics
    /// If `x` is not `head_dim` values or the position lies behind the end of the memory.
    pub fn store_position(&self, x: &[f32], position: usize, to: &KvHead<'_>) {
        to.check(x, position);
        // SAFETY: the table's instruction set is there; `check` saw that the position lies inside the memory.
        unsafe { (self.table.store_position)(to, x, position) }
    }

    /// The states of a few queries over the positions of one chunk that each of them sees: for query `q` and position
    /// `j`, `score = Σ q[d] * k[j][d]` by FMA from +0, `d` increasing; `m` the largest, `e[j] = exp(score - m)`,
    /// `l = Σ e[j]`, `o = Σ e[j] * v[j]` by FMA from +0, `j` increasing.
    ///
    /// `states` gets one of [`state_len`] values for each query; `scores` is scratch.
    ///
    /// # Panics
    /// If the operands do not fit each other.
    pub fn attend(&self, a: &Attend<'_>, scores: &mut [f32; SCORES], states: &mut [f32]) {
        a.check(states.len());
        // SAFETY: the table's instruction set is there; `check` saw that all positions lie inside keys and values.
        unsafe { (self.table.attend)(a, scores, states) }
    }

    /// Merges the state of the positions that follow into that of those before: `m` the larger,
    /// `a = exp(m_into - m)`, `b = exp(m_from - m)`, `l = fma(l_into, a, l_from * b)`, `o` likewise.
    ///
    /// # Panics
    /// If the lengths are not those of states of one `head_dim`.
    pub fn merge_states(&self, into: &mut [f32], from: &[f32]) {
        assert!(into.len() == from.len() && into.len() >= state_len(0), "states: {} and {}", into.len(), from.len());
        // SAFETY: the table's instruction set is there; the lengths are equal.
        unsafe { (self.table.merge_states)(into, from) }
    }

    /// The result of a query that has seen all of its positions: `out = o * (1 / l)`.
    ///
    /// # Panics
    /// If `state` is not that of a query of `out.len()` values.
    pub fn finish_state(&self, state: &[f32], out: &mut [f32]) {
        assert_eq!(state.len(), state_len(out.len()), "state of a query");
        // SAFETY: the table's instruction set is there; the lengths fit.
        unsafe { (self.table.finish_state)(state, out) }
    }
}

/// Panics unless these are the parts of an activation row for `len` values.
fn check_parts(len: usize, codes: &[i8], scales: &[f32], offsets: &[i32]) {
    let blocks = len / BLOCK;
    assert!(
        len.is_multiple_of(BLOCK) && (codes.len(), scales.len(), offsets.len()) == (len, blocks, blocks),
        "activations: {len} values, {} codes, {} scales, {} offsets",
        codes.len(),
        scales.len(),
        offsets.len()
    );
}

/// Blocks that `len` values fill; panics unless `bytes` is exactly these blocks.
fn q80_blocks(len: usize, bytes: usize) -> usize {
    let blocks = len / BLOCK;
    assert!(
        len.is_multiple_of(BLOCK) && blocks.checked_mul(size_of::<BlockQ80>()) == Some(bytes),
        "q80: {len} values in {bytes} bytes"
    );
    blocks
}
