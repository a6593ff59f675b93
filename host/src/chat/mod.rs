//! Conversations: messages to text, text to tokens and back, and the loop that generates an answer.
//!
//! In the order in which a turn flows: a [`conversation`] holds the messages, a [`template`] lays them out as one text, the
//! [`tokenizer`] turns it into tokens, and [`generate`] feeds what the KV cache does not have yet and samples the answer.

pub mod conversation;
pub mod generate;
pub mod special;
pub mod template;
#[cfg(test)]
mod tests;
pub mod tokenizer;
