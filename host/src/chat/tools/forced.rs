//! The form of answers that must call tools, or whose calls must fit the schemas of their arguments.

use super::Family;
use crate::chat::grammar::{Form, Mark, literal};
use dair_core::text::Vocabulary;
use serde_json::{Value, json};
use std::fmt::Write;

/// What is wanted of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Want<'t> {
    /// The tools that it may call, as in the OpenAI API.
    pub tools: &'t [Value],
    /// It is nothing but calls; else text may come before them, or instead of them.
    pub is_forced: bool,
    /// The form of answers without calls, if they have one; no text comes before calls then.
    pub form: Option<&'t Form>,
    /// It may have several.
    pub may_repeat: bool,
}

/// The grammar of such an answer of a model of this family.
pub fn forced(family: Family, want: Want<'_>, vocab: &Vocabulary<'_>) -> Form {
    Form::Grammar(Writer { family, vocab, want }.grammar())
}

/// Most calls of an answer: small models repeat themselves without an end.
const MOST: u32 = 16;
/// How often a call may follow another one.
const MORE: &str = "{0,15}";

struct Writer<'w> {
    family: Family,
    vocab: &'w Vocabulary<'w>,
    want: Want<'w>,
}

/// The name of a tool, and the schema of its arguments.
fn parts(tool: &Value) -> (&str, Value) {
    let function = &tool["function"];
    let parameters = Some(&function["parameters"]).filter(|parameters| parameters.is_object());
    let arguments = parameters.cloned().unwrap_or_else(|| json!({ "type": "object" }));
    (function["name"].as_str().unwrap_or_default(), arguments)
}

