//! What is spelled in another way here than in Jinja for Python, put right in a template's source before it is compiled.
//!
//! * Line ends are `\n`, whatever the file has.
//! * `{% generation %}` marks the model's own words for training. It is transformers' tag and none of Jinja: a block that
//!   does nothing takes its place, with the same rules for blanks.
//! * `'…' % values` formats a text; here the filter `format` does.

/// Most words and marks of a tag, texts in quotes not counted: each may be a level that a compiler descends. Published
/// templates have 50.
const MAX_WORDS: usize = 5_000;
/// Most `{% elif %}` of a template: each is a level, too.
const MAX_ELIFS: usize = 1_000;

/// The line of a tag that nobody could compile, and why.
pub fn too_deep(source: &str) -> Option<(usize, String)> {
    let (mut at, mut elifs) = (0, 0);
    while let Some(start) = next_tag(&source[at..]).map(|start| at + start) {
        let tag = &source[start..start + tag_end(&source[start..])];
        at = start + tag.len();
        let line = || source[..start].matches('\n').count() + 1;
        if !tag.starts_with("{#") {
            let word = first_word(tag);
            elifs += usize::from(word == "elif");
            // There is no other one; and some forms of it the library takes for impossible.
            if tag.starts_with("{%") && matches!(word, "import" | "from") {
                return Some((line(), "a template can't import another one".into()));
            }
            if words(tag) > MAX_WORDS {
                return Some((line(), format!("a tag of more than {MAX_WORDS} words")));
            }
            if elifs > MAX_ELIFS {
                return Some((line(), format!("more than {MAX_ELIFS} elif")));
            }
        }
    }
    None
}

/// The word that says what a tag does.
fn first_word(tag: &str) -> &str {
    let inner = tag.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '{' | '%' | '-' | '+'));
    &inner[..word_len(inner)]
}

fn words(tag: &str) -> usize {
    let (mut words, mut at) = (0, 0);
    while at < tag.len() {
        at += match tag.as_bytes()[at] {
            b'\'' | b'"' => quoted_len(&tag[at..]),
            _ => match word_len(&tag[at..]) {
                0 => char_len(&tag[at..]),
                len => len,
            },
        };
        words += usize::from(!tag[..at].ends_with([' ', '\n', '\t']));
    }
    words
}

/// The source as it is compiled.
pub fn translate(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut result = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let end = tag_end(tag);
        rest = &tag[end..];
        match &tag[..2] {
            "{#" => result.push_str(&tag[..end]),
            _ => result.push_str(&expressions(&without_generation(&tag[..end]))),
        }
        if is_word(&tag[..end], "raw") {
            let raw = raw_end(rest);
            result.push_str(&rest[..raw]);
            rest = &rest[raw..];
        }
    }
    result + rest
}

/// Where the next tag, expression or comment opens.
fn next_tag(text: &str) -> Option<usize> {
    text.match_indices('{').map(|(i, _)| i).find(|i| matches!(text.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#')))
}

/// Where what opens here is closed; texts in quotes close nothing.
fn tag_end(tag: &str) -> usize {
    let close = match &tag[..2] {
        "{#" => return tag.find("#}").map_or(tag.len(), |at| at + 2),
        "{%" => "%}",
        _ => "}}",
    };
    let mut at = 2;
    while at < tag.len() {
        match tag.as_bytes()[at] {
            b'\'' | b'"' => at += quoted_len(&tag[at..]),
            _ if tag[at..].starts_with(close) => return at + 2,
            _ => at += char_len(&tag[at..]),
        }
    }
    tag.len()
}

fn raw_end(text: &str) -> usize {
    let ends = text.match_indices("{%").map(|(i, _)| i);
    ends.into_iter().find(|i| is_word(&text[*i..], "endraw")).unwrap_or(text.len())
}

/// Whether a tag begins with this word, and says nothing else.
fn is_word(tag: &str, word: &str) -> bool {
    let inner = tag.strip_prefix("{%").and_then(|tag| tag.split_once("%}"));
    inner.is_some_and(|(inner, _)| inner.trim_matches(['-', '+', ' ', '\t', '\n']) == word)
}

fn without_generation(tag: &str) -> String {
    match (is_word(tag, "generation"), is_word(tag, "endgeneration")) {
        (true, _) => tag.replace("generation", "with"),
        (_, true) => tag.replace("endgeneration", "endwith"),
        _ => tag.to_owned(),
    }
}

/// A tag with `'…' % values` as `'…' | format(values)`.
fn expressions(tag: &str) -> String {
    let mut result = String::with_capacity(tag.len());
    let mut at = 0;
    while at < tag.len() {
        if !matches!(tag.as_bytes()[at], b'\'' | b'"') {
            let len = char_len(&tag[at..]);
            result.push_str(&tag[at..at + len]);
            at += len;
            continue;
        }
        let end = at + quoted_len(&tag[at..]);
        result.push_str(&tag[at..end]);
        at = end;
        let percent = at + blanks(&tag[at..]);
        let operand = percent + 1;
        if tag[percent..].starts_with('%') && !tag[percent..].starts_with("%}") {
            let start = operand + blanks(&tag[operand..]);
            let end = start + operand_len(&tag[start..]);
            result.push_str(" | format(");
            result.push_str(&expressions(values(&tag[start..end])));
            result.push(')');
            at = end;
        }
    }
    result
}

/// What stands in the brackets of a tuple, or all of it.
fn values(operand: &str) -> &str {
    match operand.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) if bracket_len(operand) == operand.len() => inner.trim_end().trim_end_matches(','),
        _ => operand,
    }
}

