//! What the board has: flash, memory, a processor, a serial line, a switch. All `unsafe` of the program is here.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::{panic::PanicInfo, ptr, slice};
use dair_core::kernels::{Isa, Kernels};

global_asm!(include_str!("start.s"));

/// Memory that the program itself has no use for, as memory.ld has it.
const FREE_BYTES: usize = 122 << 20;
unsafe extern "C" {
    static mut free: [u8; FREE_BYTES];
}

/// Memory for `len` values, the defaults of their type, aligned to 64 bytes. It is never given back; without any left, a line
/// says so, and the board goes off.
pub fn take<T: Default>(what: &str, len: usize) -> &'static mut [T] {
    const { assert!(align_of::<T>() <= 64) };
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let start = TAKEN.load(Relaxed).next_multiple_of(64);
    let (bytes, left) = (len.saturating_mul(size_of::<T>()), FREE_BYTES.saturating_sub(start));
    if bytes > left {
        fail(format_args!(
            "memory: {what} of {bytes} bytes, {left} are left; take a smaller model or a shorter context"
        ));
    }
    TAKEN.store(start + bytes, Relaxed);
    // SAFETY: the bytes are there, aligned, and nobody else's: what was taken before ends below them.
    unsafe {
        let values = (&raw mut free).byte_add(start).cast::<T>();
        (0..len).for_each(|index| values.add(index).write(T::default()));
        slice::from_raw_parts_mut(values, len)
    }
}

/// The second bank of flash, 64 MiB, read where it lies.
pub fn flash() -> &'static [u8] {
    // SAFETY: start.s maps these bytes, and nobody writes them.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(0x0400_0000), 64 << 20) }
}

/// The fastest kernels of this processor, which says itself what it has.
pub fn kernels() -> Kernels {
    let (isar0, isar1): (u64, u64);
    // SAFETY: registers that EL1 may read. The fields below are DP and I8MM.
    unsafe { asm!("mrs {}, id_aa64isar0_el1", "mrs {}, id_aa64isar1_el1", out(reg) isar0, out(reg) isar1) };
    let isa = match ((isar0 >> 44) & 0xF, (isar1 >> 52) & 0xF) {
        (0, _) => Isa::Neon,
        (_, 0) => Isa::Dotprod,
        _ => Isa::I8mm,
    };
    // SAFETY: the processor has them as it said, NEON in any case, and start.s lets programs use vector registers.
    unsafe { Kernels::for_isa(isa) }.unwrap_or(Kernels::SCALAR)
}

/// The serial line: a PL011 that QEMU has made ready.
pub struct Uart;

impl Uart {
    const DATA: *mut u32 = ptr::without_provenance_mut(0x0900_0000);

    /// Waits until a bit of the flags is clear.
    fn wait(bit: u32) {
        // SAFETY: a register of the device, which start.s maps.
        while unsafe { Self::DATA.byte_add(0x18).read_volatile() } >> bit & 1 == 1 {}
    }

    /// Waits for a byte.
    pub fn read(&mut self) -> u8 {
        Self::wait(4);
        // SAFETY: as above; errors are told above the byte.
        unsafe { Self::DATA.read_volatile() as u8 }
    }

    /// Waits until there is room for a byte, and sends it.
    pub fn write(&mut self, byte: u8) {
        Self::wait(5);
        // SAFETY: as above.
        unsafe { Self::DATA.write_volatile(byte.into()) };
    }
}

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.write(byte));
        Ok(())
    }
}

/// Set when there is nothing more to say.
static OVER: AtomicBool = AtomicBool::new(false);

/// Switches the board off, with an exit code for a debugger (to which QEMU is one). Without one `fault` goes on.
pub fn off(code: u64) -> ! {
    OVER.store(true, Relaxed);
    // SAFETY: semihosting's SYS_EXIT reads two numbers, the first of which says that the program ended by itself.
    unsafe { asm!("hlt #0xf000", "b .", in("x0") 0x18, in("x1") &[0x2_0026, code], options(noreturn)) }
}

/// Says in one line what is wrong, and switches the board off.
pub fn fail(why: impl fmt::Display) -> ! {
    let _ = writeln!(Uart, "\nerror: {why}"); // a serial line takes everything
    off(1)
}

/// Where exceptions go: start.s hands over what the processor says of them.
#[unsafe(no_mangle)]
extern "C" fn fault(syndrome: u64, instruction: u64, address: u64) -> ! {
    if OVER.load(Relaxed) {
        // SAFETY: PSCI's SYSTEM_OFF.
        unsafe { asm!("hvc #0", "b .", in("x0") 0x8400_0008_u64, options(noreturn)) }
    }
    fail(format_args!("exception {syndrome:#x} in the instruction at {instruction:#x}, address {address:#x}"))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let Some(place) = info.location() else { fail(info.message()) };
    fail(format_args!("{}, at {place}", info.message()))
}
