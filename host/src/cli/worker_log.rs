//! What a worker tells whoever watches it: lines for people, or an object of JSON for each of them.

use crate::machine::terminal;
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::time::SystemTime;

/// What `--log` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// For programs: in each line an object with time, level, event, message and what the event is about
    Json,
}

/// Where a worker writes: what is as it should be to standard output, the rest to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    format: LogFormat,
    quiet: bool,
}

impl Log {
    /// A log of this format; a `quiet` one tells of errors only.
    pub const fn of(format: LogFormat, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Tells of an `event` that is as it should be, with `fields` of an object for programs. A worker works for its root, and goes on where
    /// nobody listens.
    pub fn say(&self, event: &str, message: impl Display, fields: Value) {
        if !self.quiet {
            let _ = terminal::print_line(self.line("info", event, message, fields));
        }
    }

    /// Tells of one that somebody should look at.
    pub fn warn(&self, event: &str, message: impl Display, fields: Value) {
        terminal::note(self.line("warning", event, message, fields));
    }

    /// Tells why the worker ends.
    pub fn fail(&self, error: impl Display) {
        let line = match self.format {
            LogFormat::Text => format!("error: {error}"),
            LogFormat::Json => self.line("error", "failed", error, json!({})),
        };
        terminal::note(line);
    }

    fn line(&self, level: &str, event: &str, message: impl Display, fields: Value) -> String {
        if self.format == LogFormat::Text {
            return message.to_string();
        }
        let mut line = Map::new();
        line.insert("time".into(), humantime::format_rfc3339_millis(SystemTime::now()).to_string().into());
        line.insert("level".into(), level.into());
        line.insert("event".into(), event.into());
        line.insert("message".into(), message.to_string().into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        Value::Object(line).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_for_people_or_an_object() {
        let fields = json!({"root": "10.0.0.1:7", "node": 2});
        let line = |format| Log::of(format, false).line("info", "session_began", "a\n\"b\"", fields.clone());
        assert_eq!(line(LogFormat::Text), "a\n\"b\"");
        let text = line(LogFormat::Json);
        assert!(!text.contains('\n'), "{text}");
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&object["level"], &object["event"]), (&json!("info"), &json!("session_began")));
        assert_eq!((&object["message"], &object["node"]), (&json!("a\n\"b\""), &json!(2)));
        let time = object["time"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }
}
