//! Arguments that are written between tags instead of as JSON.

use serde_json::Value;

/// The types that tools state for their parameters.
#[derive(Clone, Debug, Default)]
pub struct Types(Vec<Value>);

impl Types {
    /// Of a list of tools, as in the OpenAI API.
    pub fn of(tools: &[Value]) -> Self {
        Self(tools.to_vec())
    }

    /// The names of the tools.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|tool| tool["function"]["name"].as_str())
    }

    /// A value as JSON: a text stays one where its parameter is to be a text, or it is nothing else.
    pub fn json(&self, tool: &str, key: &str, text: &str) -> Value {
        let tool = self.0.iter().find(|one| one["function"]["name"] == tool);
        let kind = tool.map(|tool| &tool["function"]["parameters"]["properties"][key]["type"]);
        if kind.is_some_and(|kind| kind == "string") {
            return text.into();
        }
        serde_json::from_str(text.trim()).unwrap_or_else(|_| text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_has_the_type_of_its_parameter() {
        let types = Types::of(&[json!({"function": {"name": "f", "parameters": {"properties": {
            "text": {"type": "string"}, "n": {"type": "integer"}}}}})]);
        assert_eq!(types.json("f", "text", "12"), json!("12"));
        assert_eq!(types.json("f", "n", " 12 "), json!(12));
        assert_eq!(types.json("f", "n", "twelve"), json!("twelve"));
        assert_eq!(types.json("g", "other", r#"{"a": [1]}"#), json!({"a": [1]}));
    }
}
