//! How messages become one text: the model's own Jinja template, or one that is built in.

mod error;

pub use error::TemplateError;

use super::conversation::Message;
use dair_core::text::Vocabulary;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

/// What a template is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// List of messages: objects with `role`, `content` and whatever else the template may look at.
    pub messages: Value,
    /// List of tools, if there are any.
    pub tools: Option<Value>,
    /// Whether the model is to reason before it answers; `None` leaves it to the template.
    pub think: Option<bool>,
    /// Whether the text ends where the next answer begins.
    pub add_generation_prompt: bool,
}

/// A conversation as one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text. What the template wrote in it may be special tokens; in what messages say, the guard stands behind the
    /// first character of whatever is spelled like one.
    pub text: String,
    /// A character that is not part of the conversation, where one was needed.
    pub guard: Option<char>,
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    name: String,
    /// It takes reasoning apart from the content, instead of cutting it out of the content itself.
    takes_reasoning: bool,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Where it is no Jinja.
    pub fn new(name: &str, source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::compile(name, &error))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|error| TemplateError::compile(name, &error))?;
        Ok(Self { environment, name: name.to_owned(), takes_reasoning: source.contains("reasoning_content") })
    }

    /// What it is called in messages to the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Messages as this template wants them.
    ///
    /// Templates that look at `reasoning_content` (Qwen 3) get reasoning there. All others get it in the content, between
    /// the tags that the model wrote: those that cut it out of earlier turns themselves (DeepSeek R1) find it, and those that
    /// know nothing of reasoning keep it.
    pub fn messages(&self, messages: &[Message]) -> Value {
        let with_tags = |message: &Message| Message::new(message.role, message.whole());
        let as_wanted = |message| if self.takes_reasoning { Message::clone(message) } else { with_tags(message) };
        messages.iter().map(|message| Value::from(Serde(as_wanted(message)))).collect()
    }

    /// Lays out a conversation.
    ///
    /// # Errors
    /// What the template refuses, and what is beyond the limits.
    pub fn render(&self, context: Context, _vocab: Option<&Vocabulary<'_>>) -> Result<Rendered, TemplateError> {
        let failed = |error| TemplateError::render(&self.name, &error);
        let template = self.environment.get_template("chat").map_err(failed)?;
        let text = template
            .render(context! {
                messages => context.messages,
                tools => context.tools,
                add_generation_prompt => context.add_generation_prompt,
            })
            .map_err(failed)?;
        Ok(Rendered { text, guard: None })
    }
}
