//! The date, for templates that tell it to the model.

use minijinja::{Error, ErrorKind};
use std::ffi::CString;

/// Longest text that a format may become, in bytes.
const MAX_BYTES: usize = 1024;

/// The local time as `format` says, which is that of C and of Python.
pub fn strftime_now(format: &str) -> Result<String, Error> {
    let wrong = |reason| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {reason}"));
    let format = CString::new(format).map_err(|_| wrong("the format has a zero byte"))?;
    if format.is_empty() {
        return Ok(String::new());
    }
    let mut text = [0u8; MAX_BYTES];
    // SAFETY: `tm` may be all zeros, `time` allows no place to write to, `localtime_r` writes to the place it is given, and
    // `strftime` writes at most as many bytes as it is told of, from a format that ends with a zero.
    let len = unsafe {
        let mut now: libc::tm = std::mem::zeroed();
        let seconds = libc::time(std::ptr::null_mut());
        if libc::localtime_r(&seconds, &mut now).is_null() {
            return Err(wrong("the system does not know the time"));
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &now)
    };
    if len == 0 {
        return Err(wrong("the text is empty or too long"));
    }
    Ok(String::from_utf8_lossy(&text[..len]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_format_says() {
        let text = strftime_now("%d %b %Y").unwrap();
        let parts: Vec<_> = text.split(' ').collect();
        let [day, month, year] = parts[..] else { panic!("{text}") };
        assert!(day.len() == 2 && (1..=31).contains(&day.parse::<u32>().unwrap()), "{text}");
        assert!(month.len() == 3 && year.parse::<u32>().unwrap() >= 2025, "{text}");
        assert_eq!(strftime_now("plain é %%").unwrap(), "plain é %");
        assert_eq!(strftime_now("").unwrap(), "");
        assert!(strftime_now("a\0b").is_err() && strftime_now(&"x".repeat(2000)).is_err());
    }
}
