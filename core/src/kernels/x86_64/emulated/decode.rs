//! Machine code of what is emulated. Source: Intel's instruction set reference, AMX-TILE, AMX-INT8,
//! AMX-BF16, AVX-VNNI.

/// An instruction whose addresses are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    Tile(TileInstruction),
    Products(Products),
}

/// `vpdpbusd` on 32 bytes: `sums += unsigned * signed`, by number of register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Products {
    pub sums: usize,
    pub unsigned: usize,
    pub signed: Source,
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Register(usize),
    Address(u64),
}

/// An instruction of AMX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileInstruction {
    /// `ldtilecfg`
    LoadConfig { address: u64 },
    /// `tilerelease`
    Release,
    /// `tilezero`
    Zero { tile: usize },
    /// `tileloadd`: `stride` bytes from a row to the next.
    Load { tile: usize, address: u64, stride: u64 },
    /// `tilestored`
    Store { tile: usize, address: u64, stride: u64 },
    /// `tdpbssd`: `sums += a * b`
    Dot { sums: usize, a: usize, b: usize },
    /// `tdpbf16ps`: the same in BF16.
    DotBf16 { sums: usize, a: usize, b: usize },
}

/// The instruction at `address` and its length, where it is one of these; `byte(i)` is its byte `i`.
pub fn decode(
    address: u64,
    byte: impl Fn(usize) -> u8,
    register: impl Fn(usize) -> u64,
) -> Option<(Instruction, usize)> {
    // VEX of three bytes: c4, RXB (inverted) and map 0f38, W = 0, vvvv (inverted), L, pp.
    if byte(0) != 0xc4 || byte(1) & 0x1f != 2 || byte(2) & 0x80 != 0 {
        return None;
    }
    let extension = |bit: u32| usize::from(!byte(1) >> bit & 1) << 3;
    let (r, x, b) = (extension(7), extension(6), extension(5));
    let third = usize::from(!byte(2) >> 3 & 15);
    let (opcode, modrm) = (byte(3), byte(4));
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let operand = || memory(address, &byte, &register, x, b);
    if byte(2) & 4 != 0 {
        let (signed, end) = match mode {
            3 => (Source::Register(rm | b), 5),
            _ => {
                let memory = operand();
                (Source::Address(memory.address.wrapping_add(memory.index.unwrap_or(0))), memory.end)
            }
        };
        let products = Products { sums: reg | r, unsigned: third, signed };
        return ((opcode, byte(2) & 3) == (0x50, 1)).then_some((Instruction::Products(products), end));
    }
    // A tile has a number below 8.
    use TileInstruction as Tile;
    let (instruction, end) = match (opcode, byte(2) & 3, mode) {
        _ if r != 0 => return None,
        (0x49, 0, 3) if (reg, rm, b, third) == (0, 0, 0, 0) => (Tile::Release, 5),
        (0x49, 0, 0..=2) if (reg, third) == (0, 0) => {
            let memory = operand();
            // Any register times a factor may be part of this address.
            let address = memory.address.wrapping_add(memory.index.unwrap_or(0));
            (Tile::LoadConfig { address }, memory.end)
        }
        (0x49, 3, 3) if (rm, third) == (0, 0) => (Tile::Zero { tile: reg }, 5),
        (0x4b, 2 | 3, 0..=2) if (rm, third) == (4, 0) => {
            let memory = operand();
            let (tile, address, stride) = (reg, memory.address, memory.index.unwrap_or(0));
            let instruction = if byte(2) & 3 == 3 {
                Tile::Load { tile, address, stride }
            } else {
                Tile::Store { tile, address, stride }
            };
            (instruction, memory.end)
        }
        (0x5c, 2, 3) if b == 0 && third < 8 => (Tile::DotBf16 { sums: reg, a: rm, b: third }, 5),
        (0x5e, 3, 3) if b == 0 && third < 8 => (Tile::Dot { sums: reg, a: rm, b: third }, 5),
        _ => return None,
    };
    Some((Instruction::Tile(instruction), end))
}

/// An operand in memory.
struct Memory {
    /// Base and displacement.
    address: u64,
    /// Index register times its factor.
    index: Option<u64>,
    /// Bytes of the instruction up to the operand's last one.
    end: usize,
}

