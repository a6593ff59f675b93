//! What products of bytes do to the vector registers in the context of a signal.
//!
//! Source of the layout: Intel's manual, volume 1, chapter 13 (the standard form of XSAVE), and Linux's `sigcontext.h`.

use super::Fault;
use super::decode::{Products, Source};

/// Offsets in the saved state: the lower halves of 16 registers, Linux's mark of an extended state, the components that
/// are not in their initial state, the upper halves.
const LOWER: usize = 160;
const MARK: usize = 464;
const COMPONENTS: usize = 512;
const UPPER: usize = 576;
const HALF: usize = 16;

/// Says that components beyond the first 512 bytes are there.
const EXTENDED: u32 = 0x4650_5853;
/// Lower and upper halves.
const SSE_AND_AVX: u64 = 0b110;

/// The vector registers of an interrupted thread.
pub struct Vectors(*mut u8);

impl Vectors {
    /// # Safety
    /// `state` points to what Linux saved for a signal, and stays ours.
    pub unsafe fn new(state: *mut u8) -> Self {
        Self(state)
    }

    fn halves(&self, number: usize) -> [*mut [u8; HALF]; 2] {
        [LOWER, UPPER].map(|start| self.0.wrapping_add(start + HALF * number).cast())
    }

    /// # Safety
    /// What the instruction reads is readable.
    pub unsafe fn execute(&mut self, Products { sums, unsigned, signed }: Products) -> Result<(), Fault> {
        // SAFETY: the saved state has these parts, the last ones where the mark says so.
        unsafe {
            if self.0.add(MARK).cast::<u32>().read_unaligned() != EXTENDED {
                return Err(Fault("the system saves no vectors"));
            }
            *self.0.add(COMPONENTS).cast::<u64>() |= SSE_AND_AVX;
            let signed = match signed {
                Source::Register(number) => self.halves(number).map(|half| half.read()),
                Source::Address(address) => {
                    core::ptr::with_exposed_provenance::<[[u8; HALF]; 2]>(address as usize).read()
                }
            };
            let unsigned = self.halves(unsigned).map(|half| half.read());
            for ((sums, unsigned), signed) in self.halves(sums).into_iter().zip(unsigned).zip(signed) {
                add_products(&mut *sums, &unsigned, &signed);
            }
        }
        Ok(())
    }
}

fn add_products(sums: &mut [u8; HALF], unsigned: &[u8; HALF], signed: &[u8; HALF]) {
    let dwords = unsigned.as_chunks::<4>().0.iter().zip(signed.as_chunks::<4>().0);
    for (sum, (unsigned, signed)) in sums.as_chunks_mut::<4>().0.iter_mut().zip(dwords) {
        let products = unsigned.iter().zip(signed).map(|(u, s)| i32::from(*u) * i32::from(s.cast_signed()));
        *sum = i32::from_le_bytes(*sum).wrapping_add(products.sum()).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::tests::{Random, has_avx512};
    use core::arch::asm;
    use core::arch::x86_64::*;

    #[test]
    fn products_are_those_of_a_processor_with_the_other_encoding() {
        if !has_avx512() {
            std::println!("no AVX-512: nothing to run");
            return;
        }
        super::super::enable();
        let random = &mut Random(7);
        for _ in 0..100 {
            let [sums, unsigned, signed]: [[u8; 32]; 3] =
                core::array::from_fn(|_| core::array::from_fn(|_| random.bits() as u8));
            // SAFETY: AVX-512 with VNNI is there, AVX-VNNI or its emulator too.
            unsafe { compare(&sums, &unsigned, &signed) }
        }
    }

    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
    unsafe fn compare(sums: &[u8; 32], unsigned: &[u8; 32], signed: &[u8; 32]) {
        // SAFETY: as many bytes.
        let load = |bytes: &[u8; 32]| unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
        let (start, unsigned, other) = (load(sums), load(unsigned), load(signed));
        let (mut by_register, mut by_memory) = (start, start);
        // SAFETY: registers of the lower sixteen, and memory of a vector's size.
        unsafe {
            asm!(
                "{{vex}} vpdpbusd ymm9, ymm12, ymm15",
                "{{vex}} vpdpbusd ymm1, ymm12, [{signed} + 0]",
                inout("ymm9") by_register,
                inout("ymm1") by_memory,
                in("ymm12") unsigned,
                in("ymm15") other,
                signed = in(reg) signed,
                options(nostack, preserves_flags, readonly),
            );
        }
        let expected = _mm256_dpbusd_epi32(start, unsigned, other);
        let bytes = |v: __m256i| -> [u8; 32] {
            // SAFETY: both are 32 plain bytes.
            unsafe { core::mem::transmute(v) }
        };
        assert_eq!((bytes(by_register), bytes(by_memory)), (bytes(expected), bytes(expected)));
    }
}
