//! What a template runs in: the environment that transformers makes for chat templates, as far as a template can tell.

use super::{clock, json, python};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use std::fmt;

/// What one rendering may use up: an instruction or 64 bytes of text each take one. Templates in use take some hundred per
/// message. This many are over in a second and hold 64 MB at most, however hostile the template is.
const FUEL: u64 = 1_000_000;

/// An environment without templates.
///
/// # Errors
/// None: the syntax is a constant.
pub fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    // So that errors know their line.
    environment.set_debug(true);
    environment.set_formatter(|out, state, value| python::write(out, state, value));
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("string", python::string);
    environment.add_filter("int", python::int);
    environment.add_filter("indent", python::indent);
    environment.add_filter("pprint", python::print);
    environment.add_test("sequence", python::is_sequence);
    environment.add_test("iterable", python::is_iterable);
    environment.add_test("callable", python::is_callable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", clock::strftime_now);
    environment.remove_global("debug");
    Ok(environment)
}

/// What a template says that refuses its messages.
#[derive(Debug)]
pub struct Raised(pub String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}
