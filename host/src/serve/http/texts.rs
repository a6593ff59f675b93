//! Messages and texts to tokens: what needs no engine, and may take a while.

use super::error::ApiError;
use crate::chat::grammar::{Constraint, Form, FormError, Forms};
use crate::chat::template::{Context, Rendered, Template};
use crate::chat::tokenizer::Tokenizer;
use crate::chat::tools::Family;
use axum::http::StatusCode;
use dair_core::text::{EncodeOptions, Vocabulary};
use std::sync::OnceLock;

/// Does what may take a while, as templates and tokenizers do, where it holds up no other request.
///
/// # Errors
/// Those of `work`.
pub async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
}

/// The tokenizer of the model, and the template of its conversations, if it has one.
#[derive(Debug)]
pub struct Texts {
    tokenizer: &'static Tokenizer<'static>,
    template: Option<Template>,
    /// Made when they are asked for first.
    forms: OnceLock<Result<Forms, FormError>>,
}

/// A prompt that is ready to be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its text, where it was made of one.
    pub text: String,
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
}

impl Texts {
    /// Of a tokenizer that lives as long as the process.
    pub const fn new(tokenizer: &'static Tokenizer<'static>, template: Option<Template>) -> Self {
        Self { tokenizer, template, forms: OnceLock::new() }
    }

    /// The tokens of the model.
    pub fn vocabulary(&self) -> &Vocabulary<'static> {
        self.tokenizer.vocabulary()
    }

    /// How the model writes calls of tools, if its template is told of tools.
    pub fn family(&self) -> Option<Family> {
        self.template.as_ref()?.tools()
    }

    /// Reads the form of an answer, as [`Forms::read`] does.
    ///
    /// # Errors
    /// As there.
    pub fn constraint(&self, form: &Form, reasoning_ends: Option<&str>) -> Result<Constraint, FormError> {
        let forms = self.forms.get_or_init(|| Forms::new(self.tokenizer));
        forms.as_ref().map_err(Clone::clone)?.read(form, reasoning_ends)
    }

    /// Lays out a conversation.
    ///
    /// # Errors
    /// The model has no template, or what that refuses.
    pub fn conversation(&self, context: Context) -> Result<Prompt, ApiError> {
        let template = self.template.as_ref().ok_or_else(|| {
            let line = "the model has no chat template: start the server with --template, or ask for /v1/completions";
            ApiError::new(StatusCode::BAD_REQUEST, line)
        })?;
        let refused = |error: &dyn std::fmt::Display| ApiError::field("messages", error.to_string());
        let rendered: Rendered = template.render(context, Some(self.vocabulary())).map_err(|error| refused(&error))?;
        let tokens = self.tokenizer.encode_rendered(&rendered).map_err(|error| refused(&error))?;
        Ok(Prompt { text: rendered.text, tokens })
    }

    /// Encodes a text.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn text(&self, field: &str, text: &str, options: EncodeOptions) -> Result<Prompt, ApiError> {
        let tokens = self
            .tokenizer
            .encode(text.as_bytes(), options)
            .map_err(|error| ApiError::field(field, error.to_string()))?;
        Ok(Prompt { text: text.to_owned(), tokens })
    }

    /// Checks tokens that a client has chosen itself.
    ///
    /// # Errors
    /// There are none, or some that the model has not.
    pub fn tokens(&self, field: &str, tokens: Vec<u32>) -> Result<Prompt, ApiError> {
        let vocab_size = self.vocabulary().vocab_size();
        if let Some(id) = tokens.iter().find(|id| **id >= vocab_size) {
            return Err(ApiError::field(field, format!("{field} has the token {id}; the model has {vocab_size}")));
        }
        if tokens.is_empty() {
            return Err(ApiError::field(field, format!("{field} has no tokens; give one at least")));
        }
        Ok(Prompt { text: String::new(), tokens })
    }

    /// The text of tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode_text(ids)
    }

    /// The bytes of a token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary().bytes(id).unwrap_or_default()
    }
}
