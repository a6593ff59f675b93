//! Which files a conversion reads.

use super::error::ConvertError;
use super::gguf::PartName;
use super::hugging_face;
use std::path::{Path, PathBuf};

/// Endings of the files of a folder that a conversion may read.
const ENDINGS: [&str; 5] = ["json", "safetensors", "jinja", "model", "txt"];
/// Most files of a folder.
const MAX_FILES: usize = 10_000;

/// The path that stands for a source, whatever it is called from wherever: without links to its folder, and the first of
/// several parts.
///
/// # Errors
/// Where there is nothing of this name.
pub fn first_of(source: &Path) -> Result<PathBuf, ConvertError> {
    let read = |path: &Path| path.canonicalize().map_err(ConvertError::io("open", path));
    if source.is_dir() {
        return read(source);
    }
    // The name itself stays, even that of a link: it tells the parts of a model.
    let folder = source.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let path = read(folder)?.join(source.file_name().unwrap_or_default());
    let first = PartName::of(&path).map(|name| name.part(0)).filter(|first| first.exists());
    Ok(first.unwrap_or(path))
}

/// All files that a conversion of `source` reads, and at most some more of the same folder.
///
/// # Errors
/// Where `source` is a folder without a model.
pub fn files_of(source: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    if !source.is_dir() {
        let parts = PartName::of(source).map(|name| name.parts().filter(|part| part.exists()).collect::<Vec<_>>());
        return Ok(parts.filter(|parts| !parts.is_empty()).unwrap_or_else(|| vec![source.to_owned()]));
    }
    hugging_face::check_is_model(source)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(source).map_err(ConvertError::io("read", source))? {
        let path = entry.map_err(ConvertError::io("read", source))?.path();
        if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) && path.is_file() {
            files.push(path);
        }
    }
    if files.len() > MAX_FILES {
        let allowed = format!("allowed: up to {MAX_FILES}");
        return Err(ConvertError::refused(source, "number of files", files.len(), allowed));
    }
    files.sort();
    Ok(files)
}
