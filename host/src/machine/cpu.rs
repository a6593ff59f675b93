//! What this machine can do.

use dair_core::kernels::{Isa, Kernels};
#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::{env, fmt};

/// Environment variable that names the instruction set where no flag does.
pub const ISA_VARIABLE: &str = "DAIR_ISA";

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

/// The kernels to be used: those of `forced`, else those that the environment names ([`ISA_VARIABLE`], empty counts as
/// not set), else the fastest.
///
/// # Errors
/// A name that nothing has, or an instruction set that this processor lacks; lists those that it has.
pub fn choose_kernels(forced: Option<Isa>) -> Result<Kernels, KernelError> {
    if let Some(isa) = forced {
        return kernels(isa).ok_or_else(|| KernelError::of(isa.name()));
    }
    match env::var_os(ISA_VARIABLE).filter(|name| !name.is_empty()) {
        None => Ok(best_kernels()),
        Some(name) => {
            parse_isa(&name.to_string_lossy()).map(|isa| kernels(isa).unwrap_or(Kernels::SCALAR)).map_err(|error| {
                match error {
                    KernelError::Isa { name, .. } => KernelError::Isa { name, is_from_environment: true },
                    other => other,
                }
            })
        }
    }
}

/// The same kernels with faster, inexact products of many tokens ([`Kernels::relaxed`]).
///
/// # Errors
/// Where the processor or the instruction set has none such.
pub fn relaxed(kernels: Kernels) -> Result<Kernels, KernelError> {
    let here = has_bf16(kernels.isa());
    // SAFETY: what the instruction set needs was just detected.
    let relaxed = if here { unsafe { kernels.relaxed() } } else { None };
    relaxed.ok_or(KernelError::NotRelaxed(kernels.isa()))
}

/// The instruction set called `name`, if this processor has it.
///
/// # Errors
/// As [`choose_kernels`].
pub fn parse_isa(name: &str) -> Result<Isa, KernelError> {
    isas().find(|isa| isa.name() == name).ok_or_else(|| KernelError::of(name))
}

/// Kernels that can't be used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// An instruction set that does not exist, or not here.
    Isa {
        /// As it was asked for.
        name: String,
        /// Whether the environment asked for it, not the caller.
        is_from_environment: bool,
    },
    /// Products of many tokens are exact with this instruction set on this processor.
    NotRelaxed(Isa),
}

impl KernelError {
    fn of(name: &str) -> Self {
        Self::Isa { name: name.to_owned(), is_from_environment: false }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, is_from_environment) = match self {
            Self::Isa { name, is_from_environment } => (name, *is_from_environment),
            Self::NotRelaxed(isa) => {
                return write!(
                    f,
                    "prefill can't be relaxed with {isa} on this processor: that takes AVX-512 with BF16, and with amx tiles of BF16; leave it exact"
                );
            }
        };
        if is_from_environment {
            write!(f, "{ISA_VARIABLE}={name}: ")?;
        }
        match Isa::ALL.into_iter().find(|isa| isa.name() == name) {
            Some(isa) => write!(f, "this processor does not have {isa}")?,
            None => f.write_str("no instruction set of this name")?,
        }
        let here: Vec<_> = isas().map(Isa::name).collect();
        write!(f, "; allowed here: {}", here.join(", "))
    }
}

impl std::error::Error for KernelError {}

/// Processors that this process may use at once: those there are, less what affinity masks and container limits take away.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What limits of control groups leave of the time of processors, as Linux writes them (`cpu.max`, in the older version
/// `cpu.cfs_quota_us`), from this process's group upwards; empty without one. A machine with another limit is another machine.
pub fn quotas() -> String {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("0"), Some(""), Some(group)) => limits_of("/sys/fs/cgroup", group, "cpu.max"),
            (_, Some(controllers), Some(group)) if controllers.split(',').any(|name| name == "cpu") => {
                limits_of("/sys/fs/cgroup/cpu", group, "cpu.cfs_quota_us")
            }
            _ => Vec::new(),
        }
    });
    limits.collect::<Vec<_>>().join(", ")
}

/// What stands in a file of a group and of those above it, where that is a limit.
fn limits_of(root: &str, group: &str, file: &str) -> Vec<String> {
    let root = std::path::Path::new(root);
    let group = root.join(group.trim_start_matches('/'));
    let above = group.ancestors().take_while(|group| group.starts_with(root));
    let limits = above.filter_map(|group| std::fs::read_to_string(group.join(file)).ok());
    let is_limit = |limit: &String| !limit.starts_with("max") && !limit.starts_with('-');
    limits.map(|limit| limit.trim().to_owned()).filter(is_limit).collect()
}

