//! What was said in a conversation, whoever answers.

use super::message::{Message, Role};
use std::ops::Deref;

/// Messages, the system's first if there is one, then questions and answers in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages(Vec<Message>);

impl Deref for Messages {
    type Target = [Message];

    fn deref(&self) -> &[Message] {
        &self.0
    }
}

impl Messages {
    /// Instructions that stand above the conversation.
    pub fn system(&self) -> Option<&str> {
        self.first().filter(|first| first.role == Role::System).map(|first| first.content.as_str())
    }

    /// Replaces or removes the instructions; the questions and answers stay.
    pub fn set_system(&mut self, system: Option<String>) {
        if self.system().is_some() {
            self.0.remove(0);
        }
        if let Some(system) = system {
            self.0.insert(0, Message::new(Role::System, system));
        }
    }

    /// Forgets everything but the instructions.
    pub fn clear(&mut self) {
        self.0.truncate(self.first_turn());
    }

    /// Goes on from these messages, those of a saved conversation, say.
    pub fn restore(&mut self, messages: Vec<Message>) {
        self.0 = messages;
    }

    /// How many questions there are.
    pub fn questions(&self) -> usize {
        self.iter().filter(|message| message.role == Role::User).count()
    }

    /// Takes back the last question with everything after it, to be asked again or not.
    pub fn pop_turn(&mut self) -> Option<String> {
        let last = self.iter().rposition(|message| message.role == Role::User)?;
        let question = self[last].content.clone();
        self.0.truncate(last);
        Some(question)
    }

    /// Drops the oldest question with its answer, and says whether there was one besides the last.
    pub fn drop_oldest_turn(&mut self) -> bool {
        let first = self.first_turn();
        let mut turns = (first..self.len()).filter(|&i| self[i].role == Role::User);
        let Some(second) = turns.nth(1) else { return false };
        self.0.drain(first..second);
        true
    }

    /// The last question where no answer follows it: after a failure, or an interruption before the first word.
    pub fn unanswered(&self) -> Option<&str> {
        self.last().filter(|last| last.role == Role::User).map(|last| last.content.as_str())
    }

    /// Adds a question. One that is still [unanswered](Self::unanswered) is joined with it, because most templates allow
    /// no two in a row.
    pub fn push_question(&mut self, user: &str) {
        match self.0.last_mut() {
            Some(last) if last.role == Role::User => {
                last.content.push_str("\n\n");
                last.content.push_str(user);
            }
            _ => self.0.push(Message::new(Role::User, user)),
        }
    }

    /// Adds an answer and the reasoning before it.
    pub fn push_answer(&mut self, text: String, reasoning: Option<String>) {
        self.0.push(Message { role: Role::Assistant, content: text, reasoning_content: reasoning });
    }

    fn first_turn(&self) -> usize {
        usize::from(self.system().is_some())
    }
}
