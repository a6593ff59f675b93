//! Why there is no text.

use super::builtin;
use super::environment::Raised;
use dair_core::text::MAX_TEXT_BYTES;
use std::error::Error;
use std::fmt;

/// Why a template can't be used, as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// The model has none, and nothing tells which one it was trained with.
    None,
    /// What was asked for is neither a built-in template nor a file.
    Unknown(String),
    /// A file can't be read: its name and the reason.
    File(String, String),
    /// It is no Jinja that we understand, or fails with the messages: its name, the line where known, the reason.
    Jinja(String, Option<usize>, String),
    /// The template itself refuses the messages: its name, what it says.
    Raised(String, String),
    /// The model's own one is of no use, and no built-in one is like it.
    Unusable(Box<TemplateError>),
    /// The text would be longer than can be encoded: the template's name and the bytes.
    TooLong(String, usize),
    /// The messages use every character that could keep control tokens out of them.
    NoGuard,
}

impl TemplateError {
    pub(super) fn jinja(name: &str, error: &minijinja::Error) -> Self {
        if let Some(Raised(message)) = raised(error) {
            return Self::Raised(name.to_owned(), one_line(message));
        }
        let kind = error.kind();
        let reason = error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}"));
        Self::Jinja(name.to_owned(), error.line(), one_line(&reason))
    }
}

/// What the template raised, if that is what this error comes from.
fn raised(error: &minijinja::Error) -> Option<&Raised> {
    let mut cause = error.source();
    while let Some(error) = cause {
        match error.downcast_ref::<Raised>() {
            Some(raised) => return Some(raised),
            None => cause = error.source(),
        }
    }
    None
}

/// Without line ends, and not longer than a line should be.
fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let words: Vec<_> = text.split_whitespace().collect();
    let printable = words.join(" ").replace(char::is_control, "");
    match printable.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &printable[..end]),
        None => printable,
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(
                f,
                "the tokenizer file has no chat template: choose one with --template, a Jinja file or one of {}",
                builtin::names()
            ),
            Self::Unknown(name) => {
                write!(f, "{name} is no file and no built-in template for --template; there are {}", builtin::names())
            }
            Self::File(name, reason) => write!(f, "cannot read the template {name}: {reason}"),
            Self::Jinja(name, Some(line), reason) => write!(f, "{name}, line {line}: {reason}"),
            Self::Jinja(name, None, reason) => write!(f, "{name}: {reason}"),
            Self::Raised(name, message) => write!(f, "{name} refuses the messages: {message}"),
            Self::Unusable(error) => {
                write!(f, "{error}; choose another with --template, a Jinja file or one of {}", builtin::names())
            }
            Self::TooLong(name, bytes) => {
                write!(f, "{name} makes a text of {bytes} bytes; at most {MAX_TEXT_BYTES} are encoded at once")
            }
            Self::NoGuard => f.write_str(
                "the messages use all of the characters U+FDD0 to U+FDEF and of the private planes: leave one out",
            ),
        }
    }
}

impl Error for TemplateError {}
