//! Opens the file or files of a GGUF model and gathers their tensors.

use super::error::GgufError;
use super::reader::{Gguf, MAX_HEAD_BYTES};
use super::split::{self, Part};
use crate::model::convert::error::ConvertError;
use crate::model::convert::source::{SourceFile, StoredTensor};
use crate::model::kind::FileKind;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

/// Bytes of the head that are read first; doubled until the head is complete.
const FIRST_READ_BYTES: u64 = 8 << 20;

/// All files of a model.
pub struct GgufFiles {
    /// The first has the metadata.
    pub files: Vec<SourceFile>,
    /// Its first bytes, at least up to the tensor data.
    pub head: Vec<u8>,
    /// The tensors of all files by name.
    pub tensors: BTreeMap<String, StoredTensor>,
}

impl GgufFiles {
    /// Opens a whole model, or one of its parts and all the others with it.
    ///
    /// # Errors
    /// Names the file that is broken, missing, or part of something else.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        let (mut file, mut head) = open_head(path)?;
        let given = Part::of(&parse(&file, &head)?, path)?;
        let name = if given.count > 1 { Some(split::name_of(path, given)?) } else { None };
        if let Some(name) = name.as_ref().filter(|name| name.no > 0) {
            (file, head) = open_part(&name.part(0), given, 0)?;
        }
        let mut model = Self { files: Vec::new(), head: Vec::new(), tensors: BTreeMap::new() };
        model.add(file, &head)?;
        for no in 1..given.count {
            let Some(name) = &name else { break };
            let (file, head) = open_part(&name.part(no), given, no)?;
            model.add(file, &head)?;
        }
        model.head = head;
        if let Some(tensors) = given.tensors.filter(|tensors| *tensors != model.tensors.len() as u64) {
            let allowed = format!("split.tensors.count is {tensors}; download the parts again");
            return Err(ConvertError::refused(path, "number of tensors in all parts", model.tensors.len(), allowed));
        }
        Ok(model)
    }

    /// Adds a file and its tensors.
    fn add(&mut self, file: SourceFile, head: &[u8]) -> Result<(), ConvertError> {
        for tensor in parse(&file, head)?.tensors {
            let stored = StoredTensor {
                file: self.files.len(),
                offset: tensor.offset,
                kind: tensor.kind,
                dims: tensor.dims.clone(),
            };
            if let Some(other) = self.tensors.insert(tensor.name.to_owned(), stored) {
                let found = format!("in {}, too", self.files[other.file].path.display());
                let field = format!("tensor {}", tensor.name);
                return Err(ConvertError::refused(&file.path, field, found, "each must be in one part only"));
            }
        }
        self.files.push(file);
        Ok(())
    }
}

/// Opens a part, which must say that it is number `no` of as many as `given`.
fn open_part(path: &Path, given: Part, no: u32) -> Result<(SourceFile, Vec<u8>), ConvertError> {
    let opened = open_head(path);
    if let Err(ConvertError::Io { source, .. }) = &opened
        && source.kind() == ErrorKind::NotFound
    {
        let field = format!("part {} of {}", no + 1, given.count);
        return Err(ConvertError::refused(path, field, "not there", "download it to the same folder, under this name"));
    }
    let (file, head) = opened?;
    let found = Part::of(&parse(&file, &head)?, path)?;
    if (found.no, found.count) != (no, given.count) {
        let found = format!("part {} of {}", found.no + 1, found.count);
        let allowed = format!("its name says part {} of {}; download it again", no + 1, given.count);
        return Err(ConvertError::refused(path, "this", found, allowed));
    }
    if found.tensors != given.tensors {
        let found = found.tensors.map_or("missing".to_owned(), |tensors| tensors.to_string());
        let allowed = "another part says otherwise; download all parts of one model";
        return Err(ConvertError::refused(path, "split.tensors.count", found, allowed));
    }
    Ok((file, head))
}

fn open_head(path: &Path) -> Result<(SourceFile, Vec<u8>), ConvertError> {
    let file = SourceFile::open(path)?;
    match file.kind()? {
        FileKind::Gguf => {}
        kind => return Err(ConvertError::Kind { path: file.path, kind }),
    }
    let all = file.bytes.min(MAX_HEAD_BYTES);
    let mut head_bytes = FIRST_READ_BYTES.min(all);
    loop {
        let head = file.read(0, head_bytes)?;
        if head_bytes == all || !matches!(Gguf::parse(&head, file.bytes), Err(GgufError::Truncated { .. })) {
            return Ok((file, head));
        }
        head_bytes = (head_bytes * 2).min(all);
    }
}

fn parse<'a>(file: &SourceFile, head: &'a [u8]) -> Result<Gguf<'a>, ConvertError> {
    Gguf::parse(head, file.bytes).map_err(|source| ConvertError::gguf(&file.path, source))
}
