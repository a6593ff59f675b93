//! AVX-VNNI: byte dot products on the registers of AVX2, for processors without AVX-512, such as Intel's since Alder Lake.

pub(super) mod products;

use super::avx2;
use crate::kernels::Isa;
use crate::kernels::table::{Products, Table};

pub(in crate::kernels) static TABLE: Table = Table {
    isa: Isa::AvxVnni,
    products: Products { blocks: products::BLOCKS, interleaved: Some(products::INTERLEAVED), ..avx2::TABLE.products },
    ..avx2::TABLE
};
