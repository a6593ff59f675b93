//! What a template runs in: the environment that transformers makes for chat templates, as far as a template can tell.

use super::{clock, json, python};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use std::fmt;

/// What one rendering may use up: an instruction or 64 bytes of text each take one. Templates in use take some hundred per
/// message. This many are over in a second and hold 128 MB at most, however hostile the template is.
const FUEL: u64 = 2_000_000;

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
    environment.set_formatter(|out, _, value| python::write(out, value));
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("string", python::string);
    environment.add_filter("int", python::int);
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

#[cfg(test)]
mod tests {
    use super::super::source::translate;
    use super::*;
    use minijinja::context;

    fn render(source: &str) -> Result<String, Error> {
        let mut environment = environment().unwrap();
        environment.add_template_owned("t", translate(source))?;
        environment.get_template("t")?.render(context! { messages => ["a", "b"] })
    }

    #[test]
    fn hostile_templates_end_soon() {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{{ 'a' * 1000000000000 }}",
            "{{ 'a'.replace('', 'b' * 10000).replace('b', 'c' * 10000) }}",
            "{{ '%999999999d' | format(1) }}",
            "{{ '{:>999999999}'.format(1) }}",
            "{% set x = range(99999999) | list %}",
            "{{ (('x,' * 1000000).split(',') * 1000) | length }}",
            "{{ ([['x'] * 1000] * 1000000) | tojson }}",
            "{{ [[[1, 2, 3]] * 100000] | tojson(indent=100000000) }}",
            "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
            "{{ strftime_now('%c' * 1000000) }}",
            "{{ ('a' * 10000).ljust(1000000000000) }}",
        ] {
            let start = std::time::Instant::now();
            let result = render(source);
            assert!(result.is_err(), "{source}: {} bytes", result.unwrap().len());
            assert!(start.elapsed().as_secs() < 20, "{source} took {:?}", start.elapsed());
        }
        let deep = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(100_000), close.repeat(100_000));
        for source in [deep("(", ")"), deep("[", "]"), deep("not ", ""), deep("-", ""), deep("", "[0]")] {
            assert!(render(&source).is_err(), "{}…", &source[..20]);
        }
        assert!(render(&"{% if 1 %}".repeat(100_000)).is_err());
    }
}
