//! NEON as every ARMv8-A has it, without dot products.

mod lanes;
mod products;

use crate::kernels::Isa;
use crate::kernels::table::{Table, table};

/// NEON, which belongs to the target.
#[derive(Clone, Copy)]
struct Neon;

pub(in crate::kernels) static TABLE: Table =
    table!(Isa::Neon, Neon, products::matmul_q40, None, products::matmul_q80, []);
