//! Parts of the tensors of a model file, as strided spans of Storage.

use crate::format::layout::LayerTensor;
use crate::format::{Layout, TensorId};
use crate::graph::Weight;
use crate::quant::Order;
use core::ops::Range;

/// A whole tensor, or the stack of all experts of its kind.
pub(super) fn whole(layout: &Layout, id: TensorId) -> Weight {
    let (tensor, n_experts) = (layout.tensor(id), layout.header().n_experts);
    let (mats, mat_stride) = match id {
        TensorId::Layer(layer, LayerTensor::W1(0) | LayerTensor::W2(0) | LayerTensor::W3(0)) if n_experts > 1 => {
            let start = |expert| layout.tensor(TensorId::Layer(layer, LayerTensor::W1(expert))).offset;
            (n_experts, start(1) - start(0))
        }
        _ => (1, tensor.bytes()),
    };
    Weight {
        dtype: tensor.dtype,
        order: Order::Rows,
        offset: tensor.offset,
        rows: tensor.rows,
        cols: tensor.cols,
        row_stride: tensor.row_bytes,
        mats,
        mat_stride,
    }
}

/// Some rows of every matrix.
pub(super) fn rows(whole: Weight, rows: Range<u32>) -> Weight {
    let offset = whole.offset + u64::from(rows.start) * whole.row_stride;
    Weight { rows: rows.end - rows.start, offset, ..whole }
}

/// Some columns of every row: whole blocks.
pub(super) fn columns(whole: Weight, cols: Range<u32>) -> Weight {
    let offset = whole.offset + u64::from(cols.start) / whole.dtype.block_len() * whole.dtype.block_bytes();
    Weight { cols: cols.end - cols.start, offset, ..whole }
}
