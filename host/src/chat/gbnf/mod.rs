//! llama.cpp's grammars, GBNF, as llguidance takes grammars: in Lark.
//!
//! `read` takes the text apart, with the place of what is wrong; `facts` says of parts how they begin and go on; `places` decides
//! by that which parts are pieces of text, so that the same texts go as there; `write` writes them down.

mod chars;
mod facts;
mod places;
mod read;
mod write;

use std::fmt;

/// Why a text is no grammar: one line with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GbnfError(String);

impl fmt::Display for GbnfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GbnfError {}

/// Whether a grammar is one of llama.cpp's: Lark has no such sign.
pub fn is_gbnf(text: &str) -> bool {
    text.contains("::=")
}

/// The grammar in Lark.
///
/// # Errors
/// What is wrong, and where.
pub fn to_lark(text: &str) -> Result<String, GbnfError> {
    let grammar = read::read(text)?;
    write::lark(&places::Pieces::find(&grammar)?)
}

#[cfg(test)]
mod tests;