/// Length of a value with what belongs to it more closely than `%`: attributes, items, calls, filters.
fn operand_len(text: &str) -> usize {
    let mut at = match text.as_bytes().first() {
        Some(b'(' | b'[' | b'{') => bracket_len(text),
        Some(b'\'' | b'"') => quoted_len(text),
        _ => word_len(text),
    };
    loop {
        let next = at + blanks(&text[at..]);
        at = match text.as_bytes().get(next) {
            Some(b'(' | b'[') => next + bracket_len(&text[next..]),
            Some(b'.') => next + 1 + word_len(&text[next + 1..]),
            Some(b'|') => {
                let name = next + 1 + blanks(&text[next + 1..]);
                name + word_len(&text[name..])
            }
            _ => return at,
        };
    }
}

/// Length of a bracket with all that is in it.
fn bracket_len(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        match text.as_bytes()[at] {
            b'\'' | b'"' => {
                at += quoted_len(&text[at..]);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += char_len(&text[at..]);
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Length of a text in quotes, the quotes included.
fn quoted_len(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    let mut at = 1;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'\\' => at += 1 + text.get(at + 1..).map_or(0, char_len),
            byte if byte == quote => return at + 1,
            _ => at += char_len(&text[at..]),
        }
    }
    text.len()
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn char_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::super::environment::environment;
    use super::*;
    use proptest::prelude::*;

    fn render(source: &str) -> String {
        let mut environment = environment().unwrap();
        environment.add_template_owned("t", translate(source)).unwrap();
        let template = environment.get_template("t").unwrap();
        template
            .render(minijinja::context! { messages => ["a", "b"], x => 5 })
            .unwrap_or_else(|e| panic!("{source}: {e}"))
    }

    #[test]
    fn generation_tags_are_taken_out_with_the_blanks_that_they_take() {
        let source =
            "x {%- generation -%} {{ '{%' }}{% for m in messages %}{{ m }}{% endfor %} {%- endgeneration %}\n y";
        assert_eq!(render(source), "x{%ab y");
        assert_eq!(
            render("{% if generation %}{% endif %}{{ 'generation %}' }}{# '{% generation %} #}"),
            "generation %}"
        );
        assert_eq!(render("{% raw %}{% generation %}{{ '%s' % x }}{% endraw %}"), "{% generation %}{{ '%s' % x }}");
    }

    #[test]
    fn texts_are_formatted_by_percent() {
        for (source, expected) in [
            ("{{ '%s is %d and %.2f' % ('a', 3, 1.5) }}", "a is 3 and 1.50"),
            ("{{ '%s' % x }}{{ \"%s\" % messages[0] | upper ~ '!' }}", "5A!"),
            ("{{ '%03d|' % (x + 1,) + '%%' % () }}", "006|%"),
            ("{% if 'a' %}{{ 7 % 4 }}{% endif %}{{ '%}' }}", "3%}"),
            ("{{ '%s' % ({'a': ')'}['a']) }}", ")"),
        ] {
            assert_eq!(render(source), expected, "{source}");
        }
    }

    #[test]
    fn line_ends_of_other_systems_are_line_ends() {
        assert_eq!(render("a\r\n{% if true %}\r\nb\r{% endif %}\r\nc"), "a\nb\nc");
    }

    proptest! {
        #[test]
        fn any_source_is_translated_and_most_stays_as_it_is(
            source in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|'|\"|\\\\|%|\\(|\\)|\\[|é|x| |\\.|\\||raw|endraw|generation|\r|\n){0,20}"
        ) {
            let translated = translate(&source);
            if !source.contains('%') {
                prop_assert_eq!(translated, source.replace("\r\n", "\n").replace('\r', "\n"));
            }
        }
    }
}
