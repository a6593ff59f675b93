//! What this machine can do.

use dair_core::kernels::{Isa, Kernels};
#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::num::NonZero;

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

/// Threads that may run at once: processors, less what affinity masks and container limits take away.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
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
        Isa::Neon | Isa::Dotprod | Isa::I8mm => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => true,
        Isa::Avx2 | Isa::Avx512 => false,
        Isa::Neon => is_aarch64_feature_detected!("neon"),
        Isa::Dotprod => detected(Isa::Neon) && is_aarch64_feature_detected!("dotprod"),
        Isa::I8mm => detected(Isa::Dotprod) && is_aarch64_feature_detected!("i8mm"),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected(isa: Isa) -> bool {
    isa == Isa::Scalar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plainest_kernels_are_always_there() {
        assert_eq!(isas().next(), Some(Isa::Scalar));
        assert!(isas().all(|isa| kernels(isa).is_some_and(|kernels| kernels.isa() == isa)));
        assert_eq!(Some(best_kernels().isa()), isas().last());
    }

    #[test]
    #[ignore = "wants in DAIR_ISA the name of the best instruction set that the emulated processor has"]
    fn an_emulated_processor_gets_its_own_kernels() {
        assert_eq!(best_kernels().isa().name(), std::env::var("DAIR_ISA").expect("DAIR_ISA"));
    }
}
