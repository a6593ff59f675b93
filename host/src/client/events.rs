//! Server-sent events, as a stream of answers has them: lines `data: …`, and an empty line behind each event.

use std::io::{self, BufRead, Read};

/// Largest event, in bytes.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// Why there is no event.
#[derive(Debug)]
pub enum EventError {
    /// The stream can't be read.
    Read(io::Error),
    /// An event is larger than [`EVENT_BYTES_MAX`].
    TooLong,
    /// An event is no text.
    NotText,
}

/// Reads events.
#[derive(Debug)]
pub struct Events<R> {
    from: R,
}

impl<R: BufRead> Events<R> {
    /// Events of a stream.
    pub fn new(from: R) -> Self {
        Self { from }
    }

    /// The data of the next event, or `None` at the end. Comments and fields of other names are passed over, and so is an
    /// event that was not ended.
    ///
    /// # Errors
    /// Why it can't be read.
    pub fn read(&mut self) -> Result<Option<String>, EventError> {
        let mut data: Option<Vec<u8>> = None;
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if line.is_empty() {
                match data.take() {
                    Some(data) => return String::from_utf8(data).map(Some).map_err(|_| EventError::NotText),
                    None => continue,
                }
            }
            let Some(rest) = line.strip_prefix(b"data") else { continue };
            let value = match rest {
                [] => rest,
                [b':', b' ', value @ ..] | [b':', value @ ..] => value,
                _ => continue,
            };
            match &mut data {
                Some(data) => data.extend([b"\n", value].concat()),
                None => data = Some(value.to_vec()),
            }
            if data.as_ref().is_some_and(|data| data.len() > EVENT_BYTES_MAX) {
                return Err(EventError::TooLong);
            }
        }
    }

    /// The next line without its end, or `None` where there is no whole one.
    fn line(&mut self) -> Result<Option<Vec<u8>>, EventError> {
        let mut line = Vec::new();
        let limit = EVENT_BYTES_MAX as u64 + 16;
        self.from.by_ref().take(limit).read_until(b'\n', &mut line).map_err(EventError::Read)?;
        if line.pop() != Some(b'\n') {
            return if line.len() as u64 + 1 >= limit { Err(EventError::TooLong) } else { Ok(None) };
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn all(bytes: &[u8]) -> Vec<String> {
        // A buffer of one byte: events come in any pieces.
        let mut events = Events::new(BufReader::with_capacity(1, bytes));
        std::iter::from_fn(|| events.read().expect("text")).collect()
    }

    #[test]
    fn events_are_read_whatever_stands_between_them() {
        let text = b"\n\n: a comment\nid: 7\ndata: {\"a\": 1}\n\nevent: x\r\ndata:two\r\ndata\r\ndata:  lines\r\n\r\nretry: 5\n\ndatabase: x\n\ndata: [DONE]\n\n";
        assert_eq!(all(text), ["{\"a\": 1}", "two\n\n lines", "[DONE]"]);
    }

    #[test]
    fn an_event_that_was_not_ended_is_none() {
        for text in ["data: one\n\ndata: tw", "data: one\n\ndata: two\n", "data: one\r\n\r\ndata: two\r\n\r"] {
            assert_eq!(all(text.as_bytes()), ["one"]);
        }
        assert_eq!(all(b""), [""; 0]);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let first = |bytes: &[u8]| Events::new(bytes).read();
        let long = [b"data: ".as_slice(), &vec![b'a'; EVENT_BYTES_MAX]].concat();
        assert_eq!(first(&[&long[..], b"\n\n"].concat()).unwrap().unwrap().len(), EVENT_BYTES_MAX);
        assert!(matches!(first(&[&long[..], b"a\n\n"].concat()), Err(EventError::TooLong)));
        assert!(matches!(first(&[&long[..], &long, b"\n"].concat()), Err(EventError::TooLong)));
        assert!(matches!(first(&b"data: aaaaaaaaaaaaaaaa\n".repeat(1 << 16)), Err(EventError::TooLong)));
        assert!(matches!(first(b"data: \xff\n\n"), Err(EventError::NotText)));
    }
}
