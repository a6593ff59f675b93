//! Values of ggml blocks against those that the reference package computes, see `tests/golden/quants/README.md`.

use dair_host::model::convert::ggml::{GgmlType, dequantize};
use std::path::Path;

#[test]
fn every_type_gives_the_values_of_the_reference_bit_for_bit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/quants");
    for kind in GgmlType::ALL.into_iter().filter(|kind| *kind != GgmlType::F32) {
        let blocks = std::fs::read(folder.join(format!("{kind}.blocks"))).unwrap();
        let expected = std::fs::read(folder.join(format!("{kind}.f32"))).unwrap();
        let expected: Vec<_> = expected.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        assert!(expected.len() >= 256 && expected.iter().any(|value| *value != 0.0), "{kind}");
        let mut values = vec![f32::NAN; expected.len()];
        dequantize(kind, &blocks, &mut values);
        for (at, (value, expected)) in values.iter().zip(&expected).enumerate() {
            assert_eq!(value.to_bits(), expected.to_bits(), "{kind}, value {at}: {value} instead of {expected}");
        }
    }
}
