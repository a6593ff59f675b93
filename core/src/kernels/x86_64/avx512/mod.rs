//! AVX-512 with byte dot products (VNNI).

mod lanes;
pub(super) mod products;
mod relaxed;

use crate::kernels::Isa;
use crate::kernels::table::{Table, table};

/// Proof that the processor has AVX-512 F, BW, VL and VNNI, and AVX2, FMA and F16C.
#[derive(Clone, Copy)]
struct Avx512(());

pub(in crate::kernels) static TABLE: Table = Table { relaxed: Some(relaxed::PRODUCTS), ..EXACT };

/// All but the relaxed products.
const EXACT: Table = table!(
    Isa::Avx512,
    // SAFETY: functions of this table are called only on a processor that has the features.
    unsafe { Avx512::new() },
    products::BLOCKS,
    Some(products::INTERLEAVED),
    [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
);

impl Avx512 {
    /// # Safety
    /// The processor has the features.
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}
