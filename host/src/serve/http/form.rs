//! The form that an answer must have, in the ways in which clients say it.

use super::error::ApiError;
use super::fields::{Fields, kind, wrong};
use crate::chat::gbnf;
use crate::chat::grammar::Form;
use serde_json::Value;

/// The field that a form was in, and the form.
pub type Asked = Option<(&'static str, Form)>;

/// Fields of OpenAI's API, and those that vLLM (`structured_outputs`) and llama.cpp (`json_schema`, `grammar`) add.
///
/// # Errors
/// Names the field that is wrong; also where there are two.
pub fn of_openai(fields: &Fields) -> Result<Asked, ApiError> {
    let all = [response_format(fields)?, structured_outputs(fields)?, json_schema(fields)?, grammar(fields)?];
    let mut all = all.into_iter().flatten();
    let (first, second) = (all.next(), all.next());
    if let (Some((first, _)), Some((second, _))) = (&first, second) {
        let line = format!("{second} and {first} both give the answer a form; leave one out");
        return Err(ApiError::field(second, line));
    }
    Ok(first)
}

/// Ollama's `format`: the word `json`, or a schema.
///
/// # Errors
/// Names the field.
pub fn of_ollama(fields: &Fields) -> Result<Asked, ApiError> {
    let form = match fields.get("format") {
        None => None,
        Some(Value::String(word)) if word.is_empty() => None,
        Some(Value::String(word)) if word == "json" => Some(Form::Object),
        Some(schema @ Value::Object(_)) => Some(Form::Schema(schema.clone())),
        Some(other) => return Err(wrong("format", other, "\"json\" or a JSON schema")),
    };
    Ok(form.map(|form| ("format", form)))
}

fn response_format(fields: &Fields) -> Result<Asked, ApiError> {
    const FIELD: &str = "response_format";
    let Some(format) = fields.object(FIELD)? else { return Ok(None) };
    let kinds = "text, json_object, json_schema, regex or grammar";
    let missing = |what: &str| ApiError::field(FIELD, format!("{FIELD}.{what} is missing"));
    let form = match format.text("type")? {
        Some("text") => return Ok(None),
        Some("json_object") => format.get("schema").map_or(Form::Object, |schema| Form::Schema(schema.clone())),
        Some("json_schema") => {
            let inner = format.get("json_schema").and_then(|inner| inner.get("schema"));
            let schema = inner.or(format.get("schema")).ok_or_else(|| missing("json_schema.schema"))?;
            Form::Schema(schema.clone())
        }
        Some("regex") => Form::Regex(format.text("regex")?.ok_or_else(|| missing("regex"))?.to_owned()),
        Some("grammar") => of_grammar(FIELD, format.text("grammar")?.ok_or_else(|| missing("grammar"))?)?,
        Some(other) => {
            return Err(ApiError::field(FIELD, format!("{FIELD}.type is {other:?}; wanted is {kinds}")));
        }
        None => return Err(missing("type")),
    };
    Ok(Some((FIELD, form)))
}

fn structured_outputs(fields: &Fields) -> Result<Asked, ApiError> {
    const FIELD: &str = "structured_outputs";
    let Some(outputs) = fields.object(FIELD)? else { return Ok(None) };
    let schema = match outputs.get("json") {
        // A schema as a text, which some clients send.
        Some(Value::String(text)) => Some(
            serde_json::from_str(text)
                .map_err(|error| ApiError::field(FIELD, format!("{FIELD}.json is no JSON: {error}")))?,
        ),
        other => other.cloned(),
    };
    let choice = outputs.texts("choice")?;
    let form = if let Some(schema) = schema {
        Form::Schema(schema)
    } else if let Some(regex) = outputs.text("regex")? {
        Form::Regex(regex.to_owned())
    } else if let Some(grammar) = outputs.text("grammar")? {
        of_grammar(FIELD, grammar)?
    } else if !choice.is_empty() {
        Form::one_of(&choice)
    } else if outputs.flag("json_object")? == Some(true) {
        Form::Object
    } else {
        return Err(ApiError::field(FIELD, format!("{FIELD} wants one of json, regex, grammar, choice")));
    };
    Ok(Some((FIELD, form)))
}

fn json_schema(fields: &Fields) -> Result<Asked, ApiError> {
    match fields.get("json_schema") {
        None => Ok(None),
        Some(schema @ Value::Object(_)) => Ok(Some(("json_schema", Form::Schema(schema.clone())))),
        Some(other) => {
            Err(ApiError::field("json_schema", format!("json_schema is {}; wanted is an object", kind(other))))
        }
    }
}

fn grammar(fields: &Fields) -> Result<Asked, ApiError> {
    let text = fields.text("grammar")?.filter(|text| !text.is_empty());
    text.map(|text| Ok(("grammar", of_grammar("grammar", text)?))).transpose()
}

/// Grammars are in Lark, or in llama.cpp's GBNF.
fn of_grammar(field: &str, text: &str) -> Result<Form, ApiError> {
    if !gbnf::is_gbnf(text) {
        let (most, count) = (LARK_RULES_MAX, rules_and_groups(text));
        if count > most {
            let line = format!("{field} has {count} rules and groups; at most {most} go");
            return Err(ApiError::field(field, line));
        }
        return Ok(Form::Grammar(text.to_owned()));
    }
    let lark = gbnf::to_lark(text).map_err(|error| ApiError::field(field, format!("{field}: {error}")))?;
    Ok(Form::Grammar(lark))
}

/// Most rules and groups of a grammar in Lark: they may all be within each other, and whoever reads them goes down as deep.
const LARK_RULES_MAX: usize = 4096;

/// How many there are at most: a rule begins with its name, on a line of its own.
fn rules_and_groups(lark: &str) -> usize {
    let is_rule = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_alphabetic() || "_?!".contains(c));
    lark.lines().filter(is_rule).count() + lark.matches(['(', '[']).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Asked, ApiError> {
        of_openai(&Fields::of(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_form_is_found_under_all_its_names() {
        let schema = json!({"type": "array"});
        for (body, field, form) in [
            (json!({"response_format": {"type": "json_object"}}), "response_format", Form::Object),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}}),
                "response_format",
                Form::Schema(schema.clone()),
            ),
            (json!({"structured_outputs": {"json": schema}}), "structured_outputs", Form::Schema(schema.clone())),
            (
                json!({"structured_outputs": {"json": schema.to_string()}}),
                "structured_outputs",
                Form::Schema(schema.clone()),
            ),
            (json!({"structured_outputs": {"regex": "a+"}}), "structured_outputs", Form::Regex("a+".into())),
            (
                json!({"structured_outputs": {"choice": ["yes", "n\"o"]}}),
                "structured_outputs",
                Form::Grammar(r#"start: "yes" | "n\"o""#.into()),
            ),
            (json!({"json_schema": schema}), "json_schema", Form::Schema(schema.clone())),
            (json!({"grammar": "start: \"a\""}), "grammar", Form::Grammar("start: \"a\"".into())),
            (json!({"grammar": "root ::= \"a\""}), "grammar", Form::Grammar("start: /(?:a)/".into())),
        ] {
            assert_eq!(read(&body), Ok(Some((field, form))), "{body}");
        }
        assert_eq!(read(&json!({"response_format": {"type": "text"}, "grammar": ""})), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, line) in [
            (
                json!({"response_format": {"type": "xml"}}),
                "response_format.type is \"xml\"; wanted is text, json_object",
            ),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema.schema is missing"),
            (json!({"response_format": "json"}), "response_format is a text; wanted is an object"),
            (json!({"structured_outputs": {}}), "structured_outputs wants one of"),
            (json!({"grammar": format!("start: {}", "(".repeat(5000))}), "grammar has 5001 rules and groups"),
            (json!({"grammar": "root ::= \"a\" b"}), "grammar: line 1, column 14: there is no rule b"),
            (json!({"grammar": "start: \"a\"", "json_schema": {}}), "grammar and json_schema both give"),
        ] {
            let error = read(&body).unwrap_err();
            assert!(error.message.starts_with(line), "{body}: {}", error.message);
        }
        let fields = |body: Value| Fields::of(body.to_string().as_bytes()).unwrap();
        assert_eq!(of_ollama(&fields(json!({"format": "json"}))), Ok(Some(("format", Form::Object))));
        assert_eq!(of_ollama(&fields(json!({"format": ""}))), Ok(None));
        assert!(of_ollama(&fields(json!({"format": "yaml"}))).is_err());
    }
}
