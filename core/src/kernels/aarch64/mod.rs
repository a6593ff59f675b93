//! Kernels of AArch64.
//!
//! NEON belongs to every processor of this architecture; what came later only changes the quantised products.

pub(super) mod dotprod;
pub(super) mod i8mm;
mod lanes;
pub(super) mod neon;
mod products;

use crate::kernels::Isa;
use crate::kernels::table::{Table, table};

/// NEON, which belongs to the target.
#[derive(Clone, Copy)]
struct Neon;

/// The kernels of plain NEON, for others to begin with.
const NEON: Table = table!(Isa::Neon, Neon, products::blocks::<neon::Smlal>(), None, []);
