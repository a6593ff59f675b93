//! The head of a GGUF file: its metadata, read as every type, and the table of its tensors.

#![no_main]

use dair_host::model::convert::gguf::{Gguf, Value};

dair_fuzz::target!(1 << 20, 256, |bytes| {
    let file_bytes = bytes.len() as u64;
    let gguf = match Gguf::parse(bytes, file_bytes) {
        Ok(gguf) => gguf,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    for tensor in &gguf.tensors {
        assert!(tensor.offset >= gguf.data_start, "{tensor:?}");
        assert!(tensor.offset.checked_add(tensor.bytes).is_some_and(|end| end <= file_bytes), "{tensor:?}");
        let values = tensor.dims.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim)).expect("a product that fits");
        assert_eq!(tensor.kind.bytes(values), Some(tensor.bytes));
    }
    for (key, value) in &gguf.metadata {
        let _ = (gguf.str(key), gguf.int(key), gguf.float(key));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len);
        }
    }
    // What a longer file begins with: truncated, or the same.
    if let Ok(cut) = Gguf::parse(&bytes[..bytes.len() / 2], file_bytes) {
        assert_eq!(cut.tensors, gguf.tensors);
    }
});
