//! The flag that chooses an instruction set.

use crate::cpu::{self, IsaError};
use dair_core::kernels::Isa;
use std::str::FromStr;

/// `--isa`, for every command that computes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct IsaArgs {
    /// Instruction set of the kernels, such as scalar [default: DAIR_ISA in the environment, else the fastest here]
    #[arg(long, value_name = "NAME")]
    isa: Option<IsaName>,
}

impl IsaArgs {
    /// What was asked for.
    pub fn isa(&self) -> Option<Isa> {
        self.isa.map(|IsaName(isa)| isa)
    }
}

/// An instruction set that this processor has, by its name.
#[derive(Clone, Copy, Debug)]
struct IsaName(Isa);

impl FromStr for IsaName {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        cpu::parse_isa(name).map(Self)
    }
}
