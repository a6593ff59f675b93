//! AMX.

#[cfg(all(test, target_os = "linux"))]
pub(in crate::kernels) mod emulated;
