//! The head of a GGUF file, cut and changed at every byte: always an error or a value, never a panic.

use dair_core::format::Arch;
use dair_host::model::convert::ggml::GgmlType;
use dair_host::model::convert::gguf::{Gguf as Parsed, GgufError, Value as ParsedValue};
use dair_tests::published::{Gguf, Value, header};
use dair_tests::random::Random;

fn file() -> (Vec<u8>, usize) {
    let gguf = Gguf::of(&header(Arch::Qwen3Moe), GgmlType::Q5K);
    let bytes = gguf.bytes();
    let head_bytes = Parsed::parse(&bytes, bytes.len() as u64).unwrap().data_start as usize;
    (bytes, head_bytes)
}

#[test]
fn metadata_and_tensors_are_what_was_written() {
    let mut gguf = Gguf::of(&header(Arch::Qwen3), GgmlType::Q6K);
    gguf.set("some.list", Value::F32s(vec![0.5, -1.0]))
        .set("some.flag", Value::Bool(true))
        .set("some.real", Value::F64(0.1));
    gguf.set("some.nest", Value::Nested(vec![vec![1, 2], vec![]]));
    let bytes = gguf.bytes();
    let parsed = Parsed::parse(&bytes, bytes.len() as u64).unwrap();
    assert_eq!((parsed.version, parsed.metadata.len()), (3, gguf.metadata.len()));
    assert_eq!(parsed.int("qwen3.block_count"), Ok(Some(2)));
    assert_eq!(parsed.str("general.architecture"), Ok(Some("qwen3")));
    assert_eq!((parsed.bool("some.flag"), parsed.float("some.real")), (Ok(Some(true)), Ok(Some(0.1))));
    assert_eq!(parsed.int("no.such.key"), Ok(None));
    let elements = |key: &str| match parsed.metadata[key] {
        ParsedValue::Array(array) => array.iter().collect::<Vec<_>>(),
        _ => panic!("{key}"),
    };
    assert_eq!(elements("some.list"), [ParsedValue::Float(0.5), ParsedValue::Float(-1.0)]);
    let nested: Vec<_> = elements("some.nest").into_iter().map(|value| format!("{value:?}")).collect();
    assert_eq!(nested, ["Array([u8; 2])", "Array([u8; 0])"]);
    assert_eq!(parsed.tensors.len(), gguf.tensors.len());
    for (found, written) in parsed.tensors.iter().zip(&gguf.tensors) {
        assert_eq!((found.name, found.kind, &found.dims), (written.name.as_str(), written.kind, &written.dims));
        assert!(bytes[found.offset as usize..][..found.bytes as usize] == written.bytes, "{}", found.name);
    }
}

#[test]
fn a_head_cut_at_any_byte_is_truncated() {
    let (bytes, head_bytes) = file();
    let padding = 32; // behind the last entry of the table there may be less
    for cut in 0..head_bytes - padding {
        let error = Parsed::parse(&bytes[..cut], bytes.len() as u64).map(|_| ()).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. }), "cut at {cut}: {error}");
    }
}

#[test]
fn a_changed_head_never_panics() {
    let (mut bytes, head_bytes) = file();
    let seed = 7;
    let mut random = Random::new(seed);
    let mut refused = 0;
    for at in 0..head_bytes {
        let old = bytes[at];
        for new in [0, 0xff, old ^ 0x80, random.next_u64() as u8] {
            bytes[at] = new;
            match Parsed::parse(&bytes, bytes.len() as u64) {
                Ok(parsed) => {
                    // What was accepted lies inside the file, and arrays can be walked to their ends.
                    let end = parsed.tensors.iter().map(|tensor| tensor.offset + tensor.bytes).max().unwrap_or(0);
                    assert!(end <= bytes.len() as u64, "byte {at} as {new:#x}, seed {seed}");
                    for value in parsed.metadata.values() {
                        if let ParsedValue::Array(array) = value {
                            assert_eq!(array.iter().count(), array.len, "byte {at} as {new:#x}, seed {seed}");
                        }
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
        bytes[at] = old;
    }
    assert!(refused > 1000, "{refused} refusals");
}
