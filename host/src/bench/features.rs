//! Extensions of a processor that kernels can use.

/// Those that this processor has.
#[cfg(target_arch = "x86_64")]
pub fn detect() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => { [$(($name, is_x86_feature_detected!($name))),*] };
    }
    let known = detected!("avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vnni" "avx512bf16" "avxvnni");
    let here = known.into_iter().filter_map(|(name, is_here)| is_here.then_some(name));
    // Rust does not ask for these yet; Linux does.
    let tiles = listed("flags", &[("amx_tile", "amx-tile"), ("amx_int8", "amx-int8"), ("amx_bf16", "amx-bf16")]);
    here.chain(tiles).collect()
}

/// Those that this processor has.
#[cfg(target_arch = "aarch64")]
pub fn detect() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    let known = detected!("neon" "fp16" "dotprod" "i8mm" "bf16" "sve" "sve2");
    known.into_iter().filter_map(|(name, is_here)| is_here.then_some(name)).collect()
}

/// Those that this processor has, as far as Linux knows.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn detect() -> Vec<&'static str> {
    let known = [("neon", "neon"), ("vfpv4", "vfpv4"), ("asimdhp", "fp16"), ("asimddp", "dotprod"), ("i8mm", "i8mm")];
    listed("Features", &known)
}

/// Of pairs of Linux's name and ours, those whose first stands in a field of `/proc/cpuinfo`.
#[cfg(not(target_arch = "aarch64"))]
fn listed(field: &str, names: &[(&str, &'static str)]) -> Vec<&'static str> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let words = crate::machine::cpu_name::field(&cpuinfo, field).unwrap_or_default();
    let is_here = |name: &str| words.split_whitespace().any(|word| word == name);
    names.iter().filter(|(linux, _)| is_here(linux)).map(|(_, ours)| *ours).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fast_kernels_need_is_named() {
        let features = super::detect();
        for isa in crate::machine::cpu::isas().map(|isa| isa.name()).filter(|name| ["avx2", "neon"].contains(name)) {
            assert!(features.contains(&isa), "{features:?}");
        }
    }
}
