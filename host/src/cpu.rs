//! What this machine can do.

use dair_core::kernels::{Isa, Kernels};

/// Instruction sets that this processor has, the plainest first.
pub fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| detected(*isa))
}

/// The fastest kernels of this processor.
pub fn best_kernels() -> Kernels {
    isas().filter_map(kernels).last().unwrap_or(Kernels::SCALAR)
}

/// The kernels of `isa`, or `None` where this processor does not have it.
pub fn kernels(isa: Isa) -> Option<Kernels> {
    if !detected(isa) {
        return None;
    }
    // SAFETY: the features were just detected.
    unsafe { Kernels::for_isa(isa) }
}

/// Threads to compute with unless the user says otherwise ([`cores`](crate::cores)).
pub fn threads() -> usize {
    crate::cores::default_lanes()
}

#[cfg(target_arch = "x86_64")]
fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => true,
        Isa::Avx2 => {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
        }
        Isa::Avx512 => {
            detected(Isa::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        }
        Isa::Neon => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => true,
        Isa::Avx2 | Isa::Avx512 => false,
        Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected(isa: Isa) -> bool {
    isa == Isa::Scalar
}
