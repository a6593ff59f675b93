//! Which template a model's messages are laid out with.

use super::builtin::{self, Builtin};
use super::{Context, Template, TemplateError, TokenTexts};
use crate::chat::conversation::{Message, Role};
use crate::chat::special::SpecialTexts;
use dair_core::format::tokenizer::MAX_TEMPLATE_BYTES;
use dair_core::text::Vocabulary;
use std::io::Read;
use std::path::Path;

/// A template, and what is to be said about it.
#[derive(Debug)]
pub struct Choice {
    /// The template.
    pub template: Template,
    /// One line for the user, where it is not the one that he expects.
    pub note: Option<String>,
}

/// Takes the template that `asked` for: the name of a built-in one, or a Jinja file. Else the model's own; where that is none
/// that we can run, a built-in one that lays messages out like it, or that belongs to the tokens of the vocabulary.
///
/// # Errors
/// A name or a file that is none; a model of which no template is known.
pub fn choose(asked: Option<&str>, vocab: &Vocabulary<'_>) -> Result<Choice, TemplateError> {
    if let Some(asked) = asked {
        return Ok(Choice { template: open(asked, Some(vocab))?, note: None });
    }
    let stands_in = |builtin: &Builtin, why: String| -> Result<Choice, TemplateError> {
        let note =
            format!("{why}: the built-in template {} stands in for it (--template chooses another)", builtin.name);
        Ok(Choice { template: Template::builtin(builtin, Some(vocab))?, note: Some(note) })
    };
    match vocab.header().chat_template {
        Some(source) => match own(source, vocab) {
            Ok(template) => Ok(Choice { template, note: None }),
            Err(error) => match builtin::of_template(source) {
                Some(builtin) => stands_in(builtin, error.to_string()),
                None => Err(TemplateError::Unusable(Box::new(error))),
            },
        },
        None => match builtin::of_vocabulary(&SpecialTexts::new(vocab)) {
            Some(builtin) => stands_in(builtin, "the tokenizer file has no chat template".to_owned()),
            None => Err(TemplateError::None),
        },
    }
}

/// Checks that there is a built-in template of this name or a file.
///
/// # Errors
/// Neither is there: names the built-in ones.
pub fn check_name(asked: &str) -> Result<(), TemplateError> {
    match builtin::of_name(asked) {
        None if !Path::new(asked).exists() => Err(TemplateError::Unknown(asked.to_owned())),
        _ => Ok(()),
    }
}

/// The built-in template of this name, or the one in this file.
///
/// # Errors
/// Neither is there, or the file is no template.
pub fn open(asked: &str, vocab: Option<&Vocabulary<'_>>) -> Result<Template, TemplateError> {
    if let Some(builtin) = builtin::of_name(asked) {
        return Template::builtin(builtin, vocab);
    }
    check_name(asked)?;
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(u64::from(MAX_TEMPLATE_BYTES) + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let refused = |reason: String| TemplateError::File(asked.to_owned(), reason);
    let bytes = read(Path::new(asked)).map_err(|error: std::io::Error| refused(error.to_string()))?;
    if bytes.len() > MAX_TEMPLATE_BYTES as usize {
        return Err(refused(format!("more than the {MAX_TEMPLATE_BYTES} bytes that a template may have")));
    }
    let source = String::from_utf8(bytes)
        .map_err(|error| refused(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
    let tokens = vocab.map(|vocab| TokenTexts::of_template(vocab, &source)).unwrap_or_default();
    Template::new(asked, &source, tokens)
}

/// The model's own template, if it can lay out a question.
fn own(source: &str, vocab: &Vocabulary<'_>) -> Result<Template, TemplateError> {
    let template = Template::new("the model's chat template", source, TokenTexts::of_template(vocab, source))?;
    let messages = template.messages(&[Message::new(Role::User, "Hello")]);
    match template.render(Context { messages, tools: None, think: None, add_generation_prompt: true }, None) {
        // What it says itself, it says about these messages.
        Ok(_) | Err(TemplateError::Raised(..)) => Ok(template),
        Err(error) => Err(error),
    }
}
