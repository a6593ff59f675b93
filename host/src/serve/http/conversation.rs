//! The conversation of a request: messages, tools, the form of the answer, laid out as a prompt.

use super::calling::Calling;
use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::form;
use super::messages::{messages, tools};
use super::server::Server;
use super::texts::Prompt;
use crate::chat::conversation::{REASONING_CLOSES, is_reasoning};
use crate::chat::grammar::{Constraint, Form};
use crate::chat::template::Context;
use crate::chat::tools::{Family, Want, forced, lay_out};
use minijinja::value::{Serde, Value as TemplateValue};
use serde_json::{Value, json};

/// A conversation that is ready to be answered.
#[derive(Debug)]
pub struct Conversation {
    /// What the model is given.
    pub prompt: Prompt,
    /// The tools that the answer may call, and how the model writes calls.
    pub tools: Option<Tools>,
    /// The form of the answer.
    pub constraint: Option<Constraint>,
}

/// Tools that an answer may call.
#[derive(Clone, Debug)]
pub struct Tools {
    /// How calls are written.
    pub family: Family,
    /// As in the OpenAI API.
    pub list: Vec<Value>,
    /// The answer is nothing but calls.
    pub is_forced: bool,
}

impl Conversation {
    /// Reads a request of either API; `form` is what it says of the answer's form.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn of(server: &Server, fields: &Fields, form: form::Asked) -> Result<Self, ApiError> {
        let offered = tools(fields)?;
        let calling = Calling::of(fields, &offered)?;
        let list: Vec<Value> = offered.iter().filter(|tool| calling.allows(tool)).cloned().collect();
        let family = server.texts.family();
        let is_told = calling != Calling::Never && !offered.is_empty();
        let told = is_told.then_some(&offered[..]);
        let mut all = messages(fields)?;
        if family.is_none() {
            all = lay_out(&all, told);
        }
        let prompt = server.texts.conversation(Context {
            messages: TemplateValue::from(Serde(all)),
            tools: told.filter(|_| family.is_some()).map(|tools| TemplateValue::from(Serde(json!(tools)))),
            think: think(fields)?,
            add_generation_prompt: true,
        })?;
        let family = family.unwrap_or(Family::Hermes);
        let is_forced = calling.is_forced();
        let tools = is_told.then(|| Tools { family, list: list.clone(), is_forced });

        let is_strict = |tool: &Value| tool["function"]["strict"] == true;
        // Who asks for one tool wants one call.
        let is_one = matches!(calling, Calling::This(_));
        let may_repeat = !is_one && fields.flag("parallel_tool_calls")?.unwrap_or(true);
        // All are told, as the beginning of a prompt is best left as it was; some of them may be called.
        let is_limited = list.len() < offered.len();
        let has_form = is_forced || is_limited || form.is_some() || list.iter().any(is_strict) || !may_repeat;
        let asked = if is_told && has_form {
            if let (true, Some((field, _))) = (is_forced, &form) {
                let line = format!("{field} and a forced tool_choice exclude each other; leave one out");
                return Err(ApiError::field(*field, line));
            }
            let field = form.as_ref().map_or("tools", |(field, _)| field);
            let want = Want { tools: &list, is_forced, form: form.as_ref().map(|(_, form)| form), may_repeat };
            Some((field, forced(family, want, server.texts.vocabulary())))
        } else {
            form
        };
        let constraint = constraint(server, asked, &prompt)?;
        Ok(Self { prompt, tools, constraint })
    }
}

/// Reads the form of the answer to a prompt, which may leave the model reasoning.
///
/// # Errors
/// Names the field, and what is wrong with it.
pub fn constraint(server: &Server, form: form::Asked, prompt: &Prompt) -> Result<Option<Constraint>, ApiError> {
    let reasons = is_reasoning(&prompt.text);
    let read = |(field, form): (&'static str, Form)| {
        let read = server.texts.constraint(&form, reasons.then_some(REASONING_CLOSES));
        read.map_err(|error| ApiError::field(field, format!("{field}: {error}")))
    };
    form.map(read).transpose()
}

/// Whether to reason: Ollama's `think`, which may say how much, or `chat_template_kwargs`.
fn think(fields: &Fields) -> Result<Option<bool>, ApiError> {
    match fields.get("think") {
        // Templates know of yes and no.
        Some(Value::String(much)) if ["low", "medium", "high"].contains(&&much[..]) => Ok(Some(true)),
        Some(Value::Bool(think)) => Ok(Some(*think)),
        Some(other) => Err(wrong("think", other, "true, false, low, medium or high")),
        None => match fields.object("chat_template_kwargs")? {
            Some(extra) => extra.flag("enable_thinking"),
            None => Ok(None),
        },
    }
}
