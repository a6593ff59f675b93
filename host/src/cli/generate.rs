//! `dair generate`: continues a prompt, or answers one question.

use super::model_args::{ModelArgs, TextArgs};
use super::report::Report;
use super::sample_args::SampleArgs;
use super::stream::Stream;
use super::{Failure, interrupt};
use crate::chat::generate::{Generator, Request};
use crate::chat::tokenizer::TokenizerBytes;
use crate::model::Model;
use dair_core::text::{ChatTemplate, EncodeOptions, Message, Role};
use std::io::Write;
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  dair generate --model smollm2.m --prompt 'Once upon a time' --max-tokens 64
  dair generate --model smollm2.m --chat --prompt 'What is the capital of France?' --temperature 0
  dair generate --model smollm2.m --file story.txt --json | jq .decode.tokens_per_second
  dair generate --model smollm2.m --prompt Hello --workers 10.0.0.2:9990 10.0.0.3:9990";

/// Continue a prompt, or answer one question.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    text: TextArgs,
    /// Take the text as a question to the model: put it into the model's chat template
    #[arg(long)]
    chat: bool,
    /// Instructions that stand above the question
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: u32,
    /// Go on when the model says that it is done
    #[arg(long)]
    ignore_eos: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sample: SampleArgs,
    /// Print text and figures as one JSON object at the end
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print the text and nothing else
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let (sampler, seed) = args.sample.sampler()?;
    let text = args.text.read()?;
    let files = args.model.files(args.quiet)?;
    let model = Model::open(&files.model)?;
    let mut tokenizer = TokenizerBytes::open(&files.tokenizer)?;
    let tokenizer = tokenizer.tokenizer(Some(model.header().vocab_size))?;
    let vocab = tokenizer.vocabulary();
    let text = if args.chat { question(&ChatTemplate::new(vocab, None)?, args.system.as_deref(), &text) } else { text };
    let tokens = tokenizer.encode(text.as_bytes(), EncodeOptions { start: true, special: true })?;
    interrupt::catch();
    args.model.with_root(&model, args.max_tokens, |root| {
        let load = start.elapsed();
        let mut generator = Generator::new(vocab, sampler, args.sample.stop.clone());
        let mut stream = Stream::new(args.json);
        let request =
            Request { prompt: &tokens, position: 0, max_tokens: args.max_tokens, ignore_eos: args.ignore_eos };
        let answer = generator.run(root, request, |event| stream.event(event));
        let text = stream.finish(answer.is_err())?;
        let answer = answer?;
        let report = Report { load, seed, repack: root.repack_time(), answer: &answer, network: root.network_bytes() };
        if args.json {
            writeln!(std::io::stdout().lock(), "{}", report.json(&text))?;
        } else if !args.quiet {
            report.print();
        }
        Ok(())
    })
}

/// The text of a conversation of one question.
fn question(template: &ChatTemplate<'_>, system: Option<&str>, user: &str) -> String {
    let messages: Vec<Message<'_>> = system
        .map(|text| Message { role: Role::System, text })
        .into_iter()
        .chain([Message { role: Role::User, text: user }])
        .collect();
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = template.render(&messages, &mut text);
    text
}
