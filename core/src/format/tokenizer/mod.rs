//! The `.t` tokenizer file: a vocabulary of scored byte strings, the ids that end a text, a chat template.
//!
//! All integers are little-endian.
//!
//! ```text
//! current format                                  old format (read only)
//! i32  0x00567124                                 i32 0x00567123
//! i32  bytes so far, pairs included               u32 vocab size
//! (i32 key, i32 value) ...                        u32 longest token in bytes
//! [skipped bytes]        legacy, key 8            i32 BOS id   (-1: none)
//! UTF-8 chat template    key 7 bytes              i32 EOS id   (-1: none)
//! i32  EOS id ...        key 9 of them            i32 padding id, unused
//! then for each token, in both formats: f32 score, i32 length, bytes
//! ```
//!
//! | key | value | key | value |
//! |----:|-------|----:|-------|
//! | 0 | version, 1 | 6 | another EOS id (legacy) |
//! | 1 | vocab size | 7 | bytes of the chat template |
//! | 2 | longest token in bytes | 8 | bytes to skip after the pairs (legacy) |
//! | 3 | BOS id | 9 | number of EOS ids after the template |
//! | 4 | EOS id (legacy) | 10 | 1: a conversation starts with BOS |
//! | 5 | padding id, unused | | |
//!
//! [`TokenizerFile::parse`] reads, [`TokenizerWriter`] writes; `parse(write(x)) == x`.
//! Lookups and the text codec are built on top of it in [`crate::text`].

mod error;
mod read;
mod write;

pub use error::TokenizerError;
pub use read::{TokenizerFile, Tokens};
pub use write::{TokenizerWriteError, TokenizerWriter};

/// First four bytes of the current format.
pub const MAGIC: u32 = 0x0056_7124;
/// First four bytes of the old format.
pub const MAGIC_OLD: u32 = 0x0056_7123;

/// Largest vocabulary read or written. The largest in use have about 260,000 tokens.
pub const MAX_VOCAB_SIZE: u32 = 1 << 20;
/// Longest token read or written, in bytes. Vocabularies in use have runs of blanks of a few hundred.
pub const MAX_TOKEN_BYTES: u32 = 4096;
/// Longest chat template read or written, in bytes.
pub const MAX_TEMPLATE_BYTES: u32 = 1 << 20;
/// Most EOS ids read or written, legacy keys included.
pub const MAX_EOS: usize = 32;
/// Largest file read, in bytes: offsets into it fit 32 bits everywhere.
pub const MAX_FILE_BYTES: usize = 1 << 30;

mod key {
    pub const VERSION: i32 = 0;
    pub const VOCAB_SIZE: i32 = 1;
    pub const MAX_TOKEN_LEN: i32 = 2;
    pub const BOS: i32 = 3;
    pub const EOS: i32 = 4;
    pub const PAD: i32 = 5;
    pub const CHAT_EOS: i32 = 6;
    pub const TEMPLATE_BYTES: i32 = 7;
    pub const SKIPPED_BYTES: i32 = 8;
    pub const N_EOS: i32 = 9;
    pub const ADD_BOS: i32 = 10;
}

/// Everything in a tokenizer file but the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerHeader<'a> {
    /// Number of tokens; their ids are `0..vocab_size`.
    pub vocab_size: u32,
    /// Length in bytes that no token exceeds.
    pub max_token_len: u32,
    /// Token that begins a conversation. Ids below it are regular, from it on special.
    pub bos: Option<u32>,
    /// Tokens that end a text, in file order: the text of the first closes the turns of a chat.
    pub eos: heapless::Vec<u32, MAX_EOS>,
    /// Whether a conversation starts with the BOS token.
    ///
    /// Files that do not say (the old format, or key 10 missing) count as `true`: they are from the time
    /// when it was always so.
    pub add_bos: bool,
    /// The model's own chat template, a text in Jinja, not empty.
    pub chat_template: Option<&'a str>,
}

impl TokenizerHeader<'_> {
    /// Whether a token belongs to the special ones, which are matched whole in the text and never merged into.
    ///
    /// They are BOS and everything after it; where the file names no BOS, the EOS ids alone.
    pub fn is_special(&self, id: u32) -> bool {
        match self.bos {
            Some(bos) => id >= bos,
            None => self.eos.contains(&id),
        }
    }

    /// Whether a token ends a text.
    pub fn is_eos(&self, id: u32) -> bool {
        self.eos.contains(&id)
    }
}
