//! The lossy exchange: activations that nodes exchange as blocks of Q80 cross the network as Q40, half as many bytes.
//!
//! A node sends its part in Q40, and all, itself included, go on with what that stands for; its codes fit Q80. So results do not
//! depend on who has which part, but they are not those of one node.

use bytemuck::{cast_slice, cast_slice_mut};
use dair_core::graph::Collective;
use dair_core::io::Exchange;
use dair_core::quant::{BLOCK, BlockQ40, BlockQ80, DType};

/// How an exchange crosses the network in Q40, if it can.
pub fn narrowed<'e>(exchange: &Exchange<'e>) -> Option<Exchange<'e>> {
    if exchange.dtype != DType::Q80 || !matches!(exchange.collective, Collective::To(..)) {
        return None;
    }
    let row_bytes = exchange.row_bytes / size_of::<BlockQ80>() * size_of::<BlockQ40>();
    Some(Exchange { dtype: DType::Q40, row_bytes, ..*exchange })
}

/// Writes this node's part of each row of `pipe` in Q40.
pub fn narrow(exchange: &Exchange<'_>, pipe: &[u8], node: u32, out: &mut Vec<u8>) {
    let Some(small) = narrowed(exchange) else { return };
    out.clear();
    out.resize(pipe.len() / exchange.row_bytes * small.row_bytes, 0);
    let mut values = [0.0; BLOCK];
    for (row, out) in pipe.chunks(exchange.row_bytes).zip(out.chunks_mut(small.row_bytes)) {
        let from: &[BlockQ80] = cast_slice(&row[exchange.part(node)]);
        let to: &mut [BlockQ40] = cast_slice_mut(&mut out[small.part(node)]);
        for (from, to) in from.iter().zip(to) {
            from.dequantize(&mut values);
            *to = BlockQ40::quantize(&values);
        }
    }
}

/// Writes what rows in Q40 stand for to `pipe`.
pub fn widen(rows: &[u8], pipe: &mut [u8]) {
    for (from, to) in cast_slice::<_, BlockQ40>(rows).iter().zip(cast_slice_mut::<_, BlockQ80>(pipe)) {
        to.d = from.d;
        for (j, q) in from.qs.iter().enumerate() {
            to.qs[j] = (q & 15) as i8 - 8;
            to.qs[j + BLOCK / 2] = (q >> 4) as i8 - 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_narrowed_and_widened_is_what_the_codes_stand_for() {
        let value = |i: usize| (i as f32 * 0.37).sin() * 3.0;
        let blocks: Vec<_> =
            (0..4).map(|block| BlockQ80::quantize(&std::array::from_fn(|i| value(32 * block + i)))).collect();
        let mut pipe = cast_slice::<_, u8>(&blocks).to_vec();
        let bounds = [0, 64, 128];
        let exchange = Exchange {
            collective: Collective::To(0, 2),
            row_bytes: pipe.len(),
            nodes: 2,
            dtype: DType::Q80,
            bounds: Some(&bounds),
        };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        narrow(&exchange, &pipe, 0, &mut a);
        narrow(&exchange, &pipe, 1, &mut b);
        assert_eq!(a.len(), 4 * 18);
        a[36..].copy_from_slice(&b[36..]);
        widen(&a, &mut pipe);
        let (mut got, mut want) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (block, (wide, narrow)) in
            cast_slice::<_, BlockQ80>(&pipe).iter().zip(cast_slice::<_, BlockQ40>(&a)).enumerate()
        {
            wide.dequantize(&mut got);
            narrow.dequantize(&mut want);
            assert_eq!(got, want);
            assert!(got.iter().enumerate().all(|(i, x)| (x - value(32 * block + i)).abs() < 0.5));
        }
    }

    #[test]
    fn only_blocks_between_nodes_are_narrowed() {
        let exchange = Exchange { dtype: DType::Q80, ..Exchange::equal(Collective::To(0, 2), 68, 2) };
        assert!(narrowed(&exchange).is_some());
        assert!(narrowed(&Exchange { dtype: DType::F32, ..exchange }).is_none());
        assert!(narrowed(&Exchange { collective: Collective::AllGather, ..exchange }).is_none());
    }
}
