//! Where a template sees that it runs in Python: methods of texts, how values print.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat;
use std::fmt::Write;

/// Deepest nesting that is printed.
const MAX_DEPTH: usize = 128;

/// Whether Python takes a character for a blank.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Calls a method that templates know from Python. What is not here, the library has.
pub fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let known = match (value.as_str(), value.kind(), name) {
        (Some(text), _, "ljust" | "rjust" | "center" | "zfill") => Some(padded(state, text, name, args)?),
        (Some(text), _, "join") => Some(join(state, text, args)?),
        (Some(text), ..) => text_method(state, text, name, args)?,
        (None, ValueKind::Map | ValueKind::Seq, "copy") if args.is_empty() => Some(value.clone()),
        (None, ValueKind::Seq, "index") => {
            let (wanted,): (&Value,) = from_args(args)?;
            for (at, item) in value.try_iter()?.enumerate() {
                state.consume_fuel(1)?;
                if item == *wanted {
                    return Ok(at.into());
                }
            }
            return Err(invalid("the value is not in the list"));
        }
        _ => None,
    };
    known.map_or_else(|| pycompat::unknown_method_callback(state, value, name, args), Ok)
}

/// A text with blanks, another character or zeros around it.
fn padded(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<char>) = from_args(args)?;
    let missing = width.saturating_sub(text.chars().count());
    state.consume_fuel(missing as u64 / 16)?;
    let pad = |len: usize, fill: char| fill.to_string().repeat(len);
    let fill = fill.unwrap_or(' ');
    Ok(Value::from(match name {
        "ljust" => format!("{text}{}", pad(missing, fill)),
        "rjust" => format!("{}{text}", pad(missing, fill)),
        "center" => {
            // The odd one goes where Python puts it.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", pad(left, fill), pad(missing - left, fill))
        }
        _ => {
            let digits = text.trim_start_matches(['+', '-']);
            let sign = if text.len() - digits.len() <= 1 { &text[..text.len() - digits.len()] } else { "" };
            format!("{sign}{}{}", pad(missing, '0'), &text[sign.len()..])
        }
    }))
}

/// The items of a list with a text between them.
fn join(state: &State<'_, '_>, between: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    let mut out = Charged::new(state);
    for (i, item) in items.try_iter()?.checked().enumerate() {
        let item = item?;
        state.consume_fuel(1)?;
        let item = text(state, &item)?;
        out.with(|out| {
            if i > 0 {
                out.write_str(between)?;
            }
            out.write_str(&item)
        })?;
    }
    Ok(out.text.into())
}

fn text_method(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "format" => {
            // Its widths and precisions are numbers of characters, whatever the text is; the library does the rest.
            let digits = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            let widths = digits.map(|digits| digits.parse::<u64>().unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
            state.consume_fuel(widths / 64)?;
            return Ok(None);
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            strip(text, chars, name != "rstrip", name != "lstrip").into()
        }
        "split" | "rsplit" => {
            let (separator, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(options.get("sep")?);
            let most = most.or(options.get("maxsplit")?).unwrap_or(-1);
            options.assert_all_used()?;
            split(state, text, separator, usize::try_from(most).unwrap_or(usize::MAX), name == "rsplit")?
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            options.assert_all_used()?;
            state.consume_fuel(lines(text).count() as u64)?;
            lines(text).map(|(line, end)| if keep { &text[line.start..end] } else { &text[line] }).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found = if name == "partition" { text.find(separator) } else { text.rfind(separator) };
            let parts = match found {
                Some(at) => [&text[..at], separator, &text[at + separator.len()..]],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            parts.into_iter().collect()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "casefold" => {
            let () = from_args(args)?;
            text.to_lowercase().into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            text.chars().map(swapped).collect::<String>().into()
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let at = text.find(part).ok_or_else(|| invalid("substring not found"))?;
            text[..at].chars().count().into()
        }
        _ => return Ok(None),
    }))
}

fn invalid(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn strip<'t>(text: &'t str, chars: Option<&str>, left: bool, right: bool) -> &'t str {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

/// At most `most` cuts, from the right if `reverse`.
fn split(
    state: &State<'_, '_>,
    text: &str,
    separator: Option<&str>,
    most: usize,
    reverse: bool,
) -> Result<Value, Error> {
    let most = most.saturating_add(1);
    let parts = match separator {
        Some(separator) => text.matches(separator).take(most).count(),
        None => text.split(is_space).filter(|word| !word.is_empty()).take(most).count(),
    };
    state.consume_fuel(parts as u64)?;
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(invalid("empty separator")),
        Some(separator) if reverse => text.rsplitn(most, separator).collect(),
        Some(separator) => text.splitn(most, separator).collect(),
        None => words(text, most, reverse),
    };
    if reverse {
        parts.reverse();
    }
    Ok(parts.into_iter().collect())
}

