//! Messages as clients send them, as templates take them.

use super::error::ApiError;
use super::fields::{Fields, kind, wrong};
use serde_json::{Map, Value, json};

/// Most messages of a conversation.
const MESSAGES_MAX: usize = 4096;

/// The messages of a chat: `content` is one text, and `role` one that templates know.
///
/// # Errors
/// Names what is wrong, as in `messages[2].content`.
pub fn messages(fields: &Fields) -> Result<Value, ApiError> {
    let list =
        fields.list("messages")?.ok_or_else(|| ApiError::field("messages", "messages is missing; wanted is a list"))?;
    if list.is_empty() || list.len() > MESSAGES_MAX {
        let line = format!("messages has {}; wanted are 1 to {MESSAGES_MAX}", list.len());
        return Err(ApiError::field("messages", line));
    }
    let messages: Result<Vec<Value>, _> = list.iter().enumerate().map(|(at, one)| message(at, one)).collect();
    messages.map(Value::Array)
}

fn message(at: usize, value: &Value) -> Result<Value, ApiError> {
    let name = |field: &str| format!("messages[{at}]{field}");
    let Value::Object(object) = value else { return Err(wrong(&name(""), value, "an object")) };
    let role = match object.get("role").and_then(Value::as_str) {
        // Its later name.
        Some("developer") => "system",
        Some("function") => "tool",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        _ => {
            return Err(ApiError::field(
                name(".role"),
                format!("{} must be system, developer, user, assistant or tool", name(".role")),
            ));
        }
    };
    no_images(&name(".images"), object.get("images"))?;
    let mut out = Map::new();
    out.insert("role".into(), role.into());
    let has_calls = object.get("tool_calls").is_some_and(|calls| !calls.is_null());
    let content = match object.get("content") {
        None | Some(Value::Null) if has_calls => String::new(),
        None => return Err(ApiError::field(name(".content"), format!("{} is missing", name(".content")))),
        Some(content) => text_of(&name(".content"), content)?,
    };
    out.insert("content".into(), content.into());
    for field in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(text) = object.get(field).filter(|text| !text.is_null()) {
            let text = text.as_str().ok_or_else(|| wrong(&name(&format!(".{field}")), text, "a text"))?;
            out.insert(field.into(), text.into());
        }
    }
    if has_calls {
        out.insert("tool_calls".into(), calls(&name(".tool_calls"), &object["tool_calls"])?);
    }
    Ok(Value::Object(out))
}

/// Demands that a list of pictures, as Ollama has it, is empty.
///
/// # Errors
/// Names the field.
pub fn no_images(name: &str, images: Option<&Value>) -> Result<(), ApiError> {
    match images {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(list)) if list.is_empty() => Ok(()),
        Some(Value::Array(list)) => {
            Err(ApiError::field(name, format!("{name} has {}; this model takes text only, leave them out", list.len())))
        }
        Some(other) => Err(wrong(name, other, "a list")),
    }
}

/// One text, or the parts of one.
fn text_of(name: &str, content: &Value) -> Result<String, ApiError> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        Value::Array(parts) => {
            let mut texts = Vec::with_capacity(parts.len());
            for (at, part) in parts.iter().enumerate() {
                let name = format!("{name}[{at}]");
                match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text" | "input_text" | "output_text"), Some(text)) => texts.push(text),
                    (Some(kind), _) => {
                        let line = format!("{name} is of the type {kind:?}; this model takes text");
                        return Err(ApiError::field(name, line));
                    }
                    (None, _) => return Err(wrong(&name, part, "an object with a type and a text")),
                }
            }
            Ok(texts.join("\n"))
        }
        other => Err(wrong(name, other, "a text or a list of parts")),
    }
}

