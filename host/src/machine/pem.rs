//! Certificates in PEM files.

use super::file;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt::Display;
use std::io::Read;
use std::path::Path;

/// Largest file: all authorities that there are take a quarter of a megabyte.
const BYTES_MAX: u64 = 4 << 20;

/// All certificates of a file, one at least.
///
/// # Errors
/// Names the file and what is wrong with it, in a line.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let of = |error: &dyn Display| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let read = file::open_regular(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| of(&error))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(of(&"too large for a file of certificates"));
    }
    let all: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| of(&error))?;
    if all.is_empty() { Err(of(&"no certificate in it; wanted is PEM")) } else { Ok(all) }
}
