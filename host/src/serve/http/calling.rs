//! `tool_choice`: which tools an answer may call, and whether it must call one.

use super::error::ApiError;
use super::fields::{Fields, kind, wrong};
use serde_json::Value;

const FIELD: &str = "tool_choice";
/// What the field may be.
const WANTED: &str = "none, auto, required, a tool, or allowed_tools";

/// Whether tools are called, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calling {
    /// None is.
    Never,
    /// Any, where the model wants to.
    Auto,
    /// One at least, whichever.
    Always,
    /// This one.
    This(String),
    /// Some of them, and no others.
    Among {
        /// Their names.
        names: Vec<String>,
        /// One at least.
        is_forced: bool,
    },
}

impl Calling {
    /// Reads the field beside the tools that the request has.
    ///
    /// # Errors
    /// Names the field, also where it asks for a tool that is not there.
    pub fn of(fields: &Fields, tools: &[Value]) -> Result<Self, ApiError> {
        let Some(choice) = fields.get(FIELD) else { return Ok(Self::Auto) };
        match choice {
            Value::String(word) => Self::of_word(word, tools),
            Value::Object(_) if choice["type"] == "allowed_tools" => among(&choice["allowed_tools"], tools),
            Value::Object(_) => named(FIELD, choice, tools).map(Self::This),
            other => Err(wrong(FIELD, other, WANTED)),
        }
    }

    fn of_word(word: &str, tools: &[Value]) -> Result<Self, ApiError> {
        match word {
            "none" => Ok(Self::Never),
            "auto" => Ok(Self::Auto),
            "required" if tools.is_empty() => {
                Err(ApiError::field(FIELD, format!("{FIELD} asks for a tool that is not among tools")))
            }
            "required" => Ok(Self::Always),
            _ => Err(ApiError::field(FIELD, format!("{FIELD} is {word:?}; wanted is {WANTED}"))),
        }
    }

    /// Whether an answer must call.
    pub fn is_forced(&self) -> bool {
        matches!(self, Self::Always | Self::This(_) | Self::Among { is_forced: true, .. })
    }

    /// Whether a tool may be called.
    pub fn allows(&self, tool: &Value) -> bool {
        let name = &tool["function"]["name"];
        match self {
            Self::Never => false,
            Self::Auto | Self::Always => true,
            Self::This(this) => name == this,
            Self::Among { names, .. } => names.iter().any(|one| name == one),
        }
    }
}

/// `allowed_tools`: a mode, and tools.
fn among(allowed: &Value, tools: &[Value]) -> Result<Calling, ApiError> {
    let name = |field: &str| format!("{FIELD}.allowed_tools{field}");
    if !allowed.is_object() {
        return Err(wrong(&name(""), allowed, "an object with a mode and tools"));
    }
    let is_forced = match allowed["mode"].as_str() {
        Some("auto") => false,
        Some("required") => true,
        Some(other) => {
            return Err(ApiError::field(
                name(".mode"),
                format!("{} is {other:?}; wanted is auto or required", name(".mode")),
            ));
        }
        None => return Err(wrong(&name(".mode"), &allowed["mode"], "auto or required")),
    };
    let list = allowed["tools"].as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| {
        let found = if allowed["tools"].is_array() { "empty" } else { kind(&allowed["tools"]) };
        ApiError::field(
            name(".tools"),
            format!("{} is {found}; wanted is a list of tools, one at least", name(".tools")),
        )
    })?;
    let one = |(at, tool)| named(&name(&format!(".tools[{at}]")), tool, tools);
    let names = list.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Ok(Calling::Among { names, is_forced })
}

/// The name of a tool that there is.
fn named(field: &str, tool: &Value, tools: &[Value]) -> Result<String, ApiError> {
    let name = tool["function"]["name"].as_str();
    let name =
        name.ok_or_else(|| wrong(field, tool, "a tool as {\"type\": \"function\", \"function\": {\"name\": …}}"))?;
    if tools.iter().any(|tool| tool["function"]["name"] == name) {
        return Ok(name.to_owned());
    }
    Err(ApiError::field(field, format!("{field} asks for a tool that is not among tools")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(name: &str) -> Value {
        json!({ "type": "function", "function": { "name": name } })
    }

    fn read(choice: Value) -> Result<Calling, ApiError> {
        let fields = json!({ FIELD: choice }).to_string();
        Calling::of(&Fields::of(fields.as_bytes()).unwrap(), &[tool("a"), tool("b"), tool("c")])
    }

    #[test]
    fn some_of_the_tools_may_be_called_or_must() {
        let allowed = |mode: &str| json!({ "mode": mode, "tools": [tool("a"), tool("c")] });
        for (mode, is_forced) in [("auto", false), ("required", true)] {
            let got = read(json!({ "type": "allowed_tools", "allowed_tools": allowed(mode) })).unwrap();
            assert_eq!(got, Calling::Among { names: vec!["a".into(), "c".into()], is_forced });
            assert_eq!(got.is_forced(), is_forced);
            let may = ["a", "b", "c"].map(|name| got.allows(&tool(name)));
            assert_eq!(may, [true, false, true]);
        }
        assert_eq!(read(tool("b")), Ok(Calling::This("b".into())));
        assert_eq!(read(json!("none")), Ok(Calling::Never));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let allowed = |allowed: Value| json!({ "type": "allowed_tools", "allowed_tools": allowed });
        for (choice, param) in [
            (json!("sometimes"), "tool_choice"),
            (json!(3), "tool_choice"),
            (tool("d"), "tool_choice"),
            (json!({ "type": "function" }), "tool_choice"),
            (json!({ "type": "allowed_tools" }), "tool_choice.allowed_tools"),
            (allowed(json!({ "tools": [tool("a")] })), "tool_choice.allowed_tools.mode"),
            (allowed(json!({ "mode": "none", "tools": [tool("a")] })), "tool_choice.allowed_tools.mode"),
            (allowed(json!({ "mode": "auto" })), "tool_choice.allowed_tools.tools"),
            (allowed(json!({ "mode": "auto", "tools": [] })), "tool_choice.allowed_tools.tools"),
            (allowed(json!({ "mode": "auto", "tools": [tool("a"), tool("d")] })), "tool_choice.allowed_tools.tools[1]"),
            (allowed(json!({ "mode": "auto", "tools": ["a"] })), "tool_choice.allowed_tools.tools[0]"),
        ] {
            let error = read(choice.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{choice}");
            assert!(error.message.starts_with(param) && error.message.lines().count() == 1, "{}", error.message);
        }
    }
}