impl Writer<'_> {
    fn grammar(&self) -> String {
        let Self { family, want, .. } = self;
        let (call, several) = (self.call(), want.may_repeat);
        // What opens the first call is told from text, which may come before it.
        let (opens, body, more) = match family {
            Family::Hermes | Family::QwenCoder => {
                (Some("<tool_call>"), format!(r"/\s?/ {call} /\s?/ {}", self.mark("</tool_call>")), None)
            }
            Family::Llama => (None, call.to_owned(), Some("\"; \"")),
            Family::Mistral => (Some("[TOOL_CALLS]"), call.to_owned(), None),
            Family::MistralArgs => (Some("[TOOL_CALLS]"), call.to_owned(), None),
            Family::DeepSeek => {
                let ends = self.mark("<｜tool▁calls▁end｜>");
                let repeat = if several { format!("(/\\n/ call){MORE}") } else { String::new() };
                (Some("<｜tool▁calls▁begin｜>"), format!("{call} {repeat} {ends}"), None)
            }
        };
        let mut text = String::new();
        // Mistral's list and DeepSeek's frame hold several calls themselves.
        let repeats = several && !matches!(family, Family::Mistral | Family::DeepSeek);
        let start = match opens {
            Some(opens) => {
                let mark = self.mark(opens);
                let again = if repeats { format!("(/\\s?/ {mark} body){MORE}") } else { String::new() };
                match want.form {
                    _ if want.is_forced => format!("{mark} body {again}"),
                    Some(form) => {
                        let _ = writeln!(text, "answer: {}", form.rule());
                        format!("{mark} body {again} | answer")
                    }
                    None => {
                        let _ = writeln!(text, "TEXT: /(?s:.*)/\nopened{}: TEXT {mark}", self.lazily(opens));
                        let times = if repeats { format!("{{0,{MOST}}}") } else { "?".to_owned() };
                        format!("(opened body){times} TEXT")
                    }
                }
            }
            None => {
                let again = more.filter(|_| repeats).map(|more| format!("({more} body){MORE}")).unwrap_or_default();
                match want.form {
                    _ if want.is_forced => format!("body {again}"),
                    Some(form) => {
                        let _ = writeln!(text, "answer: {}", form.rule());
                        format!("body {again} | answer")
                    }
                    None => {
                        text.push_str("TEXT: /[^{](?s:.*)/\n");
                        format!("body {again} | TEXT")
                    }
                }
            }
        };
        let _ = write!(text, "start: {start}\nbody: {body}\n{}", self.rules());
        text
    }

    /// A mark, as a rule has it.
    fn mark(&self, text: &str) -> String {
        Mark::of(self.vocab, text).text
    }

    /// Text ends where a mark that is text is whole; a token ends it anyway.
    fn lazily(&self, mark: &str) -> &'static str {
        if Mark::of(self.vocab, mark).is_token { "" } else { "[lazy]" }
    }

    /// What stands for a call in `body`.
    fn call(&self) -> &'static str {
        match self.family {
            Family::Mistral => "calls",
            _ => "call",
        }
    }

    /// An object with the name of a tool and its arguments.
    fn object(&self, arguments: &str) -> Value {
        let one = |tool: &Value| {
            let (name, schema) = parts(tool);
            json!({ "type": "object", "properties": { "name": { "const": name }, arguments: schema },
                "required": ["name", arguments], "additionalProperties": false })
        };
        json!({ "anyOf": self.want.tools.iter().map(one).collect::<Vec<_>>() })
    }

    /// The rules of calls.
    fn rules(&self) -> String {
        let json = |value: &Value| Form::Schema(value.clone()).rule();
        let each = |one: &dyn Fn(usize, &str, &Value) -> String| {
            let all = self.want.tools.iter().enumerate().map(|(at, tool)| {
                let (name, arguments) = parts(tool);
                one(at, name, &arguments)
            });
            all.collect::<Vec<_>>()
        };
        let alternatives = || each(&|at, _, _| format!("call_{at}")).join(" | ");
        match self.family {
            Family::Hermes => format!("call: {}\n", json(&self.object("arguments"))),
            Family::Llama => format!("call: {}\n", json(&self.object("parameters"))),
            Family::Mistral => {
                let mut list = json!({ "type": "array", "items": self.object("arguments"), "minItems": 1 });
                list["maxItems"] = if self.want.may_repeat { MOST } else { 1 }.into();
                format!("calls: {}\n", json(&list))
            }
            Family::MistralArgs => {
                let args = self.mark("[ARGS]");
                let rules =
                    each(&|at, name, arguments| format!("call_{at}: {} {args} {}\n", literal(name), json(arguments)));
                format!("call: {}\n{}", alternatives(), rules.concat())
            }
            Family::DeepSeek => {
                let (begin, end) = (self.mark("<｜tool▁call▁begin｜>"), self.mark("<｜tool▁call▁end｜>"));
                let between = self.mark("<｜tool▁sep｜>");
                let rules = each(&|at, name, arguments| {
                    let head = literal(&format!("{name}\n```json\n"));
                    format!("call_{at}: {begin} \"function\" {between} {head} {} \"\\n```\" {end}\n", json(arguments))
                });
                format!("call: {}\n{}", alternatives(), rules.concat())
            }
            Family::QwenCoder => {
                let rules = each(&|at, name, arguments| self.coder(at, name, arguments));
                format!("call: {}\n{}", alternatives(), rules.concat())
            }
        }
    }

    /// A call of a tool with its parameters between tags, in the order of the schema; texts end where a tag begins.
    fn coder(&self, at: usize, name: &str, arguments: &Value) -> String {
        let is_required =
            |key: &str| arguments["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
        let (mut call, mut rules) = (String::new(), String::new());
        for (number, (key, kind)) in arguments["properties"].as_object().into_iter().flatten().enumerate() {
            let value = if kind["type"] == "string" && kind.get("enum").is_none() {
                let most = kind["maxLength"].as_u64().map_or_else(String::new, |most| most.to_string());
                format!("/[^<]{{{},{most}}}/", kind["minLength"].as_u64().unwrap_or(0))
            } else if let Some(all) = kind["enum"].as_array().filter(|_| kind["type"] == "string") {
                all.iter().map(|one| literal(one.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" | ")
            } else {
                Form::Schema(kind.clone()).rule()
            };
            let _ = write!(call, " parameter_{at}_{number}{}", if is_required(key) { "" } else { "?" });
            let opens = literal(&format!("<parameter={key}>\n"));
            let closes = literal("\n</parameter>\n");
            let _ = write!(
                rules,
                "parameter_{at}_{number}: {opens} value_{at}_{number} {closes}\nvalue_{at}_{number}: {value}\n"
            );
        }
        let opens = literal(&format!("<function={name}>\n"));
        format!("call_{at}: {opens}{call} \"</function>\"\n{rules}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::grammar::Forms;
    use crate::chat::grammar::tests::{chatter, tokenizer};
    use crate::chat::tools::{Calls, Piece};

    fn tools() -> Vec<Value> {
        vec![
            json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
                "city": {"type": "string", "maxLength": 5}, "unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer",
                "minimum": 1, "maximum": 9}}, "required": ["city", "days"], "additionalProperties": false}}}),
            json!({"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {},
                "additionalProperties": false}}}),
        ]
    }

    /// All that was said, the text of it, and calls.
    type Said = (String, String, Vec<(String, String)>);

    /// What a model says that would say anything; nothing where it goes on and on.
    fn say(family: Family, want: Want<'_>, seed: u64) -> Option<Said> {
        let tokenizer = tokenizer();
        let form = forced(family, want, tokenizer.vocabulary());
        let constraint =
            Forms::new(tokenizer).unwrap().read(&form, None).unwrap_or_else(|error| panic!("{form:?}: {error}"));
        let (said, is_over) = chatter(tokenizer, constraint, seed);
        let (mut calls, mut text, mut found) =
            (Calls::new(family, want.tools, want.is_forced), String::new(), Vec::<(String, String)>::new());
        let mut say = |piece: Piece<'_>| match piece {
            Piece::Text(more) => text.push_str(more),
            Piece::Call(name) => found.push((name.to_owned(), String::new())),
            Piece::Arguments(more) => found.last_mut().unwrap().1.push_str(more),
        };
        calls.push(&said, &mut say);
        calls.finish(&mut say);
        is_over.then_some((said, text, found))
    }

    #[test]
    fn forced_answers_are_calls_that_are_found_and_fit_their_schemas() {
        let tools = tools();
        use Family::*;
        for family in [Hermes, QwenCoder, Llama, Mistral, MistralArgs, DeepSeek] {
            let (mut several, mut over) = (0, 0);
            for seed in 0..24 {
                let may_repeat = seed % 2 == 0;
                let want = Want { tools: &tools, is_forced: true, form: None, may_repeat };
                let Some((said, text, found)) = say(family, want, seed) else { continue };
                over += 1;
                assert!(text.is_empty() && !found.is_empty() && (may_repeat || found.len() == 1), "{family:?}: {said}");
                several += usize::from(found.len() > 1);
                for (name, arguments) in &found {
                    let tool = tools.iter().find(|tool| tool["function"]["name"] == *name).unwrap();
                    let arguments: Value =
                        serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{said}: {error}"));
                    assert!(jsonschema::is_valid(&tool["function"]["parameters"], &arguments), "{said}");
                }
            }
            assert!(several > 0 && over > 12, "{family:?}");
        }
    }

    #[test]
    fn text_may_come_before_calls_that_are_not_forced_and_calls_fit_all_the_same() {
        let tools = tools();
        for family in [Family::Hermes, Family::Llama, Family::DeepSeek] {
            let mut called = 0;
            for seed in 0..30 {
                let want = Want { tools: &tools, is_forced: false, form: None, may_repeat: false };
                let Some((said, _, found)) = say(family, want, seed) else { continue };
                called += found.len();
                assert!(found.len() <= 1, "{said}");
                for (_, arguments) in found {
                    assert!(serde_json::from_str::<Value>(&arguments).is_ok(), "{said}");
                }
            }
            assert!(called > 0 || family != Family::Hermes, "nobody called");
        }
        // An answer is in its form, or calls.
        let form = Form::Schema(json!({"type": "integer", "minimum": 0, "maximum": 9}));
        let want = Want { tools: &tools, is_forced: false, form: Some(&form), may_repeat: true };
        let all: Vec<_> = (0..99).filter_map(|seed| say(Family::Hermes, want, seed)).collect();
        assert!(all.iter().all(|(_, text, found)| found.is_empty() == text.trim().parse::<u32>().is_ok()), "{all:?}");
        assert!(all.iter().any(|(_, _, found)| found.is_empty()) && all.iter().any(|(_, _, found)| !found.is_empty()));
    }
}