/// Threads to compute with unless the user says otherwise ([`cores`](crate::machine::cores)).
pub fn threads() -> usize {
    crate::machine::cores::default_lanes()
}

/// What there is to say about more threads than processors, which wait for each other at every barrier.
pub fn too_many(threads: usize) -> Option<String> {
    let processors = processors();
    (threads > processors).then(|| {
        format!("--threads {threads}: this process may use {processors} processors; more threads than that are slower")
    })
}

#[cfg(target_arch = "x86_64")]
fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => true,
        Isa::Avx2 => {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
        }
        Isa::AvxVnni => detected(Isa::Avx2) && is_x86_feature_detected!("avxvnni"),
        Isa::Avx512 => {
            detected(Isa::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        }
        Isa::Amx => detected(Isa::Avx512) && has_amx() && tiles_allowed(),
        Isa::Neon | Isa::Dotprod | Isa::I8mm => false,
    }
}

/// Whether the processor has tiles of 8-bit integers, and the system keeps their state.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "newer Rust has `_xgetbv` safe")]
fn has_amx() -> bool {
    use std::arch::x86_64::_xgetbv;
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    // SAFETY: only asked where AVX-512 was detected: the system has enabled `xgetbv` there.
    has_amx_features(TILE_AND_INT8) && unsafe { _xgetbv(0) & TILE_STATE == TILE_STATE }
}

/// Whether the processor has these features of AMX, bits of leaf 7. Only asked where AVX-512 was detected.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "newer Rust has `__cpuid_count` safe")]
fn has_amx_features(bits: u32) -> bool {
    // SAFETY: such a processor has leaf 7.
    unsafe { std::arch::x86_64::__cpuid_count(7, 0).edx & bits == bits }
}

/// Whether the processor multiplies BF16 in the way that relaxed kernels of `isa`, which it has, do.
#[cfg(target_arch = "x86_64")]
fn has_bf16(isa: Isa) -> bool {
    const TILES_OF_BF16: u32 = 1 << 22;
    match isa {
        Isa::Avx512 => is_x86_feature_detected!("avx512bf16"),
        Isa::Amx => is_x86_feature_detected!("avx512bf16") && has_amx_features(TILES_OF_BF16),
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bf16(_: Isa) -> bool {
    false
}

/// Whether the system lets all threads of this process use tiles. Linux wants to be asked: their state makes the frames
/// of signals larger.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tiles_allowed() -> bool {
    use std::sync::OnceLock;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        // SAFETY: the call changes what this process may do, and none of its memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn tiles_allowed() -> bool {
    false
}

#[cfg(target_arch = "aarch64")]
fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => true,
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Amx => false,
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
    fn every_instruction_set_of_this_processor_can_be_forced() {
        for isa in isas() {
            assert_eq!(parse_isa(isa.name()), Ok(isa));
            assert_eq!(choose_kernels(Some(isa)).map(|kernels| kernels.isa()), Ok(isa));
        }
        assert!(isas().any(|isa| isa == Isa::Scalar));
    }

    #[test]
    fn what_is_unknown_or_not_here_is_told_apart_and_the_allowed_ones_are_listed() {
        let unknown = parse_isa("mmx").unwrap_err().to_string();
        assert!(unknown.starts_with("no instruction set of this name; allowed here: scalar"), "{unknown}");
        for isa in Isa::ALL.into_iter().filter(|isa| kernels(*isa).is_none()) {
            let lacking = choose_kernels(Some(isa)).unwrap_err().to_string();
            assert!(lacking.starts_with(&format!("this processor does not have {isa}; allowed here: scalar")));
        }
    }

    #[test]
    fn relaxed_kernels_are_there_or_refused_in_one_line() {
        for kernels in isas().filter_map(kernels) {
            match relaxed(kernels) {
                Ok(relaxed) => assert_eq!(relaxed.isa(), kernels.isa()),
                Err(error) => assert!(error.to_string().contains(kernels.isa().name()), "{error}"),
            }
        }
        assert_eq!(relaxed(Kernels::SCALAR).unwrap_err(), KernelError::NotRelaxed(Isa::Scalar));
    }

    #[test]
    fn the_plainest_kernels_are_always_there() {
        assert_eq!(isas().next(), Some(Isa::Scalar));
        assert!(isas().all(|isa| kernels(isa).is_some_and(|kernels| kernels.isa() == isa)));
        assert_eq!(Some(best_kernels().isa()), isas().last());
    }

    #[test]
    #[ignore = "wants in EXPECTED_ISA the name of the best instruction set that the emulated processor has"]
    fn an_emulated_processor_gets_its_own_kernels() {
        assert_eq!(best_kernels().isa().name(), env::var("EXPECTED_ISA").expect("EXPECTED_ISA"));
    }
}