/// Calls of tools in earlier answers: templates take arguments as objects, clients send them as texts.
fn calls(name: &str, calls: &Value) -> Result<Value, ApiError> {
    let Value::Array(list) = calls else { return Err(wrong(name, calls, "a list")) };
    let call = |(at, call): (usize, &Value)| {
        let name = format!("{name}[{at}].function");
        let function = call["function"].as_object().ok_or_else(|| wrong(&name, &call["function"], "an object"))?;
        let tool = function.get("name").and_then(Value::as_str);
        let tool = tool.ok_or_else(|| ApiError::field(format!("{name}.name"), format!("{name}.name is missing")))?;
        let arguments = match function.get("arguments") {
            Some(Value::String(text)) if text.trim().is_empty() => json!({}),
            Some(Value::String(text)) => serde_json::from_str(text).map_err(|error| {
                ApiError::field(format!("{name}.arguments"), format!("{name}.arguments is no JSON: {error}"))
            })?,
            Some(object @ Value::Object(_)) => object.clone(),
            None | Some(Value::Null) => json!({}),
            Some(other) => return Err(wrong(&format!("{name}.arguments"), other, "a text of JSON")),
        };
        let id = call["id"].as_str().unwrap_or_default();
        Ok(json!({ "id": id, "type": "function", "function": { "name": tool, "arguments": arguments } }))
    };
    list.iter().enumerate().map(call).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// Most tools, and the longest name of one.
const TOOLS_MAX: usize = 256;
const TOOL_NAME_MAX: usize = 128;

/// The tools that an answer may call, as templates take them.
///
/// # Errors
/// Names what is wrong.
pub fn tools(fields: &Fields) -> Result<Vec<Value>, ApiError> {
    let Some(list) = fields.list("tools")? else { return Ok(Vec::new()) };
    if list.len() > TOOLS_MAX {
        return Err(ApiError::field("tools", format!("tools has {}; at most {TOOLS_MAX} go", list.len())));
    }
    for (at, tool) in list.iter().enumerate() {
        let function = &tool["function"];
        let name = function["name"].as_str();
        if tool["type"] != "function" || name.is_none() {
            let found = kind(function);
            let line = format!(
                "tools[{at}] must have the type \"function\" and a function with a name; its function is {found}"
            );
            return Err(ApiError::field(format!("tools[{at}]"), line));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
        if !name.is_some_and(|name| (1..=TOOL_NAME_MAX).contains(&name.len()) && name.chars().all(is_name)) {
            let field = format!("tools[{at}].function.name");
            let line = format!("{field} must have 1 to {TOOL_NAME_MAX} letters, digits, or any of _-.:/");
            return Err(ApiError::field(field, line));
        }
        let parameters = &function["parameters"];
        if !parameters.is_null() && !parameters.is_object() {
            return Err(wrong(&format!("tools[{at}].function.parameters"), parameters, "a JSON schema"));
        }
    }
    Ok(list.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Value, ApiError> {
        messages(&Fields::of(json.as_bytes()).unwrap())
    }

    #[test]
    fn parts_are_joined_and_new_names_of_roles_are_known() {
        let got = read(
            r#"{"messages": [{"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
                    "function": {"name": "add", "arguments": "{\"x\": 1}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "2", "images": []}]}"#,
        );
        let want = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb", "name": "Ann"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function",
                "function": {"name": "add", "arguments": {"x": 1}}}]},
            {"role": "tool", "content": "2", "tool_call_id": "1"}]);
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        for (json, param) in [
            (r#"{}"#, "messages"),
            (r#"{"messages": []}"#, "messages"),
            (r#"{"messages": ["hi"]}"#, "messages[0]"),
            (
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "king", "content": "b"}]}"#,
                "messages[1].role",
            ),
            (r#"{"messages": [{"role": "user"}]}"#, "messages[0].content"),
            (r#"{"messages": [{"role": "user", "content": 5}]}"#, "messages[0].content"),
            (r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#, "messages[0].content[0]"),
            (r#"{"messages": [{"role": "user", "content": "a", "images": ["iVBO"]}]}"#, "messages[0].images"),
            (r#"{"messages": [{"role": "user", "content": "a", "images": "iVBO"}]}"#, "messages[0].images"),
            (r#"{"messages": [{"role": "assistant", "tool_calls": [{}]}]}"#, "messages[0].tool_calls[0].function"),
        ] {
            assert_eq!(read(json).unwrap_err().param.as_deref(), Some(param), "{json}");
        }
    }
}