/// The operand that begins with the byte ModRM at 4; `x` and `b` are the upper bits of its index and base.
fn memory(address: u64, byte: &impl Fn(usize) -> u8, register: &impl Fn(usize) -> u64, x: usize, b: usize) -> Memory {
    let (mode, rm) = (byte(4) >> 6, usize::from(byte(4) & 7));
    let mut end = 5;
    let (mut base, mut index) = (Some(rm), None);
    if rm == 4 {
        let sib = byte(end);
        end += 1;
        base = Some(usize::from(sib & 7));
        let number = usize::from(sib >> 3 & 7) | x;
        index = (number != 4).then(|| register(number) << (sib >> 6));
    }
    // Number 5 without displacement stands for none, and then 32 bits of displacement follow.
    let none = mode == 0 && base == Some(5);
    let displacement = match mode {
        1 => {
            end += 1;
            i64::from(byte(end - 1).cast_signed())
        }
        0 if !none => 0,
        _ => {
            end += 4;
            i64::from(i32::from_le_bytes([byte(end - 4), byte(end - 3), byte(end - 2), byte(end - 1)]))
        }
    };
    if none {
        base = None;
    }
    let base = match base {
        Some(number) => register(number | b),
        None if rm == 4 => 0,
        // Relative to the next instruction.
        None => address + end as u64,
    };
    Memory { address: base.wrapping_add_signed(displacement), index, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Register `n` holds `n` times this.
    const UNIT: u64 = 0x1_0000_0000;
    const ADDRESS: u64 = 0x7000;

    fn decode(code: &[u8]) -> Option<Instruction> {
        let (instruction, bytes) = super::decode(ADDRESS, |i| code[i], |number| number as u64 * UNIT)?;
        assert_eq!(bytes, code.len());
        Some(instruction)
    }

    fn tile(instruction: TileInstruction) -> Option<Instruction> {
        Some(Instruction::Tile(instruction))
    }

    #[test]
    fn machine_code_of_an_assembler_is_understood() {
        // Made with GNU as 2.40, but for the one without an index.
        let load = |number, address, stride| tile(TileInstruction::Load { tile: number, address, stride });
        let config = |address| tile(TileInstruction::LoadConfig { address });
        // ldtilecfg [rax], [r13], [r12 + 0x40], [rip + 0x12345]
        assert_eq!(decode(&[0xc4, 0xe2, 0x78, 0x49, 0x00]), config(0));
        assert_eq!(decode(&[0xc4, 0xc2, 0x78, 0x49, 0x45, 0x00]), config(13 * UNIT));
        assert_eq!(decode(&[0xc4, 0xc2, 0x78, 0x49, 0x44, 0x24, 0x40]), config(12 * UNIT + 0x40));
        let relative = [0xc4, 0xe2, 0x78, 0x49, 0x05, 0x45, 0x23, 0x01, 0x00];
        assert_eq!(decode(&relative), config(ADDRESS + 9 + 0x12345));
        // tilerelease; tilezero tmm7
        assert_eq!(decode(&[0xc4, 0xe2, 0x78, 0x49, 0xc0]), tile(TileInstruction::Release));
        assert_eq!(decode(&[0xc4, 0xe2, 0x7b, 0x49, 0xf8]), tile(TileInstruction::Zero { tile: 7 }));
        // tileloadd tmm1, [rdi + rsi]
        assert_eq!(decode(&[0xc4, 0xe2, 0x7b, 0x4b, 0x0c, 0x37]), load(1, 7 * UNIT, 6 * UNIT));
        // tileloadd tmm6, [r8 + r15 * 4 - 0x80]
        let code = [0xc4, 0x82, 0x7b, 0x4b, 0x74, 0xb8, 0x80];
        assert_eq!(decode(&code), load(6, 8 * UNIT - 0x80, 60 * UNIT));
        // tileloadd tmm2, [rbp + r9 * 2 + 0x1000]
        let code = [0xc4, 0xa2, 0x7b, 0x4b, 0x94, 0x4d, 0x00, 0x10, 0x00, 0x00];
        assert_eq!(decode(&code), load(2, 5 * UNIT + 0x1000, 18 * UNIT));
        // tileloadd tmm2, [rcx * 8 + 0x1000]
        let code = [0xc4, 0xe2, 0x7b, 0x4b, 0x14, 0xcd, 0x00, 0x10, 0x00, 0x00];
        assert_eq!(decode(&code), load(2, 0x1000, 8 * UNIT));
        // tileloadd tmm1, [rdi], no index
        assert_eq!(decode(&[0xc4, 0xe2, 0x7b, 0x4b, 0x0c, 0x27]), load(1, 7 * UNIT, 0));
        // tilestored [r14 + rbx * 2 + 0x400], tmm3; [rsp + r12], tmm0
        let store = |number, address, stride| tile(TileInstruction::Store { tile: number, address, stride });
        let code = [0xc4, 0xc2, 0x7a, 0x4b, 0x9c, 0x5e, 0x00, 0x04, 0x00, 0x00];
        assert_eq!(decode(&code), store(3, 14 * UNIT + 0x400, 6 * UNIT));
        assert_eq!(decode(&[0xc4, 0xa2, 0x7a, 0x4b, 0x04, 0x24]), store(0, 4 * UNIT, 12 * UNIT));
        // tdpbssd tmm0, tmm1, tmm2; tmm7, tmm3, tmm5
        assert_eq!(decode(&[0xc4, 0xe2, 0x6b, 0x5e, 0xc1]), tile(TileInstruction::Dot { sums: 0, a: 1, b: 2 }));
        assert_eq!(decode(&[0xc4, 0xe2, 0x53, 0x5e, 0xfb]), tile(TileInstruction::Dot { sums: 7, a: 3, b: 5 }));
    }

    #[test]
    fn products_of_bf16_are_understood() {
        // Made with GNU as 2.40: tdpbf16ps tmm0, tmm4, tmm5; tmm3, tmm6, tmm7
        let dot = |sums, a, b| tile(TileInstruction::DotBf16 { sums, a, b });
        assert_eq!(decode(&[0xc4, 0xe2, 0x52, 0x5c, 0xc4]), dot(0, 4, 5));
        assert_eq!(decode(&[0xc4, 0xe2, 0x42, 0x5c, 0xde]), dot(3, 6, 7));
    }

    #[test]
    fn products_of_bytes_are_understood() {
        let products = |sums, unsigned, signed| Some(Instruction::Products(Products { sums, unsigned, signed }));
        // Made with GNU as 2.40: {vex} vpdpbusd ymm1, ymm2, ymm3; ymm9, ymm12, ymm15
        assert_eq!(decode(&[0xc4, 0xe2, 0x6d, 0x50, 0xcb]), products(1, 2, Source::Register(3)));
        assert_eq!(decode(&[0xc4, 0x42, 0x1d, 0x50, 0xcf]), products(9, 12, Source::Register(15)));
        // {vex} vpdpbusd ymm8, ymm0, [rdi + 0x20]; ymm1, ymm15, [r9 + rcx * 4]
        let code = [0xc4, 0x62, 0x7d, 0x50, 0x47, 0x20];
        assert_eq!(decode(&code), products(8, 0, Source::Address(7 * UNIT + 0x20)));
        let code = [0xc4, 0xc2, 0x05, 0x50, 0x0c, 0x89];
        assert_eq!(decode(&code), products(1, 15, Source::Address(13 * UNIT)));
    }

    #[test]
    fn other_instructions_are_not_taken_for_these() {
        let others: [&[u8]; 10] = [
            &[0xc4, 0xe2, 0x69, 0x50, 0xcb],       // {vex} vpdpbusd xmm1, xmm2, xmm3
            &[0xc4, 0xe2, 0x6d, 0x51, 0xcb],       // {vex} vpdpbusds ymm1, ymm2, ymm3
            &[0x0f, 0x0b],                         // ud2
            &[0xc4, 0xe2, 0x6a, 0x5e, 0xc1],       // tdpbsud tmm0, tmm1, tmm2
            &[0xc4, 0xe2, 0x69, 0x5e, 0xc1],       // tdpbusd
            &[0xc4, 0xe2, 0x79, 0x49, 0x00],       // sttilecfg [rax]
            &[0xc4, 0xe2, 0x79, 0x4b, 0x0c, 0x37], // tileloaddt1 tmm1, [rdi + rsi]
            &[0xc4, 0x62, 0x7b, 0x49, 0xf8],       // a tile 15
            &[0xc4, 0xe2, 0x2b, 0x5e, 0xc1],       // a tile 10
            &[0xc4, 0xe2, 0xfb, 0x49, 0xf8],       // W = 1
        ];
        for code in others {
            assert_eq!(decode(code), None, "{code:02x?}");
        }
    }
}