/// Words between blanks, the last of `most` with all that is left; in the order in which they are found.
fn words(text: &str, most: usize, reverse: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = strip(text, None, !reverse, reverse);
    while !rest.is_empty() {
        let cut = if reverse { rest.rfind(is_space) } else { rest.find(is_space) };
        let (word, left) = match cut {
            Some(cut) if words.len() + 1 < most => {
                let blank = rest[cut..].chars().next().map_or(0, char::len_utf8);
                if reverse { (&rest[cut + blank..], &rest[..cut]) } else { (&rest[..cut], &rest[cut + blank..]) }
            }
            _ => (rest, ""),
        };
        words.push(word);
        rest = strip(left, None, !reverse, reverse);
    }
    words
}

/// Every line: its range, and where the next one begins.
fn lines(text: &str) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let len = rest.find(ENDS).unwrap_or(rest.len());
        let end = match &rest[len..] {
            after if after.starts_with("\r\n") => 2,
            after => after.chars().next().map_or(0, char::len_utf8),
        };
        let line = start..start + len;
        start = line.end + end;
        Some((line, start))
    })
}

/// The filter `trim`.
pub fn trim(state: &State<'_, '_>, value: &Value, chars: Option<&str>) -> Result<String, Error> {
    Ok(strip(&text(state, value)?, chars, true, true).to_owned())
}

/// The filter `string`.
pub fn string(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    Ok(if value.as_str().is_some() { value.clone() } else { text(state, value)?.into() })
}

/// The filter `indent`: blanks before every line but the first, and before those that are empty only if that is wanted.
pub fn indent(
    state: &State<'_, '_>,
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let blank: bool = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    let first = first.or(options.get("first")?).unwrap_or(false);
    let width = match width.or(options.get("width")?) {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(width)?.min(dair_core::text::MAX_TEXT_BYTES)),
        },
    };
    options.assert_all_used()?;
    // A line end at the end begins another line, which is empty.
    let text = text(state, value)? + "\n";
    let mut out = String::new();
    for (i, (line, _)) in lines(&text).enumerate() {
        let wanted = if i == 0 { first } else { blank || !line.is_empty() };
        state.consume_fuel(((line.len() + if wanted { width.len() } else { 0 }) / 64) as u64 + 1)?;
        if i > 0 {
            out.push('\n');
        }
        if wanted {
            out.push_str(&width);
        }
        out.push_str(&text[line]);
    }
    Ok(out)
}

/// The filter `pprint`, which breaks no lines here.
pub fn print(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut out = Charged::new(state);
    out.with(|out| repr(out, value, 0))?;
    Ok(out.text)
}

/// The filter `int`: what is no number becomes the default.
pub fn int(value: &Value, default: Option<i64>, options: Kwargs) -> Result<Value, Error> {
    let default = default.or(options.get("default")?).unwrap_or(0);
    let base = options.get::<Option<u32>>("base")?.unwrap_or(10);
    options.assert_all_used()?;
    let whole = |number: f64| number.is_finite().then(|| Value::from(number.trunc() as i128));
    let number = match (value.as_str(), value.kind()) {
        (Some(text), _) => {
            let text = strip(text, None, true, true);
            let parsed = (2..=36).contains(&base).then(|| i128::from_str_radix(text, base).ok()).flatten();
            parsed.map(Value::from).or_else(|| whole(text.parse().ok()?))
        }
        (None, ValueKind::Bool) => Some(i64::from(value.is_true()).into()),
        (None, ValueKind::Number) if value.is_integer() => Some(value.clone()),
        (None, ValueKind::Number) => f64::try_from(value.clone()).ok().and_then(whole),
        _ => None,
    };
    Ok(number.unwrap_or_else(|| default.into()))
}

/// The test `sequence`: whatever has a length and items.
pub fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// The test `iterable`.
pub fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// The test `callable`: functions and macros.
pub fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain
}

/// A text in the making that takes fuel as it grows: a short expression may stand for a hundred million items.
struct Charged<'s> {
    state: &'s State<'s, 's>,
    text: String,
    /// Why it can't grow.
    error: Option<Error>,
}

impl<'s> Charged<'s> {
    fn new(state: &'s State<'_, '_>) -> Self {
        Self { state, text: String::new(), error: None }
    }

    /// Writes; what fails is the fuel.
    fn with(&mut self, write: impl FnOnce(&mut Self) -> std::fmt::Result) -> Result<(), Error> {
        write(self).map_err(|_| self.error.take().unwrap_or_else(|| ErrorKind::WriteFailure.into()))
    }
}

impl Write for Charged<'_> {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        self.state.consume_fuel(1 + part.len() as u64 / 64).map_err(|error| {
            self.error = Some(error);
            std::fmt::Error
        })?;
        self.text.push_str(part);
        Ok(())
    }
}

/// Python's `str(value)`.
fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => print(state, value),
    }
}

/// Prints a value as Python's Jinja does.
pub fn write(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let result = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&text(state, value)?),
    };
    result.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

