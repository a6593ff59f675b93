//! Conversations: text to tokens and back, and the loop that generates an answer.

pub mod generate;
pub mod tokenizer;
