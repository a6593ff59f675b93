//! What macOS tells about its machine.

use std::ffi::CString;

/// The bytes of an entry, at most `N`.
fn read<const N: usize>(name: &str) -> Option<Vec<u8>> {
    let name = CString::new(name).ok()?;
    let mut bytes = vec![0u8; N];
    let mut len = N;
    // SAFETY: `name` is a C string, `bytes` has room for `len` bytes, and the call writes no more than that.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), bytes.as_mut_ptr().cast(), &mut len, std::ptr::null_mut(), 0) };
    bytes.truncate(len);
    (result == 0).then_some(bytes)
}

/// An entry that is text.
pub fn text(name: &str) -> Option<String> {
    let bytes = read::<256>(name)?;
    let text = String::from_utf8_lossy(&bytes).trim_end_matches('\0').trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// An entry that is a number of 32 or 64 bits.
pub fn number(name: &str) -> Option<u64> {
    let bytes = read::<8>(name)?;
    match *bytes.as_slice() {
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}
