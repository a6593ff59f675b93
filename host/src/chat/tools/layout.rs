//! Tools for models whose templates know nothing of them: they are described in the instructions, and earlier calls and their results
//! stand in the messages, in the form that most models have seen ([`Family::Hermes`](super::Family::Hermes)).

use serde_json::{Map, Value, json};

const BEFORE: &str = "You may call functions to answer. Their signatures, as JSON, a line each:\n<tools>\n";
const BEHIND: &str = "</tools>\nTo call one, answer with its name and arguments as JSON between tags, and nothing else:\n\
    <tool_call>\n{\"name\": \"NAME\", \"arguments\": {\"KEY\": VALUE}}\n</tool_call>\n\
    Results come between <tool_response> tags. Where no function is needed, answer in words.";

/// Messages without tools, and without calls, that say the same in words.
pub fn lay_out(messages: &Value, tools: Option<&[Value]>) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for message in messages.as_array().into_iter().flatten() {
        let mut message = message.clone();
        match message["role"].as_str() {
            Some("tool") => {
                let result = format!("<tool_response>\n{}\n</tool_response>", text(&message));
                // The results of several calls are one turn: most templates allow no two in a row.
                match all.last_mut().filter(|last| last["role"] == "user" && last["results"] == true) {
                    Some(last) => last["content"] = format!("{}\n{result}", text(last)).into(),
                    None => all.push(json!({ "role": "user", "content": result, "results": true })),
                }
                continue;
            }
            Some("assistant") if message["tool_calls"].is_array() => {
                let mut content = text(&message).to_owned();
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let blank = if content.is_empty() { "" } else { "\n" };
                    let call = json!({ "name": call["function"]["name"], "arguments": call["function"]["arguments"] });
                    content += &format!("{blank}<tool_call>\n{call}\n</tool_call>");
                }
                message["content"] = content.into();
                message.as_object_mut().map(|message| message.remove("tool_calls"));
            }
            _ => {}
        }
        all.push(message);
    }
    for message in all.iter_mut().filter_map(Value::as_object_mut) {
        message.remove("results");
    }
    if let Some(tools) = tools {
        let lines: String = tools.iter().map(|tool| format!("{}\n", tool["function"])).collect();
        let told = format!("{BEFORE}{lines}{BEHIND}");
        match all.first_mut().filter(|first| first["role"] == "system") {
            Some(first) => first["content"] = format!("{}\n\n{told}", text(first)).into(),
            None => all.insert(
                0,
                Value::Object(Map::from_iter([("role".into(), "system".into()), ("content".into(), told.into())])),
            ),
        }
    }
    all.into()
}

fn text(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_calls_and_results_are_told_in_words() {
        let messages = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather, time?"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}},
                {"id": "2", "type": "function", "function": {"name": "time", "arguments": {}}}]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "tool", "tool_call_id": "2", "content": "noon"},
        ]);
        let tools = [json!({"type": "function", "function": {"name": "weather"}})];
        let got = lay_out(&messages, Some(&tools));
        let roles: Vec<&str> =
            got.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert!(
            text(&got[0]).starts_with("Be brief.\n\nYou may call functions")
                && text(&got[0]).contains(r#"{"name":"weather"}"#)
        );
        assert_eq!(
            got[2],
            json!({"role": "assistant", "content": "<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Paris\"}}\n</tool_call>\n\
                <tool_call>\n{\"name\":\"time\",\"arguments\":{}}\n</tool_call>"})
        );
        assert_eq!(text(&got[3]), "<tool_response>\nrain\n</tool_response>\n<tool_response>\nnoon\n</tool_response>");
        assert_eq!(got[3].as_object().unwrap().len(), 2);
        assert_eq!(lay_out(&messages, None)[0], messages[0]);
        assert_eq!(lay_out(&json!([messages[1]]), Some(&tools))[0]["role"], "system");
    }
}
