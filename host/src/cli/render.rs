//! `dair render`: the text that a template makes of messages.

use super::Failure;
use super::template_args::{TemplateArgs, read_list};
use crate::chat::template::{self, Context, Rendered, TemplateError};
use crate::chat::tokenizer::TokenizerBytes;
use crate::machine::terminal;
use dair_core::text::Vocabulary;
use std::io::IsTerminal;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Without a tokenizer nothing is known of BOS and EOS: built-in templates leave them out, files find them undefined.

Examples:
  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | dair render --messages - --model smollm2.m
  dair render --messages chat.json --template llama3
  dair render --messages chat.json --template my.jinja --tokenizer smollm2.t --tools tools.json --think off";

/// Print the text that a chat template makes of messages.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// JSON list of messages with `role` and `content`, as in the OpenAI API; - for standard input
    #[arg(long, value_name = "FILE")]
    messages: PathBuf,
    /// Model file (.m), whose tokenizer stands beside it
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Tokenizer file (.t) [default: the model's name with .t]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    template: TemplateArgs,
    /// End with the last message instead of the beginning of the next answer
    #[arg(long)]
    no_generation_prompt: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let context = Context {
        messages: read_list(&args.messages, "messages")?,
        tools: args.template.tools()?,
        think: args.template.think(),
        add_generation_prompt: !args.no_generation_prompt,
    };
    let path = args.tokenizer.clone().or_else(|| Some(args.model.as_ref()?.with_extension("t")));
    let rendered = match (path, &args.template.template) {
        (Some(path), asked) => {
            let mut tokenizer = TokenizerBytes::open(&path)?;
            render(asked.as_deref(), tokenizer.tokenizer(None)?.vocabulary(), context)?
        }
        (None, Some(asked)) => template::open(asked, None)?.render(context, None)?,
        (None, None) => return Err(Failure::Line("name a --template, or a --model that has one".to_owned())),
    };
    let end = if std::io::stdout().is_terminal() { "\n" } else { "" };
    Ok(terminal::print(rendered.plain() + end)?)
}

fn render(asked: Option<&str>, vocab: &Vocabulary<'_>, context: Context) -> Result<Rendered, TemplateError> {
    let choice = template::choose(asked, vocab)?;
    if let Some(note) = choice.note {
        terminal::note(format_args!("note: {note}"));
    }
    choice.template.render(context, Some(vocab))
}
