//! For tests: instructions of AMX and AVX-VNNI on processors without them.
//!
//! There each one is an illegal instruction. A signal handler decodes it (`decode`), does what the processor would do
//! (`tiles`, `vectors`), and goes on behind it. So tests run the very machine code that processors with the instructions
//! run. Misuse of tiles and all other illegal instructions end the process, as they would without the handler.

mod decode;
mod tiles;
mod vectors;

use core::arch::x86_64::{__cpuid_count, _xgetbv};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use decode::Instruction;
use libc::{c_int, siginfo_t, ucontext_t};
use std::sync::Once;
use tiles::Tiles;
use vectors::Vectors;

/// Who executes the instructions of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernels) enum By {
    Processor,
    Emulator,
}

/// Makes the instructions work in this process, on its processor of AVX-512.
pub(in crate::kernels) fn enable() {
    static ENABLED: Once = Once::new();
    ENABLED.call_once(|| {
        let by = |processor| if processor { By::Processor } else { By::Emulator };
        let (tiles, vectors) = (by(permitted()), by(std::is_x86_feature_detected!("avxvnni")));
        if (tiles, vectors) != (By::Processor, By::Processor) {
            install();
        }
        std::println!("executed: tiles by the {tiles:?}, AVX-VNNI by the {vectors:?}");
    });
}

/// Whether the processor has 8-bit tiles and the system lets this process use them.
#[allow(unused_unsafe, reason = "newer Rust has `__cpuid_count` safe")]
fn permitted() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    const ARCH_REQ_XCOMP_PERM: c_int = 0x1023;
    const XFEATURE_XTILEDATA: c_int = 18;
    // SAFETY: processors of AVX-512 have leaf 7 and `xgetbv`; the call reads and writes none of our memory.
    unsafe {
        __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
            && _xgetbv(0) & TILE_STATE == TILE_STATE
            && libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0
    }
}

/// What was wrong: a processor raises an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault(&'static str);

std::thread_local! {
    /// The tiles of each thread; no lock, no allocation, nothing to drop: good for a signal handler.
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::IDLE) };
}

fn install() {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_illegal_instruction;
    // SAFETY: all zeros are a valid `sigaction`; the handler has the signature that `SA_SIGINFO` promises.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, core::ptr::null_mut()), 0, "sigaction");
    }
}

/// Numbers of general registers, as instructions count them, in the context of a signal.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn on_illegal_instruction(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the context of the thread that met the instruction, which is all ours until we return.
    // Bytes are read one by one and no further than an instruction needs.
    unsafe {
        let machine = &mut (*context.cast::<ucontext_t>()).uc_mcontext;
        let registers = &mut machine.gregs;
        let code = registers[libc::REG_RIP as usize].cast_unsigned();
        let instruction = decode::decode(
            code,
            |i| core::ptr::with_exposed_provenance::<u8>(code as usize + i).read(),
            |number| registers[REGISTERS[number] as usize].cast_unsigned(),
        );
        if let Some((instruction, bytes)) = instruction {
            // SAFETY: the addresses are those that the code under test chose.
            let result = match instruction {
                Instruction::Tile(tile) => TILES.with(|tiles| (*tiles.get()).execute(tile)),
                Instruction::Products(products) => Vectors::new(machine.fpregs.cast()).execute(products),
            };
            match result {
                Ok(()) => {
                    registers[libc::REG_RIP as usize] += bytes as i64;
                    return;
                }
                Err(fault) => {
                    for part in ["emulated instruction: ", fault.0, "\n"] {
                        libc::write(2, part.as_ptr().cast(), part.len());
                    }
                }
            }
        }
        // The instruction is met once more, and now it ends the process.
        libc::signal(libc::SIGILL, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::arch::asm;

    /// The signal that ends a process which runs `child`.
    fn death(child: unsafe fn()) -> c_int {
        let mut status = 0;
        // SAFETY: the child of a process with threads makes plain system calls, dies, and never returns from here.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0, "fork");
            if pid == 0 {
                // Without a message and a core file.
                libc::close(2);
                libc::prctl(libc::PR_SET_DUMPABLE, 0);
                child();
                libc::_exit(0);
            }
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        }
        assert!(libc::WIFSIGNALED(status), "status {status:#x}");
        libc::WTERMSIG(status)
    }

    #[test]
    fn misused_tiles_and_other_illegal_instructions_end_the_process() {
        if !crate::kernels::tests::has_avx512() {
            std::println!("no AVX-512: nothing to run");
            return;
        }
        enable();
        // SAFETY: meant to die.
        let illegal = || unsafe { asm!("ud2") };
        // SAFETY: as above: no shapes are set.
        let unset = || unsafe { asm!("tilerelease", "tilezero tmm0", out("tmm0") _) };
        assert_eq!((death(illegal), death(unset)), (libc::SIGILL, libc::SIGILL));
    }
}
