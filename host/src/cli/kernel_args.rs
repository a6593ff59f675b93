//! The flags that choose kernels.

use crate::machine::cpu::{self, KernelError};
use dair_core::kernels::{Isa, Kernels};
use std::str::FromStr;

/// `--isa` and `--prefill`, for every command that computes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct KernelArgs {
    /// Instruction set of the kernels, such as scalar [default: DAIR_ISA in the environment, else the fastest here]
    #[arg(long, value_name = "NAME")]
    isa: Option<IsaName>,
    /// How prompts are computed
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    prefill: Prefill,
}

/// What `--prefill` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Prefill {
    /// As single tokens are, bit for bit
    #[default]
    Exact,
    /// In BF16: faster with F32, F16 and Q80 weights, on processors with AMX with Q40, too; results differ a little
    Relaxed,
}

impl KernelArgs {
    /// The kernels that were asked for.
    ///
    /// # Errors
    /// As [`cpu::choose_kernels`] and [`cpu::relaxed`].
    pub fn kernels(&self) -> Result<Kernels, KernelError> {
        let kernels = cpu::choose_kernels(self.isa.map(|IsaName(isa)| isa))?;
        if self.is_relaxed() { cpu::relaxed(kernels) } else { Ok(kernels) }
    }

    /// Whether prompts need not be exact.
    pub fn is_relaxed(&self) -> bool {
        self.prefill == Prefill::Relaxed
    }
}

/// An instruction set that this processor has, by its name.
#[derive(Clone, Copy, Debug)]
struct IsaName(Isa);

impl FromStr for IsaName {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        cpu::parse_isa(name).map(Self)
    }
}
