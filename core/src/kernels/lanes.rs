//! A vector of 16 F32 lanes: the unit in which every unquantised sum of the forward pass is made.
//!
//! An implementor is a token that proves that its instructions may be used, so that the bodies written over [`Lanes`]
//! need no `unsafe`. Whoever makes a token of a vector instruction set does it inside a function that has the feature.
//! All methods, and all bodies above them, are `#[inline(always)]` and have no `#[target_feature]` themselves: so they
//! end up inside the function that has it, and vectors stay in registers. Closures and iterators over vectors are
//! not always inlined: hot loops count.

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen F32 lanes. Every method rounds as IEEE 754 says, once.
pub(super) trait Lanes: Copy {
    /// The vector.
    type V: Copy;
    /// Vectors that the registers hold.
    const REGISTERS: usize;

    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// Little-endian F16 `x` in all lanes.
    fn splat_f16(self, x: [u8; 2]) -> Self::V;
    /// The lanes from memory.
    fn load(self, x: &[f32; LANES]) -> Self::V;
    /// The lanes from little-endian bytes.
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> Self::V;
    /// The lanes from little-endian F16.
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::V;
    /// The lanes from signed bytes.
    fn load_i8(self, x: &[i8; LANES]) -> Self::V;
    /// The lanes to memory.
    fn store(self, v: Self::V, out: &mut [f32; LANES]);
    /// The lanes to little-endian bytes.
    fn store_bytes(self, v: Self::V, out: &mut [u8; 4 * LANES]);
    /// The lanes as little-endian F16, rounded to nearest even, as [`crate::quant::f32_to_f16`].
    fn store_f16(self, v: Self::V, out: &mut [u8; 2 * LANES]);
    /// The nearest integers, ties to even, saturated to ±127 at least; NaN gives 0. Lanes must be within ±2^31.
    fn store_i8(self, v: Self::V, out: &mut [i8; LANES]);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where `a > b`, else `b`; so a NaN in `b` stays and one in `a` goes.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `a < b`, else `b`; so a NaN in `b` stays and one in `a` goes.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `|a|`
    fn abs(self, a: Self::V) -> Self::V;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for integral `n` from -126 to 127; anything for other `n`.
    fn pow2(self, n: Self::V) -> Self::V;
    /// Sum of all lanes by the tree +8, +4, +2, +1.
    fn sum(self, v: Self::V) -> f32;
    /// Largest lane, by the same tree of [`Self::max`].
    fn largest(self, v: Self::V) -> f32;
}

/// The first `x.len()` lanes from memory, `fill` in the others.
#[inline(always)]
pub(super) fn load_part<S: Lanes>(s: S, x: &[f32], fill: f32) -> S::V {
    let mut buffer = [fill; LANES];
    buffer[..x.len()].copy_from_slice(x);
    s.load(&buffer)
}

/// The first `out.len()` lanes to memory.
#[inline(always)]
pub(super) fn store_part<S: Lanes>(s: S, v: S::V, out: &mut [f32]) {
    let mut buffer = [0.0; LANES];
    s.store(v, &mut buffer);
    out.copy_from_slice(&buffer[..out.len()]);
}
