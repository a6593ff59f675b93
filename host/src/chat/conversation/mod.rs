//! A conversation: its messages, and what of them is to be computed for the next answer.
//!
//! Every turn lays out and encodes the **whole** conversation anew and feeds what lies behind the longest common beginning
//! with the tokens in the cache. So any template works, also those that drop reasoning from earlier turns or write something
//! else into the last one, and a change of earlier messages costs only what differs.

mod message;
mod messages;
mod reasoning;
#[cfg(test)]
mod tests;

pub use message::{Message, Role};
pub use messages::Messages;
pub use reasoning::{CLOSE as REASONING_CLOSES, Piece, Splitter, is_open as is_reasoning};

use super::generate::{Answer, Event, Finish, GenerateError, Generator, Request};
use super::template::{Context, Rendered, Template};
use super::tokenizer::Tokenizer;
use crate::cluster::root::Root;
use minijinja::Value;
use std::ops::ControlFlow;

/// An answer and what was said in it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Why it ended, and how long it took.
    pub answer: Answer,
    /// The answer without the reasoning.
    pub text: String,
    /// What the model thought before; empty where it opened its reasoning and said nothing in it.
    pub reasoning: Option<String>,
}

impl Turn {
    /// Adds the answer to the messages, unless it was interrupted before its first word.
    pub fn keep(&self, messages: &mut Messages) {
        let unheard = self.answer.finish == Finish::Interrupted && self.text.is_empty() && self.reasoning.is_none();
        if !unheard {
            messages.push_answer(self.text.clone(), self.reasoning.clone());
        }
    }
}

/// Messages and cache of one conversation.
#[derive(Debug)]
pub struct Conversation {
    template: Template,
    tools: Option<Value>,
    think: Option<bool>,
    ignore_eos: bool,
    messages: Messages,
    /// Positions of the context that the last turn has left in use.
    position: u32,
}

impl Conversation {
    /// A conversation without questions yet.
    pub fn new(template: Template, system: Option<String>) -> Self {
        let mut messages = Messages::default();
        messages.set_system(system);
        Self { template, tools: None, think: None, ignore_eos: false, messages, position: 0 }
    }

    /// Gives the template a list of tools, as in the OpenAI API; what a model makes of it, is up to its template.
    pub fn set_tools(&mut self, tools: Option<Value>) {
        self.tools = tools;
    }

    /// Asks for reasoning or for none; `None` leaves it to the template.
    pub fn set_thinking(&mut self, think: Option<bool>) {
        self.think = think;
    }

    /// Lets answers go on after an EOS token.
    pub fn set_ignore_eos(&mut self, ignore_eos: bool) {
        self.ignore_eos = ignore_eos;
    }

    /// The template that lays it out.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What was said.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// What was said, to be changed: the next answer goes by what it is then.
    pub fn messages_mut(&mut self) -> &mut Messages {
        &mut self.messages
    }

    /// Positions of the context that are in use.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// Asks a question and generates the answer; `on_text` gets it in pieces and may end it.
    ///
    /// After an error the question is kept: [`answer`](Self::answer) tries again, [`Messages::pop_turn`] takes it back.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn ask(
        &mut self,
        root: &mut Root<'_>,
        generator: &mut Generator<'_>,
        tokenizer: &Tokenizer<'_>,
        user: &str,
        max_tokens: u32,
        on_text: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Turn, GenerateError> {
        self.messages.push_question(user);
        self.answer(root, generator, tokenizer, max_tokens, on_text)
    }

    /// Generates an answer to the messages so far.
    ///
    /// # Errors
    /// What the template or the encoder refuses; else as [`Generator::run`]. The messages are as before then.
    pub fn answer(
        &mut self,
        root: &mut Root<'_>,
        generator: &mut Generator<'_>,
        tokenizer: &Tokenizer<'_>,
        max_tokens: u32,
        mut on_text: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Turn, GenerateError> {
        let rendered = self.render(tokenizer)?;
        let tokens = tokenizer.encode_rendered(&rendered)?;
        root.session()?;
        self.position = reused(root.computed(0), &tokens);
        let request = Request { prompt: &tokens, position: self.position, max_tokens, ignore_eos: self.ignore_eos };
        let mut splitter = Splitter::new(&rendered.text);
        let answer = generator.run(root, request, |event| match event {
            Event::Prompt(done, total) => on_text(Piece::Prompt(done, total)),
            Event::Text(text) => splitter.push(text, &mut on_text),
        })?;
        splitter.finish(&mut on_text);
        self.position = answer.position;

        let (reasoning, text) = splitter.into_parts();
        let turn = Turn { answer, text, reasoning };
        turn.keep(&mut self.messages);
        Ok(turn)
    }

    /// The text of the conversation, up to where the next answer begins.
    ///
    /// # Errors
    /// What the template refuses.
    pub fn render(&self, tokenizer: &Tokenizer<'_>) -> Result<Rendered, GenerateError> {
        let context = Context {
            messages: self.template.messages(&self.messages),
            tools: self.tools.clone(),
            think: self.think,
            add_generation_prompt: true,
        };
        Ok(self.template.render(context, Some(tokenizer.vocabulary()))?)
    }
}

/// How many of these tokens need not be fed again, where those are `computed`. One is always fed, because its logits are asked for.
fn reused(computed: &[u32], tokens: &[u32]) -> u32 {
    let common = computed.iter().zip(tokens).take_while(|(a, b)| a == b).count();
    common.min(tokens.len().saturating_sub(1)) as u32
}
