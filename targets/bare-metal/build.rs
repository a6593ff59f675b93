//! Links by the board's memory map.
fn main() {
    println!("cargo:rustc-link-arg-bins=-T{}/src/memory.ld", env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rerun-if-changed=src/memory.ld");
}
