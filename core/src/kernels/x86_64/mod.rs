//! Kernels of x86-64.

pub(super) mod amx;
pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avxvnni;
mod bf16;
#[cfg(all(test, target_os = "linux"))]
pub(super) mod emulated;
mod products;
