//! Ollama's `keep_alive`: how long a model is to stay, in seconds or as in `1h30m`.

use super::error::ApiError;
use super::fields::{Fields, wrong};
use serde_json::Value;

const FIELD: &str = "keep_alive";
/// Units of time, longer names first where one begins as another does.
const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];

/// Whether the model is to go at once: the time is nothing.
///
/// # Errors
/// Names the field, where it is no time.
pub fn ends_at_once(fields: &Fields) -> Result<bool, ApiError> {
    let Some(value) = fields.get(FIELD) else { return Ok(false) };
    let is_nothing = match value {
        Value::Number(number) => number.as_f64().map(|seconds| seconds == 0.0),
        Value::String(text) => is_no_time(text),
        _ => None,
    };
    is_nothing.ok_or_else(|| wrong(FIELD, value, "seconds, or a time such as \"5m\""))
}

/// Whether a text says a time of nothing, or `None` where it says none.
fn is_no_time(text: &str) -> Option<bool> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(true);
    }
    let (mut is_nothing, mut has_parts) = (true, false);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = UNITS.iter().find_map(|unit| rest[digits..].strip_prefix(unit));
        rest = unit?;
        (is_nothing, has_parts) = (is_nothing && number == 0.0, true);
    }
    has_parts.then_some(is_nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_is_nothing_or_not_or_none() {
        let read = |value: Value| {
            let body = json!({ FIELD: value }).to_string();
            ends_at_once(&Fields::of(body.as_bytes()).unwrap())
        };
        for nothing in [json!(0), json!(0.0), json!("0"), json!("0s"), json!("-0"), json!("0h0.0m0ms")] {
            assert_eq!(read(nothing.clone()), Ok(true), "{nothing}");
        }
        for some in
            [json!(null), json!(5), json!(-1), json!("5m"), json!("-1s"), json!("1.5h"), json!("0h3µs"), json!("300ms")]
        {
            assert_eq!(read(some.clone()), Ok(false), "{some}");
        }
        for wrong in [
            json!(""),
            json!("-"),
            json!("soon"),
            json!("5"),
            json!("5 m"),
            json!("m"),
            json!("1.2.3s"),
            json!(true),
            json!([]),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(FIELD), "{wrong}");
        }
    }
}
