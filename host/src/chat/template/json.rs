//! `tojson` as transformers defines it: Python's `json.dumps`, which leaves letters of all scripts as they are.

use super::python::float;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting that is written.
const MAX_DEPTH: usize = 128;

/// The filter; `indent` may be given by position, as templates for Jinja's own filter do.
pub fn tojson(state: &State<'_, '_>, value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent.or(options.get("indent")?).filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?.min(64)),
        }),
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }, ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts")),
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        paid: 0,
        indent: indent.as_deref(),
        item,
        key,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'w> {
    state: &'w State<'w, 'w>,
    out: String,
    /// Bytes that fuel was taken for.
    paid: usize,
    indent: Option<&'w str>,
    item: &'w str,
    key: &'w str,
    ascii: bool,
    sort: bool,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if self.out.len() - self.paid >= 64 {
            self.state.consume_fuel(((self.out.len() - self.paid) / 64) as u64)?;
            self.paid = self.out.len();
        }
        self.state.consume_fuel(1)?;
        let refused = || Error::new(ErrorKind::BadSerialization, format!("tojson: {} has no JSON", value.kind()));
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&json_float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map if depth >= MAX_DEPTH => return Err(refused()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked();
                self.list('[', ']', depth, items, |writer, item| writer.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                if self.sort {
                    keys.sort();
                }
                self.list('{', '}', depth, keys.into_iter().map(Ok), |writer, key| {
                    match key.as_str() {
                        Some(text) => writer.string(text),
                        None => {
                            writer.out.push('"');
                            writer.value(&key, MAX_DEPTH)?;
                            writer.out.push('"');
                        }
                    }
                    writer.out.push_str(writer.key);
                    writer.value(&value.get_item(&key)?, depth + 1)
                })?;
            }
            _ => return Err(refused()),
        }
        Ok(())
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        depth: usize,
        items: impl Iterator<Item = Result<Value, Error>>,
        mut write: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let mut empty = true;
        for item in items {
            if !empty {
                self.out.push_str(self.item);
            }
            empty = false;
            self.line(depth + 1);
            write(self, item?)?;
        }
        if !empty {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| self.out.push_str(&format!("\\u{unit:04x}")));
                }
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn json_float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => float(number),
    }
}

#[cfg(test)]
mod tests {
    use super::super::environment::environment;
    use minijinja::Value;

    fn render(expression: &str, json: &str) -> Result<String, minijinja::Error> {
        let value: Value = serde_json::from_str(json).unwrap();
        let environment = environment().unwrap();
        environment.render_str(&format!("{{{{ {expression} }}}}"), minijinja::context! { x => value })
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        let json = r#"{"b": [1, -2.0, 1e22, 1e-7, true, null], "a": {}, "é\n\"\u0001\u007f😀<&'": [[]]}"#;
        let plain = r#"{"b": [1, -2.0, 1e+22, 1e-07, true, null], "a": {}, "é\n\"\u0001|😀<&'": [[]]}"#;
        assert_eq!(render("x | tojson", json).unwrap(), plain.replace('|', "\u{7f}"));
        let ascii = r#"{"a":{},"b":[1,-2.0,1e+22,1e-07,true,null],"\u00e9\n\"\u0001|\ud83d\ude00<&'":[[]]}"#;
        let options = "x | tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true)";
        assert_eq!(render(options, json).unwrap(), ascii.replace('|', "\u{7f}"));
        let indented = "{\n    \"a\": [\n        1,\n        {}\n    ],\n    \"b\": []\n}";
        assert_eq!(render("x | tojson(indent=4)", r#"{"a": [1, {}], "b": []}"#).unwrap(), indented);
        assert_eq!(render("x | tojson(4)", r#"{"a": [1, {}], "b": []}"#).unwrap(), indented);
        assert_eq!(render("{1: 'a'} | tojson", "0").unwrap(), r#"{"1": "a"}"#);
    }

    #[test]
    fn what_has_no_json_is_refused() {
        for wrong in ["y | tojson", "x | tojson(wrong=1)", "x | tojson(separators=(1, 2, 3))", "range | tojson"] {
            assert!(render(wrong, "0").is_err(), "{wrong}");
        }
    }
}
