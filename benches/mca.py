#!/usr/bin/env python3
"""Cycles per block of 32 that llvm-mca predicts for the inner loops of AArch64 integer products in a compiled library.

A model of one core whose loads all hit the first-level cache: it says what instructions cost, not what memory does.
Needs Debian's binutils-aarch64-linux-gnu and llvm-19 (before 16, LLVM knew no other big core than Cortex-A57).

    CARGO_PROFILE_RELEASE_LTO=off cargo build --config targets/aarch64-unknown-linux-musl.toml --release -p dair-core
    benches/mca.py target/aarch64-unknown-linux-musl/release/libdair_core.rlib --function aarch64
"""

import argparse
import re
import subprocess

# Byte products of an instruction.
PRODUCTS = {"smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "sdot": 16, "smmla": 32}
BLOCK = 32
BRANCH = re.compile(r"(b(?:\.\w+)?|cbn?z|tbn?z)\s.*?\b([0-9a-f]+) <")
TURNS = 200


def functions(objdump, library):
    """Name and instructions, with their addresses, of every function."""
    run = [objdump, "-d", "-C", "--no-show-raw-insn", library]
    name, body = None, []
    for line in subprocess.run(run, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines():
        if match := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            yield name, body
            name, body = match[1], []
        elif match := re.match(r"\s*([0-9a-f]+):\s+(\S.*)", line):
            body.append((int(match[1], 16), match[2].split("//")[0].strip()))
    yield name, body


def loops(body):
    """The innermost loops: from a target of backward branches to the last of them."""
    index = {address: i for i, (address, _) in enumerate(body)}
    ends = {}
    for i, (address, text) in enumerate(body):
        match = BRANCH.match(text)
        if match and int(match[2], 16) <= address and int(match[2], 16) in index:
            ends[index[int(match[2], 16)]] = i
    for head, end in ends.items():
        if not any(head < other <= end for other in ends):
            yield [text for _, text in body[head : end + 1]]


def blocks(loop):
    """Blocks of one row and one token in a turn."""
    return sum(PRODUCTS.get(text.split()[0], 0) for text in loop) / BLOCK


def cycles(mca, cpu, loop):
    """Cycles of a turn; every branch counts and none is taken."""
    lines = [re.sub(r"\b[0-9a-f]+ <.*", "#4", text) if BRANCH.match(text) else text for text in loop]
    run = [mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", f"-iterations={TURNS}"]
    out = subprocess.run(run, input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", out)[1]) / TURNS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", help="object file or archive")
    parser.add_argument("--function", default="", help="only those whose name has it (a regular expression)")
    parser.add_argument("--cpus", nargs="+", default=["cortex-a72", "neoverse-n1", "neoverse-v1"])
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    parser.add_argument("--mca", default="llvm-mca-19")
    parser.add_argument("--show", action="store_true", help="print the loops")
    args = parser.parse_args()
    print("instructions  blocks a turn  prefetch  with     " + "  ".join(args.cpus) + "  (cycles per block)")
    for name, body in functions(args.objdump, args.library):
        if not name or not re.search(args.function, name):
            continue
        found = [loop for loop in loops(body) if blocks(loop)]
        if found:
            print(name)
        for loop in sorted(found, key=lambda loop: (any("prfm" in text for text in loop), blocks(loop))):
            kinds = {text.split()[0].rstrip("2") for text in loop} & {"smull", "smlal", "sdot", "smmla"}
            figures = [f"{cycles(args.mca, cpu, loop) / blocks(loop):{len(cpu)}.2f}" for cpu in args.cpus]
            fetches = sum(text.startswith("prfm") for text in loop)
            print(f"{len(loop):12}  {blocks(loop):13g}  {fetches:8}  {max(kinds):7}  {'  '.join(figures)}")
            if args.show:
                print("".join(f"    {text}\n" for text in loop))


if __name__ == "__main__":
    main()
