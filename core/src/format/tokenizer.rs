//! The `.t` tokenizer file.
