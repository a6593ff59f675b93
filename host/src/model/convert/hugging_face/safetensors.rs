//! Reader of the table of a safetensors file.
//!
//! ```text
//! u64 length of the table, little-endian
//! JSON  {"NAME": {"dtype": "BF16", "shape": [rows, cols], "data_offsets": [start, end]}, …, "__metadata__": {…}}
//! tensor data, little-endian, without gaps; offsets count from here
//! ```

use crate::model::convert::error::ConvertError;
use crate::model::convert::ggml::GgmlType;
use crate::model::convert::source::SourceFile;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// Longest table that is read, as in the reference implementation.
const MAX_TABLE_BYTES: u64 = 100_000_000;
const PREFIX_BYTES: u64 = 8;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type of its values.
    pub kind: GgmlType,
    /// Sizes, outermost first.
    pub dims: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
}

#[derive(Deserialize)]
struct Table {
    #[serde(rename = "__metadata__")]
    _metadata: Option<IgnoredAny>,
    #[serde(flatten)]
    tensors: BTreeMap<String, RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads and checks the table.
///
/// # Errors
/// Names the tensor whose type is not read, or whose place or size contradicts the file.
pub fn read_table(file: &SourceFile) -> Result<BTreeMap<String, Entry>, ConvertError> {
    let refused =
        |field: &str, found: String, allowed: String| ConvertError::refused(&file.path, field, found, allowed);
    if file.bytes < PREFIX_BYTES {
        return Err(refused("size", file.bytes.to_string(), "a safetensors file has 8 bytes at least".into()));
    }
    let mut prefix = [0; PREFIX_BYTES as usize];
    file.read_into(&mut prefix, 0)?;
    let table_bytes = u64::from_le_bytes(prefix);
    let max = MAX_TABLE_BYTES.min(file.bytes - PREFIX_BYTES);
    if table_bytes > max {
        let allowed = format!("allowed: up to {max}; is this a safetensors file, and complete?");
        return Err(refused("length of the table", table_bytes.to_string(), allowed));
    }
    let json = file.read(PREFIX_BYTES, table_bytes)?;
    let table: Table =
        serde_json::from_slice(&json).map_err(|source| ConvertError::Json { path: file.path.clone(), source })?;

    let data_start = PREFIX_BYTES + table_bytes;
    let data_bytes = file.bytes - data_start;
    let mut entries = BTreeMap::new();
    let mut spans = Vec::new();
    for (name, raw) in table.tensors {
        let field = format!("tensor {name}");
        let kind = match raw.dtype.as_str() {
            "F32" => GgmlType::F32,
            "F16" => GgmlType::F16,
            "BF16" => GgmlType::Bf16,
            other => return Err(refused(&field, format!("of type {other:?}"), "readable: F32, F16, BF16".into())),
        };
        let [start, end] = raw.data_offsets;
        let len = raw.shape.iter().try_fold(1u64, |len, dim| len.checked_mul(*dim)).filter(|len| *len > 0);
        let expected = len.filter(|_| !raw.shape.is_empty()).and_then(|len| kind.bytes(len));
        if expected.is_none() || end.checked_sub(start) != expected {
            let found = format!("at {start}..{end} with sizes {:?}", raw.shape);
            return Err(refused(&field, found, "sizes above 0, and as many bytes as they take, are needed".into()));
        }
        if end > data_bytes {
            let allowed = format!("there are {data_bytes} bytes of data; copy or download the file again");
            return Err(refused(&field, format!("at {start}..{end}"), allowed));
        }
        spans.push((start, end));
        entries.insert(name, Entry { kind, dims: raw.shape, offset: data_start + start });
    }
    // Tensors tile the data: it also tells of a name that stands in the table twice, and of bytes that belong to none.
    spans.sort_unstable();
    let mut covered = 0;
    for (start, end) in spans {
        if start != covered {
            return Err(refused(
                "data",
                format!("not in use at {}..{}", covered.min(start), covered.max(start)),
                "tensors must tile it without gaps".into(),
            ));
        }
        covered = end;
    }
    if covered != data_bytes {
        return Err(refused(
            "data",
            format!("{data_bytes} bytes long"),
            format!("the tensors take {covered}; copy or download it again"),
        ));
    }
    Ok(entries)
}
