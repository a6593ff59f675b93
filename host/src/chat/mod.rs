//! Conversations: messages to text, text to tokens and back, and the loop that generates an answer.
//!
//! In the order in which a turn flows: a [`conversation`] holds the messages, a [`template`] lays them out as one text, the
//! [`tokenizer`] turns it into tokens, and [`generate`] feeds what the KV cache does not have yet and samples the answer, faster
//! where [`speculate`] guesses what it will say. A [`grammar`] keeps an answer in a form; [`tools`] tells calls of tools from text.

pub mod conversation;
pub mod gbnf;
pub mod generate;
pub mod grammar;
pub mod special;
pub mod speculate;
pub mod template;
#[cfg(test)]
mod tests;
pub mod tokenizer;
pub mod tools;
pub mod wording;
