//! AMX: AVX-512, and tiles of 8-bit integers for products of many tokens.
//!
//! # Speed: a model, not a measurement
//! Counted by hand for the Golden Cove core of Sapphire Rapids, everything in its first-level cache, for 16 rows, 16
//! tokens and a block of 32, which are 16384 operations:
//!
//! | what | cycles |
//! |---|---|
//! | tile product: one per row of activations, for 32 codes as for 64 | 16 |
//! | stores: 16 rows of sums | 16 |
//! | vectors on two ports: 16 conversions, products of scales, FMAs | 24 |
//! | loads, two a cycle: 16 + 8 rows of tiles, 16 of sums, 17 of scales | 28.5 |
//!
//! If all of it overlaps, loads are the bound: 575 operations a cycle, 1150 Gop/s at 2.0 GHz and 1725 at 3.0. VNNI has
//! 11 operations on two ports for 1024: 186 a cycle, 372 and 558 Gop/s. A prototype in which tiles and vectors did not
//! overlap reached 284 to 411 Gop/s beside 232 to 349 of VNNI. So tiles should win: little without overlap, up to three
//! times with it, which is why in `products` tiles run a step ahead, in buffers of their own. Unpacking weights and
//! packing tokens are not counted. `llvm-mca` is no help: LLVM 19's model of the processor knows nothing about tiles.

mod products;
mod relaxed;

use super::avx512;
use crate::kernels::Isa;
use crate::kernels::table::{Products, Table};

pub(in crate::kernels) static TABLE: Table = Table {
    isa: Isa::Amx,
    products: Products { blocks: products::BLOCKS, interleaved: Some(products::INTERLEAVED), ..avx512::TABLE.products },
    relaxed: Some(relaxed::PRODUCTS),
    ..avx512::TABLE
};
