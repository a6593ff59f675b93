// From reset to `main`: vector registers, memory rights and caches, exceptions, stack. QEMU starts in EL1, all of them off.
    .section .text.start, "ax"
    .global start
start:
    mov x0, #3 << 20                    // vector registers trap nowhere
    msr cpacr_el1, x0
    adr x0, vectors
    msr vbar_el1, x0
    mov x0, #0xff00                     // kinds of memory: 0 is a device, 1 is cached
    msr mair_el1, x0
    ldr x0, =0x100803519                // one table, 39-bit addresses, 4 KiB granule, cached walks, 36 bits of memory
    msr tcr_el1, x0
    adrp x0, level_1
    msr ttbr0_el1, x0
    tlbi vmalle1
    ic iallu
    dsb nsh
    isb
    ldr x0, =0x30d01805                 // MMU and both caches on; the rest as ARMv8.0 wants it
    msr sctlr_el1, x0
    isb
    ldr x0, =stack_top
    mov sp, x0
    ldr x0, =bss_start
    ldr x1, =bss_end
1:  cmp x0, x1
    b.hs main
    stp xzr, xzr, [x0], #16
    b 1b

// Nothing is expected to trap: any exception is told on the serial line, from a fresh stack, and ends all.
    .balign 2048
vectors:
    .rept 16
    .balign 128
    ldr x0, =stack_top
    mov sp, x0
    mrs x0, esr_el1
    mrs x1, elr_el1
    mrs x2, far_el1
    b fault
    .endr

// Addresses stay as they are. What is not listed is not there, so that a stray access is told, too.
    .set NO_CODE, 3 << 53
    .set READ_ONLY, 1 << 7
    .set CACHED, 1 << 2 | 3 << 8
    .macro blocks count, address, rights    // of 2 MiB
    .set next, \address
    .rept \count
    .quad next | 1 | 1 << 10 | \rights
    .set next, next + 0x200000
    .endr
    .endm

    .section .rodata.tables, "a"
    .balign 4096
level_1:                                // blocks of 1 GiB
    .quad low + 3, ram + 3
    .fill 510, 8, 0
low:                                    // from 0
    .fill 32, 8, 0
    blocks 32, 0x04000000, CACHED | READ_ONLY | NO_CODE     // the second bank of flash
    .fill 8, 8, 0
    blocks 1, 0x09000000, NO_CODE                           // the serial line
    .fill 439, 8, 0
ram:                                    // from 0x40000000, as memory.ld has it
    .quad 0
    blocks 1, 0x40200000, CACHED | NO_CODE
    blocks 1, 0x40400000, CACHED | READ_ONLY
    blocks 61, 0x40600000, CACHED | NO_CODE
    .fill 448, 8, 0