/// Python's `repr(value)`; nothing for what is undefined.
fn repr(out: &mut Charged<'_>, value: &Value, depth: usize) -> std::fmt::Result {
    // A list times a number is no list of the library's; it would walk through all of it, whatever becomes of the text.
    let is_list = |kind| kind == ValueKind::Seq || kind == ValueKind::Iterable && value.len().is_some();
    match value.kind() {
        ValueKind::String => out.write_str(&quote(value.as_str().unwrap_or_default())),
        ValueKind::Number if !value.is_integer() => {
            let number = f64::try_from(value.clone()).map_err(|_| std::fmt::Error)?;
            out.write_str(&float(number))
        }
        kind if (is_list(kind) || kind == ValueKind::Map) && depth >= MAX_DEPTH => out.write_char('…'),
        kind if is_list(kind) => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.write_char(open)?;
            for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                repr(out, &item, depth + 1)?;
            }
            if value.is_tuple() && value.len() == Some(1) {
                out.write_char(',')?;
            }
            out.write_char(close)
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (i, key) in value.try_iter().into_iter().flatten().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                repr(out, &key, depth + 1)?;
                out.write_str(": ")?;
                repr(out, &value.get_item(&key).unwrap_or_default(), depth + 1)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

/// A text in Python's quotes: single ones unless it has some and no double ones.
fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == mark => out.extend(['\\', c]),
            _ if c.is_control() && u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push(mark);
    out
}

/// Python's `repr` of a number: the fewest digits that give it back, with an exponent where that is shorter.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => {
            let plain = number.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::environment::environment;
    use super::*;

    fn render(source: &str) -> String {
        environment().unwrap().render_str(source, minijinja::context! {}).unwrap_or_else(|e| panic!("{source}: {e}"))
    }

    #[test]
    fn values_print_as_in_python() {
        for (source, expected) in [
            ("{{ [true, none, 1, 2.0, 'a\\'b', \"c\"] }}", r#"[True, None, 1, 2.0, "a'b", 'c']"#),
            ("{{ {'a': ('x',), 1: {}} }}", "{'a': ('x',), 1: {}}"),
            (
                "{{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 0.1 + 0.2 }}",
                "1e+16 1000000000000000.0 0.0001 1e-05 0.30000000000000004",
            ),
            ("{{ missing }}|{{ none }}|{{ false }}", "|None|False"),
            ("{{ [1] | string }}{{ ['a\\n'] | trim }}", "[1]['a\\n']"),
        ] {
            assert_eq!(render(source), expected, "{source}");
        }
        assert_eq!((float(-0.0), float(1.5e300), float(f64::NAN)), ("-0.0".into(), "1.5e+300".into(), "nan".into()));
    }

    #[test]
    fn texts_have_the_methods_of_python() {
        for (expression, expected) in [
            ("' \\x1c a \\n'.strip()", "a"),
            ("'--a--'.lstrip('-')", "a--"),
            ("'--a--'.rstrip('-')", "--a"),
            ("' a  b '.split()", "['a', 'b']"),
            ("' a  b c '.split(none, 1)", "['a', 'b c ']"),
            ("' a  b c '.rsplit(maxsplit=1)", "[' a  b', 'c']"),
            ("'a,b,c'.split(',', maxsplit=1)", "['a', 'b,c']"),
            ("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"),
            ("''.split()", "[]"),
            ("''.split(',')", "['']"),
            ("'a\\r\\nb\\n\\nc\\n'.splitlines()", "['a', 'b', '', 'c']"),
            ("'a\\r\\nb'.splitlines(true)", "['a\\r\\n', 'b']"),
            ("'a=b=c'.partition('=') | list", "['a', '=', 'b=c']"),
            ("'a=b=c'.rpartition('=') | list", "['a=b', '=', 'c']"),
            ("'abc'.removeprefix('a').removesuffix('c')", "b"),
            ("'éab'.index('b')", "2"),
            ("'x</think>\\n\\ny'.split('</think>')[-1].lstrip('\\n')", "y"),
            ("{'a': 1}.copy()", "{'a': 1}"),
            ("[1, 'x', 2].index(2)", "2"),
            ("'ab'.ljust(4, '.') + 'ab'.rjust(4) + 'ab'.center(5) ~ '|'", "ab..  ab  ab |"),
            ("'-7'.zfill(4) + '7'.zfill(0) + 'aÉß'.swapcase() + 'AÉ'.casefold()", "-0077AéSSaé"),
            (
                "['x' | int, '0x' | int(3), ' 12 ' | int, '2.9' | int, 2.9 | int, '1f' | int(base=16), true | int]",
                "[0, 3, 12, 2, 2, 31, 1]",
            ),
            (
                "['a' is sequence, {} is sequence, 1 is sequence, none is iterable, [] is iterable, 'a' is iterable]",
                "[True, True, False, False, True, True]",
            ),
            ("'a\\n\\nb\\n' | indent(2)", "a\n\n  b\n"),
            ("'a\\n\\nb' | indent(width='-', first=true, blank=true)", "-a\n-\n-b"),
            ("'{\\n' | indent(2, true) ~ '' | indent(2) ~ '|'", "  {\n|"),
            ("[range is callable, 'a' is callable]", "[True, False]"),
        ] {
            assert_eq!(render(&format!("{{{{ {expression} }}}}")), expected, "{expression}");
        }
    }
}
