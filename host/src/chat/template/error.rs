//! Why there is no text.

use std::fmt;

/// Why a template can't be used, as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// It is no Jinja that we understand: its name, the line, the reason.
    Compile(String, usize, String),
    /// It gave up: its name, the line, the reason.
    Render(String, usize, String),
}

impl TemplateError {
    pub(super) fn compile(name: &str, error: &minijinja::Error) -> Self {
        Self::Compile(name.to_owned(), error.line().unwrap_or(0), one_line(error))
    }

    pub(super) fn render(name: &str, error: &minijinja::Error) -> Self {
        Self::Render(name.to_owned(), error.line().unwrap_or(0), one_line(error))
    }
}

fn one_line(error: &minijinja::Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compile(name, line, reason) => write!(f, "{name}, line {line}: {reason}"),
            Self::Render(name, line, reason) => write!(f, "{name}, line {line}: {reason}"),
        }
    }
}

impl std::error::Error for TemplateError {}
