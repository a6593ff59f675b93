//! AVX2 with FMA and F16C.

mod lanes;
pub(super) mod products;

use crate::kernels::Isa;
use crate::kernels::table::{Table, table};

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
struct Avx2(());

pub(in crate::kernels) static TABLE: Table = table!(
    Isa::Avx2,
    // SAFETY: functions of this table are called only on a processor that has the features.
    unsafe { Avx2::new() },
    products::BLOCKS,
    Some(products::INTERLEAVED),
    [target_feature(enable = "avx2,fma,f16c")]
);

impl Avx2 {
    /// # Safety
    /// The processor has the features.
    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }
}
