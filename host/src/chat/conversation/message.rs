//! Messages, as they are kept, saved and given to templates.

use serde::{Deserialize, Serialize};

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// What a tool gave back.
    Tool,
}

/// One message of a conversation; in JSON as in the OpenAI API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said, neither trimmed nor escaped.
    pub content: String,
    /// What the model thought before it said it, without the tags around.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl Message {
    /// A message without reasoning.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), reasoning_content: None }
    }

    /// What a model writes that says this: the reasoning in its tags, then the content.
    pub fn whole(&self) -> String {
        match &self.reasoning_content {
            Some(reasoning) => format!("<think>\n{reasoning}\n</think>\n\n{}", self.content),
            None => self.content.clone(),
        }
    }
}
