//! How messages become one text: the model's own Jinja template, or one that is built in.
//!
//! Templates run as in transformers' `apply_chat_template`: same syntax (`source`), functions and variables (`environment`), and
//! values that behave and print like Python's (`python`, `json`). They come from files that anybody may have made, so
//! time and memory have a limit, and what messages say is kept apart from what the template writes (`guard`).

mod builtin;
mod choice;
mod clock;
mod environment;
mod error;
mod guard;
mod json;
mod python;
mod source;
mod stack;
#[cfg(test)]
mod tests;

pub use builtin::{BUILTINS, Builtin};
pub use choice::{Choice, check_name, choose, open};
pub use error::TemplateError;

use super::conversation::Message;
use super::special::SpecialTexts;
use super::tools::Family;
use dair_core::text::{MAX_TEXT_BYTES, Vocabulary};
use minijinja::value::Serde;
use minijinja::{Environment, Value};

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

impl Rendered {
    /// The text without guards, as a template writes it elsewhere.
    pub fn plain(&self) -> String {
        match self.guard {
            Some(guard) => self.text.replace(guard, ""),
            None => self.text.clone(),
        }
    }
}

/// Texts of special tokens that templates write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TokenTexts {
    bos: Option<String>,
    eos: Option<String>,
}

impl TokenTexts {
    /// Those of a vocabulary.
    fn of(vocab: &Vocabulary<'_>) -> Self {
        let text = |id: u32| Some(String::from_utf8_lossy(vocab.bytes(id)?).into_owned());
        if let Some(pipeline) = vocab.pipeline() {
            return Self { bos: pipeline.bos.and_then(text), eos: pipeline.eos.and_then(text) };
        }
        let header = vocab.header();
        Self { bos: header.bos.and_then(text), eos: header.eos.first().copied().and_then(text) }
    }

    /// Those that this template means. A tokenizer file names several tokens that end a text and puts those first that the
    /// template spells out; what it calls `eos_token` is none of them.
    fn of_template(vocab: &Vocabulary<'_>, source: &str) -> Self {
        let mut texts = Self::of(vocab);
        if vocab.pipeline().is_some() {
            return texts;
        }
        let ids = vocab.header().eos.iter();
        let mut all = ids.filter_map(|id| std::str::from_utf8(vocab.bytes(*id)?).ok());
        if let Some(other) = all.find(|text| !source.contains(text)) {
            texts.eos = Some(other.to_owned());
        }
        texts
    }
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    name: String,
    tokens: TokenTexts,
    /// It takes reasoning apart from the content, instead of cutting it out of the content itself.
    takes_reasoning: bool,
    /// How it lays out calls of tools, if it knows of tools.
    tools: Option<Family>,
}

impl Template {
    fn new(name: &str, source: &str, tokens: TokenTexts) -> Result<Self, TemplateError> {
        let translated = source::translate(source);
        if let Some((line, reason)) = source::too_deep(&translated) {
            return Err(TemplateError::Jinja(name.to_owned(), Some(line), reason));
        }
        let compile = || {
            let mut environment = environment::environment()?;
            environment.add_template_owned(name.to_owned(), translated)?;
            Ok(environment)
        };
        let environment = with_room(name, compile)?;
        Ok(Self {
            environment,
            name: name.to_owned(),
            tokens,
            takes_reasoning: source.contains("reasoning_content"),
            tools: Family::of_template(source),
        })
    }

    /// A built-in one. It always writes BOS and EOS, so those are empty that the vocabulary has not; and BOS also where
    /// conversations do not begin with it.
    fn builtin(builtin: &Builtin, vocab: Option<&Vocabulary<'_>>) -> Result<Self, TemplateError> {
        let TokenTexts { bos, eos } = vocab.map(TokenTexts::of).unwrap_or_default();
        let bos = bos.filter(|_| vocab.is_some_and(|vocab| vocab.header().add_bos));
        let tokens = TokenTexts { bos: Some(bos.unwrap_or_default()), eos: Some(eos.unwrap_or_default()) };
        Self::new(builtin.name, builtin.source, tokens)
    }

    /// What it is called in messages to the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the model writes calls of tools, if the template tells it of tools at all.
    pub fn tools(&self) -> Option<Family> {
        self.tools
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

    /// Lays out a conversation. Without a vocabulary nothing is known of control tokens, and nothing is guarded.
    ///
    /// # Errors
    /// What the template refuses, and what is beyond the limits.
    pub fn render(&self, context: Context, vocab: Option<&Vocabulary<'_>>) -> Result<Rendered, TemplateError> {
        let Context { mut messages, mut tools, think, add_generation_prompt } = context;
        let mut guard = None;
        if let Some(vocab) = vocab {
            let guarded = guard::guard(&messages, tools.as_ref(), &SpecialTexts::control(vocab));
            let guarded = guarded.ok_or(TemplateError::NoGuard)?;
            (messages, tools, guard) = (guarded.messages, guarded.tools, guarded.guard);
        }
        // Tools and documents that are not there are None there, and not undefined.
        let mut variables = vec![
            ("messages", messages),
            ("tools", tools.unwrap_or(Value::from(()))),
            ("documents", Value::from(())),
            ("add_generation_prompt", add_generation_prompt.into()),
        ];
        variables.extend(think.map(|think| ("enable_thinking", think.into())));
        variables.extend(self.tokens.bos.as_deref().map(|text| ("bos_token", text.into())));
        variables.extend(self.tokens.eos.as_deref().map(|text| ("eos_token", text.into())));
        let text =
            with_room(&self.name, || self.environment.get_template(&self.name)?.render(Value::from_pairs(variables)))?;
        if text.len() > MAX_TEXT_BYTES {
            return Err(TemplateError::TooLong(self.name.clone(), text.len()));
        }
        Ok(Rendered { text, guard })
    }
}

/// Runs what may recurse; `name` is the template's. Errors hold values of the template, so they are dropped in there, too.
fn with_room<R: Send>(
    name: &str,
    body: impl FnOnce() -> Result<R, minijinja::Error> + Send,
) -> Result<R, TemplateError> {
    let no_room = |error| TemplateError::Jinja(name.to_owned(), None, format!("no memory for its stack: {error}"));
    stack::with_room(|| body().map_err(|error| TemplateError::jinja(name, &error))).map_err(no_room)?
}
