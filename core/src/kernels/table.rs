//! The table of functions of one instruction set, and the macro that compiles the shared bodies for it.

use super::{Attend, Input, Isa, KvHead, Matrix, Output, SCORES};
use crate::quant::{BlockQ80, NormBlock};
use core::ops::Range;

/// A product; the operands passed [`check`](super::operands::check), and the processor has the instruction set.
pub(super) type Matmul = unsafe fn(&Matrix<'_>, Range<usize>, &Input<'_>, &Output<'_>, &mut [u8]);

/// Products of all pairs of types.
#[derive(Clone, Copy)]
pub(super) struct Products {
    /// F32 weights and activations.
    pub f32: Matmul,
    /// F16 weights, F32 activations.
    pub f16: Matmul,
    /// Q80 weights, F32 activations.
    pub q80: Matmul,
    /// Block weights and Q80 activations, rows as in files.
    pub blocks: BlockProducts,
    /// Block weights and Q80 activations, rows interleaved.
    pub interleaved: Option<BlockProducts>,
}

/// Products of block weights and Q80 activations.
#[derive(Clone, Copy)]
pub(super) struct BlockProducts {
    /// Q40 weights.
    pub q40: Matmul,
    /// Q80 weights.
    pub q80: Matmul,
}

/// The functions behind [`Kernels`](super::Kernels). To call one, the processor must have the instruction set, and
/// the lengths must have passed the checks of the method of the same name.
#[allow(clippy::type_complexity)]
pub(super) struct Table {
    pub isa: Isa,
    pub quantize_activations: unsafe fn(&[f32], &mut [i8], &mut [f32], &mut [i32]),
    pub quantize_q80: unsafe fn(&[f32], &mut [BlockQ80]),
    pub norm_blocks: unsafe fn(&[f32], &[u8], &mut [NormBlock]),
    pub finish_norm: unsafe fn(&[NormBlock], f32, &mut [i8], &mut [f32], &mut [i32]),
    pub unpack_q80: unsafe fn(&[BlockQ80], &mut [i8], &mut [f32], &mut [i32]),
    pub add_q80: unsafe fn(&mut [f32], &[BlockQ80]),
    /// Exact products.
    pub products: Products,
    /// The same, but for many tokens in BF16 where that is faster. Wants a processor that multiplies BF16.
    pub relaxed: Option<Products>,
    pub dot: unsafe fn(&[f32], &[f32]) -> f32,
    pub rms_norm: unsafe fn(&mut [f32], f32, &[u8]),
    pub softmax: unsafe fn(&mut [f32]),
    pub silu: unsafe fn(&mut [f32]),
    pub mul: unsafe fn(&mut [f32], &[f32]),
    pub scale: unsafe fn(&mut [f32], f32),
    pub add: unsafe fn(&mut [f32], &[f32]),
    pub add_scaled: unsafe fn(&mut [f32], f32, &[f32]),
    pub rotate_pairs: unsafe fn(&mut [f32], &[f32]),
    pub rotate_halves: unsafe fn(&mut [f32], &[f32]),
    pub store_position: unsafe fn(&KvHead<'_>, &[f32], usize),
    pub attend: unsafe fn(&Attend<'_>, &mut [f32; SCORES], &mut [f32]),
    pub merge_states: unsafe fn(&mut [f32], &[f32]),
    pub finish_state: unsafe fn(&[f32], &mut [f32]),
}

/// `table!(isa, token, blocks, interleaved, [attribute, …])`: the [`Table`] whose shared bodies are compiled under
/// attributes that enable what `token` stands for.
#[rustfmt::skip]
macro_rules! table {
    ($isa:expr, $token:expr, $blocks:expr, $interleaved:expr, $attributes:tt) => {{
        use $crate::kernels::table::{Products, Table, compile};
        use $crate::kernels::{Attend, Input, KvHead, Matrix, Output, SCORES, attention, cache, dense, elementwise, quantize};
        use $crate::quant::{BlockQ80, NormBlock};
        use core::ops::Range;

        Table {
            isa: $isa,
            quantize_activations: compile!($token, $attributes, quantize::quantize_activations(x: &[f32], codes: &mut [i8], scales: &mut [f32], offsets: &mut [i32])),
            quantize_q80: compile!($token, $attributes, quantize::quantize_q80(x: &[f32], out: &mut [BlockQ80])),
            norm_blocks: compile!($token, $attributes, quantize::norm_blocks(x: &[f32], weight: &[u8], out: &mut [NormBlock])),
            finish_norm: compile!($token, $attributes, quantize::finish_norm(blocks: &[NormBlock], inv_rms: f32, codes: &mut [i8], scales: &mut [f32], offsets: &mut [i32])),
            unpack_q80: compile!($token, $attributes, quantize::unpack_q80(blocks: &[BlockQ80], codes: &mut [i8], scales: &mut [f32], offsets: &mut [i32])),
            add_q80: compile!($token, $attributes, quantize::add_q80(x: &mut [f32], blocks: &[BlockQ80])),
            products: Products {
                f32: compile!($token, $attributes, dense::matmul_f32(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>, scratch: &mut [u8])),
                f16: compile!($token, $attributes, dense::matmul_f16(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>, scratch: &mut [u8])),
                q80: compile!($token, $attributes, dense::matmul_q80(w: &Matrix<'_>, rows: Range<usize>, x: &Input<'_>, out: &Output<'_>, scratch: &mut [u8])),
                blocks: $blocks,
                interleaved: $interleaved,
            },
            relaxed: None,
            dot: compile!($token, $attributes, dense::dot(a: &[f32], b: &[f32]) -> f32),
            rms_norm: compile!($token, $attributes, elementwise::rms_norm(x: &mut [f32], inv_rms: f32, weight: &[u8])),
            softmax: compile!($token, $attributes, elementwise::softmax(x: &mut [f32])),
            silu: compile!($token, $attributes, elementwise::silu(x: &mut [f32])),
            mul: compile!($token, $attributes, elementwise::mul(x: &mut [f32], by: &[f32])),
            scale: compile!($token, $attributes, elementwise::scale(x: &mut [f32], by: f32)),
            add: compile!($token, $attributes, elementwise::add(x: &mut [f32], y: &[f32])),
            add_scaled: compile!($token, $attributes, elementwise::add_scaled(y: &mut [f32], a: f32, x: &[f32])),
            rotate_pairs: compile!($token, $attributes, elementwise::rotate_pairs(x: &mut [f32], cos_sin: &[f32])),
            rotate_halves: compile!($token, $attributes, elementwise::rotate_halves(x: &mut [f32], cos_sin: &[f32])),
            store_position: compile!($token, $attributes, cache::store_position(to: &KvHead<'_>, x: &[f32], position: usize)),
            attend: compile!($token, $attributes, attention::attend(a: &Attend<'_>, scores: &mut [f32; SCORES], states: &mut [f32])),
            merge_states: compile!($token, $attributes, attention::merge_states(into: &mut [f32], from: &[f32])),
            finish_state: compile!($token, $attributes, attention::finish_state(state: &[f32], out: &mut [f32])),
        }
    }};
}

/// A function of this signature, under these attributes, that calls the shared body with `token`.
macro_rules! compile {
    ($token:expr, [$($attribute:meta),*], $module:ident::$name:ident ( $($arg:ident: $type:ty),* ) $(-> $result:ty)?) => {{
        $(#[$attribute])*
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            $module::$name($token, $($arg),*)
        }
        $name
    }};
}
pub(super) use {compile, table};
